//! Streams of a GPU whose memory is not shared: their frames are in the file.
//!
//! They run as they are on any driver, where the creator wishes so, and again on drivers that do not share
//! memory, for this reason or that.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering as Atomic};
use std::thread;

use cuda_ipc::{
    Access, Context, Copies, HostRange, Ordering, Rooms, Stream as Queue, Words, probe,
};
use shared_tensor::ErrorKind;
use shared_tensor::stream::{
    Contents, GpuLease, OnFull, OpenOptions, Phase, ReaderOptions, Source, Stamp, StreamOptions,
    Wait, stat,
};

use crate::calls::Calls;
use crate::driver;
use crate::frames::{BYTES, Beside, Ground, context, options};
use crate::harness::{Outcome, Skip, tests};
use crate::peer::Peer;
use crate::pinned::Pages;
use crate::support::{Scratch, watchdog};

tests![
    the_stream_says_where_its_frames_are_and_why,
    frames_come_from_everywhere,
    large_frames_come_and_go_in_pieces,
    what_is_queued_before_is_waited_for,
    whoever_waits_for_a_device_has_no_lock,
    frames_are_written_in_place,
    frames_are_filled_under_a_lock_that_is_held,
    a_lease_is_a_copy_that_stays,
    memory_of_the_host_is_registered_where_it_can_be,
    copies_use_their_memory_again,
    frames_come_in_order_and_are_waited_for,
    processes_with_and_without_cuda_share_it,
    another_gpu_reads_and_writes,
    a_killed_writer_is_repaired,
    frames_are_whole_whenever_writers_are_killed,
    a_killed_process_leaves_its_frames,
    handles_that_only_read,
    streams_of_the_host_stay_without_a_gpu,
    want_of_memory_is_no_reason,
    whatever_a_driver_lacks,
];

/// On a driver that does not share memory: what the stream says of it.
const LACKS: &str = "ST_ON_GPU_LACKS";

/// What a driver lacks, and what is said of that.
const DRIVERS: &[(&str, &str, &str)] = &[
    ("TEST_DRIVER_LACKS", "chunks", "no virtual memory management"),
    ("TEST_DRIVER_LACKS", "descriptors", "no file descriptors"),
    ("TEST_DRIVER_LACKS", "chunks,pinning", "no virtual memory management"),
    ("TEST_DRIVER_NO_EXPORT", "800", "CUDA_ERROR_NOT_PERMITTED"),
    ("TEST_DRIVER_NO_EXPORT", "801", "CUDA_ERROR_NOT_SUPPORTED"),
];

/// Others that say the same of such a stream.
const THE_SAME: &[&str] = &[
    "frames::frames_are_written_and_read",
    "frames::large_frames_of_the_host_come_in_pieces",
    "frames::frames_in_memory_of_their_own_are_filled_again_at_once",
    "frames::a_frame_that_is_given_up_is_nobodys",
    "frames::a_write_can_change_the_last_frame",
    "frames::a_reader_stays_with_its_stream",
    "frames::locks_are_for_everybody",
    "frames::whoever_comes_first_creates_it",
    "leases::rings_of_fewer_than_three_slots_are_refused",
    "leases::leases_outlive_reader_and_stream",
    "leases::frames_are_filled_under_a_lock_that_is_held",
    "leases::a_frame_that_is_filled_is_given_up_with_its_lock",
    "leases::a_lock_of_another_stream_is_refused",
];

/// Such a stream, on whichever driver.
fn ground(slots: usize) -> Ground {
    Ground::with(|options| unshared(options.slots(slots)))
}

fn unshared(options: StreamOptions) -> StreamOptions {
    options.frames_in_file(env::var_os(LACKS).is_none())
}

impl Ground {
    fn queue_of_its_own(&self) -> Arc<Queue> {
        Arc::new(self.context.stream().unwrap())
    }

    fn write_from(&self, source: Source<'_>) -> u64 {
        let [work, _] = &self.work;
        self.writer.write(work.stream(), source, &Stamp::default(), &watchdog()).unwrap()
    }

    fn read_bytes(&mut self) -> Vec<u8> {
        self.read(1);
        self.found(1)
    }
}

