//! What several dead processes leave, one after the other, and who waits for it.

use std::os::unix::fs::FileExt as _;

use shared_tensor::stream::{OpenOptions, Wait};

use crate::driver;
use crate::harness::{Outcome, Skip, tests};
use crate::mirror::file;
use crate::peer::Peer;
use crate::support::Scratch;

tests![
    a_frame_is_mended_whose_slot_a_dead_writer_had_claimed,
    a_frame_is_mended_for_its_readers_before_the_next_one_comes,
    a_slot_is_not_mended_while_its_frame_before_is_read,
    many_streams_of_one_process_wait_for_a_dead_writer,
    who_dies_while_it_mends_is_mended_for,
    who_has_the_lock_reads_a_frame_of_the_dead,
    who_has_the_lock_gives_up_a_frame_behind_one_of_the_dead,
    a_slot_is_not_filled_while_another_device_fills_it,
    a_slot_that_a_device_fills_is_not_mended,
    the_file_is_mended_beside_streams_that_wait,
    a_process_does_not_fill_what_a_device_copies_to,
    nothing_waits_that_nobody_looks_after,
    nobody_waits_for_a_context_that_is_lost,
    who_lost_a_device_may_go_on_with_another,
];

/// Writers, and a reader who has the memory. The first frame is there: 7.
struct Scene {
    scratch: Scratch,
    first: Peer,
    second: Peer,
    reader: Peer,
}

impl Scene {
    fn new(how: &str) -> Self {
        let scratch = Scratch::new();
        let [mut first, mut second, mut reader] = [(); 3].map(|()| Peer::start(&scratch));
        assert_eq!(first.ask(how), "created");
        assert_eq!((first.ask("write 7"), first.ask("done")), ("1".into(), "done".into()));
        for peer in [&mut second, &mut reader] {
            assert_eq!((peer.ask("open"), peer.ask("read")), ("opened".into(), "7".into()));
        }
        Self { scratch, first, second, reader }
    }

    /// Frames 2 to `last` of the first writer, published and not begun. The reader waits for the second.
    fn hold_first(&mut self, last: u64) {
        self.hold_unread(2);
        assert_eq!(self.reader.ask("queue"), "2");
        self.write_first(3, last);
    }

    /// The same, and nobody waits for any.
    fn hold_unread(&mut self, last: u64) {
        assert_eq!(self.first.ask("hold"), "held");
        self.write_first(2, last);
    }

    fn write_first(&mut self, from: u64, last: u64) {
        for frame in from..=last {
            assert_eq!(self.first.ask(&format!("write {}", 90 + frame)), frame.to_string());
        }
    }

    /// Whether who has the first seat has said that its contexts are lost.
    fn is_lost_said(&self) -> bool {
        const LOST: u64 = 409_600 + 48;
        let mut word = [0; 8];
        let file = std::fs::File::open(file(&self.scratch)).unwrap();
        file.read_exact_at(&mut word, LOST).unwrap();
        word != [0; 8]
    }

    fn end(self) {
        drop((self.first, self.second, self.reader));
        assert!(shared_tensor::stream::unlink(&self.scratch, "it").unwrap());
    }
}

/// It died before it published anything there.
fn a_frame_is_mended_whose_slot_a_dead_writer_had_claimed() {
    for is_first_gone in [false, true] {
        let mut scene = Scene::new("create 4");
        scene.hold_first(4);
        assert_eq!(scene.second.ask("claim"), "5");
        let [one, two] = [&mut scene.first, &mut scene.second];
        for writer in if is_first_gone { [one, two] } else { [two, one] } {
            writer.kill();
        }
        assert_eq!(scene.reader.ask("found"), "7");
        assert_eq!(scene.reader.ask("write 8"), "5");
        assert_eq!(scene.reader.ask("read"), "8");
        scene.end();
    }
}

