//! Loom models: every interleaving of two or three threads over the shipped cache.
//!
//! Time does not pass in a model, and nothing expires. A waiter that nobody tells is a deadlock,
//! which loom reports; each of the mutants listed in `loom_mutants.txt` makes at least one of these
//! models fail.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use crate::{
    Build, Built, Cache, Device, FlightError, GetError, Lease, Lookup, Options, Request, Session,
};

type Cached = Cache<u32, u32, String>;
type Holder = Session<u32, u32, String>;
type Got = Result<Lease<u32>, GetError<String>>;

const DEVICE: Device = Device(0);

/// More forced switches than this find little more and take far longer.
const PREEMPTIONS: usize = 3;

/// Runs `model` through its interleavings; `LOOM_MAX_PREEMPTIONS` widens or narrows them.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(model);
}

fn cache() -> Cached {
    Cache::new(&Options::new().budget(DEVICE, 100)).expect("a model has no thread to start")
}

fn fill(session: &Holder, key: u32, value: u32, bytes: u64) -> Lease<u32> {
    let built = |_: &Build<_, _, _>| Ok(Built::new(value).charge(DEVICE, bytes));
    session.get_or_build(&Request::new(key), built).expect("there is room")
}

/// What the counts must say when every lease and every build has ended.
fn assert_quiet(cache: &Cached) {
    let stats = cache.stats();
    assert_eq!((stats.leases, stats.flights, stats.waiters), (0, 0, 0));
    assert!(stats.devices.iter().all(|(_, room)| room.leased == 0 && room.building == 0));
    assert_eq!(stats.objects, stats.entries, "what nobody leases or finds is gone");
    assert_eq!(stats.misses, stats.builds + stats.failures);
}

#[test]
fn loom_who_asks_at_once_shares_one_build() {
    explore(|| {
        let cache = cache();
        let builds = Arc::new(AtomicU32::new(0));
        let get = |cache: Cached, builds: Arc<AtomicU32>| {
            let session = cache.open_session();
            let lease = session.get_or_build(&Request::new(1), |_| {
                builds.fetch_add(1, Ordering::Relaxed);
                Ok(Built::new(7).charge(DEVICE, 10))
            });
            assert_eq!(*lease.expect("it is built"), 7);
        };
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (cache, builds) = (cache.clone(), Arc::clone(&builds));
                thread::spawn(move || get(cache, builds))
            })
            .collect();
        get(cache.clone(), Arc::clone(&builds));
        for other in others {
            other.join().expect("the others do not fail");
        }
        assert_eq!(builds.load(Ordering::Relaxed), 1);
        assert_quiet(&cache);
    });
}

#[test]
fn loom_a_dropped_build_tells_who_joined() {
    explore(|| {
        let cache = cache();
        let session = cache.open_session();
        let Ok(Lookup::Build(build, pending)) = session.lookup(&Request::new(1)) else {
            panic!("nothing is there")
        };
        let joiner = {
            let session = cache.open_session();
            thread::spawn(move || session.get_or_build(&Request::new(1), |_| Ok(Built::new(9))))
        };
        drop(build);
        let joined: Got = joiner.join().expect("the joiner does not fail");
        match joined {
            Ok(lease) => assert_eq!(*lease, 9, "it came after the end and built for itself"),
            Err(GetError::Flight(FlightError::Abandoned { .. })) => {}
            Err(error) => panic!("{error}"),
        }
        let own = pending.wait();
        assert!(matches!(own, Err(GetError::Flight(FlightError::Abandoned { .. }))));
        assert_quiet(&cache);
    });
}

#[test]
fn loom_an_error_reaches_everybody() {
    explore(|| {
        let cache = cache();
        let fail = |cache: Cached| {
            let session = cache.open_session();
            let got: Got = session.get_or_build(&Request::new(1), |_| Err("no".to_owned()));
            let Err(GetError::Flight(FlightError::Failed(error))) = got else {
                panic!("it cannot be built")
            };
            assert_eq!(*error, "no");
        };
        let other = cache.clone();
        let other = thread::spawn(move || fail(other));
        fail(cache.clone());
        other.join().expect("the other one does not fail");
        assert_eq!(cache.stats().failures, 1, "the failure is remembered");
    });
}

