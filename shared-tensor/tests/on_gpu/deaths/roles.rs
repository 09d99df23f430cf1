//! What the other processes do, told line by line. They end with their standard input, or are killed.

use std::env;
use std::io::{BufRead, Write};
use std::sync::Arc;

use cuda_ipc::{Access, Chunk, Context, Copies, DeviceWords, Mapping, Stream as Queue, Words};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use shared_tensor::stream::{
    Contents, GpuLease, GpuReader, GpuWriter, OnEmpty, OnFull, OpenOptions, ReaderOptions, Source,
    Stamp, Stream,
};

use super::numbers::{Found, Numbers};
use super::plan::{Plan, Random};
use crate::frames::context;
use crate::peer::namespace;
use crate::support::watchdog;

pub(crate) const ROLE: &str = "ST_ON_GPU_ROLE";

/// How many frames a reader may have queued before it reports.
pub(crate) const PLACES: u64 = 32;
/// Readers in one process of a soak.
pub(crate) const THREADS: u64 = 4;
/// After so many frames a writer that goes on and on waits for its device.
const AHEAD: u64 = 8;

/// Plays a role, if this process has one.
pub(crate) fn play() -> bool {
    let Ok(role) = env::var(ROLE) else { return false };
    let plan = Plan::read(env::args().skip(1));
    match role.as_str() {
        "writer" => Writing::new(plan).obey(),
        "reader" => Reading::new(plan).obey(),
        "readers" => read_by_threads(plan),
        other => panic!("there is no role {other}"),
    }
    true
}

/// Answers; whether somebody listens. Who is written for was killed, otherwise, and nobody ends this.
#[must_use]
fn answer(line: &str) -> bool {
    writeln!(std::io::stdout(), "{line}").is_ok()
}

fn commands() -> impl Iterator<Item = Vec<String>> {
    let lines = std::io::stdin().lock().lines();
    lines.map_while(Result::ok).map(|line| line.split(' ').map(str::to_owned).collect())
}

/// Whether there is a line that was not read.
fn is_told() -> bool {
    let input = std::io::stdin();
    let mut wanted = [PollFd::new(&input, PollFlags::IN)];
    poll(&mut wanted, Some(&Timespec::default())).expect("a pipe") > 0
}

/// Descriptors, and memory of the host in KiB.
fn belongings() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let resident = resident.and_then(|text| text.split_whitespace().next()).expect("a number");
    format!("{} {resident}", crate::harness::open_descriptors().len())
}

/// Memory of the device for so many frames.
struct Room {
    memory: Mapping,
    bytes: u64,
}

impl Room {
    fn new(context: &Context, frames: u64, bytes: u64) -> Self {
        let chunk = Chunk::create(context.device(), frames * bytes).expect("memory");
        let memory = Mapping::open(context, &[&chunk], Access::ReadWrite).expect("mapped");
        Self { memory, bytes }
    }

    fn at(&self, place: u64) -> u64 {
        self.memory.address() + place * self.bytes
    }

    /// What is at a place, when the stream has come to this.
    fn found(&self, context: &Context, queue: &Queue, place: u64) -> Found {
        let mut bytes = vec![0; usize::try_from(self.bytes).expect("64 bits")];
        context.download(queue, &mut bytes, self.at(place)).expect("copied");
        Found::of(&bytes)
    }
}

fn open() -> Stream {
    OpenOptions::new().namespace(namespace().expect("a peer")).open("it").expect("it is there")
}

/// How a device comes to a frame.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Free,
    /// Nothing of a burst begins before all of it is published.
    HeldBefore,
    /// Each frame is half done by then.
    HeldWithin,
}

struct Writing {
    plan: Plan,
    context: Context,
    work: Copies,
    numbers: Numbers,
    room: Room,
    held: Arc<DeviceWords>,
    holds: u64,
    writer: GpuWriter,
    last: u64,
}

impl Writing {
    fn new(plan: Plan) -> Self {
        let context = context();
        Self {
            plan,
            work: Copies::new(&context).expect("a stream"),
            numbers: Numbers::new(&context, plan.bytes),
            room: Room::new(&context, 1, plan.bytes),
            held: Words::create(1).expect("memory").attach(&context).expect("attached"),
            holds: 0,
            writer: open().writer_on(&context, &watchdog()).expect("a writer"),
            context,
            last: 0,
        }
    }

