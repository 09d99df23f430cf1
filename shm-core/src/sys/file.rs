//! Files: open, link, allocate, stat, unlink. Safe calls, each behind a fault point.

use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Gid, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::fault;
use crate::identity::Identity;

/// The largest and the smallest piece given to one `fallocate`.
const ALLOCATION_STEP_BYTES: Range<u64> = 64 << 10..8 << 20;

/// What `stat` tells about a file, reduced to what this crate decides by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileStatus {
    pub(crate) identity: Identity,
    pub(crate) kind: FileType,
    pub(crate) size: u64,
    pub(crate) allocated_bytes: u64,
    pub(crate) links: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl FileStatus {
    pub(crate) fn is_regular(&self) -> bool {
        self.kind == FileType::RegularFile
    }
}

impl From<rustix::fs::Stat> for FileStatus {
    #[expect(
        clippy::useless_conversion,
        clippy::cast_sign_loss,
        clippy::unnecessary_cast,
        reason = "field widths and signs differ between architectures; sizes are never negative"
    )]
    fn from(stat: rustix::fs::Stat) -> Self {
        FileStatus {
            identity: Identity { device: stat.st_dev.into(), inode: stat.st_ino.into() },
            kind: FileType::from_raw_mode(stat.st_mode),
            size: stat.st_size as u64,
            allocated_bytes: (stat.st_blocks as u64).saturating_mul(512),
            links: stat.st_nlink as u64,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }
}

/// Size and room of a file system, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FilesystemSpace {
    /// Zero: the file system names no limit (tmpfs mounted with `size=0`).
    pub(crate) total_bytes: u64,
    pub(crate) available_bytes: u64,
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done.map_err(io::Error::from),
        }
    }
}

fn access_flags(writable: bool) -> OFlags {
    if writable { OFlags::RDWR } else { OFlags::RDONLY }
}

/// A file without a name in `directory`, read and write, mode 0600.
pub(crate) fn open_anonymous(directory: &Path) -> io::Result<OwnedFd> {
    fault::point("open O_TMPFILE")?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(CWD, directory, flags, Mode::RUSR | Mode::WUSR))
}

/// A new file under `path`, read and write, mode 0600; fails when the name exists.
pub(crate) fn open_exclusive(path: &Path) -> io::Result<OwnedFd> {
    fault::point("open O_EXCL")?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    retry(|| rustix::fs::openat(CWD, path, flags, Mode::RUSR | Mode::WUSR))
}

/// Whatever stands under `path`, without following a link and without waiting for the other end
/// of a FIFO.
pub(crate) fn open_existing(path: &Path, writable: bool) -> io::Result<OwnedFd> {
    fault::point("open")?;
    let flags = access_flags(writable)
        | OFlags::CLOEXEC
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY;
    retry(|| rustix::fs::openat(CWD, path, flags, Mode::empty()))
}

/// The path under which `/proc` shows this process's descriptor.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A new open file description of the file behind `fd`.
pub(crate) fn reopen(fd: BorrowedFd<'_>, writable: bool) -> io::Result<OwnedFd> {
    fault::point("open /proc/self/fd")?;
    let flags = access_flags(writable) | OFlags::CLOEXEC;
    retry(|| rustix::fs::openat(CWD, proc_path(fd), flags, Mode::empty()))
}

