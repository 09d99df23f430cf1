//! The types that may be referred to in memory which other processes write.

use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
};

/// Types that live in memory which other processes write while we look.
///
/// Implemented for the fixed-width atomics and arrays of them. Implement it for your own structs
/// of atomics to reach a whole record by [`SharedBytes::at`](crate::SharedBytes::at).
///
/// # Safety
/// - `Self` is an atomic, an array of `Shared` types, or a `#[repr(C)]` or `#[repr(transparent)]`
///   struct of `Shared` types only: no plain integer, no `bool`, no enum, no pointer, no reference.
/// - Every bit pattern of its `size_of` bytes is a valid value, also one a hostile peer stores
///   between two loads.
/// - It has no drop glue, and padding, if any, carries no meaning.
pub unsafe trait Shared: Sync + Sized + 'static {}

macro_rules! shared_atomics {
    ($($atomic:ty),*) => {$(
        // SAFETY: an atomic integer: any bit pattern is valid and all access is atomic.
        unsafe impl Shared for $atomic {}
    )*};
}
shared_atomics!(
    AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicI8, AtomicI16, AtomicI32, AtomicI64
);

// SAFETY: an array adds neither bytes nor meaning to its elements.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}
