//! Who reads the connection, and who waits for what.
//!
//! Any number of threads wait for replies on one socket. One of them, the **leader**, reads for all:
//! it hands every reply to the seat that waits for it, and when its own comes it steps down and
//! appoints another. So a lone caller reads its own reply, with no thread in between, and a crowd
//! costs one wake-up per reply.
//!
//! The desk is a monitor: all of its state is under one mutex, and every sleeper sleeps on its own
//! condition variable until one of these holds, which it judges under that mutex:
//!
//! | condition | made true by | who is notified |
//! |---|---|---|
//! | my outcome is there | [`deliver`](Desk::deliver), [`cancel`](Desk::cancel) | the seat |
//! | a push is there (seats that want one) | [`push`](Desk::push) | one such seat |
//! | nobody reads | [`leave`](Desk::leave), [`step_down`](Desk::step_down) | one sleeping seat, else the watcher |
//! | the connection is lost | [`lose`](Desk::lose) | all |
//!
//! That no wake-up is lost follows from two rules. *Who makes a condition true notifies under the
//! mutex*; for "nobody reads" it suffices to notify one, because *who leaves while nobody reads
//! appoints another*, whether it was the leader or had been appointed and gave up (its deadline
//! passed, or its reply had come meanwhile). The loom models run this file.
//!
//! The **watcher** is a thread for clients that want pushes while they make no calls. It does not
//! hold the role while idle: it polls the socket, and takes the role only if nobody has it when
//! something comes. A leader may be quicker, and then the socket is no longer readable when the
//! watcher looks: so whoever queues a push while the watcher polls must kick it, and it polls what
//! it is kicked by as well. While calls flow it would wake with every reply for nothing, so after losing the
//! race it naps for a millisecond at a time until a nap passes without a reading. A push that comes
//! during the last nap, after the last call, is therefore late by a millisecond at most.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use crate::error::Lost;
use crate::sync::{Arc, Condvar, Mutex, lock, sleep};

/// How long the watcher stays away from a connection on which calls are made.
const NAP: Duration = Duration::from_millis(1);

/// The waiting room of one connection. `T` is what seats wait for.
#[derive(Debug)]
pub(crate) struct Desk<T> {
    state: Mutex<State<T>>,
    watcher: Condvar,
}

#[derive(Debug)]
struct State<T> {
    next_id: u64,
    is_read: bool,
    // Ids are our own counter: no hostile keys, and models need one and the same order.
    seats: HashMap<u64, Seat<T>, BuildHasherDefault<DefaultHasher>>,
    /// Seats given up whose reply is wanted all the same, when it comes.
    abandoned: HashSet<u64, BuildHasherDefault<DefaultHasher>>,
    /// Who sleeps, in order; may name some that do not any more.
    sleepers: VecDeque<u64>,
    pushes: VecDeque<T>,
    pushes_max: usize,
    pushes_dropped: u64,
    lost: Option<Lost>,
    readings: u64,
    watcher_sleeps: bool,
    watcher_polls: bool,
}

#[derive(Debug)]
struct Seat<T> {
    wants_push: bool,
    outcome: Option<Outcome<T>>,
    bell: Option<Arc<Condvar>>,
    is_asleep: bool,
}

impl<T> Seat<T> {
    fn ring(&mut self) {
        self.is_asleep = false;
        if let Some(bell) = &self.bell {
            bell.notify_one();
        }
    }
}

/// How a wait ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    Here(T),
    Cancelled,
}

/// What a waiter does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn<T> {
    /// It has what it waited for, and its seat is gone.
    Done(Outcome<T>),
    /// It is the leader now.
    Lead,
    /// The deadline passed; the seat remains.
    Late,
    /// There will be nothing more; the seat is gone.
    Lost(Lost),
}

/// What became of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Delivery<T> {
    Taken,
    /// Its caller has given up.
    Unwanted(T),
    /// Its caller has given up, and wants to know all the same.
    Late(T),
    /// Nobody ever asked for it.
    NeverAsked(T),
}

