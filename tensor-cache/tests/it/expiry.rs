//! What is over goes by itself.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tensor_cache::{Built, Cache, Device, Lease, Lookup, Options, Request, Session};

use crate::harness::{hear, hear_nothing};

/// Says its name when it is dropped.
struct Loud(&'static str, Sender<&'static str>);

impl Drop for Loud {
    fn drop(&mut self) {
        // Nobody may be listening any more.
        let _ = self.1.send(self.0);
    }
}

type Rooms = Cache<&'static str, Loud>;

fn rooms() -> (Rooms, Sender<&'static str>, Receiver<&'static str>) {
    let (sender, receiver) = channel();
    (Cache::new(&Options::new()).expect("a thread"), sender, receiver)
}

fn get(
    session: &Session<&'static str, Loud, tensor_cache::BoxError>,
    request: &Request<&'static str>,
    sender: &Sender<&'static str>,
) -> Lease<Loud> {
    let name = request.key();
    let loud = Loud(name, sender.clone());
    session.get_or_build(request, |_| Ok(Built::new(loud).charge(Device(0), 10))).expect("built")
}

const SHORT: Duration = Duration::from_millis(3);
const LONG: Duration = Duration::from_secs(3600);

#[test]
fn what_has_lived_its_time_is_dropped_without_any_call() {
    let (cache, sender, dropped) = rooms();
    let session = cache.open_session();
    drop(get(&session, &Request::new("short").time_to_live(SHORT), &sender));
    drop(get(&session, &Request::new("long").time_to_live(LONG), &sender));
    assert_eq!(hear(&dropped), "short");
    let stats = cache.stats();
    assert_eq!((stats.expirations, stats.entries, stats.devices[0].1.idle), (1, 1, 10));
}

#[test]
fn a_later_but_nearer_end_is_not_missed() {
    let (cache, sender, dropped) = rooms();
    let session = cache.open_session();
    drop(get(&session, &Request::new("long").time_to_live(LONG), &sender));
    drop(get(&session, &Request::new("idle").time_to_idle(SHORT), &sender));
    assert_eq!(hear(&dropped), "idle");
    assert!(matches!(session.lookup(&Request::new("long")), Ok(Lookup::Hit(_))));
}

#[test]
fn a_lease_outlives_the_time_but_nobody_else_gets_it() {
    let (cache, sender, dropped) = rooms();
    let session = cache.open_session();
    let lease = get(&session, &Request::new("short").time_to_live(SHORT), &sender);
    let object = lease.object();
    crate::harness::until(|| cache.entry(object).is_some_and(|entry| !entry.is_listed));
    assert!(matches!(session.lookup(&Request::new("short")), Ok(Lookup::Build(..))));
    assert_eq!(cache.refcount(object), Some(1));
    assert!(dropped.try_recv().is_err(), "it is leased");
    drop(lease);
    assert_eq!(hear(&dropped), "short");
}

#[test]
fn what_is_leased_is_not_idle() {
    let (cache, sender, dropped) = rooms();
    let session = cache.open_session();
    let lease = get(&session, &Request::new("leased").time_to_idle(SHORT), &sender);
    drop(get(&session, &Request::new("other").time_to_idle(SHORT * 2), &sender));
    assert_eq!(hear(&dropped), "other", "both times have passed");
    assert!(cache.entry(lease.object()).expect("it exists").is_listed);
    drop(lease);
    assert_eq!(hear(&dropped), "leased");
}

