//! The lock of a stream held by a value that borrows nothing.

use std::ops::Deref;
use std::sync::Arc;

use cuda_ipc::Stream as Queue;
use shm_lock::{FutexLock, OwnedGuard, Wait};

use crate::error::{Error, ErrorKind, Result};
use crate::ring::Claim;
use crate::stream::Stream;
use crate::stream::attachment::{Attachment, Role};
use crate::stream::description::Stamp;
use crate::stream::device::{FilledBy, GpuWriter, Source};
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
    /// What fills the open frame, if a GPU does.
    filled_by: Option<FilledBy>,
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
        Ok(Self { guard, open: None, filled_by: None })
    }

    #[inline]
    pub(crate) fn acquire_if_free(attachment: &Arc<Attachment>) -> Option<Self> {
        let Role::Member(member) = &attachment.role else { return None };
        let guard = FutexLock::acquire_through_if_free(Joined(Arc::clone(attachment)))?;
        Tenure { attachment, member }.begin(false);
        Some(Self { guard, open: None, filled_by: None })
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
        self.check_beginning()?;
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

    /// As [`begin`](Self::begin), for a frame that `writer`'s GPU fills: with what is queued in `queue` from
    /// now on until [`publish`](Self::publish). Given up, it is waited for.
    ///
    /// # Errors
    /// As [`begin`](Self::begin) and [`GpuWriter::view`]; [`ErrorKind::InvalidArgument`] if `writer` writes
    /// to another stream.
    pub fn begin_on(
        &mut self,
        writer: &GpuWriter,
        queue: &Arc<Queue>,
        contents: Contents,
    ) -> Result<u64> {
        self.begin_by(writer, queue, Some(contents))
    }

    /// The same for a frame in place, or for a whole one.
    fn begin_by(
        &mut self,
        writer: &GpuWriter,
        queue: &Arc<Queue>,
        in_place: Option<Contents>,
    ) -> Result<u64> {
        self.check_beginning()?;
        let begun = FilledBy::begin(writer, queue, self.attachment(), self.tenure()?, in_place)?;
        self.open = Some(begun.claim());
        let count = begun.claim().count;
        self.filled_by = Some(begun);
        Ok(count)
    }

    /// As [`write`](Self::write), for a frame that a GPU fills: see [`GpuWriter::write`].
    ///
    /// # Errors
    /// As [`begin_on`](Self::begin_on) and [`GpuWriter::write`].
    pub fn write_on(
        &mut self,
        writer: &GpuWriter,
        queue: &Arc<Queue>,
        source: Source<'_>,
        stamp: &Stamp,
    ) -> Result<u64> {
        writer.check(source)?;
        writer.together(|| {
            let queue = writer.queue_of(source, queue)?;
            self.begin_by(writer, queue, None)?;
            let queued = self.filled_by.as_ref().map_or(Ok(()), |it| it.copy_from(source));
            let ended = self.end(queued, stamp);
            writer.finish(source)?;
            ended
        })
    }

    /// As [`clear`](Self::clear), for a frame that a GPU fills.
    ///
    /// # Errors
    /// As [`begin_on`](Self::begin_on).
    pub fn clear_on(
        &mut self,
        writer: &GpuWriter,
        queue: &Arc<Queue>,
        stamp: &Stamp,
    ) -> Result<u64> {
        self.begin_by(writer, queue, None)?;
        let queued = self.filled_by.as_ref().map_or(Ok(()), FilledBy::zero);
        self.end(queued, stamp)
    }

    /// Where the open frame is for the GPU that fills it. `None` if none does.
    pub fn address(&self) -> Option<u64> {
        self.filled_by.as_ref().and_then(FilledBy::address)
    }

    /// Where the open frame's bytes are: writable until it is published or given up, by nobody else;
    /// not in a forked child. `None` if no frame is open, or a GPU fills it.
    pub fn as_mut_ptr(&mut self) -> Option<*mut u8> {
        let claim = self.open.as_ref().filter(|_| self.filled_by.is_none())?;
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
        if self.filled_by.is_some() {
            return Err(self.attachment().frames_elsewhere("written"));
        }
        self.tenure()?.write_at(self.attachment().writable()?, &claim, offset, bytes)
    }

    /// Makes the open frame the newest one and wakes whoever waits. Returns its count.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if no frame is open; [`ErrorKind::Fenced`] if this process was
    /// declared dead meanwhile, or is a forked child; [`ErrorKind::Device`] if the driver refuses, and the
    /// frame is open still.
    pub fn publish(&mut self, stamp: &Stamp) -> Result<u64> {
        self.check_process()?;
        let claim = self.claim()?;
        if let Some(filled_by) = &self.filled_by {
            filled_by.complete()?;
        }
        let filled_by = self.filled_by.take();
        self.open = None;
        let published = self.tenure()?.commit(&claim, stamp);
        if let Some(filled_by) = filled_by {
            filled_by.after(&published);
        }
        published
    }

    /// Gives the open frame up, if there is one.
    pub fn abort(&mut self) {
        let filled_by = self.filled_by.take();
        if let Some(claim) = self.open.take()
            && self.guard.is_of_this_process()
            && let Ok(tenure) = self.tenure()
        {
            if let Some(filled_by) = filled_by {
                filled_by.settle();
            }
            tenure.abort(&claim);
        }
    }

    fn check_beginning(&self) -> Result<()> {
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
        self.check_process()
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
        let ended = filled.and_then(|()| self.publish(stamp));
        if ended.is_err() {
            self.abort();
        }
        ended
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
        self.attachment().note_let_go();
    }
}
