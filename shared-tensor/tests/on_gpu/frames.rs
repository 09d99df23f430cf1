//! Frames that one stream of a device writes and another reads.

use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use cuda_ipc::{Context, Copies, Words, probe};
use shared_tensor::ErrorKind;
use shared_tensor::stream::{
    Contents, GpuReader, GpuWriter, OnEmpty, OnFull, OpenOptions, ReaderOptions, Source, Stamp,
    Stream, StreamOptions, Wait,
};

use crate::calls::Calls;
use crate::driver;
use crate::harness::{Outcome, Skip, tests};
use crate::mirror::file;
use crate::support::{Scratch, watchdog};

tests![
    frames_are_written_and_read,
    nobody_waits_for_work_that_is_queued,
    a_stream_waits_for_nothing_of_its_own,
    frames_of_the_host_wait_for_no_stream,
    large_frames_of_the_host_come_in_pieces,
    frames_can_be_longer_than_32_bits_say,
    frames_in_memory_of_their_own_are_filled_again_at_once,
    a_frame_that_is_given_up_is_nobodys,
    a_write_can_change_the_last_frame,
    nobody_waits_for_uses_of_a_seat_that_nobody_has,
    what_needs_the_file_says_where_the_frames_are,
    a_reader_stays_with_its_stream,
    locks_are_for_everybody,
    whoever_comes_first_creates_it,
];

pub(crate) const BYTES: usize = 3000;

pub(crate) fn context() -> Context {
    probe().unwrap().device_at(0).unwrap().context().unwrap()
}

pub(crate) fn options(scratch: &Scratch) -> StreamOptions {
    StreamOptions::new(shared_tensor::DType::U8, [BYTES as u64]).namespace((**scratch).clone())
}

/// A stream, a writer and a reader, and memory beside it.
pub(crate) struct Ground {
    pub(crate) context: Context,
    pub(crate) scratch: Scratch,
    pub(crate) stream: Stream,
    pub(crate) writer: GpuWriter,
    pub(crate) reader: GpuReader,
    /// Of the writer and of the reader.
    pub(crate) work: [Copies; 2],
    pub(crate) beside: Beside,
}

/// Memory of the device.
pub(crate) enum Beside {
    /// Which can be given back whatever streams wait for.
    Mapped(cuda_ipc::Mapping),
    /// Where there are no chunks.
    Room(cuda_ipc::Room),
}

impl Beside {
    pub(crate) fn new(context: &Context) -> Self {
        const BYTES: u64 = 1 << 21;
        let Ok(chunk) = cuda_ipc::Chunk::create(context.device(), BYTES) else {
            return Self::Room(cuda_ipc::Rooms::new(context, BYTES).take().unwrap());
        };
        match cuda_ipc::Mapping::open(context, &[&chunk], cuda_ipc::Access::ReadWrite) {
            Ok(mapping) => Self::Mapped(mapping),
            Err(_) => Self::Room(cuda_ipc::Rooms::new(context, BYTES).take().unwrap()),
        }
    }

    pub(crate) fn at(&self, place: u64) -> u64 {
        let address = match self {
            Self::Mapped(mapping) => mapping.address(),
            Self::Room(room) => room.address(),
        };
        address + place * BYTES as u64
    }
}

impl Ground {
    pub(crate) fn new(slots: usize) -> Self {
        Self::with(|options| options.slots(slots))
    }

    pub(crate) fn with(how: impl FnOnce(StreamOptions) -> StreamOptions) -> Self {
        let (context, scratch) = (context(), Scratch::new());
        let stream = how(options(&scratch)).create_on(&context, "it").unwrap();
        let writer = stream.writer_on(&context, &watchdog()).unwrap();
        let options = ReaderOptions::new().on_empty(OnEmpty::Zeros);
        let reader = stream.reader_on(&context, options, &watchdog()).unwrap();
        let work = [Copies::new(&context).unwrap(), Copies::new(&context).unwrap()];
        let beside = Beside::new(&context);
        Self { context, scratch, stream, writer, reader, work, beside }
    }

