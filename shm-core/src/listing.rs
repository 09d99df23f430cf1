//! What is in a namespace.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::attach;
use crate::creator::Creator;
use crate::error::{ListError, OpenError, UnlinkError};
use crate::identity::{Access, Generation, Identity, Kind};
use crate::name::SegmentName;
use crate::namespace::{Entry, Namespace};
use crate::probe;
use crate::removal::{self, Unlinked};
use crate::segment::Owner;
use crate::sys::file;

/// One segment, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing {
    /// Its name.
    pub name: SegmentName,
    /// Its file.
    pub path: PathBuf,
    /// The generation drawn at its creation.
    pub generation: Generation,
    /// The format of its contents.
    pub kind: Kind,
    /// Its size in bytes.
    pub total_bytes: u64,
    /// The memory it takes, in bytes: less than its size where it has holes.
    pub allocated_bytes: u64,
    /// Who made it, and when.
    pub creator: Creator,
    /// The file behind it.
    pub identity: Identity,
    /// Owner, group and permission bits of the file.
    pub owner: Owner,
    /// Whether any process has it open or mapped. A child that a holder has just forked counts
    /// until it has called exec.
    pub attached: bool,
}

/// A file of the namespace that is not listed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Skipped {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: OpenError,
}

/// Everything found in a namespace.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Scan {
    /// The segments, sorted by name.
    pub segments: Vec<Listing>,
    /// Files that start with the prefix and are no readable segments.
    pub skipped: Vec<Skipped>,
    /// Files of segments that are not finished: their creators are at work or have died.
    pub unfinished: Vec<PathBuf>,
}

impl Namespace {
    /// The segments of this namespace, sorted by name. Foreign, damaged and unreadable files are
    /// left out; [`scan`](Namespace::scan) tells about them.
    pub fn list(&self) -> Result<Vec<Listing>, ListError> {
        Ok(self.scan()?.segments)
    }

    /// As [`list`](Namespace::list), with what was left out and why.
    pub fn scan(&self) -> Result<Scan, ListError> {
        let names = file::names_in(self.directory()).map_err(|source| ListError::Directory {
            directory: self.directory().to_owned(),
            source,
        })?;
        let mut scan = Scan::default();
        for file_name in names {
            let path = self.directory().join(&file_name);
            // Encoded names are ASCII, so other files are not ours.
            match file_name.to_str().and_then(|name| self.holds(name)) {
                None => {}
                Some(Entry::Temporary) => scan.unfinished.push(path),
                Some(Entry::Segment) => match self.look_at(&path) {
                    Ok(listing) => scan.segments.push(listing),
                    // Removed between the two looks.
                    Err(OpenError::NotFound { .. }) => {}
                    Err(reason) => scan.skipped.push(Skipped { path, reason }),
                },
            }
        }
        scan.segments.sort_by(|a, b| a.name.cmp(&b.name));
        scan.skipped.sort_by(|a, b| a.path.cmp(&b.path));
        scan.unfinished.sort();
        Ok(scan)
    }

    fn look_at(&self, path: &Path) -> Result<Listing, OpenError> {
        let found = probe::open(path, Access::ReadOnly)?;
        let name = &found.header.name;
        if self.path_of(name) != path {
            let found = name.to_string();
            return Err(OpenError::NameMismatch { path: path.to_owned(), found });
        }
        Ok(Listing {
            path: path.to_owned(),
            generation: found.header.generation,
            kind: found.header.kind,
            total_bytes: found.header.total_bytes,
            allocated_bytes: found.status.allocated_bytes,
            creator: found.header.creator,
            identity: found.status.identity,
            owner: Owner { uid: found.status.uid, gid: found.status.gid, mode: found.status.mode },
            attached: attach::is_attached_elsewhere(found.fd.as_fd())
                .map_err(probe::os(path, "fcntl"))?,
            name: found.header.name,
        })
    }

    /// Removes the name, whoever is attached: those who have the segment open keep it.
    pub fn unlink(&self, name: &SegmentName) -> Result<Unlinked, UnlinkError> {
        removal::unlink(&self.path_of(name), name, None)
    }

    /// Removes the name if it leads to this generation, and leaves any other alone.
    pub fn unlink_generation(
        &self,
        name: &SegmentName,
        generation: Generation,
    ) -> Result<Unlinked, UnlinkError> {
        removal::unlink(&self.path_of(name), name, Some(generation))
    }
}
