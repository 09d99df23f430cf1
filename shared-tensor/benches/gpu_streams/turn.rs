//! There and back between two processes.
//!
//! One turn: the first one writes a frame from its own memory of the device to one stream, waits until
//! the other has published the answer on a second stream, queues reading it into its own memory, and waits
//! for its device. The other waits until the frame is published, queues reading it into its own memory
//! and writing that as the answer. Both look for what is published; no call waits for a device but the one
//! at the end of a turn.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cuda_ipc::{Context, Stream as Queue, probe};
use shared_tensor::DType;
use shared_tensor::shm::Namespace;
use shared_tensor::stream::{
    GpuReader, GpuWriter, OpenOptions, ReaderOptions, Source, Spin, Stamp, Stream, StreamOptions,
    Wait,
};

use crate::calls::Calls;
use crate::figures::{Figures, Limit, PARTS};
use crate::{Plan, floor, name_of, patience, room};

const ROLE: &str = "ST_BENCH_ANSWERS";
const SAMPLES: usize = 300;
/// How much more than a program in C it may take.
const OF_FLOOR: f64 = 1.1;
const STREAMS: [&str; 2] = ["there", "back"];

fn row(plan: &Plan, bytes: usize) -> String {
    format!("two processes, there and back, {}{}", name_of(bytes), plan.ending())
}

/// Which floor is which, for whoever reads the rows.
pub(crate) const FLOORS: &str = "There and back, the floor is the way of the program in C that signals as streams do (`told`): a \
     CPU tells the other one at once, whose GPU waits for the frame's word. Beside it `spins`, where a \
     CPU looks at the word that a GPU writes, and `waits`, where a GPU's wait is queued before the frame \
     is published; neither counts.";

/// What the same takes in C: with the signals of streams, which is the floor, and with others.
pub(crate) fn floor(plan: &Plan, figures: &mut Figures, bytes: usize) {
    let said = floor::ask(&["turn", &bytes.to_string()], plan.samples(SAMPLES));
    let Some(said) = said else { return };
    let row = row(plan, bytes);
    figures.add_floor(&row, floor::median(&said, "told"));
    figures.add_parts_of_floor(&row, floor::parts(&said, "told"));
    for way in ["spins", "waits"] {
        figures.add_beside(&row, way, floor::median(&said, way));
    }
}

/// One side of it.
struct Side {
    queue: Queue,
    own: cuda_ipc::Mapping,
    writer: GpuWriter,
    reader: GpuReader,
    context: Context,
    /// One for all: to ask the clock takes long beside what is measured, and the floor does not.
    wait: Wait<'static>,
}

impl Side {
    fn new(context: &Context, to: &Stream, from: &Stream) -> Self {
        let options = ReaderOptions::new().spin(Spin::For(Duration::from_secs(1)));
        Self {
            queue: context.stream().expect("a stream"),
            own: room(context, to.info().frame_bytes),
            writer: to.writer_on(context, &patience()).expect("a writer"),
            reader: from.reader_on(context, options, &patience()).expect("a reader"),
            context: context.clone(),
            wait: patience(),
        }
    }

    fn write(&mut self) {
        let source = Source::Device(self.own.address());
        self.writer.write(&self.queue, source, &Stamp::default(), &self.wait).expect("published");
    }

    /// Waits for the frame after one.
    fn wait(&mut self, count: u64) {
        self.reader.reader().wait(count, &self.wait).expect("published");
    }

    /// Queues reading the newest one. Gives its count.
    fn read(&mut self) -> u64 {
        let read = self.reader.latest_into(&self.queue, self.own.address(), &self.wait);
        read.expect("queued").count
    }

    fn finish(&self) {
        self.context.synchronize(&self.queue).expect("done");
    }
}

fn micros(from: Instant, to: Instant) -> f64 {
    (to - from).as_secs_f64() * 1e6
}

pub(crate) fn measure(plan: &Plan, context: &Context, figures: &mut Figures, bytes: usize) {
    let prefix = format!("st-bench.{}.", std::process::id());
    let namespace = Namespace::new("/dev/shm", &prefix).expect("a prefix");
    let options = StreamOptions::new(DType::U8, [bytes as u64]).namespace(namespace);
    let streams = STREAMS.map(|name| options.create_on(context, name).expect("a stream"));
    let mut other = Other::start(&prefix);
    let mut side = Side::new(context, &streams[0], &streams[1]);
    let samples = plan.samples(SAMPLES);
    let warm = samples / 10 + 1;
    let mut took = Vec::with_capacity(samples);
    let mut parts = [const { Vec::new() }; PARTS];
    let mut count = 0;
    let mut before = Calls::now();
    for sample in 0..warm + samples {
        if sample == warm {
            before = Calls::now();
        }
        let begun = Instant::now();
        side.write();
        let written = Instant::now();
        side.wait(count);
        let told = Instant::now();
        count = side.read();
        let queued = Instant::now();
        side.finish();
        let done = Instant::now();
        if sample >= warm {
            took.push(micros(begun, done));
            let ends = [begun, written, told, queued, done];
            for (part, ends) in parts.iter_mut().zip(ends.windows(2)) {
                part.push(micros(ends[0], ends[1]));
            }
        }
    }
    let calls = Calls::now().since(&before);
    other.end();
    figures.add(&row(plan, bytes), Limit::OfFloor(OF_FLOOR), took, &calls);
    figures.add_parts(&row(plan, bytes), parts);
    for stream in &streams {
        stream.unlink().expect("unlinked");
    }
    drop((side, streams));
}

/// The other process.
struct Other(Child);

impl Other {
    fn start(prefix: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("a program"))
            .env(ROLE, prefix)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let output = process.stdout.as_mut().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("it says so");
        assert_eq!(line, "ready\n");
        Self(process)
    }

    /// It ends when the streams say so.
    fn end(&mut self) {
        drop(self.0.stdin.take());
        self.0.kill().expect("killed");
        self.0.wait().expect("it ends");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Plays the other process, if this is one, until it is killed.
pub(crate) fn play() -> bool {
    let Ok(prefix) = std::env::var(ROLE) else { return false };
    let namespace = Namespace::new("/dev/shm", &prefix).expect("a prefix");
    let context = probe().expect("a driver").device_at(0).expect("one").context().expect("one");
    let options = OpenOptions::new().namespace(namespace);
    let streams = STREAMS.map(|name| options.open(name).expect("a stream"));
    let mut side = Side::new(&context, &streams[1], &streams[0]);
    writeln!(std::io::stdout(), "ready").expect("somebody listens");
    let mut count = 0;
    // Whoever started this ends with it; nobody asks after its death, and a wait is over.
    while side.reader.reader().wait(count, &patience()).is_ok() {
        count = side.read();
        side.write();
    }
    true
}
