//! Processes that are killed, fork, or run out of descriptors.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use rpc_uds::{CallError, ConnectError, Lost, PeerPolicy, Request, RuntimeDirectory};
use rustix::process::Signal;

use crate::desk::{Desk, ECHO, FAST_ECHO, Place, WAIT, connect, on_thread, patient, soon};
use crate::harness::{Outcome, Skip, tests};
use crate::peer::Peer;

tests![
    a_killed_client_is_told_of_once,
    a_killed_server_ends_every_wait,
    what_killed_servers_left_is_removed,
    a_stopped_server_ends_waits_with_its_name,
    a_signal_drains_and_ends_with_zero,
    a_forked_client_holds_nothing,
    a_forked_server_holds_nothing,
    a_server_without_descriptors_goes_on,
    another_user_is_refused,
    a_server_of_another_user_is_refused,
];

fn a_killed_client_is_told_of_once() {
    let desk = Desk::new();
    for round in 1..=20 {
        let mut peer = Peer::start("client", &desk.place.socket());
        desk.seen.until(|seen| seen.waiting.load(Ordering::SeqCst) == round);
        // Pushes on their way are no reason to keep a dead client.
        desk.server.push_all(0, &[0; 1000], &[]).expect("not forked");
        peer.kill();
        desk.seen.until_gone(round);
        desk.seen.until(|seen| seen.cancelled.load(Ordering::SeqCst) == round);
        desk.seen.until(|seen| seen.sessions_dropped() == round);
        assert_eq!(desk.seen.disconnected.load(Ordering::SeqCst), round);
    }
    let stats = desk.stats();
    assert_eq!((stats.sessions, stats.protocol_errors, stats.slow_readers), (20, 0, 0));
}

fn a_killed_server_ends_every_wait() {
    let place = Place::new();
    let mut peer = Peer::start("server", &place.socket());
    let client = std::sync::Arc::new(connect(&place.socket()));
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let call = client.start(Request::new(WAIT, b""), soon()).expect("sent");
            on_thread(move || call.wait().map(|it| it.tag))
        })
        .collect();
    let pushed = {
        let client = std::sync::Arc::clone(&client);
        on_thread(move || client.next_push(soon()).map(|it| it.tag))
    };
    while peer.ask("waiting") != "4" {}
    peer.kill();
    for (thread, ended) in calls.into_iter().chain([pushed]) {
        assert_eq!(ended.recv().expect("it ends"), Err(CallError::Lost(Lost::Closed)));
        thread.join().expect("no panic");
    }
    let error = client.call(Request::new(ECHO, b""), soon()).map(|it| it.tag);
    assert_eq!(error, Err(CallError::Lost(Lost::Closed)));
    // What it left is taken over, and removed in the end.
    assert_eq!(place.files(), ["socket", "socket.lock"]);
    let refused = rpc_uds::Client::options().connect(place.socket(), soon());
    assert!(matches!(refused, Err(ConnectError::Absent { .. })), "{refused:?}");
    let mut successor = Peer::start("server", &place.socket());
    connect(&place.socket()).call(Request::new(ECHO, b""), soon()).expect("an answer");
    successor.expect("stop", "drained true");
}

fn what_killed_servers_left_is_removed() {
    let place = Place::new();
    let directory = RuntimeDirectory::at(place.folder().join("own")).expect("made");
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).expect("the folder is there");
        let mut names: Vec<_> = entries.map(|it| it.expect("an entry").file_name()).collect();
        names.sort();
        names
    };
    let mut alive = Peer::start("server", &directory.socket("a-alive"));
    for name in ["a-dead", "a-dead-too", "b-dead"] {
        Peer::start("server", &directory.socket(name)).kill();
    }
    // A lock without a socket, as of one that was killed in between; and what is none of ours.
    std::fs::write(directory.socket("a-locked.lock"), "").expect("written");
    std::fs::write(directory.socket("a-file"), "").expect("written");
    std::fs::write(directory.socket("a-file.lock"), "").expect("written");
    let is_meant = |name: &OsStr| name.to_string_lossy().starts_with("a-");
    assert_eq!(directory.remove_dead(is_meant), 3, "two sockets and a lock");
    let left = ["a-alive", "a-alive.lock", "a-file", "b-dead", "b-dead.lock"];
    assert_eq!(names(directory.path()), left);
    connect(&directory.socket("a-alive")).call(Request::new(ECHO, b""), soon()).expect("it lives");
    alive.expect("stop", "drained true");
    std::fs::remove_file(directory.socket("a-file")).expect("left alone");
    assert_eq!(directory.remove_dead(|_| true), 1);
    std::fs::remove_dir(directory.path()).expect("nothing is left");
}