/// What became of a push.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pushed<T> {
    /// The oldest one, if there was no room.
    pub(crate) dropped: Option<T>,
    /// Whether the watcher polls and has to be kicked.
    pub(crate) kick: bool,
}

/// What the watcher does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Watch<T> {
    HandOut(T),
    Poll,
    End,
}

impl<T> Desk<T> {
    /// At most `pushes_max` pushes wait to be fetched; of more the oldest are dropped.
    pub(crate) fn new(pushes_max: usize) -> Self {
        let state = State {
            next_id: 1,
            is_read: false,
            seats: HashMap::default(),
            abandoned: HashSet::default(),
            sleepers: VecDeque::new(),
            pushes: VecDeque::new(),
            pushes_max,
            pushes_dropped: 0,
            lost: None,
            readings: 0,
            watcher_sleeps: false,
            watcher_polls: false,
        };
        Self { state: Mutex::new(state), watcher: Condvar::new() }
    }

    /// A seat for a call; its number is the request's id.
    pub(crate) fn enlist(&self) -> Result<u64, Lost> {
        self.seat(false)
    }

    /// A seat for the next push.
    pub(crate) fn enlist_for_push(&self) -> Result<u64, Lost> {
        self.seat(true)
    }

    fn seat(&self, wants_push: bool) -> Result<u64, Lost> {
        let mut state = lock(&self.state);
        if let Some(lost) = &state.lost
            && (!wants_push || state.pushes.is_empty())
        {
            return Err(lost.clone());
        }
        let id = state.next_id;
        state.next_id += 1;
        let seat = Seat { wants_push, outcome: None, bell: None, is_asleep: false };
        state.seats.insert(id, seat);
        Ok(id)
    }

    /// Waits until there is something to do for the seat.
    pub(crate) fn turn(&self, id: u64, deadline: Option<Instant>) -> Turn<T> {
        let mut state = lock(&self.state);
        let mut has_slept = false;
        loop {
            if let Some(done) = state.settle(id) {
                self.appoint(&mut state);
                return Turn::Done(done);
            }
            if let Some(lost) = state.lost.clone() {
                state.remove(id);
                return Turn::Lost(lost);
            }
            if !state.is_read {
                state.is_read = true;
                return Turn::Lead;
            }
            let is_late = if cfg!(loom) {
                has_slept && deadline.is_some()
            } else {
                deadline.is_some_and(|deadline| Instant::now() >= deadline)
            };
            if is_late {
                return Turn::Late;
            }
            let Some(bell) = state.go_to_sleep(id) else {
                return Turn::Lost(Lost::ClosedHere);
            };
            #[cfg(loom)]
            if deadline.is_some() {
                drop(state);
                loom::thread::yield_now();
                state = lock(&self.state);
                has_slept = true;
                continue;
            }
            state = sleep(&bell, state, deadline);
            has_slept = true;
            state.wake_up(id);
        }
    }

    /// The outcome of a seat, if it is there already: the seat is gone then.
    pub(crate) fn outcome(&self, id: u64) -> Option<Outcome<T>> {
        lock(&self.state).settle(id)
    }

    /// Hands a reply over. By the leader.
    pub(crate) fn deliver(&self, id: u64, reply: T) -> Delivery<T> {
        let mut state = lock(&self.state);
        let State { seats, abandoned, next_id, .. } = &mut *state;
        let was_asked = (1..*next_id).contains(&id);
        match seats.get_mut(&id) {
            Some(seat) if seat.outcome.is_none() && !seat.wants_push => {
                seat.outcome = Some(Outcome::Here(reply));
                if !cfg!(st_mutant = "delivery_without_ringing") {
                    seat.ring();
                }
                Delivery::Taken
            }
            _ if cfg!(st_mutant = "late_for_ever") && abandoned.contains(&id) => {
                Delivery::Late(reply)
            }
            _ if abandoned.remove(&id) => Delivery::Late(reply),
            _ if was_asked => Delivery::Unwanted(reply),
            _ => Delivery::NeverAsked(reply),
        }
    }

