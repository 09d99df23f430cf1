//! Getting the chunk of a stream from whoever holds it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cuda_ipc::{Chunk, ChunkLabel};
use rpc_uds::RuntimeDirectory;
use shm_core::Generation;
use shm_lock::Wait;

use super::Subject;
use super::ask::{Unanswered, ask};
use super::office::Office;
use super::roll::{Listed, Roll};
use crate::error::{Error, ErrorKind, Result};
use crate::service::runtime_directory;
use crate::stream::layout::SEATS;
use crate::stream::memory::{Peers, StreamMemory};

/// How long one holder has to answer: in the first round, and at most. Who is stopped keeps the others no
/// longer, and who is only slow gets there in a later round.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long nobody may be listed before the frames are given up: who has just got the chunk is listed a
/// moment later. The first is for a stream whose creator runs, and may have made it just now.
const VACANCY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(100));
/// How long to pause after a round that brought nothing: nothing tells when a holder goes on.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// The chunk `label` of the stream's creation `generation`: this process's own, or of one of the holders
/// that the stream lists. They are asked in turn, again and again, each for a short time.
///
/// A wait that is over, or [`Wait::never`], is one round. Interruption is asked for between holders, and ten
/// times a second while one is waited for.
///
/// # Errors
/// [`ErrorKind::NoHolder`] if nobody who is listed lives, nor anybody is listed within a moment;
/// [`ErrorKind::Timeout`], saying what the last holder answered; [`ErrorKind::Interrupted`];
/// [`ErrorKind::Os`] if there is no private runtime directory.
pub(crate) fn fetch(
    memory: &Arc<StreamMemory>,
    peers: &Peers<'_>,
    generation: Generation,
    label: &ChunkLabel,
    wait: &Wait<'_>,
) -> Result<Chunk> {
    let search = Search {
        memory,
        peers,
        subject: Subject { generation, label: *label },
        directory: None,
        wait,
        begun: Instant::now(),
        vacant: None,
    };
    search.run()
}

struct Search<'a> {
    memory: &'a Arc<StreamMemory>,
    peers: &'a Peers<'a>,
    subject: Subject,
    directory: Option<RuntimeDirectory>,
    wait: &'a Wait<'a>,
    begun: Instant,
    /// Since when nobody is listed.
    vacant: Option<Instant>,
}

/// What a round without an answer brought.
struct Round {
    /// Holders that live.
    living: usize,
    last: Option<Unanswered>,
}

impl Search<'_> {
    fn run(mut self) -> Result<Chunk> {
        let (mut patience, mut pause) = (PATIENCE.0, PAUSE.0);
        loop {
            if let Some(own) = self.own()? {
                return Ok(own);
            }
            let round = match self.round(patience)? {
                Ok(chunk) => return Ok(chunk),
                Err(round) => round,
            };
            let left = self.left();
            let is_late = left.is_some_and(|left| left.is_zero());
            if self.is_vacant(&round) || is_late && round.living == 0 {
                return Err(self.nobody());
            }
            if is_late {
                return Err(self.timeout(&round));
            }
            if self.wait.is_interrupted() {
                return Err(self.interrupted());
            }
            thread::sleep(left.map_or(pause, |left| left.min(pause)));
            patience = (patience * 2).min(PATIENCE.1);
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// What this process holds itself. A second handle needs no socket for it, nor a line.
    fn own(&self) -> Result<Option<Chunk>> {
        let counter = &Office::of_this_process().counter;
        let copied = counter.serve(&self.subject, |chunk| chunk.map(Chunk::try_clone).transpose());
        copied.map_err(|source| {
            let message =
                format!("cannot copy the descriptor of stream `{}`: {source}", self.name());
            Error::with_source(ErrorKind::Os, message, source)
        })
    }

    fn round(&mut self, patience: Duration) -> Result<Result<Chunk, Round>> {
        let roll = Roll { memory: self.memory, peers: self.peers };
        let mut round = Round { living: 0, last: None };
        for listed in (0..SEATS).filter_map(|line| roll.read(line)) {
            round.living += 1;
            let unanswered = match self.ask(&listed, patience)? {
                Ok(chunk) => return Ok(Ok(chunk)),
                Err(unanswered) => unanswered,
            };
            let is_over = !self.is_one_round() && self.left().is_some_and(|left| left.is_zero());
            if unanswered.is_interruption() {
                return Err(self.interrupted());
            }
            round.last = Some(unanswered);
            if is_over {
                break;
            }
        }
        Ok(Err(round))
    }

    fn ask(&mut self, listed: &Listed, patience: Duration) -> Result<Result<Chunk, Unanswered>> {
        let socket = match &listed.socket {
            Ok(Some(socket)) => socket,
            Ok(None) => return Ok(Err(Unanswered::Unready)),
            Err(damage) => return Ok(Err(damage.clone().into())),
        };
        let directory = match &self.directory {
            Some(directory) => directory,
            None => self.directory.insert(directory_of(self.name())?),
        };
        let socket = directory.socket(socket.as_str());
        let by = Instant::now() + patience;
        let by =
            if self.is_one_round() { by } else { self.wait.deadline().map_or(by, |it| it.min(by)) };
        Ok(ask(&socket, &self.subject, by, self.wait))
    }

    /// Whether nobody has been listed for so long that nobody will be.
    fn is_vacant(&mut self, round: &Round) -> bool {
        if round.living > 0 {
            self.vacant = None;
            return false;
        }
        let since = *self.vacant.get_or_insert_with(Instant::now);
        let is_running = self.memory.segment.creator().is_running();
        since.elapsed() >= if is_running { VACANCY.0 } else { VACANCY.1 }
    }

    /// Whether the deadline had passed when the search began.
    fn is_one_round(&self) -> bool {
        self.wait.deadline().is_some_and(|deadline| deadline <= self.begun)
    }

    fn left(&self) -> Option<Duration> {
        self.wait.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    fn name(&self) -> &str {
        self.memory.segment.name().as_str()
    }

    fn nobody(&self) -> Error {
        let message = format!(
            "the frames of stream `{}` are gone: the last process that held its GPU memory has ended; \
             unlink the stream and create it anew",
            self.name()
        );
        Error::new(ErrorKind::NoHolder, message)
    }

    fn timeout(&self, round: &Round) -> Error {
        let last = round.last.as_ref().map_or_else(String::new, |last| format!(" ({last})"));
        let what = format!(
            "one of {} processes that hold the GPU memory of stream `{}` to hand it out{last}",
            round.living,
            self.name()
        );
        Error::timeout(&what, self.begun.elapsed())
    }

    fn interrupted(&self) -> Error {
        let message =
            format!("waiting for the GPU memory of stream `{}` was interrupted", self.name());
        Error::new(ErrorKind::Interrupted, message)
    }
}

fn directory_of(name: &str) -> Result<RuntimeDirectory> {
    runtime_directory().map_err(|source| {
        let message = format!("cannot ask for the GPU memory of stream `{name}`: {source}");
        Error::with_source(ErrorKind::Os, message, source)
    })
}
