//! What is said between clients and servers, over `rpc-uds`.
//!
//! Requests and replies carry a structure in postcard's encoding ([`messages`]) and, where there are
//! values, a [`payload`] after it. Tags, codes and structures are only ever added to; golden files
//! hold their bytes.

pub(crate) mod bytes;
#[cfg(test)]
mod device_tests;
pub(crate) mod messages;
pub(crate) mod payload;
#[cfg(any(test, fuzzing))]
pub mod probe;
#[cfg(test)]
mod tests;

use std::fmt;

use thiserror::Error;

use super::value::OutsideRegion;

/// What came cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It ends too early, or announces more than there is.
    #[error("the message ends too early")]
    Cut,
    /// There is more than there should be.
    #[error("there are bytes after the end of the message")]
    Surplus,
    /// A structure that is none.
    #[error("the head of the message cannot be read")]
    Head,
    /// A number that is too large or not in its one form.
    #[error("a number in the message cannot be read")]
    Number,
    /// Text that is not UTF-8.
    #[error("a text in the message is not UTF-8")]
    Text,
    /// A code that this build does not know.
    #[error("{what} {found} is not known here: use releases that fit together")]
    Code {
        /// What kind of code.
        what: PayloadKind,
        /// The code.
        found: u64,
    },
    /// Values nested too deep.
    #[error("a value is nested deeper than {} levels", payload::DEPTH_MAX)]
    Depth,
    /// A dict's key that is none.
    #[error("a dict has a key that is neither a scalar nor a tuple of such")]
    Key,
    /// More of something than there may be.
    #[error("{found} {what} in one message")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many.
        found: usize,
    },
    /// Texts and byte strings that take more memory than the regions they are said to lie in.
    #[error("more bytes than there are: a text of {bytes} lies in regions with less memory")]
    Hollow {
        /// How many bytes the first one has that is too much.
        bytes: u64,
    },
    /// A number that names nothing.
    #[error("the message names {what} {number}, which it does not have")]
    Reference {
        /// What it names.
        what: &'static str,
        /// By which number.
        number: u64,
    },
    /// A storage over several regions that are not of one GPU.
    #[error("a storage goes on into a region that is elsewhere")]
    Span,
    /// A storage that waits for a word where nobody can write one.
    #[error("a storage waits for a word that is not in writable memory of the host")]
    Ready,
    /// Memory that is lent where it is, and is not lent by this process.
    #[error(
        "memory that is lent where it is (copy=False) came back to a process that does not lend it, or does \
         so no longer: pass a copy of it"
    )]
    Astray,
    /// A storage outside of its region.
    #[error("a storage leads out of its region: {0}")]
    Storage(OutsideRegion),
    /// A tensor outside of its storage.
    #[error("a tensor in the message is refused: {0}")]
    Tensor(String),
    /// A region that cannot be used.
    #[error("a region that came with the message is refused: {0}")]
    Region(String),
}

/// What a [`DecodeError::Code`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadKind {
    /// A value's first byte.
    Value,
    /// An element type.
    DType,
    /// The flags of a tensor.
    TensorFlags,
    /// The flags of a region.
    RegionFlags,
    /// The state of a task.
    TaskStatus,
    /// A request or reply.
    Tag,
}

impl fmt::Display for PayloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Value => "a value of kind",
            Self::DType => "the element type",
            Self::TensorFlags => "a tensor with flags",
            Self::RegionFlags => "a region with flags",
            Self::TaskStatus => "a task in state",
            Self::Tag => "a message of kind",
        })
    }
}
