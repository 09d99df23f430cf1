//! Publishing.

use std::sync::Arc;

use shm_core::SharedBytes;
use shm_lock::{Guard, Wait};

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::Phase;
use crate::ring::{self, Claim, Ring, RingLoads, WriteFault};
use crate::stream::attachment::{Attachment, Member};
use crate::stream::copy;
use crate::stream::counters::add_as_owner;
use crate::stream::description::{Description, Stamp};
use crate::stream::lease::out_of_bounds;
use crate::stream::memory::StreamMemory;
use crate::sync::Ordering;
use crate::tensor::Element;

/// Publishes frames on a stream.
///
/// Any number of processes may have one; the stream's lock orders them. A write that finds nobody
/// waiting makes no system call. Dropping a writer ends nothing: streams live until unlinked.
///
/// Nor does unlinking end a writer: it goes on to publish to those who have the stream open, and
/// nobody finds it by name any more. [`StreamInfo::unlinked`](crate::stream::StreamInfo) tells.
#[derive(Debug)]
pub struct Writer {
    attachment: Arc<Attachment>,
}

/// What a [`WriteView`] holds at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Contents {
    /// Whatever the slot held last: for writers that fill the whole frame.
    #[default]
    Fresh,
    /// A copy of the newest frame: for writers that change a part of it.
    Previous,
}

impl Writer {
    pub(crate) fn new(attachment: Arc<Attachment>) -> Result<Self> {
        attachment.member()?;
        attachment.writable()?;
        Ok(Self { attachment })
    }

    /// Publishes one frame: waits for the lock, copies, tells readers. Returns the frame's count.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if `payload` has not exactly the stream's bytes;
    /// [`ErrorKind::Fenced`] if this process was declared dead meanwhile and the frame dropped.
    pub fn write(&mut self, payload: &[u8]) -> Result<u64> {
        self.check_bytes(payload.len())?;
        self.lock(&Wait::forever())?.write(payload, &Stamp::default())
    }

    /// Publishes one frame with a description, waiting for the lock as `wait` says.
    ///
    /// # Errors
    /// As [`write`](Self::write), and those of [`lock`](Self::lock).
    pub fn write_with(&mut self, payload: &[u8], stamp: &Stamp, wait: &Wait<'_>) -> Result<u64> {
        self.check_bytes(payload.len())?;
        self.lock(wait)?.write(payload, stamp)
    }

    /// Publishes one frame of elements.
    ///
    /// # Errors
    /// As [`write`](Self::write); also [`ErrorKind::InvalidArgument`] if the element type is not
    /// the stream's.
    pub fn write_slice<T: Element>(&mut self, elements: &[T]) -> Result<u64> {
        self.write(bytes_of(&self.attachment, elements)?)
    }

    /// Publishes one frame of elements with a description, waiting for the lock as `wait` says.
    ///
    /// # Errors
    /// As [`write_slice`](Self::write_slice), and those of [`lock`](Self::lock).
    pub fn write_slice_with<T: Element>(
        &mut self,
        elements: &[T],
        stamp: &Stamp,
        wait: &Wait<'_>,
    ) -> Result<u64> {
        let bytes = bytes_of(&self.attachment, elements)?;
        self.write_with(bytes, stamp, wait)
    }

    /// Publishes a frame of zeros.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn clear(&mut self) -> Result<u64> {
        self.lock(&Wait::forever())?.clear()
    }

    /// Takes the lock and claims a slot to fill in place: the next frame, published by
    /// [`WriteView::publish`], given up by dropping the view. Either way the lock is released.
    ///
    /// # Errors
    /// As [`lock`](Self::lock) and [`Locked::view`].
    pub fn write_view(&mut self, contents: Contents, wait: &Wait<'_>) -> Result<WriteView<'_>> {
        WriteView::claim(Held::Owned(self.lock(wait)?), contents)
    }

    /// Takes the stream's lock, for one or more writes. A writer that died holding it is cleaned up
    /// after here.
    ///
    /// The lock knows writers, not threads: a second writer waits for it like anybody else, also in
    /// the thread that holds it. For several streams at once there is
    /// [`locked_many`](crate::stream::locked_many).
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] naming the holder; [`ErrorKind::Interrupted`].
    pub fn lock(&mut self, wait: &Wait<'_>) -> Result<Locked<'_>> {
        Locked::acquire(&self.attachment, wait)
    }

    pub(crate) fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    fn check_bytes(&self, given: usize) -> Result<()> {
        check_bytes(&self.attachment, given)
    }
}

