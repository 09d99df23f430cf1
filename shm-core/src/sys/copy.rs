//! Copies of bytes that another process may write during the copy (S4).
//!
//! A plain `ptr::copy` would be a data race, which entitles the compiler to anything. On `x86_64`
//! and `aarch64` the C library's routine is called from `asm!`: the compiler knows only that memory
//! was touched, and the copy runs at full speed. Elsewhere (and under miri, which cannot run
//! `asm!`) words are moved by relaxed atomics.

#[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use opaque::{copy, copy_overlapping, fill};

#[cfg(any(miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
pub(super) use words::{copy, copy_overlapping, fill};

#[cfg(all(not(miri), any(target_arch = "x86_64", target_arch = "aarch64")))]
mod opaque {
    use std::arch::asm;

    /// Calls a C function of three word-sized arguments from assembly.
    macro_rules! call {
        ($function:path, $first:expr, $second:expr, $third:expr) => {{
            // Without `nostack` the stack is aligned for a call and its red zone unused.
            #[cfg(target_arch = "x86_64")]
            asm!(
                "call {function}",
                function = sym $function,
                inout("rdi") $first => _,
                inout("rsi") $second => _,
                inout("rdx") $third => _,
                clobber_abi("C"),
            );
            #[cfg(target_arch = "aarch64")]
            asm!(
                "bl {function}",
                function = sym $function,
                inout("x0") $first => _,
                inout("x1") $second => _,
                inout("x2") $third => _,
                clobber_abi("C"),
            );
        }};
    }

    /// Copies `bytes` bytes between ranges that do not overlap.
    ///
    /// # Safety
    /// `source` is readable and `target` writable for `bytes`; the ranges do not overlap; no plain
    /// reference covers either unless it is exclusive to the caller.
    #[inline]
    pub(in crate::sys) unsafe fn copy(target: *mut u8, source: *const u8, bytes: usize) {
        // SAFETY: the caller's contract is memcpy's; the call follows the C convention, all of
        // whose volatile registers are declared clobbered.
        unsafe { call!(libc::memcpy, target, source, bytes) }
    }

    /// As [`copy`], for ranges that may overlap.
    ///
    /// # Safety
    /// As [`copy`], without the condition on overlap.
    #[inline]
    pub(in crate::sys) unsafe fn copy_overlapping(
        target: *mut u8,
        source: *const u8,
        bytes: usize,
    ) {
        // SAFETY: the caller's contract is memmove's; the call is as in `copy`.
        unsafe { call!(libc::memmove, target, source, bytes) }
    }

    /// Sets `bytes` bytes to `value`.
    ///
    /// # Safety
    /// `target` is writable for `bytes` and covered by no plain reference.
    #[inline]
    pub(in crate::sys) unsafe fn fill(target: *mut u8, value: u8, bytes: usize) {
        // SAFETY: the caller's contract is memset's; the call is as in `copy`.
        unsafe { call!(libc::memset, target, u64::from(value), bytes) }
    }
}

