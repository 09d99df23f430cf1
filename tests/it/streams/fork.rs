//! A forked child owns nothing of its parent's, and can do everything for itself.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use st_tests::Namespace;

use super::{field, guest, pair};
use crate::peer;

/// From here on a ring's pages are populated by a thread, which a child does not have.
const LARGE: usize = 1 << 20;
/// Copies of this size are shared with another thread, which a child does not have either.
const HUGE: usize = 8 << 20;

#[test]
fn a_child_reads_writes_and_leases_for_itself() {
    for bytes in [1000, LARGE, HUGE] {
        let space = Namespace::new("fork-uses");
        let mut parent = peer(&space);
        parent.ask(&format!("stream.create a {bytes}"));
        parent.ask("stream.write a 1");
        assert_eq!(parent.ask("stream.latest a"), "1 1 idle");
        assert_eq!(
            parent.ask(
                "fork stream.latest a ; stream.write a 2 ; stream.lease a ; stream.write a 3 100 ; \
                 stream.leased a ; stream.latest a"
            ),
            "ok 1 1 idle ; ok 2 ; ok 2 2 slot ; ok 102 ; ok 2 ; ok 102 102 idle"
        );
        assert_eq!(parent.ask("stream.latest a"), "102 102 idle");
        assert_eq!(parent.ask("stream.write a 103"), "103");
        assert_eq!(field(&mut parent, "recoveries"), "0");
        parent.ask("stream.unlink a");
    }
}

#[test]
fn a_lease_stays_with_the_parent() {
    for bytes in [1000, LARGE] {
        let space = Namespace::new("fork-lease");
        let mut parent = peer(&space);
        parent.ask(&format!("stream.create a {bytes} slots=4"));
        parent.ask("stream.write a 1");
        assert_eq!(parent.ask("stream.lease a"), "1 1 slot");
        // Dropping what was inherited, one by one and with the whole stream, releases nothing.
        assert_eq!(
            parent.ask("fork stream.leased a ; stream.drop_leases a ; stream.close a"),
            "ok revoked ; ok ; ok"
        );
        assert_eq!(field(&mut parent, "leases"), "1");
        assert_eq!(parent.ask("fork stream.write a 2 100"), "ok 101");
        assert_eq!(parent.ask("stream.leased a"), "1");
        // The budget of the ring is spent: a child's own lease is a copy, and says so.
        assert_eq!(parent.ask("fork stream.lease a"), "ok 101 101 copy");
        parent.ask("stream.drop_leases a");
        assert_eq!(parent.ask("fork stream.lease a"), "ok 101 101 slot");
        // That child is gone, and its lease with it.
        parent.ask("stream.write a 200 100");
        assert_eq!(parent.ask("stream.lease a"), "201 299 slot");
        parent.ask("stream.unlink a");
    }
}

#[test]
fn a_write_stays_with_the_parent() {
    for bytes in [1000, LARGE] {
        let space = Namespace::new("fork-write");
        let (mut parent, mut other) = pair(&space, bytes, "");
        // The child may not publish nor fill, drops without effect, and may not write under the lock.
        assert_eq!(parent.ask("stream.fork_in_write a 7"), "Fenced Fenced Fenced dropped 1");
        assert_eq!(other.ask("stream.latest a"), "1 7 idle");
        assert_eq!(field(&mut other, "aborts"), "0");
        assert_eq!(field(&mut other, "frames"), "1");
        assert_eq!(other.ask("stream.write a 8"), "2");
        other.ask("stream.unlink a");
    }
}

#[test]
fn a_held_lock_stays_with_the_parent() {
    let space = Namespace::new("fork-lock");
    let (mut parent, mut other) = pair(&space, 1000, "");
    parent.ask("stream.lock a");
    parent.ask("stream.begin a 5 500");
    assert_eq!(parent.ask("fork stream.latest a ; stream.info a").split(' ').next(), Some("error"));
    assert_eq!(parent.ask("stream.publish a"), "1");
    parent.ask("stream.release a");
    assert_eq!(other.ask("stream.write a 6"), "2");
    other.ask("stream.unlink a");
}

/// Kills somebody else's child, and comes back when it has ended.
fn end(process: Pid) {
    let process = pidfd_open(process, PidfdFlags::empty()).expect("the process");
    pidfd_send_signal(&process, Signal::KILL).expect("the process killed");
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut ended, None)).expect("its end");
}

#[test]
fn a_child_that_lives_on_does_not_keep_its_dead_parent_alive() {
    let space = Namespace::new("fork-linger");
    let (mut parent, mut other) = pair(&space, 1000, "slots=4");
    parent.ask("stream.write a 1");
    parent.ask("stream.lease a");
    parent.ask("stream.lock a");
    parent.ask("stream.begin a 2 500");
    let child = parent.ask("linger").parse().ok().and_then(Pid::from_raw).expect("a process");
    parent.kill();
    assert_eq!(other.ask("stream.lock a"), "recovered");
    other.ask("stream.release a");
    assert_eq!(other.ask("stream.latest a"), "1 1 crashed");
    assert_eq!(other.ask("stream.write a 3 100"), "101");
    let mut lessee = guest(&space);
    assert!(lessee.ask("stream.lease a").ends_with("slot"), "what the dead had leased is free");
    end(child);
    other.ask("stream.unlink a");
}
