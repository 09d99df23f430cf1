//! The object header: the first 512 bytes of every segment, written once before it has a name.
//!
//! A header is read by `pread` into private memory and checked there, so what was checked cannot
//! change afterwards.

use std::mem::offset_of;

use crate::creator::Creator;
use crate::identity::{Generation, Kind};
use crate::name::{NAME_BYTES_MAX, SegmentName};

/// Bytes in front of the caller's own area, which starts at this offset.
pub const HEADER_BYTES: u64 = 512;

/// The version of the layout of these 512 bytes.
pub(crate) const LAYOUT_VERSION: u32 = 1;

/// A first byte that is no text, a name, and an end that line-mangling transfers destroy.
const MAGIC: [u8; 8] = *b"\x89STSEG\n\x1a";

/// Reads 0x04030201 where the byte order is the other one.
const BYTE_ORDER_TAG: u32 = 0x0102_0304;

const RESERVED_BYTES: usize = 160;

/// The map of the header. Only its offsets are used: no reference ever covers the shared bytes.
#[repr(C)]
#[expect(clippy::struct_field_names, reason = "the names of the published layout")]
struct Layout {
    magic: [u8; 8],
    layout_version: u32,
    header_bytes: u32,
    total_bytes: u64,
    byte_order_tag: u32,
    flags: u32,
    generation: [u8; 16],
    creator_pid: u32,
    creator_uid: u32,
    created_unix_ns: i64,
    kind_magic: [u8; 8],
    kind_version: u32,
    name_bytes: u32,
    creator_start_ticks: u64,
    creator_pid_namespace: u64,
    reserved: [u8; RESERVED_BYTES],
    name: [u8; NAME_BYTES_MAX],
}

const _: () = {
    assert!(size_of::<Layout>() as u64 == HEADER_BYTES);
    assert!(offset_of!(Layout, magic) == 0);
    assert!(offset_of!(Layout, layout_version) == 8);
    assert!(offset_of!(Layout, header_bytes) == 12);
    assert!(offset_of!(Layout, total_bytes) == 16);
    assert!(offset_of!(Layout, byte_order_tag) == 24);
    assert!(offset_of!(Layout, flags) == 28);
    assert!(offset_of!(Layout, generation) == 32);
    assert!(offset_of!(Layout, creator_pid) == 48);
    assert!(offset_of!(Layout, creator_uid) == 52);
    assert!(offset_of!(Layout, created_unix_ns) == 56);
    assert!(offset_of!(Layout, kind_magic) == 64);
    assert!(offset_of!(Layout, kind_version) == 72);
    assert!(offset_of!(Layout, name_bytes) == 76);
    assert!(offset_of!(Layout, creator_start_ticks) == 80);
    assert!(offset_of!(Layout, creator_pid_namespace) == 88);
    assert!(offset_of!(Layout, reserved) == 96);
    assert!(offset_of!(Layout, name) == 256);
};

/// The bytes of a header.
pub(crate) type Image = [u8; HEADER_BYTES as usize];

/// A header whose every field has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) total_bytes: u64,
    pub(crate) generation: Generation,
    pub(crate) kind: Kind,
    pub(crate) creator: Creator,
    pub(crate) name: SegmentName,
}

/// Why 512 bytes are no header of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Not a segment, or a damaged one; the words complete "is not a segment: ...".
    Reason(String),
    /// A segment of another layout version.
    Layout(u32),
}

impl Header {
    /// The bytes to write.
    pub(crate) fn encode(&self) -> Image {
        let mut image: Image = [0; HEADER_BYTES as usize];
        let name = self.name.as_str().as_bytes();
        let mut put = |offset: usize, bytes: &[u8]| {
            image[offset..offset + bytes.len()].copy_from_slice(bytes);
        };
        put(offset_of!(Layout, magic), &MAGIC);
        put(offset_of!(Layout, layout_version), &LAYOUT_VERSION.to_ne_bytes());
        put(offset_of!(Layout, header_bytes), &(HEADER_BYTES as u32).to_ne_bytes());
        put(offset_of!(Layout, total_bytes), &self.total_bytes.to_ne_bytes());
        put(offset_of!(Layout, byte_order_tag), &BYTE_ORDER_TAG.to_ne_bytes());
        put(offset_of!(Layout, generation), &self.generation.to_bytes());
        put(offset_of!(Layout, creator_pid), &self.creator.pid.to_ne_bytes());
        put(offset_of!(Layout, creator_uid), &self.creator.uid.to_ne_bytes());
        put(offset_of!(Layout, created_unix_ns), &self.creator.created_unix_ns.to_ne_bytes());
        put(offset_of!(Layout, kind_magic), &self.kind.magic);
        put(offset_of!(Layout, kind_version), &self.kind.version.to_ne_bytes());
        put(offset_of!(Layout, name_bytes), &(name.len() as u32).to_ne_bytes());
        put(offset_of!(Layout, creator_start_ticks), &self.creator.start_ticks.to_ne_bytes());
        put(offset_of!(Layout, creator_pid_namespace), &self.creator.pid_namespace.to_ne_bytes());
        put(offset_of!(Layout, name), name);
        image
    }

