//! Segments between processes: whole or absent, and outliving whoever made them.

use shm_core::{Access, Segment, SegmentName};
use st_tests::Namespace;

use super::peer;

#[test]
fn what_one_process_writes_another_reads() {
    let space = Namespace::new("written");
    let (mut one, mut other) = (peer(&space), peer(&space));
    let generation = one.ask("segment.create cam0 4096 hello");
    assert_eq!(other.ask("segment.open cam0"), format!("{generation} 4096"));
    assert_eq!(other.ask("segment.read cam0 5"), "hello");
    other.ask("segment.write cam0 bye");
    assert_eq!(one.ask("segment.read cam0 3"), "bye");
    assert_eq!(one.ask("segment.unlink cam0"), "removed");
}

#[test]
fn a_segment_outlives_its_creator() {
    let space = Namespace::in_private_directory("creator");
    let (mut one, mut other) = (peer(&space), peer(&space));
    one.ask("segment.create cam0 4096 hello");
    other.ask("segment.open cam0");
    one.kill();
    assert_eq!(other.ask("segment.read cam0 5"), "hello");
    let mut third = peer(&space);
    third.ask("segment.open cam0");
    assert_eq!(third.ask("segment.read cam0 5"), "hello");
    assert_eq!(third.ask("segment.unlink cam0"), "removed");
    assert_eq!(other.ask("segment.current cam0"), "gone");
    assert_eq!(other.ask("segment.read cam0 5"), "hello");
}

#[test]
fn a_new_generation_leaves_the_old_one_alone() {
    let space = Namespace::new("generation");
    let (mut one, mut other) = (peer(&space), peer(&space));
    let old = one.ask("segment.create cam0 4096 old");
    assert!(other.ask_refused("segment.create cam0 4096 new").contains("cam0"));
    assert_eq!(other.ask("segment.unlink cam0"), "removed");
    let new = other.ask("segment.create cam0 4096 new");
    assert_ne!(old, new);
    assert_eq!(one.ask("segment.current cam0"), "replaced");
    assert_eq!(one.ask("segment.read cam0 3"), "old");
    one.ask("segment.open cam0");
    assert_eq!(one.ask("segment.read cam0 3"), "new");
    assert_eq!(one.ask("segment.unlink cam0"), "removed");
    assert_eq!(other.ask("segment.unlink cam0"), "absent");
}

#[test]
fn names_of_people_become_names_of_files() {
    let space = Namespace::new("names");
    let mut peer = peer(&space);
    for name in ["a/b", "../up", "%", "é", "日本", ".", "-"] {
        peer.ask(&format!("segment.create {name} 1 x"));
        assert_eq!(peer.ask("segment.list"), name);
        assert_eq!(space.files().len(), 1);
        peer.ask(&format!("segment.unlink {name}"));
    }
}

/// Many processes create, open and remove one name, and some are killed on the way.
#[test]
fn a_name_is_whole_or_absent_under_churn_and_kills() {
    let space = Namespace::new("churn");
    let mut seed = st_tests::Seed::from_environment();
    let mut peers: Vec<_> = (0..4).map(|_| peer(&space)).collect();
    for peer in &mut peers {
        peer.say(&format!("segment.churn cam0 2000 {}", seed.number()));
    }
    // They end at whatever point they have come to.
    for victim in &mut peers[..2] {
        victim.kill();
    }
    for survivor in &mut peers[2..] {
        let counts = survivor.hear_ok();
        assert!(counts.split(' ').all(|count| count != "0"), "{counts}");
    }
    let name = SegmentName::new("cam0").expect("a name");
    let namespace = space.shm();
    match Segment::open(&namespace, &name, Access::ReadWrite, st_tests::script::KIND) {
        Ok(_) | Err(shm_core::OpenError::NotFound { .. }) => {}
        Err(error) => panic!("not openable: {error}"),
    }
    namespace.unlink(&name).expect("the name removed");
}
