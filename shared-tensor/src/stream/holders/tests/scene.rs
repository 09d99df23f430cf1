//! One stream, and one runtime directory for the sockets of its holders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use shm_core::Namespace;

use super::super::name::SocketName;
use crate::stream::attachment::Member;
use crate::stream::{OpenOptions, Stream, StreamOptions};
use crate::tensor::DType;

pub(super) const STREAM: &str = "frames";

/// Where a test plays. Fails it if anything is left there.
pub(super) struct Scene {
    folder: PathBuf,
}

/// The namespace of the scene that belongs to a folder.
pub(super) fn namespace(folder: &Path) -> Namespace {
    Namespace::new(folder.display().to_string(), "st.").unwrap()
}

pub(super) fn runtime_directory(folder: &Path) -> PathBuf {
    folder.join("run")
}

impl Scene {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(format!("/dev/shm/st-holders-{}-{number}", process::id()));
        fs::create_dir(&folder).unwrap();
        Self { folder }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Creates the stream in this process, which holds no chunk.
    pub(super) fn create(&self) -> Stream {
        create(&self.folder)
    }

    pub(super) fn open(&self) -> Stream {
        open(&self.folder)
    }

    /// The files of the sockets, without their locks.
    pub(super) fn sockets(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(runtime_directory(&self.folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().path());
        names.filter(|path| SocketName::is_one(path.file_name().unwrap())).collect()
    }

    /// All files in the runtime directory.
    pub(super) fn files(&self) -> usize {
        fs::read_dir(runtime_directory(&self.folder)).map_or(0, Iterator::count)
    }

    /// Removes what is there of holders that were killed, as the next holder would.
    pub(super) fn sweep(&self) {
        let directory = rpc_uds::RuntimeDirectory::at(runtime_directory(&self.folder)).unwrap();
        directory.remove_dead(SocketName::is_one);
    }
}

pub(super) fn create(folder: &Path) -> Stream {
    StreamOptions::new(DType::U8, [64]).namespace(namespace(folder)).create(STREAM).unwrap()
}

pub(super) fn open(folder: &Path) -> Stream {
    OpenOptions::new().namespace(namespace(folder)).open(STREAM).unwrap()
}

/// What holders need of a stream.
pub(super) fn member(stream: &Stream) -> &Member {
    stream.attachment.member().unwrap()
}

impl Drop for Scene {
    fn drop(&mut self) {
        let left = self.files();
        let _ = fs::remove_dir_all(&self.folder);
        if !std::thread::panicking() {
            assert_eq!(left, 0, "files left in the runtime directory");
        }
    }
}
