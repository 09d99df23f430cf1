//! Where servers live.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rpc_uds::{BindError, Client, ConnectError, Request, RuntimeDirectory, RuntimeDirectoryError};

use crate::desk::{Desk, ECHO, Echo, Place, connect, on_thread, patient, soon};
use crate::harness::tests;

tests![
    a_socket_is_private_and_removed,
    a_second_server_is_refused,
    a_path_without_a_lock_that_lives_is_refused,
    the_lock_of_a_process_that_is_gone_is_waited_for,
    what_is_not_a_socket_is_left_alone,
    only_the_own_path_is_removed,
    a_successor_takes_over_while_the_old_one_drains,
    without_grace_requests_are_cut_off,
    a_client_in_the_backlog_of_a_dying_server_waits_for_the_next,
    long_paths_work,
    impossible_paths_are_named,
    a_server_that_is_not_there,
    what_is_no_socket_is_not_waited_for,
    a_server_that_is_waited_for,
    a_listener_that_never_answers,
    a_full_backlog_is_waited_for,
    a_private_directory_is_made,
    directories_of_others_are_refused,
];

fn a_socket_is_private_and_removed() {
    let desk = Desk::new();
    let metadata = std::fs::symlink_metadata(desk.place.socket()).expect("it is there");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(desk.place.files(), ["socket", "socket.lock"]);
    assert_eq!(desk.server.path(), desk.place.socket());
    let stopped = desk.server.stop(Duration::ZERO).expect("not forked");
    assert_eq!((stopped.is_drained, stopped.threads_left), (true, 0));
    assert_eq!(desk.place.files(), [""; 0]);
    assert_eq!(desk.server.stop(Duration::ZERO), Ok(stopped));
}

fn a_second_server_is_refused() {
    let desk = Desk::new();
    let error = patient().serve(desk.place.socket(), Echo(desk.seen.clone()));
    let Err(BindError::Taken { pid, .. }) = error else { panic!("{error:?}") };
    assert_eq!(pid, Some(std::process::id()));
    desk.client().call(Request::new(ECHO, b""), soon()).expect("the first one goes on");
}

fn a_path_without_a_lock_that_lives_is_refused() {
    let place = Place::new();
    let listener = UnixListener::bind(place.socket()).expect("the path is free");
    let error = patient().serve(place.socket(), Echo(<_>::default()));
    let Err(BindError::Taken { pid, .. }) = error else { panic!("{error:?}") };
    assert_eq!(pid, Some(std::process::id()));
    assert_eq!(place.files(), ["socket"]);
    drop(listener);
    // Dead now, so it is replaced.
    drop(patient().serve(place.socket(), Echo(<_>::default())).expect("taken over"));
}

fn the_lock_of_a_process_that_is_gone_is_waited_for() {
    let mut child = std::process::Command::new("true").spawn().expect("it starts");
    child.wait().expect("it ends");
    for _ in 0..20 {
        let place = Place::new();
        let lock = place.socket().with_extension("lock");
        std::fs::write(&lock, format!("{}\n", child.id())).expect("written");
        let held = std::fs::File::open(&lock).expect("it is there");
        held.lock().expect("free");
        std::thread::scope(|scope| {
            let server = scope.spawn(|| patient().serve(place.socket(), Echo(<_>::default())));
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            drop(held);
            drop(server.join().expect("no panic").expect("taken over"));
        });
    }
}

fn what_is_not_a_socket_is_left_alone() {
    let place = Place::new();
    std::fs::write(place.socket(), "precious").expect("a file");
    let error = patient().serve(place.socket(), Echo(<_>::default()));
    assert!(matches!(error, Err(BindError::NotASocket { .. })), "{error:?}");
    assert_eq!(std::fs::read(place.socket()).expect("still there"), b"precious");
    std::fs::remove_file(place.socket()).expect("a file");
    symlink("elsewhere", place.socket()).expect("a link");
    let error = patient().serve(place.socket(), Echo(<_>::default()));
    assert!(matches!(error, Err(BindError::NotASocket { .. })), "{error:?}");
    std::fs::remove_file(place.socket()).expect("a link");
    assert_eq!(place.files(), [""; 0]);
}

fn only_the_own_path_is_removed() {
    let desk = Desk::new();
    std::fs::remove_file(desk.place.socket()).expect("somebody removes it");
    let other = UnixListener::bind(desk.place.socket()).expect("and binds another");
    let _ = desk.server.stop(Duration::ZERO).expect("not forked");
    assert_eq!(desk.place.files(), ["socket"]);
    drop(other);
    std::fs::remove_file(desk.place.socket()).expect("it is still there");
}

