//! Opening whatever stands under a path, and finding out whether it is a segment.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use crate::error::OpenError;
use crate::header::{HEADER_BYTES, Header, Image, LAYOUT_VERSION, Malformed};
use crate::identity::{Access, Kind};
use crate::name::SegmentName;
use crate::sys::file::{self, FileStatus};

/// A file that is a segment: its checked header and the descriptor it was read from.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) fd: OwnedFd,
    pub(crate) header: Header,
    pub(crate) status: FileStatus,
}

/// Opens `path` and checks that it is a whole segment. It is not attached yet.
pub(crate) fn open(path: &Path, access: Access) -> Result<Found, OpenError> {
    let fd = file::open_existing(path, access.is_writable())
        .map_err(|source| open_error(path, access, source))?;
    let status = file::status(fd.as_fd()).map_err(os(path, "fstat"))?;
    if !status.is_regular() {
        return Err(not_a_segment(path, format!("it is {}", kind_words(&status))));
    }
    let mut image: Image = [0; HEADER_BYTES as usize];
    let read = file::read_at(fd.as_fd(), &mut image, 0).map_err(os(path, "pread"))?;
    if read < image.len() {
        return Err(not_a_segment(path, format!("it has only {read} bytes")));
    }
    let header = Header::decode(&image).map_err(|malformed| match malformed {
        Malformed::Reason(reason) => not_a_segment(path, reason),
        Malformed::Layout(found) => {
            OpenError::Layout { path: path.to_owned(), found, expected: LAYOUT_VERSION }
        }
    })?;
    if header.total_bytes != status.size {
        let reason = format!(
            "it has {} bytes, its header claims {}; it was cut or extended",
            status.size, header.total_bytes
        );
        return Err(not_a_segment(path, reason));
    }
    Ok(Found { fd, header, status })
}

impl Found {
    /// Refuses a file that was created under another name.
    pub(crate) fn expect_name(&self, path: &Path, name: &SegmentName) -> Result<(), OpenError> {
        if self.header.name == *name {
            return Ok(());
        }
        let found = self.header.name.to_string();
        Err(OpenError::NameMismatch { path: path.to_owned(), found })
    }

    /// Refuses another format, or another version of it.
    pub(crate) fn expect_kind(&self, path: &Path, expected: Kind) -> Result<(), OpenError> {
        let found = self.header.kind;
        let path = || path.to_owned();
        if found.magic != expected.magic {
            return Err(OpenError::OtherKind { path: path(), found, expected });
        }
        if found.version != expected.version {
            let (found, expected) = (found.version, expected.version);
            return Err(OpenError::Version { path: path(), found, expected });
        }
        Ok(())
    }
}

fn open_error(path: &Path, access: Access, source: io::Error) -> OpenError {
    let file = || path.to_owned();
    match (source.kind(), source.raw_os_error()) {
        (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _) => {
            OpenError::NotFound { path: file() }
        }
        (io::ErrorKind::PermissionDenied, _) => {
            OpenError::PermissionDenied { path: file(), writable: access.is_writable(), source }
        }
        (_, Some(libc::ELOOP)) => not_a_segment(path, "it is a symbolic link"),
        (_, Some(libc::EISDIR)) => not_a_segment(path, "it is a directory"),
        (_, Some(libc::ENXIO | libc::ENODEV)) => {
            not_a_segment(path, "it is a socket, a FIFO or a device")
        }
        _ => OpenError::Os { path: file(), call: "open", source },
    }
}

fn kind_words(status: &FileStatus) -> &'static str {
    use rustix::fs::FileType;
    match status.kind {
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Socket => "a socket",
        _ => "no regular file",
    }
}

fn not_a_segment(path: &Path, reason: impl Into<String>) -> OpenError {
    OpenError::NotASegment { path: path.to_owned(), reason: reason.into() }
}

pub(crate) fn os(path: &Path, call: &'static str) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::Os { path: path.to_owned(), call, source }
}