/// The bytes of elements of the stream's type.
fn bytes_of<'e, T: Element>(attachment: &Attachment, elements: &'e [T]) -> Result<&'e [u8]> {
    let dtype = attachment.layout.dtype;
    if T::DTYPE == dtype {
        return Ok(zerocopy::IntoBytes::as_bytes(elements));
    }
    let name = attachment.name();
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("stream `{name}` has elements of {dtype}, the slice has {}", T::DTYPE),
    ))
}

fn check_bytes(attachment: &Attachment, given: usize) -> Result<()> {
    let layout = &attachment.layout;
    if given == layout.payload_bytes {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "stream `{}` expects {} bytes ({}{}), got {given}",
            attachment.name(),
            layout.payload_bytes,
            layout.dtype,
            layout.shape
        ),
    ))
}

/// The stream's lock, held. Released on drop.
///
/// A forked child inherits the value, not the lock: it cannot write with it, and what it drops
/// stays as its parent has it.
#[derive(Debug)]
pub struct Locked<'w> {
    attachment: &'w Attachment,
    member: &'w Member,
    guard: Guard<'w, StreamMemory>,
}

impl<'w> Locked<'w> {
    #[inline]
    pub(crate) fn acquire(attachment: &'w Attachment, wait: &Wait<'_>) -> Result<Self> {
        let member = attachment.member()?;
        let guard = member.lock.acquire(wait).map_err(|source| lock_error(attachment, source))?;
        // The first act under every lock: a writer that died, or left without a word, is cleaned up
        // after. Costs one load when there is nothing to do.
        let left_open = member.memory.ctl(Ordering::Acquire).phase() == Phase::Writing;
        if guard.recovered().is_some() || left_open {
            heal(member);
        }
        Ok(Self { attachment, member, guard })
    }

    /// Whether the previous holder died with the lock, so that what it was doing is unfinished.
    pub fn is_recovered(&self) -> bool {
        self.guard.recovered().is_some()
    }

    /// Publishes one frame. Returns its count.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn write(&mut self, payload: &[u8], stamp: &Stamp) -> Result<u64> {
        check_bytes(self.attachment, payload.len())?;
        let view = self.view(Contents::Fresh)?;
        let start = view.start();
        copy::into_shared(view.bytes, start, payload).map_err(out_of_bounds)?;
        view.publish(stamp)
    }

    /// Publishes a frame of zeros.
    ///
    /// # Errors
    /// As [`Writer::write`].
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
    /// [`ErrorKind::Fenced`] if this process was declared dead meanwhile.
    pub fn view(&mut self, contents: Contents) -> Result<WriteView<'_>> {
        WriteView::claim(Held::Borrowed(self), contents)
    }

    fn is_of_this_process(&self) -> bool {
        self.guard.is_of_this_process()
    }

    /// # Errors
    /// [`ErrorKind::Fenced`] in a forked child of the process that took the lock.
    fn check_process(&self) -> Result<()> {
        if self.is_of_this_process() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Fenced,
            format!(
                "the lock of stream `{}` belongs to the process that this one was forked from: \
                 take it here before writing",
                self.attachment.name()
            ),
        ))
    }

    fn wake_if(&self, waiters: bool) {
        if waiters || self.attachment.layout.always_wakes() {
            add_as_owner(&self.member.memory.shared.control().writer.0.wakes, 1);
            wake(self.member);
        }
    }

    fn write_error(&self, fault: WriteFault) -> Error {
        let name = self.attachment.name();
        let (kind, message) = match fault {
            WriteFault::Fenced => {
                add_as_owner(&self.member.memory.shared.control().writer.0.fenced, 1);
                (
                    ErrorKind::Fenced,
                    format!(
                        "this process was declared dead while it wrote to stream `{name}`: the \
                         frame was dropped, write again"
                    ),
                )
            }
            WriteFault::Exhausted => (
                ErrorKind::NoSpace,
                format!(
                    "no slot of stream `{name}` came free: a process holds more slots than the \
                     protocol allows; unlink and create the stream anew"
                ),
            ),
            WriteFault::CountExhausted => (
                ErrorKind::NoSpace,
                format!("stream `{name}` has published 2^47 frames: create it anew"),
            ),
            WriteFault::Damaged => (
                ErrorKind::Corrupt,
                format!(
                    "the control page of stream `{name}` was overwritten: unlink and create it \
                     anew"
                ),
            ),
        };
        Error::new(kind, message)
    }
}

