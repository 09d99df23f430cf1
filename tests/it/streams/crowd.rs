//! Many processes that come and go.

use st_tests::{Namespace, Peer};

use super::{field, guest, pair};
use crate::peer;

const CROWD: usize = 40;

#[test]
fn a_crowd_attaches_reads_and_leaves() {
    let space = Namespace::new("crowd");
    let mut owner = peer(&space);
    owner.ask("stream.create a 1000");
    owner.ask("stream.write a 1");
    for round in 0..3 {
        let mut crowd: Vec<Peer> = (0..CROWD).map(|_| peer(&space)).collect();
        for peer in &mut crowd {
            peer.say("stream.open a");
        }
        for peer in &mut crowd {
            peer.hear_ok();
            peer.say("stream.lease a");
        }
        for peer in &mut crowd {
            assert!(peer.hear_ok().ends_with("slot"), "one frame, one slot, however many hold it");
        }
        assert_eq!(field(&mut owner, "alive"), (CROWD + 1).to_string());
        assert_eq!(field(&mut owner, "leases"), CROWD.to_string());
        owner.ask("stream.write a 1 100");
        // Half of them leave, half of them die.
        for (index, mut peer) in crowd.into_iter().enumerate() {
            if index % 2 == 0 { peer.kill() } else { peer.quit() }
        }
        assert_eq!(field(&mut owner, "alive"), "1");
        let entries: usize = field(&mut owner, "entries").parse().expect("a number");
        assert!(entries <= CROWD + 1, "round {round}: entries are not used again: {entries}");
    }
    owner.ask("stream.unlink a");
}

#[test]
fn the_entry_of_the_dead_goes_to_the_next() {
    let space = Namespace::new("entries");
    let (mut owner, mut other) = pair(&space, 1000, "slots=4");
    owner.ask("stream.write a 1");
    for key in 2..20 {
        other.ask("stream.lease a");
        other.kill();
        // Whoever takes the entry over starts without leases, and without the lock of the dead.
        other = guest(&space);
        assert_eq!(field(&mut owner, "entries"), "2");
        assert_eq!(field(&mut owner, "leases"), "0");
        other.ask("stream.lock a");
        other.ask(&format!("stream.begin a {key} 500"));
        other.kill();
        other = guest(&space);
        assert_eq!(field(&mut owner, "entries"), "2");
        assert_eq!(other.ask("stream.lock a"), "recovered");
        other.ask("stream.release a");
        owner.ask(&format!("stream.write a {key}"));
    }
    assert_eq!(owner.ask("stream.latest a"), "19 19 idle");
    owner.ask("stream.unlink a");
}

#[test]
fn the_holder_of_a_revoked_lease_is_told() {
    let space = Namespace::new("revoked");
    let (mut writer, mut one) = pair(&space, 1000, "slots=4");
    let mut other = guest(&space);
    writer.ask("stream.write a 1");
    assert_eq!(one.ask("stream.lease a"), "1 1 slot");
    writer.ask("stream.write a 2");
    assert!(other.ask_refused("stream.lease a 20").starts_with("Timeout"));
    assert_eq!(one.ask("stream.leased a"), "1");
    assert_eq!(other.ask("stream.lease a revoke"), "2 2 slot");
    assert_eq!(one.ask("stream.leased a"), "revoked");
    writer.ask("stream.write a 3 100");
    assert_eq!(other.ask("stream.leased a"), "2");
    // Giving the revoked one up frees nothing of anybody's.
    one.ask("stream.drop_leases a");
    writer.ask("stream.write a 103 100");
    assert_eq!(other.ask("stream.leased a"), "2");
    // One who waits gets the slot when it comes free.
    one.say("stream.lease a 60000");
    other.ask("stream.drop_leases a");
    writer.ask("stream.write a 203");
    assert!(one.hear_ok().ends_with("slot"));
    writer.ask("stream.unlink a");
}
