//! Names that go away, and come back.

use st_tests::Namespace;

use super::{guest, pair, until_parked};
use crate::peer;

#[test]
fn sleepers_are_told_that_the_name_was_removed() {
    let space = Namespace::new("unlinked");
    let (mut owner, mut witness) = pair(&space, 1000, "");
    owner.ask("stream.write a 1");
    let mut sleepers = [guest(&space), guest(&space), guest(&space)];
    for sleeper in &mut sleepers {
        sleeper.say("stream.wait a 1");
        until_parked(sleeper, &mut witness);
    }
    assert_eq!(owner.ask("stream.unlink a"), "true");
    for sleeper in &mut sleepers {
        let told = sleeper.hear();
        assert!(told.starts_with("error Unlinked") && told.contains("`a`"), "{told}");
        // What is mapped stays.
        assert_eq!(sleeper.ask("stream.latest a"), "1 1 idle");
    }
    assert_eq!(witness.ask("stream.unlink a"), "false");
    assert!(peer(&space).ask_refused("stream.open a").starts_with("NotFound"));
}

/// As `rm` does it: nobody marks the memory, nobody wakes.
#[test]
fn sleepers_notice_a_file_that_was_removed_by_hand() {
    let space = Namespace::new("removed");
    let (_owner, mut witness) = pair(&space, 1000, "");
    let mut sleeper = guest(&space);
    sleeper.say("stream.wait a 0");
    until_parked(&sleeper, &mut witness);
    for file in space.files() {
        std::fs::remove_file(file).expect("the file removed");
    }
    let told = sleeper.hear();
    assert!(told.starts_with("error Unlinked"), "{told}");
}

#[test]
fn handles_of_a_removed_stream_go_on_among_themselves() {
    let space = Namespace::new("old-handles");
    let (mut one, mut other) = pair(&space, 1000, "");
    one.ask("stream.unlink a");
    assert_eq!(one.ask("stream.write a 1"), "1");
    assert_eq!(other.ask("stream.next a"), "1 1 0");
    let (mut new, mut newer) = pair(&space, 1000, "");
    new.ask("stream.write a 100");
    assert_eq!(newer.ask("stream.latest a"), "1 100 idle");
    assert_eq!(other.ask("stream.latest a"), "1 1 idle");
    let told = one.ask_refused("stream.unlink a");
    assert!(told.starts_with("Changed") && told.contains("newer"), "{told}");
    assert_eq!(new.ask("stream.unlink a"), "true");
}

#[test]
fn a_reader_that_asks_for_it_goes_on_with_the_successor() {
    let space = Namespace::new("successor");
    let (mut one, mut witness) = pair(&space, 1000, "");
    let mut reader = guest(&space);
    reader.ask("stream.reader a reattach");
    one.ask("stream.write a 1 5");
    assert_eq!(reader.ask("stream.follow a 5"), "5 0");
    reader.say("stream.next a");
    until_parked(&reader, &mut witness);
    one.ask("stream.unlink a");
    let mut two = peer(&space);
    two.ask("stream.create a 1000");
    two.ask("stream.write a 100");
    reader.expect("ok 1 100 0");
    // One of another size is another stream.
    reader.say("stream.next a");
    two.ask("stream.unlink a");
    two.ask("stream.create a 2000");
    let told = reader.hear();
    assert!(told.starts_with("error Changed"), "{told}");
    two.ask("stream.unlink a");
}

#[test]
fn a_reader_of_the_newest_frame_goes_on_with_the_successor_too() {
    let space = Namespace::new("successor-latest");
    let (mut one, mut reader) = pair(&space, 1000, "");
    reader.ask("stream.reader a reattach");
    one.ask("stream.write a 1 5");
    assert_eq!(reader.ask("stream.latest a"), "5 5 idle");
    one.ask("stream.unlink a");
    assert_eq!(reader.ask("stream.latest a"), "5 5 idle", "there is no successor yet");
    let mut two = peer(&space);
    two.ask("stream.create a 1000");
    assert_eq!(reader.ask("stream.latest a"), "5 5 idle", "the successor has no frame yet");
    two.ask("stream.write a 100");
    assert_eq!(reader.ask("stream.latest a"), "1 100 idle");
    assert_eq!(reader.ask("stream.lease a"), "1 100 slot");
    two.ask("stream.unlink a");
}

#[test]
fn a_name_can_be_awaited() {
    let space = Namespace::new("awaited");
    let mut waiters = [peer(&space), peer(&space)];
    for waiter in &mut waiters {
        waiter.say("stream.await a");
    }
    let mut creator = peer(&space);
    let generation = creator.ask("stream.create a 1000");
    creator.ask("stream.write a 1");
    for waiter in &mut waiters {
        waiter.expect(&format!("ok {generation}"));
        assert_eq!(waiter.ask("stream.latest a"), "1 1 idle");
    }
    creator.ask("stream.unlink a");
}
