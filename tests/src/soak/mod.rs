//! Minutes of coming, going and dying, and whether anything grows meanwhile.

mod judge;
mod usage;

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use shared_tensor::DType;
use shared_tensor::stream::{Stream, StreamOptions};

use self::judge::{Judge, Reading};
use crate::crash::{Board, CHURNED, Crew, Duty, STREAM, Word};
use crate::{Namespace, Seed};

/// Those who stay: one writer and four readers. Their memory and descriptors are watched.
const STAY: [Duty; 5] =
    [Duty::Metronome, Duty::Follower, Duty::Follower, Duty::Lessee, Duty::Reader];
/// Those who are killed at random, and replaced: four readers, a second writer that dies in its
/// writes, and one who makes and removes names.
const PASS: [Duty; 6] =
    [Duty::Follower, Duty::Reader, Duty::Lessee, Duty::Attacher, Duty::Writer, Duty::Churner];

const FRAME_BYTES: u64 = 40_000;

/// What came of a soak.
#[derive(Debug)]
pub struct Outcome {
    judge: Judge,
    kills: u64,
    published: u64,
    frames: u64,
    leases: u64,
    /// What must hold and did not.
    pub violations: Vec<String>,
}

/// Keeps a stream busy for `length`.
///
/// # Panics
/// When the stream cannot be made.
pub fn soak(space: &Namespace, length: Duration, seed: u64) -> Outcome {
    let shm = space.shm();
    let mut seed = Seed::new(seed);
    let options = StreamOptions::new(DType::U8, [FRAME_BYTES]).namespace(shm.clone());
    let stream = options.create(STREAM).expect("a stream");
    let board = Board::create(&shm, 0);
    let duties = [STAY.as_slice(), PASS.as_slice()].concat();
    let mut crew = Crew::start(space, &duties, &mut seed);
    let mut violations = Vec::new();
    let mut judge = Judge::default();
    let mut kills = 0;
    let begun = Instant::now();
    while begun.elapsed() < length && violations.is_empty() {
        thread::sleep(Duration::from_millis(20 + seed.below(200)));
        let place = STAY.len() + seed.below(PASS.len() as u64) as usize;
        let victim = &mut crew.members()[place];
        victim.strike();
        victim.bury();
        kills += 1;
        crew.replace(place, &board, &mut seed);
        violations.extend(crew.await_progress(&board).err());
        violations.extend(crew.deserters());
        let elapsed = begun.elapsed().div_duration_f64(length);
        judge.take(elapsed, &reading(space, &mut crew, &stream));
    }
    board.word(Word::Stop).store(1, Ordering::Release);
    violations.extend(crew.dismiss().err());
    violations.extend(board.complaints());
    let published = stream.info().count;
    violations.extend(stream.unlink().err().map(|error| error.to_string()));
    let _ = shared_tensor::stream::unlink(&shm, CHURNED);
    Board::remove(&shm);
    violations.extend(judge.growth());
    let (frames, leases) = (board.value(Word::Frames), board.value(Word::Leases));
    Outcome { judge, kills, published, frames, leases, violations }
}

/// What is in use now: by each of those who stay, by this process, and of what all share.
fn reading(space: &Namespace, crew: &mut Crew<'_>, stream: &Stream) -> Reading {
    let mut reading = Reading::default();
    for (place, member) in crew.members().iter().take(STAY.len()).enumerate() {
        let who = format!("{} {place}", member.duty);
        usage::read(&mut reading, &who, &member.pid().to_string());
    }
    usage::read(&mut reading, "the tester", "self");
    let files = space.files();
    reading.add("names", "", files.len() as u64);
    let blocks = files.into_iter().filter_map(|file| fs::metadata(file).ok());
    reading.add("KiB of names", "", blocks.map(|file| file.blocks() / 2).sum());
    let entries = stream.info().participants.len() as u64;
    reading.add("entries of the participant table", "", entries);
    reading
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.judge)?;
        writeln!(out, "  readings {}, kills {}", self.judge.readings(), self.kills)?;
        writeln!(
            out,
            "  frames published {}, read whole {}, leases unchanged {}",
            self.published, self.frames, self.leases
        )?;
        for violation in &self.violations {
            writeln!(out, "  ! {violation}")?;
        }
        Ok(())
    }
}
