//! Ending a server whose handlers do as they like.

use std::fs;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rpc_uds::{CallError, Lost, Refusal, Request};

use crate::desk::{
    BOMB, Desk, ECHO, Echo, FAST_ECHO, FAST_STUBBORN, LONG, Place, STUBBORN, WAIT, connect,
    patient, soon,
};
use crate::harness::{say, tests};
use crate::raw::{Raw, frame};
use rpc_uds::Kind;

tests![
    a_call_that_does_not_end_is_named,
    idle_workers_end_while_a_connection_is_stuck,
    a_handler_that_is_late_ends_its_thread,
    no_grace_is_too_long,
    no_timeout_is_too_long,
    who_does_not_read_is_not_waited_for,
    what_is_read_is_waited_for,
    a_session_that_panics_costs_no_worker,
    how_long_stopping_takes,
];

/// The threads of servers in this process, by name.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("/proc is mounted");
    let names = tasks.flatten().map(|task| fs::read_to_string(task.path().join("comm")));
    let mut names: Vec<_> = names.flatten().map(|name| name.trim_end().to_owned()).collect();
    names.retain(|name| name.starts_with("rpc-uds"));
    names.sort();
    names
}

fn until_threads(desk: &Desk, names: &[&str]) {
    desk.seen.until(|_| threads() == names);
}

fn a_call_that_does_not_end_is_named() {
    let desk = Desk::with(patient().workers(3).handler_timeout(Duration::from_millis(50)));
    let client = desk.client();
    let call = client.start(Request::new(STUBBORN, b""), soon()).expect("sent");
    desk.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1);
    let grace = Duration::from_millis(30);
    let begun = Instant::now();
    let stopped = desk.server.stop(grace).expect("not forked");
    assert!(begun.elapsed() >= grace);
    assert_eq!((stopped.is_drained, stopped.threads_left), (false, 1));
    let [left] = stopped.unfinished[..] else { panic!("{stopped:?}") };
    assert_eq!((left.tag, left.id), (STUBBORN, call.id()));
    assert_eq!(left.peer.pid, Some(std::process::id()));
    // Its client is told all the same, and everything else has ended.
    assert_eq!(call.wait().map(|it| it.tag), Err(CallError::Lost(Lost::Stopped)));
    // The kernel lists a thread for a moment after it was joined.
    desk.seen.until(|_| matches!(&threads()[..], [left] if left.starts_with("rpc-uds work")));
    assert_eq!(desk.place.files(), [""; 0]);
    desk.seen.open_door();
    until_threads(&desk, &[]);
    assert_eq!(desk.seen.sessions_dropped(), 1);
}

fn idle_workers_end_while_a_connection_is_stuck() {
    let desk = Desk::with(patient().workers(3).handler_timeout(Duration::from_millis(50)));
    let client = desk.client();
    let call = client.start(Request::new(FAST_STUBBORN, b""), soon()).expect("sent");
    desk.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1);
    let stopped = desk.server.stop(Duration::ZERO).expect("not forked");
    assert_eq!((stopped.is_drained, stopped.threads_left), (false, 1));
    assert_eq!(stopped.unfinished.iter().map(|it| it.tag).collect::<Vec<_>>(), [FAST_STUBBORN]);
    until_threads(&desk, &["rpc-uds 1"]);
    drop(call);
    desk.seen.open_door();
    until_threads(&desk, &[]);
    assert_eq!(desk.seen.disconnected.load(Ordering::SeqCst), 1);
}

fn a_handler_that_is_late_ends_its_thread() {
    let desk = Desk::with(patient().workers(1));
    let client = desk.client();
    let calls = [STUBBORN, ECHO, ECHO]
        .map(|tag| client.start(Request::new(tag, b""), soon()).expect("sent"));
    desk.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == 1);
    client.ping(soon()).expect("everything sent has come");
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| desk.server.stop(Duration::ZERO));
        for call in calls {
            assert_eq!(call.wait().map(|it| it.tag), Err(CallError::Lost(Lost::Stopped)));
        }
        // It comes back after the grace and before the server gives up on it.
        desk.seen.open_door();
        let stopped = stopping.join().expect("no panic").expect("not forked");
        assert_eq!((stopped.is_drained, stopped.threads_left), (false, 0));
        assert_eq!(stopped.unfinished, []);
    });
    // What waited behind it was never begun.
    assert_eq!(desk.stats().replies, 0);
}

