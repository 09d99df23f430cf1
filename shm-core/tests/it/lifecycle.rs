//! One segment from creation to removal.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use shm_core::{
    Access, CreateError, Current, Kind, MapError, OpenError, Region, RegionOptions, ReserveError,
    Segment, SegmentOptions, Unlinked,
};

use crate::harness::{KIND, PAGE, Peer, Role, Scratch, Watchdog, name, small};

#[test]
fn what_init_wrote_is_what_openers_see() {
    let scratch = Scratch::new("lifecycle");
    let ns = scratch.namespace();
    let made = SegmentOptions::new(KIND, 3 * PAGE + 7)
        .create(ns, &name("camera 0"), |segment| {
            let page = segment.map(0..segment.total_bytes(), Access::ReadWrite).expect("a map");
            page.write_from(512, b"payload").expect("in bounds");
            Ok(())
        })
        .expect("created");
    let opened = Segment::open(ns, &name("camera 0"), Access::ReadOnly, KIND).expect("opened");

    assert_eq!(opened.name().as_str(), "camera 0");
    assert_eq!(opened.generation(), made.generation());
    assert_eq!(opened.kind(), KIND);
    assert_eq!(opened.total_bytes(), 3 * PAGE + 7);
    assert_eq!(opened.identity(), made.identity());
    assert_eq!(opened.path(), scratch.directory().join("t.camera%200"));
    let owner = opened.owner().expect("a stat");
    assert_eq!((owner.uid, owner.mode), (rustix::process::geteuid().as_raw(), 0o600));
    assert_eq!((made.access(), opened.access()), (Access::ReadWrite, Access::ReadOnly));
    let creator = opened.creator();
    assert_eq!(creator.pid, std::process::id());
    assert_eq!(creator.uid, rustix::process::geteuid().as_raw());
    assert!(creator.start_ticks > 0 && creator.pid_namespace > 0, "{creator:?}");
    let age = creator.created().elapsed().expect("in the past");
    assert!(age.as_secs() < 3600, "{age:?}");

    let bytes = opened.map(0..opened.total_bytes(), Access::ReadOnly).expect("mapped");
    drop((made, opened));
    let mut payload = [0; 7];
    bytes.read_into(512, &mut payload).expect("in bounds");
    assert_eq!(&payload, b"payload");

    assert!(matches!(ns.unlink(&name("camera 0")), Ok(Unlinked::Removed(_))));
    bytes.read_into(512, &mut payload).expect("mappings outlive the name");
    assert_eq!(&payload, b"payload");
}

#[test]
fn the_name_appears_when_init_is_done_and_not_before() {
    let scratch = Scratch::new("lifecycle");
    let ns = scratch.namespace();
    let segment = SegmentOptions::new(KIND, PAGE)
        .create(ns, &name("a"), |segment| {
            assert_eq!(scratch.files(), [] as [&str; 0]);
            assert_eq!(segment.is_current().expect("a stat"), Current::Gone);
            assert!(matches!(segment.unlink(), Ok(Unlinked::Absent)));
            let found = Segment::open(ns, &name("a"), Access::ReadOnly, KIND);
            assert!(matches!(found, Err(OpenError::NotFound { .. })), "{found:?}");
            Ok(())
        })
        .expect("created");
    assert_eq!(segment.is_current().expect("a stat"), Current::Yes);
    assert_eq!(scratch.files(), ["t.a"]);
    segment.unlink().expect("removed");
}

#[test]
fn a_failed_or_panicking_init_leaves_nothing() {
    let scratch = Scratch::new("lifecycle");
    let options = SegmentOptions::new(KIND, PAGE);
    let failed = options
        .create(scratch.namespace(), &name("a"), |_| Err(io::Error::other("the camera is off")));
    match failed {
        Err(CreateError::Init { path, source }) => {
            assert_eq!(path, scratch.directory().join("t.a"));
            assert_eq!(source.to_string(), "the camera is off");
        }
        other => panic!("{other:?}"),
    }
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        options.create(scratch.namespace(), &name("a"), |_| panic!("on purpose"))
    }));
    assert!(panicked.is_err());
    assert_eq!(scratch.files(), [] as [&str; 0]);
}

#[test]
fn a_taken_name_is_an_error_with_the_path_and_stays_as_it_is() {
    let scratch = Scratch::new("lifecycle");
    let ns = scratch.namespace();
    let first = small(ns, "a");
    std::fs::write(scratch.directory().join("t.file"), "not ours").expect("written");
    for taken in ["a", "file"] {
        let second = SegmentOptions::new(KIND, PAGE).create(ns, &name(taken), |_| Ok(()));
        match second {
            Err(CreateError::AlreadyExists { path }) => assert_eq!(path, ns.path_of(&name(taken))),
            other => panic!("{other:?}"),
        }
    }
    // The loser of a race has got as far as naming the file.
    let raced = SegmentOptions::new(KIND, PAGE).create(ns, &name("b"), |_| {
        small(ns, "b");
        Ok(())
    });
    assert!(matches!(raced, Err(CreateError::AlreadyExists { .. })), "{raced:?}");
    assert_eq!(first.is_current().expect("a stat"), Current::Yes);
    assert_eq!(scratch.files(), ["t.a", "t.b", "t.file"]);
    scratch.clear();
}

