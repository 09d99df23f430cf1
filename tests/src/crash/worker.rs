//! What the processes of a campaign do until they are killed or told to stop.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use shared_tensor::stream::{
    Contents, Lease, OnFull, OpenOptions, Publication, Reader, Stamp, Stream, StreamOptions, Wait,
    Writer,
};
use shared_tensor::{DType, Error, ErrorKind};
use shm_core::Namespace;

use super::board::{Board, Word};
use crate::{Place, Seed, frame};

/// The stream that everybody works on.
pub const STREAM: &str = "target";
/// The name that churners create and remove.
pub const CHURNED: &str = "churned";
const CHURNED_BYTES: u64 = 4096;
/// Between two frames of a metronome.
const BEAT: Duration = Duration::from_micros(500);

/// What a process is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Duty {
    /// Publishes, whole, in place and in pieces; sometimes gives a write up.
    Writer,
    /// Publishes as fast as it can.
    Flood,
    /// Publishes at a steady, modest rate.
    Metronome,
    /// Copies the newest frame.
    Reader,
    /// Copies the newest frame, without a pause, and counts the laps that it takes.
    Copier,
    /// Reads every frame in order, as far as the ring has them.
    Follower,
    /// Leases, looks twice.
    Lessee,
    /// Opens the stream, reads a frame, closes it.
    Attacher,
    /// Creates, opens and removes another stream.
    Churner,
}

impl Duty {
    /// All of them, with their names.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Writer, "writer"),
        (Self::Flood, "flood"),
        (Self::Metronome, "metronome"),
        (Self::Reader, "reader"),
        (Self::Copier, "copier"),
        (Self::Follower, "follower"),
        (Self::Lessee, "lessee"),
        (Self::Attacher, "attacher"),
        (Self::Churner, "churner"),
    ];
}

impl fmt::Display for Duty {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Self::ALL.iter().find(|(duty, _)| duty == self);
        out.write_str(found.map_or("", |(_, name)| name))
    }
}

impl FromStr for Duty {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|(_, name)| *name == text);
        found.map(|(duty, _)| *duty).ok_or_else(|| format!("`{text}` is no duty"))
    }
}

/// Reports for duty: `role` is `duty:index:seed`, as a crew says it. Comes back when the campaign
/// is over, or when something that must hold does not.
///
/// # Errors
/// In words. What was found stands on the board as well.
pub fn report(role: &str) -> Result<(), String> {
    let mut parts = role.split(':');
    let mut part = || parts.next().ok_or_else(|| format!("`{role}` is no role"));
    let duty: Duty = part()?.parse()?;
    let index: usize = part()?.parse().map_err(|error| format!("{error}"))?;
    let seed: u64 = part()?.parse().map_err(|error| format!("{error}"))?;
    end_with_the_tester();
    let namespace = Place::from_environment().map_err(|error| error.to_string())?.shm();
    let board = Board::open(&namespace)?;
    let mut worker = Worker { namespace, board, index, seed: Seed::new(seed) };
    let outcome = worker.work(duty);
    if let Err(what) = &outcome {
        worker.board.complain(&format!("{duty}: {what}"));
    }
    outcome
}

/// A tester that is gone will not stop anybody.
fn end_with_the_tester() {
    thread::spawn(|| {
        let mut rest = [0];
        while io::stdin().lock().read(&mut rest).is_ok_and(|bytes| bytes > 0) {}
        std::process::abort();
    });
}

struct Worker {
    namespace: Namespace,
    board: Board,
    index: usize,
    seed: Seed,
}

/// What was read must hold up.
type Held<T = ()> = Result<T, String>;

impl Worker {
    fn work(&mut self, duty: Duty) -> Held {
        match duty {
            Duty::Writer => self.write(),
            Duty::Flood => self.publish_every(Duration::ZERO),
            Duty::Metronome => self.publish_every(BEAT),
            Duty::Reader => self.read(),
            Duty::Copier => self.copy(),
            Duty::Follower => self.follow(),
            Duty::Lessee => self.lease(),
            Duty::Attacher => self.attach(),
            Duty::Churner => self.churn(),
        }
    }

    fn open(&self) -> Held<Stream> {
        let options = OpenOptions::new().namespace(self.namespace.clone());
        options.open(STREAM).map_err(|error| format!("unopenable: {error}"))
    }

    fn progress(&self) {
        self.board.progress(self.index).fetch_add(1, Ordering::Release);
    }

    /// Does nothing for a random while, without going to sleep: a death then finds it busy.
    fn dawdle(&mut self, micros_max: u64) {
        let end = Instant::now() + Duration::from_micros(self.seed.below(micros_max + 1));
        while Instant::now() < end {
            std::hint::spin_loop();
        }
    }

