//! Seats: whose devices may have work with the slots of a stream.
//!
//! A seat outlives its process: until that is gone for good, with whatever its devices were doing, its
//! words may still be written, and nobody else may count on them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cuda_ipc::{Fate, ProcessMark};

use crate::ring::Identity;
use crate::ring::device::{DeviceWords, Use, release_use};
use crate::stream::device::lanes::{Lanes, Next, Queue};
use crate::stream::layout::{LANES_PER_SEAT, SITTER_ENTRY_BITS, Seat};
use crate::stream::memory::StreamMemory;
use crate::sync::{Ordering, fence};

/// Numbers beyond this are damage.
const NUMBER_MAX: u64 = 1 << 62;

/// Who sits, or sat, in a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sitter {
    pub(super) who: Identity,
    /// `None`: it has not come to telling, and so no device has done anything for it.
    pub(super) process: Option<ProcessMark>,
}

impl Sitter {
    /// Whether its process has closed its files, after which no device does anything for it. The end of
    /// its threads comes earlier.
    pub(super) fn is_gone(self) -> bool {
        self.process.is_none_or(|it| it.fate() == Fate::Gone)
    }

    fn load(seat: &Seat) -> Option<Self> {
        let words = &seat.sitter.0;
        // What is told is about whoever sat there throughout.
        let told = words.told.load(Ordering::Acquire);
        let process = ProcessMark {
            pid: u32::try_from(words.pid.load(Ordering::Relaxed)).unwrap_or(0),
            start_ticks: words.start_ticks.load(Ordering::Relaxed),
            pid_namespace: words.pid_namespace.load(Ordering::Relaxed),
            time_namespace: words.time_namespace.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        let word = words.who.load(Ordering::Relaxed);
        let is_whole = told == word && words.told.load(Ordering::Relaxed) == told;
        (word != 0).then(|| Self { who: who_of(word), process: is_whole.then_some(process) })
    }

    fn tell(seat: &Seat, word: u64, process: ProcessMark) {
        let words = &seat.sitter.0;
        words.told.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        words.pid.store(u64::from(process.pid), Ordering::Relaxed);
        words.start_ticks.store(process.start_ticks, Ordering::Relaxed);
        words.pid_namespace.store(process.pid_namespace, Ordering::Relaxed);
        words.time_namespace.store(process.time_namespace, Ordering::Relaxed);
        words.told.store(word, Ordering::Release);
    }
}

fn word_of(who: Identity) -> u64 {
    who.id << SITTER_ENTRY_BITS | who.entry as u64
}

fn who_of(word: u64) -> Identity {
    let entry = usize::try_from(word & ((1 << SITTER_ENTRY_BITS) - 1)).unwrap_or_default();
    Identity { entry, id: word >> SITTER_ENTRY_BITS }
}

/// Whether nothing of a participant that has ended is going on any more, on a device either. True of
/// those who had no seat, or lost it: only they do whose work is over.
pub(crate) fn is_gone(memory: &StreamMemory, who: Identity) -> bool {
    let sitters = memory.seats().iter().filter_map(Sitter::load);
    sitters.filter(|sitter| sitter.who.id == who.id).all(Sitter::is_gone)
}

/// Who has the seat of a lane.
pub(super) fn user(memory: &StreamMemory, it: Use) -> Option<Identity> {
    Sitter::load(memory.seats().get(it.lane / LANES_PER_SEAT)?).map(|sitter| sitter.who)
}

/// A seat of this process.
#[derive(Debug)]
pub(super) struct OwnSeat {
    memory: Arc<StreamMemory>,
    index: usize,
    word: u64,
    lanes: Mutex<Lanes>,
}

impl OwnSeat {
    /// Takes a free one, or that of a process that is gone. `None`: there is none.
    pub(super) fn take(
        memory: &Arc<StreamMemory>,
        me: Identity,
        is_gone: impl Fn(Sitter) -> bool,
    ) -> Option<Self> {
        let word = word_of(me);
        let (index, before, lasts) = (0..memory.seats().len()).find_map(|index| {
            let seat = &memory.seats()[index];
            let before = match Sitter::load(seat) {
                None => 0,
                // Left behind by this process, with uses that had not ended.
                Some(sitter) if sitter.who == me => word,
                Some(sitter) if is_gone(sitter) => word_of(sitter.who),
                Some(_) => return None,
            };
            let lasts = last_numbers(memory, index)?;
            let taken = seat.sitter.0.who.compare_exchange(
                before,
                word,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            taken.is_ok().then_some((index, before, lasts))
        })?;
        if before != word {
            Sitter::tell(&memory.seats()[index], word, ProcessMark::own());
            // Nobody writes these any more: what they owe is paid, and numbers go on from there.
            for (lane, number) in lasts.into_iter().enumerate() {
                release_use(&**memory, Use { lane: index * LANES_PER_SEAT + lane, number });
            }
        }
        let lanes = Mutex::new(Lanes::new(index * LANES_PER_SEAT, lasts));
        Some(Self { memory: Arc::clone(memory), index, word, lanes })
    }

    /// The next use by a queue; held until the use is noted, so that uses are queued in their order.
    pub(super) fn next(&self, queue: Queue) -> (Next, MutexGuard<'_, Lanes>) {
        let mut lanes = self.lanes();
        let next = lanes.next(queue, |it| self.is_over(it));
        (next, lanes)
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self, it: Use) -> bool {
        self.memory.done(it.lane).load(Ordering::Acquire) >= it.number
    }
}

impl Drop for OwnSeat {
    fn drop(&mut self) {
        // Otherwise it is this process's until that is gone.
        if self.lanes().last().all(|it| self.is_over(it)) {
            let who = &self.memory.seats()[self.index].sitter.0.who;
            let _ = who.compare_exchange(self.word, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

/// The greatest number of each lane of a seat, over all slots; `None` if they are damaged.
fn last_numbers(memory: &StreamMemory, index: usize) -> Option<[u64; LANES_PER_SEAT]> {
    let seat = &memory.seats()[index];
    let mut lasts = [0; LANES_PER_SEAT];
    for (lane, last) in lasts.iter_mut().enumerate() {
        let done = memory.done(index * LANES_PER_SEAT + lane).load(Ordering::Acquire);
        let used = seat.used[lane].iter().map(|number| number.load(Ordering::Acquire));
        *last = used.fold(done, u64::max);
    }
    lasts.iter().all(|number| *number < NUMBER_MAX).then_some(lasts)
}
