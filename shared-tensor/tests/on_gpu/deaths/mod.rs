//! Deaths among streams on a GPU, many of them, and a long life.
//!
//! Sizes and counts are arguments, `--kills=N` and the like; without them they are small. Frames tell
//! their number in every word; what devices have read is compared on the host.

mod counts;
mod numbers;
mod plan;
mod roles;

use std::collections::BTreeSet;
use std::time::Instant;

use shared_tensor::DType;
use shared_tensor::stream::{Stream, StreamOptions};

use crate::frames::context;
use crate::harness::{say, tests};
use crate::peer::Peer;
use crate::support::Scratch;
use counts::Counts;
use numbers::Found;
use plan::{Plan, Random};
pub(crate) use roles::{ROLE, play};

tests![writers_die, writers_die_far_ahead, readers_die, nothing_grows];

/// Free memory of a device differs by less between two looks with the same things on it.
const NOISE_BYTES: i64 = 32 << 20;
/// What the allocators of the processes keep for later differs by less.
const KEPT_BYTES: i64 = 16 << 20;
/// A writer is killed after at most so many frames.
const FRAMES_MAX: u64 = 8;

/// A stream that this process has, and keeps for the others.
struct Ground {
    plan: Plan,
    random: Random,
    scratch: Scratch,
    stream: Stream,
    free: i64,
    counts: Counts,
}

impl Ground {
    fn new() -> Self {
        Self::with(Plan::read(std::env::args().skip(1)))
    }

    fn with(plan: Plan) -> Self {
        let (scratch, context) = (Scratch::new(), context());
        let shape = [plan.bytes / 8];
        let options = StreamOptions::new(DType::U64, shape).slots(plan.slots);
        let stream = options.namespace((*scratch).clone()).create_on(&context, "it").unwrap();
        Self {
            plan,
            random: Random::new(plan.seed),
            scratch,
            stream,
            free: free_bytes(),
            counts: Counts::default(),
        }
    }

    fn start(&self, role: &str) -> Peer {
        Peer::start_as(&self.scratch, role, &self.plan.arguments())
    }

    /// Several, which make their contexts at the same time.
    fn start_all(&self, role: &str, count: usize) -> Vec<Peer> {
        let mut peers: Vec<Peer> = (0..count).map(|_| self.start(role)).collect();
        for peer in &mut peers {
            assert_eq!(peer.hear(), "ready");
        }
        peers
    }

    /// What a reader found, as it was told to look.
    fn reports(&mut self, readers: &mut [Peer]) -> Vec<(u64, Found)> {
        let mut found = Vec::new();
        for reader in &mut *readers {
            reader.tell("report");
        }
        for reader in readers {
            found.extend(reader.hear().split_whitespace().map(|text| {
                let (count, frame) = text.split_once(':').expect("a frame");
                (count.parse().expect("a number"), Found::decode(frame))
            }));
        }
        self.counts.read += found.len() as u64;
        for (count, frame) in &found {
            if let Found::Torn(words) = frame {
                say(&format!("frame {count}: {words} words are another frame's"));
                self.counts.wrong_words += words;
            }
        }
        found
    }

    fn end(mut self, name: &str) {
        self.counts.published = self.stream.count();
        self.counts.missing_bytes = self.free - free_bytes();
        self.counts.note(name, &self.plan);
        let counts = self.counts;
        assert_eq!(counts.wrong_words, 0, "{counts:?}");
        assert!(counts.read > 0, "nobody read: {counts:?}");
        assert_eq!(counts.leaked_descriptors, 0, "{counts:?}");
        assert!(counts.missing_bytes.abs() <= NOISE_BYTES, "{counts:?}");
        assert!(counts.grown_bytes <= KEPT_BYTES, "{counts:?}");
        self.stream.unlink().unwrap();
        drop(self.stream);
        assert!(cuda_ipc::flush(Instant::now() + std::time::Duration::from_secs(60)));
        drop(self.scratch);
    }
}

