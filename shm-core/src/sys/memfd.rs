//! Anonymous memory files and their seals.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, OFlags, SealFlags};
use rustix::io::Errno;

use super::fault;

/// The seals this crate knows, as they stand on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SealState(SealFlags);

impl SealState {
    /// The length is fixed for good.
    pub(crate) const LENGTH: SealState = SealState(SealFlags::SHRINK.union(SealFlags::GROW));
    /// No new writable mapping and no `write`, for anybody; and no further seals.
    pub(crate) const CONTENTS: SealState =
        SealState(SealFlags::FUTURE_WRITE.union(SealFlags::SEAL));

    /// The file can never become shorter, so no access to a mapping of it raises SIGBUS.
    pub(crate) fn keeps_length(self) -> bool {
        self.0.contains(SealFlags::SHRINK)
    }

    /// Nobody can map the file writable from now on.
    pub(crate) fn refuses_writers(self) -> bool {
        self.0.intersects(SealFlags::FUTURE_WRITE | SealFlags::WRITE)
    }
}

/// A memfd that can be sealed, is closed on exec and cannot be executed; `huge`: on 2 MiB pages
/// of the huge page pool.
pub(crate) fn create_memfd(label: &str, huge: bool) -> io::Result<OwnedFd> {
    fault::point("memfd_create")?;
    let mut flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    if huge {
        flags |= MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    }
    match rustix::fs::memfd_create(label, flags | MemfdFlags::NOEXEC_SEAL) {
        // Kernels before 6.3 do not know the flag.
        Err(Errno::INVAL) => Ok(rustix::fs::memfd_create(label, flags)?),
        made => Ok(made?),
    }
}

pub(crate) fn add_seals(fd: BorrowedFd<'_>, seals: SealState) -> io::Result<()> {
    fault::point("fcntl F_ADD_SEALS")?;
    Ok(rustix::fs::fcntl_add_seals(fd, seals.0)?)
}

/// The seals of a memfd; other files answer with EINVAL.
pub(crate) fn seals(fd: BorrowedFd<'_>) -> io::Result<SealState> {
    fault::point("fcntl F_GET_SEALS")?;
    Ok(SealState(rustix::fs::fcntl_get_seals(fd)?))
}

/// The page size of a file on the huge page pool; `None`: the file has ordinary pages.
///
/// `stat` does not tell: where huge pages are enabled for shared memory it shows their size for
/// ordinary memfds too.
pub(crate) fn pool_page_bytes(fd: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;
    fault::point("fstatfs")?;
    let stat = rustix::fs::fstatfs(fd)?;
    Ok((stat.f_type == HUGETLBFS_MAGIC).then_some(stat.f_bsize.cast_unsigned()))
}

/// Whether the description of `fd` may read, and whether it may write.
pub(crate) fn access_mode(fd: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
    fault::point("fcntl F_GETFL")?;
    let flags = rustix::fs::fcntl_getfl(fd)?;
    if flags.contains(OFlags::PATH) {
        return Ok((false, false));
    }
    let mode = flags & OFlags::RWMODE;
    Ok((mode == OFlags::RDONLY || mode == OFlags::RDWR, mode != OFlags::RDONLY))
}