/// Whose writer waits for it, too.
fn a_frame_is_mended_for_its_readers_before_the_next_one_comes() {
    let mut scene = Scene::new("create 4");
    scene.hold_first(4);
    assert_eq!(scene.second.ask("write 8"), "5");
    scene.first.kill();
    assert_eq!(scene.reader.ask("found"), "7");
    assert_eq!(scene.reader.ask("read"), "8");
    scene.end();
}

/// The device of its writer would have waited for them. One of those who do may have come back for the frame
/// that is lost.
fn a_slot_is_not_mended_while_its_frame_before_is_read() {
    for comes_back in [false, true] {
        let mut scene = Scene::new("create 3");
        let mut other = Peer::start(&scene.scratch);
        assert_eq!((other.ask("open"), other.ask("read")), ("opened".into(), "7".into()));
        // One reads each of the slots that are not the newest, and has not begun to.
        assert_eq!((other.ask("hold"), other.ask("queue")), ("held".into(), "1".into()));
        assert_eq!(
            (scene.first.ask("write 8"), scene.first.ask("done")),
            ("2".into(), "done".into())
        );
        let mut third = Peer::start(&scene.scratch);
        assert_eq!((third.ask("open"), third.ask("read")), ("opened".into(), "8".into()));
        assert_eq!((third.ask("hold"), third.ask("queue")), ("held".into(), "2".into()));
        assert_eq!(
            (scene.first.ask("write 9"), scene.first.ask("done")),
            ("3".into(), "done".into())
        );
        assert_eq!(scene.first.ask("write 99"), "4", "behind the first of them");
        if comes_back {
            assert_eq!(other.ask("queue"), "4");
        }
        assert_eq!(scene.reader.ask("queue"), "4");
        scene.first.kill();
        scene.reader.tell("found");
        assert!(scene.reader.is_silent(), "the slot is read");
        assert_eq!(other.ask("go"), "gone");
        assert_eq!(other.ask("found"), if comes_back { "9" } else { "7" });
        assert_eq!(scene.reader.hear(), "9", "the last whole frame");
        assert_eq!((third.ask("go"), third.ask("found")), ("gone".into(), "8".into()));
        drop((other, third));
        scene.end();
    }
}

/// In as many as are told apart, and more: what mends has to come before what they wait for.
fn many_streams_of_one_process_wait_for_a_dead_writer() {
    let mut scene = Scene::new("create 5");
    assert_eq!(scene.first.ask("hold"), "held");
    for frame in 2..=4 {
        assert_eq!(scene.first.ask(&format!("write {}", 90 + frame)), frame.to_string());
        assert_eq!(scene.reader.ask("spread 4"), "spread");
    }
    scene.first.kill();
    assert_eq!(scene.reader.ask("gather"), "gathered");
    assert_eq!(scene.reader.ask("read"), "7");
    scene.end();
}

/// Its device does not come to it before.
fn who_dies_while_it_mends_is_mended_for() -> Outcome {
    if driver::is_device() {
        return Err(Skip("needs a driver that stops when it is told to".to_owned()));
    }
    let mut scene = Scene::new("create 4");
    let mut mender = Peer::start_on_driver(&scene.scratch, "TEST_DRIVER_STALLED", "1");
    assert_eq!((mender.ask("open"), mender.ask("read")), ("opened".into(), "7".into()));
    scene.hold_unread(2);
    assert_eq!(mender.ask("queue"), "2");
    scene.first.kill();
    // It mends under the lock.
    let stream = OpenOptions::new().namespace((*scene.scratch).clone()).open("it").unwrap();
    while stream.lock_owned(&Wait::never()).is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(scene.reader.ask("queue"), "2");
    scene.reader.tell("found");
    assert!(scene.reader.is_silent(), "the mender lives");
    mender.kill();
    assert_eq!(scene.reader.hear(), "7");
    assert_eq!((scene.second.ask("write 8"), scene.reader.ask("read")), ("3".into(), "8".into()));
    drop((stream, mender));
    scene.end();
    Ok(())
}

