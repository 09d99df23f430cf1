//! A namespace of its own for every test, checked to be empty afterwards.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

use shared_tensor::DType;
use shared_tensor::shm::Namespace;
use shared_tensor::stream::StreamOptions;

/// A namespace that fails the test if it leaves a file behind.
pub(crate) struct Scratch {
    namespace: Namespace,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("st-it.{}.{number}.", std::process::id());
        Self { namespace: Namespace::new("/dev/shm", &prefix).expect("a valid prefix") }
    }

    /// A stream of 1,000 bytes.
    pub(crate) fn small(&self) -> StreamOptions {
        StreamOptions::new(DType::U8, [1000]).namespace(self.namespace.clone())
    }
}

impl Deref for Scratch {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let prefix = self.namespace.prefix().to_owned();
        let left: Vec<_> = std::fs::read_dir(self.namespace.directory())
            .expect("/dev/shm can be read")
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|file| file.starts_with(&prefix))
            .collect();
        for file in &left {
            let _ = std::fs::remove_file(self.namespace.directory().join(file));
        }
        if !std::thread::panicking() {
            assert!(left.is_empty(), "left behind: {left:?}");
        }
    }
}

/// For waits that must end: far longer than any machine needs, so that a hang is a failure.
pub(crate) fn watchdog() -> shared_tensor::stream::Wait<'static> {
    shared_tensor::stream::Wait::for_at_most(std::time::Duration::from_secs(60))
}
