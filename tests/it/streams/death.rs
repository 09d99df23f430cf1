//! Who dies, and what it costs the others.

use rustix::process::Signal;
use st_tests::{Namespace, Peer};

use super::{field, guest, pair, refused_at_last, until_parked};

/// Large enough for several pages, and no multiple of them.
const BYTES: usize = 100_003;

/// A writer in the middle of a write: the slot is claimed, a part of it is filled.
fn writing(writer: &mut Peer, key: u64) {
    writer.ask("stream.lock a");
    writer.ask(&format!("stream.begin a {key} {}", BYTES / 2));
}

#[test]
fn a_writer_killed_in_a_write_costs_its_frame_only() {
    for slots in [2, 3, 8] {
        let space = Namespace::new("write-killed");
        let (mut writer, mut other) = pair(&space, BYTES, &format!("slots={slots}"));
        let mut reader = guest(&space);
        writer.ask("stream.write a 10 3");
        writing(&mut writer, 99);
        assert_eq!(reader.ask("stream.latest a"), "3 12 writing");
        writer.kill();
        // Nobody has had the lock since: nobody can know yet, and the last frame is there.
        assert_eq!(reader.ask("stream.latest a"), "3 12 writing");
        assert_eq!(other.ask("stream.lock a"), "recovered");
        assert_eq!(reader.ask("stream.latest a"), "3 12 crashed");
        assert_eq!(field(&mut reader, "recoveries"), "1");
        other.ask(&format!("stream.begin a 20 {BYTES}"));
        assert_eq!(other.ask("stream.publish a"), "4", "the lost frame has no count");
        other.ask("stream.release a");
        assert_eq!(reader.ask("stream.latest a"), "4 20 idle");
        assert_eq!(other.ask("stream.write a 21 30"), "34");
        assert_eq!(reader.ask("stream.latest a"), "34 50 idle");
        reader.ask("stream.unlink a");
    }
}

#[test]
fn a_ring_of_one_slot_says_that_its_frame_is_lost() {
    let space = Namespace::new("single");
    let (mut writer, mut other) = pair(&space, BYTES, "slots=1");
    writer.ask("stream.write a 10");
    assert_eq!(other.ask("stream.latest a"), "1 10 idle");
    writing(&mut writer, 99);
    let mut readers = [guest(&space), guest(&space)];
    other.ask_refused("stream.next a 10");
    readers[0].say("stream.latest a");
    // In order from the beginning: the frame that it wants is the one that is written over.
    readers[1].ask("stream.seek a 0");
    readers[1].say("stream.next a");
    for reader in &readers {
        until_parked(reader, &mut other);
    }
    writer.kill();
    for reader in &mut readers {
        let told = reader.hear();
        assert!(told.starts_with("error Inconsistent") && told.contains("exited"), "{told}");
    }
    let [mut reader, _] = readers;
    assert_eq!(other.ask("stream.write a 11"), "2");
    assert_eq!(reader.ask("stream.latest a"), "2 11 idle");
    reader.ask("stream.unlink a");
}

#[test]
fn a_reader_that_asks_for_it_is_told_that_the_writer_exited() {
    let space = Namespace::new("raise");
    let (mut writer, mut other) = pair(&space, BYTES, "");
    let mut reader = guest(&space);
    reader.ask("stream.reader a raise");
    writer.ask("stream.write a 10");
    writing(&mut writer, 99);
    assert_eq!(reader.ask("stream.latest a"), "1 10 writing");
    let mut waiter = guest(&space);
    waiter.ask("stream.reader a raise");
    waiter.say("stream.wait a 1");
    writer.freeze();
    until_parked(&waiter, &mut other);
    assert_eq!(reader.ask("stream.latest a"), "1 10 writing", "a stopped writer has not exited");
    writer.kill();
    for told in [refused_at_last(&mut reader, "stream.latest a"), waiter.hear()] {
        assert!(told.contains("Inconsistent") && told.contains("writer exited"), "{told}");
    }
    assert_eq!(other.ask("stream.write a 11"), "2");
    assert_eq!(reader.ask("stream.latest a"), "2 11 idle");
    reader.ask("stream.unlink a");
}

#[test]
fn a_holder_killed_between_writes_costs_nothing() {
    let space = Namespace::new("lock-killed");
    let (mut writer, mut other) = pair(&space, BYTES, "");
    let mut reader = guest(&space);
    writer.ask("stream.lock a");
    writer.ask(&format!("stream.begin a 10 {BYTES}"));
    writer.ask("stream.publish a");
    writer.kill();
    assert_eq!(reader.ask("stream.latest a"), "1 10 idle");
    assert_eq!(other.ask("stream.write a 11"), "2");
    assert_eq!(reader.ask("stream.latest a"), "2 11 idle");
    assert_eq!(field(&mut reader, "recoveries"), "1");
    reader.ask("stream.unlink a");
}

#[test]
fn a_waiter_for_the_lock_takes_it_from_the_dead() {
    let space = Namespace::new("lock-waiter");
    let (mut writer, mut other) = pair(&space, BYTES, "");
    writing(&mut writer, 99);
    other.say("stream.write a 10");
    writer.kill();
    other.expect("ok 1");
    assert_eq!(other.ask("stream.latest a"), "1 10 idle");
    other.ask("stream.unlink a");
}

