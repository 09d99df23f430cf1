//! The deaths.

use crate::counts::{Counts, Tally};
use crate::object::Object;
use crate::peer::{Peer, free_bytes};
use crate::plan::Plan;

pub(crate) type Test = (&'static str, fn(&Plan) -> Counts);

pub(crate) const TESTS: &[Test] = &[
    ("makers_die", makers_die),
    ("a_holder_is_all_that_is_left", a_holder_is_all_that_is_left),
    ("readers_die", readers_die),
    ("a_wrong_word_counts", a_wrong_word_counts),
];

/// Free memory differs by less between two looks at a device with the same things on it.
const NOISE_BYTES: i64 = 32 << 20;
/// More than a context takes.
const CONTEXT_BYTES: u64 = 1 << 30;
/// The kernel gives back what a killed process had before anybody learns of its death; what a driver
/// does later has so many looks.
const LOOKS: usize = 20;

/// How many descriptors this process has, without the one used for looking.
fn open_descriptors() -> i64 {
    let entries = std::fs::read_dir("/proc/self/fd").expect("procfs").count();
    i64::try_from(entries).expect("few") - 1
}

fn difference(before: u64, after: u64) -> i64 {
    i64::try_from(before).expect("a device") - i64::try_from(after).expect("a device")
}

/// What is missing of what was free.
fn missing(before: u64) -> i64 {
    let mut looks = std::iter::repeat_with(|| difference(before, free_bytes())).take(LOOKS);
    let mut last = i64::MAX;
    while last > NOISE_BYTES
        && let Some(look) = looks.next()
    {
        last = look;
    }
    last
}

fn assert_without_driver() {
    // Which maps it into every process.
    if std::env::var_os("ST_SANITIZER").is_some() {
        return;
    }
    let maps = std::fs::read_to_string("/proc/self/maps").expect("procfs");
    assert!(!maps.contains("libcuda"), "this process has no part of CUDA");
}

/// Checks what was counted at the end of a test, and gives it.
fn settled(mut counts: Counts, free: u64, descriptors: i64) -> Counts {
    counts.leaked_descriptors = open_descriptors() - descriptors;
    counts.missing_bytes = missing(free);
    assert_eq!(counts.tally.wrong, 0, "words that were read wrong: {counts:?}");
    assert!(counts.tally.passes > 0, "nobody read: {counts:?}");
    assert_eq!(counts.leaked_descriptors, 0, "{counts:?}");
    assert!(counts.missing_bytes.abs() <= NOISE_BYTES, "{counts:?}");
    assert_without_driver();
    counts
}

/// Whoever made an object is killed while others read it; they go on, and one that comes afterwards
/// opens it.
fn makers_die(plan: &Plan) -> Counts {
    let (free, descriptors) = (free_bytes(), open_descriptors());
    let contexts = (plan.at_once + plan.readers + 1) as u64 * CONTEXT_BYTES;
    let room = free.saturating_sub(contexts) / plan.bytes;
    let at_once = plan.at_once.min(usize::try_from(room).expect("64 bits")).max(1);
    let mut counts = Counts { at_once, ..Counts::default() };
    let mut readers: Vec<Peer> = (0..plan.readers).map(|_| Peer::reader()).collect();
    while counts.kills < plan.kills {
        let now = at_once.min(plan.kills - counts.kills);
        let start = |each| Peer::maker((counts.kills + each + 1) as u64, plan.bytes, plan.chunk);
        let makers: Vec<Peer> = (0..now).map(start).collect();
        let objects: Vec<Object> =
            makers.iter().map(|maker| Object::receive(&maker.socket)).collect();
        give(&mut readers, &objects);
        // They read meanwhile.
        makers.into_iter().for_each(Peer::kill);
        counts.kills += now;
        let mut stranger = [Peer::reader()];
        give(&mut stranger, &objects);
        counts.first_opens += 1;
        for reader in readers.iter_mut().chain(&mut stranger) {
            counts.tally.add(reader.tally());
        }
        stranger.into_iter().for_each(Peer::join);
        for reader in &mut readers {
            reader.say(b'f');
        }
        readers.iter_mut().for_each(Peer::await_word);
    }
    readers.into_iter().for_each(Peer::join);
    settled(counts, free, descriptors)
}

/// Gives objects to readers, and waits until all have read all.
fn give(readers: &mut [Peer], objects: &[Object]) {
    for object in objects {
        for reader in &mut *readers {
            reader.give(object);
        }
        readers.iter_mut().for_each(Peer::await_word);
    }
}

/// No process with CUDA is left, and a holder without it keeps the object for one that comes.
fn a_holder_is_all_that_is_left(plan: &Plan) -> Counts {
    let (free, descriptors) = (free_bytes(), open_descriptors());
    let mut counts = Counts { at_once: 1, ..Counts::default() };
    let maker = Peer::maker(77, plan.bytes, plan.chunk);
    let object = Object::receive(&maker.socket);
    let mut holder = Peer::start("holder");
    object.send(&holder.socket);
    holder.await_word();
    let mut reader = Peer::reader();
    reader.give(&object);
    reader.await_word();
    drop(object);
    for each in [maker, reader] {
        each.kill();
        counts.kills += 1;
    }
    assert_without_driver();
    assert!(!holder.maps().contains("libcuda"));
    // The one that looks is gone when it has answered.
    let held = missing_beyond(free, plan.bytes);
    counts.holder_bytes = held;
    if crate::driver::is_device() {
        assert!(held.abs() <= NOISE_BYTES, "the holder takes {held} bytes beside the object");
    }
    holder.say(b'g');
    let object = Object::receive(&holder.socket);
    holder.join();
    let mut stranger = Peer::reader();
    stranger.give(&object);
    stranger.await_word();
    counts.first_opens += 1;
    stranger.say(b'h');
    stranger.await_word();
    counts.tally.add(stranger.tally());
    stranger.join();
    drop(object);
    settled(counts, free, descriptors)
}

/// What is missing of what was free, apart from so many bytes.
fn missing_beyond(free: u64, bytes: u64) -> i64 {
    missing(free.saturating_sub(bytes))
}

/// Readers are killed while they open, read, and give up; nothing of theirs stays, and one that lives
/// reads on.
fn readers_die(plan: &Plan) -> Counts {
    let free = free_bytes();
    let all = open_descriptors();
    let maker = Peer::maker(99, plan.bytes, plan.chunk);
    let object = Object::receive(&maker.socket);
    maker.kill();
    let mut counts = Counts { at_once: plan.at_once, ..Counts::default() };
    let mut witness = Peer::reader();
    give(std::slice::from_mut(&mut witness), std::slice::from_ref(&object));
    let (with_it, descriptors) = (free_bytes(), open_descriptors());
    while counts.kills < plan.kills {
        let now = plan.at_once.min(plan.kills - counts.kills);
        let mut readers: Vec<Peer> = (0..now).map(|_| Peer::start("reader")).collect();
        for (each, reader) in readers.iter_mut().enumerate() {
            reader.await_word();
            reader.give(&object);
            // The rest is killed while it opens or reads for the first time.
            if each % 3 > 0 {
                reader.await_word();
                counts.first_opens += 1;
            }
            if each % 3 == 2 {
                reader.say(b'f');
            }
        }
        readers.into_iter().for_each(Peer::kill);
        counts.kills += now;
    }
    assert_eq!(open_descriptors(), descriptors);
    let grown = missing(with_it);
    assert!(grown.abs() <= NOISE_BYTES, "{grown} bytes of the device did not come back");
    counts.tally.add(witness.tally());
    witness.join();
    drop(object);
    settled(counts, free, all)
}

/// What the others rely on: every word of another object is wrong, by kernels and by copies.
fn a_wrong_word_counts(plan: &Plan) -> Counts {
    let (free, descriptors) = (free_bytes(), open_descriptors());
    let maker = Peer::maker(5, plan.chunk, plan.chunk);
    let mut object = Object::receive(&maker.socket);
    maker.join();
    object.seed = 6;
    let mut reader = Peer::reader();
    reader.give(&object);
    reader.await_word();
    reader.say(b'h');
    reader.await_word();
    let tally = reader.tally();
    reader.join();
    drop(object);
    assert_eq!(tally.wrong, tally.bytes / 8, "{tally:?}");
    assert_eq!(tally.bytes % plan.chunk, 0);
    assert!(tally.bytes / plan.chunk > tally.passes, "by copies too");
    let right = Tally { wrong: 0, ..tally };
    settled(Counts { at_once: 1, tally: right, ..Counts::default() }, free, descriptors)
}
