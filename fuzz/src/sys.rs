//! Counts what is on the heap, per thread, so that a target can say how much an input may take.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has taken and not given back; less than none if it gave back others'.
    static LIVE: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(bytes: i64) {
    // A thread that is about to end counts no more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        PEAK.with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn bytes(layout: Layout) -> i64 {
    i64::try_from(layout.size()).unwrap_or(i64::MAX)
}

// SAFETY: everything is the system allocator's; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(bytes(layout));
        // SAFETY: the caller's promise about `layout` is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-bytes(layout));
        // SAFETY: the caller's promise that `pointer` came from `alloc` with `layout` is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Bytes on the heap now.
pub(crate) fn live() -> i64 {
    LIVE.get()
}

/// The most bytes on the heap since the last [`restart_peak`].
pub(crate) fn peak() -> i64 {
    PEAK.get()
}

pub(crate) fn restart_peak() {
    PEAK.set(live());
}
