//! What can go wrong, by operation.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// Why a process could not register on a lock's memory.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// Every entry of the table belongs to a living participant.
    #[error(
        "the participant table is full: all {limit} entries belong to living participants; \
         close some, or create the memory with a larger table"
    )]
    Full {
        /// How many participants the table has room for.
        limit: usize,
    },
    /// [`Memory::capacity`](crate::Memory::capacity) exceeds what the lock word can name.
    #[error("the memory claims room for {found} participants, a lock word can name {limit}")]
    Capacity {
        /// The capacity that the memory gave.
        found: usize,
        /// [`PARTICIPANTS_MAX`](crate::PARTICIPANTS_MAX).
        limit: usize,
    },
    /// The head of the table holds a next id that no sequence of joins can have produced.
    #[error("the roster's next id is {found}, above the largest id {limit}: the memory is damaged")]
    IdsExhausted {
        /// The id found.
        found: u64,
        /// The largest id there is.
        limit: u64,
    },
    /// [`Memory::reopen`](crate::Memory::reopen) failed.
    #[error("cannot open the memory's file again, which a participant must hold a lock on")]
    Reopen(#[source] io::Error),
    /// [`Memory::reopen`](crate::Memory::reopen) gave two descriptors that are not separate open
    /// file descriptions of one inode.
    #[error(
        "`Memory::reopen` must open the same file anew each time: {found}; open the path or \
         `/proc/self/fd/N`, do not duplicate a descriptor"
    )]
    NotReopened {
        /// What was wrong with the descriptors.
        found: &'static str,
    },
    /// The lock that shows this participant alive could not be taken or kept.
    #[error("cannot {step} that shows this participant alive")]
    Pin {
        /// What was being done.
        step: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// [`Memory::prepare`](crate::Memory::prepare) failed.
    #[error("cannot prepare entry {slot} of the participant table")]
    Prepare {
        /// The entry.
        slot: usize,
        /// What the memory's owner answered.
        #[source]
        source: io::Error,
    },
    /// Other threads of the process forked through every attempt to register.
    #[error("the process forked during each of {attempts} attempts to register; try again")]
    Forking {
        /// How often it was tried.
        attempts: u32,
    },
}

/// Why a wait ended without what it waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The deadline passed.
    #[error("waited {waited:.1?} without being notified")]
    Timeout {
        /// How long the operation waited.
        waited: Duration,
    },
    /// The closure given to [`Wait::interruptible`](crate::Wait::interruptible) said so.
    #[error("the wait was interrupted")]
    Interrupted,
}

/// Why a lock was not obtained.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// The deadline passed.
    #[error("waited {waited:.1?} for the lock, {}", held_by(*.holder))]
    Timeout {
        /// How long the operation waited.
        waited: Duration,
        /// The process that held the lock last, in its own pid namespace, if it could be read.
        holder: Option<u32>,
    },
    /// The closure given to [`Wait::interruptible`](crate::Wait::interruptible) said so.
    #[error("waiting for the lock was interrupted")]
    Interrupted,
    /// An attempt without waiting found the lock taken.
    #[error("the lock is taken, {}", held_by(*.holder))]
    WouldBlock {
        /// The process that held the lock, in its own pid namespace, if it could be read.
        holder: Option<u32>,
    },
    /// This process could not register first.
    #[error("cannot register for the lock")]
    Join(#[from] JoinError),
    /// The lock file holds something that no lock wrote: it was left as it is.
    #[error(
        "`{}` is not a lock file: it holds other data; give the lock a path of its own", path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The lock file could not be worked with.
    #[error("cannot {step} lock file `{}`", path.display())]
    File {
        /// What was being done.
        step: &'static str,
        /// The lock file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl AcquireError {
    /// The waiting ended by its deadline, or there was to be none and the lock was taken.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::WouldBlock { .. })
    }

    pub(crate) fn from_wait(error: WaitError, holder: Option<u32>) -> Self {
        match error {
            WaitError::Timeout { waited } => Self::Timeout { waited, holder },
            WaitError::Interrupted => Self::Interrupted,
        }
    }
}

fn held_by(holder: Option<u32>) -> String {
    match holder {
        Some(pid) => format!("held by pid {pid}"),
        None => "held by an unknown process".to_owned(),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_was_found_and_what_to_do() {
        let five = Duration::from_secs(5);
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let told: [(String, &str); 14] = [
            (
                JoinError::Full { limit: 3 }.to_string(),
                "the participant table is full: all 3 entries belong to living participants; \
                 close some, or create the memory with a larger table",
            ),
            (
                JoinError::Capacity { found: 2000, limit: 1022 }.to_string(),
                "the memory claims room for 2000 participants, a lock word can name 1022",
            ),
            (
                JoinError::IdsExhausted { found: 9, limit: 8 }.to_string(),
                "the roster's next id is 9, above the largest id 8: the memory is damaged",
            ),
            (
                JoinError::Reopen(denied()).to_string(),
                "cannot open the memory's file again, which a participant must hold a lock on",
            ),
            (
                JoinError::NotReopened { found: "two calls led to two different files" }
                    .to_string(),
                "`Memory::reopen` must open the same file anew each time: two calls led to two \
                 different files; open the path or `/proc/self/fd/N`, do not duplicate a \
                 descriptor",
            ),
            (
                JoinError::Pin { step: "take the lock", source: denied() }.to_string(),
                "cannot take the lock that shows this participant alive",
            ),
            (
                JoinError::Prepare { slot: 7, source: denied() }.to_string(),
                "cannot prepare entry 7 of the participant table",
            ),
            (
                JoinError::Forking { attempts: 64 }.to_string(),
                "the process forked during each of 64 attempts to register; try again",
            ),
            (WaitError::Timeout { waited: five }.to_string(), "waited 5.0s without being notified"),
            (WaitError::Interrupted.to_string(), "the wait was interrupted"),
            (
                AcquireError::Timeout { waited: five, holder: Some(4711) }.to_string(),
                "waited 5.0s for the lock, held by pid 4711",
            ),
            (
                AcquireError::WouldBlock { holder: None }.to_string(),
                "the lock is taken, held by an unknown process",
            ),
            (AcquireError::Interrupted.to_string(), "waiting for the lock was interrupted"),
            (
                AcquireError::File { step: "open", path: "/a/b".into(), source: denied() }
                    .to_string(),
                "cannot open lock file `/a/b`",
            ),
        ];
        for (found, expected) in told {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_refused_registration_is_the_source_of_a_refused_lock() {
        let refused = AcquireError::from(JoinError::Full { limit: 1 });
        assert_eq!(refused.to_string(), "cannot register for the lock");
        let source = std::error::Error::source(&refused).map(ToString::to_string);
        assert!(source.is_some_and(|text| text.starts_with("the participant table is full")));
    }
}
