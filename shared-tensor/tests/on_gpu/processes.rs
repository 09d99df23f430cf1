//! Streams on a GPU among processes that die.

use cuda_ipc::Words;
use shared_tensor::stream::Phase;

use crate::frames::{BYTES, Ground};
use crate::harness::tests;
use crate::peer::Peer;
use crate::support::Scratch;

tests![
    a_stream_outlives_its_creator,
    frames_of_dead_writers_are_the_last_whole_one,
    a_writer_that_is_far_ahead_leaves_the_last_whole_frame,
    a_first_frame_that_is_lost_is_zeros,
    nobody_waits_for_dead_readers,
    a_process_that_ends_finishes_its_frames,
    what_is_closed_goes_on,
    seats_come_back_when_their_work_is_over,
];

/// As long as anybody has it, also for those who never had it before.
fn a_stream_outlives_its_creator() {
    let scratch = Scratch::new();
    let mut creator = Peer::start(&scratch);
    assert_eq!(creator.ask("create 4"), "created");
    assert_eq!(creator.ask("write 7"), "1");
    let mut second = Peer::start(&scratch);
    assert_eq!((second.ask("open"), second.ask("read")), ("opened".into(), "7".into()));
    creator.kill();
    let mut third = Peer::start(&scratch);
    assert_eq!((third.ask("open"), third.ask("read")), ("opened".into(), "7".into()));
    second.kill();
    assert_eq!(third.ask("write 8"), "2");
    let mut fourth = Peer::start(&scratch);
    assert_eq!((fourth.ask("open"), fourth.ask("read")), ("opened".into(), "8".into()));
    third.kill();
    fourth.kill();
    let mut late = Peer::start(&scratch);
    assert_eq!((late.ask("open"), late.ask("read")), ("opened".into(), "NoHolder".into()));
    assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
}

/// Their work was queued, published, and not done.
fn frames_of_dead_writers_are_the_last_whole_one() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = (Peer::start(&scratch), Peer::start(&scratch));
    assert_eq!(writer.ask("create 4"), "created");
    assert_eq!(writer.ask("write 7"), "1");
    assert_eq!((reader.ask("open"), reader.ask("read")), ("opened".into(), "7".into()));
    assert_eq!(writer.ask("hold"), "held");
    for frame in 2..=4 {
        assert_eq!(writer.ask(&format!("write {}", 90 + frame)), frame.to_string());
    }
    assert_eq!(reader.ask("queue"), "4", "published, not complete");
    reader.tell("read");
    writer.kill();
    assert_eq!(reader.hear(), "7", "neither the lost frame nor a part of it");
    assert_eq!(reader.ask("phase"), "Crashed");
    assert_eq!(reader.ask("write 8"), "5");
    assert_eq!(reader.ask("read"), "8");
    assert_eq!(reader.ask("phase"), "Idle");
    let mut late = Peer::start(&scratch);
    assert_eq!((late.ask("open"), late.ask("read")), ("opened".into(), "8".into()));
    assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
}

/// More of them than there are slots.
fn a_writer_that_is_far_ahead_leaves_the_last_whole_frame() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = (Peer::start(&scratch), Peer::start(&scratch));
    assert_eq!(writer.ask("create 4"), "created");
    assert_eq!((writer.ask("write 7"), writer.ask("done")), ("1".into(), "done".into()));
    assert_eq!((reader.ask("open"), reader.ask("read")), ("opened".into(), "7".into()));
    assert_eq!(writer.ask("hold"), "held");
    for frame in 2..=9 {
        assert_eq!(writer.ask(&format!("write {}", 90 + frame)), frame.to_string());
    }
    reader.tell("read");
    writer.kill();
    assert_eq!(reader.hear(), "7");
    assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
}

fn a_first_frame_that_is_lost_is_zeros() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = (Peer::start(&scratch), Peer::start(&scratch));
    assert_eq!(writer.ask("create 3"), "created");
    assert_eq!(reader.ask("open"), "opened");
    assert_eq!(writer.ask("hold"), "held");
    assert_eq!(writer.ask("write 9"), "1");
    // It has the memory by then, from the writer.
    assert_eq!(reader.ask("queue"), "1");
    writer.kill();
    assert_eq!(reader.ask("done"), "done");
    assert_eq!(reader.ask("read"), "0");
    assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
}