    fn write(&mut self) -> Held {
        let stream = self.open()?;
        let mut writer = stream.writer().map_err(told)?;
        let mut bytes = vec![0; stream.frame_bytes()];
        while !self.board.is_over() {
            // Never zero, never the same twice: what the ledger tells frames apart by.
            frame::fill(&mut bytes, self.seed.number() | 1);
            match self.seed.below(8) {
                0..3 => drop(writer.write(&bytes).map_err(told)?),
                outcome => self.write_in_pieces(&mut writer, &bytes, outcome == 3)?,
            }
            self.progress();
        }
        Ok(())
    }

    /// One or more writes under one lock, each filled in parts with pauses between.
    fn write_in_pieces(&mut self, writer: &mut Writer, bytes: &[u8], gives_up: bool) -> Held {
        let mut locked = writer.lock(&Wait::forever()).map_err(told)?;
        self.dawdle(20);
        for _ in 0..=self.seed.below(2) {
            let contents = *self.seed.pick(&[Contents::Fresh, Contents::Previous]);
            let mut view = locked.view(contents).map_err(told)?;
            // In order, in whole words: only the last piece makes the frame whole.
            let cuts = [bytes.len() / 3, bytes.len() / 2, bytes.len()];
            let mut start = 0;
            for cut in cuts {
                view.write_at(start, &bytes[start..cut]).map_err(told)?;
                start = cut;
                self.dawdle(60);
            }
            if gives_up {
                drop(view);
                return Ok(());
            }
            view.publish(&Stamp::default()).map_err(told)?;
            if self.seed.once_in(2) {
                break;
            }
            // The same contents twice are two frames: the ledger has both counts.
        }
        self.dawdle(20);
        Ok(())
    }

    fn publish_every(&mut self, pause: Duration) -> Held {
        let stream = self.open()?;
        let mut writer = stream.writer().map_err(told)?;
        let frames = [1, 2].map(|_| frame::frame(stream.frame_bytes(), self.seed.number() | 1));
        for bytes in frames.iter().cycle() {
            if self.board.is_over() {
                break;
            }
            writer.write(bytes).map_err(told)?;
            self.progress();
            if !pause.is_zero() {
                thread::sleep(pause);
            }
        }
        Ok(())
    }

    /// What must hold of a frame that was read: whole, not older than anything that anybody had
    /// read before, the same for everybody.
    fn check(&self, bytes: &[u8], publication: &Publication, highest: u64) -> Held {
        let key = frame::verify(bytes).map_err(|torn| format!("torn: {torn}"))?;
        let count = publication.count;
        if count < highest {
            return Err(format!("back: count {count} was read after {highest}"));
        }
        self.board.enter(count, key)?;
        self.board.word(Word::Highest).fetch_max(count, Ordering::AcqRel);
        self.board.count(Word::Frames);
        self.progress();
        Ok(())
    }

    fn read(&mut self) -> Held {
        let stream = self.open()?;
        let mut reader = stream.reader();
        let mut bytes = vec![0; stream.frame_bytes()];
        while !self.board.is_over() {
            let highest = self.board.value(Word::Highest);
            match reader.read_into(&mut bytes) {
                Ok(publication) => self.check(&bytes, &publication, highest)?,
                Err(error) if error.kind() == ErrorKind::Empty => {}
                Err(error) => return Err(told(error)),
            }
            if self.seed.once_in(4) {
                awaited(reader.wait(reader.last_count(), &soon()))?;
            }
        }
        Ok(())
    }

    fn copy(&mut self) -> Held {
        let stream = self.open()?;
        let mut reader = stream.reader();
        let mut bytes = vec![0; stream.frame_bytes()];
        awaited(reader.wait(0, &Wait::forever()))?;
        let mut before = 0;
        while !self.board.is_over() {
            let highest = self.board.value(Word::Highest);
            let publication = reader.read_into(&mut bytes).map_err(told)?;
            let retries = own_retries(&stream);
            self.board.word(Word::Retries).fetch_add(retries - before, Ordering::Relaxed);
            self.board.word(Word::LapsMax).fetch_max(retries - before + 1, Ordering::Relaxed);
            before = retries;
            self.check(&bytes, &publication, highest)?;
        }
        Ok(())
    }

    fn follow(&mut self) -> Held {
        let stream = self.open()?;
        let mut reader = stream.reader();
        let mut bytes = vec![0; stream.frame_bytes()];
        while !self.board.is_over() {
            let last = reader.last_count();
            let Some(publication) = awaited(reader.next_into(&mut bytes, &soon()))? else {
                continue;
            };
            if publication.count != last + 1 + publication.missed {
                return Err(format!(
                    "order: count {} after {last} with {} missed",
                    publication.count, publication.missed
                ));
            }
            self.check(&bytes, &publication, 0)?;
        }
        Ok(())
    }

