//! Random steps, on the machine and on a naive description of what it should do.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{AdmitRefusal, Decision, Machine, Nanos, Outcome, Refusal};
use crate::{
    Charges, Device, FlightError, FlightId, Invalidated, LeaseId, ObjectId, Released, Request,
    Retention, SessionId, Unwanted, WaiterId,
};

type Key = (u8, u8);
/// Bytes on device 0 and on device 1.
type Bytes = [u64; 2];

const LIMITS: Bytes = [100, 60];
const FAILURES_KEPT: Nanos = 20;

#[derive(Clone, Copy, Debug)]
struct Plan {
    reserve: Bytes,
    time_to_live: Option<u64>,
    time_to_idle: Option<u64>,
    is_kept: bool,
    cancels: bool,
    is_bound: bool,
}

/// Things are chosen by their place among those there are, counted round.
#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Close(usize),
    Lookup(usize, Key, Plan),
    Finish(usize, Bytes),
    Fail(usize),
    Abandon(usize),
    Cancel(usize),
    AskWhetherCancelled(usize),
    Leave(usize),
    Collect(usize),
    Release(usize),
    ReleaseOfAnother(usize),
    ReleaseObject(usize, usize),
    LeaseMore(usize, usize),
    Admit(usize, Bytes),
    Invalidate(Key),
    InvalidateGroup(u8),
    Limit(usize, u64),
    Pass(u64),
    Clear,
}

#[derive(Clone, Debug)]
struct Thing {
    id: ObjectId,
    key: Key,
    bytes: Bytes,
    leases: Vec<(SessionId, LeaseId)>,
    is_listed: bool,
    is_kept: bool,
    used: u64,
    used_at: Nanos,
    expires_at: Option<Nanos>,
    time_to_idle: Option<Nanos>,
}

#[derive(Clone, Debug)]
struct Work {
    id: FlightId,
    key: Key,
    plan: Plan,
    session: SessionId,
    is_listed: bool,
    is_cancelled: bool,
    waiting: Vec<WaiterId>,
}

#[derive(Clone, Debug, PartialEq)]
enum Fate {
    Waiting,
    Leased(LeaseId),
    Failed,
    Abandoned,
    OverBudget,
    SessionClosed,
}

#[derive(Default)]
struct Model {
    now: Nanos,
    uses: u64,
    limits: Bytes,
    sessions: Vec<SessionId>,
    things: Vec<Thing>,
    works: Vec<Work>,
    waits: Vec<(WaiterId, SessionId, Fate)>,
    failures: Vec<(Key, Nanos)>,
    /// What was told of leases lately: the machine names them, the model only counts.
    evictions: u64,
    expirations: u64,
}

impl Model {
    fn bytes(&self, of: impl Fn(&Thing) -> bool) -> Bytes {
        let mut sum = [0, 0];
        for thing in self.things.iter().filter(|thing| of(thing)) {
            sum = [sum[0] + thing.bytes[0], sum[1] + thing.bytes[1]];
        }
        sum
    }

    fn reserved(&self) -> Bytes {
        let sum = |device: usize| self.works.iter().map(|work| work.plan.reserve[device]).sum();
        [sum(0), sum(1)]
    }

    fn fits_beside(&self, bytes: Bytes, others: Bytes, device: usize) -> bool {
        bytes[device] == 0
            || others[device] + self.reserved()[device] + bytes[device] <= self.limits[device]
    }

    /// Whether room can be made, and if so makes it.
    fn make_room(&mut self, bytes: Bytes) -> bool {
        let leased = self.bytes(|thing| !thing.leases.is_empty());
        if (0..2).any(|device| !self.fits_beside(bytes, leased, device)) {
            return false;
        }
        loop {
            let all = self.bytes(|_| true);
            let full: Vec<usize> =
                (0..2).filter(|device| !self.fits_beside(bytes, all, *device)).collect();
            if full.is_empty() {
                return true;
            }
            let helps = |thing: &&Thing| {
                thing.leases.is_empty() && full.iter().any(|device| thing.bytes[*device] > 0)
            };
            let oldest = self.things.iter().filter(helps).min_by_key(|thing| thing.used);
            let oldest = oldest.expect("something idle is in the way").id;
            self.things.retain(|thing| thing.id != oldest);
            self.evictions += 1;
        }
    }

