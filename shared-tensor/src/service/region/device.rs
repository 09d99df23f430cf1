//! Memory on a GPU that travels as a descriptor.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use cuda_ipc::{Access, Chunk, ChunkLabel, Context, Device, Mapping};

use super::{Id, Place, RegionError};

/// One chunk of a GPU's memory. It needs no driver to be held and passed on.
#[derive(Debug)]
pub(crate) struct OnDevice {
    id: Id,
    chunk: Chunk,
    /// The descriptor to hand out, made when first needed.
    lent: OnceLock<Arc<OwnedFd>>,
}

impl OnDevice {
    /// At least `bytes` bytes, their content undefined.
    pub(crate) fn create(device: &Device, bytes: u64) -> Result<Self, RegionError> {
        Ok(Self::of(Chunk::create(device, bytes)?))
    }

    pub(crate) fn of(chunk: Chunk) -> Self {
        let id = Id::from_bytes(chunk.label().id().to_bytes());
        Self { id, chunk, lent: OnceLock::new() }
    }

    /// What came from a peer. Whether it is what was said shows when it is opened.
    pub(crate) fn adopt(fd: OwnedFd, id: Id, device: cuda_ipc::Uuid, bytes: u64) -> Self {
        let label = ChunkLabel::new(cuda_ipc::ChunkId::from_bytes(id.to_bytes()), device, bytes);
        Self { id, chunk: Chunk::from_parts(label, fd), lent: OnceLock::new() }
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.chunk.label().bytes()
    }

    pub(crate) fn place(&self) -> Place {
        Place::Cuda(self.chunk.label().device())
    }

    pub(crate) fn chunk(&self) -> &Chunk {
        &self.chunk
    }

    pub(crate) fn lend(&self) -> Result<Arc<OwnedFd>, RegionError> {
        if let Some(fd) = self.lent.get() {
            return Ok(Arc::clone(fd));
        }
        let fd = self.chunk.as_fd().try_clone_to_owned().map_err(RegionError::Descriptor)?;
        // Whoever was quicker has put one there that is as good.
        Ok(Arc::clone(self.lent.get_or_init(|| Arc::new(fd))))
    }
}

/// All of `regions`, one behind the other, at addresses of this process.
pub(crate) fn open(
    regions: &[super::Region],
    context: &Context,
    access: Access,
) -> Result<Mapping, RegionError> {
    if let [region] = regions
        && let super::Memory::Volatile(memory) = &region.memory
    {
        if Place::Cuda(context.device().uuid()) != memory.place() {
            return Err(RegionError::Elsewhere(memory.place()));
        }
        return Ok(memory.open(context)?);
    }
    let chunks: Vec<&Chunk> = regions.iter().filter_map(super::Region::chunk_on_device).collect();
    if chunks.len() != regions.len() {
        return Err(RegionError::OnHost);
    }
    Ok(Mapping::open(context, &chunks, access)?)
}
