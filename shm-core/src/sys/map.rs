//! Mappings: an owned address range over a file, and every access into one.

use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use super::{Shared, copy, fault, huge_page_bytes, page_bytes};

/// What becomes of stores to a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stores {
    /// There are none.
    Forbidden,
    /// They reach the file and everybody who maps it.
    Shared,
    /// Each page that is stored to becomes this mapping's own; no memory is set aside for that.
    Private,
}

/// A mapping of a file, unmapped on drop (S1).
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// `len` rounded up to the file's page size: what was mapped and will be unmapped.
    mapped: usize,
    stores: Stores,
}

// SAFETY: S1, the range belongs to this value wherever it lives, and S3, S4: every access through
// a shared borrow is atomic or opaque, so threads may hold it together.
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset`; both `offset` and the mapping keep to pages of
    /// `page` bytes, and from one huge page on the address is chosen so that whole huge pages of
    /// the file can back it.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        page: usize,
        stores: Stores,
    ) -> io::Result<Mapping> {
        assert!(page.is_power_of_two() && page >= page_bytes(), "a page size the kernel knows");
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let mapped = len.checked_next_multiple_of(page).filter(|&m| m > 0).ok_or_else(invalid)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| invalid())?;
        let align = huge_page_bytes();
        let base = if mapped >= align && align > page {
            map_congruent(fd, offset, mapped, align, stores)?
        } else {
            map_at(std::ptr::null_mut(), fd, offset, mapped, stores)?
        };
        Ok(Mapping { base, len, mapped, stores })
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_writable(&self) -> bool {
        self.stores != Stores::Forbidden
    }

    #[inline]
    pub(crate) fn is_private(&self) -> bool {
        self.stores == Stores::Private
    }

    #[inline]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The pointer to `bytes` bytes at `offset`.
    #[inline]
    pub(super) fn pointer(&self, offset: usize, bytes: usize) -> *mut u8 {
        let fits = offset.checked_add(bytes).is_some_and(|end| end <= self.len);
        assert!(fits, "an access must lie inside its mapping");
        // Wrapping arithmetic stays in the provenance of the mapping; S2 has just been checked.
        self.base.as_ptr().wrapping_add(offset)
    }

    #[inline]
    fn writable_pointer(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(self.is_writable(), "a store needs a writable mapping");
        self.pointer(offset, bytes)
    }

    /// Copies from `offset` into local memory.
    #[inline]
    pub(crate) fn read(&self, offset: usize, target: &mut [u8]) {
        let source = self.pointer(offset, target.len());
        // SAFETY: S2 for the source, S8 for the exclusive target, S4 for the racing bytes.
        unsafe { copy::copy(target.as_mut_ptr(), source, target.len()) }
    }

    /// Copies from `offset` into local memory that need not be initialised; it is afterwards.
    #[inline]
    pub(crate) fn read_uninit(&self, offset: usize, target: &mut [MaybeUninit<u8>]) {
        let source = self.pointer(offset, target.len());
        // SAFETY: as in `read`; the target is only written.
        unsafe { copy::copy(target.as_mut_ptr().cast(), source, target.len()) }
    }

    /// Copies local memory to `offset`.
    #[inline]
    pub(crate) fn write(&self, offset: usize, source: &[u8]) {
        let target = self.writable_pointer(offset, source.len());
        // SAFETY: S2, S5 for the target, S8 for the source, S4 for the racing bytes.
        unsafe { copy::copy(target, source.as_ptr(), source.len()) }
    }

    /// Sets `range` to `value`.
    pub(crate) fn fill(&self, range: Range<usize>, value: u8) {
        let target = self.writable_pointer(range.start, range.len());
        // SAFETY: S2, S5 for the target, S4 for the racing bytes.
        unsafe { copy::fill(target, value, range.len()) }
    }

    /// Copies `bytes` bytes between two mappings, which may be the same.
    pub(crate) fn copy_from(&self, offset: usize, from: &Mapping, at: usize, bytes: usize) {
        let target = self.writable_pointer(offset, bytes);
        let source = from.pointer(at, bytes);
        // SAFETY: S2 for both, S5 for the target, S4; overlap is allowed here.
        unsafe { copy::copy_overlapping(target, source, bytes) }
    }

    /// `count` consecutive `T` at `offset`.
    #[inline]
    pub(crate) fn shared<T: Shared>(&self, offset: usize, count: usize) -> &[T] {
        let bytes = size_of::<T>().checked_mul(count).expect("a length that fits the mapping");
        let pointer = self.writable_pointer(offset, bytes);
        assert!(pointer.addr().is_multiple_of(align_of::<T>()), "an aligned offset");
        // SAFETY: S1 for the lifetime, S2, S3 (`T` is `Shared`: any bits, atomics only), S5.
        unsafe { std::slice::from_raw_parts(pointer.cast(), count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // A fault at this point can only kill: there is nobody to take an error.
        let _ = fault::point("munmap");
        // SAFETY: S1, the range is this value's own and nothing borrows it any more.
        let done = unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
        debug_assert_eq!(done, 0, "the range was mapped by this value");
    }
}

impl Stores {
    fn protection(self) -> libc::c_int {
        match self {
            Stores::Forbidden => libc::PROT_READ,
            Stores::Shared | Stores::Private => libc::PROT_READ | libc::PROT_WRITE,
        }
    }

    fn sharing(self) -> libc::c_int {
        match self {
            Stores::Forbidden | Stores::Shared => libc::MAP_SHARED,
            Stores::Private => libc::MAP_PRIVATE | libc::MAP_NORESERVE,
        }
    }
}

fn mapped_at(address: *mut libc::c_void) -> io::Result<NonNull<u8>> {
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
}

/// Maps `bytes` of `fd` at `address`, which is null or lies in a range that the caller owns and
/// uses for nothing else.
fn map_at(
    address: *mut libc::c_void,
    fd: BorrowedFd<'_>,
    offset: libc::off_t,
    bytes: usize,
    stores: Stores,
) -> io::Result<NonNull<u8>> {
    fault::point("mmap")?;
    let fixed = if address.is_null() { 0 } else { libc::MAP_FIXED };
    // SAFETY: S1, either the kernel picks a free range, or MAP_FIXED replaces part of a
    // reservation that only the caller of this private function knows.
    let mapped = unsafe {
        libc::mmap(
            address,
            bytes,
            stores.protection(),
            stores.sharing() | fixed,
            fd.as_raw_fd(),
            offset,
        )
    };
    mapped_at(mapped)
}

fn unmap(address: *mut u8, bytes: usize) {
    if bytes > 0 {
        // SAFETY: S1, called only for parts of a reservation that the caller owns.
        let done = unsafe { libc::munmap(address.cast(), bytes) };
        debug_assert_eq!(done, 0, "part of an own reservation");
    }
}

/// Maps at an address that leaves the same remainder by `align` as the file offset, without which
/// no huge page of the file can be mapped whole.
fn map_congruent(
    fd: BorrowedFd<'_>,
    offset: libc::off_t,
    bytes: usize,
    align: usize,
    stores: Stores,
) -> io::Result<NonNull<u8>> {
    let reserved =
        bytes.checked_add(align).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
    fault::point("mmap reservation")?;
    // SAFETY: an anonymous, inaccessible mapping at an address of the kernel's choice.
    let reservation = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            reserved,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    let start = mapped_at(reservation)?.as_ptr();
    let wanted = offset.cast_unsigned() as usize % align;
    let lead = (wanted + align - start.addr() % align) % align;
    let base = match map_at(start.wrapping_add(lead).cast(), fd, offset, bytes, stores) {
        Ok(base) => base,
        Err(error) => {
            unmap(start, reserved);
            return Err(error);
        }
    };
    unmap(start, lead);
    unmap(start.wrapping_add(lead + bytes), reserved - lead - bytes);
    Ok(base)
}