    /// Queues a push. By the leader.
    pub(crate) fn push(&self, push: T) -> Pushed<T> {
        let mut state = lock(&self.state);
        state.pushes.push_back(push);
        let dropped = if state.pushes.len() > state.pushes_max {
            state.pushes_dropped += 1;
            state.pushes.pop_front()
        } else {
            None
        };
        let State { seats, sleepers, .. } = &mut *state;
        let waiting =
            |id: &&u64| seats.get(id).is_some_and(|seat| seat.wants_push && seat.is_asleep);
        let waiting = sleepers.iter().find(waiting).copied();
        if let Some(seat) = waiting.and_then(|id| seats.get_mut(&id)) {
            seat.ring();
        }
        self.watcher.notify_one();
        let kick = state.watcher_polls && !cfg!(st_mutant = "push_without_kick");
        Pushed { dropped, kick }
    }

    /// The oldest push that nobody has fetched.
    pub(crate) fn take_push(&self) -> Option<T> {
        lock(&self.state).pushes.pop_front()
    }

    /// Ends a wait from outside; `false` if it was over.
    pub(crate) fn cancel(&self, id: u64) -> bool {
        let mut state = lock(&self.state);
        match state.seats.get_mut(&id) {
            Some(seat) if seat.outcome.is_none() => {
                seat.outcome = Some(Outcome::Cancelled);
                seat.ring();
                true
            }
            _ => false,
        }
    }

    /// Gives up a seat, and the lead with it if `leads`. Returns an outcome that had come.
    pub(crate) fn leave(&self, id: u64, leads: bool) -> Option<Outcome<T>> {
        let mut state = lock(&self.state);
        self.vacate(&mut state, id, leads)
    }

    /// Gives up a seat whose reply is wanted all the same: it is delivered as a late one.
    pub(crate) fn abandon(&self, id: u64) -> Option<Outcome<T>> {
        let mut state = lock(&self.state);
        let outcome = self.vacate(&mut state, id, false);
        if cfg!(st_mutant = "abandoned_in_two_steps") {
            drop(state);
            state = lock(&self.state);
        }
        let is_to_come = outcome.is_none() || cfg!(st_mutant = "abandoned_though_there");
        if is_to_come && state.lost.is_none() {
            state.abandoned.insert(id);
        }
        outcome
    }

    /// Whether there are late replies to come.
    pub(crate) fn awaits_late(&self) -> bool {
        let state = lock(&self.state);
        state.lost.is_none() && !state.abandoned.is_empty()
    }

    fn vacate(&self, state: &mut State<T>, id: u64, leads: bool) -> Option<Outcome<T>> {
        let seat = state.remove(id);
        if leads {
            state.end_reading();
        }
        if !cfg!(st_mutant = "leaving_without_appointing") || leads {
            self.appoint(state);
        }
        seat.and_then(|seat| seat.outcome)
    }

    /// Takes the lead without waiting for anything, if nobody has it.
    pub(crate) fn lead_if_free(&self) -> bool {
        let mut state = lock(&self.state);
        let is_free = !state.is_read && state.lost.is_none();
        state.is_read |= is_free;
        is_free
    }

    /// Gives up the lead.
    pub(crate) fn step_down(&self) {
        let mut state = lock(&self.state);
        state.end_reading();
        self.appoint(&mut state);
    }

    /// Nobody reads: one of those who sleep shall, or the watcher polls.
    fn appoint(&self, state: &mut State<T>) {
        if state.is_read || cfg!(st_mutant = "stepping_down_silently") {
            return;
        }
        while let Some(id) = state.sleepers.pop_front() {
            if let Some(seat) = state.seats.get_mut(&id)
                && seat.is_asleep
            {
                seat.ring();
                return;
            }
        }
        if state.watcher_sleeps && !cfg!(st_mutant = "watcher_left_asleep") {
            self.watcher.notify_one();
        }
    }

