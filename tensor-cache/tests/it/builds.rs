//! One build for all who ask, and an end to every build.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tensor_cache::{Built, FlightError, GetError, Lookup, Options, Unwanted};

use crate::harness::{Got, ask, assert_quiet, begin, cache, fill, find, join, plain, until};

#[test]
fn eight_threads_share_one_build() {
    let cache = plain();
    let builds = AtomicU32::new(0);
    let objects: Vec<_> = thread::scope(|scope| {
        let get = || {
            let session = cache.open_session();
            let lease = session.get_or_build(&ask("model"), |_| {
                builds.fetch_add(1, Ordering::Relaxed);
                until(|| cache.stats().waiters == 8);
                Ok(Built::new(7))
            });
            let lease = lease.expect("it is built");
            assert_eq!(*lease, 7);
            lease.object()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(get)).collect();
        threads.into_iter().map(|thread| thread.join().expect("nobody fails")).collect()
    });
    assert!(objects.iter().all(|object| *object == objects[0]));
    assert_eq!(builds.into_inner(), 1);
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.joins, stats.hits, stats.builds), (1, 7, 0, 1));
    assert_quiet(&cache);
}

#[test]
fn an_error_reaches_everybody_and_is_remembered() {
    let cache = cache(&Options::new().keep_failures(Duration::from_secs(3600)));
    let session = cache.open_session();
    let (token, own) = begin(&session, &ask("model"));
    let others = [join(&session, "model"), join(&session, "model")];
    let FlightError::Failed(error) = token.fail("no such file".to_owned()) else {
        panic!("the builder said so")
    };
    for place in [own].into_iter().chain(others) {
        let Err(GetError::Flight(FlightError::Failed(same))) = place.wait() else {
            panic!("everybody gets the error")
        };
        assert!(Arc::ptr_eq(&same, &error));
    }
    let again = session.get_or_build(&ask("model"), |_| panic!("it is not tried again"));
    assert!(matches!(again, Err(GetError::Flight(FlightError::Failed(_)))));
    assert_eq!(cache.stats().remembered_failures, 1);
    assert_eq!(cache.invalidate(&"model".to_owned()).entries, 0, "an error is no entry");
    assert_eq!(*fill(&session, "model", 3, 0), 3);
    assert_quiet(&cache);
}

#[test]
fn a_remembered_error_is_forgotten_in_time() {
    let cache = cache(&Options::new().keep_failures(Duration::from_millis(2)));
    let session = cache.open_session();
    begin(&session, &ask("model")).0.fail("no".to_owned());
    until(|| session.get_or_build(&ask("model"), |_| Ok(Built::new(1))).is_ok());
}

#[test]
fn errors_need_not_be_remembered() {
    let cache = cache(&Options::new().keep_failures(Duration::ZERO));
    let session = cache.open_session();
    begin(&session, &ask("model")).0.fail("no".to_owned());
    assert_eq!(*fill(&session, "model", 3, 0), 3);
}

#[test]
fn a_panic_is_passed_on_and_everybody_is_told() {
    let cache = plain();
    let session = cache.open_session();
    thread::scope(|scope| {
        let joiner = scope.spawn(|| {
            until(|| cache.stats().flights == 1);
            join(&cache.open_session(), "model").wait()
        });
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            session.get_or_build(&ask("model"), |build| {
                until(|| cache.stats().waiters == 2);
                let thing = build.key();
                panic!("out of {thing}s")
            })
        }));
        let panic = panicked.expect_err("the builder's own thread panics");
        assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some("out of models"));
        let told: Got = joiner.join().expect("the joiner does not panic");
        let told = told.expect_err("there is no value").to_string();
        assert_eq!(told, "the build of `model` panicked: out of models");
    });
    assert_quiet(&cache);
}

#[test]
fn a_thread_that_ends_with_a_build_abandons_it() {
    let cache = plain();
    let session = cache.open_session();
    let (token, own) = begin(&session, &ask("model"));
    let other = join(&session, "model");
    thread::spawn(move || {
        token.progress(1, 2, "half");
    })
    .join()
    .expect("the builder just ends");
    for place in [own, other] {
        let told = place.wait().expect_err("there is no value").to_string();
        assert_eq!(
            told,
            "the build of `model` was abandoned, with neither a value nor an error; ask again to \
             start another one"
        );
    }
    assert_eq!(*fill(&session, "model", 3, 0), 3, "an abandoned build is not remembered");
}

#[test]
fn a_thread_that_unwinds_with_a_build_tells_of_a_panic() {
    let cache = plain();
    let session = cache.open_session();
    let (token, own) = begin(&session, &ask("model"));
    let unwound = thread::spawn(move || {
        let _token = token;
        panic!("elsewhere");
    });
    unwound.join().expect_err("it panics");
    assert!(matches!(own.wait(), Err(GetError::Flight(FlightError::Panicked { .. }))));
}

