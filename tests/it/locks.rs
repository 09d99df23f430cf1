//! Locks between processes: both kinds, by the same rules.

use rustix::process::Signal;
use st_tests::{Namespace, Peer};

use super::peer;

const KINDS: [&str; 2] = ["futex", "file"];

/// A namespace whose lock files go with it, and two peers that know the lock `l`.
fn pair(kind: &str) -> (Namespace, Peer, Peer) {
    let space = Namespace::in_private_directory(kind);
    let (mut one, mut other) = (peer(&space), peer(&space));
    for peer in [&mut one, &mut other] {
        peer.ask(&format!("lock.open l {kind}"));
    }
    (space, one, other)
}

/// Lock files stay when everybody has gone; a test takes them away.
fn remove_files(space: &Namespace) {
    for file in space.files() {
        std::fs::remove_file(file).expect("a lock file removed");
    }
}

#[test]
fn one_holds_it_at_a_time() {
    for kind in KINDS {
        let (space, mut one, mut other) = pair(kind);
        assert_eq!(one.ask("lock.acquire l"), "free");
        assert_eq!(other.ask("lock.holder l"), one.pid().to_string());
        other.ask_refused("lock.try l");
        other.ask_refused("lock.acquire l 1");
        other.say("lock.acquire l");
        one.ask("lock.release l");
        other.expect("ok free");
        other.ask("lock.release l");
        assert_eq!(one.ask("lock.holder l"), "none");
        drop((one, other));
        remove_files(&space);
    }
}

#[test]
fn the_next_owner_is_told_of_a_death() {
    for kind in KINDS {
        let (space, mut one, mut other) = pair(kind);
        one.ask("lock.acquire l");
        other.say("lock.acquire l");
        let dead = one.pid();
        one.kill();
        let told = other.hear_ok();
        assert!(told.starts_with(&format!("recovered {dead} ")), "{kind}: {told}");
        other.ask("lock.release l");
        let mut third = peer(&space);
        third.ask(&format!("lock.open l {kind}"));
        assert_eq!(third.ask("lock.acquire l"), "free", "told once, not again");
        drop((other, third));
        remove_files(&space);
    }
}

#[test]
fn a_stopped_owner_is_not_a_dead_one() {
    for kind in KINDS {
        let (space, mut one, mut other) = pair(kind);
        one.ask("lock.acquire l");
        one.freeze();
        other.ask_refused("lock.acquire l 50");
        one.thaw();
        one.ask("lock.release l");
        assert_eq!(other.ask("lock.acquire l"), "free");
        drop((one, other));
        remove_files(&space);
    }
}

#[test]
fn an_owner_that_ends_well_releases() {
    for kind in KINDS {
        let (space, mut one, mut other) = pair(kind);
        one.ask("lock.acquire l");
        other.say("lock.acquire l");
        one.quit();
        other.expect("ok free");
        drop(other);
        remove_files(&space);
    }
}

/// A core dump keeps the memory of the dead for long; the lock does not wait for it.
#[test]
fn an_owner_that_aborts_is_recovered() {
    for kind in KINDS {
        let (space, mut one, mut other) = pair(kind);
        one.ask("lock.acquire l");
        one.say("abort");
        assert!(other.ask("lock.acquire l").starts_with("recovered "));
        one.wait();
        drop((one, other));
        remove_files(&space);
    }
}

#[test]
fn a_killed_waiter_costs_the_others_nothing() {
    for kind in KINDS {
        let (space, mut one, mut other) = pair(kind);
        let mut third = peer(&space);
        third.ask(&format!("lock.open l {kind}"));
        one.ask("lock.acquire l");
        third.say("lock.acquire l");
        other.say("lock.acquire l");
        third.signal(Signal::KILL);
        third.wait();
        one.ask("lock.release l");
        let told = other.hear_ok();
        // The killed waiter may have had the lock for a moment.
        assert!(told == "free" || told.starts_with("recovered "), "{told}");
        drop((one, other, third));
        remove_files(&space);
    }
}
