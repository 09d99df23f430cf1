//! Which device is meant, whatever number a process knows it by.

use std::fmt;
use std::str::FromStr;

/// A device's identity, the same in every process of a host. Written as `nvidia-smi` writes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid([u8; 16]);

impl Uuid {
    /// From its bytes, in the order of the driver.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, in the order of the driver.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("GPU")?;
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 0 | 4 | 6 | 8 | 10) {
                formatter.write_str("-")?;
            }
            write!(formatter, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A text is no device's identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no device: expected GPU-00000000-0000-0000-0000-000000000000 in hexadecimal")]
pub struct ParseUuidError {
    found: String,
}

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        let error = || ParseUuidError { found: text.chars().take(64).collect() };
        let parts: Vec<&str> = text.strip_prefix("GPU-").ok_or_else(error)?.split('-').collect();
        if parts.iter().map(|part| part.len()).ne([8, 4, 4, 4, 12]) {
            return Err(error());
        }
        let digits = parts.concat();
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(error());
        }
        let number = u128::from_str_radix(&digits, 16).map_err(|_| error())?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_lead_back(bytes in any::<[u8; 16]>()) {
            let uuid = Uuid::from_bytes(bytes);
            prop_assert_eq!(uuid.to_string().parse(), Ok(uuid));
        }

        #[test]
        fn no_text_panics(text in ".{0,60}") {
            let _ = text.parse::<Uuid>();
        }
    }

    #[test]
    fn it_is_written_as_by_nvidia_smi() {
        let uuid: Uuid = "GPU-b5e80f04-0167-aff4-d1c9-0d4b1bfa1c2d".parse().expect("one");
        assert_eq!(uuid.to_bytes()[..4], [0xb5, 0xe8, 0x0f, 0x04]);
        let error = "MIG-1".parse::<Uuid>().expect_err("none");
        assert!(error.to_string().contains("\"MIG-1\""), "{error}");
    }
}
