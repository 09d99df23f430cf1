//! Other processes: this program once more, told what to do line by line.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;

use cuda_ipc::{Context, Copies, DeviceWords, Rooms};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, setrlimit};
use shared_tensor::DType;
use shared_tensor::shm::Namespace;
use shared_tensor::stream::{
    Contents, GpuReader, GpuWriter, OpenOptions, OwnedLocked, ReaderOptions, Source, Stamp, Stream,
    StreamOptions,
};

use crate::deaths::ROLE;
use crate::doom::Doom;
use crate::frames::{BYTES, Beside, context};
use crate::harness::say;
use crate::plain;
use crate::support::watchdog;

const PREFIX: &str = "ST_ON_GPU_PREFIX";
/// Set for one without CUDA.
const PLAIN: &str = "ST_ON_GPU_PLAIN";

/// Another process; killed when it is dropped.
pub(crate) struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    /// One that works in a namespace.
    pub(crate) fn start(namespace: &Namespace) -> Self {
        Self::with(namespace, |it| it)
    }

    /// One without CUDA, which has opened the stream.
    pub(crate) fn start_plain(namespace: &Namespace) -> Self {
        let mut peer = Self::with(namespace, |it| it.env(PLAIN, "1"));
        assert_eq!(peer.ask("open"), "opened");
        peer
    }

    /// One that sees these GPUs alone.
    pub(crate) fn start_seeing(namespace: &Namespace, devices: &str) -> Self {
        Self::with(namespace, |it| it.env("CUDA_VISIBLE_DEVICES", devices))
    }

    /// One whose driver for tests is told something.
    pub(crate) fn start_on_driver(namespace: &Namespace, what: &str, how: &str) -> Self {
        Self::with(namespace, |it| it.env(what, how))
    }

    /// One that plays a role of `deaths`.
    pub(crate) fn start_as(namespace: &Namespace, role: &str, arguments: &[String]) -> Self {
        Self::with(namespace, |it| it.env(ROLE, role).args(arguments))
    }

    fn with(namespace: &Namespace, how: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let mut process = how(&mut Command::new(env::current_exe().unwrap()))
            .env(PREFIX, namespace.prefix())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Self { process, input, output: BufReader::new(output) }
    }

    /// Has it do something, and gives what it answers.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    pub(crate) fn hear(&mut self) -> String {
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        answer.trim_end().to_owned()
    }

    /// Whether it is still there when somebody who does not wait for anything would not be.
    pub(crate) fn stays(&mut self) -> bool {
        let pidfd = pidfd_open(Pid::from_child(&self.process), PidfdFlags::empty()).unwrap();
        let patience = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience)).unwrap() == 0
    }

    /// Whether it says nothing in a time in which somebody who waits for nothing would.
    pub(crate) fn is_silent(&mut self) -> bool {
        let patience = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
        let mut heard = [PollFd::new(self.output.get_ref(), PollFlags::IN)];
        poll(&mut heard, Some(&patience)).unwrap() == 0
    }

    /// How it ends of its own accord.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The namespace that a peer was started with.
pub(crate) fn namespace() -> Option<Namespace> {
    let prefix = env::var(PREFIX).ok()?;
    Some(Namespace::new("/dev/shm", &prefix).unwrap())
}