/// Another descriptor of the same open file description.
pub(crate) fn duplicate(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    fault::point("fcntl F_DUPFD_CLOEXEC")?;
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

pub(crate) fn status(fd: BorrowedFd<'_>) -> io::Result<FileStatus> {
    fault::point("fstat")?;
    Ok(rustix::fs::fstat(fd)?.into())
}

/// `status` of what stands under a name; a symbolic link is not followed.
pub(crate) fn status_at(path: &Path) -> io::Result<FileStatus> {
    fault::point("lstat")?;
    Ok(rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?.into())
}

/// The inode behind a path, links followed: the identity of a namespace under `/proc`.
pub(crate) fn inode_of(path: &Path) -> io::Result<u64> {
    fault::point("stat")?;
    Ok(FileStatus::from(rustix::fs::statat(CWD, path, AtFlags::empty())?).identity.inode)
}

/// Whether this process may name an anonymous file by its descriptor alone.
///
/// The trial asks for the name `.`, which exists everywhere: the kernel looks at the permission
/// first, so EEXIST says "you might" and nothing can have been created.
pub(crate) fn can_link_descriptor(fd: BorrowedFd<'_>, directory: &Path) -> bool {
    fault::point("linkat AT_EMPTY_PATH trial").is_ok()
        && rustix::fs::linkat(fd, "", CWD, directory.join("."), AtFlags::EMPTY_PATH)
            == Err(Errno::EXIST)
}

/// Names an anonymous file by its descriptor.
pub(crate) fn link_descriptor(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    fault::point("linkat AT_EMPTY_PATH")?;
    Ok(rustix::fs::linkat(fd, "", CWD, path, AtFlags::EMPTY_PATH)?)
}

/// Names an anonymous file through `/proc/self/fd`, which needs no privilege on any kernel.
pub(crate) fn link_proc(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    fault::point("linkat /proc/self/fd")?;
    Ok(rustix::fs::linkat(CWD, proc_path(fd), CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// Moves `from` to `to` in one step; fails when `to` exists.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    fault::point("renameat2 RENAME_NOREPLACE")?;
    Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// A second name for `from`; fails when `to` exists.
pub(crate) fn link_name(from: &Path, to: &Path) -> io::Result<()> {
    fault::point("linkat")?;
    Ok(rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())?)
}

pub(crate) fn unlink(path: &Path) -> io::Result<()> {
    fault::point("unlink")?;
    Ok(rustix::fs::unlinkat(CWD, path, AtFlags::empty())?)
}

pub(crate) fn set_size(fd: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    fault::point("ftruncate")?;
    retry(|| rustix::fs::ftruncate(fd, bytes))
}

/// Reserves memory for `range`, in steps, each of which is kept or undone as a whole.
pub(crate) fn allocate(fd: BorrowedFd<'_>, range: Range<u64>) -> io::Result<()> {
    in_steps(range, |start, bytes| {
        fault::point("fallocate")?;
        Ok(rustix::fs::fallocate(fd, FallocateFlags::empty(), start, bytes)?)
    })
}

/// Covers `range` by calls of `allocate(start, bytes)`.
///
/// Many kernels give up and undo the call when a signal arrives, so that under a fast interval
/// timer (a profiler's, for one) a big call would never end: whatever is interrupted is tried again
/// in smaller pieces.
fn in_steps(
    range: Range<u64>,
    mut allocate: impl FnMut(u64, u64) -> io::Result<()>,
) -> io::Result<()> {
    let (mut start, mut step) = (range.start, ALLOCATION_STEP_BYTES.end);
    while start < range.end {
        let bytes = (range.end - start).min(step);
        match allocate(start, bytes) {
            Ok(()) => {
                start += bytes;
                step = (2 * step).min(ALLOCATION_STEP_BYTES.end);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                step = (step / 2).max(ALLOCATION_STEP_BYTES.start);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(crate) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    fault::point("fchmod")?;
    Ok(rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))?)
}

pub(crate) fn set_group(fd: BorrowedFd<'_>, gid: u32) -> io::Result<()> {
    fault::point("fchown")?;
    if gid == u32::MAX {
        // To the kernel this number means: leave the group as it is.
        return Err(Errno::INVAL.into());
    }
    Ok(rustix::fs::fchown(fd, None, Some(Gid::from_raw(gid)))?)
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_at(fd: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        fault::point("pwrite")?;
        let written = retry(|| rustix::io::pwrite(fd, bytes, offset))?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    Ok(())
}

/// Reads from `offset` until `buffer` is full or the file ends; returns the bytes read.
pub(crate) fn read_at(fd: BorrowedFd<'_>, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        fault::point("pread")?;
        let read = retry(|| rustix::io::pread(fd, &mut *rest, offset + filled as u64))?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    Ok(filled)
}

pub(crate) fn space(fd: BorrowedFd<'_>) -> io::Result<FilesystemSpace> {
    fault::point("fstatvfs")?;
    let stat = retry(|| rustix::fs::fstatvfs(fd))?;
    Ok(FilesystemSpace {
        total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

/// The names in a directory, in no order, without `.` and `..`.
pub(crate) fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    fault::point("getdents")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = retry(|| rustix::fs::openat(CWD, directory, flags, Mode::empty()))?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(fd.as_fd())? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    Ok(names)
}

/// Sixteen random bytes.
pub(crate) fn random() -> io::Result<[u8; 16]> {
    fault::point("getrandom")?;
    let mut bytes = [0; 16];
    let filled =
        retry(|| rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty()))?;
    // Up to 256 bytes the kernel gives all or an error.
    assert_eq!(filled, bytes.len(), "getrandom must fill a request this small");
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_allocation_goes_on_in_smaller_pieces() {
        for patience in [64 << 10, 100_000, 1 << 20, 20 << 20] {
            let mut covered = 4096;
            in_steps(4096..(40 << 20) + 5, |start, bytes| {
                assert_eq!(start, covered, "without gaps");
                if bytes > patience {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                covered += bytes;
                Ok(())
            })
            .expect("ends");
            assert_eq!(covered, (40 << 20) + 5, "interrupted beyond {patience} bytes");
        }
    }

    #[test]
    fn an_allocation_ends_at_the_first_error() {
        let mut calls = 0;
        let refused = in_steps(0..100 << 20, |start, _| {
            calls += 1;
            if start < 16 << 20 { Ok(()) } else { Err(io::ErrorKind::StorageFull.into()) }
        });
        assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert_eq!(calls, 3);
    }
}
