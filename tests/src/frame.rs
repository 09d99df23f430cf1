//! Frames that prove themselves: every word follows from the first one, so that a frame made of
//! parts of two is seen whatever part it is.

/// Spreads the words' numbers; odd, so that no two words of a frame agree by construction.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;
const SPREAD: u64 = 0xd6e8_feb8_6659_fd93;

/// Fills a frame of at least 8 bytes with what `key` stands for.
pub fn fill(frame: &mut [u8], key: u64) {
    let (words, rest) = frame.as_chunks_mut::<8>();
    for (index, word) in words.iter_mut().enumerate() {
        *word = word_at(key, index as u64).to_le_bytes();
    }
    rest.copy_from_slice(&key.to_le_bytes()[..rest.len()]);
}

/// A frame of `bytes` for `key`.
pub fn frame(bytes: usize, key: u64) -> Vec<u8> {
    let mut frame = vec![0; bytes];
    fill(&mut frame, key);
    frame
}

/// The key of a frame.
///
/// # Errors
/// In words, when it is not a whole frame of one key.
pub fn verify(frame: &[u8]) -> Result<u64, String> {
    let (words, rest) = frame.as_chunks::<8>();
    let Some(first) = words.first() else {
        return Err(format!("{} bytes are too few to prove anything", frame.len()));
    };
    let key = u64::from_le_bytes(*first);
    let wrong = words
        .iter()
        .enumerate()
        .position(|(index, word)| u64::from_le_bytes(*word) != word_at(key, index as u64));
    if let Some(index) = wrong {
        return Err(format!("frame of key {key:#x} is torn at byte {}", index * 8));
    }
    if *rest != key.to_le_bytes()[..rest.len()] {
        return Err(format!("frame of key {key:#x} is torn in its last {} bytes", rest.len()));
    }
    Ok(key)
}

const fn word_at(key: u64, index: u64) -> u64 {
    // Word 0 is the key itself.
    key ^ index.wrapping_mul(STRIDE).wrapping_mul(key.wrapping_mul(SPREAD) | 1)
}

#[cfg(test)]
mod tests {
    use super::{frame, verify};

    #[test]
    fn a_frame_tells_its_key() {
        for bytes in [8, 64, 1000, 1003] {
            assert_eq!(verify(&frame(bytes, 7)), Ok(7));
        }
    }

    #[test]
    fn parts_of_two_frames_are_seen_wherever_they_meet() {
        let (one, other) = (frame(1003, 7), frame(1003, 8));
        for at in 1..one.len() {
            let torn = [&one[..at], &other[at..]].concat();
            if torn != one && torn != other {
                assert!(verify(&torn).is_err(), "undetected at byte {at}");
            }
        }
        assert!(verify(&[0; 64]).is_err(), "untouched memory is no frame");
        assert!(verify(&[1; 4]).is_err());
    }
}
