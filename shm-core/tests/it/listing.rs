//! What is in a namespace, and removal of what nobody uses.

use std::os::unix::fs::symlink;

use shm_core::{Access, Kind, Namespace, OpenError, PurgeOptions, Segment, SegmentOptions};

use crate::harness::{KIND, PAGE, Peer, Role, Scratch, Watchdog, alone, name, small};

fn names(listings: &[shm_core::Listing]) -> Vec<&str> {
    listings.iter().map(|listing| listing.name.as_str()).collect()
}

#[test]
fn segments_are_listed_and_everything_else_is_counted() {
    alone("listing::segments_are_listed_and_everything_else_is_counted", || {
        let scratch = Scratch::new("listing");
        let ns = scratch.namespace();
        let other_kind = Kind { magic: *b"another ", version: 1 };
        let dead = SegmentOptions::new(other_kind, PAGE)
            .mode(0o640)
            .create(ns, &name("b"), |_| Ok(()))
            .expect("created");
        let (generation, identity) = (dead.generation(), dead.identity());
        drop(dead);
        let live = small(ns, "a/live one");
        let path = |file: &str| scratch.directory().join(file);
        std::fs::write(path("t.text"), "hello").expect("written");
        std::fs::write(path("t.empty"), "").expect("written");
        std::fs::write(path("unrelated"), "").expect("written");
        std::fs::create_dir(path("t.directory")).expect("made");
        symlink(live.path(), path("t.link")).expect("linked");

        let scan = ns.scan().expect("scanned");
        assert_eq!(names(&scan.segments), ["a/live one", "b"]);
        let skipped: Vec<_> = scan.skipped.iter().map(|skipped| skipped.path.clone()).collect();
        assert_eq!(skipped, ["t.directory", "t.empty", "t.link", "t.text"].map(path));
        assert!(scan.skipped.iter().all(|s| matches!(s.reason, OpenError::NotASegment { .. })));

        let [a, b] = &scan.segments[..] else { panic!("two segments") };
        assert!(a.attached && !b.attached);
        assert_eq!((b.generation, b.identity, b.kind), (generation, identity, other_kind));
        assert_eq!((b.total_bytes, b.allocated_bytes), (PAGE, PAGE));
        assert_eq!((a.owner.mode, b.owner.mode), (0o600, 0o640));
        assert_eq!(b.owner.uid, rustix::process::geteuid().as_raw());
        assert_eq!(b.creator.pid, std::process::id());
        assert_eq!(ns.list().expect("listed"), scan.segments);
        scratch.clear();
    });
}

#[test]
fn namespaces_in_one_directory_do_not_see_each_other() {
    alone("listing::namespaces_in_one_directory_do_not_see_each_other", || {
        let scratch = Scratch::new("listing");
        let longer = Namespace::new(scratch.directory(), "t.x.").expect("a prefix");
        let ours = small(scratch.namespace(), "a");
        let theirs = small(&longer, "b");
        assert_eq!(names(&scratch.namespace().list().expect("listed")), ["a"]);
        assert_eq!(names(&longer.list().expect("listed")), ["b"]);
        drop((ours, theirs));
        let report = scratch.namespace().purge(&PurgeOptions::new()).expect("purged");
        assert_eq!(names(&report.removed), ["a"]);
        longer.purge(&PurgeOptions::new()).expect("purged");
    });
}

