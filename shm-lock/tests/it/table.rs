//! The participant table: full, reused, half written, damaged.

use std::sync::Arc;

use shm_lock::{
    FutexLock, JoinError, Liveness, Membership, Memory, MemoryFile, MemoryFileError,
    PARTICIPANTS_MAX, Wait,
};

use crate::death::{lock, me};
use crate::harness::{Outcome, Skip, tests};
use crate::memories::{self, AnyMemory, Raw};
use crate::peer::{Peer, Place};
use crate::sys;

tests![
    participants_are_listed_with_who_they_are,
    a_full_table_says_so_and_takes_somebody_when_one_is_gone,
    every_entry_can_be_used,
    an_entry_being_claimed_is_alive_while_its_claimer_is,
    ids_are_never_used_twice,
    a_guard_that_was_forgotten_is_recovered_after_leaving,
    a_forked_child_registers_itself_on_first_use,
    a_forked_child_has_a_token_of_its_own,
    a_damaged_table_is_an_error_and_not_a_crash,
    a_foreign_file_is_refused_and_left_alone,
];

fn participants_are_listed_with_who_they_are() {
    let place = Place::new();
    let lock = lock(&place.file());
    let mut peer = Peer::spawn("futex", &place.file());
    let (here, there) = (lock.membership().me().expect("joined"), me(&mut peer));
    let seen = lock.membership().participants();
    let brief: Vec<_> = seen.iter().map(|one| (one.slot, one.id, one.pid, one.liveness)).collect();
    assert_eq!(
        brief,
        [
            (here.slot, here.id, std::process::id(), Liveness::Alive),
            (there.slot, there.id, peer.pid(), Liveness::Alive),
        ]
    );
    assert!(seen.iter().all(|one| one.uid == rustix::process::getuid().as_raw()));
    peer.kill_and_reap();
    let seen = lock.membership().participants();
    assert_eq!(seen.last().map(|one| one.liveness), Some(Liveness::Gone));
}

fn a_full_table_says_so_and_takes_somebody_when_one_is_gone() {
    let place = Place::new();
    let mut peers: Vec<Peer> = (0..3).map(|_| Peer::spawn("futex-small", &place.file())).collect();
    let known: Vec<_> = peers.iter_mut().map(me).collect();
    let join = || Membership::join(Arc::new(memories::open("futex-small", &place.file())));
    match join().map(drop) {
        Err(error @ JoinError::Full { limit: 3 }) => assert_eq!(
            error.to_string(),
            "the participant table is full: all 3 entries belong to living participants; close \
             some, or create the memory with a larger table"
        ),
        other => panic!("the table is full, but: {other:?}"),
    }
    peers[1].stop();
    assert!(join().is_err(), "a stopped participant keeps its entry");
    peers[1].kill_and_reap();
    let newcomer = join().expect("one entry is free").me().expect("joined");
    assert_eq!(newcomer.slot, known[1].slot);
    assert!(known.iter().all(|old| old.id < newcomer.id));
}

fn every_entry_can_be_used() -> Outcome {
    if !sys::allow_descriptors(4096) {
        return Err(Skip("the limit of open files cannot be raised to 4096".to_owned()));
    }
    let memory = Arc::new(MemoryFile::anonymous().expect("a memfd can be made"));
    let join = || Membership::join(Arc::clone(&memory));
    let mut all: Vec<_> =
        (0..PARTICIPANTS_MAX).map(|_| join().expect("the table has room")).collect();
    let slots: Vec<_> = all.iter().map(|one| one.me().expect("joined").slot).collect();
    assert_eq!(slots, (0..PARTICIPANTS_MAX).collect::<Vec<_>>());
    let limit = PARTICIPANTS_MAX;
    assert!(matches!(join().map(drop), Err(JoinError::Full { limit: found }) if found == limit));
    // The last one has the highest name that the lock word can hold.
    let last = FutexLock::new(all.pop().expect("there are many"));
    let first = FutexLock::new(all.swap_remove(0));
    let guard = last.try_acquire().expect("the lock is free");
    assert!(first.try_acquire().is_err());
    assert_eq!(first.holder().map(|holder| holder.slot), Some(PARTICIPANTS_MAX - 1));
    drop(guard);
    drop(first.try_acquire().expect("the lock is free"));
    Ok(())
}

fn an_entry_being_claimed_is_alive_while_its_claimer_is() {
    let place = Place::new();
    let observer = lock(&place.file());
    // It stops in the middle of joining, its entry claimed and not yet written.
    let mut stuck = Peer::spawn("futex-stuck", &place.file());
    assert_eq!(stuck.hear(), "claiming");
    let slot = 1;
    let claiming = 1 << 63 | 2;
    let raw = Raw::open(&place.file());
    assert_eq!(raw.entry(slot), claiming);
    assert_eq!(observer.membership().liveness(1, 2), Liveness::Alive);
    assert_eq!(observer.membership().participants().len(), 1, "it is nobody yet");
    let mut newcomer = Peer::spawn("futex", &place.file());
    assert_eq!(me(&mut newcomer).slot, 2, "the entry is taken");
    stuck.kill_and_reap();
    assert_eq!(observer.membership().liveness(1, 2), Liveness::Gone);
    let mut heir = Peer::spawn("futex", &place.file());
    assert_eq!(me(&mut heir).slot, 1, "the entry is free");
}

