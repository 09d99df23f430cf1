//! What both locks promise, in one suite that runs on each of them.

use std::cell::Cell;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shm_lock::{AcquireError, FileLock, FutexLock, Lock, LockGuard, Membership, MemoryFile, Wait};

use crate::harness::{Test, say};
use crate::peer::{self, Peer, Place};

/// Every case, once for each lock.
macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        pub(crate) const TESTS: &[Test] = &[$(
            (concat!("futex_", stringify!($case)), || { $case(&Stand::futex()); Ok(()) }),
            (concat!("file_", stringify!($case)), || { $case(&Stand::file()); Ok(()) }),
        )*];
    };
}

suite![
    a_held_lock_excludes,
    a_release_hands_over,
    a_deadline_ends_a_wait_and_names_the_holder,
    an_interruption_ends_a_wait,
    one_deadline_bounds_several_waits,
    a_killed_holder_is_told_of_once,
    a_stopped_holder_is_not_dead,
    any_thread_may_drop_a_guard,
    a_guard_outlives_the_thread_that_took_it,
    a_forked_child_owns_nothing_and_locks_for_itself,
    a_dead_holder_is_seen_though_its_forked_child_lives,
    an_exec_ends_holding,
    closing_every_descriptor_ends_nothing,
    a_leader_that_ended_is_not_a_death,
    a_core_dump_is_a_death,
    two_handles_of_one_process_exclude_each_other,
    threads_of_a_process_exclude_each_other,
    processes_count_together,
];

/// Where a lock of some kind lives, and how to get at it.
struct Stand<L> {
    kind: &'static str,
    make: fn(&Path) -> L,
    /// How many acquisitions of this lock a test can afford.
    rounds: u64,
    place: Place,
}

impl Stand<FutexLock<MemoryFile>> {
    fn futex() -> Self {
        let make = |path: &Path| {
            let memory = MemoryFile::open(path).expect("the memory can be opened");
            FutexLock::new(Membership::join(Arc::new(memory)).expect("the table has room"))
        };
        Self { kind: "futex", make, rounds: 20_000, place: Place::new() }
    }
}

impl Stand<FileLock> {
    fn file() -> Self {
        let make = |path: &Path| FileLock::new(path);
        Self { kind: "file", make, rounds: 300, place: Place::new() }
    }
}

impl<L: Lock> Stand<L> {
    /// Another process that uses the lock.
    fn peer(&self) -> Peer {
        let mut command = peer::command(self.kind, &self.place.file());
        // Where its core is dumped, if it is.
        command.current_dir(self.place.folder());
        Peer::start(command)
    }

    /// The lock as this process uses it.
    fn handle(&self) -> L {
        (self.make)(&self.place.file())
    }
}

/// Several slices of waiting, in vain: the holder was asked after again and again.
fn wait_in_vain(handle: &impl Lock) {
    let slices = Cell::new(0);
    let enough = || {
        slices.set(slices.get() + 1);
        slices.get() > 20
    };
    let outcome = handle.acquire(&Wait::forever().interruptible(&enough)).map(drop);
    assert!(matches!(outcome, Err(AcquireError::Interrupted)), "the holder lives");
}

fn holder_pid(handle: &impl Lock) -> Option<u32> {
    handle.holder().map(|holder| holder.pid)
}

/// Waits for the lock and tells which holder, if any, died with it.
fn acquire_now(handle: &impl Lock) -> Option<u32> {
    let guard = handle.acquire(&Wait::forever()).expect("a wait for ever ends with the lock");
    guard.recovered().map(|dead| dead.pid)
}

fn a_held_lock_excludes<L: Lock>(stand: &Stand<L>) {
    let (mut peer, handle) = (stand.peer(), stand.handle());
    assert_eq!(holder_pid(&handle), None);
    peer.expect("acquire", "held");
    assert_eq!(holder_pid(&handle), Some(peer.pid()));
    match handle.try_acquire().map(drop) {
        Err(AcquireError::WouldBlock { holder }) => assert_eq!(holder, Some(peer.pid())),
        other => panic!("the lock is taken, but: {other:?}"),
    }
    peer.expect("release", "released");
    assert_eq!(holder_pid(&handle), None);
    drop(handle.try_acquire().expect("the lock is free"));
}

fn a_release_hands_over<L: Lock>(stand: &Stand<L>) {
    let (mut one, mut two) = (stand.peer(), stand.peer());
    for _ in 0..50 {
        one.expect("acquire", "held");
        two.order("acquire");
        one.expect("release", "released");
        assert_eq!(two.hear(), "held");
        two.expect("release", "released");
    }
}