/// And mends it, under its own lock.
fn who_has_the_lock_reads_a_frame_of_the_dead() {
    for how in ["create 4", "mirror 4"] {
        let mut scene = Scene::new(how);
        scene.hold_unread(3);
        assert_eq!(scene.reader.ask("lock"), "locked");
        assert_eq!(scene.reader.ask("queue"), "3");
        scene.first.kill();
        assert_eq!(scene.reader.ask("found"), "7", "{how}");
        assert_eq!(scene.reader.ask("unlock"), "unlocked");
        assert_eq!(
            (scene.second.ask("write 8"), scene.reader.ask("read")),
            ("4".into(), "8".into())
        );
        scene.end();
    }
}

/// Which it waits for first.
fn who_has_the_lock_gives_up_a_frame_behind_one_of_the_dead() {
    let mut scene = Scene::new("create 4");
    scene.hold_unread(4);
    scene.second.tell("begin");
    assert_eq!(scene.second.hear(), "5", "in the slot of frame 2");
    scene.first.kill();
    assert_eq!(scene.second.hear(), "given up");
    assert_eq!((scene.second.ask("write 8"), scene.reader.ask("read")), ("5".into(), "8".into()));
    scene.end();
}

/// The writer that had claimed it after that is gone, and who claims it now has to wait for the device.
fn a_slot_is_not_filled_while_another_device_fills_it() {
    for how in ["create 4", "mirror 4"] {
        let mut scene = Scene::new(how);
        scene.hold_unread(4);
        assert_eq!(scene.second.ask("claim"), "5");
        scene.second.kill();
        let mut next = Peer::start(&scene.scratch);
        assert_eq!((next.ask("open"), next.ask("write 8")), ("opened".into(), "5".into()));
        assert_eq!(scene.first.ask("go"), "gone");
        assert_eq!(next.ask("done"), "done");
        assert_eq!(scene.reader.ask("read"), "8", "{how}: the frame of the first is over");
        drop(next);
        scene.end();
    }
}

/// Nor is what was published behind it, by somebody who is gone.
fn a_slot_that_a_device_fills_is_not_mended() {
    let mut scene = Scene::new("create 4");
    scene.hold_first(4);
    assert_eq!(scene.second.ask("write 8"), "5", "in the slot of frame 2");
    let mut late = Peer::start(&scene.scratch);
    assert_eq!((late.ask("open"), late.ask("queue")), ("opened".into(), "5".into()));
    scene.second.kill();
    late.tell("found");
    assert!(late.is_silent(), "the first writer lives");
    assert_eq!(scene.first.ask("go"), "gone");
    assert_eq!(late.hear(), "94", "the last whole frame before");
    assert_eq!(scene.reader.ask("found"), "92");
    assert_eq!(scene.reader.ask("read"), "94");
    drop(late);
    scene.end();
}

/// The copies that a process has queued for its own frames wait for those, and these for what it mends.
fn the_file_is_mended_beside_streams_that_wait() {
    let mut scene = Scene::new("mirror 3");
    scene.hold_first(4);
    // Behind frames of the first one, each in a slot of theirs.
    for frame in 5..=8 {
        assert_eq!(scene.second.ask(&format!("write {frame}")), frame.to_string());
    }
    scene.first.kill();
    assert_eq!(scene.second.ask("done"), "done");
    assert_eq!(scene.reader.ask("found"), "7");
    assert_eq!(scene.reader.ask("read"), "8");
    let mut plain = Peer::start_plain(&scene.scratch);
    assert_eq!(plain.ask("wait"), "8 8");
    drop(plain);
    scene.end();
}