#[test]
fn a_builder_elsewhere_that_is_gone_is_given_up() {
    let cache = plain();
    let session = cache.open_session();
    let (token, own) = begin(&session, &ask("model"));
    assert!(cache.abandon(token.id()));
    assert!(!cache.abandon(token.id()), "it has ended");
    assert!(matches!(own.wait(), Err(GetError::Flight(FlightError::Abandoned { .. }))));
    assert!(token.is_cancelled());
    assert_eq!(*fill(&session, "model", 3, 0), 3);
    assert!(matches!(token.finish(Built::new(9)), Err(FlightError::Abandoned { .. })));
    assert_eq!(*find(&session, "model").expect("the new value stays"), 3);
}

#[test]
fn the_end_of_a_building_session_ends_its_build() {
    let cache = plain();
    let (client, other) = (cache.open_session(), cache.open_session());
    let (_bound, _) = begin(&client, &ask("bound").bound_to_session());
    let (free, _) = begin(&client, &ask("free"));
    let (of_bound, of_free) = (join(&other, "bound"), join(&other, "free"));
    client.close();
    assert!(matches!(of_bound.wait(), Err(GetError::Flight(FlightError::Abandoned { .. }))));
    assert!(free.finish(Built::new(5)).is_ok());
    assert_eq!(*of_free.wait().expect("it went on"), 5);
}

#[test]
fn a_build_goes_on_when_everybody_has_left() {
    let cache = plain();
    let session = cache.open_session();
    let (token, own) = begin(&session, &ask("model"));
    let token = token.hand_over();
    let over = Instant::now();
    let waited = session.get_or_build(&ask("model").deadline(over), |_| unreachable!());
    let told = waited.expect_err("it is not there").to_string();
    assert!(told.starts_with("waited ") && told.contains("for the build of `model`"), "{told}");
    drop(own);
    assert!(!token.is_cancelled());
    let finished = token.finish(Built::new(4)).expect("there is room");
    assert_eq!((finished.delivered, finished.is_listed), (0, true));
    assert_eq!(*find(&session, "model").expect("it was kept"), 4);
}

#[test]
fn a_build_that_nobody_wants_may_stop() {
    let cache = plain();
    let session = cache.open_session();
    let request = ask("model").when_unwanted(Unwanted::Cancel);
    let (token, own) = begin(&session, &request);
    assert!(!token.is_cancelled());
    drop(own);
    // Whoever comes before the builder has looked makes it wanted again.
    let revived = join(&session, "model");
    assert!(!token.is_cancelled());
    drop(revived);
    assert!(token.is_cancelled());
    let (second, own) = begin(&session, &request);
    assert!(token.is_cancelled(), "it stays so");
    token.fail("stopped".to_owned());
    assert!(second.finish(Built::new(2)).is_ok());
    assert_eq!(*own.wait().expect("the second one is another build"), 2);
}

#[test]
fn the_end_of_the_last_waiting_client_makes_a_build_unwanted() {
    let cache = plain();
    let (one, other) = (cache.open_session(), cache.open_session());
    let (token, _own) = begin(&one, &ask("model").when_unwanted(Unwanted::Cancel));
    let _joined = join(&other, "model");
    one.close();
    assert!(!token.is_cancelled());
    other.close();
    assert!(token.is_cancelled());
}

#[test]
fn builds_in_progress_can_be_looked_at() {
    let cache = plain();
    let session = cache.open_session();
    let (token, _own) = begin(&session, &ask("model"));
    let _joined = join(&session, "model");
    token.progress(3, 4, "most");
    let flights = cache.flights();
    assert_eq!(flights.len(), 1);
    assert_eq!((flights[0].key.as_str(), flights[0].flight), ("model", token.id()));
    assert_eq!((flights[0].session, flights[0].waiters), (session.id(), 2));
    assert_eq!(flights[0].progress.as_ref().map(|progress| progress.done), Some(3));
    assert!(flights[0].is_listed);
    cache.invalidate(&"model".to_owned());
    assert!(!cache.flights()[0].is_listed);
}

#[test]
fn a_builder_can_be_asked_to_stop() {
    let cache = plain();
    let session = cache.open_session();
    let (token, own) = begin(&session, &ask("model"));
    assert!(cache.cancel(token.id()));
    assert!(token.is_cancelled());
    assert!(matches!(session.lookup(&ask("model")), Ok(Lookup::Build(..))));
    // It had just been done: those who wait get it, and nobody else.
    let finished = token.finish(Built::new(1)).expect("there is room");
    assert!(!finished.is_listed);
    assert_eq!(*own.wait().expect("it was built"), 1);
    assert_quiet(&cache);
}