/// Of the device, as this process sees it.
fn free_bytes() -> i64 {
    i64::try_from(crate::sys::free_bytes(&context())).unwrap()
}

/// Writers are killed with frames queued and partly done. What readers get is whole, and is the frame
/// that they asked for, or the last whole one before it.
fn writers_die() {
    let ground = Ground::new();
    kill_writers(ground, "deaths::writers_die");
}

/// The same with writers that go round the ring several times before their devices begin: they claim slots
/// whose frames are not complete, and are killed with that.
fn writers_die_far_ahead() {
    let plan = Plan::read(std::env::args().skip(1));
    let ahead = plan.ahead.max(3 * plan.slots as u64);
    for seed in plan.seed..plan.seed + 3 {
        let ground = Ground::with(Plan { ahead, seed, ..plan });
        kill_writers(ground, "deaths::writers_die_far_ahead");
    }
}

fn kill_writers(mut ground: Ground, name: &str) {
    let mut readers = ground.start_all("reader", ground.plan.readers);
    let mut checked = Checked::default();
    while ground.counts.kills < ground.plan.kills {
        let left = ground.plan.kills - ground.counts.kills;
        for mut writer in ground.start_all("writer", ground.plan.at_once.min(left)) {
            let frames = 1 + ground.random.below(FRAMES_MAX);
            let seed = ground.random.below(u64::MAX);
            // At least one of them, whatever the random numbers are, leaves work undone.
            let is_stuck = ground.counts.kills == 0 || ground.random.below(2) == 0;
            let told =
                if is_stuck { format!("stick {seed} {frames}") } else { format!("go {seed}") };
            writer.tell(&told);
            for _ in 0..frames {
                let count: u64 = writer.hear().parse().unwrap();
                assert!(count > checked.last, "counts go up");
                checked.last = count;
                // They queue it, while the writer goes on, by copies and in place.
                for reader in &mut readers {
                    reader.tell(["look", "lease"][usize::from(ground.random.below(2) == 0)]);
                }
            }
            writer.kill();
            ground.counts.kills += 1;
            for (count, frame) in ground.reports(&mut readers) {
                checked.add(count, frame);
            }
        }
    }
    ground.counts.mended = checked.finish(ground.plan.never_claims_incomplete());
    drop(readers);
    ground.end(name);
}

/// What all readers found.
#[derive(Default)]
struct Checked {
    /// The last count that a writer told.
    last: u64,
    /// Frames that somebody found as they were written.
    whole: BTreeSet<u64>,
    /// Where somebody found an earlier frame: its number and that of the lost one.
    lost: BTreeSet<(u64, u64)>,
}

impl Checked {
    fn add(&mut self, count: u64, frame: Found) {
        match frame {
            Found::Whole(number) if number == count => drop(self.whole.insert(count)),
            Found::Whole(number) => {
                assert!(number < count, "frame {count} is said to be {number}, which came later");
                self.lost.insert((number, count));
            }
            // Counted already.
            Found::Torn(_) => {}
        }
    }

    /// How many frames were lost, each of which was one whole frame before it to everybody: the last one that
    /// the ring has. Where no slot is claimed before its frame is complete, that is the last one of all.
    fn finish(self, is_last: bool) -> u64 {
        for (number, count) in self.lost.iter().filter(|_| is_last) {
            let later = self.whole.range(number + 1..=*count).next();
            assert_eq!(later, None, "frame {count} is said to be {number}, with a later one whole");
        }
        let counts: BTreeSet<u64> = self.lost.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts.len(), self.lost.len(), "all find the same: {:?}", self.lost);
        assert!(!counts.is_empty(), "no device was stopped in its work");
        counts.len() as u64
    }
}