#[cfg(any(test, miri, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod words {
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

    const WORD: usize = size_of::<u64>();

    unsafe fn load_byte(at: *const u8) -> u8 {
        // SAFETY: the caller of this module's functions promises a readable byte; one byte is
        // always aligned.
        unsafe { AtomicU8::from_ptr(at.cast_mut()) }.load(Relaxed)
    }

    unsafe fn store_byte(at: *mut u8, value: u8) {
        // SAFETY: as in `load_byte`, for writing.
        unsafe { AtomicU8::from_ptr(at) }.store(value, Relaxed);
    }

    unsafe fn load_word(at: *const u8) -> u64 {
        // SAFETY: the caller promises eight readable bytes and has checked the alignment.
        unsafe { AtomicU64::from_ptr(at.cast_mut().cast()) }.load(Relaxed)
    }

    unsafe fn store_word(at: *mut u8, value: u64) {
        // SAFETY: as in `load_word`, for writing.
        unsafe { AtomicU64::from_ptr(at.cast()) }.store(value, Relaxed);
    }

    /// See `opaque::copy`.
    ///
    /// # Safety
    /// As `opaque::copy`.
    pub(in crate::sys) unsafe fn copy(target: *mut u8, source: *const u8, bytes: usize) {
        let mut done = 0;
        let alike = target.addr() % WORD == source.addr() % WORD;
        while done < bytes {
            let from = source.wrapping_add(done);
            let to = target.wrapping_add(done);
            if alike && from.addr() % WORD == 0 && bytes - done >= WORD {
                // SAFETY: `done + WORD <= bytes`, and both addresses are aligned.
                let word = unsafe { load_word(from) };
                // SAFETY: as above.
                unsafe { store_word(to, word) };
                done += WORD;
            } else {
                // SAFETY: `done < bytes`.
                let byte = unsafe { load_byte(from) };
                // SAFETY: as above.
                unsafe { store_byte(to, byte) };
                done += 1;
            }
        }
    }

    /// See `opaque::copy_overlapping`.
    ///
    /// # Safety
    /// As `opaque::copy_overlapping`.
    pub(in crate::sys) unsafe fn copy_overlapping(
        target: *mut u8,
        source: *const u8,
        bytes: usize,
    ) {
        if target.addr() <= source.addr() || target.addr() >= source.addr() + bytes {
            // Forwards never overwrites what is still to be read.
            // SAFETY: the caller's contract; `copy` moves strictly upwards.
            unsafe { copy(target, source, bytes) };
            return;
        }
        for at in (0..bytes).rev() {
            // SAFETY: `at < bytes`.
            let byte = unsafe { load_byte(source.wrapping_add(at)) };
            // SAFETY: as above.
            unsafe { store_byte(target.wrapping_add(at), byte) };
        }
    }

    /// See `opaque::fill`.
    ///
    /// # Safety
    /// As `opaque::fill`.
    pub(in crate::sys) unsafe fn fill(target: *mut u8, value: u8, bytes: usize) {
        for at in 0..bytes {
            // SAFETY: `at < bytes`.
            unsafe { store_byte(target.wrapping_add(at), value) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{copy, copy_overlapping, fill, words};

    type Copy = unsafe fn(*mut u8, *const u8, usize);
    type Fill = unsafe fn(*mut u8, u8, usize);

    const LEN: usize = 200;

    fn pattern() -> Vec<u8> {
        (0..LEN).map(|at| at as u8 ^ 0x5a).collect()
    }

    /// Both ways of copying, whichever this architecture uses, against the standard library's.
    #[test]
    fn copies_agree_at_every_offset_and_length() {
        for copy in [copy as Copy, words::copy, copy_overlapping, words::copy_overlapping] {
            for from in 0..18 {
                for to in 0..18 {
                    for bytes in (0..40).chain([63, 64, 65, 127, 170]) {
                        let source = pattern();
                        let mut target = vec![0xee; LEN];
                        let mut model = target.clone();
                        // SAFETY: both ranges lie in their vectors, which are different.
                        unsafe { copy(target[to..].as_mut_ptr(), source[from..].as_ptr(), bytes) };
                        model[to..to + bytes].copy_from_slice(&source[from..from + bytes]);
                        assert_eq!(target, model, "{bytes} bytes from {from} to {to}");
                    }
                }
            }
        }
    }

    #[test]
    fn overlapping_copies_move_as_if_through_a_buffer() {
        for copy in [copy_overlapping as Copy, words::copy_overlapping] {
            for from in 0..40 {
                for to in 0..40 {
                    for bytes in [0, 1, 7, 8, 9, 31, 64, 120] {
                        let mut moved = pattern();
                        let mut model = pattern();
                        let base = moved.as_mut_ptr();
                        // SAFETY: both ranges lie in the vector, and may overlap.
                        unsafe { copy(base.wrapping_add(to), base.wrapping_add(from), bytes) };
                        model.copy_within(from..from + bytes, to);
                        assert_eq!(moved, model, "{bytes} bytes from {from} to {to}");
                    }
                }
            }
        }
    }

    #[test]
    fn fills_stop_where_they_should() {
        for fill in [fill as Fill, words::fill] {
            for (at, bytes) in [(0, 0), (3, 1), (5, 100), (0, LEN)] {
                let mut target = [0xee; LEN];
                // SAFETY: the range lies in the array.
                unsafe { fill(target[at..].as_mut_ptr(), 0x11, bytes) };
                let filled = |index| (at..at + bytes).contains(&index);
                assert!((0..LEN).all(|i| target[i] == if filled(i) { 0x11 } else { 0xee }));
            }
        }
    }
}