#[test]
fn a_name_knows_whether_it_still_leads_here() {
    let scratch = Scratch::new("lifecycle");
    let ns = scratch.namespace();
    let first = small(ns, "a");
    assert_eq!(first.unlink().expect("removed"), Unlinked::Removed(first.generation()));
    assert_eq!(first.is_current().expect("a stat"), Current::Gone);
    assert_eq!(first.unlink().expect("nothing to do"), Unlinked::Absent);

    let second = small(ns, "a");
    assert_ne!(first.generation(), second.generation());
    assert_eq!(first.is_current().expect("a stat"), Current::Replaced(second.identity()));
    assert_eq!(first.unlink().expect("left alone"), Unlinked::Replaced(second.generation()));
    let by_old = ns.unlink_generation(&name("a"), first.generation()).expect("left alone");
    assert_eq!(by_old, Unlinked::Replaced(second.generation()));
    assert_eq!(second.is_current().expect("a stat"), Current::Yes);
    let by_new = ns.unlink_generation(&name("a"), second.generation()).expect("removed");
    assert_eq!(by_new, Unlinked::Removed(second.generation()));
}

#[test]
fn only_the_same_kind_and_version_opens() {
    let scratch = Scratch::new("lifecycle");
    let ns = scratch.namespace();
    let segment = small(ns, "a");
    let open = |kind| Segment::open(ns, &name("a"), Access::ReadOnly, kind);
    let other = open(Kind { magic: *b"other\0\0\0", version: 3 }).expect_err("another kind");
    assert_eq!(
        other.to_string(),
        format!(
            "`{}` holds shmtest\\n version 3, expected other\\x00\\x00\\x00 version 3; choose \
             another name",
            segment.path().display()
        )
    );
    let newer = open(Kind { version: 4, ..KIND }).expect_err("another version");
    assert!(matches!(newer, OpenError::Version { found: 3, expected: 4, .. }), "{newer:?}");
    segment.unlink().expect("removed");
}

#[test]
fn ranges_are_mapped_only_where_they_lie_in_the_segment() {
    let scratch = Scratch::new("lifecycle");
    let ns = scratch.namespace();
    let segment = SegmentOptions::new(KIND, 3 * PAGE - 1)
        .create(ns, &name("a"), |_| Ok(()))
        .expect("created");
    let total = segment.total_bytes();
    #[expect(clippy::reversed_empty_ranges, reason = "to be refused")]
    let bad = [0..0, total..total, 0..total + 1, 0..u64::MAX, PAGE..0, u64::MAX..u64::MAX];
    for range in bad {
        let refused = segment.map(range.clone(), Access::ReadWrite);
        assert!(matches!(refused, Err(MapError::Range { .. })), "{range:?}: {refused:?}");
    }
    let refused = segment.map(512..PAGE, Access::ReadWrite);
    assert!(matches!(refused, Err(MapError::Misaligned { start: 512, .. })), "{refused:?}");
    let last = segment.map(2 * PAGE..total, Access::ReadWrite).expect("the last page");
    assert_eq!(last.len() as u64, PAGE - 1);
    last.write_from(last.len() - 1, &[1]).expect("the last byte");
    assert!(last.write_from(last.len(), &[1]).is_err(), "the page goes on, the segment does not");

    let reader = Segment::open(ns, &name("a"), Access::ReadOnly, KIND).expect("opened");
    let refused = reader.map(0..PAGE, Access::ReadWrite);
    assert!(matches!(refused, Err(MapError::ReadOnly)), "{refused:?}");
    let refused = reader.reserve(0..PAGE);
    assert!(matches!(refused, Err(ReserveError::ReadOnly)), "{refused:?}");
    segment.unlink().expect("removed");
}

#[test]
fn holes_take_memory_when_they_are_reserved() {
    let scratch = Scratch::new("lifecycle");
    let ns = scratch.namespace();
    let segment = SegmentOptions::new(KIND, 64 * PAGE)
        .reserve(vec![8 * PAGE + 1..9 * PAGE, 9 * PAGE..9 * PAGE + 1, 4 * PAGE..4 * PAGE])
        .create(ns, &name("a"), |_| Ok(()))
        .expect("created");
    let allocated = || ns.list().expect("a listing")[0].allocated_bytes;
    assert_eq!(allocated(), 3 * PAGE, "header, and two pages");
    segment.reserve(10 * PAGE..10 * PAGE).expect("nothing to do");
    assert_eq!(allocated(), 3 * PAGE);
    segment.reserve(9 * PAGE + 5..11 * PAGE).expect("room");
    assert_eq!(allocated(), 4 * PAGE);
    segment.reserve(0..64 * PAGE).expect("room");
    assert_eq!(allocated(), 64 * PAGE);
    let refused = segment.reserve(0..64 * PAGE + 1);
    assert!(matches!(refused, Err(ReserveError::Range { .. })), "{refused:?}");
    segment.unlink().expect("removed");
}

