//! Mirrored streams: frames of a GPU for processes without CUDA, and theirs for a GPU.

use std::fs::OpenOptions as FileOptions;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cuda_ipc::{Access, Chunk, Context, Copies, DeviceWords, Mapping, Words};
use shared_tensor::shm::Namespace;
use shared_tensor::stream::{
    Contents, GpuReader, GpuWriter, OnAbort, OnEmpty, OnFull, OnWriting, OpenOptions, Reader,
    ReaderOptions, Stamp, Stream, StreamOptions, Wait, stat,
};
use shared_tensor::{DType, ErrorKind};

use crate::driver;
use crate::frames::context;
use crate::harness::{Outcome, Skip, tests};
use crate::peer::Peer;
use crate::plain::told;
use crate::support::{Scratch, watchdog};

tests![
    processes_without_cuda_read_what_a_gpu_writes,
    nobody_waits_for_the_file,
    the_first_frame_is_waited_for,
    a_whole_frame_stays_while_others_are_on_their_way,
    frames_come_in_order,
    both_sides_write_and_read,
    parts_of_frames_are_kept_by_both_sides,
    processes_write_beside_devices,
    a_process_waits_for_a_slot_that_devices_have_work_with,
    leased_frames_stay,
    frames_of_dead_writers_do_not_come,
    frames_of_lost_contexts_do_not_come,
    a_copy_that_a_dead_writer_owes_is_made_by_others,
    a_copy_that_the_driver_refuses_is_made_later,
    a_refused_copy_is_behind_nothing_that_waits_for_it,
    writers_of_both_kinds_take_turns,
    whatever_dies_frames_are_whole,
    rings_of_every_size,
    frames_of_several_mebibytes,
    damaged_words_end_nothing,
    only_a_mirror_takes_space,
];

const BYTES: usize = 3000;
/// Where the second word of a slot is in the file, and the ring of small frames.
const MIRRORED: u64 = 12_288 + 8;
const WORDS_STRIDE: u64 = 128;
const SMALL_RING: u64 = 495_616;

fn options(scratch: &Namespace, slots: usize) -> StreamOptions {
    let options = StreamOptions::new(DType::U8, [BYTES as u64]).slots(slots).mirror(true);
    options.namespace(scratch.clone())
}

/// Memory of the device for frames, at an address.
struct Place(Mapping);

/// A mirrored stream, with a device at it.
struct Scene {
    context: Context,
    scratch: Scratch,
    stream: Stream,
    writer: GpuWriter,
    reader: GpuReader,
    work: Copies,
    reads: Copies,
    place: Place,
    words: Arc<DeviceWords>,
}

impl Scene {
    fn new(slots: usize) -> Self {
        Self::of(|scratch| options(scratch, slots))
    }

    fn of(options: impl Fn(&Namespace) -> StreamOptions) -> Self {
        let (context, scratch) = (context(), Scratch::new());
        let stream = options(&scratch).create_on(&context, "it").unwrap();
        assert!(stream.is_mirrored() && stat(&scratch, "it").unwrap().mirrored);
        let writer = stream.writer_on(&context, &watchdog()).unwrap();
        let zeros = ReaderOptions::new().on_empty(OnEmpty::Zeros);
        let reader = stream.reader_on(&context, zeros, &watchdog()).unwrap();
        let chunk = Chunk::create(context.device(), stream.frame_bytes() as u64).unwrap();
        let place = Place(Mapping::open(&context, &[&chunk], Access::ReadWrite).unwrap());
        let [work, reads] = [(); 2].map(|()| Copies::new(&context).unwrap());
        let words = Words::create(1).unwrap().attach(&context).unwrap();
        Self { context, scratch, stream, writer, reader, work, reads, place, words }
    }

    /// What is queued for writing from now on waits.
    fn hold(&self) {
        self.words.wait(self.work.stream(), 0, 1).unwrap();
    }

    fn release(&self) {
        self.words.release(0, 1);
    }

    /// Has the device write a frame of one value.
    fn write(&mut self, value: u8) -> u64 {
        let queue = self.work.stream();
        let view = self.writer.view(queue, Contents::Fresh, &watchdog()).unwrap();
        self.work.fill(view.address(), value, view.len() as u64).unwrap();
        view.publish(&Stamp::default()).unwrap()
    }