    fn lease(&mut self) -> Held {
        let stream = self.open()?;
        let mut reader = stream.reader();
        let mut bytes = vec![0; stream.frame_bytes()];
        let mut held: Vec<(Lease, u64)> = Vec::new();
        while !self.board.is_over() {
            let highest = self.board.value(Word::Highest);
            match reader.lease(OnFull::Copy) {
                Ok(lease) => {
                    lease.copy_to(&mut bytes).map_err(told)?;
                    self.check(&bytes, lease.publication(), highest)?;
                    let key = frame::verify(&bytes)?;
                    held.push((lease, key));
                }
                Err(error) if error.kind() == ErrorKind::Empty => continue,
                Err(error) => return Err(told(error)),
            }
            self.dawdle(200);
            self.look_again(&held, &mut bytes)?;
            while held.len() > 2 || (!held.is_empty() && self.seed.once_in(2)) {
                let index = self.seed.below(held.len() as u64) as usize;
                held.swap_remove(index);
            }
            if self.seed.once_in(4) {
                awaited(reader.wait(reader.last_count(), &soon()))?;
            }
        }
        self.look_again(&held, &mut bytes)
    }

    fn look_again(&self, held: &[(Lease, u64)], bytes: &mut [u8]) -> Held {
        for (lease, key) in held {
            let count = lease.publication().count;
            lease.copy_to(bytes).map_err(|error| format!("lease of frame {count}: {error}"))?;
            match frame::verify(bytes) {
                Ok(again) if again == *key => self.board.count(Word::Leases),
                Ok(again) => {
                    return Err(format!("lease changed: frame {count} {key:#x} is {again:#x}"));
                }
                Err(torn) => return Err(format!("lease changed: frame {count}: {torn}")),
            }
        }
        Ok(())
    }

    fn attach(&mut self) -> Held {
        let mut bytes = Vec::new();
        while !self.board.is_over() {
            let stream = self.open()?;
            bytes.resize(stream.frame_bytes(), 0);
            let highest = self.board.value(Word::Highest);
            match stream.reader().read_into(&mut bytes) {
                Ok(publication) => self.check(&bytes, &publication, highest)?,
                Err(error) if error.kind() == ErrorKind::Empty => self.progress(),
                Err(error) => return Err(told(error)),
            }
            self.board.count(Word::Attachments);
        }
        Ok(())
    }

    fn churn(&mut self) -> Held {
        let options =
            StreamOptions::new(DType::U8, [CHURNED_BYTES]).namespace(self.namespace.clone());
        let bytes = frame::frame(CHURNED_BYTES as usize, self.seed.number() | 1);
        while !self.board.is_over() {
            match self.seed.below(3) {
                0 => match options.create(CHURNED) {
                    Ok(stream) => {
                        let mut writer = stream.writer().map_err(told)?;
                        writer.write(&bytes).map_err(told)?;
                    }
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(told(error)),
                },
                1 => {
                    if look_at_churned(&self.namespace)? {
                        self.board.count(Word::Churned);
                    }
                }
                _ => {
                    shared_tensor::stream::unlink(&self.namespace, CHURNED).map_err(told)?;
                }
            }
            self.progress();
        }
        Ok(())
    }
}

/// Copies that this process made again.
fn own_retries(stream: &Stream) -> u64 {
    let participants = stream.info().participants;
    let mine = participants.iter().find(|it| it.pid == std::process::id());
    mine.map_or(0, |it| it.reader.retries)
}

/// Opens what churners make: a whole stream (`true`) or nothing; anything else is an error.
pub(crate) fn look_at_churned(namespace: &Namespace) -> Held<bool> {
    let options = OpenOptions::new().namespace(namespace.clone());
    let stream = match options.open(CHURNED) {
        Ok(stream) => stream,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(format!("unopenable: {error}")),
    };
    let mut reader: Reader = stream.reader();
    match reader.latest() {
        Ok(frame) => frame::verify(frame.bytes()).map(|_| true),
        Err(error) if error.kind() == ErrorKind::Empty => Ok(true),
        Err(error) => Err(told(error)),
    }
}

/// Soon enough to notice the end of the campaign.
fn soon() -> Wait<'static> {
    Wait::for_at_most(Duration::from_millis(20))
}

/// Nothing new in time is no fault.
fn awaited<T>(outcome: Result<T, Error>) -> Held<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_timeout() => Ok(None),
        Err(error) => Err(told(error)),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err hands it over")]
fn told(error: Error) -> String {
    format!("{:?}: {error}", error.kind())
}
