//! Pages in the background: the parts needed first come first, then huge pages.

use std::io;
use std::ops::Range;
use std::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use crate::pages::{self, Obtained, Refusal};
use crate::sys::{self, huge_page_bytes};
use crate::view::{SharedBytes, ViewError};

/// What to populate in the background, and in which order. Start it with
/// [`spawn`](Populate::spawn).
#[derive(Clone, Debug)]
pub struct Populate {
    bytes: SharedBytes,
    ranges: Vec<Range<usize>>,
    huge: bool,
}

impl Populate {
    /// The whole of `bytes`, from front to back.
    pub fn new(bytes: SharedBytes) -> Populate {
        let whole = 0..bytes.len();
        Populate { bytes, ranges: vec![whole], huge: false }
    }

    /// Only these ranges, in this order.
    ///
    /// # Errors
    /// A range does not lie in the view.
    pub fn ranges(
        mut self,
        ranges: impl IntoIterator<Item = Range<usize>>,
    ) -> Result<Populate, ViewError> {
        let ranges: Vec<_> = ranges.into_iter().collect();
        ranges.iter().try_for_each(|range| self.bytes.locate_range(range).map(drop))?;
        self.ranges = ranges;
        Ok(self)
    }

    /// Afterwards, in the same order, also collapses them onto huge pages.
    #[must_use]
    pub fn huge_pages(mut self, wanted: bool) -> Populate {
        self.huge = wanted;
        self
    }

    /// Starts the work on a thread of its own, on which no signal handler runs.
    pub fn spawn(self) -> io::Result<Populator> {
        let shared = Arc::new(Progress::default());
        let progress = Arc::clone(&shared);
        let thread = thread::Builder::new().name("shm-populate".into()).spawn(move || {
            // With a signal mask missing the work is still right.
            let _ = sys::mask_signals();
            self.run(&progress);
        })?;
        Ok(Populator { progress: shared, thread: Some(thread), process: sys::process() })
    }

    fn run(&self, progress: &Progress) {
        let complete = self.populate(progress) && (!self.huge || self.collapse(progress));
        // SYNC: populate-finished.
        progress.finished.store(complete, Release);
    }

    /// Piece by piece, so that stopping takes one piece; `false`: stopped.
    fn populate(&self, progress: &Progress) -> bool {
        for range in &self.ranges {
            let mut start = range.start;
            while start < range.end {
                if progress.is_stopping() {
                    return false;
                }
                let end = range.end.min(start + huge_page_bytes());
                let Ok(piece) = self.bytes.populate(start..end) else { return false };
                let refused = piece.refusal.is_some();
                progress.populated.add(piece);
                if refused {
                    // The next piece would fare no better.
                    break;
                }
                start = end;
            }
        }
        true
    }

    fn collapse(&self, progress: &Progress) -> bool {
        for range in &self.ranges {
            let Ok(range) = self.bytes.locate_range(range) else { return false };
            for block in pages::huge_blocks(self.bytes.mapping(), &range) {
                if progress.is_stopping() {
                    return false;
                }
                let piece = pages::collapse_block(self.bytes.mapping(), block);
                progress.collapsed.add(piece);
            }
        }
        true
    }
}

/// What a [`Populator`] has obtained so far.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct PopulateReport {
    /// Pages faulted in.
    pub populated: Obtained,
    /// Pages put on huge pages, if that was asked for.
    pub collapsed: Obtained,
    /// Whether everything was tried; `false` while running and after a stop.
    pub finished: bool,
}

/// Population at work. It ends when it is done, stopped or dropped.
#[derive(Debug)]
pub struct Populator {
    progress: Arc<Progress>,
    thread: Option<JoinHandle<()>>,
    process: u32,
}

impl Populator {
    /// What has been obtained until now.
    pub fn report(&self) -> PopulateReport {
        self.progress.report()
    }

    /// Waits for the end and tells what was obtained.
    pub fn wait(mut self) -> PopulateReport {
        self.join();
        self.report()
    }

    /// Stops after the piece in hand (2 MiB) and tells what was obtained.
    pub fn stop(mut self) -> PopulateReport {
        self.halt();
        self.report()
    }

    fn halt(&mut self) {
        self.progress.stop.store(true, Relaxed);
        self.join();
    }

    fn join(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // A forked child has no such thread and would wait for ever.
        if self.process == sys::process() {
            // The thread's work cannot panic, and its report stands in any case.
            let _ = thread.join();
        }
    }
}

impl Drop for Populator {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Words without a lock: a forked child may ask for the report, and a lock that the thread held at
/// the fork would never be released there.
#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    finished: AtomicBool,
    populated: Tally,
    collapsed: Tally,
}

impl Progress {
    fn is_stopping(&self) -> bool {
        self.stop.load(Relaxed)
    }

    fn report(&self) -> PopulateReport {
        // SYNC: populate-finished, so that "finished" comes with all that was counted.
        let finished = self.finished.load(Acquire);
        PopulateReport {
            populated: self.populated.sum(),
            collapsed: self.collapsed.sum(),
            finished,
        }
    }
}

/// What one kind of advice has obtained; written by the thread alone.
#[derive(Debug, Default)]
struct Tally {
    asked_bytes: AtomicUsize,
    obtained_bytes: AtomicUsize,
    refusal: OnceLock<Refusal>,
}

impl Tally {
    fn add(&self, piece: Obtained) {
        // The first refusal is the telling one: those that follow often follow from it.
        if let Some(refusal) = piece.refusal {
            let _ = self.refusal.set(refusal);
        }
        self.obtained_bytes.fetch_add(piece.obtained_bytes, Relaxed);
        self.asked_bytes.fetch_add(piece.asked_bytes, Relaxed);
    }

    fn sum(&self) -> Obtained {
        Obtained {
            asked_bytes: self.asked_bytes.load(Relaxed),
            obtained_bytes: self.obtained_bytes.load(Relaxed),
            refusal: self.refusal.get().cloned(),
        }
    }
}
