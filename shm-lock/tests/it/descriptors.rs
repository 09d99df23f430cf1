//! What becomes of liveness when descriptors are closed, reused, duplicated or inherited.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use shm_lock::{JoinError, Liveness, Membership, Memory};

use crate::death::lock;
use crate::harness::tests;
use crate::memories::AnyMemory;
use crate::peer::{Peer, Place};
use crate::sys;

tests![
    a_waiter_without_descriptors_still_tells_the_living_from_the_dead,
    a_reused_number_that_leads_to_another_lock_is_not_believed,
    numbers_reused_by_the_program_are_not_closed_at_the_end,
    joining_and_leaving_leaks_no_descriptor,
    a_duplicate_is_refused_as_a_reopened_file,
    two_different_files_are_refused,
    a_fork_in_the_middle_of_joining_inherits_no_byte,
    memory_without_a_name_can_be_joined,
];

fn a_waiter_without_descriptors_still_tells_the_living_from_the_dead() {
    let place = Place::new();
    let (mut owner, mut waiter) =
        (Peer::spawn("futex", &place.file()), Peer::spawn("futex", &place.file()));
    owner.expect("acquire", "held");
    waiter.expect("close-all", "closed");
    waiter.expect("acquire-for 30", "timeout");
    owner.kill_and_reap();
    waiter.expect("acquire", &format!("held after {} Gone", owner.pid()));
}

fn a_reused_number_that_leads_to_another_lock_is_not_believed() {
    let (place, elsewhere) = (Place::new(), Place::new());
    // A lock of the same kind, in whose file quite other bytes are locked.
    let _other = lock(&elsewhere.file());
    for file in [elsewhere.file(), "/dev/null".into(), place.file()] {
        let (mut owner, mut waiter) =
            (Peer::spawn("futex", &place.file()), Peer::spawn("futex", &place.file()));
        owner.expect("acquire", "held");
        waiter.expect("close-all", "closed");
        waiter.expect(&format!("open 8 {}", file.display()), "opened");
        waiter.expect("acquire-for 30", "timeout");
        owner.kill_and_reap();
        waiter.expect("acquire", &format!("held after {} Gone", owner.pid()));
        waiter.expect("release", "released");
    }
}

fn numbers_reused_by_the_program_are_not_closed_at_the_end() {
    let place = Place::new();
    let mut peer = Peer::spawn("futex", &place.file());
    peer.expect("close-all", "closed");
    // The program now has the very file open under the very numbers that the library used.
    peer.expect(&format!("open 8 {}", place.file().display()), "opened");
    let before = peer.ask("open-descriptors");
    peer.expect("leave-lock", "left");
    peer.expect("open-descriptors", &before);
}

fn joining_and_leaving_leaks_no_descriptor() {
    let place = Place::new();
    drop(lock(&place.file()));
    let before = sys::open_descriptors();
    for _ in 0..100 {
        let lock = lock(&place.file());
        drop(lock.try_acquire().expect("the lock is free"));
    }
    assert_eq!(sys::open_descriptors(), before);
}

fn a_duplicate_is_refused_as_a_reopened_file() {
    let place = Place::new();
    let mut memory = AnyMemory::open(&place.file());
    let one: OwnedFd = memory.reopen().expect("the memory has a file");
    memory.reopening = Box::new(move |_| Ok(sys::duplicate(&one)));
    let refused = Membership::join(Arc::new(memory)).map(drop);
    assert!(matches!(refused, Err(JoinError::NotReopened { .. })), "{refused:?}");
    // Nothing stays behind.
    assert!(lock(&place.file()).membership().participants().len() == 1);
}

fn two_different_files_are_refused() {
    let (place, elsewhere) = (Place::new(), AnyMemory::anonymous());
    let mut memory = AnyMemory::open(&place.file());
    let calls = AtomicU32::new(0);
    memory.reopening = Box::new(move |file| {
        if calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            file.reopen()
        } else {
            elsewhere.reopen()
        }
    });
    let refused = Membership::join(Arc::new(memory)).map(drop);
    assert!(matches!(refused, Err(JoinError::NotReopened { .. })), "{refused:?}");
}

/// As if another thread forked between opening the description and closing its descriptor: the
/// child has a share of the description for as long as it lives.
fn a_fork_in_the_middle_of_joining_inherits_no_byte() {
    let place = Place::new();
    let mut memory = AnyMemory::open(&place.file());
    let forked = Arc::new(AtomicU32::new(0));
    let child = Arc::clone(&forked);
    memory.reopening = Box::new(move |file| {
        let reopened = file.reopen()?;
        if child.load(Ordering::Relaxed) == 0 {
            child.store(sys::fork().unwrap_or_else(|| sys::sleep_for_good()), Ordering::Relaxed);
        }
        Ok(reopened)
    });
    let membership = Membership::join(Arc::new(memory)).expect("it is tried again");
    let id = membership.me().expect("just joined").id;
    assert!(!sys::is_byte_free(&place.file(), (1 << 40) + id));
    drop(membership);
    // The child lives and holds nothing of what was taken while it was forked.
    let child = forked.load(Ordering::Relaxed);
    assert_ne!(child, 0);
    for id in 1..=id {
        assert!(sys::is_byte_free(&place.file(), (1 << 40) + id), "byte of {id}");
    }
    kill_child(child);
}

fn kill_child(pid: u32) {
    use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a positive pid");
    kill_process(pid, Signal::KILL).expect("the child lives");
    waitpid(Some(pid), WaitOptions::empty()).expect("the child can be waited for");
}

fn memory_without_a_name_can_be_joined() {
    let memory = Arc::new(AnyMemory::anonymous());
    let one = Membership::join(Arc::clone(&memory)).expect("a memfd can be reopened");
    let two = Membership::join(memory).expect("a memfd can be reopened");
    let first = one.me().expect("just joined");
    assert_eq!(two.liveness(first.slot, first.id), Liveness::Alive);
    drop(one);
    assert_eq!(two.liveness(first.slot, first.id), Liveness::Gone);
}