fn bytes_at(context: &Context, address: u64, bytes: usize) -> Vec<u8> {
    let mut found = vec![0; bytes];
    Copies::new(context).unwrap().download(&mut found, address).unwrap();
    found
}

fn the_stream_says_where_its_frames_are_and_why() {
    let (context, scratch) = (context(), Scratch::new());
    let device = context.device().uuid();
    let stream = unshared(options(&scratch)).mirror(true).create_on(&context, "it").unwrap();
    assert_eq!(stream.device(), Some(device));
    // A mirror would mirror nothing, and is no error.
    assert!(stream.frames_in_file() && !stream.is_mirrored());
    let told = env::var(LACKS).unwrap_or("its creator wished so".to_owned());
    let opened = OpenOptions::new().namespace((*scratch).clone()).open("it").unwrap();
    for info in [stream.info(), opened.info(), stat(&scratch, "it").unwrap()] {
        assert_eq!((info.device, info.ordering), (Some(device), None));
        assert!(info.frames_in_file && !info.mirrored);
        let why = info.warnings.iter().find(|it| it.contains("in the stream's file"));
        assert!(why.unwrap().contains(&told), "{:?}", info.warnings);
    }
    let writer = opened.writer_on(&context, &Wait::never()).unwrap();
    let info = opened.info();
    assert_eq!(info.ordering, Some(Ordering::Host));
    assert!(!info.warnings.iter().any(|it| it.contains("no words")), "{:?}", info.warnings);
    drop((writer, opened));
    assert_eq!(stream.info().ordering, None);
    stream.unlink().unwrap();
}

fn frames_come_from_everywhere() {
    let mut ground = ground(4);
    assert_eq!(ground.read_bytes(), [0; BYTES], "zeros before the first");
    for value in 1..=50_u8 {
        assert_eq!(ground.write(value), u64::from(value));
        assert_eq!(ground.read_bytes(), [value; BYTES]);
    }
    let bytes: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    assert_eq!(ground.write_from(Source::Host(&bytes)), 51);
    assert_eq!(ground.read_bytes(), bytes);
    let short = Source::Host(&bytes[1..]);
    let [work, _] = &ground.work;
    let refused = ground.writer.write(work.stream(), short, &Stamp::default(), &watchdog());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let mut frame = ground.writer.host_frame().unwrap();
    for value in 60..=70 {
        frame.write_at(0, &[value; BYTES]).unwrap();
        ground.write_from(Source::Frame(&frame));
        frame.write_at(0, &[99; BYTES]).unwrap();
        assert_eq!(ground.read_bytes(), [value; BYTES]);
    }
    if ground.context.device().capabilities().host_registration {
        let pages = Pages::new(3 * BYTES);
        pages.part(BYTES, BYTES).write(&bytes);
        let range = HostRange::register(&ground.context, pages, Access::Read).unwrap();
        ground.write_from(Source::Range(&range, BYTES as u64));
        assert_eq!(ground.read_bytes(), bytes);
    }
    let [work, _] = &ground.work;
    ground.writer.clear(work.stream(), &Stamp::default(), &watchdog()).unwrap();
    assert_eq!(ground.read_bytes(), [0; BYTES]);
    drop(frame);
    ground.end();
}

fn large_frames_come_and_go_in_pieces() {
    const LONG: usize = (13 << 20) + 123;
    let (context, scratch) = (context(), Scratch::new());
    let options = StreamOptions::new(shared_tensor::DType::U8, [LONG as u64]).slots(3);
    let options = unshared(options.namespace((*scratch).clone()));
    let stream = options.create_on(&context, "it").unwrap();
    let writer = stream.writer_on(&context, &watchdog()).unwrap();
    let mut reader = stream.reader_on(&context, ReaderOptions::default(), &watchdog()).unwrap();
    let work = Copies::new(&context).unwrap();
    let rooms = Rooms::new(&context, LONG as u64);
    let [from, to] = [(); 2].map(|()| rooms.take().unwrap());
    for round in 1..=3_u8 {
        let bytes: Vec<u8> = (0..LONG).map(|at| (at / 4099) as u8 ^ round).collect();
        work.upload(from.address(), &bytes).unwrap();
        let source = Source::Device(from.address());
        writer.write(work.stream(), source, &Stamp::default(), &watchdog()).unwrap();
        reader.latest_into(work.stream(), to.address(), &watchdog()).unwrap();
        assert!(bytes_at(&context, to.address(), LONG) == bytes, "round {round}");
        let frame = stream.reader().latest().unwrap();
        assert!(frame.bytes() == bytes, "round {round}, without the GPU");
    }
    stream.unlink().unwrap();
}

