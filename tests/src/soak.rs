//! Minutes of coming, going and dying, and whether anything grows meanwhile.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use shared_tensor::DType;
use shared_tensor::stream::{Stream, StreamOptions};

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
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// More than the allocator's moods, less than a page per second over ten minutes.
const SLACK_KIB: u64 = 1024;

/// What was in use at one moment; the largest of those who stay.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    descriptors: u64,
    resident_kib: u64,
    own_descriptors: u64,
    own_resident_kib: u64,
    files_kib: u64,
    entries: u64,
}

/// What came of a soak.
#[derive(Debug)]
pub struct Outcome {
    early: Sample,
    late: Sample,
    samples: usize,
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
    let mut samples = Vec::new();
    let mut kills = 0;
    let begun = Instant::now();
    let mut last_sample = begun;
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
        if last_sample.elapsed() >= SAMPLE_EVERY {
            last_sample = Instant::now();
            samples.push(Sample::take(space, &mut crew, &stream));
        }
    }
    board.word(Word::Stop).store(1, Ordering::Release);
    violations.extend(crew.dismiss().err());
    violations.extend(board.complaints());
    let published = stream.info().count;
    violations.extend(stream.unlink().err().map(|error| error.to_string()));
    let _ = shared_tensor::stream::unlink(&shm, CHURNED);
    Board::remove(&shm);
    let (early, late) = ends(&samples);
    violations.extend(growth(&early, &late));
    let (frames, leases) = (board.value(Word::Frames), board.value(Word::Leases));
    Outcome { early, late, samples: samples.len(), kills, published, frames, leases, violations }
}

impl Sample {
    fn take(space: &Namespace, crew: &mut Crew<'_>, stream: &Stream) -> Self {
        let stay = crew.members().iter().take(STAY.len()).map(|member| member.pid().to_string());
        let stay: Vec<String> = stay.collect();
        let largest = |figure: fn(&str) -> u64| stay.iter().map(|pid| figure(pid)).max();
        let blocks = space.files().into_iter().filter_map(|file| fs::metadata(file).ok());
        Self {
            descriptors: largest(descriptors).unwrap_or_default(),
            resident_kib: largest(resident_kib).unwrap_or_default(),
            own_descriptors: descriptors("self"),
            own_resident_kib: resident_kib("self"),
            files_kib: blocks.map(|file| file.blocks() / 2).sum(),
            entries: stream.info().participants.len() as u64,
        }
    }

    fn largest(samples: &[Self]) -> Self {
        samples.iter().fold(Self::default(), |most, sample| Self {
            descriptors: most.descriptors.max(sample.descriptors),
            resident_kib: most.resident_kib.max(sample.resident_kib),
            own_descriptors: most.own_descriptors.max(sample.own_descriptors),
            own_resident_kib: most.own_resident_kib.max(sample.own_resident_kib),
            files_kib: most.files_kib.max(sample.files_kib),
            entries: most.entries.max(sample.entries),
        })
    }

    fn figures(&self) -> [(&'static str, u64); 6] {
        [
            ("descriptors of a process", self.descriptors),
            ("resident KiB of a process", self.resident_kib),
            ("descriptors of the tester", self.own_descriptors),
            ("resident KiB of the tester", self.own_resident_kib),
            ("KiB of names", self.files_kib),
            ("entries of the participant table", self.entries),
        ]
    }
}

/// The most that was in use in the third after a warm-up, and in the last third.
fn ends(samples: &[Sample]) -> (Sample, Sample) {
    let warm = &samples[samples.len() / 10..];
    let third = warm.len() / 3;
    (Sample::largest(&warm[..third]), Sample::largest(&warm[warm.len() - third..]))
}

fn growth(early: &Sample, late: &Sample) -> Vec<String> {
    let pairs = early.figures().into_iter().zip(late.figures());
    pairs
        .filter(|((name, early), (_, late))| {
            let slack = if name.contains("resident") { SLACK_KIB.max(early / 20) } else { 0 };
            *late > early + slack
        })
        .map(|((name, early), (_, late))| format!("growth: {name} from {early} to {late}"))
        .collect()
}

fn descriptors(process: &str) -> u64 {
    let folder = Path::new("/proc").join(process).join("fd");
    fs::read_dir(folder).map_or(0, |entries| entries.count() as u64)
}

fn resident_kib(process: &str) -> u64 {
    let status = fs::read_to_string(Path::new("/proc").join(process).join("status"));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "  {:<36}{:>12}{:>12}", "at most", "early", "late")?;
        for ((name, early), (_, late)) in self.early.figures().into_iter().zip(self.late.figures())
        {
            writeln!(out, "  {name:<36}{early:>12}{late:>12}")?;
        }
        writeln!(out, "  samples {}, kills {}", self.samples, self.kills)?;
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

#[cfg(test)]
mod tests {
    use super::{Sample, ends, growth};

    fn samples(resident_kib: impl Fn(u64) -> u64) -> Vec<Sample> {
        (0..100)
            .map(|index| Sample { resident_kib: resident_kib(index), ..Sample::default() })
            .collect()
    }

    #[test]
    fn what_grows_is_found() {
        let (early, late) = ends(&samples(|index| 10_000 + index * 50));
        assert_eq!(growth(&early, &late).len(), 1);
    }

    #[test]
    fn what_wavers_or_warms_up_does_not_grow() {
        let (early, late) = ends(&samples(|index| 10_000 + index.min(8) * 1000 + index % 7 * 100));
        assert!(growth(&early, &late).is_empty());
    }
}
