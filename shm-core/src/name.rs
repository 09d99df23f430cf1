//! Names: what users call a segment, and the file name that stands for it.

use std::fmt;

use thiserror::Error;

/// The longest name, in bytes of UTF-8: it must fit the header's field.
pub const NAME_BYTES_MAX: usize = 256;

/// The longest encoded name that becomes a file name as it is; longer ones are hashed.
const ENCODED_BYTES_MAX: usize = 200;

/// The name of a segment: any Unicode text of 1 to 256 bytes that is not blank and holds no NUL.
///
/// Names are compared byte by byte: `é` as one code point and as two are different names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName(String);

/// Why a text is no segment name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NameError {
    /// Empty, or nothing but white space.
    #[error("the name is blank; use at least one visible character")]
    Blank,
    /// Longer than [`NAME_BYTES_MAX`].
    #[error("the name has {bytes} bytes of UTF-8, at most {NAME_BYTES_MAX} fit")]
    TooLong {
        /// The length found, in bytes.
        bytes: usize,
    },
    /// Holds a NUL character.
    #[error("the name holds a NUL character at byte {at}; remove it")]
    Nul {
        /// Where, in bytes.
        at: usize,
    },
}

impl SegmentName {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<SegmentName, NameError> {
        let name = name.into();
        if name.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: name.len() });
        }
        if let Some(at) = name.find('\0') {
            return Err(NameError::Nul { at });
        }
        if name.trim().is_empty() {
            return Err(NameError::Blank);
        }
        Ok(SegmentName(name))
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part of the file name behind the prefix: at most 200 bytes of printable ASCII without
    /// `/`, different for different names unless both are hashed and their hashes collide.
    pub(crate) fn encode(&self) -> String {
        let mut encoded = String::with_capacity(self.0.len());
        for (at, byte) in self.0.bytes().enumerate() {
            // A leading dot would hide the file, or name the directory itself.
            let plain = byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'_')
                || (byte == b'.' && at > 0);
            if plain {
                encoded.push(char::from(byte));
            } else {
                encoded.push('%');
                encoded.push(hex_digit(byte >> 4));
                encoded.push(hex_digit(byte & 0xf));
            }
        }
        if encoded.len() > ENCODED_BYTES_MAX {
            // `h` is no hexadecimal digit, so no encoded name looks like a hashed one.
            return format!("%h{:032x}", fnv1a_128(self.0.as_bytes()));
        }
        encoded
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AsRef<str> for SegmentName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for SegmentName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<SegmentName, NameError> {
        SegmentName::new(name)
    }
}

fn hex_digit(value: u8) -> char {
    char::from(b"0123456789ABCDEF"[usize::from(value & 0xf)])
}

/// FNV-1a with 128 bits. It need not withstand an adversary: who could plant a file under the
/// colliding name could plant it under the name itself, and the name stored in the header decides.
fn fnv1a_128(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        // Vectors of the algorithm's authors: file names must mean the same to every build.
        for (text, hash) in [
            ("", 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d),
            ("a", 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964),
            ("foobar", 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18_u128),
        ] {
            assert_eq!(fnv1a_128(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn names_are_hashed_from_201_encoded_bytes_on() {
        let encode = |text: String| SegmentName::new(text).expect("a name").encode();
        assert_eq!(encode("x".repeat(200)), "x".repeat(200));
        assert_eq!(encode("x".repeat(201)).len(), 2 + 32);
        assert_eq!(encode("/".repeat(66)).len(), 198);
        assert!(encode("/".repeat(67)).starts_with("%h"));
        // Nothing that is typed encodes to what is hashed or temporary.
        assert!(encode("%h00".into()).starts_with("%25h"));
        assert!(encode("%tmp.0".into()).starts_with("%25tmp."));
    }
}