    /// Has the device change one byte of the last frame.
    fn mark(&mut self, at: u64, value: u8) -> u64 {
        let queue = self.work.stream();
        let view = self.writer.view(queue, Contents::Previous, &watchdog()).unwrap();
        self.work.fill(view.address() + at, value, 1).unwrap();
        view.publish(&Stamp::default()).unwrap()
    }

    /// What the device reads.
    fn read(&mut self) -> String {
        let to = self.place.0.address();
        let read = self.reader.latest_into(self.reads.stream(), to, &watchdog()).unwrap();
        self.told(read.count)
    }

    fn next(&mut self) -> String {
        let to = self.place.0.address();
        let read = self.reader.next_into(self.reads.stream(), to, &watchdog()).unwrap();
        self.told(read.count)
    }

    fn told(&self, count: u64) -> String {
        let mut found = vec![0; self.stream.frame_bytes()];
        self.reads.download(&mut found, self.place.0.address()).unwrap();
        told(count, &found)
    }

    /// Waits until the newest frame is in the file.
    fn settle(&self) {
        patient(&self.stream).latest_with(&watchdog()).unwrap();
    }

    fn end(self) {
        self.work.synchronize().unwrap();
        self.reads.synchronize().unwrap();
        self.settle();
        self.stream.unlink().unwrap();
        drop((self.writer, self.reader, self.stream, self.place, self.work, self.reads));
        drop(self.words);
        assert!(cuda_ipc::flush(std::time::Instant::now() + Duration::from_secs(60)));
        drop((self.context, self.scratch));
    }
}

/// One that waits for what is on its way.
fn patient(stream: &Stream) -> Reader {
    let options = ReaderOptions::new().on_writing(OnWriting::Wait).on_empty(OnEmpty::Zeros);
    stream.reader_with(options)
}

/// What a reader of the file has now.
fn newest(reader: &mut Reader) -> String {
    let frame = reader.latest_with(&watchdog()).unwrap();
    told(frame.publication().count, frame.bytes())
}

fn next(reader: &mut Reader) -> String {
    let frame = reader.next(&watchdog()).unwrap();
    told(frame.publication().count, frame.bytes())
}

pub(crate) fn file(scratch: &Namespace) -> PathBuf {
    scratch.directory().join(format!("{}it", scratch.prefix()))
}

fn processes_without_cuda_read_what_a_gpu_writes() {
    let mut scene = Scene::new(4);
    let mut peer = Peer::start_plain(&scene.scratch);
    assert_eq!(peer.ask("read"), "Empty");
    assert_eq!(scene.write(5), 1);
    assert_eq!(peer.ask("next"), "1 5");
    assert_eq!(peer.ask("read"), "1 5");
    assert_eq!(peer.ask("lease"), "leased 1");
    assert_eq!(peer.ask("leased"), "1 5");
    scene.write(6);
    assert_eq!(peer.ask("wait"), "2 6");
    assert_eq!(peer.ask("any"), "2 6");
    assert_eq!(peer.ask("leased"), "1 5");
    peer.tell("any");
    scene.write(7);
    assert_eq!(peer.hear(), "3 7");
    let queue = scene.work.stream();
    scene.writer.clear(queue, &Stamp::default(), &watchdog()).unwrap();
    assert_eq!(peer.ask("next"), "4 0");
    assert_eq!(peer.ask("maps"), "plain");
    drop(peer);
    scene.end();
}

