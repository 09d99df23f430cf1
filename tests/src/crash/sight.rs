//! The control words of a stream, looked at from outside: by their documented offsets, with nothing
//! of the engine between.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use shm_core::{Access, Kind, Namespace, Segment, SegmentName, SharedBytes};

/// As `docs/LAYOUT.md` has them.
const KIND: Kind = Kind { magic: *b"STSTREAM", version: 1 };
const LOCK: usize = 4096;
const CONTROL: usize = 4096 + 128;
const RECOVERIES: usize = 4096 + 384 + 24;
const PARTICIPANTS: usize = 16384;
const PARTICIPANT_STRIDE: usize = 384;
const PARTICIPANT_PID: usize = 8;
const TABLE_END: u64 = 16384 + 1022 * 384;

/// A view of a stream's control words.
#[derive(Debug)]
pub struct Sight {
    bytes: SharedBytes,
}

/// The control words at one moment (each of them at one moment of its own).
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// The process that the lock word names.
    pub holder: Option<u32>,
    /// Whether a slot is claimed and not yet published.
    pub is_writing: bool,
    /// The count of publications.
    pub count: u64,
    /// Takeovers from the dead, so far.
    pub recoveries: u64,
}

impl Sight {
    /// Looks at the stream `name`.
    ///
    /// # Panics
    /// When there is none.
    pub fn open(namespace: &Namespace, name: &str) -> Self {
        let name = SegmentName::new(name).expect("a name");
        let segment = Segment::open(namespace, &name, Access::ReadWrite, KIND).expect("a stream");
        let end = TABLE_END.next_multiple_of(4096);
        Self { bytes: segment.map(0..end, Access::ReadWrite).expect("its control memory") }
    }

    /// What the words say now.
    pub fn look(&self) -> Snapshot {
        let control = self.word(CONTROL);
        Snapshot {
            holder: self.holder(),
            is_writing: (control >> 54) & 3 == 1,
            count: ((control >> 1) & 0x7fff_ffff) | (((control >> 32) & 0xffff) << 31),
            recoveries: self.word(RECOVERIES),
        }
    }

    /// The process that the lock word names.
    pub fn holder(&self) -> Option<u32> {
        let lock: &AtomicU32 = self.bytes.at(LOCK).expect("the lock word");
        let slot = (lock.load(Ordering::Acquire) >> 21) as usize;
        let entry = PARTICIPANTS + slot.checked_sub(1)? * PARTICIPANT_STRIDE;
        Some(self.word(entry + PARTICIPANT_PID) as u32)
    }

    fn word(&self, offset: usize) -> u64 {
        let word: &AtomicU64 = self.bytes.at(offset).expect("a control word");
        word.load(Ordering::Acquire)
    }
}