fn a_stopped_server_ends_waits_with_its_name() {
    let place = Place::new();
    let mut peer = Peer::start("server", &place.socket());
    let client = connect(&place.socket());
    let call = client.start(Request::new(WAIT, b"kept"), soon()).expect("sent");
    while peer.ask("waiting") != "1" {}
    peer.expect("stop", "drained true");
    assert_eq!(call.wait().expect("it was drained").body, b"kept");
    let error = client.next_push(soon()).map(|it| it.tag);
    assert_eq!(error, Err(CallError::Lost(Lost::Stopped)));
}

fn a_signal_drains_and_ends_with_zero() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let mut peer = Peer::start("terminated", &place.socket());
        let client = connect(&place.socket());
        client.call(Request::new(ECHO, b""), soon()).expect("an answer");
        peer.signal(signal);
        assert_eq!(peer.hear(), "drained true");
        assert_eq!(peer.reap().code(), Some(0));
    }
}

fn a_forked_client_holds_nothing() {
    let desk = Desk::new();
    let mut peer = Peer::start("forking-client", &desk.place.socket());
    // The child's own connection.
    desk.seen.until_gone(1);
    peer.expect("call", "answered");
    peer.expect("end child", "child true");
    peer.kill();
    desk.seen.until_gone(2);
    let mut peer = Peer::start("forking-client", &desk.place.socket());
    desk.seen.until_gone(3);
    // The child lives on, and the end of the connection is seen all the same.
    peer.kill();
    desk.seen.until_gone(4);
}

fn a_forked_server_holds_nothing() {
    let place = Place::new();
    let mut peer = Peer::start("forking-server", &place.socket());
    let client = connect(&place.socket());
    client.call(Request::new(ECHO, b""), soon()).expect("the child's drop has closed nothing");
    peer.expect("end child", "child true");
    assert_eq!(peer.hear(), "left 0");
    assert_eq!(place.files(), [""; 0]);
    drop(client);

    let mut peer = Peer::start("forking-server", &place.socket());
    let client = connect(&place.socket());
    client.call(Request::new(ECHO, b""), soon()).expect("an answer");
    peer.signal(Signal::KILL);
    peer.reap();
    // The child lives on, and keeps neither connections nor path nor lock.
    let error = client.next_push(soon()).map(|it| it.tag);
    assert_eq!(error, Err(CallError::Lost(Lost::Closed)));
    let mut successor = Peer::start("server", &place.socket());
    successor.expect("stop", "drained true");
}

fn a_server_without_descriptors_goes_on() {
    let place = Place::new();
    let mut peer = Peer::start("starving-server", &place.socket());
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let path = place.socket();
            on_thread(move || {
                let client = connect(&path);
                let reply = client.call(Request::new(FAST_ECHO, b"fed"), soon());
                // Who is served stays, and leaves nothing for the others.
                (client, reply.map(|it| it.body))
            })
        })
        .collect();
    peer.expect("paused", "yes");
    peer.expect("feed", "fed");
    let mut answered = 0;
    for (thread, served) in waiting {
        let (_client, reply) = served.recv().expect("it is served in the end");
        assert_eq!(reply, Ok(b"fed".to_vec()));
        thread.join().expect("no panic");
        answered += 1;
    }
    assert_eq!(answered, 6);
    drop(peer);
    std::fs::remove_file(place.socket()).expect("left by the killed server");
    std::fs::remove_file(place.folder().join("socket.lock")).expect("left by the killed server");
}

fn let_everybody_in(place: &Place) {
    let mode = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(place.folder(), mode(0o755)).expect("own folder");
    std::fs::set_permissions(place.socket(), mode(0o666)).expect("own socket");
}

fn as_root() -> Outcome {
    if rustix::process::geteuid().is_root() {
        Ok(())
    } else {
        Err(Skip("only root can become another user".to_owned()))
    }
}

fn another_user_is_refused() -> Outcome {
    as_root()?;
    let desk = Desk::new();
    let_everybody_in(&desk.place);
    let mut peer = Peer::start("stranger", &desk.place.socket());
    let said = peer.ask("connect");
    assert!(said.contains("user 65534") && said.contains("user 0"), "{said}");
    desk.seen.until(|_| desk.stats().refused_users == 1);
    assert_eq!(desk.stats().sessions, 0);
    Ok(())
}

fn a_server_of_another_user_is_refused() -> Outcome {
    as_root()?;
    let desk = Desk::with(patient().policy(PeerPolicy::Anyone));
    let_everybody_in(&desk.place);
    let mut peer = Peer::start("stranger", &desk.place.socket());
    let said = peer.ask("distrust");
    assert!(said.contains("user 0") && said.contains("user 65534"), "{said}");
    peer.expect("connect", "connected true");
    // The one who did not trust has sent nothing.
    desk.seen.until(|_| desk.stats().accepted == 2);
    assert_eq!(desk.stats().sessions, 1);
    Ok(())
}
