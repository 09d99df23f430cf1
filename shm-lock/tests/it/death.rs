//! What proves a death to a futex lock, and what does not.

use std::path::Path;
use std::sync::Arc;

use shm_lock::{FutexLock, Liveness, Me, Membership, Memory, MemoryFile, Onlooker, Wait};

use crate::harness::{Outcome, Skip, tests};
use crate::memories::Raw;
use crate::peer::{Peer, Place};
use crate::sys;

tests![
    a_byte_held_by_a_stranger_hides_no_killed_process,
    a_byte_held_by_a_stranger_hides_no_reaped_process,
    a_pid_given_to_somebody_else_hides_no_death,
    a_process_in_uninterruptible_memory_teardown_is_ending_or_gone,
    threads_that_come_and_go_are_never_a_death,
    eight_threads_die_together,
    a_dead_holder_whose_entry_was_given_away_is_still_dead,
    an_id_is_not_taken_for_an_older_one_with_the_same_low_bits,
    a_forked_child_does_not_keep_its_parent_alive,
    every_waiter_gets_the_lock_in_the_end,
    an_onlooker_without_write_permission_sees_deaths_only,
];

pub(crate) fn lock(path: &Path) -> FutexLock<MemoryFile> {
    let memory = MemoryFile::open(path).expect("the memory can be opened");
    FutexLock::new(Membership::join(Arc::new(memory)).expect("the table has room"))
}

/// Who a peer says it is.
pub(crate) fn me(peer: &mut Peer) -> Me {
    let answer = peer.ask("me");
    let mut words = answer.split(' ').map(|word| word.parse().expect("numbers"));
    let mut next = || -> u64 { words.next().expect("slot, id and pid") };
    Me { slot: usize::try_from(next()).expect("a slot is small"), id: next() }
}

fn byte(me: Me) -> u64 {
    (1 << 40) + me.id
}

/// A holder that was killed, and whose byte somebody else keeps locked: only `/proc` and `kill`
/// can tell that it is dead.
fn killed_with_its_byte_held(path: &Path) -> (Peer, Me, std::os::fd::OwnedFd) {
    let mut victim = Peer::spawn("futex", path);
    victim.expect("acquire", "held");
    let me = me(&mut victim);
    let stranger = sys::hold_byte(path, byte(me));
    victim.kill();
    (victim, me, stranger)
}

fn a_byte_held_by_a_stranger_hides_no_killed_process() {
    let place = Place::new();
    let heir = lock(&place.file());
    // Not reaped: a zombie.
    let (victim, me, _stranger) = killed_with_its_byte_held(&place.file());
    let guard = heir.acquire(&Wait::forever()).expect("a wait for ever ends with the lock");
    let dead = guard.recovered().expect("the holder was killed");
    assert_eq!((dead.pid, dead.slot, dead.id), (victim.pid(), me.slot, me.id));
    assert_eq!(dead.liveness, Liveness::Ending);
    assert_eq!(heir.membership().liveness(me.slot, me.id), Liveness::Ending);
}

fn a_byte_held_by_a_stranger_hides_no_reaped_process() {
    let place = Place::new();
    let heir = lock(&place.file());
    let (mut victim, me, stranger) = killed_with_its_byte_held(&place.file());
    victim.reap();
    let guard = heir.acquire(&Wait::forever()).expect("a wait for ever ends with the lock");
    assert_eq!(guard.recovered().map(|dead| dead.liveness), Some(Liveness::Ending));
    drop(stranger);
    assert_eq!(heir.membership().liveness(me.slot, me.id), Liveness::Gone);
}

