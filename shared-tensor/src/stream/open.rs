//! Opening streams by name, at once or when they appear.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use shm_core::{Access, Namespace, OpenError, Segment, SegmentName};
use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::stream::Stream;
use crate::stream::attachment::Attachment;
use crate::stream::layout::KIND;

/// How a stream is opened.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    namespace: Namespace,
    read_only: bool,
    lock_memory: bool,
}

impl OpenOptions {
    /// The default: `/dev/shm/st.`, for reading and writing if the file's mode allows it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Directory and prefix of the file.
    #[must_use]
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Refuse to make writers from this handle. The payload is mapped without write permission;
    /// where the file's mode allows it the control page is still writable, for leases and waits.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Keep the whole stream in memory (`mlock`), in this process's mapping of it.
    #[must_use]
    pub fn lock_memory(mut self, lock: bool) -> Self {
        self.lock_memory = lock;
        self
    }

    /// Opens a stream that exists.
    ///
    /// A file that may be read but not written gives a handle that copies and waits only.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`], [`ErrorKind::PermissionDenied`], [`ErrorKind::Corrupt`],
    /// [`ErrorKind::Version`].
    pub fn open(&self, name: &str) -> Result<Stream> {
        let name = parse_name(name)?;
        self.open_named(&name)
    }

    /// Opens a stream, waiting for it to be created.
    ///
    /// # Errors
    /// As [`open`](Self::open), but [`ErrorKind::Timeout`] and [`ErrorKind::Interrupted`] instead
    /// of not found.
    pub fn open_when_created(&self, name: &str, wait: &Wait<'_>) -> Result<Stream> {
        let name = parse_name(name)?;
        let started = Instant::now();
        let watch = DirectoryWatch::new(self.namespace.directory())?;
        loop {
            match self.open_named(&name) {
                Err(error) if error.is_not_found() => {}
                outcome => return outcome,
            }
            if wait.is_interrupted() {
                return Err(Error::new(
                    ErrorKind::Interrupted,
                    format!("waiting for stream `{}` was interrupted", name.as_str()),
                ));
            }
            if wait.deadline().is_some_and(|deadline| Instant::now() >= deadline) {
                let what = format!("stream `{}` to be created", name.as_str());
                return Err(Error::timeout(&what, started.elapsed()));
            }
            watch.wait(wait)?;
        }
    }

    fn open_named(&self, name: &SegmentName) -> Result<Stream> {
        let attachment = attach(&self.namespace, name)?;
        if self.lock_memory {
            attachment.lock_memory()?;
        }
        Ok(Stream { attachment, namespace: self.namespace.clone(), read_only: self.read_only })
    }
}

/// Opens and attaches, with write permission where there is one.
pub(crate) fn attach(
    namespace: &Namespace,
    name: &SegmentName,
) -> Result<std::sync::Arc<Attachment>> {
    let segment = match Segment::open(namespace, name, Access::ReadWrite, KIND) {
        Err(OpenError::PermissionDenied { .. }) => {
            Segment::open(namespace, name, Access::ReadOnly, KIND)
        }
        outcome => outcome,
    };
    Attachment::of(segment.map_err(|source| open_error(name, source))?)
}

/// Checks a name once.
pub(crate) fn parse_name(name: &str) -> Result<SegmentName> {
    SegmentName::new(name).map_err(|source| {
        let message = format!("stream name `{}`: {source}", name.escape_debug());
        Error::with_source(ErrorKind::InvalidArgument, message, source)
    })
}

pub(crate) fn open_error(name: &SegmentName, source: OpenError) -> Error {
    let kind = match source {
        OpenError::NotFound { .. } => ErrorKind::NotFound,
        OpenError::PermissionDenied { .. } => ErrorKind::PermissionDenied,
        OpenError::Version { .. } | OpenError::Layout { .. } => ErrorKind::Version,
        OpenError::NotASegment { .. }
        | OpenError::OtherKind { .. }
        | OpenError::NameMismatch { .. } => ErrorKind::Corrupt,
        _ => ErrorKind::Os,
    };
    let message = format!("cannot open stream `{}`: {source}", name.as_str());
    Error::with_source(kind, message, source)
}

/// Tells when something appears in a directory.
struct DirectoryWatch {
    /// Only `None` while it is being dropped.
    events: Option<OwnedFd>,
}

impl Drop for DirectoryWatch {
    fn drop(&mut self) {
        // The kernel takes ten milliseconds and more to close one, for which nobody needs to wait. If
        // there is no thread to be had, the closure is dropped here, and closes it.
        let events = self.events.take();
        let _ = std::thread::Builder::new().name("st-close".into()).spawn(move || drop(events));
    }
}

impl DirectoryWatch {
    fn new(directory: &Path) -> Result<Self> {
        let failed = |source: rustix::io::Errno| {
            let source = std::io::Error::from(source);
            let message = format!("cannot watch `{}`: {source}", directory.display());
            Error::with_source(ErrorKind::Os, message, source)
        };
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = inotify::init(flags).map_err(failed)?;
        let appears = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&events, directory, appears).map_err(failed)?;
        Ok(Self { events: Some(events) })
    }

    /// Sleeps until something appears, a signal comes or the deadline passes; at most 50 ms when
    /// the caller wants to be asked whether to go on.
    fn wait(&self, wait: &Wait<'_>) -> Result<()> {
        let now = Instant::now();
        let mut timeout = wait.deadline().map(|deadline| deadline.saturating_duration_since(now));
        if wait.is_interruptible() {
            let slice = std::time::Duration::from_millis(50);
            timeout = Some(timeout.map_or(slice, |left| left.min(slice)));
        }
        let timeout = timeout.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        });
        let Some(watch) = &self.events else { return Ok(()) };
        let mut polled = [PollFd::new(watch, PollFlags::IN)];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(source) => {
                let source = std::io::Error::from(source);
                let message = format!("cannot wait for files: {source}");
                return Err(Error::with_source(ErrorKind::Os, message, source));
            }
        }
        let mut events = [0_u8; 4096];
        while rustix::io::read(watch, &mut events).is_ok_and(|bytes| bytes > 0) {}
        Ok(())
    }
}
