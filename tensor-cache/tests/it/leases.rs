//! Who holds what, and what that keeps.

use std::collections::HashSet;
use std::sync::Arc;

use tensor_cache::{
    AdmitError, Built, Cache, GetError, LeaseId, ObjectId, Options, Request, Retention,
};

use crate::harness::{GPU, ask, assert_quiet, begin, fill, find, join, plain};

#[test]
fn every_hit_and_join_is_one_lease() {
    let cache = plain();
    let session = cache.open_session();
    let (token, own) = begin(&session, &ask("model"));
    let joined = join(&session, "model");
    let object = token.finish(Built::new(1)).expect("there is room").object.expect("it is kept");
    assert_eq!(cache.refcount(object), Some(2), "leased before anybody has looked");
    let (own, joined) = (own.wait().expect("built"), joined.wait().expect("built"));
    let hit = find(&session, "model").expect("it is there");
    assert_eq!(cache.refcount(object), Some(3));
    assert_eq!(cache.entry(object).expect("it exists").hits, 1);
    drop((own, joined, hit));
    assert_eq!(cache.refcount(object), Some(0));
    assert_quiet(&cache);
}

#[test]
fn finding_begins_nothing() {
    let cache = plain();
    let session = cache.open_session();
    assert!(session.find(&"model".to_owned()).is_none());
    let (token, own) = begin(&session, &ask("model"));
    assert!(session.find(&"model".to_owned()).is_none());
    token.finish(Built::new(3)).expect("there is room");
    let found = session.find(&"model".to_owned()).expect("it is there");
    assert_eq!((*found, cache.refcount(found.object())), (3, Some(2)));
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.joins), (1, 1, 0));
    drop((found, own));
    session.close();
    assert!(session.find(&"model".to_owned()).is_none(), "a closed session gets nothing");
    assert_eq!(cache.stats().leases, 0);
}

#[test]
fn one_releases_ones_own_once() {
    let cache = plain();
    let (one, other) = (cache.open_session(), cache.open_session());
    let lease = fill(&one, "model", 1, 10).into_id();
    let object = lease.object;
    let theirs = fill(&other, "model", 2, 10);
    assert_eq!(other.release(lease), None, "somebody else's");
    assert_eq!(one.release(LeaseId { object, serial: 0 }), None, "nobody's");
    assert_eq!(one.release(LeaseId { object: ObjectId::from_raw(99), serial: 1 }), None);
    let left = one.release(lease).expect("its own");
    assert_eq!((left.object, left.leases_left, left.is_destroyed), (object, 1, false));
    assert_eq!(one.release(lease), None, "given back before");
    assert_eq!(one.release_object(object), None);
    assert_eq!(*theirs, 1);
    assert_eq!(cache.refcount(object), Some(1));
}

#[test]
fn leases_on_one_object_are_counted_and_released_one_by_one() {
    let cache = plain();
    let session = cache.open_session();
    let leases: Vec<_> = (0..3).map(|_| fill(&session, "model", 1, 0).into_id()).collect();
    let object = leases[0].object;
    assert_eq!(session.leases(), leases);
    let more = session.lease(object).expect("it exists").into_id();
    assert_eq!(cache.refcount(object), Some(4));
    assert_eq!(session.release(leases[1]).map(|left| left.leases_left), Some(3));
    assert_eq!(session.release_object(object).map(|left| left.leases_left), Some(2));
    assert_eq!(session.leases(), [leases[2], more], "the oldest went");
    assert!(session.lease(ObjectId::from_raw(12345)).is_none());
}

