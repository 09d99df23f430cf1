//! Names and the files that stand for them.

use proptest::prelude::*;
use shm_core::{Access, NameError, Namespace, OpenError, Segment, SegmentName, UnlinkError};

use crate::harness::{KIND, Scratch, name, small};

#[test]
fn names_are_readable_in_the_directory() {
    let ns = Namespace::default();
    for (given, file) in [
        ("camera0", "/dev/shm/st.camera0"),
        ("lab/cam 0", "/dev/shm/st.lab%2Fcam%200"),
        ("../../etc/passwd", "/dev/shm/st.%2E.%2F..%2Fetc%2Fpasswd"),
        ("größe", "/dev/shm/st.gr%C3%B6%C3%9Fe"),
        ("a%20b", "/dev/shm/st.a%2520b"),
        ("\n", "/dev/shm/st.%0A"),
    ] {
        match SegmentName::new(given) {
            Ok(given) => assert_eq!(ns.path_of(&given), std::path::Path::new(file)),
            Err(error) => assert_eq!((given, error), ("\n", NameError::Blank)),
        }
    }
}

#[test]
fn what_is_no_name_is_refused_with_the_reason() {
    let refused = |text: &str| SegmentName::new(text).expect_err("no name").to_string();
    for blank in ["", " ", "\t\n", "\u{2003}"] {
        assert!(refused(blank).contains("blank"), "{blank:?}");
    }
    assert_eq!(refused("ab\0c"), "the name holds a NUL character at byte 2; remove it");
    assert_eq!(refused(&"é".repeat(129)), "the name has 258 bytes of UTF-8, at most 256 fit");
    assert!(SegmentName::new("é".repeat(128)).is_ok());
}

#[test]
fn prefixes_that_could_leave_the_directory_are_refused() {
    for prefix in ["a/b", "a\0", "ü", &"p".repeat(49)] {
        let refused = Namespace::new("/dev/shm", prefix).expect_err("refused");
        assert!(refused.to_string().starts_with("the prefix `"), "{refused}");
    }
    let bare = Namespace::new("/dev/shm", "").expect("an empty prefix");
    for dots in [".", "..", "..."] {
        let path = bare.path_of(&name(dots));
        assert_eq!(path.parent(), Some("/dev/shm".as_ref()), "{path:?}");
        assert!(path.file_name().is_some_and(|file| file != dots), "{path:?}");
    }
    let relative = Namespace::new("some/where", "p").expect("a description");
    assert!(relative.directory().is_absolute(), "a later chdir must not move it");
}

#[test]
fn long_names_work_and_show_in_full() {
    let scratch = Scratch::new("names");
    let ns = scratch.namespace();
    let longest = "カ".repeat(85) + "x";
    assert_eq!(longest.len(), 256);
    let texts = ["a".repeat(200), "a".repeat(201), "a".repeat(256), "ü".repeat(40), longest];
    for text in &texts {
        let segment = small(ns, text);
        assert!(segment.path().file_name().is_some_and(|file| file.len() <= 202));
        let opened = Segment::open(ns, &name(text), Access::ReadWrite, KIND).expect("opened");
        assert_eq!(opened.name().as_str(), text);
    }
    let mut sorted = texts.to_vec();
    sorted.sort();
    let listed: Vec<_> = ns.list().expect("listed").into_iter().map(|l| l.name).collect();
    assert_eq!(listed.iter().map(SegmentName::as_str).collect::<Vec<_>>(), sorted);
    for text in &texts {
        ns.unlink(&name(text)).expect("removed");
    }
}

/// Two long names whose hashes collide would share a file name. Making such a pair takes luck that
/// nobody has, so a renamed file stands in for it: the stored name must decide.
#[test]
fn the_stored_name_decides_not_the_file_name() {
    let scratch = Scratch::new("names");
    let ns = scratch.namespace();
    let (ours, theirs) = (name(&"a".repeat(201)), name(&"b".repeat(201)));
    let segment = small(ns, ours.as_str());
    std::fs::rename(segment.path(), ns.path_of(&theirs)).expect("renamed");

    let opened = Segment::open(ns, &theirs, Access::ReadOnly, KIND).expect_err("not its name");
    assert!(matches!(&opened, OpenError::NameMismatch { found, .. } if *found == ours.to_string()));
    let created = shm_core::SegmentOptions::new(KIND, 4096).create(ns, &theirs, |_| Ok(()));
    assert!(matches!(created, Err(shm_core::CreateError::AlreadyExists { .. })), "{created:?}");
    let unlinked = ns.unlink(&theirs).expect_err("not its name");
    assert!(matches!(
        unlinked,
        UnlinkError::Foreign { source: OpenError::NameMismatch { .. }, .. }
    ));
    let scan = ns.scan().expect("scanned");
    assert!(scan.segments.is_empty(), "{scan:?}");
    assert!(matches!(scan.skipped[0].reason, OpenError::NameMismatch { .. }), "{scan:?}");
    scratch.clear();
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{1,90}", any::<String>(), "[a-z%/. ]{1,256}", "[%h0-9a-f]{1,40}"]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_name_becomes_one_safe_file_name(text in text()) {
        let Ok(name) = SegmentName::new(text.clone()) else {
            prop_assert!(
                text.len() > 256 || text.contains('\0') || text.trim().is_empty(),
                "refused without a reason"
            );
            return Ok(());
        };
        prop_assert_eq!(name.as_str(), &text);
        let bare = Namespace::new("/d", "").expect("a namespace");
        let path = bare.path_of(&name);
        let file = path.file_name().and_then(|file| file.to_str()).expect("a file name");
        prop_assert_eq!(path.parent(), Some("/d".as_ref()));
        prop_assert!(file.len() <= 200 && file != "." && file != "..");
        prop_assert!(file.bytes().all(|b| b.is_ascii_graphic() && b != b'/'));
    }

    #[test]
    fn different_names_get_different_files(a in text(), b in text()) {
        let (Ok(a), Ok(b)) = (SegmentName::new(a), SegmentName::new(b)) else { return Ok(()) };
        let ns = Namespace::default();
        prop_assert_eq!(a == b, ns.path_of(&a) == ns.path_of(&b));
    }
}