/// Neither who writes nor who reads what is there.
fn nobody_waits_for_the_file() {
    let mut scene = Scene::new(4);
    let mut peer = Peer::start_plain(&scene.scratch);
    scene.write(1);
    assert_eq!(peer.ask("next"), "1 1");
    scene.hold();
    assert_eq!(scene.write(2), 2);
    assert_eq!(scene.write(3), 3);
    assert_eq!(peer.ask("read"), "1 1");
    assert_eq!(peer.ask("glance"), "Timeout", "what was published is not there");
    let mut serving = scene.stream.reader();
    serving.seek(1);
    let soon = Wait::for_at_most(Duration::ZERO);
    assert_eq!(serving.wait(1, &soon).unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(scene.stream.count(), 3);
    // It parks before the device goes on: nothing but the arrival can wake it for good.
    peer.tell("next");
    while parks(&scene.stream) == 0 {
        std::thread::yield_now();
    }
    scene.release();
    assert_eq!(peer.hear(), "2 2");
    assert_eq!(peer.ask("wait"), "3 3");
    assert_eq!(serving.wait(1, &watchdog()).unwrap(), 3);
    drop((peer, serving));
    scene.end();
}

/// How often another process went to sleep.
fn parks(stream: &Stream) -> u64 {
    let me = std::process::id();
    let others = stream.info().participants.into_iter().filter(|it| it.pid != me);
    others.map(|it| it.reader.parks).sum()
}

/// It is published, and the other slots are empty.
fn the_first_frame_is_waited_for() {
    let scratch = Scratch::new();
    let mut writer = Peer::start(&scratch);
    assert_eq!((writer.ask("mirror 4"), writer.ask("hold")), ("created".into(), "held".into()));
    let mut plain = Peer::start_plain(&scratch);
    assert_eq!(plain.ask("read"), "Empty");
    assert_eq!(writer.ask("write 7"), "1");
    plain.tell("read");
    assert!(plain.is_silent(), "it is on its way");
    assert_eq!(writer.ask("go"), "gone");
    assert_eq!(plain.hear(), "1 7");
    drop((writer, plain));
    assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
}

/// Many more than there are slots.
fn a_whole_frame_stays_while_others_are_on_their_way() {
    for slots in [3, 4, 8] {
        let mut scene = Scene::new(slots);
        scene.write(9);
        scene.settle();
        let mut reader = scene.stream.reader();
        scene.hold();
        for value in 10..40_u8 {
            assert_eq!(scene.write(value), u64::from(value) - 8);
            assert_eq!(newest(&mut reader), "1 9");
        }
        scene.release();
        assert_eq!(newest(&mut patient(&scene.stream)), "31 39");
        drop(reader);
        scene.end();
    }
}

/// Through four slots, to readers of the file and of the device at once.
fn frames_come_in_order() {
    let mut scene = Scene::new(4);
    let mut peer = Peer::start_plain(&scene.scratch);
    let mut reader = scene.stream.reader();
    let in_file = std::thread::spawn(move || {
        let mut last = 0;
        while last < 100 {
            let frame = reader.next(&watchdog()).unwrap();
            let count = frame.publication().count;
            assert_eq!(told(count, frame.bytes()), format!("{count} {count}"));
            assert_eq!(count, last + frame.publication().missed + 1);
            last = count;
        }
    });
    let mut last = 0;
    for value in 1..=100_u8 {
        assert_eq!(scene.write(value), u64::from(value));
        assert_eq!(scene.next(), format!("{value} {value}"));
        if value % 5 == 0 {
            let (count, bytes) = peer.ask("read").split_once(' ').map_or((0, 0), |(count, it)| {
                (count.parse::<u64>().unwrap(), it.parse::<u64>().unwrap())
            });
            assert!(count == bytes && count >= last, "{count} {bytes} after {last}");
            last = count;
        }
    }
    in_file.join().unwrap();
    assert_eq!(peer.ask("wait"), "100 100");
    drop(peer);
    scene.end();
}

fn both_sides_write_and_read() {
    for slots in [3, 5] {
        let mut scene = Scene::new(slots);
        let mut peer = Peer::start_plain(&scene.scratch);
        for turn in 0..20_u8 {
            let count = u64::from(turn) * 2;
            assert_eq!(peer.ask(&format!("write {turn}")), (count + 1).to_string());
            assert_eq!(scene.read(), format!("{} {turn}", count + 1), "{slots} slots");
            assert_eq!(peer.ask("wait"), format!("{} {turn}", count + 1));
            assert_eq!(scene.write(turn + 100), count + 2);
            assert_eq!(scene.read(), format!("{} {}", count + 2, turn + 100));
            assert_eq!(peer.ask("wait"), format!("{} {}", count + 2, turn + 100));
        }
        drop(peer);
        scene.end();
    }
}

/// Whoever wrote the frame before.
fn parts_of_frames_are_kept_by_both_sides() {
    for slots in [3, 4] {
        let mut scene = Scene::new(slots);
        let mut peer = Peer::start_plain(&scene.scratch);
        assert_eq!(peer.ask("write 1"), "1");
        // A device's after a process's, after a device's; a process's after a device's, after a process's.
        assert_eq!(scene.mark(2999, 2), 2);
        assert_eq!(scene.mark(2998, 3), 3);
        assert_eq!(peer.ask("mark 4"), "4");
        assert_eq!(peer.ask("mark 5"), "5");
        let wanted = "5 5x1,1x2997,3x1,2x1";
        assert_eq!(peer.ask("wait"), wanted, "{slots} slots");
        assert_eq!(scene.read(), wanted, "{slots} slots");
        assert_eq!(scene.mark(1, 6), 6);
        assert_eq!(scene.read(), "6 5x1,6x1,1x2996,3x1,2x1");
        assert_eq!(peer.ask("wait"), "6 5x1,6x1,1x2996,3x1,2x1");
        drop(peer);
        scene.end();
    }
}

/// In slots with which they have nothing to do.
fn processes_write_beside_devices() {
    let mut scene = Scene::new(8);
    let mut peer = Peer::start_plain(&scene.scratch);
    scene.write(1);
    scene.settle();
    scene.hold();
    scene.write(2);
    for value in 3..30 {
        assert_eq!(peer.ask(&format!("write {value}")), value.to_string());
        assert_eq!(peer.ask("read"), format!("{value} {value}"));
        assert_eq!(scene.read(), format!("{value} {value}"));
    }
    // Of the order nothing is lost: the device's frame comes first.
    let mut reader = scene.stream.reader();
    reader.seek(1);
    let soon = Wait::for_at_most(Duration::ZERO);
    let waited = reader.next(&soon).map(|frame| frame.publication().count);
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Timeout);
    scene.release();
    assert_eq!(next(&mut reader), "2 2");
    drop((peer, reader));
    scene.end();
}