fn a_deadline_ends_a_wait_and_names_the_holder<L: Lock>(stand: &Stand<L>) {
    let (mut peer, handle) = (stand.peer(), stand.handle());
    peer.expect("acquire", "held");
    for milliseconds in [0, 1, 7] {
        let at_most = Duration::from_millis(milliseconds);
        match handle.acquire(&Wait::for_at_most(at_most)).map(drop) {
            Err(AcquireError::Timeout { waited, holder }) => {
                assert!(waited >= at_most / 2, "{waited:?} of {at_most:?}");
                assert_eq!(holder, Some(peer.pid()));
            }
            other => panic!("the deadline passed, but: {other:?}"),
        }
    }
    peer.expect("release", "released");
    let past = Instant::now();
    drop(handle.acquire(&Wait::until(past)).expect("one attempt is made whatever the time"));
}

fn an_interruption_ends_a_wait<L: Lock>(stand: &Stand<L>) {
    let (mut peer, handle) = (stand.peer(), stand.handle());
    let stop = || true;
    drop(handle.acquire(&Wait::forever().interruptible(&stop)).expect("a free lock asks nobody"));
    peer.expect("acquire", "held");
    wait_in_vain(&handle);
    let long = Wait::for_at_most(Duration::from_secs(3600)).interruptible(&stop);
    assert!(matches!(handle.acquire(&long).map(drop), Err(AcquireError::Interrupted)));
}

fn one_deadline_bounds_several_waits<L: Lock>(stand: &Stand<L>) {
    let (mut peer, handle) = (stand.peer(), stand.handle());
    peer.expect("acquire", "held");
    let wait = Wait::for_at_most(Duration::from_millis(5));
    let timed_out = |outcome| matches!(outcome, Err(AcquireError::Timeout { .. }));
    assert!(timed_out(handle.acquire(&wait).map(drop)));
    let again = Cell::new(0);
    let count = || {
        again.set(again.get() + 1);
        false
    };
    // The deadline has passed: the second operation has no slice left to sleep in.
    assert!(timed_out(handle.acquire(&wait.interruptible(&count)).map(drop)));
    assert_eq!(again.get(), 1);
}

fn a_killed_holder_is_told_of_once<L: Lock>(stand: &Stand<L>) {
    let handle = stand.handle();
    for _ in 0..20 {
        let mut victim = stand.peer();
        let pid = victim.pid();
        victim.expect("acquire", "held");
        victim.kill();
        assert_eq!(acquire_now(&handle), Some(pid));
        assert_eq!(acquire_now(&handle), None);
        victim.reap();
    }
    // One that has been dead for long is found out at once, whatever the deadline.
    let mut victim = stand.peer();
    victim.expect("acquire", "held");
    victim.kill_and_reap();
    let guard = handle.acquire(&Wait::until(Instant::now())).expect("the holder is dead");
    assert_eq!(guard.recovered().map(|dead| dead.pid), Some(victim.pid()));
    drop(guard);
    victim = stand.peer();
    victim.expect("acquire", "held");
    victim.kill_and_reap();
    let guard = handle.try_acquire().expect("the holder is dead");
    assert_eq!(guard.recovered().map(|dead| dead.pid), Some(victim.pid()));
}

fn a_stopped_holder_is_not_dead<L: Lock>(stand: &Stand<L>) {
    let (mut holder, handle) = (stand.peer(), stand.handle());
    holder.expect("acquire", "held");
    holder.stop();
    wait_in_vain(&handle);
    holder.go_on();
    holder.expect("release", "released");
    assert_eq!(acquire_now(&handle), None);
}

fn any_thread_may_drop_a_guard<L: Lock>(stand: &Stand<L>) {
    let (mut peer, handle) = (stand.peer(), stand.handle());
    peer.expect("acquire", "held");
    peer.expect("release-in-thread", "released");
    assert_eq!(acquire_now(&handle), None);
}

fn a_guard_outlives_the_thread_that_took_it<L: Lock>(stand: &Stand<L>) {
    let (mut peer, handle) = (stand.peer(), stand.handle());
    peer.expect("acquire-in-thread", "held");
    wait_in_vain(&handle);
    peer.expect("release", "released");
    assert_eq!(acquire_now(&handle), None);
}

fn a_forked_child_owns_nothing_and_locks_for_itself<L: Lock>(stand: &Stand<L>) {
    let (mut parent, handle) = (stand.peer(), stand.handle());
    parent.expect("acquire", "held");
    let child = parent.ask("fork");
    let child = child.strip_prefix("child ").expect("the child answers").to_owned();
    // The inherited guard releases nothing,
    parent.expect("release", "released");
    wait_in_vain(&handle);
    assert_eq!(holder_pid(&handle), Some(parent.pid()));
    // nor does it make the child an owner,
    parent.expect("try", "taken");
    parent.expect("quit", "parent again");
    wait_in_vain(&handle);
    // and once the parent has let go, a child is somebody of its own.
    parent.expect("release", "released");
    let second = parent.ask("fork");
    assert_ne!(second, format!("child {child}"));
    parent.expect("acquire", "held");
    assert_eq!(holder_pid(&handle).map(|pid| format!("child {pid}")), Some(second));
    wait_in_vain(&handle);
    parent.expect("release", "released");
    parent.expect("quit", "parent again");
    assert_eq!(acquire_now(&handle), None);
}

