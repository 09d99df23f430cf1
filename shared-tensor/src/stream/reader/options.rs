//! How a reader behaves.

use crate::stream::wait::Spin;

/// What a reader makes of a stream whose last write was aborted or crashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnAbort {
    /// Serve the last good frame and say so in [`Publication::phase`](crate::stream::Publication::phase).
    #[default]
    Serve,
    /// Fail with [`ErrorKind::Inconsistent`](crate::ErrorKind::Inconsistent) until the next good write.
    Raise,
}

/// What a reader makes of a write in progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnWriting {
    /// Serve the last complete frame: no read waits for a writer.
    #[default]
    Serve,
    /// Wait until that write has ended, then serve the newest frame: what a read gives is at least as
    /// new as what was being written when it began. A write ends with its writer, too, and what follows
    /// then is for [`OnAbort`] to say.
    Wait,
}

/// What a reader makes of a stream that has published nothing yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnEmpty {
    /// Fail with [`ErrorKind::Empty`](crate::ErrorKind::Empty).
    #[default]
    Raise,
    /// Serve a frame of zeros with count 0.
    Zeros,
}

/// How a [`Reader`](crate::stream::Reader) behaves. Start from the default and set what differs:
///
/// ```
/// use shared_tensor::stream::ReaderOptions;
///
/// let options = ReaderOptions::new().reattach(true);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderOptions {
    /// How long waits spin before they park.
    pub spin: Spin,
    /// After an aborted or crashed write.
    pub on_abort: OnAbort,
    /// While a write is in progress.
    pub on_writing: OnWriting,
    /// Before the first write.
    pub on_empty: OnEmpty,
    /// When the name is unlinked and created anew with the same shape and type, go on with the new
    /// stream instead of failing. Who only asks for the newest frame goes on as soon as the new
    /// stream has one.
    pub reattach: bool,
}

impl ReaderOptions {
    /// The default.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long waits spin before they park.
    #[must_use]
    pub fn spin(mut self, spin: Spin) -> Self {
        self.spin = spin;
        self
    }

    /// What an aborted or crashed write means to reads.
    #[must_use]
    pub fn on_abort(mut self, on_abort: OnAbort) -> Self {
        self.on_abort = on_abort;
        self
    }

    /// What a write in progress means to reads.
    #[must_use]
    pub fn on_writing(mut self, on_writing: OnWriting) -> Self {
        self.on_writing = on_writing;
        self
    }

    /// What reads give before the first write.
    #[must_use]
    pub fn on_empty(mut self, on_empty: OnEmpty) -> Self {
        self.on_empty = on_empty;
        self
    }

    /// Whether to go on with a successor of the same name, shape and type.
    #[must_use]
    pub fn reattach(mut self, reattach: bool) -> Self {
        self.reattach = reattach;
        self
    }
}