fn a_process_waits_for_a_slot_that_devices_have_work_with() {
    let mut scene = Scene::new(3);
    let mut peer = Peer::start_plain(&scene.scratch);
    scene.hold();
    for value in 1..=6 {
        scene.write(value);
    }
    // What is there it could write over, and does: there is no other.
    assert_eq!(peer.ask("write 7"), "7");
    assert_eq!(peer.ask("read"), "7 7");
    scene.write(8);
    peer.tell("write 9");
    // It has the lock by then, or comes to it, and can have no slot before the device is done.
    scene.release();
    assert_eq!(peer.hear(), "9");
    assert_eq!(peer.ask("wait"), "9 9");
    assert_eq!(scene.read(), "9 9");
    drop(peer);
    scene.end();
}

fn leased_frames_stay() {
    let mut scene = Scene::new(5);
    let mut peer = Peer::start_plain(&scene.scratch);
    scene.write(201);
    assert_eq!(peer.ask("next"), "1 201");
    assert_eq!(peer.ask("lease"), "leased 1");
    let mut reader = scene.stream.reader();
    let own = reader.lease(OnFull::Copy).unwrap();
    for value in 0..60_u8 {
        if value % 3 == 0 {
            peer.ask(&format!("write {value}"));
        } else {
            scene.write(value);
        }
    }
    scene.settle();
    assert_eq!(peer.ask("leased"), "1 201");
    let mut bytes = vec![0; BYTES];
    own.copy_to(&mut bytes).unwrap();
    assert_eq!(told(1, &bytes), "1 201");
    assert_eq!(peer.ask("drop"), "dropped");
    drop((own, reader, peer));
    scene.end();
}