/// Plays a peer, if this process is one.
pub(crate) fn play() -> bool {
    let Some(namespace) = namespace() else { return false };
    if env::var_os(PLAIN).is_some() {
        plain::play(&namespace);
        return true;
    }
    let context = context();
    let work = Copies::new(&context).unwrap();
    let beside = Beside::new(&context);
    let words = cuda_ipc::Words::create(1).unwrap().attach(&context).unwrap();
    let mut stream: Option<Stream> = None;
    let mut writer: Option<GpuWriter> = None;
    let mut reader: Option<GpuReader> = None;
    let mut spread: Vec<Copies> = Vec::new();
    let mut locked: Vec<OwnedLocked> = Vec::new();
    let mut doom: Option<Doom> = None;
    let mut far = Far::default();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (verb, value) = line.split_once(' ').unwrap_or((&line, ""));
        let number = || value.parse::<u8>().unwrap();
        let answer = match verb {
            "create" | "mirror" | "unshare" => {
                stream = Some(create(&namespace, &context, number().into(), verb));
                "created".to_owned()
            }
            "open" => open(&namespace, &mut stream),
            // What is queued from now on waits for this word.
            "hold" => {
                words.wait(work.stream(), 0, 1).unwrap();
                "held".to_owned()
            }
            "write" => {
                let to = stream.as_ref().unwrap();
                let writer =
                    writer.get_or_insert_with(|| to.writer_on(&context, &watchdog()).unwrap());
                write(writer, &work, &beside, number()).to_string()
            }
            "lock" => {
                locked.push(stream.as_ref().unwrap().lock_owned(&watchdog()).unwrap());
                "locked".to_owned()
            }
            "unlock" => {
                locked.clear();
                "unlocked".to_owned()
            }
            "begin" => begin_and_give_up(stream.as_ref().unwrap(), &context, &work),
            "claim" => claim(stream.as_ref().unwrap(), &context, &work),
            "flood" => flood(stream.as_ref().unwrap(), &context, &work),
            "spread" => {
                let from = stream.as_ref().unwrap();
                spread.extend(spread_out(from, &context, &beside, number().into()));
                "spread".to_owned()
            }
            "gather" => {
                spread.drain(..).for_each(|work| work.synchronize().unwrap());
                "gathered".to_owned()
            }
            // The stream, its writer and its reader, whatever they have queued.
            "close" => {
                drop((writer.take(), reader.take(), stream.take()));
                "closed".to_owned()
            }
            "leave" => break,
            // What was held goes on.
            "go" => {
                words.release(0, 1);
                work.synchronize().unwrap();
                "gone".to_owned()
            }
            "found" => found(&work, &beside),
            "starve" | "feed" => starve(verb == "starve"),
            "prepare" | "lose" => Doom::told(&mut doom, &context),
            "phase" => format!("{:?}", stream.as_ref().unwrap().phase()),
            // Of what was held, or of what the dead owe.
            "done" => {
                work.synchronize().unwrap();
                "done".to_owned()
            }
            "read" | "queue" => {
                let from = stream.as_ref().unwrap();
                let opened = from.reader_on(&context, ReaderOptions::default(), &watchdog());
                let read = opened.and_then(|opened| {
                    let reader = reader.get_or_insert(opened);
                    reader.latest_into(work.stream(), beside.at(1), &watchdog())
                });
                match read {
                    Ok(read) if verb == "queue" => read.count.to_string(),
                    Ok(_) => found(&work, &beside),
                    Err(error) => format!("{:?}", error.kind()),
                }
            }
            "beyond" => far.go(stream.as_ref(), (writer.take(), reader.take()), number()),
            "return" => far.come_back(),
            _ => format!("what is {verb}?"),
        };
        say(&answer);
    }
    // What is queued may still read it.
    std::mem::forget(beside);
    true
}

fn open(namespace: &Namespace, stream: &mut Option<Stream>) -> String {
    match OpenOptions::new().namespace(namespace.clone()).open("it") {
        Ok(opened) => {
            *stream = Some(opened);
            "opened".to_owned()
        }
        Err(error) => format!("{:?}", error.kind()),
    }
}

fn create(namespace: &Namespace, context: &Context, slots: usize, verb: &str) -> Stream {
    let options = StreamOptions::new(DType::U8, [BYTES as u64]).slots(slots);
    let options = options.mirror(verb == "mirror").frames_in_file(verb == "unshare");
    options.namespace(namespace.clone()).create_on(context, "it").unwrap()
}

/// Publishes a frame of one value.
fn write(writer: &GpuWriter, work: &Copies, beside: &Beside, value: u8) -> u64 {
    work.fill(beside.at(0), value, BYTES as u64).unwrap();
    let source = Source::Device(beside.at(0));
    writer.write(work.stream(), source, &Stamp::default(), &watchdog()).unwrap()
}

