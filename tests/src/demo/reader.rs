//! A reader: takes frames in one of three manners and checks every one.

use std::time::{Duration, Instant};

use shared_tensor::stream::{Lease, OnFull, OpenOptions, Phase, Publication, Reader, Stream, Wait};

use super::commands::{Command, Commands, done, refuse};
use super::histogram::Histogram;
use super::label::{Checksum, Label};
use super::photograph::FRAME_BYTES;
use super::report::Read;
use super::{STREAM, Stop, monotonic_ns};
use crate::Place;

/// How a reader takes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// The newest frame, copied.
    Latest,
    /// One after the other, copied.
    Next,
    /// The newest frame, in place.
    Lease,
}

impl Manner {
    pub(super) const ALL: [Self; 3] = [Self::Latest, Self::Next, Self::Lease];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::Next => "next",
            Self::Lease => "lease",
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::Latest => "reads the newest frame, copied out",
            Self::Next => "reads every frame in order, copied out",
            Self::Lease => "reads the newest frame where it lies, without a copy",
        }
    }
}

/// How long a reader waits for a frame before it reads the last one again, to see that it can.
const PATIENCE: Duration = Duration::from_millis(10);

/// A leased frame is read through a block that stays in the CPU's first cache.
const BLOCK_BYTES: usize = 16 << 10;

/// What a reader is told, each answered with one line:
///
/// | line | what it does |
/// |---|---|
/// | `act` | begins its figures anew |
/// | `report` | answers with [`Read`] |
/// | `fault` | answers what went wrong first |
/// | `quit` | ends |
pub(super) fn serve(manner: Manner) -> Result<(), Stop> {
    let namespace = Place::from_environment()?.shm();
    let stream = OpenOptions::new().namespace(namespace).open(STREAM)?;
    let mut role = Role::new(manner, &stream);
    let commands = Commands::listen();
    loop {
        let command = if role.fault.is_some() { Some(commands.wait()) } else { commands.poll() };
        match command {
            None => role.turn(),
            Some(Command::Orphaned) => {
                stream.unlink()?;
                return Ok(());
            }
            Some(Command::Line(line)) => match line.as_str() {
                "act" => {
                    role.begin_act();
                    done("");
                }
                "report" => done(role.report()),
                "fault" => done(role.fault.as_deref().unwrap_or("")),
                "quit" => {
                    done("");
                    return Ok(());
                }
                _ => refuse(format!("`{line}` is no command of a reader")),
            },
        }
    }
}

struct Role {
    eye: Eye,
    /// A reader of its own for reading again, so that the first one's position stays its own.
    again: Eye,
    since: Instant,
    latencies: Histogram,
    figures: Read,
    fault: Option<String>,
}

impl Role {
    fn new(manner: Manner, stream: &Stream) -> Self {
        // Reading again means the newest frame, also for who otherwise reads in order.
        let again = if manner == Manner::Next { Manner::Latest } else { manner };
        Self {
            eye: Eye::new(manner, stream),
            again: Eye::new(again, stream),
            since: Instant::now(),
            latencies: Histogram::new(),
            figures: Read::default(),
            fault: None,
        }
    }

    fn begin_act(&mut self) {
        let Read { faults, last_count, frames_ever, missed_ever, .. } = self.figures;
        let Read { writer, writer_first_count, writer_first_ns, .. } = self.figures;
        self.figures = Read {
            faults,
            last_count,
            frames_ever,
            missed_ever,
            writer,
            writer_first_count,
            writer_first_ns,
            ..Read::default()
        };
        self.latencies = Histogram::new();
        self.since = Instant::now();
    }

