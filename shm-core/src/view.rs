//! Bounded access to mapped bytes that other processes may change at any time.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use crate::pages::{self, Obtained, Residency};
use crate::sys::{Advice, Mapping, Shared};

/// A range of a mapping: a pointer and a length that keep the mapping alive.
///
/// Cheap to clone and to slice; the memory is unmapped with the last clone. There is no `&[u8]`
/// into it, because another process may write while the reference lives: bytes are copied in and
/// out, and words that both sides touch are reached as atomics.
///
/// A copy that races with a writer yields a mixture of old and new bytes. Detecting that is the
/// caller's protocol; the copies are ordered like relaxed accesses, so put fences around them.
///
/// Give every place one type: atomics of different sizes at overlapping places that race with each
/// other are outside what Rust defines, as they are between processes.
#[derive(Clone)]
pub struct SharedBytes {
    mapping: Arc<Mapping>,
    start: usize,
    len: usize,
}

/// A range that does not lie in a view.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the range {range:?} does not lie in the {len} bytes of this view")]
pub struct OutOfBounds {
    /// The range asked for, in bytes.
    pub range: Range<usize>,
    /// The length of the view, in bytes.
    pub len: usize,
}

/// Why an access to a view was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ViewError {
    /// The access does not lie in the view.
    #[error("{bytes} bytes at offset {offset} do not lie in the {len} bytes of this view")]
    OutOfBounds {
        /// Where the access starts, in bytes.
        offset: usize,
        /// Its length in bytes, at most `usize::MAX`.
        bytes: usize,
        /// The length of the view, in bytes.
        len: usize,
    },
    /// The range does not lie in the view, or ends before it starts.
    #[error("the range {range:?} does not lie in the {len} bytes of this view")]
    Range {
        /// The range asked for, in bytes.
        range: Range<usize>,
        /// The length of the view, in bytes.
        len: usize,
    },
    /// The place is not aligned for the type.
    #[error("offset {offset} is not aligned to the {align} bytes that the type needs")]
    Misaligned {
        /// Where the access starts, in bytes.
        offset: usize,
        /// The alignment needed, in bytes.
        align: usize,
    },
    /// The mapping is read-only.
    #[error("the mapping is read-only; map it with write access")]
    ReadOnly,
}

impl SharedBytes {
    pub(crate) fn whole(mapping: Mapping) -> SharedBytes {
        let len = mapping.len();
        SharedBytes { mapping: Arc::new(mapping), start: 0, len }
    }

