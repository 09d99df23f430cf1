//! Loom models: every interleaving of a few threads, each standing for a process.
//!
//! Time does not pass in a model. A wake-up that gets lost is a deadlock, a wrong verdict a
//! recovery where nobody died, a missing ordering a stale read; each of the mutants listed in
//! `loom_mutants.txt` makes at least one of these models fail.

use std::io;
use std::os::fd::OwnedFd;

use loom::sync::Arc as ModelledArc;
use loom::thread;
use std::sync::Arc;

use crate::park::{park_low_half, wake_all_low_half};
use crate::roster::{Entry, Identity};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sync::futex::sleep_soundly;
use crate::{
    Broadcast, FutexLock, Liveness, LockWord, Membership, Memory, Participant, Roster, Wait,
};

/// More forced switches than this find little more and take far longer.
const PREEMPTIONS: usize = 3;

/// Runs `model` through its interleavings; `LOOM_MAX_PREEMPTIONS` widens or narrows them.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(model);
}

struct Model {
    word: LockWord,
    roster: Roster,
    participants: Vec<Participant>,
    /// Protected by the lock, and by nothing else: unordered accesses see whatever they may see.
    count: AtomicU32,
}

impl Model {
    fn with_room_for(participants: usize) -> Arc<Self> {
        Arc::new(Self {
            word: LockWord::new(),
            roster: Roster::new(),
            participants: (0..participants).map(|_| Participant::new()).collect(),
            count: AtomicU32::new(0),
        })
    }

    fn count_up(&self) {
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count + 1, Ordering::Relaxed);
    }

    fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Memory for Model {
    fn lock_word(&self) -> &LockWord {
        &self.word
    }

    fn roster(&self) -> &Roster {
        &self.roster
    }

    fn capacity(&self) -> usize {
        self.participants.len()
    }

    fn participant(&self, slot: usize) -> &Participant {
        &self.participants[slot]
    }

    fn reopen(&self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

fn join(model: &Arc<Model>) -> FutexLock<Model> {
    FutexLock::new(Membership::join(Arc::clone(model)).expect("the table has room"))
}

fn count_up_under(lock: &FutexLock<Model>) {
    let guard = lock.acquire(&Wait::forever()).expect("a wait for ever ends with the lock");
    assert_eq!(guard.recovered(), None, "nobody died");
    lock.membership().memory().count_up();
}

#[test]
fn loom_one_holder_at_a_time_who_sees_what_the_last_one_wrote() {
    explore(|| {
        let model = Model::with_room_for(2);
        let (one, two) = (join(&model), join(&model));
        let other = thread::spawn(move || count_up_under(&one));
        count_up_under(&two);
        other.join().expect("the other one does not fail");
        assert_eq!(model.count(), 2);
    });
}

#[test]
fn loom_everybody_who_sleeps_is_woken_in_turn() {
    explore(|| {
        let model = Model::with_room_for(3);
        let held = join(&model);
        let guard = held.acquire(&Wait::forever()).expect("the lock is free");
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let lock = join(&model);
                thread::spawn(move || count_up_under(&lock))
            })
            .collect();
        drop(guard);
        for waiter in waiters {
            waiter.join().expect("a waiter does not fail");
        }
        assert_eq!(model.count(), 2);
    });
}

#[test]
fn loom_a_new_participant_that_takes_the_lock_is_not_held_for_dead() {
    explore(|| {
        let model = Model::with_room_for(2);
        let old = join(&model);
        let newcomer = Arc::clone(&model);
        let other = thread::spawn(move || count_up_under(&join(&newcomer)));
        count_up_under(&old);
        other.join().expect("the other one does not fail");
        assert_eq!(model.count(), 2);
    });
}

#[test]
fn loom_a_lock_is_taken_over_once_and_everybody_else_is_woken() {
    explore(|| {
        let model = Model::with_room_for(3);
        let (victim, heir, sleeper) = (join(&model), join(&model), join(&model));
        let guard = victim.acquire(&Wait::forever()).expect("the lock is free");
        model.count_up();
        std::mem::forget(guard);
        let sleeper = thread::spawn(move || {
            // Its slice does not end in this model: only a wake-up brings it back.
            sleep_soundly();
            let guard = sleeper.acquire(&Wait::forever()).expect("a wait for ever ends");
            sleeper.membership().memory().count_up();
            guard.recovered().is_some()
        });
        let death = thread::spawn(move || {
            victim.membership().die();
            std::mem::forget(victim);
        });
        let guard = heir.acquire(&Wait::forever()).expect("a wait for ever ends");
        let told = guard.recovered().is_some();
        model.count_up();
        drop(guard);
        let told_as_well = sleeper.join().expect("the sleeper does not fail");
        death.join().expect("dying does not fail");
        assert!(told ^ told_as_well, "exactly one of the next owners is told");
        assert_eq!(model.count(), 3);
    });
}

