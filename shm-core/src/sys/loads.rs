//! References into read-only mappings: the unsafe half of [`SharedBytes`].

use super::Shared;
use crate::view::{SharedBytes, ViewError};

impl SharedBytes {
    /// As [`at`](SharedBytes::at), also on a read-only mapping.
    ///
    /// # Errors
    /// Out of bounds, or not aligned for `T`.
    ///
    /// # Safety
    /// Unless the mapping [is writable](SharedBytes::is_writable), the caller only loads: at most
    /// eight bytes at once and with `Ordering::Relaxed`, the one kind of atomic access that the
    /// standard library admits on read-only memory. Order it with
    /// [`fence(Acquire)`](std::sync::atomic::fence) after the load. Any store faults.
    #[inline]
    pub unsafe fn at_for_loads<T: Shared>(&self, offset: usize) -> Result<&T, ViewError> {
        // SAFETY: the caller's contract is the same.
        let one = unsafe { self.slice_at_for_loads::<T>(offset, 1) }?;
        Ok(&one[0])
    }

    /// As [`slice_at`](SharedBytes::slice_at), also on a read-only mapping.
    ///
    /// # Errors
    /// Out of bounds, or not aligned for `T`.
    ///
    /// # Safety
    /// As [`at_for_loads`](SharedBytes::at_for_loads).
    #[inline]
    pub unsafe fn slice_at_for_loads<T: Shared>(
        &self,
        offset: usize,
        count: usize,
    ) -> Result<&[T], ViewError> {
        let (mapping, offset, bytes) = self.place::<T>(offset, count)?;
        let pointer = mapping.pointer(offset, bytes);
        // SAFETY: S1 for the lifetime (the view holds the mapping), S2 (`pointer` checked the
        // range, `place` the alignment), S3, and S5 by the caller's promise.
        Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), count) })
    }
}
