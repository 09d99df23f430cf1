//! Creating streams whose frames are on a GPU.

use cuda_ipc::{Chunk, ChunkError, Context, Copies};

use crate::error::{Error, ErrorKind, Result};
use crate::stream::layout::{Layout, SLOTS_MIN_ON_DEVICE};
use crate::stream::open::parse_name;
use crate::stream::{Stream, StreamOptions};

impl StreamOptions {
    /// Creates the stream with its frames in memory of the context's device, all zeros. Slots as for
    /// [`create`](Self::create), 3 at least, and fewer than the default where the device, or `/dev/shm` for a
    /// [mirror](Self::mirror), is short of memory.
    ///
    /// # Errors
    /// As [`create`](Self::create); [`ErrorKind::Device`] if the driver refuses.
    pub fn create_on(&self, context: &Context, name: &str) -> Result<Stream> {
        let parsed = parse_name(name)?;
        self.step_down(SLOTS_MIN_ON_DEVICE, |slots, flags| {
            let flags = flags | self.device_flags();
            let mut layout = Layout::on_device(self.dtype(), self.shape()?, slots, flags)?;
            let chunk = zeros(context, layout.ring_bytes() as u64)
                .map_err(|(kind, why)| Error::new(kind, format!("stream `{name}`: {why}")))?;
            layout.chunk = Some(chunk.label().encode());
            let stream = self.create_with(&parsed, &layout)?;
            // What is not handed out would end with this process.
            let kept = stream.attachment.keep(&mut stream.attachment.on_gpu(), chunk);
            if let Err(error) = kept {
                let _ = stream.unlink();
                return Err(error);
            }
            Ok(stream)
        })
    }
}

/// A chunk of zeros.
fn zeros(context: &Context, bytes: u64) -> Result<Chunk, (ErrorKind, String)> {
    let device = context.device();
    let refused = |why: String| {
        (ErrorKind::Device, format!("{bytes} bytes of memory of {}: {why}", device.uuid()))
    };
    let chunk = Chunk::create(device, bytes).map_err(|source| match source {
        ChunkError::OutOfMemory { .. } => (ErrorKind::NoSpace, source.to_string()),
        source => refused(source.to_string()),
    })?;
    let zeroed = || -> Result<(), Box<dyn std::error::Error>> {
        let mapping = cuda_ipc::Mapping::open(context, &[&chunk], cuda_ipc::Access::ReadWrite)?;
        let copies = Copies::new(context)?;
        copies.fill(mapping.address(), 0, mapping.bytes())?;
        Ok(copies.synchronize()?)
    };
    zeroed().map_err(|source| refused(source.to_string()))?;
    Ok(chunk)
}