#[test]
fn a_purge_tells_first_spares_the_living_and_keeps_to_its_kind() {
    alone("listing::a_purge_tells_first_spares_the_living_and_keeps_to_its_kind", || {
        let scratch = Scratch::new("listing");
        let ns = scratch.namespace();
        let other_kind = Kind { magic: *b"another ", version: 1 };
        drop(small(ns, "dead"));
        drop(SegmentOptions::new(other_kind, PAGE).create(ns, &name("other"), |_| Ok(())));
        let live = small(ns, "live");
        let mapped = small(ns, "mapped").map(0..PAGE, Access::ReadOnly).expect("a mapping");
        std::fs::write(scratch.directory().join("t.foreign"), "x").expect("written");

        let before = scratch.files();
        let report = ns.purge(&PurgeOptions::new().dry_run(true)).expect("a dry run");
        assert_eq!(names(&report.removed), ["dead", "other"]);
        assert_eq!(names(&report.live), ["live", "mapped"]);
        assert_eq!(report.skipped.len(), 1);
        assert_eq!(scratch.files(), before, "a dry run changes nothing");

        let report = ns.purge(&PurgeOptions::new().kind(KIND)).expect("purged");
        assert_eq!(names(&report.removed), ["dead"]);
        assert!(report.failed.is_empty(), "{report:?}");
        let report = ns.purge(&PurgeOptions::new()).expect("purged");
        assert_eq!(names(&report.removed), ["other"]);
        drop(mapped);
        let report = ns.purge(&PurgeOptions::new()).expect("purged");
        assert_eq!(names(&report.removed), ["mapped"]);
        let report = ns.purge(&PurgeOptions::new().include_live(true)).expect("purged");
        assert_eq!(names(&report.removed), ["live"]);
        assert_eq!(live.is_current().expect("a stat"), shm_core::Current::Gone);
        assert_eq!(scratch.files(), ["t.foreign"]);
        scratch.clear();
    });
}

/// Purgers remove whatever nobody has open, as fast as they can; holders make sure that what they
/// were given keeps its name while they hold it.
#[test]
fn a_purge_never_takes_what_was_just_opened() {
    const TEST: &str = "listing::a_purge_never_takes_what_was_just_opened";
    const OPENS: usize = 4000;
    if let Some(role) = Role::mine() {
        let ns = &role.namespace;
        Role::barrier("ready");
        if role.role == "purger" {
            let mut removed = 0;
            while !std::fs::exists(ns.directory().join("stop")).expect("a stat") {
                let report = ns.purge(&PurgeOptions::new()).expect("purged");
                assert!(report.failed.is_empty() && report.skipped.is_empty(), "{report:?}");
                removed += report.removed.len();
            }
            return Role::say(&removed.to_string());
        }
        let names: [_; 8] = std::array::from_fn(|index| name(&format!("{} {index}", role.role)));
        for name in names.iter().cycle().take(OPENS) {
            let (segment, _) = SegmentOptions::new(KIND, PAGE)
                .open_or_create(ns, name, |_| Ok(()))
                .expect("one or the other");
            for _ in 0..3 {
                let current = segment.is_current().expect("a stat");
                assert_eq!(current, shm_core::Current::Yes, "taken from its holder");
            }
        }
        return;
    }
    let _watchdog = Watchdog::start("purge against open");
    let scratch = Scratch::new("listing");
    let mut purger = Peer::spawn(TEST, "purger", &scratch);
    let mut holders = ["one", "two"].map(|role| Peer::spawn(TEST, role, &scratch));
    purger.expect("ready");
    for holder in &mut holders {
        holder.expect("ready");
    }
    purger.say("go");
    for holder in &mut holders {
        holder.say("go");
    }
    holders.into_iter().for_each(Peer::succeed);
    std::fs::write(scratch.directory().join("stop"), "").expect("written");
    let removed: usize = purger.hear().expect("a count").parse().expect("a number");
    purger.succeed();
    println!("{} opens, {removed} removed in between", 2 * OPENS);
    assert!(removed > 50, "they hardly met");
    scratch.clear();
}

#[test]
fn an_open_segment_stays_usable_after_any_purge() {
    let scratch = Scratch::new("listing");
    let ns = scratch.namespace();
    let segment = small(ns, "a");
    ns.purge(&PurgeOptions::new().include_live(true)).expect("purged");
    segment.map(0..PAGE, Access::ReadWrite).expect("memory stays");
    let found = Segment::open(ns, &name("a"), Access::ReadOnly, KIND);
    assert!(matches!(found, Err(OpenError::NotFound { .. })), "{found:?}");
}