    /// The connection is lost. Wakes everybody. The first reason counts, and is returned.
    pub(crate) fn lose(&self, lost: Lost) -> Lost {
        let mut state = lock(&self.state);
        let first = state.lost.get_or_insert(lost).clone();
        for seat in state.seats.values_mut() {
            seat.ring();
            if cfg!(st_mutant = "losing_wakes_one") {
                break;
            }
        }
        state.sleepers.clear();
        self.watcher.notify_one();
        first
    }

    pub(crate) fn lost(&self) -> Option<Lost> {
        lock(&self.state).lost.clone()
    }

    /// How many pushes were dropped because nobody fetched them.
    pub(crate) fn pushes_dropped(&self) -> u64 {
        lock(&self.state).pushes_dropped
    }

    /// What the watcher does next; returns when there is something.
    pub(crate) fn watch(&self) -> Watch<T> {
        let mut state = lock(&self.state);
        state.watcher_polls = false;
        let mut before_nap = None;
        loop {
            if let Some(push) = state.pushes.pop_front() {
                return Watch::HandOut(push);
            }
            if state.lost.is_some() {
                return Watch::End;
            }
            let now = state.readings;
            match before_nap {
                None if !state.is_read => {
                    state.watcher_polls = true;
                    return Watch::Poll;
                }
                // Calls are being made: another nap.
                Some(readings) if readings != now && !cfg!(loom) => {
                    before_nap = Some(now);
                    state = sleep(&self.watcher, state, Some(Instant::now() + NAP));
                }
                None if !cfg!(loom) => {
                    before_nap = Some(now);
                    state = sleep(&self.watcher, state, Some(Instant::now() + NAP));
                }
                _ if state.is_read => {
                    // A call that takes its time: whoever steps down wakes us.
                    state.watcher_sleeps = true;
                    state = sleep(&self.watcher, state, None);
                    state.watcher_sleeps = false;
                    before_nap = None;
                }
                _ => {
                    state.watcher_polls = true;
                    return Watch::Poll;
                }
            }
        }
    }
}

impl<T> State<T> {
    /// Takes what the seat waits for, and the seat with it.
    fn settle(&mut self, id: u64) -> Option<Outcome<T>> {
        let seat = self.seats.get_mut(&id)?;
        let outcome = match seat.outcome.take() {
            Some(outcome) => Some(outcome),
            None if seat.wants_push => self.pushes.pop_front().map(Outcome::Here),
            None => None,
        }?;
        self.remove(id);
        Some(outcome)
    }

    fn remove(&mut self, id: u64) -> Option<Seat<T>> {
        let seat = self.seats.remove(&id)?;
        if seat.bell.is_some() {
            self.sleepers.retain(|sleeper| *sleeper != id);
        }
        Some(seat)
    }

    fn go_to_sleep(&mut self, id: u64) -> Option<Arc<Condvar>> {
        let seat = self.seats.get_mut(&id)?;
        let bell = seat.bell.get_or_insert_with(|| Arc::new(Condvar::new()));
        let bell = Arc::clone(bell);
        if !seat.is_asleep {
            seat.is_asleep = true;
            self.sleepers.push_back(id);
        }
        Some(bell)
    }

    /// Whoever wakes for no reason or by its deadline was not rung for.
    fn wake_up(&mut self, id: u64) {
        if let Some(seat) = self.seats.get_mut(&id)
            && seat.is_asleep
        {
            seat.is_asleep = false;
            self.sleepers.retain(|sleeper| *sleeper != id);
        }
    }

    fn end_reading(&mut self) {
        self.is_read = false;
        self.readings += 1;
    }
}