/// The last one that came is served, and who asks for more is told.
fn frames_of_dead_writers_do_not_come() {
    let scratch = Scratch::new();
    let (mut writer, mut other) = (Peer::start(&scratch), Peer::start(&scratch));
    assert_eq!(writer.ask("mirror 4"), "created");
    assert_eq!(other.ask("open"), "opened");
    let (mut one, mut two) = (Peer::start_plain(&scratch), Peer::start_plain(&scratch));
    assert_eq!(writer.ask("write 7"), "1");
    assert_eq!((other.ask("read"), one.ask("next")), ("7".into(), "1 7".into()));
    assert_eq!(writer.ask("hold"), "held");
    assert_eq!(writer.ask("write 8"), "2");
    assert_eq!(one.ask("read"), "1 7");
    one.tell("wait");
    writer.kill();
    assert_eq!(one.hear(), "Inconsistent");
    assert_eq!((one.ask("read"), two.ask("wait")), ("1 7".into(), "Inconsistent".into()));
    // A device that reads it finds out, and fills it with what was there before.
    assert_eq!(other.ask("read"), "7");
    assert_eq!(one.ask("phase"), "Crashed");
    assert_eq!(one.ask("next"), "2 7");
    assert_eq!(two.ask("wait"), "Inconsistent");
    assert_eq!(other.ask("write 9"), "3");
    assert_eq!((one.ask("wait"), two.ask("wait")), ("3 9".into(), "3 9".into()));
    // And after them a process's.
    assert_eq!(other.ask("hold"), "held");
    assert_eq!(other.ask("write 10"), "4");
    other.kill();
    assert_eq!(one.ask("wait"), "Inconsistent");
    assert_eq!(one.ask("mark 11"), "5");
    assert_eq!(two.ask("wait"), "5 11x1,9x2999");
    for count in 6..20 {
        assert_eq!(two.ask(&format!("write {count}")), count.to_string());
        assert_eq!(one.ask("wait"), format!("{count} {count}"));
    }
    assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
}

/// Its process lives on.
fn frames_of_lost_contexts_do_not_come() {
    let scratch = Scratch::new();
    let mut writer = Peer::start(&scratch);
    assert_eq!(writer.ask("mirror 4"), "created");
    assert_eq!((writer.ask("prepare"), writer.ask("write 7")), ("prepared".into(), "1".into()));
    let mut plain = Peer::start_plain(&scratch);
    assert_eq!(plain.ask("wait"), "1 7");
    assert_eq!((writer.ask("hold"), writer.ask("write 8")), ("held".into(), "2".into()));
    plain.tell("wait");
    assert_eq!(writer.ask("lose"), "losing");
    assert_eq!(plain.hear(), "Inconsistent");
    assert_eq!(plain.ask("write 9"), "3");
    assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
}

/// The frame was complete, its copy was not.
fn a_copy_that_a_dead_writer_owes_is_made_by_others() {
    let scratch = Scratch::new();
    let (mut writer, mut other) = (Peer::start(&scratch), Peer::start(&scratch));
    assert_eq!(writer.ask("mirror 4"), "created");
    assert_eq!(other.ask("open"), "opened");
    for value in 1..=3 {
        assert_eq!(writer.ask(&format!("write {value}")), value.to_string());
    }
    assert_eq!((writer.ask("done"), other.ask("read")), ("done".into(), "3".into()));
    let stream = OpenOptions::new().namespace(scratch.clone()).open("it").unwrap();
    newest(&mut patient(&stream));
    writer.kill();
    // As if it had died before: neither the words nor the bytes.
    let bytes = FileOptions::new().write(true).open(file(&scratch)).unwrap();
    for slot in 0..4 {
        bytes.write_all_at(&[0; 8], MIRRORED + slot * WORDS_STRIDE).unwrap();
        bytes.write_all_at(&[99; BYTES], SMALL_RING + slot * 3072).unwrap();
    }
    let raising = ReaderOptions::new().on_writing(OnWriting::Wait).on_abort(OnAbort::Raise);
    let refused = stream.reader_with(raising).latest_with(&watchdog());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Inconsistent);
    assert_eq!(other.ask("write 4"), "4");
    let mut reader = stream.reader();
    reader.seek(0);
    let mut count = 0;
    while count < 4 {
        let frame = reader.next(&watchdog()).unwrap();
        count = frame.publication().count;
        assert_eq!(told(count, frame.bytes()), format!("{count} {count}"));
    }
    assert_eq!(stream.phase(), shared_tensor::stream::Phase::Idle);
    drop((reader, bytes));
    stream.unlink().unwrap();
}

/// The frame is published, and those who wait for it in the file are woken.
fn a_copy_that_the_driver_refuses_is_made_later() -> Outcome {
    if driver::is_device() {
        return Err(Skip("needs a driver that refuses when it is told to".to_owned()));
    }
    for refused in ["TEST_DRIVER_REFUSED_COPIES", "TEST_DRIVER_REFUSED_CALLS"] {
        let scratch = Scratch::new();
        let mut writer = Peer::start_on_driver(&scratch, refused, "1");
        assert_eq!(writer.ask("mirror 3"), "created");
        let mut plain = Peer::start_plain(&scratch);
        plain.tell("next");
        assert_eq!(writer.ask("write 7"), "1", "{refused}");
        assert_eq!(plain.hear(), "1 7", "{refused}");
        for frame in 2..=9 {
            assert_eq!(writer.ask(&format!("write {frame}")), frame.to_string());
        }
        assert_eq!(writer.ask("done"), "done");
        drop((writer, plain));
        assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
    }
    Ok(())
}

