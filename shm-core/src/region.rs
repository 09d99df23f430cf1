//! Memory without a name: a sealed memfd, which travels to other processes as a descriptor.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::error::{MapError, RegionError};
use crate::headroom;
use crate::identity::{Access, Identity};
use crate::segment::map;
use crate::sys::{self, SealState, Stores, file};
use crate::view::SharedBytes;

/// The longest label: the kernel puts `memfd:` in front.
const LABEL_BYTES_MAX: usize = 249;

/// How a region is to be made.
#[derive(Clone, Debug, Default)]
pub struct RegionOptions {
    huge_pages: bool,
}

impl RegionOptions {
    /// Ordinary pages.
    pub fn new() -> RegionOptions {
        RegionOptions::default()
    }

    /// Tries 2 MiB pages from the system's pool (`vm.nr_hugepages`), with the size rounded up to
    /// whole ones; without free ones the region has ordinary pages.
    /// [`Region::page_bytes`] tells which; [`SharedBytes::collapse`] may still improve it.
    #[must_use]
    pub fn huge_pages(mut self, wanted: bool) -> RegionOptions {
        self.huge_pages = wanted;
        self
    }
}

/// Anonymous memory of fixed length that is shared by passing its descriptor.
///
/// The length is sealed: no peer can cut the memory under a mapping. The memory lives until the
/// last descriptor and mapping are gone, whoever made it.
pub struct Region {
    fd: OwnedFd,
    bytes: u64,
    page_bytes: u64,
    access: Access,
    identity: Identity,
}

impl Region {
    /// Makes a region of `bytes` zeroes, with memory reserved for all of them. The label shows up
    /// in `/proc/pid/maps`.
    pub fn create(label: &str, bytes: u64, options: &RegionOptions) -> Result<Region, RegionError> {
        if label.len() > LABEL_BYTES_MAX || label.contains('\0') {
            return Err(RegionError::Label { bytes: label.len() });
        }
        if !(1..=i64::MAX.cast_unsigned()).contains(&bytes) {
            return Err(RegionError::Size { bytes });
        }
        if options.huge_pages
            && let Some(region) = Region::on_huge_pages(label, bytes)?
        {
            return Ok(region);
        }
        if let Some(shortage) = headroom::memory_shortage(bytes) {
            return Err(RegionError::NoSpace { bytes, shortage });
        }
        let fd = sys::create_memfd(label, false).map_err(os("memfd_create"))?;
        file::set_size(fd.as_fd(), bytes).map_err(os("ftruncate"))?;
        file::allocate(fd.as_fd(), 0..bytes).map_err(os("fallocate"))?;
        Region::seal_length(fd)
    }

    /// `None`: the pool has no room, or this kernel has no pool.
    fn on_huge_pages(label: &str, bytes: u64) -> Result<Option<Region>, RegionError> {
        let Ok(fd) = sys::create_memfd(label, true) else { return Ok(None) };
        let page = sys::pool_page_bytes(fd.as_fd()).map_err(os("fstatfs"))?;
        let Some(bytes) = page.and_then(|page| bytes.checked_next_multiple_of(page)) else {
            return Ok(None);
        };
        let made =
            file::set_size(fd.as_fd(), bytes).and_then(|()| file::allocate(fd.as_fd(), 0..bytes));
        match made {
            Ok(()) => Region::seal_length(fd).map(Some),
            Err(_) => Ok(None),
        }
    }

    fn seal_length(fd: OwnedFd) -> Result<Region, RegionError> {
        sys::add_seals(fd.as_fd(), SealState::LENGTH).map_err(os("fcntl F_ADD_SEALS"))?;
        Region::from_fd(fd)
    }