/// Both by a write, and by a read into what it still uses.
fn what_is_queued_before_is_waited_for() {
    let ground = ground(4);
    let words = Words::create(1).unwrap().attach(&ground.context).unwrap();
    if words.ordering() == Ordering::Host {
        // Nothing holds a stream up there.
        return ground.end();
    }
    let (from, to) = (ground.beside.at(0), ground.beside.at(1));
    let [work, reading] = &ground.work;
    words.wait(work.stream(), 0, 1).unwrap();
    work.fill(from, 7, BYTES as u64).unwrap();
    let is_written = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            ground.write_from(Source::Device(from));
            is_written.store(true, Atomic::Release);
        });
        // The lock is free meanwhile, and frames are read and written.
        let other = OpenOptions::new().namespace((*ground.scratch).clone()).open("it").unwrap();
        other.writer().unwrap().write(&[1; BYTES]).unwrap();
        assert_eq!(other.reader().latest().unwrap().bytes()[0], 1);
        assert!(!is_written.load(Atomic::Acquire));
        words.release(0, 1);
    });
    words.wait(reading.stream(), 0, 2).unwrap();
    reading.copy(ground.beside.at(2), to, BYTES as u64).unwrap();
    reading.fill(to, 8, BYTES as u64).unwrap();
    let (context, stream) = (&ground.context, &ground.stream);
    thread::scope(|scope| {
        scope.spawn(move || {
            let options = ReaderOptions::default();
            let mut reader = stream.reader_on(context, options, &watchdog()).unwrap();
            let read = reader.latest_into(reading.stream(), to, &watchdog()).unwrap();
            assert_eq!(read.count, 2);
        });
        words.release(0, 2);
    });
    assert_eq!(ground.found(1), [7; BYTES], "behind what was queued to go there");
    drop(words);
    ground.end();
}

/// A frame that is not there yet is not begun.
fn whoever_waits_for_a_device_has_no_lock() {
    let mut ground = ground(4);
    let words = Words::create(1).unwrap().attach(&ground.context).unwrap();
    if words.ordering() == Ordering::Host {
        return ground.end();
    }
    let mut peer = Peer::start(&ground.scratch);
    assert_eq!((peer.ask("open"), peer.ask("write 5")), ("opened".into(), "1".into()));
    assert_eq!(peer.ask("hold"), "held");
    peer.tell("write 9");
    for value in 2..=20 {
        assert_eq!(ground.write(value), value.into());
        assert_eq!(ground.stream.phase(), Phase::Idle);
    }
    peer.kill();
    assert_eq!(ground.read_bytes(), [20; BYTES]);
    assert_eq!(ground.stream.count(), 20);
    drop(words);
    ground.end();
}

fn frames_are_written_in_place() {
    let mut ground = ground(3);
    ground.write(5);
    for count in 2..10_u8 {
        let [work, _] = &ground.work;
        let view = ground.writer.view(work.stream(), Contents::Previous, &watchdog()).unwrap();
        assert_eq!((view.count(), view.len()), (count.into(), BYTES));
        work.fill(view.address() + u64::from(count), count, 1).unwrap();
        assert_eq!(view.publish(&Stamp::default()).unwrap(), count.into());
    }
    let mut wanted = [5; BYTES];
    (2..10_u8).for_each(|count| wanted[usize::from(count)] = count);
    assert_eq!(ground.read_bytes(), wanted);
    let [work, _] = &ground.work;
    let view = ground.writer.view(work.stream(), Contents::Fresh, &watchdog()).unwrap();
    work.fill(view.address(), 9, BYTES as u64).unwrap();
    assert_eq!(ground.stream.phase(), Phase::Writing);
    drop(view);
    assert_eq!(ground.stream.phase(), Phase::Aborted);
    assert_eq!(ground.read_bytes(), wanted);
    ground.write(2);
    assert_eq!(ground.read_bytes(), [2; BYTES]);
    ground.end();
}

