//! The only unsafe of the facade.
//!
//! Invariants:
//! - S1: [`Control`], [`ParticipantRecord`] and [`Seat`] consist of atomics only, so that any bytes are valid
//!   values of them and a reference to them may coexist with writers in other processes.
//! - S2: a pointer kept here was checked for bounds and alignment by [`SharedBytes`] when it was
//!   made, and the `SharedBytes` beside it keeps the mapping, whose length never shrinks.
//! - S3: nothing outside this module gets a reference through which it could store to a mapping
//!   that is not writable: [`ObservedControl`] hands out loads, never references.
//! - S4: a lent job is kept alive and untouched by its lender until it has run: a [`Desk`] has one
//!   job at a time, and [`Desk::lend`] does not return before that job is back, nor unwind.
//! - S5: a plain reference to elements is made by `unsafe` functions only, whose callers promise that
//!   nobody writes to them meanwhile. Where the elements lie was checked, for bounds and alignment,
//!   when their tensor was made, against a storage that lies in its region; mappings begin at pages.

mod desk;
mod elements;
#[cfg(test)]
pub(crate) mod fork;

use std::ptr::NonNull;
use std::time::Duration;

use cuda_ipc::HostMemory;
use shm_core::{Shared, SharedBytes, ViewError};
use shm_lock::Onlooker;
use shm_lock::park::park_low_half;

use crate::stream::copy::{self, Destination};
use crate::stream::counters::WriterFigures;
use crate::stream::description::Description;
use crate::stream::layout::{
    CONTROL_OFFSET, Control, PARTICIPANTS, PARTICIPANTS_OFFSET, ParticipantRecord, SEATS, Seat,
};
use crate::stream::wait::Signal;
use crate::sync::{AtomicU64, Ordering, fence};

pub(crate) use desk::Desk;

// SAFETY: S1; `repr(C)` and made of atomics, arrays of atomics and structs of such.
unsafe impl Shared for Control {}
// SAFETY: S1.
unsafe impl Shared for ParticipantRecord {}
// SAFETY: S1.
unsafe impl Shared for Seat {}

/// The control memory of a stream, mapped writable.
#[derive(Debug)]
pub(crate) struct SharedControl {
    control: NonNull<Control>,
    participants: NonNull<ParticipantRecord>,
    bytes: SharedBytes,
}

// SAFETY: the pointers lead to atomics only (S1) and live as long as `bytes` (S2).
unsafe impl Send for SharedControl {}
// SAFETY: as for Send.
unsafe impl Sync for SharedControl {}

impl SharedControl {
    /// Takes control memory that starts at the first byte of the file.
    pub(crate) fn new(bytes: SharedBytes) -> Result<Self, ViewError> {
        let control = NonNull::from(bytes.at::<Control>(CONTROL_OFFSET)?);
        let participants =
            bytes.slice_at::<ParticipantRecord>(PARTICIPANTS_OFFSET, PARTICIPANTS)?;
        let participants = NonNull::from(participants).cast();
        Ok(Self { control, participants, bytes })
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// The control page.
    #[inline]
    pub(crate) fn control(&self) -> &Control {
        // SAFETY: S2; only shared references to atomics exist (S1).
        unsafe { self.control.as_ref() }
    }

    /// The table of participants.
    #[inline]
    pub(crate) fn participants(&self) -> &[ParticipantRecord] {
        let table = NonNull::slice_from_raw_parts(self.participants, PARTICIPANTS);
        // SAFETY: S2, checked for `PARTICIPANTS` records; S1.
        unsafe { table.as_ref() }
    }
}

/// The seats of a CUDA stream, mapped writable.
#[derive(Debug)]
pub(crate) struct SharedSeats {
    seats: NonNull<Seat>,
    _bytes: SharedBytes,
}

// SAFETY: as for `SharedControl`.
unsafe impl Send for SharedSeats {}
// SAFETY: as for `SharedControl`.
unsafe impl Sync for SharedSeats {}

impl SharedSeats {
    /// Takes memory that starts at the first seat.
    pub(crate) fn new(bytes: SharedBytes) -> Result<Self, ViewError> {
        let seats = NonNull::from(bytes.slice_at::<Seat>(0, SEATS)?).cast();
        Ok(Self { seats, _bytes: bytes })
    }

