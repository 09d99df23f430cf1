//! The harness itself: a harness that cannot fail proves nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, test_kill_process};
use st_tests::{Namespace, Peer};

use super::peer;

fn is_alive(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

/// The message with which `failing` panics.
fn complaint(failing: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(failing)).expect_err("a panic");
    panic.downcast_ref::<String>().expect("a message").clone()
}

#[test]
fn a_peer_answers() {
    let space = Namespace::new("answers");
    let mut peer = peer(&space);
    let pid = peer.pid();
    assert_eq!(peer.ask("hello"), pid.to_string());
    peer.barrier();
    assert!(peer.ask_refused("dance").contains("unknown command `dance`"));
    peer.quit();
    assert!(!is_alive(pid));
}

#[test]
fn a_dropped_peer_is_gone() {
    let space = Namespace::new("dropped");
    let peer = peer(&space);
    let pid = peer.pid();
    drop(peer);
    assert!(!is_alive(pid));
}

#[test]
fn a_frozen_peer_answers_only_when_thawed() {
    let space = Namespace::new("frozen");
    let mut peer = peer(&space);
    for _ in 0..3 {
        peer.freeze();
        peer.say("hello");
        let state = std::fs::read_to_string(format!("/proc/{}/stat", peer.pid())).unwrap();
        assert!(state.contains(") T "), "{state}");
        peer.thaw();
        peer.hear_ok();
    }
    peer.freeze();
    peer.kill();
}

#[test]
fn the_death_of_a_peer_is_told_with_what_was_said() {
    let space = Namespace::new("death");
    let mut peer = peer(&space);
    let said = complaint(|| drop(peer.ask("abort")));
    assert!(said.contains("ended instead of answering (signal: 6"), "{said}");
    assert!(said.contains("> hello\n") && said.contains("> abort\n"), "{said}");
}

#[test]
fn a_refusal_is_told_when_none_was_asked_for() {
    let space = Namespace::new("refusal");
    let mut one = peer(&space);
    assert!(complaint(|| drop(one.ask("dance"))).contains("refused"));
    let mut other = peer(&space);
    assert!(complaint(|| drop(other.ask_refused("hello"))).contains("did not refuse"));
}

#[test]
fn a_process_that_a_peer_left_is_found_and_ended() {
    let space = Namespace::new("orphan");
    let mut shell = Command::new("sh");
    shell.args(["-c", "sleep 600 >/dev/null & echo ok $!; read line"]);
    let mut shell = Peer::start(&space, "shell", shell);
    let orphan: i32 = shell.hear_ok().parse().unwrap();
    // Only the shell: what it started lives on, as the child of a killed process would.
    shell.kill();
    drop(shell);
    let said = complaint(|| drop(space));
    assert!(said.contains(&format!("process {orphan} is left")), "{said}");
}

#[test]
fn a_hang_is_ended_and_fails() {
    let space = Namespace::with_limit("hang", Duration::ZERO);
    let mut sleeper = Command::new("sleep");
    sleeper.arg("600");
    let mut sleeper = Peer::start(&space, "sleeper", sleeper);
    let said = complaint(|| drop(sleeper.hear()));
    assert!(said.contains("peer `sleeper` ended instead of answering"), "{said}");
}

#[test]
fn a_peer_without_a_tester_ends() {
    let space = Namespace::new("orphaned");
    let mut command = Command::new(env!("CARGO_BIN_EXE_st-peer"));
    command.envs(space.place().environment());
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(child.stdin.take());
    let status = child.wait().unwrap();
    let killed = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(killed, Some(Signal::KILL.as_raw()));
    drop(space);
}