    /// Writes a frame of one value, from memory of the device.
    pub(crate) fn write(&mut self, value: u8) -> u64 {
        let from = self.beside.at(0);
        let [work, _] = &self.work;
        work.fill(from, value, BYTES as u64).unwrap();
        let source = Source::Device(from);
        self.writer.write(work.stream(), source, &Stamp::default(), &watchdog()).unwrap()
    }

    /// Reads the newest frame to a place.
    pub(crate) fn read(&mut self, place: u64) -> u64 {
        let to = self.beside.at(place);
        self.reader.latest_into(self.work[1].stream(), to, &watchdog()).unwrap().count
    }

    pub(crate) fn found(&self, place: u64) -> Vec<u8> {
        let mut found = vec![0; BYTES];
        self.work[1].download(&mut found, self.beside.at(place)).unwrap();
        found
    }

    pub(crate) fn end(self) {
        self.end_keeping_mapped();
        assert!(cuda_ipc::flush(Instant::now() + Duration::from_secs(60)));
    }

    /// As [`end`](Self::end), for work in a stream beside the two.
    pub(crate) fn end_with(self, queue: &cuda_ipc::Stream) {
        self.context.synchronize(queue).unwrap();
        self.end();
    }

    pub(crate) fn end_keeping_mapped(self) {
        // Of the memory beside the driver knows nothing.
        self.work.iter().for_each(|work| work.synchronize().unwrap());
        self.stream.unlink().unwrap();
        drop((self.writer, self.reader, self.stream, self.beside, self.work));
        drop((self.context, self.scratch));
    }
}

fn frames_are_written_and_read() {
    let mut ground = Ground::new(4);
    assert_eq!(ground.read(1), 0);
    assert_eq!(ground.found(1), [0; BYTES], "zeros before the first");
    for value in 1..=100_u8 {
        assert_eq!(ground.write(value), u64::from(value));
        assert_eq!(ground.read(1), u64::from(value));
        assert_eq!(ground.found(1), [value; BYTES]);
    }
    let bytes = vec![7; BYTES];
    let [work, _] = &ground.work;
    ground
        .writer
        .write(work.stream(), Source::Host(&bytes), &Stamp::default(), &Wait::forever())
        .unwrap();
    ground.read(1);
    assert_eq!(ground.found(1), bytes);
    let short = Source::Host(&bytes[1..]);
    let [work, _] = &ground.work;
    let refused = ground.writer.write(work.stream(), short, &Stamp::default(), &watchdog());
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidArgument);
    ground.end();
}

/// Many more frames than slots, while the device has not come to any of them.
fn nobody_waits_for_work_that_is_queued() {
    let mut ground = Ground::new(4);
    let words = Words::create(2).unwrap().attach(&ground.context).unwrap();
    // Both are held up, the reader for longer.
    let [first, second] = &ground.work;
    words.wait(first.stream(), 0, 1).unwrap();
    words.wait(second.stream(), 1, 1).unwrap();
    for value in 1..=20_u8 {
        assert_eq!(ground.write(value), u64::from(value));
        assert_eq!(ground.read(value.into()), u64::from(value));
    }
    assert!(!ground.context.is_idle(ground.work[0].stream()).unwrap());
    words.release(0, 1);
    words.release(1, 1);
    for value in 1..=20_u8 {
        assert_eq!(ground.found(value.into()), [value; BYTES], "frame {value}");
    }
    ground.context.synchronize(ground.work[0].stream()).unwrap();
    drop(words);
    ground.end();
}