fn frames_are_filled_under_a_lock_that_is_held() {
    let mut ground = ground(3);
    let queue = ground.queue_of_its_own();
    let mut locked = ground.writer.lock_owned(&watchdog()).unwrap();
    let from = ground.beside.at(0);
    ground.context.fill(&queue, from, 4, BYTES as u64).unwrap();
    let stamp = Stamp::default();
    let source = Source::Device(from);
    assert_eq!(locked.write_on(&ground.writer, &queue, source, &stamp).unwrap(), 1);
    assert_eq!(locked.begin_on(&ground.writer, &queue, Contents::Previous).unwrap(), 2);
    ground.context.fill(&queue, locked.address().unwrap(), 9, 1).unwrap();
    assert_eq!(locked.publish(&stamp).unwrap(), 2);
    // Nor is a frame in place one of the host.
    assert_eq!((locked.address(), locked.as_mut_ptr()), (None, None));
    let mut wanted = [4; BYTES];
    wanted[0] = 9;
    assert_eq!(ground.read_bytes(), wanted);
    let bytes = [3; BYTES];
    locked.write_on(&ground.writer, &queue, Source::Host(&bytes), &stamp).unwrap();
    assert_eq!(ground.read_bytes(), bytes);
    assert_eq!(locked.clear_on(&ground.writer, &queue, &stamp).unwrap(), 4);
    assert_eq!(ground.read_bytes(), [0; BYTES]);
    drop(locked);
    ground.end_with(&queue);
}

fn lease(ground: &mut Ground, queue: &Arc<Queue>, on_full: OnFull) -> GpuLease {
    ground.reader.lease(queue, on_full, &watchdog()).unwrap()
}

/// It takes no slot, so that there is always one for the next.
fn a_lease_is_a_copy_that_stays() {
    let mut ground = ground(3);
    let queue = ground.queue_of_its_own();
    ground.write(1);
    let first = lease(&mut ground, &queue, OnFull::Copy);
    assert_eq!((first.publication().count, first.len(), first.is_copy()), (1, BYTES, true));
    let mut kept = Vec::new();
    for value in 2..=20 {
        ground.write(value);
        let on_full = [OnFull::Copy, OnFull::Revoke, OnFull::Wait(std::time::Duration::ZERO)];
        kept.push(lease(&mut ground, &queue, on_full[usize::from(value) % 3]));
    }
    let context = ground.context.clone();
    assert!(!first.is_revoked());
    assert_eq!(bytes_at(&context, first.address(), BYTES), [1; BYTES]);
    for (value, lease) in (2..=20).zip(&kept) {
        assert_eq!(bytes_at(&context, lease.address(), BYTES), [value; BYTES]);
    }
    let participants = ground.stream.info().participants;
    assert_eq!(participants.iter().map(|it| it.leases).sum::<u32>(), 0);
    assert_eq!(participants.iter().map(|it| it.reader.lease_copies).sum::<u64>(), 20);
    let copy = ground.reader.lease_copy(&queue, &watchdog()).unwrap();
    copy.used_on(ground.work[0].stream()).unwrap();
    ground.end_keeping_mapped();
    assert_eq!(bytes_at(&context, kept[5].address(), BYTES), [7; BYTES], "they outlive all");
    assert_eq!(bytes_at(&context, copy.address(), BYTES), [20; BYTES]);
}

