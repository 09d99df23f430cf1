//! A write and a read in one process, on one stream of the device.

use std::time::Instant;

use cuda_ipc::{Context, Stream as Queue, Words};
use shared_tensor::DType;
use shared_tensor::shm::Namespace;
use shared_tensor::stream::{
    GpuReader, GpuWriter, ReaderOptions, Source, Stamp, Stream, StreamOptions, Wait,
};

use crate::calls::Calls;
use crate::figures::{Figures, Limit};
use crate::{KB, MB, Plan, floor, name_of, patience, room};

/// Batches, each of which is queued before its end is waited for: as the floor does.
const BATCHES: usize = 40;
const AHEAD: usize = 64;
/// Of frames of more than 64 MB.
pub(crate) const FEW: (usize, usize) = (10, 4);
pub(crate) const SLOTS: usize = 4;
/// How many calls are queued while the stream is held up: fewer than a device's queue takes.
const HELD: usize = 200;
/// What the CPU may take for a write, in microseconds.
const WRITE_MAX: f64 = 8.0;
/// What large frames may take beside copies alone: nine tenths of their bandwidth.
pub(crate) const OF_COPIES: f64 = 1.0 / 0.9;

struct Ground {
    queue: Queue,
    own: [cuda_ipc::Mapping; 2],
    stream: Stream,
    writer: GpuWriter,
    reader: GpuReader,
    context: Context,
    wait: Wait<'static>,
}

impl Ground {
    fn new(context: &Context, bytes: usize) -> Self {
        let prefix = format!("st-bench.{}.", std::process::id());
        let namespace = Namespace::new("/dev/shm", &prefix).expect("a prefix");
        let options = StreamOptions::new(DType::U8, [bytes as u64]).slots(SLOTS);
        let stream = options.namespace(namespace).create_on(context, "pair").expect("a stream");
        Self {
            queue: context.stream().expect("a stream"),
            own: [room(context, bytes), room(context, bytes)],
            writer: stream.writer_on(context, &patience()).expect("a writer"),
            reader: stream.reader_on(context, ReaderOptions::new(), &patience()).expect("a reader"),
            stream,
            context: context.clone(),
            wait: patience(),
        }
    }

    fn write(&mut self, source: Source<'_>) {
        self.writer.write(&self.queue, source, &Stamp::default(), &self.wait).expect("published");
    }

    fn read(&mut self) {
        let to = self.own[1].address();
        self.reader.latest_into(&self.queue, to, &self.wait).expect("queued");
    }

    fn finish(&self) {
        self.context.synchronize(&self.queue).expect("done");
    }

    fn sustained(
        &mut self,
        batches: (usize, usize),
        once: impl FnMut(&mut Self),
    ) -> (Vec<f64>, Calls) {
        sustained(self, batches, once, Self::finish)
    }

    fn end(self) {
        self.stream.unlink().expect("unlinked");
        drop(self);
        let soon = Instant::now() + std::time::Duration::from_secs(30);
        assert!(cuda_ipc::flush(soon), "what was mapped can be unmapped");
    }
}

/// Times batches of something, each one's share of its batch.
pub(crate) fn sustained<T>(
    it: &mut T,
    (batches, ahead): (usize, usize),
    mut once: impl FnMut(&mut T),
    finish: impl Fn(&T),
) -> (Vec<f64>, Calls) {
    let mut took = Vec::with_capacity(batches);
    let mut before = Calls::now();
    for batch in 0..=batches {
        if batch == 1 {
            before = Calls::now();
        }
        let begun = Instant::now();
        for _ in 0..ahead {
            once(it);
        }
        finish(it);
        if batch > 0 {
            #[expect(clippy::cast_precision_loss, reason = "a small number")]
            took.push(begun.elapsed().as_secs_f64() * 1e6 / ahead as f64);
        }
    }
    (took, Calls::now().since(&before))
}

fn batches(plan: &Plan, bytes: usize) -> (usize, usize) {
    if bytes > 64 * MB { FEW } else { (plan.samples(BATCHES), AHEAD) }
}

