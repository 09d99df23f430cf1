//! Streams by name, without attaching to them: what exists, what it is, and removal.

use std::sync::Arc;

use shm_core::{Access, Generation, Listing, Namespace, Segment, SegmentName, Unlinked};
use shm_lock::Onlooker;
use shm_lock::park::wake_all_low_half;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::{Ctl, Phase, Seq};
use crate::ring::{RingLoads, arrivals, entomb};
use crate::stream::attachment::{Attachment, Role, map_control};
use crate::stream::info::{StreamInfo, newest_publication};
use crate::stream::layout::{CONTROL_OFFSET, Control, KIND, PARTICIPANTS_OFFSET};
use crate::stream::open::{open_error, parse_name};
use crate::sync::Ordering;
use crate::sys::ObservedControl;

/// The names of all streams of a namespace, sorted. Files that are no streams, or that this user
/// may not read, are passed over.
///
/// # Errors
/// [`ErrorKind::Os`] if the directory cannot be read.
pub fn list(namespace: &Namespace) -> Result<Vec<String>> {
    Ok(listings(namespace)?
        .into_iter()
        .filter(|listing| listing.kind.magic == KIND.magic)
        .map(|listing| listing.name.as_str().to_owned())
        .collect())
}

fn listings(namespace: &Namespace) -> Result<Vec<Listing>> {
    namespace.list().map_err(|source| {
        Error::with_source(ErrorKind::Os, format!("cannot list streams: {source}"), source)
    })
}

/// What is known about a stream without attaching to it: nothing of it is written, no payload is
/// mapped.
///
/// # Errors
/// As [`Stream::open`](crate::stream::Stream::open).
pub fn stat(namespace: &Namespace, name: &str) -> Result<StreamInfo> {
    let name = parse_name(name)?;
    let segment = Segment::open(namespace, &name, Access::ReadOnly, KIND)
        .map_err(|source| open_error(&name, source))?;
    let (control, layout) = map_control(&segment, Access::ReadOnly)?;
    let observed = ObservedControl::new(control).map_err(|source| {
        Error::with_source(ErrorKind::Corrupt, format!("control page: {source}"), source)
    })?;
    let ctl = Ctl(observed.ctl(Ordering::Acquire));
    let newest = newest_publication(&Glance { observed: &observed, slots: layout.slots }, |slot| {
        observed.description(slot)
    });
    let mut info = StreamInfo::of(&segment, &layout, ctl, newest, observed.writer_counters());
    if ctl.phase() == Phase::Writing && writer_is_gone(&segment, &observed, ctl) {
        info.has_crashed("its writer died during a write, which the next write repairs".to_owned());
    }
    Ok(info)
}

/// Whether the write that `ctl` shows in progress was left behind; what cannot be told counts as not.
fn writer_is_gone(segment: &Segment, observed: &ObservedControl, ctl: Ctl) -> bool {
    let Ok(onlooker) = segment.reopen().and_then(Onlooker::new) else { return false };
    let is_same = || Ctl(observed.ctl(Ordering::Acquire)).same_for_writer(ctl);
    // Without a holder, somebody let the lock go without finishing.
    is_same() && observed.holder_is_gone(&onlooker).unwrap_or(true) && is_same()
}

/// A control page that is only looked at.
struct Glance<'a> {
    observed: &'a ObservedControl,
    slots: usize,
}

impl RingLoads for Glance<'_> {
    fn slots(&self) -> usize {
        self.slots
    }

    fn ctl(&self, order: Ordering) -> Ctl {
        Ctl(self.observed.ctl(order))
    }

    fn seq(&self, slot: usize, order: Ordering) -> Seq {
        Seq(self.observed.seq(slot, order))
    }
}

/// Removes a name. Everybody who waits on the stream is told; handles keep their memory; nobody's
/// lock is waited for. `false`: there was no such name.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`]; [`ErrorKind::Corrupt`] if the file is no stream.
pub fn unlink(namespace: &Namespace, name: &str) -> Result<bool> {
    let name = parse_name(name)?;
    loop {
        let segment = match Segment::open(namespace, &name, Access::ReadWrite, KIND) {
            Ok(segment) => segment,
            Err(shm_core::OpenError::NotFound { .. }) => return Ok(false),
            Err(shm_core::OpenError::PermissionDenied { .. }) => return Err(may_not_unlink(&name)),
            Err(source) => return Err(open_error(&name, source)),
        };
        match unlink_segment(&segment)? {
            Unlinked::Removed(_) => return Ok(true),
            Unlinked::Absent => return Ok(false),
            // Somebody else removed and created it between: that one is meant now.
            Unlinked::Replaced(_) => {}
        }
    }
}