fn a_pid_given_to_somebody_else_hides_no_death() -> Outcome {
    let place = Place::new();
    let heir = lock(&place.file());
    let (mut victim, me, stranger) = killed_with_its_byte_held(&place.file());
    victim.reap();
    wait_for_two_ticks();
    let heir_of_pid = match sys::fork_with_pid(victim.pid()) {
        Ok(pid) => Child(pid),
        Err(error) => return Err(Skip(format!("no say in the next pid: {error}"))),
    };
    assert_eq!(heir_of_pid.0, victim.pid());
    // The byte is held and the pid is alive: it is the time of its start that tells.
    assert_eq!(heir.membership().liveness(me.slot, me.id), Liveness::Ending);
    drop(stranger);
    let guard = heir.acquire(&Wait::forever()).expect("a wait for ever ends with the lock");
    assert_eq!(guard.recovered().map(|dead| dead.pid), Some(victim.pid()));
    Ok(())
}

/// Starts are told apart by ticks of ten milliseconds.
fn wait_for_two_ticks() {
    let ticks = || {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("/proc is mounted");
        uptime.split(['.', ' ']).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        let before = ticks();
        while ticks() == before {
            std::thread::yield_now();
        }
    }
}

struct Child(u32);

impl Drop for Child {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
        let pid = i32::try_from(self.0).ok().and_then(Pid::from_raw).expect("a positive pid");
        kill_process(pid, Signal::KILL).expect("the child lives");
        waitpid(Some(pid), WaitOptions::empty()).expect("the child can be waited for");
    }
}

fn a_process_in_uninterruptible_memory_teardown_is_ending_or_gone() {
    let place = Place::new();
    let observer = lock(&place.file());
    for _ in 0..20 {
        let mut victim = Peer::spawn("futex", &place.file());
        victim.expect("grow 64", "grown");
        let me = me(&mut victim);
        victim.kill();
        // Whatever is seen on the way, it leads there and never back.
        let mut worst = Liveness::Alive;
        while worst != Liveness::Gone {
            let now = observer.membership().liveness(me.slot, me.id);
            assert!(now != Liveness::Alive || worst == Liveness::Alive, "{worst:?}, then {now:?}");
            worst = now;
        }
    }
}

fn threads_that_come_and_go_are_never_a_death() {
    let place = Place::new();
    let observer = lock(&place.file());
    let mut owner = Peer::spawn("futex", &place.file());
    owner.expect("acquire", "held");
    let me = me(&mut owner);
    owner.expect("churn 3", "churning");
    owner.expect("end-leader", "leader ended");
    for round in 0..20_000 {
        let judged = observer.membership().liveness(me.slot, me.id);
        assert_eq!(judged, Liveness::Alive, "in round {round}");
    }
    owner.kill();
    let guard = observer.acquire(&Wait::forever()).expect("a wait for ever ends with the lock");
    assert_eq!(guard.recovered().map(|dead| dead.pid), Some(owner.pid()));
}

fn eight_threads_die_together() {
    let place = Place::new();
    let heir = lock(&place.file());
    let mut victim = Peer::spawn("futex", &place.file());
    victim.expect("spin 8", "spinning");
    victim.expect("acquire-in-thread", "held");
    victim.kill();
    let guard = heir.acquire(&Wait::forever()).expect("a wait for ever ends with the lock");
    assert_eq!(guard.recovered().map(|dead| dead.pid), Some(victim.pid()));
}

fn a_dead_holder_whose_entry_was_given_away_is_still_dead() {
    let place = Place::new();
    let heir = lock(&place.file());
    let mut victim = Peer::spawn("futex", &place.file());
    victim.expect("acquire", "held");
    let dead = me(&mut victim);
    victim.kill_and_reap();
    // A newcomer gets the dead one's entry, and lives.
    let mut newcomer = Peer::spawn("futex", &place.file());
    let new = me(&mut newcomer);
    assert_eq!(new.slot, dead.slot);
    assert_ne!(new.id, dead.id);
    assert_eq!(heir.holder(), None, "the holder has no entry any more");
    let guard = heir.acquire(&Wait::forever()).expect("a wait for ever ends with the lock");
    let recovered = guard.recovered().expect("the holder was killed");
    assert_eq!((recovered.slot, recovered.id, recovered.pid), (dead.slot, dead.id, 0));
    assert_eq!(recovered.liveness, Liveness::Gone);
}