    /// Evicts what is over the budget of a device.
    fn trim(&mut self, device: usize) {
        loop {
            let all = self.bytes(|_| true)[device] + self.reserved()[device];
            let idle = |thing: &&Thing| thing.leases.is_empty() && thing.bytes[device] > 0;
            let oldest = self.things.iter().filter(idle).min_by_key(|thing| thing.used);
            let oldest = oldest.map(|thing| thing.id).filter(|_| all > self.limits[device]);
            let Some(oldest) = oldest else { return };
            self.things.retain(|thing| thing.id != oldest);
            self.evictions += 1;
        }
    }

    fn touch(&mut self, id: ObjectId) {
        self.uses += 1;
        let (uses, now) = (self.uses, self.now);
        let thing = self.thing(id);
        thing.used = uses;
        thing.used_at = now;
    }

    fn thing(&mut self, id: ObjectId) -> &mut Thing {
        self.things.iter_mut().find(|thing| thing.id == id).expect("the thing exists")
    }

    fn sweep(&mut self) {
        self.things.retain(|thing| !thing.leases.is_empty() || (thing.is_listed && thing.is_kept));
    }

    fn pass(&mut self, time: u64) {
        let now = self.now + time;
        self.now = now;
        self.failures.retain(|(_, until)| *until > now);
        for thing in self.things.iter_mut().filter(|thing| thing.is_listed) {
            let is_old = thing.expires_at.is_some_and(|at| at <= now);
            let is_idle = thing.leases.is_empty()
                && thing.time_to_idle.is_some_and(|time| thing.used_at + time <= now);
            if is_old || is_idle {
                thing.is_listed = false;
                self.expirations += 1;
            }
        }
        self.sweep();
    }

    /// Takes away one lease; says what is left.
    fn give_back(&mut self, lease: LeaseId) -> Released {
        let thing = self.thing(lease.object);
        thing.leases.retain(|(_, other)| *other != lease);
        let leases_left = thing.leases.len() as u64;
        if leases_left == 0 {
            self.touch(lease.object);
        }
        self.sweep();
        self.trim(0);
        self.trim(1);
        let is_destroyed = self.things.iter().all(|thing| thing.id != lease.object);
        Released { object: lease.object, leases_left, is_destroyed }
    }

    fn end_work(&mut self, id: FlightId, fate: &Fate) -> Work {
        let place = self.works.iter().position(|work| work.id == id).expect("the build exists");
        let work = self.works.remove(place);
        for (_, _, other) in self.waits.iter_mut().filter(|(id, ..)| work.waiting.contains(id)) {
            *other = fate.clone();
        }
        work
    }

    fn invalidate(&mut self, hits: impl Fn(Key) -> bool) -> Invalidated {
        let mut told = Invalidated::default();
        for thing in self.things.iter_mut().filter(|thing| thing.is_listed && hits(thing.key)) {
            thing.is_listed = false;
            told.entries += 1;
        }
        for work in self.works.iter_mut().filter(|work| work.is_listed && hits(work.key)) {
            work.is_listed = false;
            told.builds += 1;
        }
        self.failures.retain(|(key, _)| !hits(*key));
        self.sweep();
        told
    }
}

fn charges(bytes: Bytes) -> Charges {
    Charges::on(Device(0), bytes[0]).and(Device(1), bytes[1])
}

fn request(key: Key, plan: Plan) -> Request<Key> {
    let mut request = Request::new(key).reserve(charges(plan.reserve));
    if let Some(time) = plan.time_to_live {
        request = request.time_to_live(Duration::from_nanos(time));
    }
    if let Some(time) = plan.time_to_idle {
        request = request.time_to_idle(Duration::from_nanos(time));
    }
    if !plan.is_kept {
        request = request.retention(Retention::WhileLeased);
    }
    if plan.cancels {
        request = request.when_unwanted(Unwanted::Cancel);
    }
    if plan.is_bound { request.bound_to_session() } else { request }
}

fn pick<T: Clone>(from: &[T], place: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[place % from.len()].clone())
}

