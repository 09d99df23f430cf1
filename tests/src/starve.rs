//! Large frames, a writer that never pauses, and readers that have to get through all the same.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use shared_tensor::DType;
use shared_tensor::stream::StreamOptions;

use crate::crash::{Board, Crew, Duty, STREAM, Word};
use crate::{Namespace, Seed};

/// One contest of a writer and its readers.
#[derive(Clone, Copy, Debug)]
pub struct Contest {
    /// Bytes of a frame.
    pub frame_bytes: u64,
    /// Reading processes.
    pub readers: usize,
    /// Reads that each of them has to get through.
    pub reads: u64,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Score {
    /// Slots of the ring.
    pub slots: usize,
    /// Reads that succeeded, all of them whole.
    pub reads: u64,
    /// Copies that were made again.
    pub retries: u64,
    /// Most copies that one read took.
    pub copies_max: u64,
    /// Frames that the writer published meanwhile.
    pub published: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What must hold and did not.
    pub violations: Vec<String>,
}

impl Contest {
    /// Lets it happen.
    ///
    /// # Panics
    /// When there is no space for the stream.
    pub fn hold(&self, space: &Namespace) -> Score {
        let shm = space.shm();
        let options = StreamOptions::new(DType::U8, [self.frame_bytes]);
        let stream = options.namespace(shm.clone()).create(STREAM).expect("a stream");
        let board = Board::create(&shm, 0);
        let begun = Instant::now();
        let mut duties = vec![Duty::Copier; self.readers];
        duties.push(Duty::Flood);
        let mut crew = Crew::start(space, &duties, &mut Seed::new(self.frame_bytes));
        let mut violations = Vec::new();
        let readers = self.readers;
        let done = |crew: &mut Crew<'_>| {
            crew.members()[..readers].iter().all(|it| it.progress(&board) >= self.reads)
        };
        // The namespace's watchdog ends a contest that does not end: a starved reader is a hang.
        while !done(&mut crew) && violations.is_empty() {
            thread::sleep(Duration::from_millis(10));
            violations.extend(crew.deserters());
        }
        let elapsed = begun.elapsed();
        let info = stream.info();
        board.word(Word::Stop).store(1, Ordering::Release);
        violations.extend(crew.dismiss().err());
        violations.extend(board.complaints());
        violations.extend(stream.unlink().err().map(|error| error.to_string()));
        Board::remove(&shm);
        Score {
            slots: info.slots,
            reads: board.value(Word::Frames),
            retries: board.value(Word::Retries),
            copies_max: board.value(Word::LapsMax),
            published: info.count,
            elapsed,
            violations,
        }
    }
}
