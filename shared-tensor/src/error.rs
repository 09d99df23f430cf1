//! One error for the whole facade: a kind to branch on, a sentence to read, a source to follow.

use std::fmt;
use std::time::Duration;

/// The result of everything fallible in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as far as a program can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller passed something that cannot work; the message says what would.
    InvalidArgument,
    /// No stream of that name; on creation, no such directory.
    NotFound,
    /// A stream of that name exists.
    AlreadyExists,
    /// The file's mode does not allow it, or the handle was opened read-only.
    PermissionDenied,
    /// The name leads to something that is not a whole, sane stream.
    Corrupt,
    /// A stream of a layout that this build does not speak.
    Version,
    /// No space on the shared-memory file system, in the memory cgroup, or in a table of the stream.
    NoSpace,
    /// The process cannot have that much memory.
    OutOfMemory,
    /// A deadline passed.
    Timeout,
    /// The caller's interrupt said to stop waiting.
    Interrupted,
    /// The stream was unlinked, and holds nothing that this reader has not seen.
    Unlinked,
    /// The name leads to another stream than the one that was meant: one of another shape or type,
    /// or, when unlinking, a newer one.
    Changed,
    /// Nothing was published yet.
    Empty,
    /// The last write was aborted or its writer died (only with `OnAbort::Raise`).
    Inconsistent,
    /// This writer was declared dead while it wrote and the frame dropped; or it is a forked child
    /// that tried to write under its parent's lock.
    Fenced,
    /// A GPU is needed, or other than this one, or its driver refused.
    Device,
    /// Of a CUDA stream: the last process that held the frames has ended, and they are gone.
    NoHolder,
    /// The operating system refused.
    Os,
}

/// The error of this crate.
///
/// `Display` is one lowercase fragment that says what was found and what to do; [`Error::kind`] is
/// for programs. What the layers below said is part of the message; [`std::error::Error::source`]
/// goes on behind it, usually with the kernel's answer, so that a printed chain repeats nothing.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// An error that `source` caused. The message ends with what the source says.
    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(Box::new(source)) }
    }

    pub(crate) fn timeout(what: &str, waited: Duration) -> Self {
        Self::new(ErrorKind::Timeout, format!("waited {} for {what}", rounded(waited)))
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether there is no stream of that name.
    pub fn is_not_found(&self) -> bool {
        self.kind == ErrorKind::NotFound
    }

    /// Whether a deadline passed.
    pub fn is_timeout(&self) -> bool {
        self.kind == ErrorKind::Timeout
    }

    /// Whether the stream was unlinked.
    pub fn is_unlinked(&self) -> bool {
        self.kind == ErrorKind::Unlinked
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The message has the source's own words already.
        self.source.as_deref()?.source()
    }
}

/// A time as people say it: with no more digits than anybody wants to know.
fn rounded(time: Duration) -> String {
    let (number, unit) = match time.as_secs_f64() {
        seconds if seconds >= 1.0 => (seconds, "s"),
        seconds if seconds >= 1e-3 => (seconds * 1e3, "ms"),
        seconds => (seconds * 1e6, "us"),
    };
    let decimals = match number {
        number if number >= 100.0 => 0,
        number if number >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{number:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0') } else { &text };
    format!("{} {unit}", text.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::time::Duration;
    use std::{fmt, io};

    use super::{Error, ErrorKind};

    #[derive(Debug)]
    struct Refused(io::Error);

    impl fmt::Display for Refused {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`a` could not be opened")
        }
    }

    impl std::error::Error for Refused {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn times_have_three_digits() {
        for (microseconds, text) in [
            (0, "0 us"),
            (17, "17 us"),
            (1_500, "1.5 ms"),
            (201_123, "201 ms"),
            (300_000, "300 ms"),
            (1_000_049, "1 s"),
            (12_340_000, "12.3 s"),
            (600_000_000, "600 s"),
        ] {
            assert_eq!(super::rounded(Duration::from_micros(microseconds)), text);
        }
    }

    #[test]
    fn a_printed_chain_says_everything_once() {
        let source = Refused(io::Error::other("out of inodes"));
        let message = format!("cannot open stream `a`: {source}");
        let error = Error::with_source(ErrorKind::Os, message, source);
        let mut chain = vec![error.to_string()];
        let mut next = error.source();
        while let Some(cause) = next {
            chain.push(cause.to_string());
            next = cause.source();
        }
        assert_eq!(chain, ["cannot open stream `a`: `a` could not be opened", "out of inodes"]);
    }
}
