//! How long, and under which conditions, an operation may wait.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::error::WaitError;

/// How long an operation may wait.
///
/// A deadline is a point in time, not a length: one `Wait` passed to several operations bounds
/// them together.
#[derive(Clone, Copy)]
pub struct Wait<'a> {
    deadline: Option<Instant>,
    interrupted: Option<&'a dyn Fn() -> bool>,
    /// Whether the deadline has passed for certain: then nobody has to ask the clock how long the
    /// operation took.
    is_over: bool,
}

impl<'a> Wait<'a> {
    /// Waits for ever.
    pub const fn forever() -> Self {
        Self { deadline: None, interrupted: None, is_over: false }
    }

    /// Does not wait: one attempt. As a deadline in the past, but without asking the clock.
    pub fn never() -> Self {
        // Any moment that is over will do.
        static OVER: LazyLock<Instant> = LazyLock::new(Instant::now);
        Self { deadline: Some(*OVER), interrupted: None, is_over: true }
    }

    /// Waits until `deadline`. A deadline in the past means one attempt.
    pub const fn until(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), interrupted: None, is_over: false }
    }

    /// Waits until `at_most` from now. A duration beyond what the clock can say is for ever.
    pub fn for_at_most(at_most: Duration) -> Self {
        Self { deadline: Instant::now().checked_add(at_most), interrupted: None, is_over: false }
    }

    /// Gives up as soon as `interrupted` answers `true`.
    ///
    /// It is asked before the first sleep, after every slice of waiting (a few milliseconds) and
    /// after every signal handler, on the waiting thread.
    #[must_use]
    pub const fn interruptible(self, interrupted: &'a dyn Fn() -> bool) -> Self {
        Self { deadline: self.deadline, interrupted: Some(interrupted), is_over: self.is_over }
    }

    /// The same wait with an earlier deadline, if `deadline` is one and comes earlier.
    #[must_use]
    pub fn no_later_than(self, deadline: Option<Instant>) -> Self {
        let deadline = match (self.deadline, deadline) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        };
        Self { deadline, ..self }
    }

    /// The point in time at which waiting ends, if there is one.
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether this was made by [`never`](Self::never).
    pub const fn is_never(&self) -> bool {
        self.is_over
    }

    /// Whether somebody may interrupt the wait, so that sleeps have to be sliced.
    pub const fn is_interruptible(&self) -> bool {
        self.interrupted.is_some()
    }

    /// Asks whether to give up.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted.is_some_and(|interrupted| interrupted())
    }

    /// Starts the clock of one operation.
    pub(crate) fn begin(&self) -> Waiting<'_, 'a> {
        Waiting { wait: self, since: self.deadline.map(|_| Instant::now()) }
    }
}

impl fmt::Debug for Wait<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wait")
            .field("deadline", &self.deadline)
            .field("interruptible", &self.interrupted.is_some())
            .finish()
    }
}

/// One operation's waiting.
pub(crate) struct Waiting<'w, 'a> {
    wait: &'w Wait<'a>,
    /// Only read where there is a deadline: a wait for ever never asks the clock.
    since: Option<Instant>,
}

impl Waiting<'_, '_> {
    /// How long the next sleep may last, at most `slice`; an error if there is to be none.
    pub(crate) fn next_slice(&self, slice: Duration) -> Result<Duration, WaitError> {
        if self.wait.interrupted.is_some_and(|interrupted| interrupted()) {
            return Err(WaitError::Interrupted);
        }
        let (Some(deadline), Some(since)) = (self.wait.deadline, self.since) else {
            return Ok(slice);
        };
        let now = Instant::now();
        if now >= deadline {
            return Err(WaitError::Timeout { waited: now - since });
        }
        Ok(slice.min(deadline - now))
    }
}
