//! Who is attached, through closes, forks, kills and threads.

use shm_core::{Access, PurgeOptions, Segment};

use crate::harness::{KIND, PAGE, Peer, Role, Scratch, Watchdog, alone, name, small};
use crate::sys::IdleFork;

fn attached(scratch: &Scratch) -> bool {
    scratch.namespace().list().expect("listed")[0].attached
}

#[test]
fn a_handle_or_a_mapping_attaches_and_the_last_one_ends_it() {
    alone("attach::a_handle_or_a_mapping_attaches_and_the_last_one_ends_it", || {
        let scratch = Scratch::new("attach");
        let ns = scratch.namespace();
        let first = small(ns, "a");
        assert!(attached(&scratch), "the creator is attached");
        assert!(!first.is_attached().expect("a probe"), "a handle does not count itself");
        let second = Segment::open(ns, &name("a"), Access::ReadOnly, KIND).expect("opened");
        assert!(first.is_attached().expect("a probe") && second.is_attached().expect("a probe"));
        let mapping = second.map(0..PAGE, Access::ReadOnly).expect("mapped");
        let clone = mapping.slice(5..6).expect("in bounds");
        drop(second);
        drop(mapping);
        assert!(first.is_attached().expect("a probe"), "a mapping outlives its handle");
        drop(clone);
        assert!(!first.is_attached().expect("a probe"), "the last view is gone");
        drop(first);
        assert!(!attached(&scratch));
        ns.purge(&PurgeOptions::new()).expect("purged");
        assert_eq!(scratch.files(), [] as [&str; 0]);
    });
}

#[test]
fn an_unrelated_close_in_the_same_process_does_not_detach() {
    alone("attach::an_unrelated_close_in_the_same_process_does_not_detach", || {
        let scratch = Scratch::new("attach");
        let segment = small(scratch.namespace(), "a");
        // With per-process record locks this close would drop every lock of the process.
        drop(std::fs::File::open(segment.path()).expect("opened"));
        drop(segment.reopen().expect("opened"));
        assert!(attached(&scratch));
        segment.unlink().expect("removed");
    });
}

#[test]
fn a_forked_child_that_keeps_a_mapping_keeps_it_attached() {
    alone("attach::a_forked_child_that_keeps_a_mapping_keeps_it_attached", || {
        let scratch = Scratch::new("attach");
        let segment = small(scratch.namespace(), "a");
        let mapping = segment.map(0..PAGE, Access::ReadWrite).expect("mapped");
        drop(segment);
        let child = IdleFork::new();
        drop(mapping);
        assert!(attached(&scratch), "the child has the mapping");
        child.kill();
        assert!(!attached(&scratch), "nobody has it");
        scratch.namespace().unlink(&name("a")).expect("removed");
    });
}

#[test]
fn a_killed_process_is_not_attached() {
    const TEST: &str = "attach::a_killed_process_is_not_attached";
    if let Some(role) = Role::of_peer() {
        let segment = Segment::open(&role.namespace, &name("a"), Access::ReadWrite, KIND);
        let mapping = segment.expect("opened").map(0..PAGE, Access::ReadWrite).expect("mapped");
        Role::barrier("attached");
        drop(mapping);
        return;
    }
    alone(TEST, || {
        let scratch = Scratch::new("attach");
        drop(small(scratch.namespace(), "a"));
        let mut peer = Peer::spawn(TEST, "holder", &scratch);
        peer.expect("attached");
        assert!(attached(&scratch));
        let purged = scratch.namespace().purge(&PurgeOptions::new()).expect("purged");
        assert_eq!((purged.removed.len(), purged.live.len()), (0, 1));
        peer.kill();
        assert!(!attached(&scratch), "a process that was waited for holds nothing");
        scratch.namespace().unlink(&name("a")).expect("removed");
    });
}

#[test]
fn exec_detaches() {
    alone("attach::exec_detaches", || {
        let _watchdog = Watchdog::start("exec");
        let scratch = Scratch::new("attach");
        let segment = small(scratch.namespace(), "a");
        // A child started by fork and exec has neither the descriptor nor the mapping.
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        drop(segment);
        assert!(!attached(&scratch), "the child is not attached");
        child.kill().expect("a child of ours");
        child.wait().expect("a child of ours");
        scratch.namespace().unlink(&name("a")).expect("removed");
    });
}
