//! The 24 bytes before every body.
//!
//! | offset | bytes | field | |
//! |---:|---:|---|---|
//! | 0 | 4 | magic | `UDSf` |
//! | 4 | 2 | version | of this header, 1; the versions of what is said are agreed in the handshake |
//! | 6 | 2 | kind | 1 control, 2 request, 3 reply, 4 push |
//! | 8 | 4 | flags | bits 0-7: how many descriptors come with the frame; 8-15: zero; 16-31: the tag |
//! | 12 | 4 | length | of the body, in bytes |
//! | 16 | 8 | request id | counted up by the client from 1; 0 where no request is meant |
//!
//! All of it little-endian. The descriptors of a frame travel with its first byte. The tag belongs
//! to the user: which method is called, how the call ended, what the push is about.

use crate::error::FrameError;

/// The first four bytes of every frame, as they stand on the wire.
pub const MAGIC: [u8; 4] = *b"UDSf";
/// The version of the header that this crate speaks.
pub const HEADER_VERSION: u16 = 1;
/// How long a header is.
pub const HEADER_BYTES: usize = 24;
/// How many descriptors the kernel passes with one message (`SCM_MAX_FD`).
pub const DESCRIPTORS_MAX: u8 = 253;

/// What a side takes. A header that announces more is an error before anything is allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// The longest body, in bytes.
    pub body_bytes_max: u32,
    /// The most descriptors with one frame, at most [`DESCRIPTORS_MAX`].
    pub descriptors_max: u8,
}

impl Default for FrameLimits {
    /// Bodies up to 1 MiB, up to 64 descriptors.
    fn default() -> Self {
        Self { body_bytes_max: 1 << 20, descriptors_max: 64 }
    }
}

impl FrameLimits {
    /// Refuses to send what the other side does not take.
    pub(crate) fn check(self, body_bytes: usize, descriptors: usize) -> Result<(), FrameError> {
        let bytes = u32::try_from(body_bytes).unwrap_or(u32::MAX);
        if bytes > self.body_bytes_max {
            return Err(FrameError::TooLong { bytes, limit: self.body_bytes_max });
        }
        if descriptors > usize::from(self.descriptors_max) {
            let count = u8::try_from(descriptors).unwrap_or(u8::MAX);
            return Err(FrameError::TooManyDescriptors { count, limit: self.descriptors_max });
        }
        Ok(())
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Said by this crate itself: handshake, ping, cancel, refusal.
    Control = 1,
    /// From client to server.
    Request = 2,
    /// From server to client, with the id of the request.
    Reply = 3,
    /// From server to client, unasked.
    Push = 4,
}

/// The decoded header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// The user's own number.
    pub tag: u16,
    /// How many descriptors come with it.
    pub descriptors: u8,
    /// How long its body is.
    pub body_bytes: u32,
    /// The request that it makes, answers or concerns.
    pub id: u64,
}

impl Header {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let flags = u32::from(self.tag) << 16 | u32::from(self.descriptors);
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&HEADER_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&(self.kind as u16).to_le_bytes());
        bytes[8..12].copy_from_slice(&flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }

    /// Checks every field before any of them is used.
    ///
    /// # Errors
    ///
    /// [`FrameError`], by the first field that is wrong.
    pub fn decode(bytes: &[u8; HEADER_BYTES], limits: FrameLimits) -> Result<Self, FrameError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from(u16_at(at)) | u32::from(u16_at(at + 2)) << 16;
        let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if magic != MAGIC {
            return Err(FrameError::Magic { found: magic });
        }
        let version = u16_at(4);
        if version != HEADER_VERSION {
            return Err(FrameError::Version { found: version });
        }
        let kind = match u16_at(6) {
            1 => Kind::Control,
            2 => Kind::Request,
            3 => Kind::Reply,
            4 => Kind::Push,
            found => return Err(FrameError::Kind { found }),
        };
        let flags = u32_at(8);
        if flags & 0xff00 != 0 {
            return Err(FrameError::Flags { found: flags });
        }
        let descriptors = (flags & 0xff) as u8;
        if descriptors > limits.descriptors_max {
            let limit = limits.descriptors_max;
            return Err(FrameError::TooManyDescriptors { count: descriptors, limit });
        }
        let body_bytes = u32_at(12);
        if body_bytes > limits.body_bytes_max {
            return Err(FrameError::TooLong { bytes: body_bytes, limit: limits.body_bytes_max });
        }
        let id = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
        Ok(Self { kind, tag: (flags >> 16) as u16, descriptors, body_bytes, id })
    }
}

/// A whole frame. `F` is a descriptor: an `OwnedFd` on a socket, anything in a test.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<F> {
    /// Its header.
    pub header: Header,
    /// As many bytes as the header says.
    pub body: Vec<u8>,
    /// As many descriptors as the header says.
    pub descriptors: Vec<F>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header =
        Header { kind: Kind::Reply, tag: 0xbeef, descriptors: 3, body_bytes: 258, id: 1 << 40 | 5 };

    #[test]
    fn bytes_stand_where_the_table_says() {
        let bytes = HEADER.encode();
        assert_eq!(&bytes[..8], b"UDSf\x01\0\x03\0");
        assert_eq!(&bytes[8..16], &[3, 0, 0xef, 0xbe, 2, 1, 0, 0]);
        assert_eq!(&bytes[16..], &[5, 0, 0, 0, 0, 1, 0, 0]);
        assert_eq!(Header::decode(&bytes, FrameLimits::default()), Ok(HEADER));
    }

    #[test]
    fn each_wrong_field_is_named() {
        let limits = FrameLimits { body_bytes_max: 258, descriptors_max: 3 };
        let broken = |at: usize, to: u8| {
            let mut bytes = HEADER.encode();
            bytes[at] = to;
            Header::decode(&bytes, limits)
        };
        assert_eq!(broken(0, b'u'), Err(FrameError::Magic { found: *b"uDSf" }));
        assert_eq!(broken(4, 2), Err(FrameError::Version { found: 2 }));
        assert_eq!(broken(6, 0), Err(FrameError::Kind { found: 0 }));
        assert_eq!(broken(6, 5), Err(FrameError::Kind { found: 5 }));
        assert_eq!(broken(9, 1), Err(FrameError::Flags { found: 0xbeef_0103 }));
        assert_eq!(broken(8, 4), Err(FrameError::TooManyDescriptors { count: 4, limit: 3 }));
        assert_eq!(broken(12, 3), Err(FrameError::TooLong { bytes: 259, limit: 258 }));
    }
}