pub(crate) fn measure(plan: &Plan, context: &Context, figures: &mut Figures, bytes: usize) {
    let name = format!("one process, write and read, {}{}", name_of(bytes), plan.ending());
    let batches = batches(plan, bytes);
    let mut ground = Ground::new(context, bytes);
    let (took, calls) = ground.sustained(batches, |ground| {
        let from = ground.own[0].address();
        ground.write(Source::Device(from));
        ground.read();
    });
    ground.end();
    let said = floor::ask(&["pair", &bytes.to_string()], batches.0);
    // Of the same with copies alone, where those are what takes the time.
    let is_large = bytes > 64 * MB;
    let limit = if is_large { Limit::OfFloor(OF_COPIES) } else { Limit::None };
    figures.add(&name, limit, took, &calls);
    if let Some(said) = said {
        figures.add_floor(&name, floor::median(&said, if is_large { "copies" } else { "pair" }));
    }
}

/// From memory of the host: ordinary, and registered.
pub(crate) fn of_host(plan: &Plan, context: &Context, figures: &mut Figures, bytes: usize) {
    let batches = batches(plan, bytes);
    let mut ground = Ground::new(context, bytes);
    let ordinary = vec![1; bytes];
    let mut registered = ground.writer.host_frame().expect("memory");
    registered.write_at(0, &ordinary).expect("it fits");
    let name = |what: &str| format!("one process, write and read, {} of {what}", name_of(bytes));
    let names = [name("the host"), name("a host frame")];
    let (took, calls) = ground.sustained(batches, |ground| {
        ground.write(Source::Host(&ordinary));
        ground.read();
    });
    figures.add(&names[0], Limit::None, took, &calls);
    let (took, calls) = ground.sustained(batches, |ground| {
        ground.write(Source::Frame(&registered));
        ground.read();
    });
    figures.add(&names[1], Limit::None, took, &calls);
    drop(registered);
    ground.end();
    if let Some(said) = floor::ask(&["host", &bytes.to_string()], batches.0) {
        figures.add_floor(&names[0], floor::median(&said, "pageable"));
        figures.add_floor(&names[1], floor::median(&said, "registered"));
    }
}

/// What calls take of the CPU, while the device does not come to any of them.
pub(crate) fn of_calls(plan: &Plan, context: &Context, figures: &mut Figures) {
    let bytes = 40 * KB;
    let words = Words::create(1).expect("memory").attach(context).expect("attached");
    let mut ground = Ground::new(context, bytes);
    let from = ground.own[0].address();
    let names = ["a write, of the CPU", "a read, of the CPU"];
    let mut found = [Vec::new(), Vec::new()];
    let mut called = [Calls::default(), Calls::default()];
    for hold in 1..=plan.samples(BATCHES) as u64 {
        // So that something is there to read.
        ground.write(Source::Device(from));
        ground.finish();
        words.wait(&ground.queue, 0, hold).expect("queued");
        let which = usize::from(hold % 2 == 0);
        let before = Calls::now();
        for _ in 0..HELD {
            let begun = Instant::now();
            if which == 0 {
                ground.write(Source::Device(from));
            } else {
                ground.read();
            }
            found[which].push(begun.elapsed().as_secs_f64() * 1e6);
        }
        called[which].add(&Calls::now().since(&before));
        assert!(!context.is_idle(&ground.queue).expect("an answer"), "it was held up");
        words.release(0, hold);
        ground.finish();
    }
    ground.end();
    let limits = [Limit::AtMost(WRITE_MAX), Limit::None];
    for ((name, samples), (limit, calls)) in names.iter().zip(found).zip(limits.iter().zip(&called))
    {
        let waits = ["cuStreamSynchronize", "cuEventSynchronize"].map(|it| calls.of(it));
        assert_eq!(waits, [0, 0], "{name} waits for the device");
        figures.add(name, *limit, samples, calls);
    }
    if let Some(said) = floor::ask(&["enqueue"], 2 * HELD) {
        // A copy, and the word that says that it is complete.
        figures.add_floor(names[0], floor::median(&said, "copy") + floor::median(&said, "write"));
        let all = ["wait", "copy", "write"].map(|it| floor::median(&said, it));
        figures.add_floor(names[1], all.iter().sum());
    }
}