#[test]
fn loom_invalidation_beats_a_build_in_flight() {
    explore(|| {
        let cache = cache();
        let session = cache.open_session();
        let Ok(Lookup::Build(build, pending)) = session.lookup(&Request::new(1)) else {
            panic!("nothing is there")
        };
        let other = cache.clone();
        let other = thread::spawn(move || {
            let hit = other.invalidate(&1);
            assert_eq!(hit.entries + hit.builds, 1);
            // What begins after the invalidation never sees what began before it.
            let session = other.open_session();
            assert_eq!(*fill(&session, 1, 2, 10), 2);
        });
        assert!(build.finish(Built::new(1).charge(DEVICE, 10)).is_ok());
        let old = pending.wait().expect("who joined before gets the old value");
        assert_eq!(*old, 1);
        other.join().expect("the other one does not fail");
        assert_eq!(*fill(&session, 1, 3, 10), 2, "only the new value is found");
        drop(old);
        assert_quiet(&cache);
    });
}

#[test]
fn loom_what_is_leased_is_not_evicted() {
    explore(|| {
        let cache = cache();
        let session = cache.open_session();
        let lease = fill(&session, 1, 1, 60);
        let other = cache.clone();
        let other = thread::spawn(move || {
            let session = other.open_session();
            let built = |_: &Build<_, _, _>| Ok(Built::new(2).charge(DEVICE, 60));
            match session.get_or_build(&Request::new(2), built) {
                Ok(_) => assert_eq!(other.stats().evictions, 1),
                Err(GetError::Flight(FlightError::OverBudget(over))) => {
                    assert_eq!((over.leased, over.holders.len()), (60, 1));
                }
                Err(error) => panic!("{error}"),
            }
        });
        assert_eq!(cache.refcount(lease.object()), Some(1));
        drop(lease);
        other.join().expect("the other one does not fail");
        assert_quiet(&cache);
    });
}

#[test]
fn loom_room_is_made_of_what_is_idle() {
    explore(|| {
        let cache = cache();
        let session = cache.open_session();
        let lease = fill(&session, 1, 1, 40);
        drop(fill(&session, 2, 2, 40));
        let other = cache.clone();
        let other = thread::spawn(move || drop(fill(&other.open_session(), 3, 3, 50)));
        // In use until now: used later than the second, although found earlier.
        drop(lease);
        other.join().expect("there is room");
        assert!(matches!(session.lookup(&Request::new(1)), Ok(Lookup::Hit(_))));
        assert_eq!(cache.stats().evictions, 1);
        assert_quiet(&cache);
    });
}

#[test]
fn loom_a_hit_is_never_stale() {
    explore(|| {
        let cache = cache();
        let session = cache.open_session();
        let first = fill(&session, 1, 1, 60);
        let object = first.object();
        drop(first);
        let other = cache.clone();
        let other = thread::spawn(move || {
            // Makes room by evicting the first, unless that has been leased by then.
            let session = other.open_session();
            let built = |_: &Build<_, _, _>| Ok(Built::new(2).charge(DEVICE, 60));
            drop(session.get_or_build(&Request::new(2), built));
        });
        if let Ok(Lookup::Hit(lease)) = session.lookup(&Request::new(1)) {
            assert_eq!(lease.object(), object);
            assert_eq!(cache.refcount(object), Some(1));
        }
        other.join().expect("the other one does not fail");
        assert_quiet(&cache);
    });
}

#[test]
fn loom_a_closed_session_holds_nothing() {
    explore(|| {
        let cache = cache();
        drop(fill(&cache.open_session(), 1, 1, 10));
        let session = Arc::new(cache.open_session());
        let same = Arc::clone(&session);
        let closer = thread::spawn(move || same.close().len());
        let kept = match session.lookup(&Request::new(1)) {
            Ok(Lookup::Hit(lease)) => {
                usize::from(cache.refcount(lease.into_id().object) == Some(1))
            }
            Err(GetError::SessionClosed { .. }) => 0,
            other => panic!("{other:?}"),
        };
        let told = closer.join().expect("closing does not fail");
        assert!(kept <= told, "a lease that outlived the closing was not told of");
        assert_quiet(&cache);
    });
}