#[test]
fn loom_an_entry_is_whole_or_unreadable() {
    explore(|| {
        let model = Model::with_room_for(1);
        // The reader is the second thread on purpose: loom runs the first one ahead, and lets the
        // second read every value that is not ordered away.
        let reader = Arc::clone(&model);
        let reader = thread::spawn(move || reader.participant(0).identity_of(1));
        let publisher = join(&model);
        if let Some(identity) = reader.join().expect("reading does not fail") {
            assert_eq!(identity, Identity { pid: 1, start_ticks: 1, ..Identity::default() });
        }
        drop(publisher);
    });
}

#[test]
fn loom_an_entry_that_changes_hands_is_never_read_half_and_half() {
    explore(|| {
        let model = Model::with_room_for(1);
        let dead = join(&model);
        dead.membership().die();
        let reader = Arc::clone(&model);
        let reader = thread::spawn(move || reader.participant(0).identity_of(1));
        let heir = join(&model);
        assert_eq!(heir.membership().me().map(|me| (me.slot, me.id)).ok(), Some((0, 2)));
        if let Some(identity) = reader.join().expect("reading does not fail") {
            assert_eq!(identity, Identity { pid: 1, start_ticks: 1, ..Identity::default() });
        }
        assert_eq!(heir.membership().liveness(0, 1), Liveness::Gone);
        drop(dead);
        assert_eq!(model.participant(0).entry(), Entry::Published { id: 2 });
    });
}

#[test]
fn loom_two_who_join_at_once_get_two_entries() {
    explore(|| {
        let model = Model::with_room_for(2);
        join(&model).membership().die();
        let other = Arc::clone(&model);
        let other = thread::spawn(move || join(&other));
        let one = join(&model);
        let other = other.join().expect("the table has room for both");
        let slot_of = |lock: &FutexLock<Model>| lock.membership().me().map(|me| me.slot).ok();
        assert_ne!(slot_of(&one), slot_of(&other));
    });
}

#[test]
fn loom_no_notification_is_lost() {
    explore(|| {
        let word = ModelledArc::new((Broadcast::new(), AtomicU32::new(0)));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let word = ModelledArc::clone(&word);
                thread::spawn(move || {
                    let (broadcast, news) = &*word;
                    let seen = broadcast.wait(0, &Wait::forever());
                    assert_eq!(seen, Ok(1));
                    assert_eq!(news.load(Ordering::Relaxed), 7);
                })
            })
            .collect();
        word.1.store(7, Ordering::Relaxed);
        word.0.notify();
        for waiter in waiters {
            waiter.join().expect("a waiter does not fail");
        }
    });
}

#[test]
fn loom_a_waiter_that_dies_costs_one_wake_up() {
    explore(|| {
        let word = ModelledArc::new(Broadcast::new());
        let interrupted = || true;
        let gone = word.wait(0, &Wait::forever().interruptible(&interrupted));
        assert!(gone.is_err());
        let waiter = {
            let word = ModelledArc::clone(&word);
            thread::spawn(move || word.wait(0, &Wait::forever()))
        };
        word.notify();
        assert_eq!(waiter.join().expect("a waiter does not fail"), Ok(1));
        assert_eq!(word.notify(), 0, "nobody is left to wake");
    });
}

/// The protocol that `park` is for: a waiters' bit in the low half of a wider word.
#[test]
fn loom_a_sleep_on_the_low_half_is_ended_by_a_change_of_it() {
    const WAITERS: u64 = 1 << 31;
    explore(|| {
        let word = ModelledArc::new(AtomicU64::new(5 << 32));
        let waiter = {
            let word = ModelledArc::clone(&word);
            thread::spawn(move || {
                loop {
                    let seen = word.load(Ordering::Acquire);
                    if seen & 1 == 1 {
                        return;
                    }
                    let announced = seen | WAITERS;
                    let (set, keep) = (Ordering::Relaxed, Ordering::Relaxed);
                    if word.compare_exchange(seen, announced, set, keep).is_ok() {
                        park_low_half(&word, announced as u32, std::time::Duration::MAX);
                    }
                }
            })
        };
        let mut seen = word.load(Ordering::Relaxed);
        while let Err(found) =
            word.compare_exchange(seen, 6 << 32 | 1, Ordering::AcqRel, Ordering::Relaxed)
        {
            seen = found;
        }
        if seen & WAITERS != 0 {
            wake_all_low_half(&word);
        }
        waiter.join().expect("the waiter does not fail");
    });
}
