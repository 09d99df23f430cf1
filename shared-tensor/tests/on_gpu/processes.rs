//! Streams on a GPU among processes that die.

use crate::harness::tests;
use crate::peer::Peer;
use crate::support::Scratch;

tests![
    a_stream_outlives_its_creator,
    frames_of_dead_writers_are_the_last_whole_one,
    a_first_frame_that_is_lost_is_zeros,
    nobody_waits_for_dead_readers,
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
