//! Seats: whose devices may have work with the slots of a stream.
//!
//! A seat outlives its process: until that is gone for good, with whatever its devices were doing, its
//! words may still be written, and nobody else may count on them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cuda_ipc::{Fate, ProcessMark};

use crate::ring::Identity;
use crate::ring::device::{DeviceWords, Use, release_use, settled};
use crate::ring::word::{SLOTS_MAX, Seq};
use crate::stream::device::lanes::{Lanes, Next, Queue};
use crate::stream::device::mender::Mender;
use crate::stream::device::{settle, watch};
use crate::stream::layout::{LANES_PER_SEAT, SITTER_ENTRY_BITS, Seat};
use crate::stream::memory::StreamMemory;
use crate::sync::{AtomicU64, Ordering, fence};

/// Numbers beyond this are damage.
const NUMBER_MAX: u64 = 1 << 62;

/// Who sits, or sat, in a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sitter {
    pub(super) who: Identity,
    /// `None`: it has not come to telling, and so no device has done anything for it.
    pub(super) process: Option<ProcessMark>,
    index: usize,
}

impl Sitter {
    /// Whether its process has closed its files, after which no device does anything for it. The end of
    /// its threads comes earlier.
    pub(super) fn is_gone(self) -> bool {
        self.process.is_none_or(|it| it.fate() == Fate::Gone)
    }

    /// Whether no device fills anything for it any more. It is asked of those that `has_ended` is true of whether
    /// they are gone.
    pub(super) fn fills_nothing(
        self,
        memory: &StreamMemory,
        has_ended: impl Fn(Identity) -> bool,
    ) -> bool {
        has_ended(self.who) && self.is_gone() || self.is_lost(memory)
    }

    /// Whether nobody has to wait for what devices read for it, as its process is not there, though it may have
    /// closed the stream before, or the devices do nothing more. What is still read for the dead harms nobody.
    pub(super) fn reads_for_nobody(
        self,
        memory: &StreamMemory,
        has_ended: impl Fn(Identity) -> bool,
    ) -> bool {
        let lives = || self.process.is_some_and(|it| it.fate() == Fate::Alive);
        has_ended(self.who) && !lives() || self.is_lost(memory)
    }

    /// Whether it has said that its contexts are lost.
    fn is_lost(self, memory: &StreamMemory) -> bool {
        let lost = &memory.seats()[self.index].sitter.0.lost;
        lost.load(Ordering::Acquire) == word_of(self.who)
    }

