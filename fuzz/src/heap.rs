//! How much memory an input may take.

use std::cell::Cell;

use crate::sys;

/// Whatever the input: buffers, and the megabyte that serde sets aside before it believes a length.
const FREE_BYTES: i64 = 8 << 20;
/// For each byte of the input: a list in a list in a list is many times larger than its bytes.
const BYTES_PER_BYTE: i64 = 1024;
/// What may stay, of all inputs together: tables that are made at first use.
const KEPT_BYTES: i64 = 1 << 20;

thread_local! {
    static FIRST: Cell<Option<i64>> = const { Cell::new(None) };
}

/// Does `work` with an input of `length` bytes.
///
/// # Panics
/// If it takes memory out of proportion, or does not give it back.
pub(crate) fn bounded(length: usize, work: impl FnOnce()) {
    let before = sys::live();
    sys::restart_peak();
    work();
    let taken = sys::peak() - before;
    let limit = FREE_BYTES + BYTES_PER_BYTE * i64::try_from(length).unwrap_or(i64::MAX >> 10);
    assert!(taken <= limit, "{length} bytes took {taken} bytes of memory");
    let first = FIRST.get().unwrap_or(before);
    FIRST.set(Some(first));
    let kept = sys::live() - first;
    assert!(kept <= KEPT_BYTES, "{kept} bytes of memory were not given back");
}

#[cfg(test)]
mod tests {
    use super::bounded;

    #[test]
    fn a_large_allocation_is_found() {
        let outcome = std::panic::catch_unwind(|| bounded(10, || drop(vec![0_u8; 32 << 20])));
        assert!(outcome.is_err());
        bounded(10, || drop(vec![0_u8; 1 << 20]));
    }

    #[test]
    fn what_is_kept_is_found() {
        let mut kept = Vec::new();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..1000 {
                bounded(10, || kept.push(vec![0_u8; 10_000]));
            }
        }));
        assert!(outcome.is_err());
    }
}