#[test]
fn what_the_dead_had_leased_can_be_leased_again() {
    for slots in [3, 4, 8] {
        let space = Namespace::new("lessee-killed");
        let (mut writer, mut lessee) = pair(&space, BYTES, &format!("slots={slots}"));
        let budget: u64 = field(&mut writer, "leases_max").parse().expect("a number");
        for key in 1..=budget {
            writer.ask(&format!("stream.write a {key}"));
            assert_eq!(lessee.ask("stream.lease a"), format!("{key} {key} slot"));
        }
        let mut next = guest(&space);
        assert!(next.ask("stream.lease a").ends_with("slot"), "the same frame has a slot already");
        next.ask("stream.drop_leases a");
        let last = writer.ask(&format!("stream.write a {}", budget + 1));
        assert_eq!(next.ask("stream.lease a"), format!("{last} {last} copy"));
        // Writers go on, and a stopped lessee keeps what it has.
        lessee.freeze();
        writer.ask("stream.write a 1000 100");
        assert!(next.ask("stream.lease a").ends_with("copy"));
        lessee.thaw();
        let kept: Vec<String> = (1..=budget).map(|key| key.to_string()).collect();
        assert_eq!(lessee.ask("stream.leased a"), kept.join(" "));
        lessee.kill();
        next.ask("stream.drop_leases a");
        for key in 0..budget {
            writer.ask(&format!("stream.write a {}", 2000 + key));
            assert!(next.ask("stream.lease a").ends_with("slot"), "lease {key} at K = {slots}");
        }
        writer.ask("stream.write a 3000 100");
        let kept: Vec<String> = (0..budget).map(|key| (2000 + key).to_string()).collect();
        assert_eq!(next.ask("stream.leased a"), kept.join(" "));
        next.ask("stream.unlink a");
    }
}

#[test]
fn a_stopped_writer_is_not_a_dead_one() {
    let space = Namespace::new("writer-stopped");
    let (mut writer, mut other) = pair(&space, BYTES, "");
    let mut reader = guest(&space);
    writer.ask("stream.write a 10");
    writing(&mut writer, 11);
    writer.freeze();
    other.say("stream.write a 12");
    // Long enough for hundreds of looks at the holder.
    reader.ask_refused("stream.wait a 1 500");
    assert_eq!(reader.ask("stream.latest a"), "1 10 writing");
    assert_eq!(field(&mut reader, "recoveries"), "0");
    let told = reader.ask_refused("stream.lock a 50");
    assert!(told.starts_with("Timeout") && told.contains(&writer.pid().to_string()), "{told}");
    writer.thaw();
    assert_eq!(writer.ask("stream.publish a"), "2", "nobody took the slot away");
    writer.ask("stream.release a");
    other.expect("ok 3");
    assert_eq!(reader.ask("stream.latest a"), "3 12 idle");
    reader.ask("stream.unlink a");
}

/// The kernel kills the writer at the system call that would have woken the reader.
#[test]
fn a_publisher_that_dies_before_it_wakes_delays_its_frame_only() {
    let space = Namespace::new("waker-killed");
    let (mut writer, mut other) = pair(&space, BYTES, "");
    let mut reader = guest(&space);
    writer.ask("die_at_wake");
    reader.say("stream.wait a 0");
    until_parked(&reader, &mut other);
    writer.say("stream.write a 10");
    let status = writer.wait();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(Signal::SYS.as_raw()), "it was not about to wake anybody");
    reader.expect("ok 1");
    assert_eq!(reader.ask("stream.latest a"), "1 10 idle");
    assert_eq!(other.ask("stream.write a 11"), "2");
    reader.ask("stream.unlink a");
}

#[test]
fn a_write_that_is_given_up_is_told() {
    let space = Namespace::new("given-up");
    let (mut writer, mut reader) = pair(&space, BYTES, "");
    let mut waiter = guest(&space);
    waiter.ask("stream.reader a raise");
    writer.ask("stream.write a 10");
    waiter.say("stream.wait a 1");
    until_parked(&waiter, &mut reader);
    writing(&mut writer, 99);
    writer.ask("stream.abort a");
    let told = waiter.hear();
    assert!(told.starts_with("error Inconsistent") && told.contains("given up"), "{told}");
    assert_eq!(reader.ask("stream.latest a"), "1 10 aborted");
    writer.ask(&format!("stream.begin a 11 {BYTES}"));
    assert_eq!(writer.ask("stream.publish a"), "2");
    writer.ask("stream.release a");
    assert_eq!(waiter.ask("stream.latest a"), "2 11 idle");
    assert_eq!(field(&mut reader, "aborts"), "1");
    assert_eq!(field(&mut reader, "recoveries"), "0");
    reader.ask("stream.unlink a");
}

#[test]
fn a_killed_reader_costs_nobody_anything() {
    let space = Namespace::new("reader-killed");
    let (mut writer, mut reader) = pair(&space, BYTES, "");
    reader.say("stream.wait a 0");
    until_parked(&reader, &mut writer);
    reader.kill();
    assert_eq!(writer.ask("stream.write a 1 100"), "100");
    let mut next = guest(&space);
    assert_eq!(next.ask("stream.latest a"), "100 100 idle");
    next.ask("stream.unlink a");
}

#[test]
fn a_stream_outlives_its_creator() {
    let space = Namespace::new("creator-killed");
    let (mut creator, mut other) = pair(&space, BYTES, "");
    creator.ask("stream.write a 1");
    creator.kill();
    assert_eq!(other.ask("stream.latest a"), "1 1 idle");
    let mut third = guest(&space);
    assert_eq!(third.ask("stream.write a 2"), "2");
    assert_eq!(other.ask("stream.latest a"), "2 2 idle");
    third.ask("stream.unlink a");
}
