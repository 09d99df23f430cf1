//! What the writer says about a frame, in the 64 bytes of metadata that travel with it.

use std::hash::Hasher;

use shared_tensor::stream::METADATA_BYTES;
use twox_hash::XxHash3_64;

/// Which frame it must be, and what it must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label {
    /// Which writer wrote it.
    pub(super) writer: u64,
    /// The count that the frame must have.
    pub(super) number: u64,
    /// [`Checksum`] of the frame.
    pub(super) checksum: u64,
}

impl Label {
    pub(super) fn to_metadata(self) -> [u8; METADATA_BYTES] {
        let mut metadata = [0; METADATA_BYTES];
        let words = [self.writer, self.number, self.checksum];
        for (bytes, word) in metadata.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        metadata
    }

    pub(super) fn of_metadata(metadata: &[u8; METADATA_BYTES]) -> Self {
        let mut words = metadata.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let mut word = || words.next().unwrap_or(0);
        Self { writer: word(), number: word(), checksum: word() }
    }
}

/// XXH3, 64 bits, in as many parts as the frame comes in, seeded with the frame's number.
///
/// It reads a frame at the speed of memory, so that it does not become what is measured. It is no
/// defence against somebody who forges frames, but a frame with parts of another, with a single
/// wrong bit, or under another frame's number passes once in 2^64 times.
pub(super) struct Checksum(XxHash3_64);

impl Checksum {
    pub(super) fn of_frame(number: u64) -> Self {
        Self(XxHash3_64::with_seed(number))
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    pub(super) fn value(&self) -> u64 {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Checksum, Label};

    fn checksum(number: u64, parts: &[&[u8]]) -> u64 {
        let mut checksum = Checksum::of_frame(number);
        for part in parts {
            checksum.add(part);
        }
        checksum.value()
    }

    #[test]
    fn a_label_travels_in_the_metadata() {
        let label = Label { writer: 2, number: u64::MAX, checksum: 7 };
        assert_eq!(Label::of_metadata(&label.to_metadata()), label);
    }

    /// `tests/demo/test_roles.py` has the same figures: frames go from one language to the other.
    #[test]
    fn both_languages_have_the_same_checksum() {
        let frame: Vec<u8> = (0..100_000_u32).map(|index| (index % 251) as u8).collect();
        assert_eq!(checksum(7, &[&frame]), 0x3964_d4f2_330f_e15e);
        assert_eq!(checksum(u64::MAX, &[&frame]), 0x0524_a8af_fd52_4a6d);
    }

    #[test]
    fn the_parts_do_not_matter() {
        let frame: Vec<u8> = (0..100_000_u32).map(|index| index as u8).collect();
        assert_eq!(checksum(1, &[&frame]), checksum(1, &[&frame[..1000], &frame[1000..]]));
    }

    #[test]
    fn a_torn_frame_and_another_number_are_found() {
        let (one, other) = (vec![1_u8; 4096], vec![2_u8; 4096]);
        let whole = checksum(1, &[&one, &one]);
        assert_ne!(whole, checksum(1, &[&one, &other]));
        assert_ne!(whole, checksum(2, &[&one, &one]));
        let mut flipped = one.clone();
        flipped[4095] ^= 1;
        assert_ne!(whole, checksum(1, &[&one, &flipped]));
    }
}
