//! Forks at any moment: whatever the parent's threads were at, its children hold nothing of it.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rpc_uds::{Client, Request};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions, waitpid};

use crate::desk::{Desk, ECHO, Echo, FAST_ECHO, Place, connect, patient, soon};
use crate::harness::{say, tests};
use crate::peer::Peer;
use crate::sys;

tests![a_child_forked_while_a_client_connects_holds_nothing, children_hold_nothing];

/// What of this crate the calling process holds: sockets, eventfds, epolls, locks.
fn held() -> Vec<String> {
    let open = fs::read_dir("/proc/self/fd").expect("/proc is mounted").flatten();
    let mut held: Vec<_> = open
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|to| to.display().to_string())
        .filter(|to| {
            ["socket:", "eventfd", "eventpoll", ".lock"].iter().any(|part| to.contains(part))
        })
        .collect();
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
    held.extend(maps.lines().filter(|line| line.contains(".lock")).map(str::to_owned));
    held
}

/// Forks, and returns how much the child says that it holds; it says what if that is unexpected.
fn held_by_child(expected: usize) -> i32 {
    let Some(child) = sys::fork() else {
        let held = held();
        if held.len() != expected {
            eprintln!("a child holds {held:?}");
        }
        sys::leave(i32::try_from(held.len()).unwrap_or(99).min(99))
    };
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw).expect("a pid");
    let (_, status) = waitpid(Some(pid), WaitOptions::empty()).expect("a child").expect("it ended");
    status.exit_status().expect("it left by itself")
}

/// Connects to whoever listens and never answers, and forks meanwhile.
pub(crate) fn connecting(path: &Path) {
    let listener = UnixListener::bind(path).expect("the path is free");
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| Client::options().connect(path, soon()));
        poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).expect("a client comes");
        let (stream, _) = listener.accept().expect("a client comes");
        // It has said hello and waits.
        poll(&mut [PollFd::new(&stream, PollFlags::IN)], None).expect("it says hello");
        // The test's own two sockets are the child's as well.
        say(&format!("ready\n{}", held_by_child(2)));
        drop(stream);
        connecting.join().expect("no panic").expect_err("nobody answers");
    });
}

/// Forks as often as it is told to, while other threads connect, call, serve and stop.
pub(crate) fn storm(path: &Path) {
    let count: u32 =
        path.extension().and_then(|it| it.to_str()).expect("a number").parse().expect("a number");
    let own = path.with_extension("own");
    let (is_over, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
    let goes_on = || !is_over.load(Ordering::Relaxed);
    let socket = path.with_extension("");
    let mut leaks = 0;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while goes_on() {
                    let client = connect(&socket);
                    client.call(Request::new(FAST_ECHO, b""), soon()).expect("an answer");
                    drop(client);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while goes_on() {
                let server = patient().workers(1).serve(&own, Echo(<_>::default()));
                let server = server.expect("no child keeps the lock");
                connect(&own).call(Request::new(ECHO, b""), soon()).expect("an answer");
                let stopped = server.stop(Duration::from_secs(1000)).expect("not forked");
                assert!(stopped.is_drained);
                rounds.fetch_add(1, Ordering::Relaxed);
            }
        });
        say("ready");
        let begun = Instant::now();
        for _ in 0..count {
            leaks += u32::from(held_by_child(0) != 0);
        }
        is_over.store(true, Ordering::Relaxed);
        let rounds = rounds.load(Ordering::Relaxed);
        say(&format!("{leaks} of {count}\n{rounds} connections in {:.1?}", begun.elapsed()));
    });
}

fn a_child_forked_while_a_client_connects_holds_nothing() {
    let place = Place::new();
    let mut peer = Peer::start("connecting", &place.socket());
    // The listener and what it accepted are the peer's own.
    assert_eq!(peer.hear(), "2");
    assert!(peer.reap().success());
    fs::remove_file(place.socket()).expect("left by the listener");
}

fn children_hold_nothing() {
    let desk = Desk::new();
    let mut peer = Peer::start("fork-storm", &desk.place.socket().with_extension("300"));
    assert_eq!(peer.hear(), "0 of 300");
    say(&format!("  300 forks during {}", peer.hear()));
    assert!(peer.reap().success());
    desk.seen.until(|_| desk.stats().connections == 0);
}