/// What it does later comes later by itself.
fn a_stream_waits_for_nothing_of_its_own() {
    let mut ground = Ground::new(4);
    let words = Words::create(1).unwrap().attach(&ground.context).unwrap();
    let queue = ground.context.stream().unwrap();
    words.wait(&queue, 0, 1).unwrap();
    let from = ground.beside.at(0);
    let stamp = Stamp::default();
    let before = Calls::now();
    for value in 1..=20_u8 {
        ground.context.fill(&queue, from, value, BYTES as u64).unwrap();
        ground.writer.write(&queue, Source::Device(from), &stamp, &watchdog()).unwrap();
        let to = ground.beside.at(value.into());
        ground.reader.latest_into(&queue, to, &watchdog()).unwrap();
    }
    let made = Calls::now().since(&before);
    let waits = ["cuStreamWaitValue64_v2", "cuStreamBatchMemOp_v2", "cuStreamWaitEvent"];
    assert_eq!(waits.map(|it| made.of(it)), [0; 3], "{made:?}");
    assert_eq!(made.of("cuStreamWriteValue64_v2"), 40);
    assert_eq!(made.of("cuCtxPushCurrent_v2"), 60, "once for each call");
    words.release(0, 1);
    ground.context.synchronize(&queue).unwrap();
    for value in 1..=20_u8 {
        assert_eq!(ground.found(value.into()), [value; BYTES], "frame {value}");
    }
    // Another stream does wait.
    let before = Calls::now();
    words.wait(&queue, 0, 2).unwrap();
    ground.writer.write(&queue, Source::Device(from), &stamp, &watchdog()).unwrap();
    ground.read(1);
    assert!(Calls::now().since(&before).of("cuStreamWaitValue64_v2") > 1);
    words.release(0, 2);
    drop(words);
    ground.end_with(&queue);
}

/// Neither the call nor the frame, and the bytes may be changed at once.
fn frames_of_the_host_wait_for_no_stream() {
    let mut ground = Ground::new(4);
    let words = Words::create(1).unwrap().attach(&ground.context).unwrap();
    words.wait(ground.work[0].stream(), 0, 1).unwrap();
    let mut bytes = vec![0; BYTES];
    for value in 1..=30_u8 {
        bytes.fill(value);
        let [work, _] = &ground.work;
        let source = Source::Host(&bytes);
        let count = ground.writer.write(work.stream(), source, &Stamp::default(), &watchdog());
        assert_eq!(count.unwrap(), u64::from(value));
        bytes.fill(99);
        ground.read(value.into());
    }
    for value in 1..=30_u8 {
        assert_eq!(ground.found(value.into()), [value; BYTES], "frame {value}");
    }
    assert!(!ground.context.is_idle(ground.work[0].stream()).unwrap());
    words.release(0, 1);
    ground.context.synchronize(ground.work[0].stream()).unwrap();
    drop(words);
    ground.end();
}

fn large_frames_of_the_host_come_in_pieces() {
    const LONG: usize = (70 << 20) + 123;
    let (context, scratch) = (context(), Scratch::new());
    let options = StreamOptions::new(shared_tensor::DType::U8, [LONG as u64]).slots(3);
    let stream = options.namespace((*scratch).clone()).create_on(&context, "it").unwrap();
    let writer = stream.writer_on(&context, &watchdog()).unwrap();
    let mut reader = stream.reader_on(&context, ReaderOptions::default(), &watchdog()).unwrap();
    let work = Copies::new(&context).unwrap();
    let queue = std::sync::Arc::new(context.stream().unwrap());
    for round in 1..=3_u8 {
        let bytes: Vec<u8> = (0..LONG).map(|at| (at / 4099) as u8 ^ round).collect();
        let source = Source::Host(&bytes);
        writer.write(work.stream(), source, &Stamp::default(), &watchdog()).unwrap();
        let lease = reader.lease(&queue, OnFull::Copy, &watchdog()).unwrap();
        context.synchronize(&queue).unwrap();
        let mut found = vec![0; LONG];
        work.download(&mut found, lease.address()).unwrap();
        assert!(found == bytes, "round {round}");
    }
    stream.unlink().unwrap();
    drop((reader, writer, stream, queue, work));
    assert!(cuda_ipc::flush(Instant::now() + Duration::from_secs(60)));
}

