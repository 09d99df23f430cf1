//! Every error, word for word: what was found, and what to do.

use std::io;
use std::path::PathBuf;

use shm_core::{
    CreateError, Kind, ListError, MapError, NameError, NamespaceError, OpenError, OutOfBounds,
    RegionError, ReserveError, Resource, Shortage, UnlinkError, ViewError,
};

fn path() -> PathBuf {
    "/dev/shm/st.a".into()
}

fn errno() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn shortage() -> Shortage {
    Shortage {
        resource: Resource::Filesystem,
        place: "/dev/shm".into(),
        needed_bytes: 3,
        limit_bytes: 2,
        free_bytes: 1,
    }
}

const SHORT: &str = "3 bytes needed, 1 bytes free of 2 bytes in `/dev/shm`; remove segments nobody \
                     uses or enlarge the file system (in a container start it with a larger \
                     `--shm-size`)";

/// Lower case (unless it starts with a quoted name or a number), no full stop, nothing of `Debug`.
fn check(error: &dyn std::error::Error, expected: &str) {
    let said = error.to_string();
    assert_eq!(said, expected);
    assert!(!said.ends_with('.') && !said.starts_with(char::is_uppercase), "{said}");
    assert!(!said.contains("Os {") && !said.contains("Error"), "{said}");
}

#[test]
fn creation() {
    check(
        &CreateError::AlreadyExists { path: path() },
        "`/dev/shm/st.a` exists already; open it, unlink it or choose another name",
    );
    check(
        &CreateError::Size { total_bytes: 7 },
        "a segment cannot have 7 bytes; ask for at least 512 and no more than a signed 64-bit \
         number holds",
    );
    check(
        &CreateError::ReserveRange { range: 1..9, total_bytes: 8 },
        "the range 1..9 to reserve does not lie in the segment's 8 bytes",
    );
    check(
        &CreateError::Mode { mode: 0o400 },
        "mode 0o400 is not usable; grant the owner 0o600 and at most 0o777",
    );
    check(
        &CreateError::NoSpace { path: path(), shortage: shortage() },
        &format!("no room for `/dev/shm/st.a`: {SHORT}"),
    );
    check(
        &CreateError::PermissionDenied { path: path(), source: errno() },
        "no permission to create `/dev/shm/st.a`; make the directory writable or choose another",
    );
    check(
        &CreateError::NoDirectory { directory: "/nowhere".into() },
        "the directory `/nowhere` does not exist; create it or choose another",
    );
    check(
        &CreateError::Group { gid: 7, path: path(), source: errno() },
        "group 7 cannot own `/dev/shm/st.a`; choose a group that this process belongs to",
    );
    check(
        &CreateError::Init { path: path(), source: errno() },
        "`/dev/shm/st.a` could not be initialised",
    );
    check(
        &CreateError::Os { path: path(), call: "fchmod", source: errno() },
        "`/dev/shm/st.a` could not be created: fchmod failed",
    );
}

#[test]
fn opening() {
    check(
        &OpenError::NotFound { path: path() },
        "`/dev/shm/st.a` does not exist; create it first, or check name and directory",
    );
    let denied = |writable| OpenError::PermissionDenied { path: path(), writable, source: errno() };
    check(
        &denied(true),
        "no permission to open `/dev/shm/st.a` for reading and writing; open it read-only, or let \
         its owner widen the mode",
    );
    check(
        &denied(false),
        "no permission to open `/dev/shm/st.a` for reading; let its owner widen the mode",
    );
    check(
        &OpenError::NotASegment { path: path(), reason: "it is a directory".into() },
        "`/dev/shm/st.a` is not a segment: it is a directory; remove it by hand if nobody needs it",
    );
    let kind = |magic: &[u8; 8]| Kind { magic: *magic, version: 2 };
    check(
        &OpenError::OtherKind {
            path: path(),
            found: kind(b"one\0\0\0\0\0"),
            expected: kind(b"twotwotw"),
        },
        "`/dev/shm/st.a` holds one\\x00\\x00\\x00\\x00\\x00 version 2, expected twotwotw version 2; \
         choose another name",
    );
    check(
        &OpenError::Version { path: path(), found: 3, expected: 2 },
        "`/dev/shm/st.a` holds version 3 of its format, this program reads 2; let both sides run \
         the same release",
    );
    check(
        &OpenError::Layout { path: path(), found: 3, expected: 1 },
        "`/dev/shm/st.a` has segment layout 3, this build reads 1; let both sides run the same \
         release",
    );
    check(
        &OpenError::NameMismatch { path: path(), found: "b\u{1b}[2J".into() },
        "`/dev/shm/st.a` was created as `b\\u{1b}[2J`; it was renamed or two long names collide",
    );
    check(
        &OpenError::Busy { path: path() },
        "`/dev/shm/st.a` is being removed by another process that does not end; resume or kill it",
    );
    check(
        &OpenError::Os { path: path(), call: "open", source: errno() },
        "`/dev/shm/st.a` could not be opened: open failed",
    );
}

