//! Copies on a device that the caller's streams and ours order among themselves, without the host.

use crate::device::Context;
use crate::error::{DriverError, QueueError};
use crate::host::HostRange;
use crate::sys::{Event, Stream};

/// A stream beside the caller's, for moving memory into chunks.
///
/// Addresses are those of the driver: ones that it does not know are an error, at once or later.
#[derive(Debug)]
pub struct Copies {
    // Dropped first: it is the context's, which may end with this.
    stream: Stream,
    context: Context,
}

impl Copies {
    /// A new stream on the context's device.
    pub fn new(context: &Context) -> Result<Self, DriverError> {
        Ok(Self { context: context.clone(), stream: context.stream()? })
    }

    /// The context of the copies.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// The stream of the copies.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Copies begin after everything that is queued in `stream` now.
    pub fn after(&self, stream: &Stream) -> Result<(), DriverError> {
        self.context.within(|| order(stream, &self.stream))
    }

    /// What is queued in `stream` from now on begins after the copies so far.
    pub fn before(&self, stream: &Stream) -> Result<(), DriverError> {
        self.context.within(|| order(&self.stream, stream))
    }

    /// Queues a copy of `bytes` between addresses on devices.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), DriverError> {
        self.context.within(|| self.stream.copy(to, from, size(bytes)))
    }

    /// Queues setting `bytes` bytes.
    pub fn fill(&self, address: u64, byte: u8, bytes: u64) -> Result<(), DriverError> {
        self.context.within(|| self.stream.fill(address, byte, size(bytes)))
    }

    /// Copies from host memory, after the copies so far, and waits.
    pub fn upload(&self, to: u64, from: &[u8]) -> Result<(), DriverError> {
        self.context.within(|| self.stream.upload(to, from))
    }

    /// Copies to host memory, after the copies so far, and waits.
    pub fn download(&self, to: &mut [u8], from: u64) -> Result<(), DriverError> {
        self.context.within(|| self.stream.download(to, from))
    }

    /// Copies from `offset` of memory of the host, after the copies so far, and waits.
    pub fn copy_from_host(
        &self,
        to: u64,
        (from, offset): (&HostRange, u64),
        bytes: u64,
    ) -> Result<(), QueueError> {
        let place = from.place(offset, bytes)?;
        Ok(self.waiting(|| self.stream.copy_from_host(to, place))?)
    }

    /// Copies to `offset` of memory of the host, after the copies so far, and waits.
    pub fn copy_to_host(
        &self,
        (to, offset): (&HostRange, u64),
        from: u64,
        bytes: u64,
    ) -> Result<(), QueueError> {
        let place = to.place_to_write(offset, bytes)?;
        Ok(self.waiting(|| self.stream.copy_to_host(place, from))?)
    }

    /// Waits also if nothing could be queued: of large copies a part may have been.
    fn waiting(&self, copy: impl FnOnce() -> Result<(), DriverError>) -> Result<(), DriverError> {
        self.context.within(|| {
            let copied = copy();
            let waited = self.stream.synchronize();
            copied.and(waited)
        })
    }

    /// Waits on the host until all copies are done.
    pub fn synchronize(&self) -> Result<(), DriverError> {
        self.context.synchronize(&self.stream)
    }
}

fn order(first: &Stream, then: &Stream) -> Result<(), DriverError> {
    let event = Event::create()?;
    event.record(first)?;
    then.wait_for(&event)
}

fn size(bytes: u64) -> usize {
    // No more than a device has; the driver refuses it.
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