#[test]
fn loom_closing_a_session_ends_its_waits() {
    explore(|| {
        let cache = cache();
        let builder = cache.open_session();
        let Ok(Lookup::Build(build, pending)) = builder.lookup(&Request::new(1)) else {
            panic!("nothing is there")
        };
        let session = Arc::new(cache.open_session());
        let same = Arc::clone(&session);
        let waiter = thread::spawn(move || same.get_or_build(&Request::new(1), |_| unreachable!()));
        session.close();
        let got: Got = waiter.join().expect("the waiter does not fail");
        assert!(matches!(got, Err(GetError::SessionClosed { .. })));
        assert!(build.finish(Built::new(1)).is_ok());
        drop(pending.wait());
        assert_quiet(&cache);
    });
}

#[test]
fn loom_leaving_while_it_is_delivered_returns_the_lease() {
    explore(|| {
        let cache = cache();
        let session = cache.open_session();
        let Ok(Lookup::Build(build, pending)) = session.lookup(&Request::new(1)) else {
            panic!("nothing is there")
        };
        let leaver = thread::spawn(move || drop(pending));
        assert!(build.finish(Built::new(1).charge(DEVICE, 10)).is_ok());
        leaver.join().expect("leaving does not fail");
        assert_quiet(&cache);
        assert!(session.leases().is_empty());
    });
}

/// A value that looks at its cache when it is dropped.
struct Nosy(Arc<loom::sync::Mutex<Option<Cache<u32, Nosy, String>>>>);

impl Drop for Nosy {
    fn drop(&mut self) {
        let home = self.0.lock().unwrap();
        if let Some(cache) = &*home {
            assert_eq!(cache.stats().objects, 0);
        }
    }
}

#[test]
fn loom_values_are_dropped_without_the_lock() {
    explore(|| {
        let cache: Cache<u32, Nosy, String> = Cache::new(&Options::new()).expect("no thread");
        let home = Arc::new(loom::sync::Mutex::new(Some(cache.clone())));
        let session = cache.open_session();
        let nosy = Nosy(Arc::clone(&home));
        drop(session.get_or_build(&Request::new(1), |_| Ok(Built::new(nosy))));
        let other = cache.clone();
        let other = thread::spawn(move || other.invalidate(&1).entries);
        let here = cache.invalidate(&1).entries;
        assert_eq!(here + other.join().expect("invalidating does not fail"), 1);
        home.lock().unwrap().take();
    });
}

/// Wakes one thread of a model.
struct Bell(loom::sync::Mutex<bool>, loom::sync::Condvar);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

#[test]
fn loom_a_task_is_woken() {
    explore(|| {
        let cache = cache();
        let session = cache.open_session();
        let Ok(Lookup::Build(build, mut pending)) = session.lookup(&Request::new(1)) else {
            panic!("nothing is there")
        };
        let builder = thread::spawn(move || build.finish(Built::new(1)).is_ok());
        let bell = Arc::new(Bell(loom::sync::Mutex::new(false), loom::sync::Condvar::new()));
        let waker = Waker::from(Arc::clone(&bell));
        let lease = loop {
            match Pin::new(&mut pending).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(got) => break got.expect("it is built"),
                Poll::Pending => {
                    let mut rung = bell.0.lock().unwrap();
                    while !*rung {
                        rung = bell.1.wait(rung).unwrap();
                    }
                    *rung = false;
                }
            }
        };
        assert_eq!(*lease, 1);
        drop(lease);
        assert!(builder.join().expect("the builder does not fail"));
        assert_quiet(&cache);
    });
}

#[test]
fn loom_two_builds_that_need_each_other_are_told() {
    explore(|| {
        let cache = cache();
        let needs = |cache: Cached, own: u32, other: u32| {
            let session = cache.open_session();
            let got: Got = session.get_or_build(&Request::new(own), |_| {
                let needed = session.get_or_build(&Request::new(other), |_| Ok(Built::new(0)));
                needed.map(|needed| Built::new(*needed + 1)).map_err(|error| error.to_string())
            });
            got.is_ok()
        };
        let second = cache.clone();
        let second = thread::spawn(move || needs(second, 2, 1));
        // Without the search for circles this ends in a deadlock, which loom reports.
        needs(cache.clone(), 1, 2);
        second.join().expect("the other one does not fail");
        assert_quiet(&cache);
    });
}