/// The writer goes on meanwhile, round the ring.
fn a_refused_copy_is_behind_nothing_that_waits_for_it() -> Outcome {
    if driver::is_device() {
        return Err(Skip("needs a driver that refuses when it is told to".to_owned()));
    }
    for times in ["2", "3", "7"] {
        let scratch = Scratch::new();
        let mut writer = Peer::start_on_driver(&scratch, "TEST_DRIVER_REFUSED_COPIES", times);
        assert_eq!(writer.ask("mirror 3"), "created");
        let mut plain = Peer::start_plain(&scratch);
        for frame in 1..=9 {
            writer.tell(&format!("write {frame}"));
        }
        for frame in 1..=9 {
            assert_eq!(writer.hear(), frame.to_string());
        }
        assert_eq!(writer.ask("done"), "done", "{times}");
        assert_eq!(plain.ask("wait"), "9 9", "{times}");
        drop((writer, plain));
        assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
    }
    Ok(())
}

/// All at once, while others read.
fn writers_of_both_kinds_take_turns() {
    const EACH: u64 = 60;
    let scratch = Scratch::new();
    let mut first = Peer::start(&scratch);
    assert_eq!(first.ask("mirror 5"), "created");
    let mut second = Peer::start(&scratch);
    assert_eq!(second.ask("open"), "opened");
    let mut writers = [first, second, Peer::start_plain(&scratch)];
    let stream = OpenOptions::new().namespace(scratch.clone()).open("it").unwrap();
    let readers = [(); 2].map(|()| {
        let mut reader = stream.reader();
        std::thread::spawn(move || {
            let mut last = 0;
            while last < 3 * EACH {
                let frame = reader.next(&watchdog()).unwrap();
                let count = frame.publication().count;
                assert!(!told(count, frame.bytes()).contains('x'), "torn");
                assert_eq!(count, last + frame.publication().missed + 1);
                last = count;
            }
        })
    });
    for value in 0..EACH {
        for writer in &mut writers {
            writer.tell(&format!("write {value}"));
        }
    }
    let mut counts: Vec<u64> = Vec::new();
    for writer in &mut writers {
        counts.extend((0..EACH).map(|_| writer.hear().parse::<u64>().unwrap()));
    }
    counts.sort_unstable();
    assert_eq!(counts, (1..=3 * EACH).collect::<Vec<_>>());
    for reader in readers {
        reader.join().unwrap();
    }
    let last = newest(&mut patient(&stream));
    assert_eq!(writers[0].ask("read"), last.split_once(' ').unwrap().1);
    assert_eq!(writers[2].ask("wait"), last);
    stream.unlink().unwrap();
}

/// Writers of both kinds are killed somewhere in their work; who reads finds whole frames, and goes on.
fn whatever_dies_frames_are_whole() {
    let scratch = Scratch::new();
    let mut holder = Peer::start(&scratch);
    assert_eq!(holder.ask("mirror 4"), "created");
    assert_eq!((holder.ask("write 1"), holder.ask("read")), ("1".into(), "1".into()));
    let stream = OpenOptions::new().namespace(scratch.clone()).open("it").unwrap();
    let mut reader = stream.reader();
    let mut last = 0;
    for round in 0..30_u8 {
        let is_plain = round % 3 == 2;
        let mut victim = if is_plain { Peer::start_plain(&scratch) } else { Peer::start(&scratch) };
        if !is_plain {
            assert_eq!(victim.ask("open"), "opened");
        }
        // Later each time, by what it has published.
        let until = stream.count() + u64::from(round) / 2;
        for value in 0..100 {
            victim.tell(&format!("write {value}"));
        }
        while stream.count() < until {
            std::thread::yield_now();
        }
        victim.kill();
        let frame = reader.latest_with(&watchdog()).unwrap();
        let count = frame.publication().count;
        assert!(!told(count, frame.bytes()).contains('x'), "torn: {}", told(count, frame.bytes()));
        assert!(count >= last, "{count} after {last}");
        last = count;
        let value = 100 + round;
        let written = holder.ask(&format!("write {value}"));
        assert_eq!(newest(&mut patient(&stream)), format!("{written} {value}"));
        assert_eq!(holder.ask("read"), value.to_string());
    }
    drop(reader);
    stream.unlink().unwrap();
}

