//! Loom models of the protocol files, as shipped: run by `cargo xtask loom`.
//!
//! Small rings on purpose: with two slots a writer laps a reader after two frames, so every
//! interleaving that can tear a copy or break a lease is within loom's reach.
//!
//! Every model runs twice. Loom looks for races between an access and the *last* one before it, so
//! a thread that loads a word and then exchanges it hides the loads of others in between, and the
//! interleavings that depend on them are never tried. The second run therefore counts a tick, an
//! exchange that every thread makes, before each step on a control word. Ticks carry
//! happens-before across acquire fences, which hides other faults: hence the run without.

use loom::sync::{Arc, Mutex};
use loom::thread;

use super::word::{Ctl, LeaseWord, Seq};
use super::*;
use crate::sync::fence;

/// A ring on the heap whose payload is two words per slot.
pub(super) struct Heap {
    ctl: AtomicU64,
    slots: Vec<Slot>,
    payload: Vec<[AtomicU64; 2]>,
    leases: Vec<AtomicU64>,
    lessees: AtomicU64,
    tick: Option<AtomicU64>,
}

impl Heap {
    pub(super) fn new(slots: usize, participants: u64, ticking: bool) -> Self {
        let heap = Self {
            ctl: AtomicU64::new(Ctl(0).published(0, 0).0),
            slots: (0..slots).map(|_| Slot::default()).collect(),
            payload: (0..slots).map(|_| [AtomicU64::new(0), AtomicU64::new(0)]).collect(),
            leases: (1..=participants).map(|id| AtomicU64::new(LeaseWord::new(id).0)).collect(),
            lessees: AtomicU64::new(0),
            tick: ticking.then(|| AtomicU64::new(0)),
        };
        heap.slots[0].seq.store(Seq::ready(0, 0).0, Ordering::Relaxed);
        heap
    }

    /// Makes loom try every order of the threads' steps around here.
    fn step(&self) {
        if let Some(tick) = &self.tick {
            tick.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn fill(&self, slot: usize, value: u64) {
        self.payload[slot][0].store(value, Ordering::Relaxed);
        self.payload[slot][1].store(value, Ordering::Relaxed);
    }

    pub(super) fn copy(&self, slot: usize) -> [u64; 2] {
        [
            self.payload[slot][0].load(Ordering::Relaxed),
            self.payload[slot][1].load(Ordering::Relaxed),
        ]
    }

    fn write(&self, entry: usize) -> Result<bool, WriteFault> {
        let claim = claim(self, identity(entry), Filler::Host, &Nobody)?;
        self.fill(claim.slot, claim.count);
        commit(self, &claim)
    }

    /// One try to read the newest frame by copying.
    fn try_read(&self) -> Option<u64> {
        let found = match newest(self) {
            Look::Frame(found) => found,
            Look::Moved(_) | Look::Pending(_) => return None,
            Look::Damaged => panic!("a sound ring looked damaged"),
        };
        let words = self.copy(found.slot);
        if !is_unchanged(self, &found) {
            return None;
        }
        assert_eq!(words, [found.seq.frame(); 2], "a torn frame was accepted");
        Some(words[0])
    }
}

impl RingLoads for Heap {
    fn slots(&self) -> usize {
        self.slots.len()
    }

    fn ctl(&self, order: Ordering) -> Ctl {
        self.step();
        Ctl(self.ctl.load(order))
    }

    fn seq(&self, slot: usize, order: Ordering) -> Seq {
        Seq(self.slots[slot].seq.load(order))
    }
}

impl Ring for Heap {
    fn ctl_word(&self) -> &AtomicU64 {
        self.step();
        &self.ctl
    }

    fn slot(&self, slot: usize) -> &Slot {
        &self.slots[slot]
    }

    fn high_water(&self) -> usize {
        self.leases.len()
    }

    fn lease(&self, entry: usize) -> &AtomicU64 {
        self.step();
        &self.leases[entry]
    }

    fn lessees(&self, group: usize) -> &AtomicU64 {
        assert_eq!(group, 0, "a model has few participants");
        &self.lessees
    }
}

pub(super) fn identity(entry: usize) -> Identity {
    Identity { entry, id: entry as u64 + 1 }
}

/// A world in which nobody can be shown to be dead.
pub(super) struct Nobody;

impl Liveness for Nobody {
    fn has_ended(&self, _: Identity) -> bool {
        false
    }

    fn occupant(&self, entry: usize) -> Identity {
        identity(entry)
    }
}

/// A world in which one process was declared dead, rightly or not.
pub(super) struct Without(pub(super) usize);

impl Liveness for Without {
    fn has_ended(&self, who: Identity) -> bool {
        who.entry == self.0
    }

    fn occupant(&self, entry: usize) -> Identity {
        identity(entry)
    }
}

pub(super) fn check(model: impl Fn(bool) + Copy + Sync + Send + 'static) {
    for ticking in [false, true] {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(if ticking { 2 } else { 3 });
        builder.check(move || model(ticking));
    }
}

#[test]
fn loom_copies_are_whole() {
    check(|ticking| {
        let ring = Arc::new(Heap::new(2, 1, ticking));
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.write(0).unwrap();
                ring.write(0).unwrap();
            })
        };
        ring.try_read();
        writer.join().unwrap();
        assert_eq!(ring.try_read(), Some(2));
    });
}