    fn load(memory: &StreamMemory, index: usize) -> Option<Self> {
        let words = &memory.seats().get(index)?.sitter.0;
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
        let process = is_whole.then_some(process);
        (word != 0).then(|| Self { who: who_of(word), process, index })
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

pub(crate) fn word_of(who: Identity) -> u64 {
    who.id << SITTER_ENTRY_BITS | who.entry as u64
}

pub(crate) fn who_of(word: u64) -> Identity {
    let entry = usize::try_from(word & ((1 << SITTER_ENTRY_BITS) - 1)).unwrap_or_default();
    Identity { entry, id: word >> SITTER_ENTRY_BITS }
}

/// Whether nothing of a participant that has ended is going on any more, on a device either. True of
/// those who had no seat, or lost it: only they do whose work is over.
pub(crate) fn is_gone(memory: &StreamMemory, who: Identity) -> bool {
    sitters_of(memory, who).all(Sitter::is_gone)
}

/// Whether no device fills anything for a participant any more.
pub(crate) fn fills_nothing(
    memory: &StreamMemory,
    who: Identity,
    has_ended: impl Fn(Identity) -> bool,
) -> bool {
    // First: it may take a seat until then.
    let has_ended = has_ended(who);
    let mut sitters = sitters_of(memory, who).peekable();
    (has_ended || sitters.peek().is_some())
        && sitters.all(|sitter| sitter.fills_nothing(memory, |_| has_ended))
}

fn sitters_of(memory: &StreamMemory, who: Identity) -> impl Iterator<Item = Sitter> {
    let sitters = (0..memory.seats().len()).filter_map(|index| Sitter::load(memory, index));
    sitters.filter(move |sitter| sitter.who.id == who.id)
}

/// Whose devices were told to fill a slot and have not: each with the ticket of its last frame there.
pub(super) fn fills(memory: &StreamMemory, slot: usize) -> impl Iterator<Item = (Sitter, u64)> {
    let settled = settled(memory, slot);
    memory.seated().filter_map(move |index| {
        let seat = &memory.seats()[index];
        // In this order: whoever sits there then has cleared what the one before had written, and who has not
        // come to telling has told no device anything.
        let sitter = Sitter::load(memory, index).filter(|sitter| sitter.process.is_some())?;
        let ticket = seat.written[slot].load(Ordering::Acquire);
        (settled < ticket).then_some((sitter, ticket))
    })
}

/// Whether all who told a device to fill a slot are gone, and who mends it.
pub(crate) fn is_abandoned(
    memory: &StreamMemory,
    slot: usize,
    has_ended: impl Fn(Identity) -> bool,
) -> bool {
    let words = memory.slot_words(slot);
    let is_mended = settled(memory, slot) < words.mended.load(Ordering::Acquire);
    let mender = who_of(words.mended_by.load(Ordering::Acquire));
    fills(memory, slot).all(|(sitter, _)| sitter.fills_nothing(memory, &has_ended))
        && (!is_mended || fills_nothing(memory, mender, &has_ended))
}

/// Ends the uses of the dead, who are among those that `has_ended` is true of: nobody waits for them any more.
pub(crate) fn release_uses_of_the_dead(
    memory: &StreamMemory,
    has_ended: impl Fn(Identity) -> bool,
) {
    for index in 0..memory.seats().len() {
        // In this order: they are those of whoever sits there then, or of somebody before.
        let Some(lasts) = last_numbers(memory, index) else { continue };
        let Some(sitter) = Sitter::load(memory, index) else { continue };
        let lanes = lasts.into_iter().enumerate();
        let uses = lanes.map(|(lane, number)| Use { lane: index * LANES_PER_SEAT + lane, number });
        let left: Vec<_> =
            uses.filter(|it| memory.done(it.lane).load(Ordering::Acquire) < it.number).collect();
        if !left.is_empty() && sitter.reads_for_nobody(memory, &has_ended) {
            for it in left {
                release_use(memory, it);
            }
        }
    }
}

/// Who has the seat of a lane.
pub(super) fn user(memory: &StreamMemory, it: Use) -> Option<Sitter> {
    Sitter::load(memory, it.lane / LANES_PER_SEAT)
}

/// A seat of this process. Let go of, it is given back when the work that was queued is over.
#[derive(Debug)]
pub(super) struct OwnSeat(Arc<Taken>);

/// A seat, and what was queued by whoever has it.
#[derive(Debug)]
pub(super) struct Taken {
    memory: Arc<StreamMemory>,
    index: usize,
    word: u64,
    lanes: Mutex<Lanes>,
    /// Of each slot: the ticket of the last frame that a device was told to fill it with, and the queue, if
    /// it is known again.
    written: Mutex<[(u64, Option<Queue>); SLOTS_MAX]>,
    /// Of the contexts that it is used in.
    menders: Mutex<Vec<Arc<Mender>>>,
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
            let before = match Sitter::load(memory, index) {
                None => 0,
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
        // SYNC: seated. Before any use is noted, which whoever looks for uses has to see first.
        memory.shared.control().seated.fetch_or(1 << index, Ordering::AcqRel);
        let seat = &memory.seats()[index];
        for ticket in &seat.written {
            // What was told before was told by somebody who is gone.
            ticket.store(0, Ordering::Relaxed);
        }
        // It may be this participant's from before, of contexts that it does not use here.
        seat.sitter.0.lost.store(0, Ordering::Release);
        Sitter::tell(&memory.seats()[index], word, ProcessMark::own());
        if before != 0 {
            // Nobody writes these any more: what they owe is paid, and numbers go on from there.
            for (lane, number) in lasts.into_iter().enumerate() {
                release_use(&**memory, Use { lane: index * LANES_PER_SEAT + lane, number });
            }
        }
        let lanes = Mutex::new(Lanes::new(index * LANES_PER_SEAT, lasts));
        let memory = Arc::clone(memory);
        let (written, menders) = Default::default();
        let taken = Arc::new(Taken { memory, index, word, lanes, written, menders });
        settle::note(&taken);
        Some(Self(taken))
    }

    /// Says that work with the slots will be queued in a mender's context. `false`: others count on it that nothing
    /// will be, as the contexts before were lost.
    pub(super) fn use_in(&self, mender: &Arc<Mender>) -> bool {
        let mut menders = self.0.menders();
        if menders.iter().all(|known| !Arc::ptr_eq(known, mender)) {
            menders.push(Arc::clone(mender));
        }
        !self.0.is_lost()
    }

    /// Whether it was said that nothing is queued for it any more.
    pub(super) fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// The next use by a queue; held until the use is noted, so that uses are queued in their order.
    pub(super) fn next(&self, queue: Option<Queue>) -> (Next, MutexGuard<'_, Lanes>) {
        let mut lanes = self.0.lanes();
        let next = lanes.next(queue, |it| self.0.has_ended(it));
        (next, lanes)
    }

    /// Says to others that a device is told to fill a slot with a frame, and gives what was said before. The
    /// caller has the stream's lock.
    pub(super) fn say_write(&self, slot: usize, ticket: u64) -> u64 {
        let word = &self.0.memory.seats()[self.0.index].written[slot];
        let before = word.load(Ordering::Relaxed);
        word.store(ticket, Ordering::Release);
        before
    }

    /// Notes a frame that a device was told to fill a slot with, in a queue. The caller has the stream's lock.
    pub(super) fn note_write(&self, queue: Option<Queue>, slot: usize, seq: Seq) {
        self.0.written()[slot] = (seq.ticket(), queue);
    }

    /// Whether what is queued in `queue` from now on comes after a frame, by itself.
    pub(super) fn has_filled(&self, queue: Option<Queue>, slot: usize, seq: Seq) -> bool {
        queue.is_some() && self.0.written()[slot] == (seq.ticket(), queue)
    }

    /// Whether what is queued in `queue` from now on comes after a use, by itself.
    pub(super) fn has_used(&self, queue: Option<Queue>, it: Use) -> bool {
        queue.is_some_and(|queue| self.0.lanes().has(queue, it))
    }
}

impl Drop for OwnSeat {
    fn drop(&mut self) {
        if self.0.is_over() {
            self.0.give_back();
        } else {
            watch::leaving(Arc::clone(&self.0));
        }
    }
}

impl Taken {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written(&self) -> MutexGuard<'_, [(u64, Option<Queue>); SLOTS_MAX]> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn menders(&self) -> MutexGuard<'_, Vec<Arc<Mender>>> {
        self.menders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_lost(&self) -> bool {
        self.said_lost().load(Ordering::Relaxed) == self.word
    }

    fn said_lost(&self) -> &AtomicU64 {
        &self.memory.seats()[self.index].sitter.0.lost
    }

    /// Asks the driver whether its contexts are lost, all of them, and says so to others: nothing is done any more
    /// of what was queued there, and nothing can be queued.
    pub(super) fn tell_if_lost(&self) {
        let menders = self.menders();
        if !menders.is_empty() && !self.is_lost() && menders.iter().all(|it| it.is_lost()) {
            // Before `menders` is let go of: whoever would use another device takes another seat.
            self.said_lost().store(self.word, Ordering::Release);
        }
    }

    fn has_ended(&self, it: Use) -> bool {
        self.memory.done(it.lane).load(Ordering::Acquire) >= it.number
    }

    /// Whether every frame is there that devices were told to make.
    pub(super) fn has_written(&self) -> bool {
        let written = *self.written();
        let mut tickets = written.iter().map(|(ticket, _)| *ticket).enumerate();
        tickets.all(|(slot, ticket)| settled(&*self.memory, slot) >= ticket)
    }

    /// Whether devices are done with everything that was queued.
    pub(super) fn is_over(&self) -> bool {
        self.lanes().last().all(|it| self.has_ended(it)) && self.has_written()
    }

    pub(super) fn give_back(&self) {
        // From here on nothing is said in it, where this participant may sit again.
        let menders = std::mem::take(&mut *self.menders());
        let who = &self.memory.seats()[self.index].sitter.0.who;
        let _ = who.compare_exchange(self.word, 0, Ordering::AcqRel, Ordering::Relaxed);
        drop(menders);
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