#[test]
fn options_that_make_no_segment_are_refused() {
    let scratch = Scratch::new("lifecycle");
    let ns = scratch.namespace();
    let create = |options: SegmentOptions| {
        options.create(ns, &name("a"), |_| Ok(())).expect_err("refused").to_string()
    };
    assert!(create(SegmentOptions::new(KIND, 511)).contains("cannot have 511 bytes"));
    assert!(create(SegmentOptions::new(KIND, u64::MAX)).contains("cannot have"));
    assert!(create(SegmentOptions::new(KIND, PAGE).mode(0o400)).contains("0o400"));
    assert!(create(SegmentOptions::new(KIND, PAGE).mode(0o4600)).contains("0o4600"));
    let beyond = SegmentOptions::new(KIND, PAGE).reserve(vec![0..PAGE, 1..PAGE + 1]);
    assert!(create(beyond).contains("range 1..4097"));
    let missing = scratch.directory().join("missing");
    let elsewhere = shm_core::Namespace::new(&missing, "t.").expect("a description");
    let refused =
        SegmentOptions::new(KIND, PAGE).create(&elsewhere, &name("a"), |_| Ok(())).expect_err("no");
    assert!(matches!(&refused, CreateError::NoDirectory { directory } if *directory == missing));
    assert!(matches!(
        Segment::open(&elsewhere, &name("a"), Access::ReadOnly, KIND),
        Err(OpenError::NotFound { .. })
    ));
    let file = scratch.directory().join("file");
    std::fs::write(&file, "").expect("a file");
    let refused = shm_core::Namespace::new(&file, "t.").expect_err("no directory").to_string();
    assert_eq!(
        refused,
        format!("`{}` is not a directory; give one, such as /dev/shm", file.display())
    );
    std::fs::remove_file(&file).expect("it is there");
    let listed = elsewhere.list().expect_err("no directory");
    assert!(listed.to_string().contains("cannot be read"), "{listed}");
}

#[test]
fn reopened_descriptions_are_new_and_lead_to_the_same_file() {
    let scratch = Scratch::new("lifecycle");
    let ns = scratch.namespace();
    let segment = small(ns, "a");
    segment.unlink().expect("removed");
    let _other = small(ns, "a");
    let fd = segment.reopen().expect("works without a name");
    let (ours, theirs) = (rustix::fs::fstat(&segment), rustix::fs::fstat(&fd));
    assert_eq!(ours.expect("a stat").st_ino, theirs.expect("a stat").st_ino);
    // A lock of one description stands in the way of the other.
    rustix::fs::flock(&segment, rustix::fs::FlockOperation::LockExclusive).expect("free");
    let held = rustix::fs::flock(&fd, rustix::fs::FlockOperation::NonBlockingLockExclusive);
    assert_eq!(held, Err(rustix::io::Errno::WOULDBLOCK));
    ns.unlink(&name("a")).expect("removed");
}

#[test]
fn no_descriptor_survives_exec() {
    let scratch = Scratch::new("lifecycle");
    let ns = scratch.namespace();
    let segment = small(ns, "a");
    let opened = Segment::open(ns, &name("a"), Access::ReadWrite, KIND).expect("opened");
    let reopened = segment.reopen().expect("a description");
    let region = Region::create("cloexec", PAGE, &RegionOptions::new()).expect("a region");
    let handed = region.read_only_fd().expect("a descriptor");
    let fds = [segment.as_fd(), opened.as_fd(), reopened.as_fd(), region.as_fd(), handed.as_fd()];
    for fd in fds {
        let flags = rustix::io::fcntl_getfd(fd).expect("flags");
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "descriptor {}", fd.as_raw_fd());
    }
    segment.unlink().expect("removed");
}

#[test]
fn whoever_comes_first_creates_and_all_share_one() {
    if let Some(role) = Role::mine() {
        Role::barrier("ready");
        let (segment, _) = SegmentOptions::new(KIND, 2 * PAGE)
            .open_or_create(&role.namespace, &name("shared"), |_| Ok(()))
            .expect("one or the other");
        Role::barrier(&segment.generation().to_string());
        return;
    }
    let _watchdog = Watchdog::start("open_or_create");
    let scratch = Scratch::new("lifecycle");
    let test = "lifecycle::whoever_comes_first_creates_and_all_share_one";
    let mut peers: Vec<_> = (0..6).map(|_| Peer::spawn(test, "racer", &scratch)).collect();
    for peer in &mut peers {
        peer.expect("ready");
    }
    for peer in &mut peers {
        peer.say("go");
    }
    let seen: Vec<_> = peers.iter_mut().map(|peer| peer.hear().expect("a generation")).collect();
    assert!(seen.iter().all(|generation| *generation == seen[0]), "{seen:?}");
    peers.into_iter().for_each(Peer::succeed);
    scratch.namespace().unlink(&name("shared")).expect("removed");
}