#[test]
fn loom_leased_frames_do_not_change() {
    check(|ticking| {
        let ring = Arc::new(Heap::new(2, 2, ticking));
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                // The second may find no slot while the reader holds one: that is the point.
                ring.write(0).unwrap();
                let _ = ring.write(0);
            })
        };
        let (me, mut pins) = (identity(1), Pins::default());
        if let Look::Frame(found) = newest(&*ring)
            && pin(&*ring, &mut pins, me, &found)
            && promote(&*ring, &mut pins, me, found.slot, 1).is_ok()
        {
            let frame = found.seq.frame();
            assert_eq!(ring.copy(found.slot), [frame; 2], "the leased frame is another one");
            thread::yield_now();
            assert_eq!(ring.copy(found.slot), [frame; 2], "the leased frame changed");
            release(&*ring, me, found.slot);
        }
        writer.join().unwrap();
    });
}

#[test]
fn loom_threads_of_one_process_do_not_lease_for_each_other() {
    check(|ticking| {
        let ring = Arc::new(Heap::new(2, 2, ticking));
        let pins = Arc::new(Mutex::new(Pins::default()));
        let me = identity(1);
        let Look::Frame(found) = newest(&*ring) else { panic!("no first frame") };
        let copier = {
            let (ring, pins) = (Arc::clone(&ring), Arc::clone(&pins));
            thread::spawn(move || {
                // The second goes where the first frame is, unless that is leased.
                ring.write(0).unwrap();
                let _ = ring.write(0);
                if let Look::Frame(found) = newest(&*ring) {
                    pin(&*ring, &mut pins.lock().unwrap(), me, &found);
                }
            })
        };
        let mut turn = pins.lock().unwrap();
        if pin(&*ring, &mut turn, me, &found)
            && promote(&*ring, &mut turn, me, found.slot, 1).is_ok()
        {
            let frame = found.seq.frame();
            assert_eq!(ring.copy(found.slot), [frame; 2], "the leased frame is another one");
            release(&*ring, me, found.slot);
        }
        drop(turn);
        copier.join().unwrap();
    });
}

#[test]
fn loom_two_leases_respect_the_budget() {
    check(|ticking| {
        let ring = Arc::new(Heap::new(3, 3, ticking));
        ring.write(0).unwrap();
        let take = |entry: usize, slot: usize| {
            let found = Found {
                ctl: ring.ctl(Ordering::Acquire),
                slot,
                seq: ring.seq(slot, Ordering::Acquire),
            };
            let ring = Arc::clone(&ring);
            move || {
                let (me, mut pins) = (identity(entry), Pins::default());
                pin(&*ring, &mut pins, me, &found)
                    && promote(&*ring, &mut pins, me, slot, 1).is_ok()
            }
        };
        let newest_slot = ring.ctl(Ordering::Acquire).slot();
        let other = thread::spawn(take(1, 0));
        let mine = take(2, newest_slot)();
        let theirs = other.join().unwrap();
        assert!(!(mine && theirs), "two distinct frames leased with a budget of one");
    });
}

#[test]
fn loom_parked_readers_are_woken() {
    check(|ticking| {
        let ring = Arc::new(Heap::new(3, 1, ticking));
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                if ring.write(0).unwrap() {
                    shm_lock::park::wake_all_low_half(ring.ctl_word());
                }
            })
        };
        loop {
            let now = ring.ctl(Ordering::Acquire);
            if now.count() > 0 {
                break;
            }
            if let Some(low) = announce_parking(&*ring, now) {
                // Without slices: a lost wake-up is a deadlock that loom reports.
                shm_lock::park::park_low_half(ring.ctl_word(), low, std::time::Duration::MAX);
            }
        }
        writer.join().unwrap();
    });
}

#[test]
fn loom_the_declared_dead_cannot_publish_over_their_successor() {
    check(|ticking| {
        let ring = Arc::new(Heap::new(3, 2, ticking));
        let victim_claim = claim(&*ring, identity(0), Filler::Host, &Nobody).unwrap();
        let victim = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                ring.fill(victim_claim.slot, 77);
                commit(&*ring, &victim_claim)
            })
        };
        // The verdict is wrong on purpose: the victim still runs.
        heal(&*ring, &Nobody);
        let successor = ring.write(1);
        let published = victim.join().unwrap();
        assert!(successor.is_ok(), "the successor holds the lock and is not fenced");
        let Look::Frame(found) = newest(&*ring) else { panic!("no newest frame") };
        let count = found.ctl.count();
        assert_eq!(count, 1 + u64::from(published.is_ok()), "one frame per successful write");
        let words = ring.copy(found.slot);
        assert_eq!(words, [count; 2], "the newest frame is the successor's");
    });
}

#[test]
fn loom_what_was_never_published_is_never_served() {
    check(|ticking| {
        let ring = Arc::new(Heap::new(3, 2, ticking));
        let victim_claim = claim(&*ring, identity(0), Filler::Host, &Nobody).unwrap();
        ring.fill(victim_claim.slot, 77);
        // The victim dies between the slot's word and the control word.
        let written = Seq::ready(victim_claim.count, 0);
        ring.slots[victim_claim.slot].seq.store(written.0, Ordering::Release);
        let successor = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                heal(&*ring, &Without(0));
                ring.write(1).unwrap();
            })
        };
        if let Some(found) = oldest_after(&*ring, 0) {
            let words = ring.copy(found.slot);
            if is_unchanged(&*ring, &found) {
                assert_eq!(words, [1; 2], "a frame that nobody published was served");
            }
        }
        successor.join().unwrap();
        let found = oldest_after(&*ring, 0).expect("the successor's frame");
        assert_eq!(ring.copy(found.slot), [1; 2]);
        fence(Ordering::SeqCst);
    });
}
