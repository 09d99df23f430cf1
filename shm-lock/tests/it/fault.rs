//! Every kernel call of the library, one after the other, fails or is the last one of its process.
//! After each, everybody else must find the lock as if nothing had happened.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use shm_lock::{AcquireError, FileLock, FutexLock, Liveness, Membership, MemoryFile, Wait};

use crate::death::lock;
use crate::harness::{say, tests};
use crate::peer::{self, Peer, Place};
use crate::sys;

tests![
    taking_a_free_futex_lock,
    taking_over_a_futex_lock,
    waiting_for_a_futex_lock_in_vain,
    registering_a_forked_child,
    taking_a_free_file_lock,
    taking_over_a_file_lock,
];

type Fallible = Result<(), Box<dyn std::error::Error>>;

/// What the process whose calls are broken does.
pub(crate) fn play(scenario: &str, path: &Path) {
    let outcome = match scenario {
        "futex" => futex(path),
        "vain" => vain(path),
        "fork" => fork(path),
        "file" => file(path),
        _ => panic!("`{scenario}` is no scenario"),
    };
    if let Err(error) = outcome {
        assert!(!error.to_string().is_empty());
    }
    say(&shm_lock::fault::passed().to_string());
}

fn open(path: &Path) -> Result<FutexLock<MemoryFile>, Box<dyn std::error::Error>> {
    Ok(FutexLock::new(Membership::join(Arc::new(MemoryFile::open(path)?))?))
}

fn futex(path: &Path) -> Fallible {
    let lock = open(path)?;
    drop(lock.acquire(&Wait::forever())?);
    drop(lock.try_acquire()?);
    let _ = lock.membership().participants();
    Ok(())
}

fn vain(path: &Path) -> Fallible {
    let lock = open(path)?;
    match lock.acquire(&Wait::for_at_most(Duration::from_millis(5))).map(drop) {
        Err(AcquireError::Timeout { .. }) => Ok(()),
        other => panic!("a living process holds the lock, but: {other:?}"),
    }
}

fn fork(path: &Path) -> Fallible {
    let lock = open(path)?;
    let guard = lock.acquire(&Wait::forever())?;
    if sys::fork().is_some() {
        // The child goes on alone, whatever becomes of it; its parent dies with the lock.
        std::process::abort();
    }
    drop(guard);
    drop(lock.acquire(&Wait::forever())?);
    Ok(())
}

fn file(path: &Path) -> Fallible {
    let lock = FileLock::new(path);
    drop(lock.acquire(&Wait::forever())?);
    drop(lock.try_acquire()?);
    let _ = lock.holder();
    Ok(())
}

/// Breaks call 1, 2, ... of a scenario until it gets by unbroken, and checks after each.
fn break_every_call(scenario: &str, prepare: impl Fn(&Path), check: impl Fn(&Path)) {
    for kind in ["error", "kill"] {
        let mut at = 0;
        loop {
            at += 1;
            let place = Place::new();
            prepare(&place.file());
            let mut command: Command = peer::command(&format!("fault-{scenario}"), &place.file());
            command.env("ST_FAULT", kind).env("ST_FAULT_AT", at.to_string());
            command.current_dir(place.folder());
            let output = command.output().expect("a peer can be started");
            let said = String::from_utf8_lossy(&output.stdout);
            let passed = said.trim().parse::<u64>();
            check(&place.file());
            if passed.as_ref().is_ok_and(|passed| *passed < at) {
                break;
            }
            assert!(kind == "kill" || passed.is_ok(), "{scenario}, error at call {at}: {output:?}");
            assert!(at < 1000, "the scenario does not end");
        }
        say(&format!("  {scenario}: {} calls, each broken by {kind}", at - 1));
        assert!(at > 5, "a scenario makes some calls");
    }
}

/// An onlooker and a newcomer can both use the lock, and nobody dead is listed as living.
fn check_futex(path: &Path) {
    let onlooker = lock(path);
    drop(onlooker.acquire(&Wait::forever()).expect("a wait for ever ends with the lock"));
    let mut newcomer = Peer::spawn("futex", path);
    let told = newcomer.ask("acquire");
    assert_eq!(told, "held", "the onlooker has let go and is alive");
    newcomer.expect("release", "released");
    for one in onlooker.membership().participants() {
        let living = one.pid == std::process::id() || one.pid == newcomer.pid();
        assert_eq!(one.liveness == Liveness::Alive, living, "{one:?}");
    }
}

fn check_file(path: &Path) {
    let lock = FileLock::new(path);
    drop(lock.acquire(&Wait::forever()).expect("a wait for ever ends with the lock"));
    assert!(lock.holder().is_none());
    let mut newcomer = Peer::spawn("file", path);
    newcomer.expect("acquire", "held");
}

fn die_holding(kind: &str, path: &Path) {
    let mut victim = Peer::spawn(kind, path);
    victim.expect("acquire", "held");
    victim.kill_and_reap();
}

fn taking_a_free_futex_lock() {
    break_every_call("futex", |_| (), check_futex);
}

fn taking_over_a_futex_lock() {
    break_every_call("futex", |path| die_holding("futex", path), check_futex);
}

fn waiting_for_a_futex_lock_in_vain() {
    // The holder is this process, which lives.
    let held = std::cell::RefCell::new(None);
    break_every_call(
        "vain",
        |path| {
            let lock = Arc::new(lock(path));
            let guard = lock.acquire_owned(&Wait::forever()).expect("the lock is free");
            held.replace(Some(guard));
        },
        |path| {
            let guard = held.take().expect("held since before");
            assert!(guard.recovered().is_none());
            drop(guard);
            check_futex(path);
        },
    );
}

fn registering_a_forked_child() {
    break_every_call(
        "fork",
        |_| (),
        |path| {
            // The grandchild may outlive the child: what it holds it gives back.
            let onlooker = lock(path);
            drop(onlooker.acquire(&Wait::forever()).expect("a wait for ever ends with the lock"));
        },
    );
}

fn taking_a_free_file_lock() {
    break_every_call("file", |_| (), check_file);
}

fn taking_over_a_file_lock() {
    break_every_call("file", |path| die_holding("file", path), check_file);
}
