//! Which paths make no system call: a thread that may make none walks them.

use std::io::Write;
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use shm_lock::{Broadcast, FutexLock, Membership, MemoryFile, Wait, process_token};

use crate::harness::tests;
use crate::peer::{self, Place};
use crate::sys;

tests![uncontended_paths_make_no_system_call, a_system_call_would_have_been_seen];

/// What a confined peer walks.
pub(crate) fn walk(path: &str) {
    let memory = Arc::new(MemoryFile::anonymous().expect("a memfd can be made"));
    let membership = Membership::join(memory).expect("the table has room");
    let lock = Arc::new(FutexLock::new(membership));
    let word = Broadcast::new();
    let wait = Wait::forever();
    sys::allow_no_system_calls();
    for round in 0..1000 {
        let _ = process_token();
        let _ = lock.membership().me();
        drop(lock.acquire(&wait));
        drop(lock.try_acquire());
        drop(lock.acquire_owned(&wait));
        let _ = lock.holder();
        word.notify();
        let _ = word.wait(round, &wait);
    }
    if path == "and-one-call" {
        let _ = std::fs::metadata("/");
    }
    let _ = std::io::stdout().write_all(b"walked\n");
    sys::end_this_thread();
}

fn walked(path: &str) -> (ExitStatus, String) {
    let place = Place::new();
    let mut command: Command = peer::command(&format!("walk-{path}"), &place.file());
    let output = command.output().expect("a peer can be started");
    (output.status, String::from_utf8_lossy(&output.stdout).into_owned())
}

fn uncontended_paths_make_no_system_call() {
    let (status, said) = walked("alone");
    assert!(status.success() && said == "walked\n", "{status}, {said:?}");
}

fn a_system_call_would_have_been_seen() {
    let (status, said) = walked("and-one-call");
    assert!(!status.success() && said.is_empty(), "{status}, {said:?}");
}
