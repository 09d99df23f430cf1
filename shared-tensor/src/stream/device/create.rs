//! Creating streams on a GPU.

use cuda_ipc::{
    Access, Chunk, ChunkError, Context, Copies, Device, DriverError, Mapping, OpenError,
};

use crate::error::{Error, ErrorKind, Result};
use crate::stream::layout::{Layout, SLOTS_MIN_ON_DEVICE};
use crate::stream::open::parse_name;
use crate::stream::place::{Place, Unshared};
use crate::stream::{Stream, StreamOptions};

impl StreamOptions {
    /// Creates the stream with its frames in memory of the context's device, all zeros. Slots as for
    /// [`create`](Self::create), 3 at least, and fewer than the default where the device, or `/dev/shm` for a
    /// [mirror](Self::mirror), is short of memory.
    ///
    /// Where memory of the device cannot be shared, as its driver lacks what that takes or refuses it, the
    /// frames are in the stream's file, and calls wait for the device; [`StreamInfo::warnings`] says why. A
    /// mirror is there anyway then.
    ///
    /// # Errors
    /// As [`create`](Self::create); [`ErrorKind::Device`] if the driver fails.
    ///
    /// [`StreamInfo::warnings`]: crate::stream::StreamInfo::warnings
    pub fn create_on(&self, context: &Context, name: &str) -> Result<Stream> {
        let parsed = parse_name(name)?;
        self.step_down(SLOTS_MIN_ON_DEVICE, |slots, flags| {
            let (dtype, shape) = (self.dtype(), self.shape()?);
            let on_device = flags | self.device_flags();
            let mut layout = Layout::on_device(dtype, shape.clone(), slots, on_device)?;
            let chunk = match self.chunk(context, layout.ring_bytes() as u64) {
                Ok(chunk) => chunk,
                Err(Lack::Unshared(why)) => {
                    let place = Place::FileOf(context.device().uuid(), why);
                    let layout = Layout::placed(dtype, shape, slots, flags, place)?;
                    return self.create_with(&parsed, &layout);
                }
                Err(Lack::Failed(kind, why)) => {
                    return Err(Error::new(kind, format!("stream `{name}`: {why}")));
                }
            };
            layout.place = Place::Chunk(chunk.label().encode());
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

    fn chunk(&self, context: &Context, bytes: u64) -> std::result::Result<Chunk, Lack> {
        if self.wishes_frames_in_file() {
            return Err(Lack::Unshared(Unshared::AS_WISHED));
        }
        zeros(context, bytes)
    }
}

/// Why there is no chunk.
enum Lack {
    /// It could not be shared, nor could any other.
    Unshared(Unshared),
    Failed(ErrorKind, String),
}

impl Lack {
    /// `why` in words, and the driver's answer, if it gave one: that of a driver which does not share memory
    /// is the same for any.
    fn of(why: String, cause: Option<&DriverError>) -> Self {
        match cause.and_then(DriverError::as_call) {
            Some(call) if call.is_refusal() => Self::Unshared(Unshared::refused(call)),
            _ => Self::Failed(ErrorKind::Device, why),
        }
    }

    fn of_chunk(device: &Device, bytes: u64, error: &ChunkError) -> Self {
        let why = format!("{bytes} bytes of memory of {}: {error}", device.uuid());
        match error {
            ChunkError::OutOfMemory { .. } => Self::Failed(ErrorKind::NoSpace, why),
            ChunkError::Unsupported { .. } if device.capabilities().virtual_memory => {
                Self::Unshared(Unshared::NO_DESCRIPTORS)
            }
            ChunkError::Unsupported { .. } => Self::Unshared(Unshared::NO_VIRTUAL_MEMORY),
            ChunkError::Driver(cause) => Self::of(why, Some(cause)),
            _ => Self::of(why, None),
        }
    }

    /// Of a chunk that was made, and that this process opens as any other would.
    fn of_opening(device: &Device, error: &OpenError) -> Self {
        let why = format!("memory of {}: {error}", device.uuid());
        match error {
            OpenError::NoChunk { source, .. }
            | OpenError::Map { source, .. }
            | OpenError::Unreachable { source, .. }
            | OpenError::Driver(source) => Self::of(why, Some(source)),
            _ => Self::of(why, None),
        }
    }
}

/// A chunk of zeros.
fn zeros(context: &Context, bytes: u64) -> std::result::Result<Chunk, Lack> {
    let device = context.device();
    let chunk =
        Chunk::create(device, bytes).map_err(|error| Lack::of_chunk(device, bytes, &error))?;
    let mapping = Mapping::open(context, &[&chunk], Access::ReadWrite)
        .map_err(|error| Lack::of_opening(device, &error))?;
    let zeroed = || {
        let copies = Copies::new(context)?;
        copies.fill(mapping.address(), 0, mapping.bytes())?;
        copies.synchronize()
    };
    zeroed().map_err(|error: DriverError| {
        let why = format!("{bytes} bytes of memory of {}: {error}", device.uuid());
        Lack::Failed(ErrorKind::Device, why)
    })?;
    Ok(chunk)
}
