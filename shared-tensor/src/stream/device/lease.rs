//! Reading a frame of a GPU in place.

use std::sync::Arc;

use cuda_ipc::{Access, Chunk, Mapping, Room, Stream as Queue};

use crate::error::{Error, ErrorKind, Result};
use crate::ring::Found;
use crate::stream::description::Publication;
use crate::stream::device::endings::{self, Ending};
use crate::stream::device::hold::Hold;
use crate::stream::lease::Lease;

/// A frame that a GPU reads in place, or a private copy of it when the ring had no slot to spare, or is in the
/// stream's file.
///
/// What is queued in its stream of the GPU while it lives finds the frame at its address, complete: a wait
/// for that is queued before. Dropping it queues the end of its use in that stream, behind all that, and
/// waits for nothing; until the GPU has come to that, no writer touches the bytes (unless somebody leases
/// with [`OnFull::Revoke`](crate::stream::OnFull)). What other streams do with it has to be over, or the
/// lease's stream to wait for them, before it is dropped.
#[derive(Debug)]
pub struct GpuLease {
    publication: Publication,
    address: u64,
    bytes: usize,
    /// Of a slot, until it is dropped.
    ending: Option<Ending>,
    /// A private copy, kept until what is queued is done, which the mapping sees to.
    copy: Option<Copied>,
}

/// Memory of the device for one frame, which this process alone has.
#[derive(Debug)]
pub(super) enum Copied {
    Chunk(Mapping),
    Room(Room),
}

impl Copied {
    pub(super) fn address(&self) -> u64 {
        match self {
            Self::Chunk(mapping) => mapping.address(),
            Self::Room(room) => room.address(),
        }
    }
}

impl GpuLease {
    /// The frame in a slot that is leased. A wait for it was queued.
    pub(super) fn of_slot(hold: Arc<Hold>, queue: Arc<Queue>, found: &Found, lease: Lease) -> Self {
        let (publication, bytes) = (*lease.publication(), lease.len());
        let address = hold.address(found.slot);
        let ending = Some(Ending { hold, queue, slot: found.slot, seq: found.seq, lease });
        Self { publication, address, bytes, ending, copy: None }
    }

    /// A copy.
    pub(super) fn of_copy(copy: Copied, bytes: usize, publication: Publication) -> Self {
        let address = copy.address();
        Self { publication, address, bytes, ending: None, copy: Some(copy) }
    }

    /// Which frame this is.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// Where the frame is, for the device: the bytes of one frame, to be read only.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes of the frame.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether the frame has no bytes: never, as shapes have none of size 0.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Whether this is a private copy: the ring had no slot to spare, or is in the stream's file.
    pub fn is_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Of a private copy: says that work on it is or will be queued in another stream, too, so that it stays
    /// until that is done.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if it is no copy; [`ErrorKind::Device`].
    pub fn used_on(&self, queue: &Queue) -> Result<()> {
        let noted = match &self.copy {
            Some(Copied::Chunk(mapping)) => mapping.used_on(queue),
            Some(Copied::Room(room)) => room.used_on(queue),
            None => {
                return Err(Error::new(
                    ErrorKind::InvalidArgument,
                    "a frame in its slot is used in the stream that it was leased in: have that one wait \
                     for others before the lease is dropped"
                        .to_owned(),
                ));
            }
        };
        noted.map_err(|source| {
            Error::new(ErrorKind::Device, format!("cannot keep a copy of a frame: {source}"))
        })
    }

    /// Whether the slot was taken away, so that the bytes may be those of another frame. Also true
    /// in a forked child, which inherits the value but not the lease.
    pub fn is_revoked(&self) -> bool {
        self.ending.as_ref().is_some_and(Ending::is_revoked)
    }
}

impl Drop for GpuLease {
    fn drop(&mut self) {
        if let Some(ending) = self.ending.take() {
            endings::end(ending);
        }
    }
}

impl Hold {
    /// Memory of the device for one frame, to which work in `queue` may be queued.
    pub(super) fn room(&self, queue: &Queue) -> Result<Copied> {
        let room = || -> std::result::Result<Copied, Box<dyn std::error::Error>> {
            let device = self.context.device();
            let bytes = self.attachment.layout.payload_bytes as u64;
            let chunk = Chunk::create(device, bytes)?;
            let mapping = Mapping::open(&self.context, &[&chunk], Access::ReadWrite)?;
            mapping.used_on(queue)?;
            Ok(Copied::Chunk(mapping))
        };
        room().map_err(|source| self.failed("make room for", &*source))
    }
}
