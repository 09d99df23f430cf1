//! Names of holders' sockets.

use std::ffi::OsStr;
use std::fmt;

use thiserror::Error;

use crate::service::Id;
use crate::stream::layout::Holder;
use crate::sync::AtomicU64;

/// How many words of a line a name has.
pub(super) const WORDS: usize = size_of_name() / size_of::<u64>();
/// How long a name may be.
pub(super) const BYTES_MAX: usize = size_of_name();

const PREFIX: &str = "holder-";

const fn size_of_name() -> usize {
    size_of::<Holder>() - 3 * size_of::<AtomicU64>()
}

/// The name of a socket in the runtime directory: letters, digits, `-`, `_` and `.`, of which the last
/// does not come first. It leads out of no directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SocketName(String);

/// Bytes of a line that name no socket.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum NameError {
    #[error("a name of {bytes} bytes, of which {BYTES_MAX} fit its line")]
    Length { bytes: u64 },
    #[error("a name that is not UTF-8")]
    Text,
    #[error("the name `{}`, which is no plain file name", .name.escape_debug())]
    Form { name: String },
}

impl SocketName {
    /// A name that nobody else has.
    pub(super) fn random() -> Self {
        Self(format!("{PREFIX}{}", Id::random()))
    }

    /// Whether a file is the socket of a holder, by its name.
    pub(super) fn is_one(file: &OsStr) -> bool {
        let digits = file.to_str().and_then(|name| name.strip_prefix(PREFIX));
        digits.is_some_and(|digits| Id::parse(digits).is_some())
    }

    /// The first `bytes` bytes of a line's words.
    pub(super) fn parse(words: [u64; WORDS], bytes: u64) -> Result<Self, NameError> {
        let whole: Vec<u8> = words.into_iter().flat_map(u64::to_ne_bytes).collect();
        let length = usize::try_from(bytes).ok();
        let name = length.and_then(|length| whole.get(..length)).filter(|name| !name.is_empty());
        let name = str::from_utf8(name.ok_or(NameError::Length { bytes })?);
        let name = name.map_err(|_| NameError::Text)?;
        let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
        if name.starts_with('.') || !name.chars().all(is_plain) {
            return Err(NameError::Form { name: name.to_owned() });
        }
        Ok(Self(name.to_owned()))
    }

    pub(super) fn words(&self) -> [u64; WORDS] {
        let bytes = self.0.as_bytes();
        std::array::from_fn(|word| {
            let byte = |at: usize| bytes.get(word * size_of::<u64>() + at).copied().unwrap_or(0);
            u64::from_ne_bytes(std::array::from_fn(byte))
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SocketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &[u8]) -> Result<SocketName, NameError> {
        let at = |word: usize, byte: usize| text.get(word * 8 + byte).copied().unwrap_or(0);
        let words = |word| u64::from_ne_bytes(std::array::from_fn(|byte| at(word, byte)));
        SocketName::parse(std::array::from_fn(words), text.len() as u64)
    }

    #[test]
    fn names_come_back() {
        let name = SocketName::random();
        assert_ne!(name, SocketName::random());
        let length = name.as_str().len() as u64;
        assert_eq!(SocketName::parse(name.words(), length), Ok(name.clone()));
        assert!(SocketName::is_one(OsStr::new(name.as_str())));
        assert!(!SocketName::is_one(OsStr::new("holder-")));
        assert!(!SocketName::is_one(OsStr::new("cpu-0123456789abcdef.sock")));
        assert!(!SocketName::is_one(OsStr::new(&format!("{name}.lock"))));
    }

    #[test]
    fn what_is_no_plain_name_is_refused() {
        for name in ["../socket", "a/b", ".", "..", ".hidden", "a b", "a\0b", "é"] {
            let form = NameError::Form { name: name.to_owned() };
            assert_eq!(parse(name.as_bytes()), Err(form), "{name:?}");
        }
        assert_eq!(parse(b""), Err(NameError::Length { bytes: 0 }));
        assert_eq!(parse(b"\xff\xfe"), Err(NameError::Text));
        assert!(parse(&[b'a'; BYTES_MAX]).is_ok());
        assert_eq!(parse(&[b'a'; BYTES_MAX + 1]), Err(NameError::Length { bytes: 105 }));
        assert_eq!(
            SocketName::parse([0; WORDS], u64::MAX),
            Err(NameError::Length { bytes: u64::MAX })
        );
    }

    proptest! {
        #[test]
        fn noise_is_an_error_or_stays_in_its_directory(
            words in any::<[u64; WORDS]>(),
            bytes in prop_oneof![0..200_u64, any::<u64>()],
        ) {
            if let Ok(name) = SocketName::parse(words, bytes) {
                let path = std::path::Path::new(name.as_str());
                prop_assert_eq!(path.file_name().map(OsStr::len), Some(name.as_str().len()));
            }
        }
    }
}