/// Their devices were to read every slot, and never will.
fn nobody_waits_for_dead_readers() {
    let scratch = Scratch::new();
    let (mut writer, mut reader) = (Peer::start(&scratch), Peer::start(&scratch));
    assert_eq!(writer.ask("create 3"), "created");
    assert_eq!(reader.ask("open"), "opened");
    assert_eq!(writer.ask("write 1"), "1");
    assert_eq!((reader.ask("read"), reader.ask("hold")), ("1".into(), "held".into()));
    for frame in 2..=4 {
        assert_eq!(reader.ask("queue"), (frame - 1).to_string());
        assert_eq!(writer.ask(&format!("write {frame}")), frame.to_string());
    }
    writer.tell("done");
    reader.kill();
    assert_eq!(writer.hear(), "done");
    assert_eq!(writer.ask("read"), "4");
    assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
}

/// Its frame waits for a slot that this process reads.
fn a_process_that_ends_finishes_its_frames() {
    let mut ground = Ground::new(3);
    let words = Words::create(1).unwrap().attach(&ground.context).unwrap();
    let mut peer = Peer::start(&ground.scratch);
    assert_eq!(peer.ask("open"), "opened");
    words.wait(ground.work[1].stream(), 0, 1).unwrap();
    for value in 1..=3 {
        ground.write(value);
        // Another slot for each: none of them is spared as the last whole one.
        ground.context.synchronize(ground.work[0].stream()).unwrap();
        ground.read(value.into());
    }
    assert_eq!(peer.ask("write 4"), "4");
    assert_eq!(peer.ask("close"), "closed");
    peer.tell("leave");
    assert!(peer.stays(), "its frame is not there yet");
    words.release(0, 1);
    assert!(peer.end().success());
    assert_eq!([1, 2, 3].map(|place| ground.found(place)[0]), [1, 2, 3]);
    ground.read(4);
    assert_eq!(ground.found(4), [4; BYTES]);
    assert_eq!(ground.stream.phase(), Phase::Idle);
    drop((peer, words));
    ground.end();
}

/// A handle may be closed before the device has come to what was queued with it.
fn what_is_closed_goes_on() {
    let mut ground = Ground::new(3);
    let mut peer = Peer::start(&ground.scratch);
    assert_eq!((peer.ask("open"), peer.ask("hold")), ("opened".into(), "held".into()));
    ground.write(1);
    assert_eq!(peer.ask("queue"), "1");
    assert_eq!(peer.ask("write 2"), "2");
    assert_eq!(peer.ask("close"), "closed");
    assert_eq!(ground.read(2), 2, "published, not complete");
    // Two slots are still to be read and filled by it, however many frames come.
    for value in 3..=6 {
        ground.write(value);
    }
    assert!(!ground.context.is_idle(ground.work[0].stream()).unwrap(), "they wait for it");
    assert_eq!(ground.stream.phase(), Phase::Idle);
    assert_eq!(peer.ask("go"), "gone");
    assert_eq!(peer.ask("found"), "1", "what was read when it was closed already");
    ground.read(1);
    assert_eq!(ground.found(1), [6; BYTES]);
    assert_eq!(ground.found(2), [2; BYTES], "nobody took its writer for dead");
    drop(peer);
    ground.end();
}

/// However often a process comes and goes, and closes before its work is over.
fn seats_come_back_when_their_work_is_over() {
    let mut ground = Ground::new(4);
    let mut peer = Peer::start(&ground.scratch);
    for round in 1..=80_u8 {
        assert_eq!(peer.ask("open"), "opened");
        assert_eq!(peer.ask(&format!("write {round}")), round.to_string());
        assert_eq!(peer.ask("close"), "closed");
        ground.read(1);
        assert_eq!(ground.found(1), [round; BYTES]);
    }
    drop(peer);
    ground.end();
}