    /// Accepts a descriptor that another process sent.
    ///
    /// It must be a memfd that can be read, is not empty, and whose length is sealed: of anything
    /// else a peer could take the memory away. It need not be one that this crate made.
    pub fn from_fd(fd: OwnedFd) -> Result<Region, RegionError> {
        let refuse = |reason: &str| RegionError::NotARegion { reason: reason.into() };
        let (readable, writable) = sys::access_mode(fd.as_fd()).map_err(os("fcntl F_GETFL"))?;
        if !readable {
            return Err(refuse("it is not open for reading"));
        }
        let status = file::status(fd.as_fd()).map_err(os("fstat"))?;
        if !status.is_regular() {
            return Err(refuse("it is no file"));
        }
        let seals = match sys::seals(fd.as_fd()) {
            Ok(seals) => seals,
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                return Err(refuse(
                    "it is an ordinary file, which anybody could cut; send a memfd",
                ));
            }
            Err(source) => return Err(os("fcntl F_GET_SEALS")(source)),
        };
        if !seals.keeps_length() {
            return Err(refuse("its length is not sealed (F_SEAL_SHRINK)"));
        }
        // The size is read after the seal was seen: it can no longer become smaller.
        let bytes = file::status(fd.as_fd()).map_err(os("fstat"))?.size;
        if bytes == 0 {
            return Err(refuse("it is empty"));
        }
        let writable = writable && !seals.refuses_writers();
        let pool_page_bytes = sys::pool_page_bytes(fd.as_fd()).map_err(os("fstatfs"))?;
        Ok(Region {
            fd,
            bytes,
            page_bytes: pool_page_bytes.unwrap_or(sys::page_bytes() as u64),
            access: if writable { Access::ReadWrite } else { Access::ReadOnly },
            identity: status.identity,
        })
    }

    /// The size in bytes.
    pub fn total_bytes(&self) -> u64 {
        self.bytes
    }

    /// The size of the pages that the file is made of: what mappings are aligned to.
    pub fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// What this handle may do. After [`seal`](Region::seal), or by a read-only descriptor, only
    /// reading.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The file behind the region: equal for every descriptor of one region.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Maps `range`, shared with everybody who maps it. The range starts at a page of
    /// [`page_bytes`](Region::page_bytes), is not empty and ends within the region.
    pub fn map(&self, range: Range<u64>, access: Access) -> Result<SharedBytes, MapError> {
        if !self.access.allows(access) {
            return Err(MapError::ReadOnly);
        }
        map(self.fd.as_fd(), self.bytes, self.page(), range, access.stores())
    }

    /// Maps `range` copy-on-write: stores are possible, whatever this handle may do, and stay in the
    /// mapping; what nobody stored to here shows what others write to the region. No memory is set
    /// aside for copies (`MAP_NORESERVE`).
    ///
    /// # Errors
    /// As [`map`](Region::map), and [`MapError::HugePages`]: a store for which the pool has no free
    /// page would end the process.
    pub fn map_private(&self, range: Range<u64>) -> Result<SharedBytes, MapError> {
        if self.page_bytes > sys::page_bytes() as u64 {
            return Err(MapError::HugePages);
        }
        map(self.fd.as_fd(), self.bytes, self.page(), range, Stores::Private)
    }

    fn page(&self) -> usize {
        usize::try_from(self.page_bytes).unwrap_or(usize::MAX)
    }

    /// From now on nobody can map the region writable or write to it, through any descriptor, for
    /// good. Writable mappings that exist go on: map first, then seal, then hand out.
    ///
    /// Needs Linux 5.1.
    pub fn seal(&mut self) -> io::Result<()> {
        sys::add_seals(self.fd.as_fd(), SealState::CONTENTS)?;
        self.access = Access::ReadOnly;
        Ok(())
    }

    /// A descriptor to hand to readers.
    ///
    /// Unless the region is [sealed](Region::seal), a receiver of the same user can reopen it for
    /// writing through `/proc`; the descriptor itself is read-only in any case.
    pub fn read_only_fd(&self) -> io::Result<OwnedFd> {
        match file::reopen(self.fd.as_fd(), false) {
            Ok(fd) => Ok(fd),
            // Without `/proc`, the seal alone makes any descriptor read-only.
            Err(_) if sys::seals(self.fd.as_fd()).is_ok_and(SealState::refuses_writers) => {
                file::duplicate(self.fd.as_fd())
            }
            Err(error) => Err(error),
        }
    }

    /// The descriptor, to be sent with this handle's access.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("bytes", &self.bytes)
            .field("page_bytes", &self.page_bytes)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

fn os(call: &'static str) -> impl Fn(io::Error) -> RegionError {
    move |source| RegionError::Os { call, source }
}
