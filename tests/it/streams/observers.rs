//! Readers of another user, who may look and not touch.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use st_tests::{Namespace, Peer, skip};

use super::{field, refused_at_last};
use crate::peer;

/// The user and group that nobody is.
const NOBODY: u32 = 65534;

/// A peer of another user, or why there is none.
fn stranger(space: &Namespace) -> Result<Peer, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can start a process of another user".to_owned());
    }
    let program = Path::new(env!("CARGO_BIN_EXE_st-peer"));
    let as_nobody = || {
        let mut command = Command::new(program);
        command.uid(NOBODY).gid(NOBODY);
        command
    };
    // It ends at once, as nobody told it where its names lie: this only shows that it starts.
    let mut trial = as_nobody();
    trial.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = trial.status() {
        return Err(format!("another user cannot start {}: {error}", program.display()));
    }
    let mut stranger = Peer::start(space, "stranger", as_nobody());
    stranger.ask("hello");
    Ok(stranger)
}

#[test]
fn an_observer_copies_and_waits_and_takes_no_lease() {
    let space = Namespace::new("observer");
    let mut observer = match stranger(&space) {
        Ok(observer) => observer,
        Err(reason) => return skip("an_observer_copies_and_waits_and_takes_no_lease", &reason),
    };
    let mut owner = peer(&space);
    owner.ask("stream.create a 100003 mode=644 slots=4");
    observer.ask("stream.open a");
    assert_eq!(field(&mut observer, "observer"), "true");
    assert_eq!(field(&mut owner, "observer"), "false");
    assert_eq!(field(&mut owner, "always_wakes"), "true");
    assert!(observer.ask("stream.info a").contains("never leased"));
    assert!(observer.ask_refused("stream.latest a").starts_with("Empty"));
    observer.say("stream.next a");
    owner.ask("stream.write a 1");
    observer.expect("ok 1 1 0");
    assert_eq!(observer.ask("stream.lease a"), "1 1 copy");
    owner.ask("stream.write a 2 100");
    assert_eq!(observer.ask("stream.latest a"), "101 101 idle");
    assert_eq!(observer.ask("stream.leased a"), "1");
    for command in ["stream.write a 3", "stream.lock a", "stream.unlink a"] {
        let told = observer.ask_refused(command);
        assert!(told.starts_with("PermissionDenied"), "{command}: {told}");
    }
    // A writer that dies concerns nobody who only looks.
    owner.ask("stream.lock a");
    owner.ask("stream.begin a 5 50000");
    owner.kill();
    assert_eq!(observer.ask("stream.latest a"), "101 101 writing");
    let mut next = peer(&space);
    next.ask("stream.open a");
    next.ask("stream.write a 6");
    assert_eq!(observer.ask("stream.next a"), "102 6 0");
    observer.say("stream.wait a 102");
    assert_eq!(next.ask("stream.unlink a"), "true");
    assert!(observer.hear().starts_with("error Unlinked"));
}

#[test]
fn an_observer_can_ask_to_be_told_of_a_dead_writer() {
    let space = Namespace::new("observer-told");
    let mut observer = match stranger(&space) {
        Ok(observer) => observer,
        Err(reason) => return skip("an_observer_can_ask_to_be_told_of_a_dead_writer", &reason),
    };
    let mut owner = peer(&space);
    owner.ask("stream.create a 100003 mode=644 slots=4");
    owner.ask("stream.write a 1");
    observer.ask("stream.open a");
    observer.ask("stream.reader a raise");
    owner.ask("stream.lock a");
    owner.ask("stream.begin a 5 50000");
    assert_eq!(observer.ask("stream.latest a"), "1 1 writing", "its writer lives");
    owner.freeze();
    assert_eq!(observer.ask("stream.latest a"), "1 1 writing", "a stopped writer is not dead");
    owner.kill();
    let told = refused_at_last(&mut observer, "stream.latest a");
    assert!(told.starts_with("Inconsistent") && told.contains("exited"), "{told}");
    let mut next = peer(&space);
    next.ask("stream.open a");
    next.ask("stream.write a 6");
    assert_eq!(observer.ask("stream.latest a"), "2 6 idle");
    next.ask("stream.unlink a");
}

#[test]
fn a_group_that_may_read_observes_and_others_are_refused() {
    let space = Namespace::new("observer-group");
    let mut stranger = match stranger(&space) {
        Ok(stranger) => stranger,
        Err(reason) => {
            return skip("a_group_that_may_read_observes_and_others_are_refused", &reason);
        }
    };
    let mut owner = peer(&space);
    owner.ask("stream.create a 1000 mode=640");
    assert!(stranger.ask_refused("stream.open a").starts_with("PermissionDenied"));
    owner.ask("stream.unlink a");
    owner.ask(&format!("stream.create a 1000 mode=640 group={NOBODY}"));
    owner.ask("stream.write a 1");
    stranger.ask("stream.open a");
    assert_eq!(field(&mut stranger, "observer"), "true");
    assert_eq!(stranger.ask("stream.latest a"), "1 1 idle");
    owner.ask("stream.unlink a");
    // Who may write is a member like any other.
    owner.ask(&format!("stream.create a 1000 mode=660 group={NOBODY}"));
    owner.ask("stream.write a 1");
    stranger.ask("stream.open a");
    assert_eq!(field(&mut stranger, "observer"), "false");
    assert_eq!(stranger.ask("stream.lease a"), "1 1 slot");
    owner.ask("stream.lock a");
    owner.ask("stream.begin a 3 500");
    owner.kill();
    assert_eq!(stranger.ask("stream.lock a"), "recovered");
    stranger.ask("stream.release a");
    assert_eq!(stranger.ask("stream.write a 4"), "2");
    assert_eq!(stranger.ask("stream.leased a"), "1");
    // The directory lets only the owner remove names.
    let mut heir = peer(&space);
    heir.ask("stream.open a");
    heir.ask("stream.unlink a");
}
