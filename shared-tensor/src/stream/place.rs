//! Where the frames of a stream are, and what the header says of it.

use std::fmt;

use cuda_ipc::{CallError, ChunkLabel, Uuid};

/// Where the frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the file, of a stream of the CPU.
    File,
    /// In a chunk of a GPU's memory, with this label.
    Chunk([u8; ChunkLabel::BYTES]),
    /// In the file, though the stream is a GPU's.
    FileOf(Uuid, Unshared),
}

/// The same in the header's words, of which anybody may have written any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaceWords {
    pub(crate) mode: u32,
    pub(crate) device: [u8; 16],
    pub(crate) chunk: [u8; ChunkLabel::BYTES],
    pub(crate) unshared: u32,
}

const FILE: u32 = 0;
const CHUNK: u32 = 1;
const FILE_OF_GPU: u32 = 2;

impl Place {
    /// `None`: it is a place that a newer build knows.
    pub(crate) fn of_words(words: &PlaceWords) -> Option<Self> {
        Some(match words.mode {
            FILE => Self::File,
            CHUNK => Self::Chunk(words.chunk),
            FILE_OF_GPU => Self::FileOf(Uuid::from_bytes(words.device), Unshared(words.unshared)),
            _ => return None,
        })
    }

    pub(crate) fn words(&self) -> PlaceWords {
        let none = [0; ChunkLabel::BYTES];
        let device = self.device().map_or([0; 16], Uuid::to_bytes);
        let (mode, chunk, unshared) = match *self {
            Self::File => (FILE, none, 0),
            Self::Chunk(chunk) => (CHUNK, chunk, 0),
            Self::FileOf(_, why) => (FILE_OF_GPU, none, why.0),
        };
        PlaceWords { mode, device, chunk, unshared }
    }

    /// The GPU that the stream belongs to.
    pub(crate) fn device(&self) -> Option<Uuid> {
        match *self {
            Self::File => None,
            Self::Chunk(label) => Some(ChunkLabel::decode(&label).device()),
            Self::FileOf(device, _) => Some(device),
        }
    }

    /// The label of the chunk.
    pub(crate) fn label(&self) -> Option<ChunkLabel> {
        if let Self::Chunk(label) = self { Some(ChunkLabel::decode(label)) } else { None }
    }

    /// Of a GPU's stream whose frames are in its file: why.
    pub(crate) fn unshared(&self) -> Option<Unshared> {
        if let Self::FileOf(_, why) = *self { Some(why) } else { None }
    }
}

/// Why a GPU's memory is not shared, as its number in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unshared(u32);

impl Unshared {
    /// The creator wished so.
    pub(crate) const AS_WISHED: Self = Self(1);
    /// There is no virtual memory management.
    pub(crate) const NO_VIRTUAL_MEMORY: Self = Self(2);
    /// There are no descriptors of what it manages.
    pub(crate) const NO_DESCRIPTORS: Self = Self(3);

    /// The driver's answer when memory was to be made and shared. It has no such small numbers for that.
    pub(crate) fn refused(error: &CallError) -> Self {
        Self(error.code())
    }
}

impl fmt::Display for Unshared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match *self {
            Self::AS_WISHED => "its creator wished so",
            Self::NO_VIRTUAL_MEMORY => {
                "the GPU or its driver has no virtual memory management, without which its memory cannot be \
                 shared"
            }
            Self::NO_DESCRIPTORS => {
                "the GPU or its driver gives no file descriptors of its memory, without which it cannot be \
                 shared"
            }
            Self(800) => {
                "the driver or the container did not permit sharing the GPU's memory \
                 (CUDA_ERROR_NOT_PERMITTED, 800)"
            }
            Self(801) => {
                "the driver did not support sharing the GPU's memory (CUDA_ERROR_NOT_SUPPORTED, 801)"
            }
            Self(code) => {
                return write!(formatter, "the driver did not share the GPU's memory ({code})");
            }
        })
    }
}
