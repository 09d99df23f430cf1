//! What it means that the driver calls the default stream idle.
//!
//! Nothing begins in the default stream before all blocking streams of its context are done with what was
//! queued earlier. The driver's documentation does not say whether asking for the default stream counts
//! what is queued in those. A lender that took a wrong "idle" for an answer would lend what a library's own
//! stream has yet to write. So it is tried out, once in a process: a blocking stream is kept busy for
//! some microseconds, and the default stream asked for.

use std::sync::OnceLock;

use crate::device::Context;
use crate::error::{DriverError, QueueError};
use crate::range_words::Ordering;
use crate::sys::Stream;
use crate::words::Words;

static COUNTS_OTHERS: OnceLock<bool> = OnceLock::new();

/// How many answers have to agree: another thread may queue something in the default stream meanwhile,
/// which is counted whatever the driver does.
const ROUNDS: u64 = 3;

/// Whether the default stream is idle only if the blocking streams are, as far as is known.
pub(crate) fn default_is_known_to_count_others() -> bool {
    COUNTS_OTHERS.get().is_some_and(|counts| *counts)
}

/// The same, tried out if it is not known.
pub(crate) fn default_counts_others(context: &Context) -> bool {
    if let Some(known) = COUNTS_OTHERS.get() {
        return *known;
    }
    match tried(context) {
        Ok(Some(counts)) => *COUNTS_OTHERS.get_or_init(|| counts),
        // Another time, when nothing is under way.
        _ => false,
    }
}

/// `None` if it cannot be told now.
fn tried(context: &Context) -> Result<Option<bool>, QueueError> {
    let Ok(words) = Words::create(1) else { return Ok(None) };
    let Ok(words) = words.attach(context) else { return Ok(None) };
    if words.ordering() == Ordering::Host {
        // Without words that a stream waits for there is nothing to keep it busy with.
        return Ok(Some(false));
    }
    let default = Stream::default_of_context();
    let blocking = context.within(Stream::create_blocking)?;
    for round in 1..=ROUNDS {
        let is_idle = || {
            context.within(|| Ok::<_, DriverError>(!default.is_capturing()? && default.is_idle()?))
        };
        if !is_idle()? {
            return Ok(None);
        }
        words.wait(&blocking, 0, round)?;
        let is_idle = is_idle();
        // Before anything else: whatever is queued in the default stream from now on waits for it.
        words.release(0, round);
        context.synchronize(&blocking)?;
        if is_idle? {
            return Ok(Some(false));
        }
    }
    Ok(Some(true))
}