fn rings_of_every_size() {
    for (dtype, shape) in
        [(DType::F32, vec![7, 11]), (DType::Bool, vec![1]), (DType::C128, vec![257])]
    {
        for slots in [3, 24] {
            let of = |scratch: &Namespace| {
                let options = StreamOptions::new(dtype, shape.clone()).slots(slots).mirror(true);
                options.namespace(scratch.clone())
            };
            let mut scene = Scene::of(of);
            let mut reader = patient(&scene.stream);
            assert_eq!(newest(&mut reader), "0 0");
            for value in 1..=30_u8 {
                scene.write(value);
                assert_eq!(newest(&mut reader), format!("{value} {value}"));
            }
            drop(reader);
            scene.end();
        }
    }
}

fn frames_of_several_mebibytes() {
    let of = |scratch: &Namespace| {
        let options = StreamOptions::new(DType::F32, [3, 512, 512]).slots(4).mirror(true);
        options.namespace(scratch.clone())
    };
    let mut scene = Scene::of(of);
    let mut peer = Peer::start_plain(&scene.scratch);
    for value in 1..=10_u8 {
        scene.write(value);
        assert_eq!(peer.ask("wait"), format!("{value} {value}"));
    }
    assert_eq!(peer.ask("lease"), "leased 10");
    assert_eq!(peer.ask("write 11"), "11");
    assert_eq!(scene.read(), "11 11");
    assert_eq!(peer.ask("leased"), "10 10");
    drop(peer);
    scene.end();
}

/// Whatever they say: a frame, a timeout or an error.
fn damaged_words_end_nothing() {
    let mut scene = Scene::new(4);
    let bytes = FileOptions::new().write(true).open(file(&scene.scratch)).unwrap();
    let damage = |word: u64| {
        for slot in 0..24 {
            bytes.write_all_at(&word.to_ne_bytes(), MIRRORED + slot * WORDS_STRIDE).unwrap();
        }
    };
    for value in 1..=6 {
        scene.write(value);
        scene.settle();
    }
    damage(0);
    let soon = || Wait::for_at_most(Duration::from_millis(1));
    let mut reader = scene.stream.reader();
    assert_eq!(reader.latest_with(&soon()).unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(reader.next_after(2, &soon()).unwrap_err().kind(), ErrorKind::Timeout);
    let leased = reader.lease_with(OnFull::Copy, &soon());
    assert_eq!(leased.unwrap_err().kind(), ErrorKind::Timeout);
    for word in [u64::MAX, 1 << 63, 1 << 40] {
        damage(word);
        assert_eq!(reader.latest_with(&watchdog()).unwrap().publication().count, 6);
        assert_eq!(newest(&mut reader), "6 6");
    }
    drop((reader, bytes));
    scene.end();
}

fn only_a_mirror_takes_space() {
    let (context, scratch) = (context(), Scratch::new());
    let frame = 1 << 20;
    let space = |mirror: bool| {
        let options = StreamOptions::new(DType::U8, [frame]).slots(4).mirror(mirror);
        let stream = options.namespace(scratch.clone()).create_on(&context, "it").unwrap();
        assert_eq!(stream.info().mirrored, mirror);
        let about = std::fs::metadata(file(&scratch)).unwrap();
        stream.unlink().unwrap();
        (about.len(), about.blocks() * 512)
    };
    let (plain, mirrored) = (space(false), space(true));
    assert_eq!(plain.0, SMALL_RING);
    assert!(mirrored.0 >= 4 * frame && mirrored.1 >= 4 * frame, "{mirrored:?}");
    assert!(plain.1 < frame, "{plain:?}");
    // Frames of other streams are in the file anyway.
    let options = StreamOptions::new(DType::U8, [frame]).mirror(true).namespace(scratch.clone());
    let stream = options.create("it").unwrap();
    assert!(!stream.is_mirrored());
    stream.unlink().unwrap();
}