fn a_successor_takes_over_while_the_old_one_drains() {
    let desk = Desk::new();
    let client = desk.client();
    let call = client.start(Request::new(crate::desk::WAIT, b"old"), soon()).expect("sent");
    desk.seen.until(|seen| seen.waiting.load(std::sync::atomic::Ordering::SeqCst) == 1);
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| desk.server.stop(Duration::from_secs(1200)));
        desk.seen.until(|_| desk.place.files().is_empty());
        let successor = patient().serve(desk.place.socket(), Echo(<_>::default()));
        let successor = successor.expect("the path is free before the old server has ended");
        let other = connect(&desk.place.socket());
        other.call(Request::new(ECHO, b""), soon()).expect("an answer of the successor");
        // New requests to the old one are refused by name, control requests are answered.
        let refused = client.call(Request::new(ECHO, b""), soon()).map(|it| it.tag);
        let stopping_by_name = rpc_uds::CallError::Refused(rpc_uds::Refusal::Stopping);
        assert_eq!(refused, Err(stopping_by_name));
        client.call(Request::new(crate::desk::INFO, b""), soon()).expect("an answer");
        client.ping(soon()).expect("an answer");
        desk.seen.open_door();
        assert_eq!(call.wait().expect("drained").body, b"old");
        let stopped = stopping.join().expect("no panic").expect("not forked");
        assert_eq!((stopped.is_drained, stopped.threads_left), (true, 0));
        other.call(Request::new(ECHO, b""), soon()).expect("the successor goes on");
        drop(successor);
    });
}

fn without_grace_requests_are_cut_off() {
    let desk = Desk::new();
    let (client, other) = (desk.client(), desk.client());
    let wait =
        |client: &Client| client.start(Request::new(crate::desk::WAIT, b""), soon()).expect("sent");
    let mut calls: Vec<_> = (0..6).map(|_| wait(&client)).collect();
    desk.seen.until(|seen| seen.waiting.load(std::sync::atomic::Ordering::SeqCst) == 4);
    calls.extend((0..4).map(|_| wait(&other)));
    other.ping(soon()).expect("everything sent has come");
    let stopped = desk.server.stop(Duration::ZERO).expect("not forked");
    // The handler saw that nobody waits any more; those in the queue were never begun.
    assert_eq!((stopped.is_drained, stopped.threads_left), (false, 0));
    assert_eq!(desk.seen.waiting.load(std::sync::atomic::Ordering::SeqCst), 4);
    for call in calls {
        let error = call.wait().map(|it| it.tag);
        assert_eq!(error, Err(rpc_uds::CallError::Lost(rpc_uds::Lost::Stopped)));
    }
    assert_eq!(desk.seen.disconnected.load(std::sync::atomic::Ordering::SeqCst), 2);
    assert_eq!(desk.seen.sessions_dropped(), 2);
}

fn a_client_in_the_backlog_of_a_dying_server_waits_for_the_next() {
    let place = Place::new();
    let dying = UnixListener::bind(place.socket()).expect("the path is free");
    let path = place.socket();
    let (thread, answer) = on_thread(move || connect(&path).ping(soon()));
    // It is in the backlog, and says hello to nobody.
    let polled = rustix::event::PollFd::new(&dying, rustix::event::PollFlags::IN);
    rustix::event::poll(&mut [polled], None).expect("a client comes");
    drop(dying);
    let server = patient().serve(place.socket(), Echo(<_>::default())).expect("taken over");
    assert_eq!(answer.recv().expect("it connects"), Ok(()));
    thread.join().expect("no panic");
    drop(server);
}

fn long_paths_work() {
    let place = Place::new();
    let deep = place.folder().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).expect("folders");
    let path = deep.join("socket");
    assert!(path.as_os_str().len() > 200);
    let server = patient().serve(&path, Echo(<_>::default())).expect("a long path");
    connect(&path).call(Request::new(ECHO, b""), soon()).expect("an answer");
    drop(server);
    assert!(!path.exists());
    std::fs::remove_dir_all(place.folder().join("d".repeat(100))).expect("own folders");
}

fn impossible_paths_are_named() {
    let place = Place::new();
    let serve = |path: &std::path::Path| patient().serve(path, Echo(<_>::default()));
    let long = place.folder().join("x".repeat(110));
    assert!(matches!(serve(&long), Err(BindError::Path { .. })));
    let connected = Client::options().connect(&long, soon());
    assert!(matches!(connected, Err(ConnectError::Path { .. })), "{connected:?}");
    assert!(matches!(serve(std::path::Path::new("/")), Err(BindError::Path { .. })));
    let nowhere = place.folder().join("nowhere/socket");
    let error = serve(&nowhere).expect_err("no such folder");
    assert!(error.to_string().contains("nowhere"), "{error}");
    assert_eq!(place.files(), [""; 0]);
}