    /// Checks every field of `image`, which anybody may have written.
    pub(crate) fn decode(image: &Image) -> Result<Header, Malformed> {
        let fields = Fields(image);
        if fields.array::<8>(offset_of!(Layout, magic)) != MAGIC {
            return malformed("it does not start with the magic bytes");
        }
        let tag = fields.u32(offset_of!(Layout, byte_order_tag));
        if tag == BYTE_ORDER_TAG.swap_bytes() {
            return malformed("it was written by a machine of the other byte order");
        }
        if tag != BYTE_ORDER_TAG {
            return malformed(format!("its byte order tag is {tag:#x}"));
        }
        let version = fields.u32(offset_of!(Layout, layout_version));
        if version != LAYOUT_VERSION {
            return Err(Malformed::Layout(version));
        }
        let header_bytes = fields.u32(offset_of!(Layout, header_bytes));
        if u64::from(header_bytes) != HEADER_BYTES {
            return malformed(format!("its header claims {header_bytes} bytes"));
        }
        let flags = fields.u32(offset_of!(Layout, flags));
        if flags != 0 {
            return malformed(format!("its header has unknown flags {flags:#x}"));
        }
        let total_bytes = fields.u64(offset_of!(Layout, total_bytes));
        if !(HEADER_BYTES..=i64::MAX.cast_unsigned()).contains(&total_bytes) {
            return malformed(format!("its header claims {total_bytes} bytes in total"));
        }
        if fields.array::<RESERVED_BYTES>(offset_of!(Layout, reserved)) != [0; RESERVED_BYTES] {
            return malformed("the reserved part of its header is not zero");
        }
        Ok(Header {
            total_bytes,
            generation: Generation::from_bytes(fields.array(offset_of!(Layout, generation))),
            kind: Kind {
                magic: fields.array(offset_of!(Layout, kind_magic)),
                version: fields.u32(offset_of!(Layout, kind_version)),
            },
            creator: Creator {
                pid: fields.u32(offset_of!(Layout, creator_pid)),
                uid: fields.u32(offset_of!(Layout, creator_uid)),
                created_unix_ns: i64::from_ne_bytes(
                    fields.array(offset_of!(Layout, created_unix_ns)),
                ),
                start_ticks: fields.u64(offset_of!(Layout, creator_start_ticks)),
                pid_namespace: fields.u64(offset_of!(Layout, creator_pid_namespace)),
            },
            name: decode_name(&fields)?,
        })
    }
}

fn decode_name(fields: &Fields<'_>) -> Result<SegmentName, Malformed> {
    let claimed = fields.u32(offset_of!(Layout, name_bytes));
    let field: [u8; NAME_BYTES_MAX] = fields.array(offset_of!(Layout, name));
    let Some((name, rest)) = usize::try_from(claimed).ok().and_then(|n| field.split_at_checked(n))
    else {
        return malformed(format!("its name claims {claimed} bytes"));
    };
    if rest.iter().any(|&byte| byte != 0) {
        return malformed("there are bytes behind its name");
    }
    let Ok(name) = std::str::from_utf8(name) else {
        return malformed("its name is not UTF-8");
    };
    SegmentName::new(name)
        .or_else(|error| malformed(format!("its stored name is invalid: {error}")))
}

fn malformed<T>(reason: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed::Reason(reason.into()))
}

/// Reads fields out of the image; the offsets are constants below `HEADER_BYTES`.
struct Fields<'a>(&'a Image);

impl Fields<'_> {
    fn array<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.0[offset..offset + N]);
        bytes
    }

    fn u32(&self, offset: usize) -> u32 {
        u32::from_ne_bytes(self.array(offset))
    }

    fn u64(&self, offset: usize) -> u64 {
        u64::from_ne_bytes(self.array(offset))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            total_bytes: 1 << 33,
            generation: Generation::from_bytes(*b"sixteen bytes it"),
            kind: Kind { magic: *b"a format", version: 0x0708_090a },
            creator: Creator {
                pid: 4711,
                uid: 1000,
                created_unix_ns: 1_700_000_000_123_456_789,
                start_ticks: 0x0102_0304_0506_0708,
                pid_namespace: 4_026_531_836,
            },
            name: SegmentName::new("camera/größe 0").expect("a name"),
        }
    }

    /// Segments outlive builds: today's bytes are those that the first release wrote.
    #[test]
    fn the_image_is_the_golden_one() {
        let golden = include_bytes!("../tests/fixtures/header-v1.bin");
        assert_eq!(header().encode(), *golden);
        assert_eq!(Header::decode(golden), Ok(header()));
    }

    #[test]
    fn every_value_of_every_byte_is_refused_or_harmless() {
        let good = header().encode();
        let mut accepted = 0;
        for at in 0..good.len() {
            for value in 0..=u8::MAX {
                let mut image = good;
                image[at] = value;
                if let Ok(decoded) = Header::decode(&image) {
                    assert_eq!(decoded.encode(), image, "byte {at} = {value}: something is lost");
                    accepted += 1;
                }
            }
        }
        assert!(accepted > good.len(), "the good one, once for each byte, and free fields");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_encoded_is_decoded(
            total_bytes in HEADER_BYTES..=i64::MAX.cast_unsigned(),
            generation: [u8; 16],
            magic: [u8; 8],
            version: u32,
            pid: u32,
            created_unix_ns: i64,
            start_ticks: u64,
            name in "\\PC{1,80}",
        ) {
            let Ok(name) = SegmentName::new(name) else { return Ok(()) };
            let header = Header {
                total_bytes,
                generation: Generation::from_bytes(generation),
                kind: Kind { magic, version },
                creator: Creator {
                    pid,
                    created_unix_ns,
                    start_ticks,
                    uid: pid ^ version,
                    pid_namespace: start_ticks.rotate_left(7),
                },
                name,
            };
            // The time of creation is shown, whatever it is.
            let _ = header.creator.created();
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn any_bytes_behind_the_magic_are_answered(noise: [u8; 32], rest: u64, at in 8usize..480) {
            let mut image = header().encode();
            image[at..at + 32].copy_from_slice(&noise);
            let other = rest as usize % 504;
            image[other..other + 8].copy_from_slice(&rest.to_ne_bytes());
            if let Ok(decoded) = Header::decode(&image) {
                prop_assert_eq!(decoded.encode(), image);
            }
        }
    }
}
