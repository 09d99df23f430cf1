//! Files that are no segments, or lie about themselves: an error each time, never a panic, never a
//! wait, never an access out of bounds.

use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use proptest::prelude::*;
use shm_core::{Access, Namespace, OpenError, PurgeOptions, Segment, UnlinkError};

use crate::harness::{KIND, PAGE, Scratch, Watchdog, name, small};

/// A file under the name `a`, with the contents of a good segment's.
struct Victim {
    path: PathBuf,
    good: Vec<u8>,
}

impl Victim {
    fn new(ns: &Namespace) -> Victim {
        let segment = small(ns, "a");
        let path = segment.path().to_owned();
        let good = std::fs::read(&path).expect("readable");
        Victim { path, good }
    }
}

/// Opens, maps, lists, and purges dry; the only thing asked is that each answers.
fn exercise(ns: &Namespace) -> Result<Segment, OpenError> {
    let opened = Segment::open(ns, &name("a"), Access::ReadWrite, KIND);
    if let Ok(segment) = &opened {
        assert!(segment.total_bytes() >= 512);
        let bytes = segment.map(0..segment.total_bytes(), Access::ReadWrite).expect("mapped");
        bytes.read_into(0, &mut vec![0; bytes.len()]).expect("all of it is there");
    } else {
        let scan = ns.scan().expect("scanned");
        assert_eq!(scan.segments.len() + scan.skipped.len(), 1, "{scan:?}");
        let report = ns.purge(&PurgeOptions::new().dry_run(true)).expect("a dry run");
        // Live as well: a process that another test forks just now holds our mappings for a moment.
        let seen = report.removed.len() + report.live.len() + report.skipped.len();
        assert_eq!(seen, 1, "{report:?}");
    }
    opened
}

#[test]
fn other_things_under_the_name_are_refused_without_waiting() {
    let _watchdog = Watchdog::start("foreign files");
    let scratch = Scratch::new("hostile");
    let ns = scratch.namespace();
    let path = ns.path_of(&name("a"));
    let fifo = || {
        let done = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
        assert!(done.success());
    };
    let cases: [(&str, &dyn Fn()); 8] = [
        ("it has only 0 bytes", &|| std::fs::write(&path, "").expect("written")),
        ("it has only 511 bytes", &|| std::fs::write(&path, [0; 511]).expect("written")),
        ("magic", &|| std::fs::write(&path, [0; 8192]).expect("written")),
        ("a directory", &|| std::fs::create_dir(&path).expect("made")),
        ("FIFO", &fifo),
        ("socket", &|| drop(UnixListener::bind(&path).expect("bound"))),
        ("a symbolic link", &|| symlink("/dev/zero", &path).expect("linked")),
        ("a symbolic link", &|| symlink("nowhere", &path).expect("linked")),
    ];
    for (reason, make) in cases {
        make();
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let refused = Segment::open(ns, &name("a"), access, KIND).expect_err("no segment");
            assert!(matches!(refused, OpenError::NotASegment { .. }), "{refused:?}");
            assert!(refused.to_string().contains(reason), "{refused}, not {reason}");
        }
        let refused = ns.unlink(&name("a")).expect_err("not ours");
        assert!(matches!(
            refused,
            UnlinkError::Foreign { source: OpenError::NotASegment { .. }, .. }
        ));
        let report = ns.purge(&PurgeOptions::new().include_live(true)).expect("purged");
        assert_eq!((report.removed.len(), report.skipped.len()), (0, 1));
        assert_eq!(scratch.files(), ["t.a"], "left alone");
        scratch.clear();
    }
}

#[test]
fn a_link_to_a_good_segment_is_no_segment() {
    let scratch = Scratch::new("hostile");
    let ns = scratch.namespace();
    let real = small(ns, "real");
    symlink(real.path(), ns.path_of(&name("a"))).expect("linked");
    let refused = Segment::open(ns, &name("a"), Access::ReadOnly, KIND).expect_err("a link");
    assert!(refused.to_string().contains("symbolic link"), "{refused}");
    assert!(ns.unlink(&name("a")).is_err());
    assert_eq!(real.is_current().expect("a stat"), shm_core::Current::Yes);
    scratch.clear();
}

#[test]
fn every_length_but_the_right_one_is_refused() {
    let scratch = Scratch::new("hostile");
    let ns = scratch.namespace();
    let victim = Victim::new(ns);
    let file = std::fs::OpenOptions::new().write(true).open(&victim.path).expect("opened");
    let full = 2 * PAGE;
    let lengths = (0..=full).rev().step_by(7).chain(0..520).chain([full - 1, full + 1, 1 << 40]);
    for length in lengths {
        file.set_len(length).expect("cut");
        file.write_all_at(&victim.good[..512.min(length as usize)], 0).expect("written");
        let opened = exercise(ns);
        assert_eq!(opened.is_ok(), length == full, "{length}: {opened:?}");
    }
    scratch.clear();
}