fn ids_are_never_used_twice() {
    let memory = Arc::new(MemoryFile::anonymous().expect("a memfd can be made"));
    let mut last = 0;
    for _ in 0..100 {
        let membership = Membership::join(Arc::clone(&memory)).expect("the table has room");
        let me = membership.me().expect("joined");
        assert_eq!(me.slot, 0, "the only entry ever needed");
        assert!(me.id > last);
        last = me.id;
    }
}

fn a_guard_that_was_forgotten_is_recovered_after_leaving() {
    let memory = Arc::new(MemoryFile::anonymous().expect("a memfd can be made"));
    let join = || FutexLock::new(Membership::join(Arc::clone(&memory)).expect("there is room"));
    let heir = join();
    let careless = join();
    std::mem::forget(careless.try_acquire().expect("the lock is free"));
    assert!(heir.try_acquire().is_err(), "it is held");
    drop(careless);
    let guard = heir.acquire(&Wait::forever()).expect("the holder has left");
    assert_eq!(guard.recovered().map(|dead| dead.liveness), Some(Liveness::Gone));
}

fn a_forked_child_registers_itself_on_first_use() {
    let place = Place::new();
    let observer = lock(&place.file());
    let mut parent = Peer::spawn("futex", &place.file());
    let before = me(&mut parent);
    assert!(parent.ask("fork").starts_with("child "));
    assert_eq!(observer.membership().participants().len(), 2, "the child has used nothing");
    let child = me(&mut parent);
    assert!(child.slot != before.slot && child.id != before.id);
    assert_eq!(me(&mut parent), child);
    parent.expect(&format!("liveness {} {}", before.slot, before.id), "Alive");
    parent.expect("quit", "parent again");
    assert_eq!(observer.membership().liveness(child.slot, child.id), Liveness::Gone);
    assert_eq!(me(&mut parent), before);
}

fn a_forked_child_has_a_token_of_its_own() {
    let place = Place::new();
    let (mut one, mut two) =
        (Peer::spawn("futex", &place.file()), Peer::spawn("futex", &place.file()));
    let token = one.ask("token");
    assert_ne!(token, "0");
    assert_eq!(one.ask("token"), token);
    assert_ne!(two.ask("token"), token);
    assert!(one.ask("fork").starts_with("child "));
    let childs = one.ask("token");
    assert!(childs != token && childs != "0");
    assert_eq!(one.ask("token"), childs);
    assert!(one.ask("fork").starts_with("child "));
    let grandchilds = one.ask("token");
    assert!(grandchilds != childs && grandchilds != token);
    one.expect("quit", "parent again");
    one.expect("quit", "parent again");
    assert_eq!(one.ask("token"), token);
}

fn a_damaged_table_is_an_error_and_not_a_crash() {
    let place = Place::new();
    drop(lock(&place.file()));
    let raw = Raw::open(&place.file());
    // Not random, but every byte pattern that means something, in every field at once.
    for pattern in [0xff_u8, 0x7f, 0x80, 0x01, 0xaa] {
        raw.scribble(&vec![pattern; 256 + PARTICIPANTS_MAX * 128 - 8]);
        let memory = Arc::new(MemoryFile::open(place.file()).expect("the file is still ours"));
        match Membership::join(Arc::clone(&memory)) {
            Ok(membership) => {
                let lock = FutexLock::new(membership);
                let _ = lock.holder();
                let _ = lock.membership().participants();
                drop(lock.acquire(&Wait::for_at_most(std::time::Duration::from_millis(5))));
            }
            Err(JoinError::IdsExhausted { .. } | JoinError::Full { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        let _ = memory.lock_word().is_free();
    }
}

fn a_foreign_file_is_refused_and_left_alone() {
    let place = Place::new();
    for text in ["hello", &"x".repeat(256 + PARTICIPANTS_MAX * 128)] {
        std::fs::write(place.file(), text).expect("the folder is ours");
        let refused = MemoryFile::open(place.file()).map(drop);
        assert!(matches!(refused, Err(MemoryFileError::Foreign { .. })), "{refused:?}");
        assert_eq!(std::fs::read(place.file()).expect("it is there"), text.as_bytes());
    }
    let refused = MemoryFile::open("/nonexistent/lock").map(drop).expect_err("no such folder");
    assert_eq!(refused.to_string(), "cannot open `/nonexistent/lock`");
    let mut bent = AnyMemory::anonymous();
    bent.capacity = PARTICIPANTS_MAX + 1;
    let refused = Membership::join(Arc::new(bent)).map(drop);
    assert!(matches!(refused, Err(JoinError::Capacity { found: 1023, limit: 1022 })));
}