fn a_dead_holder_is_seen_though_its_forked_child_lives<L: Lock>(stand: &Stand<L>) {
    let (mut victim, handle) = (stand.peer(), stand.handle());
    let pid = victim.pid();
    // One child from before the lock was taken, one from after.
    let before = Bystander(victim.ask("fork-bystander"));
    victim.expect("acquire", "held");
    let after = Bystander(victim.ask("fork-bystander"));
    victim.kill();
    assert_eq!(acquire_now(&handle), Some(pid));
    assert!(before.lives() && after.lives());
}

/// A process that a peer left behind.
struct Bystander(String);

impl Bystander {
    fn pid(&self) -> rustix::process::Pid {
        let pid = self.0.parse().ok().and_then(rustix::process::Pid::from_raw);
        pid.expect("the peer told the pid of its child")
    }

    fn lives(&self) -> bool {
        rustix::process::test_kill_process(self.pid()).is_ok()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        // It may have been killed already; nobody is left to reap it but init.
        let _ = rustix::process::kill_process(self.pid(), rustix::process::Signal::KILL);
    }
}

fn an_exec_ends_holding<L: Lock>(stand: &Stand<L>) {
    let (mut victim, handle) = (stand.peer(), stand.handle());
    let pid = victim.pid();
    victim.expect("acquire", "held");
    victim.expect("exec", "executing cat");
    victim.expect("are you cat now?", "are you cat now?");
    assert_eq!(acquire_now(&handle), Some(pid));
}

fn closing_every_descriptor_ends_nothing<L: Lock>(stand: &Stand<L>) {
    let (mut owner, handle) = (stand.peer(), stand.handle());
    owner.expect("acquire", "held");
    owner.expect("close-all", "closed");
    wait_in_vain(&handle);
    owner.expect("release", "released");
    assert_eq!(acquire_now(&handle), None);
    owner.expect("acquire", "held");
    owner.expect("close-all", "closed");
    owner.kill();
    assert_eq!(acquire_now(&handle), Some(owner.pid()));
}

fn a_leader_that_ended_is_not_a_death<L: Lock>(stand: &Stand<L>) {
    let (mut owner, handle) = (stand.peer(), stand.handle());
    owner.expect("acquire", "held");
    owner.expect("end-leader", "leader ended");
    wait_in_vain(&handle);
    owner.expect("release", "released");
    assert_eq!(acquire_now(&handle), None);
    // One that takes the lock after its leader has ended is an owner as any other.
    owner.expect("acquire", "held");
    wait_in_vain(&handle);
    owner.kill();
    assert_eq!(acquire_now(&handle), Some(owner.pid()));
}

fn a_core_dump_is_a_death<L: Lock>(stand: &Stand<L>) {
    let (mut victim, handle) = (stand.peer(), stand.handle());
    victim.expect("acquire", "held");
    victim.expect("dump-core", "dumping");
    assert_eq!(acquire_now(&handle), Some(victim.pid()));
    if !victim.reap().core_dumped() {
        say("  (it died, but this machine dumps no cores)");
    }
}

fn two_handles_of_one_process_exclude_each_other<L: Lock>(stand: &Stand<L>) {
    let (one, two) = (stand.handle(), stand.handle());
    let held = one.try_acquire().expect("the lock is free");
    wait_in_vain(&two);
    assert_eq!(holder_pid(&two), Some(std::process::id()));
    drop(held);
    let held = two.try_acquire().expect("the lock is free");
    wait_in_vain(&one);
    drop(held);
    assert_eq!(acquire_now(&one), None);
}

fn threads_of_a_process_exclude_each_other<L: Lock>(stand: &Stand<L>) {
    let handle = stand.handle();
    let count = std::sync::atomic::AtomicU32::new(0);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let guard = handle.acquire(&Wait::forever()).expect("it ends with the lock");
                    let seen = count.load(relaxed);
                    std::thread::yield_now();
                    count.store(seen + 1, relaxed);
                    drop(guard);
                }
            });
        }
    });
    assert_eq!(count.load(relaxed), 4 * 200);
}

fn processes_count_together<L: Lock>(stand: &Stand<L>) {
    let count = stand.place.file().with_extension("count");
    fs::write(&count, 0_u64.to_le_bytes()).expect("the count can be made");
    let times = stand.rounds;
    let mut peers: Vec<Peer> = (0..4).map(|_| stand.peer()).collect();
    for peer in &mut peers {
        peer.order(&format!("count {times}"));
    }
    for peer in &mut peers {
        assert_eq!(peer.hear(), "counted");
    }
    let bytes = fs::read(&count).expect("the count can be read");
    let counted = u64::from_le_bytes(bytes.try_into().expect("it is one number"));
    assert_eq!(counted, 4 * times);
}
