//! Frames that tell their number in every word, so that parts of two can be told apart.

use cuda_ipc::{Context, Stream as Queue};

use crate::sys::Kernels;

/// As the kernel writes them, see `pattern.ptx`.
const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
/// Marks what a device is not done with: no frame has such a number.
const UNFINISHED: u64 = 1 << 63;

/// Has a device write them.
#[derive(Debug)]
pub(crate) struct Numbers {
    kernels: Kernels,
    words: u64,
}

impl Numbers {
    pub(crate) fn new(context: &Context, bytes: u64) -> Self {
        let kernels = Kernels::load(context);
        Self { kernels: kernels.expect("the driver takes kernels"), words: bytes / 8 }
    }

    /// Queues the whole frame.
    pub(crate) fn fill(&self, queue: &Queue, address: u64, number: u64) {
        self.kernels.fill(queue, [address, self.words, number]);
    }

    /// Queues what is no frame: half of this one, and something else.
    pub(crate) fn spoil(&self, queue: &Queue, address: u64, number: u64) {
        self.kernels.fill(queue, [address, self.words, number | UNFINISHED]);
        self.kernels.fill(queue, [address, self.words / 2, number]);
    }
}

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// All of it belongs to this number; 0 is the zeros before the first.
    Whole(u64),
    /// So many words do not belong to the number of the first.
    Torn(u64),
}

impl Found {
    pub(crate) fn of(frame: &[u8]) -> Self {
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        let number = word(&frame[..8]);
        let words = || frame.chunks_exact(8).map(word);
        if words().all(|it| it == 0) {
            return Self::Whole(0);
        }
        let right = (0_u64..).map(|at| at.wrapping_mul(FACTOR) ^ number);
        let wrong = words().zip(right).filter(|(one, other)| one != other).count() as u64;
        if wrong == 0 && number & UNFINISHED == 0 {
            Self::Whole(number)
        } else {
            Self::Torn(wrong.max(1))
        }
    }

    /// As it travels.
    pub(crate) fn encode(self) -> String {
        match self {
            Self::Whole(number) => number.to_string(),
            Self::Torn(wrong) => format!("torn{wrong}"),
        }
    }

    pub(crate) fn decode(text: &str) -> Self {
        let number = |text: &str| text.parse().expect("a number");
        text.strip_prefix("torn")
            .map_or_else(|| Self::Whole(number(text)), |it| Self::Torn(number(it)))
    }
}