/// Readers are killed while they open, with work queued that is never done, and with frames in place.
/// The writer goes on, and who lives reads what is written.
fn readers_die() {
    let mut ground = Ground::new();
    let mut writer = ground.start_all("writer", 1).remove(0);
    let mut witness = ground.start_all("reader", 1);
    let more = 2 * ground.plan.slots;
    let mut before = None;
    while ground.counts.kills < ground.plan.kills {
        let now = ground.plan.at_once.min(ground.plan.kills - ground.counts.kills);
        let mut readers: Vec<Peer> = (0..now).map(|_| ground.start("reader")).collect();
        // Every third is killed while it begins.
        for reader in
            readers.iter_mut().enumerate().filter_map(|(at, it)| (at % 3 > 0).then_some(it))
        {
            assert_eq!(reader.hear(), "ready");
            reader.tell("hold");
            reader.tell("keep");
        }
        for _ in 0..ground.plan.slots {
            writer.ask("write 1");
            for (at, reader) in readers.iter_mut().enumerate() {
                reader.tell(["look", "lease"][at % 2]);
            }
        }
        for reader in readers.iter_mut().skip(2).step_by(3) {
            assert_eq!(reader.ask("looked"), ground.plan.slots.to_string());
        }
        // Behind the uses of those who are held up.
        writer.ask(&format!("write {more}"));
        witness[0].tell("look");
        writer.tell("done");
        readers.iter_mut().for_each(Peer::kill);
        ground.counts.kills += now;
        assert_eq!(writer.hear(), "done");
        witness[0].tell("lease");
        for (count, frame) in ground.reports(&mut witness) {
            assert!(frame == Found::Whole(count) || matches!(frame, Found::Torn(_)), "{frame:?}");
        }
        // The first deaths start the thread that looks after debts, and what comes with it.
        let now = [Has::now(&mut writer), Has::now(&mut witness[0])];
        ground.counts.compare(before.get_or_insert(now), &now);
    }
    drop((writer, witness));
    ground.end("deaths::readers_die");
}

/// What a process has.
#[derive(Clone, Copy, Debug)]
struct Has {
    descriptors: i64,
    bytes: i64,
}

impl Has {
    fn now(peer: &mut Peer) -> Self {
        let [descriptors, kibibytes] = numbers_of(&peer.ask("belongings"))[..] else {
            panic!("it says both");
        };
        Self { descriptors, bytes: kibibytes * 1024 }
    }
}

fn numbers_of(line: &str) -> Vec<i64> {
    line.split(' ').map(|text| text.parse().expect("a number")).collect()
}

/// One writer and the readers of several processes go on and on, and nothing is more afterwards.
fn nothing_grows() {
    let mut ground = Ground::new();
    let mut writer = ground.start_all("writer", 1).remove(0);
    let mut readers = ground.start_all("readers", ground.plan.readers);
    // A first while, after which everything is there that is made when it is needed.
    let durations = [ground.plan.duration() / 10, ground.plan.duration()];
    let [before, after] = durations.map(|duration| {
        for peer in std::iter::once(&mut writer).chain(&mut readers) {
            assert_eq!(peer.ask("run"), "runs");
        }
        std::thread::sleep(duration);
        for reader in &mut readers {
            reader.tell("stop");
            let [read, wrong, _] = numbers_of(&reader.hear())[..] else { panic!("it says all") };
            ground.counts.read += u64::try_from(read).unwrap();
            ground.counts.wrong_words += u64::try_from(wrong).unwrap();
        }
        // The next line ends it.
        writer.tell("done");
        writer.hear();
        assert_eq!(writer.hear(), "done");
        let has: Vec<Has> =
            std::iter::once(&mut writer).chain(&mut readers).map(Has::now).collect();
        (has, free_bytes())
    });
    ground.counts.compare(&before.0, &after.0);
    let missing = before.1 - after.1;
    assert!(missing.abs() <= NOISE_BYTES, "{missing} bytes of the device");
    drop((writer, readers));
    ground.end("deaths::nothing_grows");
}