    fn report(&self) -> Read {
        Read {
            elapsed_ns: u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX),
            latency_p50_ns: self.latencies.quantile(500),
            latency_p99_ns: self.latencies.quantile(990),
            ..self.figures
        }
    }

    /// Reads one frame: a new one, or, when none comes, the last one again.
    fn turn(&mut self) {
        if let Err(fault) = self.read() {
            self.figures.faults += 1;
            self.fault = Some(fault);
        }
    }

    fn read(&mut self) -> Result<(), String> {
        let last = self.figures.last_count;
        match self.eye.look(&Wait::for_at_most(PATIENCE)) {
            Ok(seen) => {
                seen.check()?;
                self.take(&seen)
            }
            Err(error) if error.is_timeout() && last == 0 => Ok(()),
            Err(error) if error.is_timeout() => {
                let seen = self.again.look_again().map_err(|error| error.to_string())?;
                seen.check()?;
                let count = seen.publication.count;
                if count < last {
                    return Err(format!("frame {count} is the newest after frame {last}"));
                }
                self.figures.again += 1;
                self.figures.told_crashed += u64::from(seen.publication.phase == Phase::Crashed);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn take(&mut self, seen: &Seen) -> Result<(), String> {
        let figures = &mut self.figures;
        let Publication { count, missed, .. } = seen.publication;
        if count != figures.last_count + missed + 1 {
            let last = figures.last_count;
            return Err(format!("frame {count} came after frame {last}, with {missed} missed"));
        }
        if seen.label.writer != figures.writer {
            figures.writer = seen.label.writer;
            figures.writer_first_count = count;
            figures.writer_first_ns = seen.at_ns;
        }
        figures.frames += 1;
        figures.frames_ever += 1;
        figures.missed += missed;
        figures.missed_ever += missed;
        figures.copies += u64::from(seen.is_copy);
        figures.last_count = count;
        self.latencies.record(seen.at_ns.saturating_sub(seen.publication.published_monotonic_ns));
        Ok(())
    }
}

/// One frame, read whole.
struct Seen {
    publication: Publication,
    label: Label,
    /// Of what was read.
    checksum: u64,
    /// When the frame was there to be used, by the monotonic clock.
    at_ns: u64,
    is_copy: bool,
}

impl Seen {
    fn check(&self) -> Result<(), String> {
        let Publication { count, frame_id, has_own_frame_id, .. } = self.publication;
        let Label { number, checksum, .. } = self.label;
        if number != count || frame_id != count || !has_own_frame_id {
            return Err(format!("frame {count} carries the number {number} and the id {frame_id}"));
        }
        if checksum != self.checksum {
            let found = self.checksum;
            return Err(format!(
                "frame {count} is torn: checksum {found:016x}, not {checksum:016x}"
            ));
        }
        Ok(())
    }
}

/// What looks at frames.
struct Eye {
    manner: Manner,
    reader: Reader,
    buffer: Vec<u8>,
}

impl Eye {
    fn new(manner: Manner, stream: &Stream) -> Self {
        Self { manner, reader: stream.reader(), buffer: vec![0; FRAME_BYTES] }
    }

    /// Waits for a frame that it has not seen.
    fn look(&mut self, wait: &Wait<'_>) -> shared_tensor::Result<Seen> {
        if self.manner == Manner::Next {
            let publication = self.reader.next_into(&mut self.buffer, wait)?;
            return Ok(self.copied(publication));
        }
        let last = self.reader.last_count();
        self.reader.wait(last, wait)?;
        self.look_again()
    }

    /// The newest frame, seen or not.
    fn look_again(&mut self) -> shared_tensor::Result<Seen> {
        if self.manner == Manner::Lease {
            let lease = self.reader.lease(OnFull::Copy)?;
            return self.leased(&lease);
        }
        let publication = self.reader.read_into(&mut self.buffer)?;
        Ok(self.copied(publication))
    }

    fn copied(&self, publication: Publication) -> Seen {
        let at_ns = monotonic_ns();
        let label = Label::of_metadata(&publication.metadata);
        let mut checksum = Checksum::of_frame(publication.count);
        checksum.add(&self.buffer);
        Seen { publication, label, checksum: checksum.value(), at_ns, is_copy: false }
    }

    fn leased(&mut self, lease: &Lease) -> shared_tensor::Result<Seen> {
        let at_ns = monotonic_ns();
        let publication = *lease.publication();
        let label = Label::of_metadata(&publication.metadata);
        let mut checksum = Checksum::of_frame(publication.count);
        if let Some(bytes) = lease.shared_bytes()? {
            let mut block = [0; BLOCK_BYTES];
            for start in (0..bytes.len()).step_by(BLOCK_BYTES) {
                let block = &mut block[..BLOCK_BYTES.min(bytes.len() - start)];
                bytes.read_into(start, block).expect("a block inside the frame");
                checksum.add(block);
            }
        } else {
            lease.copy_to(&mut self.buffer)?;
            checksum.add(&self.buffer);
        }
        let is_copy = lease.is_copy();
        Ok(Seen { publication, label, checksum: checksum.value(), at_ns, is_copy })
    }
}