#[cold]
fn heal(member: &Member) {
    ring::heal(&*member.memory, &member.peers());
    add_as_owner(&member.memory.shared.control().writer.0.recoveries, 1);
    wake(member);
}

fn wake(member: &Member) {
    shm_lock::park::wake_all_low_half(member.memory.ctl_word());
}

/// A claimed slot: the next frame, not yet visible to anybody.
#[derive(Debug)]
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
    fn claim(locked: Held<'l>, contents: Contents) -> Result<Self> {
        locked.check_process()?;
        let attachment = locked.attachment;
        let bytes = attachment.writable()?;
        let memory = &*locked.member.memory;
        let me = locked.member.me()?;
        let claim = ring::claim(memory, me, &locked.member.peers())
            .map_err(|fault| locked.write_error(fault))?;
        let counters = &memory.shared.control().writer.0;
        if claim.revoked != 0 {
            add_as_owner(&counters.pins_revoked, u64::from(claim.revoked));
        }
        if claim.skipped != 0 {
            add_as_owner(&counters.slots_skipped, u64::from(claim.skipped));
        }
        match contents {
            Contents::Fresh => Ok(Self { locked, bytes, claim, open: true }),
            Contents::Previous => Self { locked, bytes, claim, open: true }.filled(),
        }
    }

    /// With a copy of the newest frame; aborted if that fails.
    fn filled(self) -> Result<Self> {
        // Not read from the control word again: what the claim has was checked.
        let newest = self.claim.newest();
        if self.claim.slot != newest {
            let attachment = self.locked.attachment;
            let source = attachment.layout.slot_start(newest);
            let source = source..source + attachment.layout.payload_bytes;
            self.bytes
                .copy_from(self.start(), &attachment.readable, source)
                .map_err(out_of_bounds)?;
        }
        Ok(self)
    }

    /// The count that the frame will have when it is published.
    pub fn count(&self) -> u64 {
        self.claim.count
    }

    fn start(&self) -> usize {
        self.locked.attachment.layout.slot_start(self.claim.slot)
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
    /// [`ErrorKind::InvalidArgument`] if they do not fit; [`ErrorKind::Fenced`] in a forked child:
    /// its parent may have published the frame.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.locked.check_process()?;
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.len()) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} bytes at offset {offset} do not fit a frame of {} bytes",
                    bytes.len(),
                    self.len()
                ),
            ));
        }
        copy::into_shared(self.bytes, self.start() + offset, bytes).map_err(out_of_bounds)
    }

    /// Makes the frame the newest one and wakes whoever waits. Returns its count.
    ///
    /// # Errors
    /// [`ErrorKind::Fenced`] if this process was declared dead meanwhile.
    pub fn publish(mut self, stamp: &Stamp) -> Result<u64> {
        self.locked.check_process()?;
        self.open = false;
        let locked = &*self.locked;
        let memory = &*locked.member.memory;
        let frame_id = match stamp.frame_id {
            Some(_) => 0,
            None => memory.slot(self.claim.newest()).frame_id.load(Ordering::Relaxed),
        };
        Description::store(memory.slot(self.claim.slot), stamp, frame_id);
        let waiters =
            ring::commit(memory, &self.claim).map_err(|fault| locked.write_error(fault))?;
        let counters = &memory.shared.control().writer.0;
        add_as_owner(&counters.frames, 1);
        add_as_owner(&counters.bytes, self.len() as u64);
        locked.wake_if(waiters);
        Ok(self.claim.count)
    }
}

impl Drop for WriteView<'_> {
    fn drop(&mut self) {
        if !self.open || !self.locked.is_of_this_process() {
            return;
        }
        let memory = &*self.locked.member.memory;
        // A fenced writer has nothing to give up: whoever took over has done it.
        if let Ok(waiters) = ring::abort(memory, &self.claim) {
            add_as_owner(&memory.shared.control().writer.0.aborts, 1);
            self.locked.wake_if(waiters);
        }
    }
}

pub(crate) fn lock_error(attachment: &Attachment, source: shm_lock::AcquireError) -> Error {
    let kind = match source {
        shm_lock::AcquireError::Timeout { .. } | shm_lock::AcquireError::WouldBlock { .. } => {
            ErrorKind::Timeout
        }
        shm_lock::AcquireError::Interrupted => ErrorKind::Interrupted,
        shm_lock::AcquireError::Join(source) => {
            return crate::stream::attachment::join_error(source);
        }
        _ => ErrorKind::Os,
    };
    let message = format!("cannot lock stream `{}`: {source}", attachment.name());
    Error::with_source(kind, message, source)
}
