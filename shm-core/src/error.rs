//! What can go wrong, one enum per family of operations.
//!
//! Messages are fragments that complete "failed to ...: "; each names the file and what to do.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;

use crate::headroom::Shortage;
use crate::identity::Kind;

/// Why a namespace cannot be described.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NamespaceError {
    /// The prefix cannot start a file name.
    #[error("the prefix `{}` {problem}", .prefix.escape_debug())]
    Prefix {
        /// The prefix found.
        prefix: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The directory could not be made absolute.
    #[error("the directory `{}` cannot be made absolute; give an absolute path", .directory.display())]
    Directory {
        /// The directory found.
        directory: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// What is there is no directory.
    #[error("`{}` is not a directory; give one, such as /dev/shm", .directory.display())]
    NotADirectory {
        /// What was given, absolute.
        directory: PathBuf,
    },
}

/// Why a segment was not created. Nothing is left behind.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The name is taken, by a segment or by any other file.
    #[error("`{}` exists already; open it, unlink it or choose another name", .path.display())]
    AlreadyExists {
        /// The file that stands there.
        path: PathBuf,
    },
    /// The size cannot be that of a segment.
    #[error(
        "a segment cannot have {total_bytes} bytes; ask for at least 512 and no more than a signed 64-bit number holds"
    )]
    Size {
        /// The size asked for.
        total_bytes: u64,
    },
    /// A range to reserve does not lie in the segment.
    #[error("the range {range:?} to reserve does not lie in the segment's {total_bytes} bytes")]
    ReserveRange {
        /// The range asked for.
        range: Range<u64>,
        /// The size asked for.
        total_bytes: u64,
    },
    /// The mode would lock the owner out, or sets more than permission bits.
    #[error("mode {mode:#o} is not usable; grant the owner 0o600 and at most 0o777")]
    Mode {
        /// The mode asked for.
        mode: u32,
    },
    /// There is no room.
    #[error("no room for `{}`: {shortage}", .path.display())]
    NoSpace {
        /// The segment's file.
        path: PathBuf,
        /// What is short, and what helps.
        shortage: Shortage,
    },
    /// The directory does not admit new files.
    #[error(
        "no permission to create `{}`; make the directory writable or choose another", .path.display()
    )]
    PermissionDenied {
        /// The segment's file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The directory is missing.
    #[error("the directory `{}` does not exist; create it or choose another", .directory.display())]
    NoDirectory {
        /// The directory of the namespace.
        directory: PathBuf,
    },
    /// The group could not be given.
    #[error("group {gid} cannot own `{}`; choose a group that this process belongs to", .path.display())]
    Group {
        /// The group asked for.
        gid: u32,
        /// The segment's file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The caller's own initialisation failed.
    #[error("`{}` could not be initialised", .path.display())]
    Init {
        /// The segment's file.
        path: PathBuf,
        /// What the initialisation returned.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a step.
    #[error("`{}` could not be created: {call} failed", .path.display())]
    Os {
        /// The segment's file.
        path: PathBuf,
        /// The step.
        call: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Why a segment was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such name.
    #[error("`{}` does not exist; create it first, or check name and directory", .path.display())]
    NotFound {
        /// The segment's file.
        path: PathBuf,
    },
    /// The file's mode refuses this access.
    #[error("no permission to open `{}` for {}; {}", .path.display(), access_words(*.writable), access_advice(*.writable))]
    PermissionDenied {
        /// The segment's file.
        path: PathBuf,
        /// Whether writing was asked for.
        writable: bool,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Something else stands under the name, or a damaged segment.
    #[error("`{}` is not a segment: {reason}; remove it by hand if nobody needs it", .path.display())]
    NotASegment {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A segment of another format.
    #[error("`{}` holds {found}, expected {expected}; choose another name", .path.display())]
    OtherKind {
        /// The segment's file.
        path: PathBuf,
        /// The format found.
        found: Kind,
        /// The format asked for.
        expected: Kind,
    },
    /// The right format in another version.
    #[error(
        "`{}` holds version {found} of its format, this program reads {expected}; let both sides run the same release",
        .path.display()
    )]
    Version {
        /// The segment's file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version asked for.
        expected: u32,
    },
    /// A segment whose header has another layout.
    #[error(
        "`{}` has segment layout {found}, this build reads {expected}; let both sides run the same release",
        .path.display()
    )]
    Layout {
        /// The segment's file.
        path: PathBuf,
        /// The layout found.
        found: u32,
        /// The layout of this build.
        expected: u32,
    },
    /// The file was created for another name: it was renamed, or two names share a hash.
    #[error("`{}` was created as `{}`; it was renamed or two long names collide", .path.display(), .found.escape_debug())]
    NameMismatch {
        /// The segment's file.
        path: PathBuf,
        /// The name stored in it, as it stands there: escape it before you show it.
        found: String,
    },
    /// Somebody is removing it at this moment, and does not come to an end.
    #[error("`{}` is being removed by another process that does not end; resume or kill it", .path.display())]
    Busy {
        /// The segment's file.
        path: PathBuf,
    },
    /// The kernel refused a step.
    #[error("`{}` could not be opened: {call} failed", .path.display())]
    Os {
        /// The segment's file.
        path: PathBuf,
        /// The step.
        call: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

fn access_words(writable: bool) -> &'static str {
    if writable { "reading and writing" } else { "reading" }
}

fn access_advice(writable: bool) -> &'static str {
    if writable {
        "open it read-only, or let its owner widen the mode"
    } else {
        "let its owner widen the mode"
    }
}

/// Why a name was not removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnlinkError {
    /// The file or its directory refuses.
    #[error("no permission to remove `{}`; only its owner may, with write access to it", .path.display())]
    PermissionDenied {
        /// The segment's file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// What stands under the name is not this crate's to remove.
    #[error("`{}` is left alone: it is not the segment that was named", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        #[source]
        source: OpenError,
    },
    /// Another remover holds the file and does not come to an end.
    #[error("`{}` is being removed by another process that does not end; resume or kill it", .path.display())]
    Busy {
        /// The segment's file.
        path: PathBuf,
    },
    /// The kernel refused a step.
    #[error("`{}` could not be removed: {call} failed", .path.display())]
    Os {
        /// The segment's file.
        path: PathBuf,
        /// The step.
        call: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Why a directory could not be listed. Single bad files are skipped, never an error.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListError {
    /// The directory could not be read.
    #[error("the directory `{}` cannot be read", .directory.display())]
    Directory {
        /// The directory of the namespace.
        directory: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Why a range was not mapped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MapError {
    /// Empty, reversed or beyond the end.
    #[error(
        "the range {range:?} does not lie in the {total_bytes} bytes there are; map a part of them"
    )]
    Range {
        /// The range asked for.
        range: Range<u64>,
        /// The size of the object.
        total_bytes: u64,
    },
    /// The start is not at a page.
    #[error("the range starts at {start}, which is no multiple of the page size {page_bytes}")]
    Misaligned {
        /// The start asked for.
        start: u64,
        /// The size of the object's pages.
        page_bytes: u64,
    },
    /// Writing was asked of a read-only handle.
    #[error("a writable mapping needs a handle opened for writing")]
    ReadOnly,
    /// A private mapping was asked of a region on pages of the huge page pool.
    #[error("a private mapping needs a region on ordinary pages; map it shared or read-only")]
    HugePages,
    /// The kernel refused.
    #[error("the range {range:?} could not be mapped")]
    Os {
        /// The range asked for.
        range: Range<u64>,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Why memory was not reserved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// Reversed or beyond the end.
    #[error("the range {range:?} does not lie in the segment's {total_bytes} bytes")]
    Range {
        /// The range asked for.
        range: Range<u64>,
        /// The size of the segment.
        total_bytes: u64,
    },
    /// The handle may not write.
    #[error("reserving needs a handle opened for writing")]
    ReadOnly,
    /// There is no room. A first part of the range may have been reserved.
    #[error("no room in `{}`: {shortage}", .path.display())]
    NoSpace {
        /// The segment's file.
        path: PathBuf,
        /// What is short, and what helps.
        shortage: Shortage,
    },
    /// The kernel refused.
    #[error("`{}` could not reserve {range:?}", .path.display())]
    Os {
        /// The segment's file.
        path: PathBuf,
        /// The range asked for.
        range: Range<u64>,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Why an anonymous region was not made or not accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The size cannot be that of a region.
    #[error(
        "a region cannot have {bytes} bytes; ask for at least one and no more than a signed 64-bit number holds"
    )]
    Size {
        /// The size asked for.
        bytes: u64,
    },
    /// The label does not fit the kernel's field.
    #[error("the label has {bytes} bytes or holds a NUL; at most 249 bytes without NUL fit")]
    Label {
        /// The length found.
        bytes: usize,
    },
    /// There is no room.
    #[error("no room for a region of {bytes} bytes: {shortage}")]
    NoSpace {
        /// The size asked for.
        bytes: u64,
        /// What is short, and what helps.
        shortage: Shortage,
    },
    /// A received descriptor is no region.
    #[error("the descriptor is not a region: {reason}")]
    NotARegion {
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused a step.
    #[error("the region is not usable: {call} failed")]
    Os {
        /// The step.
        call: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}