#[test]
fn every_flipped_bit_and_every_extreme_byte_is_survived() {
    let scratch = Scratch::new("hostile");
    let ns = scratch.namespace();
    let victim = Victim::new(ns);
    let file = std::fs::OpenOptions::new().write(true).open(&victim.path).expect("opened");
    // Generation and creator are any bits.
    let free = |at: usize| (32..64).contains(&at) || (80..96).contains(&at);
    let mut accepted = 0;
    for at in 0..512 {
        let good = victim.good[at];
        let flips = (0..8).map(|bit| good ^ (1 << bit)).chain([0, 0xff, good.wrapping_add(1)]);
        for bad in flips.filter(|bad| *bad != good) {
            file.write_all_at(&[bad], at as u64).expect("written");
            let opened = exercise(ns);
            assert_eq!(opened.is_ok(), free(at), "byte {at} = {bad:#x}: {opened:?}");
            accepted += usize::from(opened.is_ok());
        }
        file.write_all_at(&[good], at as u64).expect("written");
    }
    assert!(accepted > 0 && exercise(ns).is_ok(), "the good one opens");
    scratch.clear();
}

#[test]
fn the_reasons_say_what_was_found() {
    let scratch = Scratch::new("hostile");
    let ns = scratch.namespace();
    let victim = Victim::new(ns);
    let with = |at: usize, bytes: &[u8]| {
        let mut image = victim.good.clone();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&victim.path, image).expect("written");
        Segment::open(ns, &name("a"), Access::ReadWrite, KIND).expect_err("damaged").to_string()
    };
    for (at, bytes, says) in [
        (8, &2u32.to_le_bytes()[..], "has segment layout 2, this build reads 1"),
        (12, &1024u32.to_le_bytes(), "its header claims 1024 bytes"),
        (16, &(1u64 << 63).to_le_bytes(), "claims 9223372036854775808 bytes in total"),
        (16, &511u64.to_le_bytes(), "claims 511 bytes in total"),
        (16, &4096u64.to_le_bytes(), "it has 8192 bytes, its header claims 4096"),
        (24, &0x0102_0304u32.to_be_bytes(), "other byte order"),
        (28, &1u32.to_le_bytes(), "unknown flags 0x1"),
        (76, &257u32.to_le_bytes(), "its name claims 257 bytes"),
        (76, &u32::MAX.to_le_bytes(), "its name claims 4294967295 bytes"),
        (76, &0u32.to_le_bytes(), "bytes behind its name"),
        (200, &[1], "reserved part"),
        (256, &[0xff], "not UTF-8"),
        (256, &[0], "holds a NUL"),
        (256, b" ", "is blank"),
        (256, b"b", "was created as `b`"),
        (511, &[1], "bytes behind its name"),
    ] {
        let said = with(at, bytes);
        assert!(said.contains(says), "at {at}: {said}");
    }
    scratch.clear();
}

#[test]
fn a_hole_for_a_header_is_no_segment() {
    let scratch = Scratch::new("hostile");
    let ns = scratch.namespace();
    let file = std::fs::File::create(ns.path_of(&name("a"))).expect("created");
    file.set_len(1 << 40).expect("a sparse file");
    assert!(matches!(exercise(ns), Err(OpenError::NotASegment { .. })));
    scratch.clear();
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, cases: 300, ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_are_answered(
        keep_magic in any::<bool>(),
        patches in proptest::collection::vec((0usize..512, any::<[u8; 8]>()), 0..6),
        noise in proptest::collection::vec(any::<u8>(), 0..1200),
        random in any::<bool>(),
    ) {
        let scratch = Scratch::new("hostile");
        let ns = scratch.namespace();
        let victim = Victim::new(ns);
        let mut image = if random { noise } else { victim.good };
        if keep_magic && image.len() >= 8 {
            image[..8].copy_from_slice(b"\x89STSEG\n\x1a");
        }
        for (at, bytes) in patches {
            if let Some(there) = image.get_mut(at..at + 8) {
                there.copy_from_slice(&bytes);
            }
        }
        std::fs::write(&victim.path, &image).expect("written");
        if let Ok(segment) = exercise(ns) {
            prop_assert_eq!(segment.total_bytes(), image.len() as u64);
        }
        scratch.clear();
    }
}
