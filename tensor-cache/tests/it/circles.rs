//! Builds that need each other are told so, and do not hang.

use std::sync::Barrier;
use std::thread;

use tensor_cache::{Actor, Built, GetError, Lookup};

use crate::harness::{Got, Holder, Texts, ask, assert_quiet, begin, fill, find, join, plain};

fn chain(got: &Got) -> String {
    match got {
        Err(GetError::WouldDeadlock { chain }) => chain.join(" -> "),
        other => panic!("it would deadlock: {other:?}"),
    }
}

/// Builds `key` from what `inner` gets.
fn from(session: &Holder, key: &str, inner: impl FnOnce() -> Got) -> Got {
    session.get_or_build(&ask(key), |_| {
        let needed = inner().map_err(|error| error.to_string())?;
        Ok(Built::new(*needed + 1))
    })
}

#[test]
fn a_build_that_needs_itself() {
    let cache = plain();
    let session = cache.open_session();
    let outer = session.get_or_build(&ask("a"), |_| {
        let inner = session.get_or_build(&ask("a"), |_| unreachable!("it is being built"));
        Err(chain(&inner))
    });
    assert_eq!(outer.expect_err("it failed").to_string(), "the build failed: a -> a");
    assert_quiet(&cache);
}

#[test]
fn a_build_that_needs_itself_through_others() {
    let cache = plain();
    let session = cache.open_session();
    let innermost = || {
        let inner = session.get_or_build(&ask("a"), |_| unreachable!("it is being built"));
        assert_eq!(chain(&inner), "a -> b -> c -> a");
        inner
    };
    let got = from(&session, "a", || from(&session, "b", || from(&session, "c", innermost)));
    let told = got.expect_err("it failed").to_string();
    assert!(told.contains("needs the next: `a` -> `b` -> `c` -> `a`"), "{told}");
}

#[test]
fn what_was_built_before_is_no_circle() {
    let cache = plain();
    let session = cache.open_session();
    let got = from(&session, "a", || {
        drop(fill(&session, "b", 1, 0));
        Ok(find(&session, "b").expect("it is there"))
    });
    assert_eq!(*got.expect("no circle"), 2);
}

/// Each of two threads builds one key and needs the other: whoever comes second is told.
fn crosswise(cache: &Texts) -> Vec<(&'static str, Got)> {
    let both_build = Barrier::new(2);
    thread::scope(|scope| {
        let build = |own: &'static str, other: &'static str| {
            let session = cache.open_session();
            let got = session.get_or_build(&ask(own), |_| {
                both_build.wait();
                let needed = session.get_or_build(&ask(other), |_| unreachable!("it is built"));
                if let Err(GetError::WouldDeadlock { chain }) = &needed {
                    assert_eq!(chain.join(" "), format!("{own} {other} {own}"));
                }
                needed.map(|needed| Built::new(*needed)).map_err(|error| error.to_string())
            });
            (own, got)
        };
        let one = scope.spawn(move || build("one", "two"));
        let two = scope.spawn(move || build("two", "one"));
        [one, two].into_iter().map(|thread| thread.join().expect("it ends")).collect()
    })
}

#[test]
fn two_threads_that_need_each_other() {
    let cache = plain();
    for (key, got) in crosswise(&cache) {
        let told = got.expect_err("both fail: one of them, and then the other").to_string();
        assert!(told.contains("would deadlock"), "{key}: {told}");
    }
    assert_quiet(&cache);
}

#[test]
fn a_token_counts_as_being_built_by_the_thread_that_has_it() {
    let cache = plain();
    let session = cache.open_session();
    let (token, own) = begin(&session, &ask("a"));
    assert_eq!(chain(&join(&session, "a").wait()), "a -> a");
    let token = token.hand_over();
    thread::scope(|scope| {
        scope.spawn(|| token.run(|_| Ok(Built::new(4))).expect("there is room"));
        assert_eq!(*own.wait().expect("another thread builds"), 4);
    });
}

#[test]
fn tasks_that_move_between_threads_have_names_of_their_own() {
    let cache = plain();
    let session = cache.open_session();
    let (one, two) = (Actor::unique(), Actor::unique());
    let (first, _own) = begin(&session, &ask("a").on_behalf_of(one));
    let (second, _own) = begin(&session, &ask("b").on_behalf_of(two));
    let waits = session.lookup(&ask("b").on_behalf_of(one));
    let Ok(Lookup::Join(pending)) = waits else { panic!("it is being built: {waits:?}") };
    let refused = session.lookup(&ask("a").on_behalf_of(two));
    let Err(GetError::WouldDeadlock { chain }) = refused else { panic!("a circle: {refused:?}") };
    assert_eq!(chain, ["b", "a", "b"]);
    drop(pending);
    assert!(
        matches!(session.lookup(&ask("a").on_behalf_of(two)), Ok(Lookup::Join(_))),
        "who has left blocks nobody"
    );
    drop((first, second));
}
