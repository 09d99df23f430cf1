//! What tells regions apart.

use std::fmt;

use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};

/// 128 random bits, drawn by whoever makes something that others are to name.
///
/// `Display` prints 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Id([u8; 16]);

impl Id {
    /// An identifier that nobody else has.
    ///
    /// # Panics
    /// If the kernel has no random bytes, which since Linux 3.17 it always has.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        let mut filled = 0;
        while filled < bytes.len() {
            match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => panic!("the kernel gives no random bytes: {errno}"),
            }
        }
        // Version 4, variant 1: these bits tell a reader of a UUID that the others are random.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// The identifier made of these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes, in the order of the digits.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The identifier with these digits; hyphens between them do not count.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let mut digits = text.chars().filter(|it| *it != '-');
        for byte in &mut bytes {
            let high = digits.next()?.to_digit(16)?;
            let low = digits.next()?.to_digit(16)?;
            *byte = u8::try_from(high << 4 | low).ok()?;
        }
        digits.next().is_none().then_some(Self(bytes))
    }

    /// The digits in groups, as UUIDs are written.
    pub fn hyphenated(self) -> String {
        let digits = self.to_string();
        let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|group| &digits[group]);
        groups.join("-")
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Id({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::Id;

    #[test]
    fn text_and_back() {
        let id = Id::random();
        assert_ne!(id, Id::random());
        assert_eq!(Id::parse(&id.to_string()), Some(id));
        assert_eq!(Id::parse(&id.hyphenated()), Some(id));
        assert_eq!(id.hyphenated().as_bytes()[14], b'4', "a version 4 UUID");
        for bad in ["", "12", &"g".repeat(32), &"1".repeat(33)] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }
}
