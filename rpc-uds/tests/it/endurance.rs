//! The same thing very often: whatever is left behind each time adds up. Short forms here, longer
//! ones by the environment.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rpc_uds::Request;

use crate::desk::{Desk, ECHO, FAST_ECHO, INFO, PUSH, WAIT, connect, patient, soon};
use crate::harness::{open_descriptors, say, tests};
use crate::peer::Peer;
use crate::random::Random;

tests![connections_leave_nothing, killed_clients_leave_nothing];

fn how_often(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(otherwise)
}

fn connections_leave_nothing() {
    let desk = Desk::with(patient());
    let path = desk.place.socket();
    let count = how_often("RPC_UDS_CONNECTS", 2000);
    let file = File::open("/dev/null").expect("it is everywhere");
    connect(&path).ping(soon()).expect("alive");
    desk.seen.until(|_| desk.stats().connections == 0);
    let before = open_descriptors();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (path, file) = (&path, &file);
            scope.spawn(move || {
                for round in 0..count.div_ceil(4) {
                    let client = connect(path);
                    let given = [file.as_fd()];
                    match (thread + round) % 4 {
                        // Gone before it has said anything, or before it is answered.
                        0 => {}
                        1 => drop(client.start(Request::new(ECHO, b""), soon()).expect("sent")),
                        _ => {
                            let request = Request::new(ECHO, b"").with_descriptors(&given);
                            let reply = client.call(request, soon()).expect("an answer");
                            assert_eq!(reply.descriptors.len(), 1);
                        }
                    }
                }
            });
        }
    });
    desk.seen.until(|seen| seen.sessions_dropped() == 4 * count.div_ceil(4) + 1);
    desk.seen.until(|_| desk.stats().connections == 0);
    desk.seen.until(|_| open_descriptors() == before);
    say(&format!("  {count} connections"));
}

/// Does everything that a client does, until it is killed.
pub(crate) fn restless(path: &Path) {
    let file = File::open("/dev/null").expect("it is everywhere");
    let given = [file.as_fd(); 3];
    say("ready");
    loop {
        let client = connect(path);
        let waiting = client.start(Request::new(WAIT, &[7; 5000]), soon()).expect("sent");
        for tag in [ECHO, FAST_ECHO, INFO, PUSH] {
            let request = Request::new(tag, b"\x02 to itself").with_descriptors(&given);
            client.call(request, soon()).expect("an answer");
        }
        client.next_push(soon()).expect("a push");
        drop(waiting);
    }
}

fn killed_clients_leave_nothing() {
    let desk = Desk::with(patient().workers(8));
    let path = desk.place.socket();
    connect(&path).ping(soon()).expect("alive");
    desk.seen.until(|_| desk.stats().connections == 0);
    let before = open_descriptors();
    let count = how_often("RPC_UDS_KILLS", 100);
    let mut random = Random(0x0b17);
    let handshakes = AtomicU64::new(0);
    for _ in 0..count {
        let mut peer = Peer::start("restless", &path);
        // Whatever it is at by then.
        std::thread::sleep(Duration::from_micros(random.below(3000) as u64));
        peer.kill();
        handshakes.fetch_max(desk.stats().sessions, Ordering::Relaxed);
    }
    // Whoever was killed before it was let in is let in before this one.
    connect(&path).ping(soon()).expect("alive");
    desk.seen.until(|_| desk.stats().connections == 0 && desk.stats().in_progress == 0);
    let sessions = usize::try_from(desk.stats().sessions).expect("a count");
    desk.seen.until(|seen| seen.sessions_dropped() == sessions);
    assert_eq!(desk.seen.disconnected.load(Ordering::SeqCst), sessions, "each is told of once");
    desk.seen.until(|_| open_descriptors() == before);
    let stats = desk.stats();
    // A client that is killed cuts a frame in two at most.
    assert_eq!((stats.slow_readers, stats.trickling, stats.unanswered), (0, 0, 0));
    connect(&path).call(Request::new(ECHO, b""), soon()).expect("the server is well");
    say(&format!("  {count} clients killed in {sessions} sessions"));
}
