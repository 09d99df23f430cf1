//! The lock of a stream held by a value that borrows nothing.

use std::ops::Deref;
use std::sync::Arc;

use shm_lock::{FutexLock, OwnedGuard, Wait};

use crate::error::{Error, ErrorKind, Result};
use crate::ring::Claim;
use crate::stream::Stream;
use crate::stream::attachment::{Attachment, Role};
use crate::stream::description::Stamp;
use crate::stream::lease::out_of_bounds;
use crate::stream::memory::StreamMemory;
use crate::stream::tenure::{Tenure, check_bytes, check_process, lock_error};
use crate::stream::writer::Contents;

/// The stream's lock, held by a value: for holders that outlive a scope, such as those of a language
/// binding. Dropping it gives an open frame up and releases the lock.
///
/// The frame being written is part of the value, so there is one at a time. Otherwise as
/// [`Locked`](crate::stream::Locked), a forked child included.
#[derive(Debug)]
pub struct OwnedLocked {
    guard: OwnedGuard<StreamMemory, Joined>,
    open: Option<Claim>,
}

/// A stream that this process has joined, so that there is a lock.
#[derive(Debug)]
struct Joined(Arc<Attachment>);

impl Deref for Joined {
    type Target = FutexLock<StreamMemory>;

    #[inline]
    fn deref(&self) -> &Self::Target {
        &self.0.member().expect("it was joined, and stays so while it is open").lock
    }
}

impl OwnedLocked {
    pub(crate) fn acquire(attachment: &Arc<Attachment>, wait: &Wait<'_>) -> Result<Self> {
        let member = attachment.member()?;
        let guard = FutexLock::acquire_through(Joined(Arc::clone(attachment)), wait)
            .map_err(|source| lock_error(attachment, source))?;
        Tenure { attachment, member }.begin(guard.recovered().is_some());
        Ok(Self { guard, open: None })
    }

    #[inline]
    pub(crate) fn acquire_if_free(attachment: &Arc<Attachment>) -> Option<Self> {
        let Role::Member(member) = &attachment.role else { return None };
        let guard = FutexLock::acquire_through_if_free(Joined(Arc::clone(attachment)))?;
        Tenure { attachment, member }.begin(false);
        Some(Self { guard, open: None })
    }

    #[inline]
    fn attachment(&self) -> &Arc<Attachment> {
        &self.guard.way().0
    }

    /// Whether the previous holder died with the lock, so that what it was doing is unfinished.
    pub fn is_recovered(&self) -> bool {
        self.guard.recovered().is_some()
    }

    /// Whether this is the lock of `stream`.
    pub fn is_of(&self, stream: &Stream) -> bool {
        Arc::ptr_eq(self.attachment(), &stream.attachment)
    }

    /// Whether a frame is being written.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Publishes one frame. Returns its count.
    ///
    /// # Errors
    /// As [`Writer::write`](crate::stream::Writer::write) and [`begin`](Self::begin).
    pub fn write(&mut self, payload: &[u8], stamp: &Stamp) -> Result<u64> {
        check_bytes(self.attachment(), payload.len())?;
        self.begin(Contents::Fresh)?;
        let written = self.write_at(0, payload);
        self.end(written, stamp)
    }

    /// Publishes a frame of zeros.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn clear(&mut self, stamp: &Stamp) -> Result<u64> {
        self.begin(Contents::Fresh)?;
        let zeroed = self.zero();
        self.end(zeroed, stamp)
    }

    /// Claims a slot for the next frame, to be filled in place. Returns the count that the frame
    /// will have. Readers go on with the last complete frame until [`publish`](Self::publish).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if a frame is open already; [`ErrorKind::Fenced`] if this
    /// process was declared dead meanwhile, or is a forked child.
    pub fn begin(&mut self, contents: Contents) -> Result<u64> {
        if self.open.is_some() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "nested write on stream `{}`: the frame being written has to be published or \
                     given up first",
                    self.attachment().name()
                ),
            ));
        }
        self.check_process()?;
        // Before a slot is claimed: this may fail.
        self.attachment().writable()?;
        let claim = self.tenure()?.claim()?;
        self.open = Some(claim);
        if let Err(error) = self.filled(&claim, contents) {
            self.abort();
            return Err(error);
        }
        Ok(claim.count)
    }

    /// Where the open frame's bytes are: writable until it is published or given up, by nobody else;
    /// not in a forked child. `None` if no frame is open.
    pub fn as_mut_ptr(&mut self) -> Option<*mut u8> {
        let claim = self.open.as_ref()?;
        let start = self.attachment().layout.slot_start(claim.slot);
        Some(self.attachment().writable().ok()?.as_ptr().wrapping_add(start))
    }

    /// Copies bytes into the open frame from `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if they do not fit or no frame is open; [`ErrorKind::Fenced`]
    /// in a forked child.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check_process()?;
        let claim = self.claim()?;
        self.tenure()?.write_at(self.attachment().writable()?, &claim, offset, bytes)
    }

    /// Makes the open frame the newest one and wakes whoever waits. Returns its count.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if no frame is open; [`ErrorKind::Fenced`] if this process was
    /// declared dead meanwhile, or is a forked child.
    pub fn publish(&mut self, stamp: &Stamp) -> Result<u64> {
        self.check_process()?;
        let claim = self.claim()?;
        self.open = None;
        self.tenure()?.commit(&claim, stamp)
    }

    /// Gives the open frame up, if there is one.
    pub fn abort(&mut self) {
        if let Some(claim) = self.open.take()
            && self.guard.is_of_this_process()
            && let Ok(tenure) = self.tenure()
        {
            tenure.abort(&claim);
        }
    }

    fn filled(&self, claim: &Claim, contents: Contents) -> Result<()> {
        self.tenure()?.fill(self.attachment().writable()?, claim, contents)
    }

    fn zero(&mut self) -> Result<()> {
        let claim = self.claim()?;
        let layout = &self.attachment().layout;
        let start = layout.slot_start(claim.slot);
        let bytes = self.attachment().writable()?;
        bytes.fill(start..start + layout.payload_bytes, 0).map_err(out_of_bounds)
    }

    fn end(&mut self, filled: Result<()>, stamp: &Stamp) -> Result<u64> {
        if let Err(error) = filled {
            self.abort();
            return Err(error);
        }
        self.publish(stamp)
    }

    fn claim(&self) -> Result<Claim> {
        self.open.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("no frame of stream `{}` is being written", self.attachment().name()),
            )
        })
    }

    #[inline]
    fn tenure(&self) -> Result<Tenure<'_>> {
        Ok(Tenure { attachment: self.attachment(), member: self.attachment().member()? })
    }

    fn check_process(&self) -> Result<()> {
        check_process(self.attachment(), self.guard.is_of_this_process())
    }
}

impl Drop for OwnedLocked {
    fn drop(&mut self) {
        self.abort();
    }
}
