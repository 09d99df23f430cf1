//! Pages in the background: the parts needed first come first, then huge pages.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::pages::{self, Obtained};
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
        progress.report().finished = complete;
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
                progress.report().populated.add(&piece);
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
                progress.report().collapsed.add(&piece);
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
        self.progress.report().clone()
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
        self.progress.stop.store(true, Ordering::Relaxed);
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

#[derive(Debug, Default)]
struct Progress {
    stop: AtomicBool,
    report: Mutex<PopulateReport>,
}

impl Progress {
    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn report(&self) -> MutexGuard<'_, PopulateReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