    fn obey(mut self) {
        let mut is_heard = answer("ready");
        let mut commands = commands();
        while is_heard && let Some(command) = commands.next() {
            let number = |at: usize| command[at].parse::<u64>().expect("a number");
            is_heard = match command[0].as_str() {
                "go" => self.go(number(1), None),
                "stick" => self.go(number(1), Some(number(2))),
                "write" => {
                    for _ in 0..number(1) {
                        self.write(Pace::Free, false);
                    }
                    answer(&self.last.to_string())
                }
                "run" => answer("runs") && self.run(),
                "done" => {
                    self.work.synchronize().expect("done");
                    answer("done")
                }
                "belongings" => answer(&belongings()),
                other => panic!("there is no word {other}"),
            };
        }
    }

    /// Publishes bursts of frames until it is killed, and tells each count; with `stuck` so many frames,
    /// of which the device never does the last ones. Gives whether somebody listens.
    fn go(&mut self, seed: u64, stuck: Option<u64>) -> bool {
        let mut random = Random::new(seed);
        let mut published = 0;
        loop {
            let mut burst = 1 + random.below(self.plan.ahead);
            let is_last = stuck.is_some_and(|frames| published + burst >= frames);
            if let Some(frames) = stuck.filter(|_| is_last) {
                burst = frames - published;
            }
            let pace = match random.below(3) {
                0 if !is_last => Pace::Free,
                1 => Pace::HeldBefore,
                _ => Pace::HeldWithin,
            };
            self.holds += 1;
            if pace == Pace::HeldBefore {
                self.hold();
            }
            for _ in 0..burst {
                self.write(pace, random.below(2) == 0);
                if !answer(&self.last.to_string()) {
                    return false;
                }
            }
            if is_last {
                return true;
            }
            published += burst;
            self.held.release(0, self.holds);
            self.work.synchronize().expect("done");
        }
    }

    fn hold(&self) {
        self.held.wait(self.work.stream(), 0, self.holds).expect("queued");
    }

    /// Publishes one frame, filled in its place or copied there.
    fn write(&mut self, pace: Pace, is_copied: bool) {
        let queue = self.work.stream();
        let view = self.writer.view(queue, Contents::Fresh, &watchdog()).expect("a slot");
        let (to, count) = (view.address(), view.count());
        if pace == Pace::HeldWithin {
            self.numbers.spoil(queue, to, count);
            self.held.wait(queue, 0, self.holds).expect("queued");
        }
        if is_copied {
            self.numbers.fill(queue, self.room.at(0), count);
            self.context.copy(queue, to, self.room.at(0), self.plan.bytes).expect("queued");
        } else {
            self.numbers.fill(queue, to, count);
        }
        self.last = view.publish(&Stamp::default()).expect("published");
    }

    /// Publishes from memory of its own until it is told something, and tells the last count.
    fn run(&mut self) -> bool {
        while !is_told() {
            for _ in 0..AHEAD {
                let queue = self.work.stream();
                self.numbers.fill(queue, self.room.at(0), self.last + 1);
                let source = Source::Device(self.room.at(0));
                let stamp = Stamp::default();
                self.last =
                    self.writer.write(queue, source, &stamp, &watchdog()).expect("published");
            }
            self.work.synchronize().expect("done");
        }
        answer(&self.last.to_string())
    }
}

struct Reading {
    context: Context,
    queue: Arc<Queue>,
    room: Room,
    held: Arc<DeviceWords>,
    reader: GpuReader,
    /// Never ended.
    kept: Vec<GpuLease>,
    /// The counts of what was queued, by place.
    looks: Vec<u64>,
}

impl Reading {
    fn new(plan: Plan) -> Self {
        let context = context();
        let options = ReaderOptions::new().on_empty(OnEmpty::Zeros);
        Self {
            queue: Arc::new(context.stream().expect("a stream")),
            room: Room::new(&context, PLACES, plan.bytes),
            held: Words::create(1).expect("memory").attach(&context).expect("attached"),
            reader: open().reader_on(&context, options, &watchdog()).expect("a reader"),
            kept: Vec::new(),
            looks: Vec::new(),
            context,
        }
    }

