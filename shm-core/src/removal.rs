//! Removal of names: never the wrong generation.
//!
//! "Look, then unlink" removes whatever took the name in between. Here the remover holds a write
//! lock on a byte of the *inode*, looks again whether the name still leads to that inode, and only
//! then unlinks: while it holds the lock nobody else (of this crate) can free the name, so nobody
//! can put another file under it.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::attach::Claim;
use crate::error::{OpenError, UnlinkError};
use crate::identity::{Access, Generation};
use crate::name::SegmentName;
use crate::patience::Patience;
use crate::probe::{self, Found};
use crate::stage::leads_to;
use crate::sys::file;

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlinked {
    /// This generation's name was removed by this call.
    Removed(Generation),
    /// The name did not exist (any more).
    Absent,
    /// The name leads to this other generation, which was left alone.
    Replaced(Generation),
}

/// One attempt on the file that stood under the name at one moment.
enum Attempt {
    Done(Unlinked),
    /// The name moved on, or another remover is at work: look again.
    Again,
    /// Somebody is attached, and the caller wants none.
    Attached,
}

/// Removes `path`, whoever is attached; with `expected`, only that generation.
pub(crate) fn unlink(
    path: &Path,
    name: &SegmentName,
    expected: Option<Generation>,
) -> Result<Unlinked, UnlinkError> {
    match remove(path, name, expected, true)? {
        Some(done) => Ok(done),
        None => unreachable!("attached segments are removed when asked to"),
    }
}

/// Removes `path` if it is the generation `expected` and nobody is attached; `None`: somebody is.
pub(crate) fn unlink_dead(
    path: &Path,
    name: &SegmentName,
    expected: Generation,
) -> Result<Option<Unlinked>, UnlinkError> {
    remove(path, name, Some(expected), false)
}

fn remove(
    path: &Path,
    name: &SegmentName,
    expected: Option<Generation>,
    even_attached: bool,
) -> Result<Option<Unlinked>, UnlinkError> {
    let mut patience = Patience::new();
    loop {
        let found = match probe::open(path, Access::ReadWrite) {
            Ok(found) => found,
            Err(OpenError::NotFound { .. }) => return Ok(Some(Unlinked::Absent)),
            Err(OpenError::PermissionDenied { path, source, .. }) => {
                return Err(UnlinkError::PermissionDenied { path, source });
            }
            Err(source) => return Err(UnlinkError::Foreign { path: path.to_owned(), source }),
        };
        found
            .expect_name(path, name)
            .map_err(|source| UnlinkError::Foreign { path: path.to_owned(), source })?;
        match attempt(&found, path, expected, even_attached)? {
            Attempt::Done(done) => return Ok(Some(done)),
            Attempt::Attached => return Ok(None),
            Attempt::Again => {}
        }
        drop(found);
        if !patience.wait() {
            return Err(UnlinkError::Busy { path: path.to_owned() });
        }
    }
}

fn attempt(
    found: &Found,
    path: &Path,
    expected: Option<Generation>,
    even_attached: bool,
) -> Result<Attempt, UnlinkError> {
    let generation = found.header.generation;
    if expected.is_some_and(|expected| expected != generation) {
        return Ok(Attempt::Done(Unlinked::Replaced(generation)));
    }
    let fd = found.fd.as_fd();
    let Some(claim) = Claim::take(fd).map_err(os(path, "fcntl"))? else {
        return Ok(Attempt::Again);
    };
    if !even_attached && !claim.exclude().map_err(os(path, "fcntl"))? {
        return Ok(Attempt::Attached);
    }
    if !leads_to(path, found.status.identity).map_err(os(path, "lstat"))? {
        return Ok(Attempt::Again);
    }
    match file::unlink(path) {
        Ok(()) => Ok(Attempt::Done(Unlinked::Removed(generation))),
        // Removed by hand in the last instant.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Attempt::Again),
        Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
            Err(UnlinkError::PermissionDenied { path: path.to_owned(), source })
        }
        Err(source) => Err(os(path, "unlink")(source)),
    }
}

fn os(path: &Path, call: &'static str) -> impl Fn(io::Error) -> UnlinkError {
    move |source| UnlinkError::Os { path: path.to_owned(), call, source }
}