    /// The length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing to access.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether stores are possible.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.mapping.is_writable()
    }

    /// The address of the first byte, for foreign interfaces: valid for [`len`](Self::len) bytes
    /// while any clone lives, to be written only if the view [is writable](Self::is_writable).
    pub fn as_ptr(&self) -> *mut u8 {
        self.mapping.base().wrapping_add(self.start)
    }

    /// A part of this view, over the same mapping.
    pub fn slice(&self, range: Range<usize>) -> Result<SharedBytes, OutOfBounds> {
        if range.start > range.end || range.end > self.len {
            return Err(OutOfBounds { range, len: self.len });
        }
        Ok(SharedBytes {
            mapping: Arc::clone(&self.mapping),
            start: self.start + range.start,
            len: range.end - range.start,
        })
    }

    /// The `T` at `offset`, for loads and stores.
    ///
    /// # Errors
    /// Out of bounds, not aligned for `T`, or a read-only mapping.
    #[inline]
    pub fn at<T: Shared>(&self, offset: usize) -> Result<&T, ViewError> {
        Ok(&self.slice_at::<T>(offset, 1)?[0])
    }

    /// The `count` consecutive `T` from `offset` on, for loads and stores.
    ///
    /// # Errors
    /// Out of bounds, not aligned for `T`, or a read-only mapping.
    #[inline]
    pub fn slice_at<T: Shared>(&self, offset: usize, count: usize) -> Result<&[T], ViewError> {
        let (mapping, offset, _) = self.place::<T>(offset, count)?;
        self.require_writable()?;
        Ok(mapping.shared(offset, count))
    }

    /// Copies `target.len()` bytes from `offset` out.
    ///
    /// # Errors
    /// Out of bounds; nothing is copied.
    #[inline]
    pub fn read_into(&self, offset: usize, target: &mut [u8]) -> Result<(), ViewError> {
        let at = self.locate(offset, target.len())?;
        self.mapping.read(at, target);
        Ok(())
    }

    /// As [`read_into`](Self::read_into), into memory that need not be initialised. After `Ok` it
    /// is.
    ///
    /// # Errors
    /// Out of bounds; nothing is copied.
    #[inline]
    pub fn read_uninit(
        &self,
        offset: usize,
        target: &mut [MaybeUninit<u8>],
    ) -> Result<(), ViewError> {
        let at = self.locate(offset, target.len())?;
        self.mapping.read_uninit(at, target);
        Ok(())
    }

    /// Copies `source` to `offset`.
    ///
    /// # Errors
    /// Out of bounds or a read-only mapping; nothing is copied.
    #[inline]
    pub fn write_from(&self, offset: usize, source: &[u8]) -> Result<(), ViewError> {
        let at = self.locate(offset, source.len())?;
        self.require_writable()?;
        self.mapping.write(at, source);
        Ok(())
    }

    /// Sets every byte of `range` to `value`.
    ///
    /// # Errors
    /// Out of bounds or a read-only mapping; nothing is written.
    pub fn fill(&self, range: Range<usize>, value: u8) -> Result<(), ViewError> {
        let at = self.locate_range(&range)?;
        self.require_writable()?;
        self.mapping.fill(at, value);
        Ok(())
    }

    /// Copies `range` of `source` to `offset`. The two may overlap, and may be the same mapping.
    ///
    /// # Errors
    /// Out of bounds on either side, or a read-only target; nothing is copied.
    pub fn copy_from(
        &self,
        offset: usize,
        source: &SharedBytes,
        range: Range<usize>,
    ) -> Result<(), ViewError> {
        let from = source.locate_range(&range)?;
        let at = self.locate(offset, from.len())?;
        self.require_writable()?;
        self.mapping.copy_from(at, &source.mapping, from.start, from.len());
        Ok(())
    }

    /// Faults the pages of `range` in, so that later accesses do not. Reserve them first: beyond
    /// what the file system can hold, this takes all there is and then fails.
    ///
    /// Needs Linux 5.14; on older kernels the report says that nothing was obtained.
    ///
    /// # Errors
    /// Out of bounds. What the kernel refuses is in the report.
    pub fn populate(&self, range: Range<usize>) -> Result<Obtained, ViewError> {
        Ok(pages::populate(&self.mapping, self.locate_range(&range)?))
    }

    /// Keeps the pages of `range` in memory as long as the mapping lives (`mlock`).
    ///
    /// # Errors
    /// Out of bounds. What the kernel refuses, usually by `RLIMIT_MEMLOCK`, is in the report.
    pub fn lock(&self, range: Range<usize>) -> Result<Obtained, ViewError> {
        Ok(pages::obtain(&self.mapping, self.locate_range(&range)?, Advice::Lock))
    }

    /// Puts the pages that `range` touches on huge pages where whole ones fit into the mapping,
    /// populating them. Contents stay; the work is done before this returns, about 1 to 2 ms per
    /// 2 MiB.
    ///
    /// Needs Linux 6.1 (`MADV_COLLAPSE`), no mount option and no privilege.
    ///
    /// # Errors
    /// Out of bounds. What the kernel refuses is in the report.
    pub fn collapse(&self, range: Range<usize>) -> Result<Obtained, ViewError> {
        Ok(pages::collapse(&self.mapping, self.locate_range(&range)?))
    }

    /// How much of the mapping that this view belongs to is in memory, and on which pages, by the
    /// kernel's own account (`/proc/self/smaps`). It walks every mapping of the process:
    /// milliseconds, not for hot paths.
    pub fn residency(&self) -> io::Result<Residency> {
        Residency::of(&self.mapping)
    }

    pub(crate) fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// Where `range` of this view lies in the mapping.
    pub(crate) fn locate_range(&self, range: &Range<usize>) -> Result<Range<usize>, ViewError> {
        if range.start > range.end || range.end > self.len {
            return Err(ViewError::Range { range: range.clone(), len: self.len });
        }
        Ok(self.start + range.start..self.start + range.end)
    }

    /// Where `bytes` bytes at `offset` of this view start in the mapping.
    #[inline]
    fn locate(&self, offset: usize, bytes: usize) -> Result<usize, ViewError> {
        match offset.checked_add(bytes) {
            Some(end) if end <= self.len => Ok(self.start + offset),
            _ => Err(ViewError::OutOfBounds { offset, bytes, len: self.len }),
        }
    }

    /// Where `count` values of type `T` lie: the mapping, the offset in it, and their bytes.
    #[inline]
    pub(crate) fn place<T: Shared>(
        &self,
        offset: usize,
        count: usize,
    ) -> Result<(&Mapping, usize, usize), ViewError> {
        let bytes = size_of::<T>().saturating_mul(count);
        let at = self.locate(offset, bytes)?;
        // The mapping starts at a page; types with a larger alignment need the address.
        if !(self.mapping.base().addr() + at).is_multiple_of(align_of::<T>()) {
            return Err(ViewError::Misaligned { offset, align: align_of::<T>() });
        }
        Ok((&self.mapping, at, bytes))
    }

    #[inline]
    fn require_writable(&self) -> Result<(), ViewError> {
        if self.is_writable() { Ok(()) } else { Err(ViewError::ReadOnly) }
    }
}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedBytes")
            .field("address", &self.as_ptr())
            .field("len", &self.len)
            .field("writable", &self.is_writable())
            .finish_non_exhaustive()
    }
}