/// The ring for reading, when there is a reader, and pages of its own for writing, when it writes.
fn memory_of_the_host_is_registered_where_it_can_be() {
    let (context, scratch) = (context(), Scratch::new());
    let can = context.device().capabilities();
    let registered = || cuda_ipc::usage().host_ranges;
    let stream = unshared(options(&scratch)).create_on(&context, "it").unwrap();
    let before = registered();
    let writer = stream.writer_on(&context, &watchdog()).unwrap();
    assert_eq!(registered() - before, usize::from(can.read_only_registration));
    let (work, beside) = (Copies::new(&context).unwrap(), Beside::new(&context));
    work.fill(beside.at(0), 3, BYTES as u64).unwrap();
    let source = Source::Device(beside.at(0));
    writer.write(work.stream(), source, &Stamp::default(), &watchdog()).unwrap();
    let both = usize::from(can.read_only_registration) + usize::from(can.host_registration);
    assert_eq!(registered() - before, both);
    assert_eq!(stream.reader().latest().unwrap().bytes(), [3; BYTES]);
    stream.unlink().unwrap();
    drop((writer, stream, work, beside));
    assert!(cuda_ipc::flush(std::time::Instant::now() + std::time::Duration::from_secs(60)));
    assert_eq!(registered(), before);
}

fn copies_use_their_memory_again() {
    let mut ground = ground(3);
    let queue = ground.queue_of_its_own();
    ground.write(1);
    let before = Calls::now();
    for _ in 0..50 {
        drop(lease(&mut ground, &queue, OnFull::Copy));
        assert!(cuda_ipc::flush(std::time::Instant::now() + std::time::Duration::from_secs(60)));
    }
    assert_eq!(Calls::now().since(&before).of("cuMemAlloc_v2"), 1);
    ground.end_with(&queue);
}

fn frames_come_in_order_and_are_waited_for() {
    let mut ground = ground(8);
    for value in 1..=5 {
        ground.write(value);
    }
    let to = ground.beside.at(1);
    for value in 1..=5_u8 {
        let [_, work] = &ground.work;
        let read = ground.reader.next_into(work.stream(), to, &watchdog()).unwrap();
        assert_eq!((read.count, read.missed), (value.into(), 0));
        assert_eq!(ground.found(1), [value; BYTES]);
    }
    let [_, work] = &ground.work;
    let early = ground.reader.next_into(work.stream(), to, &Wait::never()).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Timeout);
    let other = ground.stream.clone();
    thread::scope(|scope| {
        scope.spawn(move || other.writer().unwrap().write(&[6; BYTES]).unwrap());
        let read = ground.reader.next_into(work.stream(), to, &watchdog()).unwrap();
        assert_eq!(read.count, 6);
    });
    assert_eq!(ground.found(1), [6; BYTES]);
    for value in 7..=30 {
        ground.write(value);
    }
    let [_, work] = &ground.work;
    let read = ground.reader.next_into(work.stream(), to, &watchdog()).unwrap();
    assert_eq!(read.count, 7 + read.missed, "the oldest that there is");
    ground.end();
}

fn processes_with_and_without_cuda_share_it() {
    let mut ground = ground(4);
    let (mut gpu, mut plain) = (Peer::start(&ground.scratch), Peer::start_plain(&ground.scratch));
    assert_eq!((gpu.ask("open"), plain.ask("maps")), ("opened".into(), "plain".into()));
    for round in 0..10_u8 {
        let count = u64::from(round) * 3;
        assert_eq!(ground.write(round * 3 + 1), count + 1);
        let value = (round * 3 + 1).to_string();
        assert_eq!(
            (gpu.ask("read"), plain.ask("next")),
            (value.clone(), format!("{} {value}", count + 1))
        );
        let value = (round * 3 + 2).to_string();
        assert_eq!(gpu.ask(&format!("write {value}")), (count + 2).to_string());
        assert_eq!(ground.read_bytes(), [round * 3 + 2; BYTES]);
        assert_eq!(plain.ask("next"), format!("{} {value}", count + 2));
        let value = (round * 3 + 3).to_string();
        assert_eq!(plain.ask(&format!("write {value}")), (count + 3).to_string());
        assert_eq!(
            (gpu.ask("read"), plain.ask("wait")),
            (value.clone(), format!("{} {value}", count + 3))
        );
        assert_eq!(ground.read_bytes(), [round * 3 + 3; BYTES]);
        plain.ask("next");
    }
    assert_eq!(plain.ask("lease"), "leased 30");
    for value in 100..=120 {
        ground.write(value);
    }
    assert_eq!((plain.ask("leased"), plain.ask("drop")), ("30 30".into(), "dropped".into()));
    assert_eq!(plain.ask("mark 9"), "52");
    let mut wanted = [120; BYTES];
    wanted[0] = 9;
    assert_eq!(ground.read_bytes(), wanted);
    drop((gpu, plain));
    ground.end();
}