fn an_id_is_not_taken_for_an_older_one_with_the_same_low_bits() {
    let place = Place::new();
    let heir = lock(&place.file());
    let mut victim = Peer::spawn("futex", &place.file());
    victim.expect("acquire", "held");
    let dead = me(&mut victim);
    victim.kill_and_reap();
    // As if a million joins had passed: the next id would look in the word like the dead one.
    let raw = Raw::open(&place.file());
    raw.set_last_id(dead.id + (1 << 20) - 1);
    let mut newcomer = Peer::spawn("futex", &place.file());
    let new = me(&mut newcomer);
    assert!(new.slot != dead.slot || new.id & 0xf_ffff != dead.id & 0xf_ffff, "{new:?}");
    let guard = heir.acquire(&Wait::forever()).expect("a wait for ever ends with the lock");
    assert!(guard.recovered().is_some(), "the newcomer does not pass for the dead holder");
}

fn a_forked_child_does_not_keep_its_parent_alive() {
    let place = Place::new();
    let observer = lock(&place.file());
    let mut parent = Peer::spawn("futex", &place.file());
    let me = me(&mut parent);
    let child = parent.ask("fork-bystander").parse().expect("a pid");
    parent.kill_and_reap();
    assert_eq!(observer.membership().liveness(me.slot, me.id), Liveness::Gone);
    let child = rustix::process::Pid::from_raw(child).expect("a positive pid");
    // It lived until here: nobody else would have ended it.
    rustix::process::kill_process(child, rustix::process::Signal::KILL).expect("it lives");
}

fn every_waiter_gets_the_lock_in_the_end() {
    let place = Place::new();
    let observer = lock(&place.file());
    let mut victim = Peer::spawn("futex", &place.file());
    victim.expect("acquire", "held");
    // More than make a crowd; and every one of them dies as soon as it has the lock.
    let mut waiters: Vec<Peer> = (0..12).map(|_| Peer::spawn("futex", &place.file())).collect();
    for waiter in &mut waiters {
        waiter.order("acquire");
    }
    Raw::open(&place.file()).wait_for_waiter();
    victim.kill();
    while !waiters.is_empty() {
        let Some(holder) = observer.holder() else { continue };
        let Some(place) = waiters.iter().position(|one| one.pid() == holder.pid) else {
            std::thread::yield_now();
            continue;
        };
        let mut holder = waiters.swap_remove(place);
        let told = holder.hear();
        assert!(told.starts_with("held after"), "{told}");
        holder.kill_and_reap();
    }
}

fn an_onlooker_without_write_permission_sees_deaths_only() {
    let place = Place::new();
    let memory = MemoryFile::open(place.file()).expect("the memory can be opened");
    let read_only = std::fs::File::open(place.file()).expect("the memory can be read");
    let onlooker = Onlooker::new(read_only.into()).expect("the file can be examined");
    let judge = || {
        onlooker.holder_is_gone(memory.lock_word(), |slot| {
            (slot < memory.roster().high_water()).then(|| memory.participant(slot))
        })
    };
    assert_eq!(judge(), None, "nobody holds the lock");
    let mut holder = Peer::spawn("futex", &place.file());
    assert_eq!(judge(), None, "nobody holds the lock");
    holder.expect("acquire", "held");
    assert_eq!(judge(), Some(false));
    holder.stop();
    assert_eq!(judge(), Some(false));
    let stranger = sys::hold_byte(&place.file(), byte(Me { slot: 0, id: 1 }));
    holder.kill_and_reap();
    assert_eq!(judge(), Some(true), "by /proc");
    drop(stranger);
    assert_eq!(judge(), Some(true), "by its byte");
    let mut newcomer = Peer::spawn("futex", &place.file());
    assert_eq!(me(&mut newcomer).slot, 0);
    assert_eq!(judge(), Some(true), "by its entry");
    newcomer.expect("acquire", &format!("held after 0 {:?}", Liveness::Gone));
    assert_eq!(judge(), Some(false));
}
