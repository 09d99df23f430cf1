//! Publishing.

use std::sync::Arc;

use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::stream::attachment::Attachment;
use crate::stream::description::Stamp;
use crate::stream::locked::{Locked, WriteView};
use crate::stream::owned::OwnedLocked;
use crate::stream::tenure::check_bytes;
use crate::tensor::Element;

/// Publishes frames on a stream.
///
/// Any number of processes may have one; the stream's lock orders them. A write that finds nobody
/// waiting makes no system call. Dropping a writer ends nothing: streams live until unlinked.
///
/// What it writes to a [mirrored](crate::stream::StreamOptions::mirror) stream is in the file alone, and
/// copied from there by GPUs that read it. Where GPUs have work with all slots that might be filled, a write
/// waits for them, 10 s at most, and fails with [`ErrorKind::Timeout`] then.
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

    /// Publishes one frame with a description, waiting for the lock as `wait` says. Threads may share the
    /// writer for this: each waits for the others.
    ///
    /// # Errors
    /// As [`write`](Self::write), and those of [`lock`](Self::lock).
    pub fn write_with(&self, payload: &[u8], stamp: &Stamp, wait: &Wait<'_>) -> Result<u64> {
        self.check_bytes(payload.len())?;
        Locked::acquire(&self.attachment, wait)?.write(payload, stamp)
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
        &self,
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
        WriteView::of_its_own(self.lock(wait)?, contents)
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

    /// As [`lock`](Self::lock), for a holder that borrows nothing: it can be kept in a structure,
    /// moved to another thread, and outlives the writer. A second one waits for the first.
    ///
    /// # Errors
    /// As [`lock`](Self::lock).
    pub fn lock_owned(&self, wait: &Wait<'_>) -> Result<OwnedLocked> {
        OwnedLocked::acquire(&self.attachment, wait)
    }

    /// As [`lock_owned`](Self::lock_owned) where nothing has to be waited for or repaired. `None` says
    /// that `lock_owned` has more to do, not that it would wait.
    #[inline]
    pub fn lock_owned_if_free(&self) -> Option<OwnedLocked> {
        OwnedLocked::acquire_if_free(&self.attachment)
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