#[test]
fn removal_and_listing() {
    check(
        &UnlinkError::PermissionDenied { path: path(), source: errno() },
        "no permission to remove `/dev/shm/st.a`; only its owner may, with write access to it",
    );
    check(
        &UnlinkError::Foreign { path: path(), source: OpenError::NotFound { path: path() } },
        "`/dev/shm/st.a` is left alone: it is not the segment that was named",
    );
    check(
        &UnlinkError::Busy { path: path() },
        "`/dev/shm/st.a` is being removed by another process that does not end; resume or kill it",
    );
    check(
        &UnlinkError::Os { path: path(), call: "unlink", source: errno() },
        "`/dev/shm/st.a` could not be removed: unlink failed",
    );
    check(
        &ListError::Directory { directory: "/nowhere".into(), source: errno() },
        "the directory `/nowhere` cannot be read",
    );
}

#[test]
fn memory() {
    check(
        &MapError::Range { range: 0..9, total_bytes: 8 },
        "the range 0..9 does not lie in the 8 bytes there are; map a part of them",
    );
    check(
        &MapError::Misaligned { start: 512, page_bytes: 4096 },
        "the range starts at 512, which is no multiple of the page size 4096",
    );
    check(&MapError::ReadOnly, "a writable mapping needs a handle opened for writing");
    check(&MapError::Os { range: 0..8, source: errno() }, "the range 0..8 could not be mapped");
    check(
        &ReserveError::Range { range: 0..9, total_bytes: 8 },
        "the range 0..9 does not lie in the segment's 8 bytes",
    );
    check(&ReserveError::ReadOnly, "reserving needs a handle opened for writing");
    check(
        &ReserveError::NoSpace { path: path(), shortage: shortage() },
        &format!("no room in `/dev/shm/st.a`: {SHORT}"),
    );
    check(
        &ReserveError::Os { path: path(), range: 0..8, source: errno() },
        "`/dev/shm/st.a` could not reserve 0..8",
    );
    check(
        &ViewError::OutOfBounds { offset: 4, bytes: 8, len: 8 },
        "8 bytes at offset 4 do not lie in the 8 bytes of this view",
    );
    check(
        &ViewError::Misaligned { offset: 4, align: 8 },
        "offset 4 is not aligned to the 8 bytes that the type needs",
    );
    check(
        &ViewError::Range { range: 4..9, len: 8 },
        "the range 4..9 does not lie in the 8 bytes of this view",
    );
    check(&ViewError::ReadOnly, "the mapping is read-only; map it with write access");
    check(
        &OutOfBounds { range: 4..9, len: 8 },
        "the range 4..9 does not lie in the 8 bytes of this view",
    );
}

#[test]
fn regions_and_names() {
    check(
        &RegionError::Size { bytes: 0 },
        "a region cannot have 0 bytes; ask for at least one and no more than a signed 64-bit \
         number holds",
    );
    check(
        &RegionError::Label { bytes: 300 },
        "the label has 300 bytes or holds a NUL; at most 249 bytes without NUL fit",
    );
    check(
        &RegionError::NoSpace { bytes: 3, shortage: shortage() },
        &format!("no room for a region of 3 bytes: {SHORT}"),
    );
    check(
        &RegionError::NotARegion { reason: "it is empty".into() },
        "the descriptor is not a region: it is empty",
    );
    check(
        &RegionError::Os { call: "ftruncate", source: errno() },
        "the region is not usable: ftruncate failed",
    );
    check(
        &NamespaceError::Prefix { prefix: "a/".into(), problem: "is too long" },
        "the prefix `a/` is too long",
    );
    check(
        &NamespaceError::Directory { directory: "x".into(), source: errno() },
        "the directory `x` cannot be made absolute; give an absolute path",
    );
    check(
        &NamespaceError::NotADirectory { directory: "/etc/hosts".into() },
        "`/etc/hosts` is not a directory; give one, such as /dev/shm",
    );
    check(&NameError::Blank, "the name is blank; use at least one visible character");
    check(&NameError::TooLong { bytes: 300 }, "the name has 300 bytes of UTF-8, at most 256 fit");
    check(&NameError::Nul { at: 2 }, "the name holds a NUL character at byte 2; remove it");
}