#[test]
fn closing_a_session_gives_everything_back_and_tells() {
    let cache = plain();
    let (one, other) = (cache.open_session(), cache.open_session());
    let shared = fill(&one, "shared", 1, 10).into_id();
    let alone = fill(&one, "alone", 2, 10).into_id();
    let uncached = one.admit("uncached".to_owned(), Built::new(3).charge(GPU, 5));
    let uncached = uncached.expect("there is room").into_id();
    let theirs = fill(&other, "shared", 0, 10);
    let guard = find(&one, "alone").expect("it is there");
    let told = one.close();
    let told: Vec<_> =
        told.iter().map(|left| (left.object, left.leases_left, left.is_destroyed)).collect();
    assert_eq!(
        told,
        [(shared.object, 1, false), (alone.object, 0, false), (uncached.object, 0, true)]
    );
    assert_eq!(one.close(), [], "closed before");
    assert_eq!(one.release(shared), None);
    assert!(one.lease(shared.object).is_none());
    assert!(matches!(one.lookup(&ask("alone")), Err(GetError::SessionClosed { .. })));
    let refused = one.admit("more".to_owned(), Built::new(1));
    assert!(matches!(refused, Err(AdmitError::SessionClosed { .. })));
    assert_eq!(*guard, 2, "a guard that is left has its value");
    drop(guard);
    assert_eq!(cache.refcount(theirs.object()), Some(1), "and takes nothing from others");
}

#[test]
fn dropping_a_session_is_closing_it() {
    let cache = plain();
    let session = cache.open_session();
    let object = fill(&session, "model", 1, 10).into_id().object;
    drop(session);
    assert_eq!(cache.refcount(object), Some(0));
    assert_eq!(cache.stats().sessions, 0);
}

#[test]
fn what_was_admitted_lives_by_its_leases() {
    let cache = plain();
    let (one, other) = (cache.open_session(), cache.open_session());
    let first = one.admit("view".to_owned(), Built::new(1).charge(GPU, 10)).expect("room");
    let second = one.admit("view".to_owned(), Built::new(2).charge(GPU, 10)).expect("room");
    assert_ne!(first.object(), second.object());
    assert!(find(&one, "view").is_none());
    let object = first.object();
    let theirs = other.lease(object).expect("it exists");
    drop(first);
    assert_eq!(cache.refcount(object), Some(1));
    drop(theirs);
    assert_eq!(cache.refcount(object), None);
    assert_eq!(cache.stats().devices[0].1.leased, 10);
}

#[test]
fn what_is_kept_while_leased_goes_with_the_last_lease() {
    let cache = plain();
    let session = cache.open_session();
    let request = ask("model").retention(Retention::WhileLeased);
    let first = session.get_or_build(&request, |_| Ok(Built::new(1))).expect("built");
    let second = find(&session, "model").expect("found while leased");
    let object = first.object();
    drop(first);
    assert_eq!(cache.refcount(object), Some(1));
    let left = session.release(second.into_id()).expect("its own");
    assert!(left.is_destroyed);
    assert_eq!(cache.stats().objects, 0);
    let (token, pending) = begin(&session, &request);
    drop(pending);
    let finished = token.finish(Built::new(2)).expect("there is room");
    assert_eq!(finished.object, None, "nobody wanted it");
}

#[test]
fn numbers_of_objects_are_not_used_again() {
    let cache = plain();
    let session = cache.open_session();
    let mut seen = HashSet::new();
    for value in 0..100 {
        assert!(seen.insert(fill(&session, "model", value, 1).object()));
        cache.invalidate(&"model".to_owned());
    }
}

#[test]
fn leases_outlive_the_cache() {
    let cache: Cache<u32, Arc<u32>> = Cache::new(&Options::new()).expect("a thread");
    let session = cache.open_session();
    let value = Arc::new(5);
    let build = |_: &_| Ok(Built::new(Arc::clone(&value)));
    let lease = session.get_or_build(&Request::new(1), build).expect("built");
    drop(session.get_or_build(&Request::new(2), build).expect("built"));
    assert_eq!(Arc::strong_count(&value), 3);
    drop(cache);
    assert_eq!(Arc::strong_count(&value), 2, "what nobody leased went with the cache");
    assert_eq!(**lease, 5);
    drop((lease, session));
    assert_eq!(Arc::strong_count(&value), 1);
}