fn second() -> Result<Context, Skip> {
    let driver = probe().unwrap();
    if driver.devices().unwrap().len() < 2 {
        return Err(Skip("needs two GPUs".to_owned()));
    }
    Ok(driver.device_at(1).unwrap().context().unwrap())
}

/// Whether or not it reaches the first one's memory: it is not asked to.
fn another_gpu_reads_and_writes() -> Outcome {
    let other = second()?;
    let mut ground = ground(4);
    let writer = ground.stream.writer_on(&other, &watchdog()).unwrap();
    let options = ReaderOptions::default();
    let mut reader = ground.stream.reader_on(&other, options, &watchdog()).unwrap();
    let (work, beside) = (Copies::new(&other).unwrap(), Beside::new(&other));
    for value in (1..=20_u8).step_by(2) {
        ground.write(value);
        reader.latest_into(work.stream(), beside.at(1), &watchdog()).unwrap();
        assert_eq!(bytes_at(&other, beside.at(1), BYTES), [value; BYTES]);
        work.fill(beside.at(0), value + 1, BYTES as u64).unwrap();
        let source = Source::Device(beside.at(0));
        writer.write(work.stream(), source, &Stamp::default(), &watchdog()).unwrap();
        assert_eq!(ground.read_bytes(), [value + 1; BYTES]);
    }
    assert_eq!(ground.stream.device(), Some(ground.context.device().uuid()));
    drop((writer, reader, work, beside));
    ground.end();
    Ok(())
}

/// Its frame was begun, and it had the lock.
fn a_killed_writer_is_repaired() {
    let mut ground = ground(4);
    for round in 0..5_u8 {
        let mut peer = Peer::start(&ground.scratch);
        let count = ground.stream.count();
        assert_eq!(peer.ask("open"), "opened");
        assert_eq!(peer.ask(&format!("write {}", 10 + round)), (count + 1).to_string());
        assert_eq!(peer.ask("claim"), (count + 2).to_string());
        assert_eq!(ground.stream.phase(), Phase::Writing);
        peer.kill();
        assert_eq!(ground.read_bytes(), [10 + round; BYTES], "the last whole one");
        assert!(ground.stream.is_abandoned());
        assert_eq!(ground.write(50 + round), count + 2);
        assert_eq!(ground.stream.phase(), Phase::Idle);
        assert_eq!(ground.read_bytes(), [50 + round; BYTES]);
    }
    assert_eq!(ground.stream.info().writer.recoveries, 5);
    ground.end();
}

/// Somewhere in a copy, mostly.
fn frames_are_whole_whenever_writers_are_killed() {
    const LONG: u64 = 5 << 20;
    const KILLED_IN_A_WRITE: u64 = 10;
    let (context, scratch) = (context(), Scratch::new());
    let options = StreamOptions::new(shared_tensor::DType::U8, [LONG]).slots(4);
    let options = unshared(options.namespace((*scratch).clone()));
    let stream = options.create_on(&context, "it").unwrap();
    let writer = stream.writer_on(&context, &watchdog()).unwrap();
    let mut reader = stream.reader_on(&context, ReaderOptions::default(), &watchdog()).unwrap();
    let mut plain = stream.reader();
    let (work, rooms) = (Copies::new(&context).unwrap(), Rooms::new(&context, LONG));
    let to = rooms.take().unwrap();
    let mut is_whole = || {
        reader.latest_into(work.stream(), to.address(), &watchdog()).unwrap();
        for bytes in [
            bytes_at(&context, to.address(), LONG as usize),
            plain.latest().unwrap().bytes().to_vec(),
        ] {
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "torn");
        }
    };
    for round in (0..25).cycle() {
        if stream.info().writer.recoveries == KILLED_IN_A_WRITE {
            break;
        }
        let mut peer = Peer::start(&scratch);
        assert_eq!((peer.ask("open"), peer.ask("flood")), ("opened".into(), "flooding".into()));
        let before = stream.count();
        // Read beside it, and by turns at another point of its next copy.
        while stream.count() < before + 2 {
            thread::yield_now();
        }
        is_whole();
        for _ in 0..round * 2000 {
            std::hint::spin_loop();
        }
        peer.kill();
        is_whole();
        let count = stream.count();
        let bytes = vec![200; LONG as usize];
        let source = Source::Host(&bytes);
        let written = writer.write(work.stream(), source, &Stamp::default(), &watchdog());
        assert_eq!((written.unwrap(), stream.phase()), (count + 1, Phase::Idle));
        is_whole();
    }
    stream.unlink().unwrap();
}

