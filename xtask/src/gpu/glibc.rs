//! The versions of glibc that a program asks for.
//!
//! They stand in the section of needed versions of an ELF file. A version that only weak symbols name is
//! not needed: the loader goes on without it.

use std::fmt;

/// `(2, 34)` is 2.34.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Glibc(pub(crate) u32, pub(crate) u32);

/// The newest that the bundle may need.
pub(crate) const NEWEST: Glibc = Glibc(2, 34);

impl fmt::Display for Glibc {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}.{}", self.0, self.1)
    }
}

const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// `SHT_GNU_verneed`.
const NEEDED_VERSIONS: u32 = 0x6fff_fffe;
/// `VER_FLG_WEAK`.
const WEAK: u16 = 2;

/// Whether a file is a 64-bit little-endian ELF file.
pub(crate) fn is_elf(image: &[u8]) -> bool {
    image.starts_with(MAGIC)
}

/// The versions that an ELF file needs; `None` where its tables lead out of it.
pub(crate) fn needed(image: &[u8]) -> Option<Vec<Glibc>> {
    let table = index(read(image, 0x28)?)?;
    let size = usize::from(u16::from_le_bytes(read(image, 0x3a)?));
    let count = usize::from(u16::from_le_bytes(read(image, 0x3c)?));
    let header = |number: usize| table.checked_add(number.checked_mul(size)?);
    let mut needed = Vec::new();
    for number in 0..count {
        let section = header(number)?;
        if u32::from_le_bytes(read(image, section + 4)?) != NEEDED_VERSIONS {
            continue;
        }
        let start = index(read(image, section + 0x18)?)?;
        let link = u32::from_le_bytes(read(image, section + 0x28)?);
        let names = index(read(image, header(usize::try_from(link).ok()?)? + 0x18)?)?;
        in_section(image, start, names, &mut needed)?;
    }
    Some(needed)
}

/// Each library's record leads to the next, and to a chain of the versions of it.
fn in_section(image: &[u8], start: usize, names: usize, needed: &mut Vec<Glibc>) -> Option<()> {
    let mut at = start;
    loop {
        let mut version = at.checked_add(word(image, at + 8)?)?;
        loop {
            let is_weak = u16::from_le_bytes(read(image, version + 4)?) & WEAK != 0;
            let name = text(image, names.checked_add(word(image, version + 8)?)?)?;
            if !is_weak {
                needed.extend(parse(name));
            }
            match word(image, version + 12)? {
                0 => break,
                next => version = version.checked_add(next)?,
            }
        }
        match word(image, at + 12)? {
            0 => return Some(()),
            next => at = at.checked_add(next)?,
        }
    }
}

/// `GLIBC_2.34`; `None` for versions of other libraries.
fn parse(name: &str) -> Option<Glibc> {
    let (major, minor) = name.strip_prefix("GLIBC_")?.split_once('.')?;
    let minor = minor.split('.').next()?;
    Some(Glibc(major.parse().ok()?, minor.parse().ok()?))
}

fn read<const N: usize>(image: &[u8], at: usize) -> Option<[u8; N]> {
    image.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn word(image: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(read(image, at)?)).ok()
}

fn index(bytes: [u8; 8]) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(bytes)).ok()
}

fn text(image: &[u8], at: usize) -> Option<&str> {
    let rest = image.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::{Glibc, is_elf, needed, parse};

    #[test]
    fn this_program_needs_some() {
        let image = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_elf(&image));
        let found = needed(&image).unwrap();
        assert!(found.iter().all(|it| *it >= Glibc(2, 2) && *it < Glibc(3, 0)), "{found:?}");
        assert!(!found.is_empty());
    }

    #[test]
    fn cut_files_are_no_answer() {
        let image = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(needed(&image[..0x3d]), None);
        assert_eq!(needed(&image[..image.len() / 2]), None);
        assert_eq!(needed(b"\x7fELF\x02\x01"), None);
        assert!(!is_elf(b"#!/bin/sh"));
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(parse("GLIBC_2.2.5"), Some(Glibc(2, 2)));
        assert!(parse("GLIBC_2.9") < parse("GLIBC_2.34"));
        assert_eq!(parse("GCC_3.0"), None);
        assert_eq!(parse("GLIBC_PRIVATE"), None);
    }
}