fn no_grace_is_too_long() {
    let desk = Desk::new();
    desk.client().call(Request::new(ECHO, b""), soon()).expect("an answer");
    let stopped = desk.server.stop(Duration::MAX).expect("not forked");
    assert!(stopped.is_drained);
}

fn no_timeout_is_too_long() {
    let options = patient();
    let desk = Desk::with(options.handshake_timeout(Duration::MAX).frame_timeout(Duration::MAX));
    let mut raw = Raw::welcomed(desk.place.socket().as_path());
    let bytes = frame(Kind::Request, ECHO, 1, 0, b"in two parts");
    raw.send(&bytes[..30]);
    raw.send(&bytes[30..]);
    assert_eq!(raw.next().expect("an answer").body, b"in two parts");
}

fn who_does_not_read_is_not_waited_for() {
    let options = patient().deaf_timeout(Duration::from_millis(50));
    let desk = Desk::with(options.outbox_bytes_max(32 << 20));
    let mut deaf = Raw::welcomed(desk.place.socket().as_path());
    for id in 1..=20 {
        deaf.send(&frame(Kind::Request, LONG, id, 0, &100_000_u32.to_le_bytes()));
    }
    desk.seen.until(|_| desk.stats().replies == 20 && desk.stats().in_progress == 0);
    // The watchdog is sooner than this grace.
    let stopped = desk.server.stop(Duration::from_secs(100_000)).expect("not forked");
    assert_eq!((stopped.is_drained, stopped.threads_left), (true, 0));
}

fn what_is_read_is_waited_for() {
    let desk = Desk::with(patient().outbox_bytes_max(32 << 20));
    let mut late = Raw::welcomed(desk.place.socket().as_path());
    for id in 1..=50 {
        late.send(&frame(Kind::Request, LONG, id, 0, &100_000_u32.to_le_bytes()));
    }
    desk.seen.until(|_| desk.stats().replies == 50 && desk.stats().in_progress == 0);
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| desk.server.stop(Duration::from_secs(100_000)));
        for _ in 0..50 {
            assert_eq!(late.next().expect("a reply").body.len(), 100_000);
        }
        assert!(stopping.join().expect("no panic").expect("not forked").is_drained);
    });
}

fn a_session_that_panics_costs_no_worker() {
    let desk = Desk::with(patient().workers(1));
    for round in 1..=5 {
        let client = desk.client();
        client.call(Request::new(BOMB, b""), soon()).expect("armed");
        let call = client.start(Request::new(WAIT, b""), soon()).expect("sent");
        desk.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == round);
        // The worker is the last to hold the session.
        drop((call, client));
        desk.seen.until(|seen| seen.sessions_dropped() == 2 * round - 1);
        let other = desk.client();
        other.call(Request::new(ECHO, b""), soon()).expect("the worker goes on");
        drop(other);
        desk.seen.until(|seen| seen.sessions_dropped() == 2 * round);
    }
    let stopped = desk.server.stop(Duration::ZERO).expect("not forked");
    assert_eq!((stopped.is_drained, stopped.threads_left), (true, 0));
}

/// Says how long; what takes how long is no reason to fail.
fn how_long_stopping_takes() {
    for clients in [0, 8] {
        let mut times: Vec<Duration> = (0..200)
            .map(|_| {
                let place = Place::new();
                let server = patient().serve(place.socket(), Echo(<_>::default()));
                let server = server.expect("the path is free");
                let clients: Vec<_> = (0..clients).map(|_| connect(&place.socket())).collect();
                for client in &clients {
                    client.call(Request::new(FAST_ECHO, b""), soon()).expect("an answer");
                }
                let begun = Instant::now();
                let stopped = server.stop(Duration::from_secs(1000)).expect("not forked");
                let took = begun.elapsed();
                assert_eq!((stopped.is_drained, stopped.threads_left), (true, 0));
                for client in clients {
                    let refused = client.call(Request::new(ECHO, b""), soon()).map(|it| it.tag);
                    assert!(
                        matches!(
                            refused,
                            Err(CallError::Lost(_) | CallError::Refused(Refusal::Stopping))
                        ),
                        "{refused:?}"
                    );
                }
                took
            })
            .collect();
        times.sort_unstable();
        let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
        say(&format!("  200 stops, {clients} clients: median {median:.1?}, longest {most:.1?}"));
    }
}