/// From the device and from the host, copied and in place.
fn frames_can_be_longer_than_32_bits_say() -> Outcome {
    const LONG: u64 = (4 << 30) + 12_345;
    if !driver::is_device() {
        return Err(Skip("needs 26 GB of memory of a device".to_owned()));
    }
    let (context, scratch) = (context(), Scratch::new());
    let options = StreamOptions::new(shared_tensor::DType::U8, [LONG]).slots(4);
    let stream = options.namespace((*scratch).clone()).create_on(&context, "it").unwrap();
    let writer = stream.writer_on(&context, &watchdog()).unwrap();
    let mut reader = stream.reader_on(&context, ReaderOptions::default(), &watchdog()).unwrap();
    let queue = std::sync::Arc::new(context.stream().unwrap());
    let work = Copies::new(&context).unwrap();
    let chunks = [(); 2].map(|()| {
        let chunk = cuda_ipc::Chunk::create(context.device(), LONG).unwrap();
        cuda_ipc::Mapping::open(&context, &[&chunk], cuda_ipc::Access::ReadWrite).unwrap()
    });
    let [from, to] = [&chunks[0], &chunks[1]].map(cuda_ipc::Mapping::address);
    // What lies at the beginning, on both sides of what 32 bits say, and at the end.
    let places = [0, (1_u64 << 32) - 2048, LONG - 4096];
    let found = |address: u64| {
        places.map(|place| {
            let mut bytes = [0; 4096];
            work.download(&mut bytes, address + place).unwrap();
            bytes
        })
    };
    let stamp = Stamp::default();
    let host: Vec<u8> = (0..LONG).map(|at| (at / 4099) as u8).collect();
    for round in 1..=2_u8 {
        work.fill(from, round, LONG).unwrap();
        places.iter().zip([11, 12, 13]).for_each(|(place, value)| {
            work.fill(from + place, value + round, 4096).unwrap();
        });
        writer.write(work.stream(), Source::Device(from), &stamp, &watchdog()).unwrap();
        reader.latest_into(work.stream(), to, &watchdog()).unwrap();
        let wanted = [11, 12, 13].map(|value| [value + round; 4096]);
        assert!(found(to) == wanted, "round {round}");
        let lease = reader.lease(&queue, OnFull::Copy, &watchdog()).unwrap();
        context.synchronize(&queue).unwrap();
        assert!(!lease.is_copy() && found(lease.address()) == wanted, "round {round}, in place");
    }
    writer.write(work.stream(), Source::Host(&host), &stamp, &watchdog()).unwrap();
    reader.latest_into(work.stream(), to, &watchdog()).unwrap();
    let wanted = places.map(|place| &host[place as usize..][..4096]);
    assert!(found(to).iter().zip(wanted).all(|(found, wanted)| found == wanted), "of the host");
    stream.unlink().unwrap();
    drop((reader, writer, stream, queue, work, chunks));
    assert!(cuda_ipc::flush(Instant::now() + Duration::from_secs(60)));
    Ok(())
}