/// They were there when they were published, and need nobody who has them.
fn a_killed_process_leaves_its_frames() {
    let scratch = Scratch::new();
    let mut creator = Peer::start(&scratch);
    let create = if env::var_os(LACKS).is_none() { "unshare 4" } else { "create 4" };
    assert_eq!(creator.ask(create), "created");
    assert_eq!(creator.ask("write 7"), "1");
    creator.kill();
    let mut late = Peer::start(&scratch);
    assert_eq!((late.ask("open"), late.ask("read")), ("opened".into(), "7".into()));
    assert_eq!(late.ask("write 8"), "2");
    let mut plain = Peer::start_plain(&scratch);
    assert_eq!(plain.ask("read"), "2 8");
    late.kill();
    assert_eq!((plain.ask("write 9"), plain.ask("read")), ("3".into(), "3 9".into()));
    assert!(shared_tensor::stream::unlink(&scratch, "it").unwrap());
}

fn handles_that_only_read() {
    let mut ground = ground(4);
    ground.write(3);
    let reading = OpenOptions::new().namespace((*ground.scratch).clone()).read_only(true);
    let reading = reading.open("it").unwrap();
    let refused = reading.writer_on(&ground.context, &watchdog()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    let options = ReaderOptions::default();
    let mut reader = reading.reader_on(&ground.context, options, &watchdog()).unwrap();
    let to = ground.beside.at(1);
    assert_eq!(reader.latest_into(ground.work[1].stream(), to, &watchdog()).unwrap().count, 1);
    assert_eq!(ground.found(1), [3; BYTES]);
    drop((reader, reading));
    ground.end();
}

fn streams_of_the_host_stay_without_a_gpu() {
    let (context, scratch) = (context(), Scratch::new());
    let stream = options(&scratch).create("it").unwrap();
    assert_eq!((stream.device(), stream.frames_in_file()), (None, true));
    let refused = stream.writer_on(&context, &watchdog()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Device);
    assert!(refused.to_string().contains("not on a GPU"), "{refused}");
    stream.unlink().unwrap();
}

/// Of a device that could share it.
fn want_of_memory_is_no_reason() {
    let (context, scratch) = (context(), Scratch::new());
    if env::var_os(LACKS).is_some() {
        return;
    }
    let far_too_much = 1 << 42;
    let options = StreamOptions::new(shared_tensor::DType::U8, [far_too_much]).slots(3);
    let options = options.namespace((*scratch).clone());
    let refused = options.create_on(&context, "it").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NoSpace);
    let gone = OpenOptions::new().namespace((*scratch).clone()).open("it").unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

fn whatever_a_driver_lacks() -> Outcome {
    if driver::is_device() {
        return Err(Skip("needs another driver than the device's".to_owned()));
    }
    if env::var_os(LACKS).is_some() {
        return Ok(());
    }
    let old = ["-DVERSION=11030", "-DWITHOUT_WORDS", "-DWITHOUT_CHUNKS"];
    let old = driver::build("without-chunks", &old).into_os_string().into_string().unwrap();
    let old = ("LD_LIBRARY_PATH", old.as_str(), "no virtual memory management");
    for (variable, lacks, said) in DRIVERS.iter().chain([&old]) {
        let of_these = TESTS.iter().map(|(name, _)| format!("in_file::{name}"));
        let all: Vec<_> = of_these.chain(THE_SAME.iter().map(|it| (*it).to_owned())).collect();
        driver::run_tests(&all, |it| it.env(variable, lacks).env(LACKS, said));
    }
    Ok(())
}