fn a_server_that_is_not_there() {
    let place = Place::new();
    let error = Client::options().connect(place.socket(), soon()).expect_err("nobody is there");
    assert!(matches!(error, ConnectError::Absent { .. }), "{error:?}");
    let begun = Instant::now();
    let deadline = begun + Duration::from_millis(40);
    let error = Client::options().wait_for_server(true).connect(place.socket(), deadline);
    assert!(matches!(error, Err(ConnectError::Absent { .. })), "{error:?}");
    assert!(begun.elapsed() >= Duration::from_millis(40));
}

fn what_is_no_socket_is_not_waited_for() {
    let place = Place::new();
    let said = || {
        let error = Client::options().wait_for_server(true).connect(place.socket(), soon());
        assert!(matches!(error, Err(ConnectError::NotASocket { .. })), "{error:?}");
        error.expect_err("no socket").to_string()
    };
    std::fs::write(place.socket(), "precious").expect("a file");
    let file = said();
    assert!(file.contains("is a regular file, not a socket"), "{file}");
    std::fs::remove_file(place.socket()).expect("a file");
    std::fs::create_dir(place.socket()).expect("a directory");
    assert!(said().contains("is a directory"));
    let refused = patient().serve(place.socket(), Echo(<_>::default())).map(drop);
    let refused = refused.expect_err("a directory").to_string();
    assert!(refused.contains("is a directory, and a server replaces nothing"), "{refused}");
    std::fs::remove_dir(place.socket()).expect("a directory");
}

fn a_server_that_is_waited_for() {
    let place = Place::new();
    let path = place.socket();
    let (thread, client) = on_thread(move || connect(&path).ping(soon()));
    let server = patient().serve(place.socket(), Echo(<_>::default()));
    assert_eq!(client.recv().expect("it connects"), Ok(()));
    thread.join().expect("no panic");
    drop(server);
}

fn a_listener_that_never_answers() {
    let place = Place::new();
    let listener = UnixListener::bind(place.socket()).expect("the path is free");
    let deadline = Instant::now() + Duration::from_millis(30);
    let error = Client::options().connect(place.socket(), deadline);
    assert!(matches!(error, Err(ConnectError::TimedOut { .. })), "{error:?}");
    drop(listener);
    std::fs::remove_file(place.socket()).expect("left by the listener");
}

fn a_full_backlog_is_waited_for() {
    let place = Place::new();
    let listener = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket");
    let address = rustix::net::SocketAddrUnix::new(place.socket()).expect("short");
    rustix::net::bind(&listener, &address).expect("the path is free");
    rustix::net::listen(&listener, 0).expect("a socket");
    let first = std::os::unix::net::UnixStream::connect(place.socket()).expect("there is room");
    let deadline = Instant::now() + Duration::from_millis(30);
    let error = Client::options().connect(place.socket(), deadline);
    assert!(matches!(error, Err(ConnectError::TimedOut { .. })), "{error:?}");
    drop((first, listener));
    std::fs::remove_file(place.socket()).expect("left by the listener");
}

fn a_private_directory_is_made() {
    let place = Place::new();
    let path = place.folder().join("own");
    let directory = RuntimeDirectory::at(&path).expect("made");
    assert_eq!(directory.path(), path);
    let mode = std::fs::metadata(&path).expect("there").mode() & 0o777;
    assert_eq!(mode, 0o700);
    assert_eq!(RuntimeDirectory::at(&path).expect("used again"), directory);
    assert_eq!(directory.socket("a"), path.join("a"));
    std::fs::remove_dir(&path).expect("empty");
    for name in ["", "..", ".hidden", "a/b", "a b"] {
        let error = RuntimeDirectory::of(name);
        assert!(matches!(error, Err(RuntimeDirectoryError::Name { .. })), "{name}: {error:?}");
    }
}

fn directories_of_others_are_refused() {
    let place = Place::new();
    let path = place.folder().join("own");
    std::fs::create_dir(&path).expect("a folder");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("own folder");
    let error = RuntimeDirectory::at(&path).expect_err("open to others");
    assert!(error.to_string().contains("755"), "{error}");
    std::fs::remove_dir(&path).expect("empty");

    symlink(place.folder(), &path).expect("a link");
    let error = RuntimeDirectory::at(&path);
    assert!(matches!(error, Err(RuntimeDirectoryError::NotADirectory { .. })), "{error:?}");
    std::fs::remove_file(&path).expect("a link");

    std::fs::write(&path, "").expect("a file");
    let error = RuntimeDirectory::at(&path);
    assert!(matches!(error, Err(RuntimeDirectoryError::NotADirectory { .. })), "{error:?}");
    std::fs::remove_file(&path).expect("a file");

    if rustix::process::geteuid().is_root() {
        std::fs::create_dir(&path).expect("a folder");
        std::os::unix::fs::chown(&path, Some(65534), None).expect("root may");
        let error = RuntimeDirectory::at(&path);
        assert!(matches!(error, Err(RuntimeDirectoryError::Owner { owner: 65534, own: 0, .. })));
        std::fs::remove_dir(&path).expect("empty");
    }
}