/// The machine, the model, and the comparison of the two.
struct Pair {
    machine: Machine<Key, u32, String>,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        let limits = [(Device(0), LIMITS[0]), (Device(1), LIMITS[1])];
        let model = Model { limits: LIMITS, ..Model::default() };
        Self { machine: Machine::new(&limits, FAILURES_KEPT), model }
    }

    fn leases(&self) -> Vec<(SessionId, LeaseId)> {
        self.model.things.iter().flat_map(|thing| thing.leases.clone()).collect()
    }

    fn apply(&mut self, step: Step) {
        let now = self.model.now;
        match step {
            Step::Open => self.model.sessions.push(self.machine.open_session()),
            Step::Close(at) => self.close(at),
            Step::Lookup(at, key, plan) => self.lookup(at, key, plan),
            Step::Finish(at, bytes) => self.finish(at, bytes),
            Step::Fail(at) => self.fail(at),
            Step::Abandon(at) => {
                let Some(work) = pick(&self.model.works, at) else { return };
                assert!(self.machine.abandon(now, work.id));
                assert!(!self.machine.abandon(now, work.id), "a build ends once");
                self.model.end_work(work.id, &Fate::Abandoned);
            }
            Step::Cancel(at) => {
                let Some(work) = pick(&self.model.works, at) else { return };
                assert!(self.machine.cancel(work.id));
                self.cancelled(work.id);
            }
            Step::AskWhetherCancelled(at) => {
                let Some(work) = pick(&self.model.works, at) else { return };
                let expected = work.is_cancelled || (work.plan.cancels && work.waiting.is_empty());
                assert_eq!(self.machine.is_cancelled(work.id), expected);
                if expected {
                    self.cancelled(work.id);
                }
            }
            Step::Leave(at) => self.leave(at),
            Step::Collect(at) => self.collect(at),
            Step::Release(at) => {
                let Some((session, lease)) = pick(&self.leases(), at) else { return };
                let told = self.machine.release(now, session, lease);
                assert_eq!(told, Some(self.model.give_back(lease)));
                assert_eq!(self.machine.release(now, session, lease), None, "given back twice");
                self.settle_for_gone_lease(lease);
            }
            Step::ReleaseOfAnother(at) => {
                let Some((owner, lease)) = pick(&self.leases(), at) else { return };
                for other in self.model.sessions.iter().filter(|other| **other != owner) {
                    assert_eq!(self.machine.release(now, *other, lease), None);
                }
            }
            Step::ReleaseObject(at, object) => self.release_object(at, object),
            Step::LeaseMore(at, object) => {
                let Some(session) = pick(&self.model.sessions, at) else { return };
                let Some(thing) = pick(&self.model.things, object) else { return };
                let granted = self.machine.lease(now, session, thing.id).expect("it exists");
                self.model.touch(thing.id);
                self.model.thing(thing.id).leases.push((session, granted.lease));
            }
            Step::Admit(at, bytes) => self.admit(at, bytes),
            Step::Invalidate(key) => {
                let told = self.machine.invalidate(&key);
                assert_eq!(told, self.model.invalidate(|other| other == key));
            }
            Step::InvalidateGroup(group) => {
                let told = self.machine.invalidate_group(&group);
                assert_eq!(told, self.model.invalidate(|other| other.0 == group));
            }
            Step::Limit(device, bytes) => self.limit(device, bytes),
            Step::Pass(time) => self.model.pass(time),
            Step::Clear => {
                self.machine.clear();
                self.model.things.iter_mut().for_each(|thing| thing.is_listed = false);
                self.model.failures.clear();
                self.model.sweep();
            }
        }
    }

    fn cancelled(&mut self, id: FlightId) {
        let work = self.model.works.iter_mut().find(|work| work.id == id).expect("it exists");
        work.is_cancelled = true;
        work.is_listed = false;
    }

    /// A lease that an uncollected outcome carries may be given back by its number before that.
    fn settle_for_gone_lease(&mut self, lease: LeaseId) {
        let carried = |fate: &Fate| *fate == Fate::Leased(lease);
        let Some(place) = self.model.waits.iter().position(|(.., fate)| carried(fate)) else {
            return;
        };
        let (waiter, ..) = self.model.waits.remove(place);
        assert!(matches!(self.machine.collect(waiter), Some(Outcome::Granted(_))));
    }

    fn close(&mut self, at: usize) {
        let Some(session) = pick(&self.model.sessions, at) else { return };
        let told = self.machine.close_session(self.model.now, session).expect("it is open");
        assert!(self.machine.close_session(self.model.now, session).is_none());
        self.model.sessions.retain(|other| *other != session);
        for (waiter, _, fate) in self.model.waits.iter_mut().filter(|(_, of, _)| *of == session) {
            *fate = Fate::SessionClosed;
            for work in &mut self.model.works {
                work.waiting.retain(|other| other != waiter);
            }
        }
        let bound = |work: &&Work| work.session == session && work.plan.is_bound;
        let bound: Vec<_> = self.model.works.iter().filter(bound).map(|work| work.id).collect();
        for id in bound {
            self.model.end_work(id, &Fate::Abandoned);
        }
        let mut expected: Vec<Released> = Vec::new();
        let mut mine = self.leases();
        mine.retain(|(of, _)| *of == session);
        mine.sort_by_key(|(_, lease)| *lease);
        for (_, lease) in mine {
            let left = self.model.give_back(lease);
            expected.retain(|other| other.object != lease.object);
            expected.push(left);
        }
        assert_eq!(told, expected);
    }

    fn lookup(&mut self, at: usize, key: Key, plan: Plan) {
        let Some(session) = pick(&self.model.sessions, at) else { return };
        let decision = self.machine.lookup(self.model.now, session, &request(key, plan));
        let thing = self.model.things.iter().find(|thing| thing.is_listed && thing.key == key);
        let work = self.model.works.iter().position(|work| work.is_listed && work.key == key);
        if let Some(id) = thing.map(|thing| thing.id) {
            let Ok(Decision::Hit(granted)) = decision else { panic!("{key:?} is there") };
            assert_eq!(granted.lease.object, id);
            self.model.touch(id);
            self.model.thing(id).leases.push((session, granted.lease));
        } else if let Some(place) = work {
            let Ok(Decision::Join { flight, waiter }) = decision else { panic!("it is built") };
            assert_eq!(flight, self.model.works[place].id);
            self.model.works[place].waiting.push(waiter);
            self.model.waits.push((waiter, session, Fate::Waiting));
        } else if self.model.failures.iter().any(|(failed, _)| *failed == key) {
            assert!(matches!(decision, Err(Refusal::Remembered(FlightError::Failed(_)))));
        } else if self.model.make_room(plan.reserve) {
            let Ok(Decision::Build { flight, waiter }) = decision else { panic!("it is absent") };
            let (is_listed, is_cancelled, waiting) = (true, false, vec![waiter]);
            let id = flight;
            let work = Work { id, key, plan, session, is_listed, is_cancelled, waiting };
            self.model.works.push(work);
            self.model.waits.push((waiter, session, Fate::Waiting));
        } else {
            assert!(matches!(decision, Err(Refusal::OverBudget(_))));
        }
    }

    fn finish(&mut self, at: usize, bytes: Bytes) {
        let Some(work) = pick(&self.model.works, at) else { return };
        let now = self.model.now;
        let told = self.machine.finish(now, work.id, Arc::new(0), charges(bytes));
        let told = told.expect("the build had not ended");
        let goes_on_list = work.is_listed && (work.plan.is_kept || !work.waiting.is_empty());
        if work.waiting.is_empty() && !goes_on_list {
            assert_eq!(told.ok().and_then(|told| told.object), None);
            self.model.end_work(work.id, &Fate::Failed);
            return;
        }
        let own = self.model.works.iter_mut().find(|other| other.id == work.id);
        own.expect("the build had not ended").plan.reserve = [0, 0];
        if !self.model.make_room(bytes) {
            let error = told.expect_err("there is no room");
            assert!(matches!(error, FlightError::OverBudget(_)));
            self.model.end_work(work.id, &Fate::OverBudget);
            return;
        }
        let told = told.expect("there is room");
        let id = told.object.expect("it is wanted");
        assert_eq!((told.delivered, told.is_listed), (work.waiting.len(), work.is_listed));
        self.model.end_work(work.id, &Fate::Failed);
        self.model.uses += 1;
        let listed = |time: Option<u64>| time.filter(|_| work.is_listed);
        let mut thing = Thing {
            id,
            key: work.key,
            bytes,
            leases: Vec::new(),
            is_listed: work.is_listed,
            is_kept: work.plan.is_kept,
            used: self.model.uses,
            used_at: now,
            expires_at: listed(work.plan.time_to_live).map(|time| now + time),
            time_to_idle: listed(work.plan.time_to_idle),
        };
        for (waiter, session, fate) in &mut self.model.waits {
            if work.waiting.contains(waiter) {
                let outcome = &self.machine.waiters[waiter].outcome;
                let Some(Outcome::Granted(granted)) = outcome else { panic!("it is delivered") };
                *fate = Fate::Leased(granted.lease);
                thing.leases.push((*session, granted.lease));
            }
        }
        self.model.things.push(thing);
        self.model.pass(0);
    }

    fn fail(&mut self, at: usize) {
        let Some(work) = pick(&self.model.works, at) else { return };
        let error = FlightError::Failed(Arc::new("no".to_owned()));
        assert!(self.machine.end(self.model.now, work.id, &error));
        self.model.end_work(work.id, &Fate::Failed);
        if work.is_listed {
            self.model.failures.push((work.key, self.model.now + FAILURES_KEPT));
        }
    }

    fn leave(&mut self, at: usize) {
        let Some((waiter, _, fate)) = pick(&self.model.waits, at) else { return };
        self.machine.leave(self.model.now, waiter);
        self.model.waits.retain(|(other, ..)| *other != waiter);
        for work in &mut self.model.works {
            work.waiting.retain(|other| *other != waiter);
        }
        if let Fate::Leased(lease) = fate {
            self.model.give_back(lease);
        }
    }

    fn collect(&mut self, at: usize) {
        let Some((waiter, _, fate)) = pick(&self.model.waits, at) else { return };
        let found = match self.machine.collect(waiter) {
            None => Fate::Waiting,
            Some(Outcome::Granted(granted)) => Fate::Leased(granted.lease),
            Some(Outcome::SessionClosed) => Fate::SessionClosed,
            Some(Outcome::Failed(FlightError::Failed(_))) => Fate::Failed,
            Some(Outcome::Failed(FlightError::Abandoned { .. })) => Fate::Abandoned,
            Some(Outcome::Failed(FlightError::OverBudget(_))) => Fate::OverBudget,
            Some(Outcome::Failed(FlightError::Panicked { .. })) => panic!("nothing panics here"),
        };
        assert_eq!(found, fate);
        if found != Fate::Waiting {
            self.model.waits.retain(|(other, ..)| *other != waiter);
        }
    }

    fn release_object(&mut self, at: usize, object: usize) {
        let Some(session) = pick(&self.model.sessions, at) else { return };
        let Some(thing) = pick(&self.model.things, object) else { return };
        let told = self.machine.release_object(self.model.now, session, thing.id);
        let mine = thing.leases.iter().filter(|(of, _)| *of == session).map(|(_, lease)| *lease);
        let expected = mine.min().map(|lease| (lease, self.model.give_back(lease)));
        assert_eq!(told, expected.map(|(_, left)| left));
        if let Some((lease, _)) = expected {
            self.settle_for_gone_lease(lease);
        }
    }

    fn admit(&mut self, at: usize, bytes: Bytes) {
        let Some(session) = pick(&self.model.sessions, at) else { return };
        let now = self.model.now;
        let admitted = self.machine.admit(now, session, (9, 9), Arc::new(0), charges(bytes));
        if !self.model.make_room(bytes) {
            assert!(matches!(admitted, Err(AdmitRefusal::OverBudget(_))));
            return;
        }
        let Ok(granted) = admitted else { panic!("there is room") };
        self.model.uses += 1;
        self.model.things.push(Thing {
            id: granted.lease.object,
            key: (9, 9),
            bytes,
            leases: vec![(session, granted.lease)],
            is_listed: false,
            is_kept: false,
            used: self.model.uses,
            used_at: now,
            expires_at: None,
            time_to_idle: None,
        });
    }

    fn limit(&mut self, device: usize, bytes: u64) {
        self.machine.limit(Device(device as u32), Some(bytes));
        self.model.limits[device] = bytes;
        self.model.trim(device);
    }

    fn compare(&mut self) {
        self.machine.tick(self.model.now);
        self.machine.check();
        let _ = (self.machine.take_news(), self.machine.take_debris());
        let stats = self.machine.stats();
        let leased = self.model.bytes(|thing| !thing.leases.is_empty());
        let idle = self.model.bytes(|thing| thing.leases.is_empty());
        for (device, room) in &stats.devices {
            let at = device.0 as usize;
            assert_eq!(room.leased, leased[at]);
            assert_eq!(room.idle, idle[at]);
            assert_eq!(room.building, self.model.reserved()[at]);
        }
        assert_eq!(stats.flights, self.model.works.len());
        assert_eq!(stats.sessions, self.model.sessions.len());
        assert_eq!(stats.evictions, self.model.evictions);
        assert_eq!(stats.expirations, self.model.expirations);
        assert_eq!(stats.misses, stats.builds + stats.failures + stats.flights as u64);
        let waiting = self.model.waits.iter().filter(|(.., fate)| *fate == Fate::Waiting);
        assert_eq!(stats.waiters, waiting.count());
        let entries = self.machine.entries(self.model.now);
        let found = entries.iter().map(|entry| {
            (
                entry.object,
                entry.key,
                charges_to_bytes(&entry.charges),
                entry.leases,
                entry.is_listed,
            )
        });
        let mut expected: Vec<_> = self
            .model
            .things
            .iter()
            .map(|it| (it.id, it.key, it.bytes, it.leases.len() as u64, it.is_listed))
            .collect();
        expected.sort_by_key(|it| it.0);
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}