/// Removes the names of streams that no process is attached to, or of all with `include_live`.
/// With `dry_run` nothing is removed. Returns the names, sorted.
///
/// # Errors
/// [`ErrorKind::Os`] if the directory cannot be read. Streams that may not be removed are passed
/// over.
pub fn purge(namespace: &Namespace, include_live: bool, dry_run: bool) -> Result<Vec<String>> {
    let mut purged = Vec::new();
    for listing in listings(namespace)? {
        if listing.kind.magic != KIND.magic || (listing.attached && !include_live) {
            continue;
        }
        let name = listing.name.as_str();
        if dry_run || unlink_generation(namespace, name, listing.generation)? {
            purged.push(name.to_owned());
        }
    }
    Ok(purged)
}

/// Removes a name if it still leads to this generation. `false`: it does not, or may not be
/// removed.
fn unlink_generation(namespace: &Namespace, name: &str, generation: Generation) -> Result<bool> {
    let name = parse_name(name)?;
    let Ok(segment) = Segment::open(namespace, &name, Access::ReadWrite, KIND) else {
        return Ok(false);
    };
    if segment.generation() != generation {
        return Ok(false);
    }
    match unlink_segment(&segment) {
        Ok(outcome) => Ok(matches!(outcome, Unlinked::Removed(_))),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the name of an attached stream if it still leads there.
pub(crate) fn unlink_attached(attachment: &Arc<Attachment>, namespace: &Namespace) -> Result<bool> {
    if let Role::Observer(_) = attachment.role {
        return Err(may_not_unlink(attachment.segment.name()));
    }
    match unlink_segment(&attachment.segment)? {
        Unlinked::Removed(_) => Ok(true),
        Unlinked::Absent => Ok(false),
        Unlinked::Replaced(generation) => Err(Error::new(
            ErrorKind::Changed,
            format!(
                "stream `{}` in `{}` is a newer generation ({generation}) than this handle's ({}): \
                 nothing was removed",
                attachment.name(),
                namespace.directory().display(),
                attachment.segment.generation()
            ),
        )),
    }
}

fn may_not_unlink(name: &SegmentName) -> Error {
    let message = format!("stream `{name}` may only be unlinked by a user who may write it");
    Error::new(ErrorKind::PermissionDenied, message)
}

/// Removes the name, then marks the memory: whoever sees the mark finds the name gone.
fn unlink_segment(segment: &Segment) -> Result<Unlinked> {
    let outcome = segment.unlink().map_err(|source| {
        let kind = match source {
            shm_core::UnlinkError::PermissionDenied { .. } => ErrorKind::PermissionDenied,
            _ => ErrorKind::Os,
        };
        let message = format!("cannot unlink stream `{}`: {source}", segment.name().as_str());
        Error::with_source(kind, message, source)
    })?;
    if let Unlinked::Removed(_) = outcome {
        let page =
            segment.map(0..PARTICIPANTS_OFFSET as u64, Access::ReadWrite).map_err(|source| {
                let message = format!("cannot map stream `{}`: {source}", segment.name());
                Error::with_source(ErrorKind::Os, message, source)
            })?;
        let control = page.at::<Control>(CONTROL_OFFSET).map_err(|source| {
            Error::with_source(ErrorKind::Corrupt, format!("control page: {source}"), source)
        })?;
        entomb(&control.ctl.0);
        wake_all_low_half(&control.ctl.0);
        arrivals::tell(&control.arrivals.0);
        wake_all_low_half(&control.arrivals.0);
    }
    Ok(outcome)
}

/// The stream that an unlinked stream's name leads to now.
pub(crate) fn successor(
    attachment: &Attachment,
    namespace: &Namespace,
) -> Result<Option<Arc<Attachment>>> {
    let name: &SegmentName = attachment.segment.name();
    match crate::stream::open::attach(namespace, name) {
        Ok(found) if found.segment.generation() == attachment.segment.generation() => Ok(None),
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
