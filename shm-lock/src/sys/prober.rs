//! A description kept only to ask who holds which byte.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::ofd;
use crate::fault;

/// Which file a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    pub(crate) fn of(file: impl AsFd) -> io::Result<Self> {
        fault::point("identify file")?;
        Self::behind(file.as_fd().as_raw_fd())
    }

    /// The file that `path` itself leads to, not one that it is a symbolic link to.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        fault::point("identify path")?;
        let status = rustix::fs::lstat(path)?;
        Ok(Self { device: status.st_dev, number: status.st_ino })
    }

    fn behind(fd: RawFd) -> io::Result<Self> {
        let mut status = MaybeUninit::<libc::stat>::uninit();
        // SAFETY: `fstat` writes one `stat` or fails, and changes nothing else (S6).
        if unsafe { libc::fstat(fd, status.as_mut_ptr()) } == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fstat` succeeded, so it wrote the whole structure.
        let status = unsafe { status.assume_init() };
        Ok(Self { device: status.st_dev, number: status.st_ino })
    }
}

/// Where the positions of probers' descriptions stand. Nobody reads or writes there, so a position
/// is a mark by which a description is known again; each prober of a process has its own.
const FIRST_MARK: i64 = 0x5a_0000_0000;
static PROBERS: AtomicU32 = AtomicU32::new(0);

/// A descriptor that may have been closed, and its number given to another file, behind our back:
/// `close_range(3, ~0)` is what daemons do. It is therefore kept as a number, and no answer given
/// through it counts unless the number leads, before and after, to the marked description.
#[derive(Debug)]
pub(crate) struct Prober {
    fd: AtomicI32,
    inode: Inode,
    mark: i64,
}

impl Prober {
    /// Keeps `file`, a description of `inode` of its own, to ask through.
    pub(crate) fn keep(file: OwnedFd, inode: Inode) -> io::Result<Self> {
        let mark = FIRST_MARK + i64::from(PROBERS.fetch_add(1, Ordering::Relaxed));
        let prober = Self { fd: AtomicI32::new(-1), inode, mark };
        prober.replace(file)?;
        Ok(prober)
    }

    /// Asks through `file` from now on. The old number is forgotten, not closed, unless it is
    /// still ours.
    pub(crate) fn replace(&self, file: OwnedFd) -> io::Result<()> {
        fault::point("mark prober")?;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(self.mark.unsigned_abs()))?;
        let old = self.fd.swap(file.into_raw_fd(), Ordering::AcqRel);
        self.close(old);
        Ok(())
    }

    /// Whether somebody else's description holds `byte`; `None` if this cannot be told.
    pub(crate) fn is_held(&self, byte: u64) -> Option<bool> {
        let fd = self.fd.load(Ordering::Acquire);
        if !self.is_ours(fd) {
            return None;
        }
        let held = ofd::is_held(fd, byte).ok()?;
        self.is_ours(fd).then_some(held)
    }

    fn is_ours(&self, fd: RawFd) -> bool {
        // SAFETY: asking for the current position moves nothing (S6).
        let position = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
        position == self.mark && Inode::behind(fd).is_ok_and(|inode| inode == self.inode)
    }

    fn close(&self, fd: RawFd) {
        if self.is_ours(fd) {
            // SAFETY: the number leads to the description that only this prober has marked; if
            // another thread had closed it and opened the same file at the same position under
            // the same number just now, a descriptor would be lost, not memory.
            unsafe { libc::close(fd) };
        }
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.close(self.fd.load(Ordering::Acquire));
    }
}