    fn obey(mut self) {
        let mut is_heard = answer("ready");
        let mut commands = commands();
        while is_heard && let Some(command) = commands.next() {
            is_heard = match command[0].as_str() {
                // Both are queued behind the others, and not waited for.
                "look" => {
                    let read = self.reader.latest_into(&self.queue, self.place(), &watchdog());
                    self.looks.push(read.expect("queued").count);
                    true
                }
                "lease" => {
                    let lease = self.lease();
                    let (to, bytes) = (self.place(), self.room.bytes);
                    self.context.copy(&self.queue, to, lease.address(), bytes).expect("queued");
                    self.looks.push(lease.publication().count);
                    true
                }
                "keep" => {
                    let lease = self.lease();
                    self.kept.push(lease);
                    true
                }
                "report" => answer(&self.report()),
                // What is queued from now on is never done.
                "hold" => {
                    self.held.wait(&self.queue, 0, 1).expect("queued");
                    true
                }
                "looked" => answer(&self.looks.len().to_string()),
                "belongings" => answer(&belongings()),
                other => panic!("there is no word {other}"),
            };
        }
    }

    /// Where the next look goes.
    fn place(&self) -> u64 {
        self.room.at(self.looks.len() as u64)
    }

    fn lease(&mut self) -> GpuLease {
        self.reader.lease(&self.queue, OnFull::Copy, &watchdog()).expect("queued")
    }

    /// What was found at the counts that were looked at: `COUNT:FOUND` each.
    fn report(&mut self) -> String {
        let counts = std::mem::take(&mut self.looks);
        let places = counts.iter().zip(0..).map(|(count, place)| {
            format!("{count}:{}", self.room.found(&self.context, &self.queue, place).encode())
        });
        places.collect::<Vec<_>>().join(" ")
    }
}

/// Several readers, each with a stream of its own, until it is told something: `FRAMES WRONG MISSED`.
fn read_by_threads(plan: Plan) {
    let context = context();
    let stream = open();
    let readers: Vec<_> = (0..THREADS)
        .map(|_| {
            let reader = stream.reader_on(&context, ReaderOptions::new(), &watchdog());
            (reader.expect("a reader"), context.stream().expect("a stream"))
        })
        .collect();
    let room = Room::new(&context, THREADS, plan.bytes);
    let mut is_heard = answer("ready");
    let mut readers = readers;
    let mut commands = commands();
    while is_heard && let Some(command) = commands.next() {
        is_heard = match command[0].as_str() {
            "run" if answer("runs") => {
                let found: Vec<[u64; 3]> = std::thread::scope(|scope| {
                    let started: Vec<_> = readers
                        .iter_mut()
                        .zip(0..)
                        .map(|((reader, queue), place)| {
                            let (room, context, queue) = (&room, &context, &*queue);
                            let found = move || room.found(context, queue, place);
                            scope.spawn(move || read_on(reader, queue, room.at(place), found))
                        })
                        .collect();
                    started.into_iter().map(|it| it.join().expect("it reads")).collect()
                });
                let sum = |at: usize| found.iter().map(|it| it[at]).sum::<u64>();
                answer(&format!("{} {} {}", sum(0), sum(1), sum(2)))
            }
            "run" => false,
            // This one ended the reading.
            "stop" => true,
            "belongings" => answer(&belongings()),
            other => panic!("there is no word {other}"),
        };
    }
}

/// Reads frames in order, one at least.
fn read_on(reader: &mut GpuReader, queue: &Queue, to: u64, found: impl Fn() -> Found) -> [u64; 3] {
    let [mut frames, mut wrong, missed] = [0, 0, reader.reader().missed_total()];
    loop {
        let read = reader.next_into(queue, to, &watchdog());
        let count = read.expect("the writer goes on").count;
        frames += 1;
        match found() {
            Found::Whole(number) => wrong += u64::from(number != count),
            Found::Torn(words) => wrong += words,
        }
        if is_told() {
            return [frames, wrong, reader.reader().missed_total() - missed];
        }
    }
}