/// Though the slot is empty, as a writer died that had claimed it.
fn a_process_does_not_fill_what_a_device_copies_to() {
    let mut scene = Scene::new("mirror 3");
    scene.hold_unread(3);
    assert_eq!(scene.second.ask("claim"), "4");
    scene.second.kill();
    let mut plain = Peer::start_plain(&scene.scratch);
    let count = plain.ask("write 8");
    assert_eq!(count, "4");
    assert_eq!(scene.first.ask("go"), "gone");
    assert_eq!(plain.ask("wait"), "4 8");
    assert_eq!(scene.reader.ask("read"), "8");
    assert_eq!(plain.ask("wait"), "4 8");
    drop(plain);
    scene.end();
}

/// A process that can start no thread may write and read what it need not wait for.
fn nothing_waits_that_nobody_looks_after() -> Outcome {
    if driver::is_device() {
        return Err(Skip("needs a driver that takes no memory by itself".to_owned()));
    }
    let mut scene = Scene::new("create 4");
    scene.hold_unread(2);
    assert_eq!(scene.reader.ask("starve"), "starved");
    assert_eq!(scene.reader.ask("queue"), "Os");
    scene.first.kill();
    assert_eq!(scene.reader.ask("done"), "done");
    assert_eq!(scene.reader.ask("feed"), "fed");
    assert_eq!((scene.reader.ask("queue"), scene.reader.ask("found")), ("2".into(), "7".into()));
    scene.end();
    Ok(())
}

/// Its process lives on, as that of a notebook does, and does not use the stream again.
fn nobody_waits_for_a_context_that_is_lost() {
    // A frame of it is read.
    let mut scene = Scene::new("create 4");
    assert_eq!(scene.first.ask("prepare"), "prepared");
    scene.hold_first(2);
    assert_eq!(scene.first.ask("lose"), "losing");
    assert_eq!(scene.reader.ask("found"), "7");
    assert_eq!((scene.second.ask("write 8"), scene.reader.ask("read")), ("3".into(), "8".into()));
    scene.end();
    // What is read there is written: it reads each of the slots that are not the newest.
    let mut scene = Scene::new("create 3");
    assert_eq!(
        (scene.reader.ask("prepare"), scene.reader.ask("hold")),
        ("prepared".into(), "held".into())
    );
    for frame in 2..=3 {
        assert_eq!(scene.reader.ask("queue"), (frame - 1).to_string());
        assert_eq!(scene.first.ask("write 8"), frame.to_string());
        assert_eq!(scene.first.ask("done"), "done");
    }
    assert_eq!(scene.first.ask("write 9"), "4", "behind what is read");
    assert_eq!(scene.reader.ask("lose"), "losing");
    assert_eq!(scene.second.ask("read"), "9");
    // Whoever lost it is told, and its end is as any.
    assert_eq!(scene.reader.ask("queue"), "Device");
    scene.end();
}

/// In the seat that it had before, whose last word about the lost one is not about this one.
fn who_lost_a_device_may_go_on_with_another() -> Outcome {
    if driver::is_device() {
        return Err(Skip("needs two GPUs".to_owned()));
    }
    let mut scene = Scene::new("create 4");
    assert_eq!(scene.first.ask("prepare"), "prepared");
    assert_eq!(scene.first.ask("lose"), "losing");
    // Somebody waits for somebody else, and asks everybody.
    assert_eq!(
        (scene.second.ask("hold"), scene.second.ask("write 8")),
        ("held".into(), "2".into())
    );
    assert_eq!(scene.reader.ask("queue"), "2");
    while !scene.is_lost_said() {
        std::thread::yield_now();
    }
    assert_eq!((scene.second.ask("go"), scene.reader.ask("found")), ("gone".into(), "8".into()));
    assert_eq!(scene.first.ask("beyond 9"), "3");
    assert_eq!(scene.reader.ask("queue"), "3");
    scene.reader.tell("found");
    assert!(scene.reader.is_silent(), "the other device has not begun the frame");
    assert_eq!(scene.first.ask("return"), "returned");
    assert_eq!(scene.reader.hear(), "9");
    scene.end();
    Ok(())
}
