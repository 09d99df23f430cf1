//! Which file, which creation, whose format: the small values that tell segments apart.

use std::fmt;
use std::io;

use crate::sys::{Stores, file};

/// The file behind a segment: two segments with one identity share their bytes.
///
/// Never reused while anybody holds the file open or mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The device number of the file system.
    pub device: u64,
    /// The inode number in it.
    pub inode: u64,
}

/// Sixteen random bytes drawn at creation: a re-created segment is another generation.
///
/// `Display` prints 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Generation([u8; 16]);

impl Generation {
    /// Draws a fresh generation from the kernel.
    pub(crate) fn random() -> io::Result<Generation> {
        file::random().map(Generation)
    }

    /// The generation made of these bytes, as stored in a segment's header.
    pub const fn from_bytes(bytes: [u8; 16]) -> Generation {
        Generation(bytes)
    }

    /// The bytes, in the order of the header.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Generation({self})")
    }
}

/// The caller's own format of the bytes behind the object header.
///
/// `Display` prints the magic with unprintable bytes escaped, then the version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Which format; choose eight bytes that nobody else uses.
    pub magic: [u8; 8],
    /// Which version of it; only equal versions open each other's segments.
    pub version: u32,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} version {}", self.magic.escape_ascii(), self.version)
    }
}

/// What a handle may do with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Loads and copies out.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

impl Access {
    pub(crate) fn is_writable(self) -> bool {
        self == Access::ReadWrite
    }

    /// What mappings of the file itself do with stores.
    pub(crate) fn stores(self) -> Stores {
        if self.is_writable() { Stores::Shared } else { Stores::Forbidden }
    }

    /// Whether a handle with this access may hand out `wanted`.
    pub(crate) fn allows(self, wanted: Access) -> bool {
        self.is_writable() || !wanted.is_writable()
    }
}
