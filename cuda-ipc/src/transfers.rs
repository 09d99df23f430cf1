//! Copies and calls in a stream of the caller's, behind what is queued there.

use crate::device::Context;
use crate::error::{DriverError, QueueError};
use crate::host::HostRange;
use crate::sys::Stream;

/// What is queued in a stream of this context, of the caller's or of this crate's.
///
/// Addresses are those of the driver: ones that it does not know are an error, at once or later. Whoever
/// copies from or to a [`Mapping`](crate::Mapping) names the stream with
/// [`used_on`](crate::Mapping::used_on); of [`HostRange`]s that is done here.
///
/// What is said to be queued goes into the graph if the stream is captured. The others are refused there
/// with [`QueueError::Captured`], and leave the capture whole.
impl Context {
    /// Queues a copy of `bytes` between addresses on devices, of which one may be another device's: the
    /// stream's own must reach both, as it does what was [opened](crate::Mapping::open) with this context.
    pub fn copy(&self, stream: &Stream, to: u64, from: u64, bytes: u64) -> Result<(), DriverError> {
        self.within(|| stream.copy(to, from, size(bytes)))
    }

    /// Queues setting `bytes` bytes of a device.
    pub fn fill(
        &self,
        stream: &Stream,
        address: u64,
        byte: u8,
        bytes: u64,
    ) -> Result<(), DriverError> {
        self.within(|| stream.fill(address, byte, size(bytes)))
    }

    /// Whether a stream is captured into a graph.
    pub fn is_capturing(&self, stream: &Stream) -> Result<bool, DriverError> {
        self.within(|| stream.is_capturing())
    }

    /// Queues a copy of `bytes` from `offset` of memory of the host.
    pub fn copy_from_host(
        &self,
        stream: &Stream,
        to: u64,
        (from, offset): (&HostRange, u64),
        bytes: u64,
    ) -> Result<(), QueueError> {
        let place = from.place(offset, bytes)?;
        Ok(from.used(self, stream, || stream.copy_from_host(to, place))?)
    }

    /// Queues a copy of `bytes` to `offset` of memory of the host.
    pub fn copy_to_host(
        &self,
        stream: &Stream,
        (to, offset): (&HostRange, u64),
        from: u64,
        bytes: u64,
    ) -> Result<(), QueueError> {
        let place = to.place_to_write(offset, bytes)?;
        Ok(to.used(self, stream, || stream.copy_to_host(place, from))?)
    }

    /// Copies from ordinary memory, behind what is queued in `stream`, and waits until that is done. Nothing
    /// else is sure to be done with `from`: the driver may read it later than it says.
    pub fn upload(&self, stream: &Stream, to: u64, from: &[u8]) -> Result<(), QueueError> {
        self.refuse_capture(stream, "a copy from ordinary memory")?;
        Ok(self.within(|| stream.upload(to, from))?)
    }

    /// Copies to ordinary memory, behind what is queued in `stream`, and waits until that is done.
    pub fn download(&self, stream: &Stream, to: &mut [u8], from: u64) -> Result<(), QueueError> {
        self.refuse_capture(stream, "a copy to ordinary memory")?;
        Ok(self.within(|| stream.download(to, from))?)
    }

    /// Has `call` called, once, when everything that is queued in `stream` so far is done; what is queued
    /// later begins when it has returned.
    ///
    /// A thread of the driver's calls it, which other streams may wait for: be brief. Nothing of the driver
    /// may be called in it, nor anything that waits for a thread which does. So it may not drop the last of a
    /// [`Stream`], of a [`Context`] or of [words](crate::RangeWords), which have one; it may drop
    /// [`Mapping`](crate::Mapping)s and [`HostRange`]s. A panic ends
    /// `call` and nothing else. If the context is lost first, `call` is not called, and never dropped.
    pub fn call_after(
        &self,
        stream: &Stream,
        call: impl FnOnce() + Send + 'static,
    ) -> Result<(), QueueError> {
        // A graph would call it each time that it is replayed.
        self.refuse_capture(stream, "a function that is called once")?;
        Ok(self.within(|| stream.call(call))?)
    }

    fn refuse_capture(&self, stream: &Stream, what: &'static str) -> Result<(), QueueError> {
        if self.within(|| stream.is_capturing())? {
            return Err(QueueError::Captured { what });
        }
        Ok(())
    }
}

fn size(bytes: u64) -> usize {
    // No more than a device has; the driver refuses it.
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
