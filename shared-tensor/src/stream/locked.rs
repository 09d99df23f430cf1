//! The lock of a stream held by a scope, and a frame being written under it.

use shm_core::SharedBytes;
use shm_lock::{Guard, Wait};

use crate::error::Result;
use crate::ring::Claim;
use crate::stream::attachment::{Attachment, Member};
use crate::stream::description::Stamp;
use crate::stream::lease::out_of_bounds;
use crate::stream::memory::StreamMemory;
use crate::stream::tenure::{Tenure, check_bytes, check_process, lock_error};
use crate::stream::writer::Contents;

/// The stream's lock, held. Released on drop.
///
/// A forked child inherits the value, not the lock: it cannot write with it, and what it drops
/// stays as its parent has it.
#[derive(Debug)]
#[must_use = "dropping it releases the lock"]
pub struct Locked<'w> {
    attachment: &'w Attachment,
    member: &'w Member,
    guard: Guard<'w, StreamMemory>,
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        self.attachment.note_let_go();
    }
}

impl<'w> Locked<'w> {
    #[inline]
    pub(crate) fn acquire(attachment: &'w Attachment, wait: &Wait<'_>) -> Result<Self> {
        let member = attachment.member()?;
        match member.lock.acquire_if_free() {
            Some(guard) => Ok(Self::begin(attachment, member, guard)),
            None => Self::wait(attachment, member, wait),
        }
    }

    #[cold]
    fn wait(attachment: &'w Attachment, member: &'w Member, wait: &Wait<'_>) -> Result<Self> {
        let guard = member.lock.acquire(wait).map_err(|source| lock_error(attachment, source))?;
        Ok(Self::begin(attachment, member, guard))
    }

    #[inline]
    fn begin(
        attachment: &'w Attachment,
        member: &'w Member,
        guard: Guard<'w, StreamMemory>,
    ) -> Self {
        Tenure { attachment, member }.begin(guard.recovered().is_some());
        Self { attachment, member, guard }
    }

    /// Whether this process holds it: a forked child has a copy of the value alone.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.guard.is_of_this_process()
    }

    #[inline]
    pub(crate) fn tenure(&self) -> Tenure<'w> {
        Tenure { attachment: self.attachment, member: self.member }
    }

    /// Whether the previous holder died with the lock, so that what it was doing is unfinished.
    pub fn is_recovered(&self) -> bool {
        self.guard.recovered().is_some()
    }

    /// Publishes one frame. Returns its count.
    ///
    /// # Errors
    /// As [`Writer::write`](crate::stream::Writer::write).
    pub fn write(&mut self, payload: &[u8], stamp: &Stamp) -> Result<u64> {
        check_bytes(self.attachment, payload.len())?;
        let mut view = self.view(Contents::Fresh)?;
        view.write_at(0, payload)?;
        view.publish(stamp)
    }

    /// Publishes a frame of zeros.
    ///
    /// # Errors
    /// As [`Writer::write`](crate::stream::Writer::write).
    pub fn clear(&mut self) -> Result<u64> {
        let view = self.view(Contents::Fresh)?;
        let start = view.start();
        view.bytes.fill(start..start + view.len(), 0).map_err(out_of_bounds)?;
        view.publish(&Stamp::default())
    }

    /// Claims a slot to fill in place. Readers go on with the last complete frame until
    /// [`WriteView::publish`]; dropping the view aborts the write.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`](crate::ErrorKind::Fenced) if this process was declared dead meanwhile.
    pub fn view(&mut self, contents: Contents) -> Result<WriteView<'_>> {
        WriteView::claim(Held::Borrowed(self), contents)
    }

    #[inline]
    fn check_process(&self) -> Result<()> {
        check_process(self.attachment, self.guard.is_of_this_process())
    }
}

/// A claimed slot: the next frame, not yet visible to anybody.
#[derive(Debug)]
#[must_use = "dropping it gives the frame up"]
pub struct WriteView<'l> {
    locked: Held<'l>,
    bytes: &'l SharedBytes,
    claim: Claim,
    open: bool,
}

/// The lock under which a frame is written: the caller's, or the view's own.
#[derive(Debug)]
enum Held<'l> {
    Borrowed(&'l Locked<'l>),
    Owned(Locked<'l>),
}

impl<'l> std::ops::Deref for Held<'l> {
    type Target = Locked<'l>;

    fn deref(&self) -> &Locked<'l> {
        match self {
            Self::Borrowed(locked) => locked,
            Self::Owned(locked) => locked,
        }
    }
}

impl<'l> WriteView<'l> {
    /// A view that holds the lock for as long as it lives.
    pub(crate) fn of_its_own(locked: Locked<'l>, contents: Contents) -> Result<Self> {
        Self::claim(Held::Owned(locked), contents)
    }

    #[inline]
    fn claim(locked: Held<'l>, contents: Contents) -> Result<Self> {
        locked.check_process()?;
        let bytes = locked.attachment.writable()?;
        let claim = locked.tenure().claim()?;
        match contents {
            Contents::Fresh => Ok(Self { locked, bytes, claim, open: true }),
            Contents::Previous => {
                // A view from here on, so that a failure gives the slot up.
                let view = Self { locked, bytes, claim, open: true };
                view.locked.tenure().fill(bytes, &view.claim, contents)?;
                Ok(view)
            }
        }
    }

    /// The count that the frame will have when it is published.
    pub fn count(&self) -> u64 {
        self.claim.count
    }

    fn start(&self) -> usize {
        self.locked.tenure().start(&self.claim)
    }

    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        self.locked.attachment.layout.payload_bytes
    }

    /// Whether the frame has no bytes: never, as shapes have none of size 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the frame's bytes are: writable while the view lives, by nobody else. Not in a forked
    /// child, which inherits the view but not the write.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_ptr().wrapping_add(self.start())
    }

    /// Copies bytes into the frame from `offset` on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) if they do not fit;
    /// [`ErrorKind::Fenced`](crate::ErrorKind::Fenced) in a forked child: its parent may have
    /// published the frame.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.locked.check_process()?;
        self.locked.tenure().write_at(self.bytes, &self.claim, offset, bytes)
    }

    /// Makes the frame the newest one and wakes whoever waits. Returns its count.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`](crate::ErrorKind::Fenced) if this process was declared dead meanwhile.
    #[inline]
    pub fn publish(mut self, stamp: &Stamp) -> Result<u64> {
        self.locked.check_process()?;
        self.open = false;
        self.locked.tenure().commit(&self.claim, stamp)
    }
}

impl Drop for WriteView<'_> {
    fn drop(&mut self) {
        if self.open && self.locked.guard.is_of_this_process() {
            self.locked.tenure().abort(&self.claim);
        }
    }
}