/// What a peer does with the second device.
#[derive(Default)]
struct Far(Option<(GpuWriter, Copies, Beside, Arc<DeviceWords>)>);

impl Far {
    /// Nothing of the first device any more, and a frame by the second one, which has not begun it.
    fn go<T>(&mut self, stream: Option<&Stream>, first: T, value: u8) -> String {
        drop(first);
        let stream = stream.unwrap();
        let context = cuda_ipc::probe().unwrap().device_at(1).unwrap().context().unwrap();
        let words = cuda_ipc::Words::create(1).unwrap().attach(&context).unwrap();
        let (work, beside) = (Copies::new(&context).unwrap(), Beside::new(&context));
        let writer = stream.writer_on(&context, &watchdog()).unwrap();
        words.wait(work.stream(), 0, 1).unwrap();
        let count = write(&writer, &work, &beside, value);
        self.0 = Some((writer, work, beside, words));
        count.to_string()
    }

    /// What it has not begun goes on.
    fn come_back(&self) -> String {
        let Some((_, work, _, words)) = &self.0 else { return "from nowhere".to_owned() };
        words.release(0, 1);
        work.synchronize().unwrap();
        "returned".to_owned()
    }
}

/// Leaves this process no memory for another thread's stack, or as much as it wants.
fn starve(is_starved: bool) -> String {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let rest = pages * rustix::param::page_size() as u64 + (1 << 20);
    let current = is_starved.then_some(rest);
    setrlimit(Resource::As, Rlimit { current, maximum: None }).unwrap();
    if is_starved { "starved" } else { "fed" }.to_owned()
}

/// Says the count of a frame that is not published.
fn begin_and_give_up(stream: &Stream, context: &Context, work: &Copies) -> String {
    let mut writer = stream.writer_on(context, &watchdog()).unwrap();
    let view = writer.view(work.stream(), Contents::Fresh, &watchdog()).unwrap();
    say(&view.count().to_string());
    drop(view);
    "given up".to_owned()
}

/// Claims a slot and has it until this process is killed.
fn claim(stream: &Stream, context: &Context, work: &Copies) -> ! {
    let mut writer = stream.writer_on(context, &watchdog()).unwrap();
    let view = writer.view(work.stream(), Contents::Fresh, &watchdog()).unwrap();
    say(&view.count().to_string());
    loop {
        std::thread::park();
    }
}

/// Writes frames of one value each until this process is killed.
fn flood(stream: &Stream, context: &Context, work: &Copies) -> ! {
    let writer = stream.writer_on(context, &watchdog()).unwrap();
    let bytes = stream.frame_bytes() as u64;
    let from = Rooms::new(context, bytes).take().unwrap();
    say("flooding");
    for value in (1..=255).cycle() {
        work.fill(from.address(), value, bytes).unwrap();
        let (source, stamp) = (Source::Device(from.address()), Stamp::default());
        writer.write(work.stream(), source, &stamp, &watchdog()).unwrap();
    }
    unreachable!("it has no end")
}

/// Reads the newest frame in so many streams.
fn spread_out(stream: &Stream, context: &Context, beside: &Beside, streams: u64) -> Vec<Copies> {
    let options = ReaderOptions::default();
    let mut reader = stream.reader_on(context, options, &watchdog()).unwrap();
    let read = |place| {
        let work = Copies::new(context).unwrap();
        reader.latest_into(work.stream(), beside.at(place), &watchdog()).unwrap();
        work
    };
    (2..2 + streams).map(read).collect()
}

/// What was read last.
fn found(work: &Copies, beside: &Beside) -> String {
    let mut found = vec![0; BYTES];
    work.download(&mut found, beside.at(1)).unwrap();
    let same = found.iter().all(|byte| *byte == found[0]);
    if same { found[0].to_string() } else { "torn".to_owned() }
}