#[test]
fn the_end_of_the_cache_is_the_end_of_its_values() {
    let (cache, sender, dropped) = rooms();
    let session = cache.open_session();
    drop(get(&session, &Request::new("long").time_to_live(LONG), &sender));
    let clone = cache.clone();
    drop(cache);
    assert!(dropped.try_recv().is_err(), "a clone is the same cache");
    drop(clone);
    assert_eq!(dropped.try_recv(), Ok("long"));
    drop(sender);
    hear_nothing(&dropped);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn a_value_that_panics_does_not_end_the_timer() {
    let (sender, dropped) = channel();
    let cache: Cache<u32, (Option<Bomb>, Option<Loud>)> = Cache::new(&Options::new()).expect("one");
    let session = cache.open_session();
    let bomb = session
        .get_or_build(&Request::new(1).time_to_idle(SHORT), |_| Ok(Built::new((Some(Bomb), None))));
    let _ = bomb.expect("built").into_id();
    assert_eq!(session.close().len(), 1);
    let session = cache.open_session();
    let later = Request::new(2).time_to_live(SHORT * 2);
    let loud = Loud("later", sender);
    drop(session.get_or_build(&later, |_| Ok(Built::new((None, Some(loud))))).expect("built"));
    assert_eq!(hear(&dropped), "later");
}

/// Owns its own cache, and tells where it ended.
struct Keeper(Option<Cache<u32, Keeper>>, Sender<Option<String>>);

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.0.take());
        let thread = std::thread::current().name().map(str::to_owned);
        self.1.send(thread).expect("somebody listens");
    }
}

#[test]
fn a_value_may_own_the_last_handle_of_its_cache() {
    let cache: Cache<u32, Keeper> = Cache::new(&Options::new()).expect("a thread");
    let (sender, ended) = channel();
    let session = cache.open_session();
    let keeper = Keeper(Some(cache), sender);
    // Its time begins when its lease ends: nobody but the cache's own threads drops it.
    let request = Request::new(1).time_to_idle(SHORT);
    drop(session.get_or_build(&request, |_| Ok(Built::new(keeper))).expect("built"));
    // Dropped by the thread for that, which then must not wait for itself.
    assert_eq!(hear(&ended).as_deref(), Some("tensor-cache-drop"));
}

/// Waits when it is dropped.
struct Slow(Sender<&'static str>, std::sync::Mutex<Receiver<()>>);

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = self.0.send("begun");
        let _ = self.1.lock().expect("nobody else").recv();
        let _ = self.0.send("dropped");
    }
}

#[test]
fn a_slow_drop_keeps_nothing_else_from_ending_in_time() {
    // Keys go in the step that ends their value, so they tell of it without a call.
    type Key = tensor_cache::Plain<std::sync::Arc<&'static str>>;
    let cache = Cache::<Key, Slow>::new(&Options::new()).expect("a thread");
    let session = cache.open_session();
    let (sender, said) = channel();
    let mut doors = Vec::new();
    let mut keep = |name: &'static str| {
        let (door, closed) = channel();
        doors.push(door);
        let slow = Slow(sender.clone(), closed.into());
        let key = Key::from(std::sync::Arc::new(name));
        let known = std::sync::Arc::downgrade(&key.0);
        // Counted from the end of the lease, so that it cannot be over before.
        let request = Request::new(key).time_to_idle(SHORT);
        drop(session.get_or_build(&request, |_| Ok(Built::new(slow))).expect("built"));
        known
    };
    let first = keep("first");
    assert_eq!(hear(&said), "begun");
    crate::harness::until(|| first.strong_count() == 0);
    let second = keep("second");
    crate::harness::until(|| second.strong_count() == 0);
    assert!(said.try_recv().is_err(), "the first one is still being dropped");
    drop(doors);
    assert_eq!([hear(&said), hear(&said), hear(&said)], ["dropped", "begun", "dropped"]);
    drop((session, cache));
}

#[test]
fn who_drops_a_cache_finds_its_values_dropped() {
    let (cache, sender, dropped) = rooms();
    let session = cache.open_session();
    drop(get(&session, &Request::new("short").time_to_live(SHORT), &sender));
    let lease = get(&session, &Request::new("held").time_to_live(SHORT), &sender);
    crate::harness::until(|| cache.entry(lease.object()).is_some_and(|entry| !entry.is_listed));
    drop((session, cache));
    assert_eq!(dropped.try_recv(), Ok("short"));
    drop(lease);
    assert_eq!(dropped.try_recv(), Ok("held"));
}

#[test]
fn lookups_are_shown_whatever_the_values_are() {
    let (cache, sender, _dropped) = rooms();
    let session = cache.open_session();
    let request = Request::new("loud");
    assert!(format!("{:?}", session.lookup(&request)).starts_with("Ok(Build(Build {"));
    let _lease = get(&session, &request, &sender);
    assert!(format!("{:?}", session.lookup(&request)).starts_with("Ok(Hit(Lease {"));
}
