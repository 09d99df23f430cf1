//! What is out of date is not found again, and nothing else changes.

use tensor_cache::{Built, Cache, Invalidated, Lookup, Options, Request};

use crate::harness::{ask, begin, fill, find, join, plain};

#[test]
fn leases_are_not_disturbed() {
    let cache = plain();
    let session = cache.open_session();
    let lease = fill(&session, "model", 1, 10);
    assert_eq!(cache.invalidate(&"model".to_owned()).entries, 1);
    assert_eq!(cache.invalidate(&"model".to_owned()), Invalidated::default());
    assert_eq!(*lease, 1);
    assert_eq!(cache.refcount(lease.object()), Some(1));
    assert!(!cache.entry(lease.object()).expect("it exists").is_listed);
    let new = fill(&session, "model", 2, 10);
    assert_eq!(*new, 2);
    assert_eq!(cache.stats().devices[0].1.leased, 20);
    assert_eq!(session.release(lease.into_id()).map(|left| left.is_destroyed), Some(true));
    assert_eq!(cache.stats().invalidations, 1);
}

#[test]
fn a_build_in_flight_does_not_bring_the_old_value_back() {
    let cache = plain();
    let session = cache.open_session();
    let (token, own) = begin(&session, &ask("model"));
    let before = join(&session, "model");
    assert_eq!(cache.invalidate(&"model".to_owned()).builds, 1);
    let (second, after) = begin(&session, &ask("model"));
    let told = token.finish(Built::new(1)).expect("there is room");
    assert_eq!((told.delivered, told.is_listed), (2, false));
    assert_eq!(*own.wait().expect("it was there before"), 1);
    assert_eq!(*before.wait().expect("so was this"), 1);
    assert!(find(&session, "model").is_none(), "the second build is not done");
    assert!(second.finish(Built::new(2)).expect("there is room").is_listed);
    assert_eq!(*after.wait().expect("built"), 2);
    assert_eq!(cache.stats().objects, 1);
}

#[test]
fn a_failure_of_an_outdated_build_is_not_remembered() {
    let cache = plain();
    let session = cache.open_session();
    let (token, _own) = begin(&session, &ask("model"));
    cache.invalidate(&"model".to_owned());
    token.fail("old".to_owned());
    assert_eq!(*fill(&session, "model", 2, 0), 2);
}

#[test]
fn a_group_goes_together() {
    let cache: Cache<(&'static str, u32), u32> = Cache::new(&Options::new()).expect("a thread");
    let session = cache.open_session();
    for key in [("embed", 1), ("embed", 2), ("rank", 1)] {
        drop(session.get_or_build(&Request::new(key), |_| Ok(Built::new(key.1))));
    }
    let building = session.lookup(&Request::new(("embed", 3)));
    let Ok(Lookup::Build(token, _own)) = building else { panic!("nothing is there") };
    let hit = cache.invalidate_group(&"embed");
    assert_eq!((hit.entries, hit.builds), (2, 1));
    assert!(!token.finish(Built::new(3)).expect("there is room").is_listed);
    let left: Vec<_> =
        cache.entries().into_iter().filter(|it| it.is_listed).map(|it| it.key).collect();
    assert_eq!(left, [("rank", 1)]);
}

/// Some values look like nothing.
#[test]
fn a_cached_none_is_an_entry() {
    let cache: Cache<u32, Option<u32>> = Cache::new(&Options::new()).expect("a thread");
    let session = cache.open_session();
    let lease = session.get_or_build(&Request::new(1), |_| Ok(Built::new(None)));
    assert_eq!(*lease.expect("built"), None);
    assert!(matches!(session.lookup(&Request::new(1)), Ok(Lookup::Hit(_))));
    assert_eq!(cache.invalidate(&1).entries, 1);
}

#[test]
fn clearing_leaves_what_is_leased_to_those_who_lease_it() {
    let cache = plain();
    let session = cache.open_session();
    let lease = fill(&session, "leased", 1, 10);
    drop(fill(&session, "idle", 2, 10));
    cache.clear();
    let stats = cache.stats();
    assert_eq!((stats.objects, stats.entries, stats.devices[0].1.idle), (1, 0, 0));
    assert_eq!(*lease, 1);
}