fn frames_in_memory_of_their_own_are_filled_again_at_once() {
    let mut ground = Ground::new(4);
    let mut frame = ground.writer.host_frame().unwrap();
    assert_eq!(frame.len(), BYTES);
    let queue = std::sync::Arc::new(ground.context.stream().unwrap());
    for value in 1..=20_u8 {
        frame.write_at(0, &[value; BYTES]).unwrap();
        let [work, _] = &ground.work;
        let (source, stamp) = (Source::Frame(&frame), Stamp::default());
        if value % 2 == 0 {
            ground.writer.write(work.stream(), source, &stamp, &watchdog()).unwrap();
        } else {
            let mut locked = ground.writer.lock_owned(&watchdog()).unwrap();
            locked.write_on(&ground.writer, &queue, source, &stamp).unwrap();
        }
        frame.write_at(0, &[99; BYTES]).unwrap();
        ground.read(1);
        assert_eq!(ground.found(1), [value; BYTES]);
    }
    assert_eq!(frame.write_at(BYTES, &[1]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    drop(frame);
    ground.end();
}

fn a_frame_that_is_given_up_is_nobodys() {
    let mut ground = Ground::new(3);
    ground.write(1);
    let [work, _] = &ground.work;
    let view = ground.writer.view(work.stream(), Contents::Fresh, &watchdog()).unwrap();
    work.fill(view.address(), 9, BYTES as u64).unwrap();
    assert_eq!((view.count(), view.len()), (2, BYTES));
    drop(view);
    assert_eq!(ground.read(1), 1);
    assert_eq!(ground.found(1), [1; BYTES]);
    assert_eq!(ground.write(2), 2);
    ground.read(1);
    assert_eq!(ground.found(1), [2; BYTES]);
    ground.end();
}

fn a_write_can_change_the_last_frame() {
    let mut ground = Ground::new(3);
    ground.write(5);
    for count in 2..10_u8 {
        let [work, _] = &ground.work;
        let view = ground.writer.view(work.stream(), Contents::Previous, &watchdog()).unwrap();
        work.fill(view.address() + u64::from(count), count, 1).unwrap();
        view.publish(&Stamp::default()).unwrap();
    }
    ground.read(1);
    let mut wanted = [5; BYTES];
    (2..10_u8).for_each(|count| wanted[usize::from(count)] = count);
    assert_eq!(ground.found(1), wanted);
    let [work, _] = &ground.work;
    ground.writer.clear(work.stream(), &Stamp::default(), &watchdog()).unwrap();
    ground.read(1);
    assert_eq!(ground.found(1), [0; BYTES]);
    ground.end();
}

/// The words of shared memory may be anything.
fn nobody_waits_for_uses_of_a_seat_that_nobody_has() {
    const SEATED: u64 = 4096 + 640;
    const LAST: u64 = 31;
    const USED: u64 = 409_600 + LAST * 2688 + 128;
    let mut ground = Ground::new(4);
    assert_eq!(ground.write(1), 1);
    let file = std::fs::OpenOptions::new().write(true).open(file(&ground.scratch)).unwrap();
    let put = |word: u64, at: u64| file.write_all_at(&word.to_ne_bytes(), at).unwrap();
    put(1 | 1 << LAST, SEATED);
    (0..4).for_each(|slot| put(5, USED + slot * 8));
    for value in 2..=9 {
        assert_eq!(ground.write(value), u64::from(value));
        ground.read(1);
        assert_eq!(ground.found(1), [value; BYTES]);
    }
    ground.end();
}

fn what_needs_the_file_says_where_the_frames_are() {
    let mut ground = Ground::new(3);
    ground.write(1);
    let device = ground.context.device().uuid();
    assert_eq!(ground.stream.device(), Some(device));
    for error in [
        ground.stream.writer().unwrap_err(),
        ground.stream.reader().latest().unwrap_err(),
        ground.stream.reader().lease(OnFull::Copy).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Device);
        assert!(error.to_string().contains(&device.to_string()), "{error}");
    }
    ground.end();
}

fn a_reader_stays_with_its_stream() {
    let ground = Ground::new(3);
    let options = ReaderOptions::new().reattach(true);
    let refused = ground.stream.reader_on(&ground.context, options, &watchdog()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains("reattach"), "{refused}");
    ground.end();
}

/// Also for those who have nothing of a GPU.
fn locks_are_for_everybody() {
    let mut ground = Ground::new(3);
    let elsewhere = OpenOptions::new().namespace((*ground.scratch).clone()).open("it").unwrap();
    let locked = elsewhere.lock_owned(&watchdog()).unwrap();
    let refused = ground.stream.lock_owned(&Wait::never()).unwrap_err();
    assert!(refused.is_timeout(), "{refused}");
    drop(locked);
    assert_eq!(ground.write(1), 1);
    let reading = OpenOptions::new().namespace((*ground.scratch).clone()).read_only(true);
    let refused = reading.open("it").unwrap().lock_owned(&watchdog()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    drop(elsewhere);
    ground.end();
}

fn whoever_comes_first_creates_it() {
    let (context, scratch) = (context(), Scratch::new());
    let first = options(&scratch).open_or_create_on(&context, "it").unwrap();
    let second = options(&scratch).open_or_create_on(&context, "it").unwrap();
    assert_eq!(first.generation(), second.generation());
    assert_eq!(second.device(), Some(context.device().uuid()));
    let other = StreamOptions::new(shared_tensor::DType::U8, [1]).namespace((*scratch).clone());
    let refused = other.open_or_create_on(&context, "it").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Changed);
    first.unlink().unwrap();
}