    /// All of them.
    #[inline]
    pub(crate) fn seats(&self) -> &[Seat] {
        let seats = NonNull::slice_from_raw_parts(self.seats, SEATS);
        // SAFETY: S2, checked for `SEATS` of them; S1.
        unsafe { seats.as_ref() }
    }
}

/// A part of a mapping that devices write to.
#[derive(Clone, Debug)]
pub(crate) struct SharedPage(pub(crate) SharedBytes);

// SAFETY: `SharedBytes` keeps its mapping, of which the process has nothing but atomics and copies that
// bear races; it never moves, and is not mapped privately.
unsafe impl HostMemory for SharedPage {
    fn start(&self) -> NonNull<u8> {
        NonNull::new(self.0.as_ptr()).unwrap_or(NonNull::dangling())
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn is_writable(&self) -> bool {
        self.0.is_writable()
    }
}

/// Has `call` called when this process returns from `main` or calls `exit`, before what was registered
/// earlier: a driver's own, say, that is in use by now.
pub(crate) fn at_exit(call: extern "C" fn()) {
    // SAFETY: a function of this library, which is there for as long as the process; where a library is
    // unloaded before, the C library calls it then. Without room for one more it is not called.
    let _ = unsafe { libc::atexit(call) };
}

/// A load that is defined on memory without write permission: of those, the standard library admits
/// relaxed ones only, so the ordering is a fence of its own.
#[inline]
fn load(word: &AtomicU64, order: Ordering) -> u64 {
    let value = word.load(Ordering::Relaxed);
    if order != Ordering::Relaxed {
        fence(Ordering::Acquire);
    }
    value
}

/// The control memory of a stream, mapped without write permission.
#[derive(Debug)]
pub(crate) struct ObservedControl {
    control: NonNull<Control>,
    participants: NonNull<ParticipantRecord>,
    _bytes: SharedBytes,
}

// SAFETY: as for `SharedControl`.
unsafe impl Send for ObservedControl {}
// SAFETY: as for `SharedControl`.
unsafe impl Sync for ObservedControl {}

impl ObservedControl {
    /// Takes control memory that starts at the first byte of the file.
    pub(crate) fn new(bytes: SharedBytes) -> Result<Self, ViewError> {
        // SAFETY: S3: the reference becomes a pointer at once and is only loaded through.
        let control = unsafe { bytes.at_for_loads::<Control>(CONTROL_OFFSET) }?;
        let control = NonNull::from(control);
        // SAFETY: S3, as above.
        let participants = unsafe {
            bytes.slice_at_for_loads::<ParticipantRecord>(PARTICIPANTS_OFFSET, PARTICIPANTS)
        }?;
        let participants = NonNull::from(participants).cast();
        Ok(Self { control, participants, _bytes: bytes })
    }

    fn words(&self) -> &Control {
        // SAFETY: S2 and S1; the methods below only load (S3).
        unsafe { self.control.as_ref() }
    }

    /// The control word.
    #[inline]
    pub(crate) fn ctl(&self, order: Ordering) -> u64 {
        load(&self.words().ctl.0, order)
    }

    /// The sequence word of a slot.
    #[inline]
    pub(crate) fn seq(&self, slot: usize, order: Ordering) -> u64 {
        load(&self.words().slots[slot].seq, order)
    }

    /// The ticket of the last frame of a slot that is complete in the file of a mirrored stream.
    #[inline]
    pub(crate) fn mirrored(&self, slot: usize) -> u64 {
        load(&self.words().device.slots[slot].0.mirrored, Ordering::Acquire)
    }

    /// The word that readers of a mirrored stream's file park on.
    pub(crate) fn arrivals(&self) -> u64 {
        load(&self.words().arrivals.0, Ordering::Acquire)
    }

    /// The description of the frame in a slot.
    pub(crate) fn description(&self, slot: usize) -> Description {
        Description::load(&self.words().slots[slot])
    }

    /// Counters of the write side.
    pub(crate) fn writer_counters(&self) -> WriterFigures {
        WriterFigures::load(&self.words().writer.0)
    }

    /// Whether whoever holds the stream's lock is gone; `None` if nobody holds it.
    pub(crate) fn holder_is_gone(&self, onlooker: &Onlooker) -> Option<bool> {
        let control = self.words();
        onlooker.holder_is_gone(&control.lock.0, |entry| {
            // Only entries that were ever used: the rest of the table may be a hole in the file.
            let used = control.roster.high_water().min(PARTICIPANTS);
            let table = NonNull::slice_from_raw_parts(self.participants, used);
            // SAFETY: S2, checked for `PARTICIPANTS` records; S1; only loaded through (S3).
            let table = unsafe { table.as_ref() };
            table.get(entry).map(|record| &record.identity)
        })
    }

    fn word(&self, signal: Signal) -> &AtomicU64 {
        match signal {
            Signal::Publication => &self.words().ctl.0,
            Signal::Arrival => &self.words().arrivals.0,
        }
    }

    /// Where a word is, for the kernel to wait on.
    pub(crate) fn address(&self, signal: Signal) -> *const u64 {
        self.word(signal).as_ptr()
    }

    /// Sleeps while the low half of a word is `expected`, as far as the kernel sees it.
    pub(crate) fn park(&self, signal: Signal, expected: u32, at_most: Duration) {
        park_low_half(self.word(signal), expected, at_most);
    }
}

/// Replaces the contents of `vec` by `bytes` bytes of shared memory, without zeroing first.
///
/// On failure the vector is left empty.
pub(crate) fn read_vec(
    vec: &mut Vec<u8>,
    shared: &SharedBytes,
    start: usize,
    bytes: usize,
) -> Result<(), ViewError> {
    vec.clear();
    vec.reserve_exact(bytes);
    let spare = &mut vec.spare_capacity_mut()[..bytes];
    copy::from_shared(shared, start, Destination::Uninitialised(spare))?;
    // SAFETY: `bytes` were reserved, and a successful `from_shared` has written every byte of its
    // destination: that is what `SharedBytes::read_uninit` promises, part by part.
    unsafe { vec.set_len(bytes) };
    Ok(())
}