fn charges_to_bytes(charges: &Charges) -> Bytes {
    [charges.bytes_on(Device(0)), charges.bytes_on(Device(1))]
}

fn plan() -> impl Strategy<Value = Plan> {
    let some_time = || proptest::option::weighted(0.3, 1_u64..40);
    let reserve = prop_oneof![2 => Just([0, 0]), 1 => bytes()];
    let flags = (prop::bool::weighted(0.75), prop::bool::weighted(0.3), prop::bool::weighted(0.2));
    (reserve, some_time(), some_time(), flags).prop_map(
        |(reserve, time_to_live, time_to_idle, (is_kept, cancels, is_bound))| Plan {
            reserve,
            time_to_live,
            time_to_idle,
            is_kept,
            cancels,
            is_bound,
        },
    )
}

fn bytes() -> impl Strategy<Value = Bytes> {
    (0_u64..50, 0_u64..35).prop_map(|(one, other)| [one, other])
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0_usize..12;
    let key = || (0_u8..2, 0_u8..3);
    prop_oneof![
        3 => Just(Step::Open),
        1 => at().prop_map(Step::Close),
        14 => (at(), key(), plan()).prop_map(|(at, key, plan)| Step::Lookup(at, key, plan)),
        9 => (at(), bytes()).prop_map(|(at, bytes)| Step::Finish(at, bytes)),
        2 => at().prop_map(Step::Fail),
        1 => at().prop_map(Step::Abandon),
        1 => at().prop_map(Step::Cancel),
        2 => at().prop_map(Step::AskWhetherCancelled),
        2 => at().prop_map(Step::Leave),
        5 => at().prop_map(Step::Collect),
        6 => at().prop_map(Step::Release),
        1 => at().prop_map(Step::ReleaseOfAnother),
        2 => (at(), at()).prop_map(|(at, object)| Step::ReleaseObject(at, object)),
        2 => (at(), at()).prop_map(|(at, object)| Step::LeaseMore(at, object)),
        2 => (at(), bytes()).prop_map(|(at, bytes)| Step::Admit(at, bytes)),
        2 => key().prop_map(Step::Invalidate),
        1 => (0_u8..2).prop_map(Step::InvalidateGroup),
        1 => (0_usize..2, 20_u64..160).prop_map(|(device, bytes)| Step::Limit(device, bytes)),
        4 => (0_u64..30).prop_map(Step::Pass),
        1 => Just(Step::Clear),
    ]
}

proptest! {
    #[test]
    fn the_machine_does_what_the_model_says(steps in prop::collection::vec(step(), 1..120)) {
        let mut pair = Pair::new();
        pair.apply(Step::Open);
        for step in steps {
            pair.apply(step);
            pair.compare();
        }
        // When everybody leaves, only what may be idle is left.
        while !pair.model.sessions.is_empty() {
            pair.apply(Step::Close(0));
            pair.compare();
        }
        assert_eq!(pair.machine.stats().leases, 0);
    }
}
