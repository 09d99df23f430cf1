//! Removal of what nobody uses any more.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::attach::{self, Claim};
use crate::error::{ListError, UnlinkError};
use crate::identity::Kind;
use crate::listing::{Listing, Skipped};
use crate::namespace::Namespace;
use crate::removal::{self, Unlinked};
use crate::stage::leads_to;
use crate::sys::file;

/// What a purge may remove. The default removes segments of every kind that nobody has open.
#[derive(Clone, Debug, Default)]
pub struct PurgeOptions {
    dry_run: bool,
    include_live: bool,
    kind: Option<Kind>,
}

impl PurgeOptions {
    /// Segments of every kind that nobody has open.
    pub fn new() -> PurgeOptions {
        PurgeOptions::default()
    }

    /// Only tells what would be removed.
    #[must_use]
    pub fn dry_run(mut self, dry_run: bool) -> PurgeOptions {
        self.dry_run = dry_run;
        self
    }

    /// Also the names of segments that somebody has open. Whoever has, keeps the memory.
    #[must_use]
    pub fn include_live(mut self, include_live: bool) -> PurgeOptions {
        self.include_live = include_live;
        self
    }

    /// Only segments of exactly this kind.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> PurgeOptions {
        self.kind = Some(kind);
        self
    }

    fn wants(&self, listing: &Listing) -> bool {
        self.kind.is_none_or(|kind| kind == listing.kind)
    }
}

/// What a purge did, or in a dry run would do.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct PurgeReport {
    /// Removed, sorted by name.
    pub removed: Vec<Listing>,
    /// Files of segments that were never finished, removed too.
    pub unfinished: Vec<PathBuf>,
    /// Left alone because somebody has them open.
    pub live: Vec<Listing>,
    /// Left alone because removal failed.
    pub failed: Vec<(Listing, UnlinkError)>,
    /// Files that start with the prefix and are no readable segments; never touched.
    pub skipped: Vec<Skipped>,
}

impl Namespace {
    /// Removes what nobody uses. A segment that somebody opens at the same time is either found
    /// live and left, or opened after its removal, which is "not found": never removed under a
    /// handle that was just given out.
    pub fn purge(&self, options: &PurgeOptions) -> Result<PurgeReport, ListError> {
        let scan = self.scan()?;
        let mut report = PurgeReport { skipped: scan.skipped, ..PurgeReport::default() };
        for listing in scan.segments.into_iter().filter(|listing| options.wants(listing)) {
            if listing.attached && !options.include_live {
                report.live.push(listing);
                continue;
            }
            if options.dry_run {
                report.removed.push(listing);
                continue;
            }
            match self.purge_one(&listing, options) {
                Ok(Some(Unlinked::Removed(_))) => report.removed.push(listing),
                // Somebody else was faster, or the name got a new segment.
                Ok(Some(Unlinked::Absent | Unlinked::Replaced(_))) => {}
                Ok(None) => report.live.push(Listing { attached: true, ..listing }),
                Err(error) => report.failed.push((listing, error)),
            }
        }
        for path in scan.unfinished {
            // One that cannot be looked at belongs to somebody else.
            if purge_unfinished(&path, options.dry_run).unwrap_or(false) {
                report.unfinished.push(path);
            }
        }
        Ok(report)
    }

    fn purge_one(
        &self,
        listing: &Listing,
        options: &PurgeOptions,
    ) -> Result<Option<Unlinked>, UnlinkError> {
        if options.include_live {
            return self.unlink_generation(&listing.name, listing.generation).map(Some);
        }
        removal::unlink_dead(&listing.path, &listing.name, listing.generation)
    }
}

/// Removes the temporary file of a creator that died; `false`: it is alive.
fn purge_unfinished(path: &Path, dry_run: bool) -> io::Result<bool> {
    let fd = file::open_existing(path, true)?;
    let status = file::status(fd.as_fd())?;
    if !status.is_regular() {
        return Ok(false);
    }
    // With a second name the segment is published, and this one is left over.
    let published = status.links > 1;
    if dry_run {
        return Ok(published || !attach::is_attached_elsewhere(fd.as_fd())?);
    }
    let Some(claim) = Claim::take(fd.as_fd())? else { return Ok(false) };
    if !published && !claim.exclude()? {
        return Ok(false);
    }
    if !leads_to(path, status.identity)? {
        return Ok(false);
    }
    file::unlink(path)?;
    Ok(true)
}
