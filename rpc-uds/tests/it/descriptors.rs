//! Descriptors beside requests, replies and pushes.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use rpc_uds::{FrameLimits, Request};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd};

use crate::desk::{Desk, ECHO, FAST_ECHO, PUSH, connect, patient, soon};
use crate::harness::{open_descriptors, tests};

tests![
    they_pass_both_ways,
    as_many_as_agreed,
    they_come_with_their_frame,
    pushes_bring_them,
    they_are_counted_exactly,
    children_inherit_none,
];

fn memory(text: &str) -> OwnedFd {
    let memory = memfd_create("rpc-uds-it", MemfdFlags::CLOEXEC).expect("a memfd");
    let mut file = File::from(memory);
    file.write_all(text.as_bytes()).expect("room");
    file.into()
}

fn text(descriptor: OwnedFd) -> String {
    let mut file = File::from(descriptor);
    file.rewind().expect("a file");
    let mut text = String::new();
    file.read_to_string(&mut text).expect("text");
    text
}

fn they_pass_both_ways() {
    let desk = Desk::new();
    let client = desk.client();
    let (one, two) = (memory("one"), memory("two"));
    for tag in [ECHO, FAST_ECHO] {
        let given = [one.as_fd(), two.as_fd()];
        let request = Request::new(tag, b"files").with_descriptors(&given);
        let reply = client.call(request, soon()).expect("an answer");
        for descriptor in &reply.descriptors {
            let flags = fcntl_getfd(descriptor).expect("open");
            assert!(flags.contains(FdFlags::CLOEXEC));
        }
        let texts: Vec<_> = reply.descriptors.into_iter().map(text).collect();
        assert_eq!(texts, ["one", "two"]);
    }
}

fn as_many_as_agreed() {
    let limits = FrameLimits { descriptors_max: 253, ..FrameLimits::default() };
    let desk = Desk::with(patient().limits(limits));
    let options = rpc_uds::Client::options().limits(limits);
    let client = options.connect(desk.place.socket(), soon()).expect("the server is there");
    let one = memory("one");
    for count in [0, 1, 64, 253] {
        let given = vec![one.as_fd(); count];
        let reply = client.call(Request::new(ECHO, b"").with_descriptors(&given), soon());
        assert_eq!(reply.expect("an answer").descriptors.len(), count);
    }
    let client = desk.client();
    assert_eq!(client.agreement().descriptors_max, 64);
}

fn they_come_with_their_frame() {
    let desk = Desk::new();
    let client = desk.client();
    let calls: Vec<_> = (0..100_u8)
        .map(|number| {
            let files: Vec<_> =
                (0..number % 4).map(|file| memory(&format!("{number} {file}"))).collect();
            let given: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            let body = vec![number; usize::from(number) * 50];
            let request = Request::new(ECHO, &body).with_descriptors(&given);
            client.start(request, soon()).expect("sent")
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        let reply = call.wait().expect("an answer");
        assert_eq!(reply.body, vec![number as u8; number * 50]);
        let texts: Vec<_> = reply.descriptors.into_iter().map(text).collect();
        let expected: Vec<_> = (0..number % 4).map(|file| format!("{number} {file}")).collect();
        assert_eq!(texts, expected);
    }
}

fn pushes_bring_them() {
    let desk = Desk::new();
    let client = desk.client();
    let one = memory("pushed");
    let given = [one.as_fd()];
    client.call(Request::new(PUSH, b"\x05").with_descriptors(&given), soon()).expect("an answer");
    for _ in 0..5 {
        let push = client.next_push(soon()).expect("a push");
        let texts: Vec<_> = push.descriptors.into_iter().map(text).collect();
        assert_eq!(texts, ["pushed"]);
    }
}

fn they_are_counted_exactly() {
    let desk = Desk::new();
    let client = desk.client();
    let one = memory("one");
    client.ping(soon()).expect("alive");
    let before = open_descriptors();
    for round in 0..3000_usize {
        let given = vec![one.as_fd(); round % 7];
        let request = Request::new([ECHO, FAST_ECHO][round % 2], b"").with_descriptors(&given);
        match round % 5 {
            // Given up, with its reply on the way or not begun.
            0 => drop(client.start(request, soon()).expect("sent")),
            _ => assert_eq!(
                client.call(request, soon()).expect("an answer").descriptors.len(),
                round % 7
            ),
        }
    }
    client.call(Request::new(ECHO, b""), soon()).expect("an answer");
    desk.seen.until(|_| desk.stats().in_progress == 0);
    // A late reply may still be in the socket.
    while client.try_receive().expect("alive").replies > 0 {}
    desk.seen.until(|_| open_descriptors() == before);
}

fn children_inherit_none() {
    let desk = Desk::new();
    let client = connect(&desk.place.socket());
    let one = memory("one");
    let given = [one.as_fd()];
    let reply = client.call(Request::new(ECHO, b"").with_descriptors(&given), soon());
    let output = std::process::Command::new("ls").args(["-l", "/proc/self/fd"]).output();
    let output = output.expect("ls is everywhere");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    for foreign in ["socket:", "memfd:", "eventfd", "eventpoll", "rpc-uds"] {
        assert!(!listed.contains(foreign), "{foreign} in {listed}");
    }
    assert_eq!(reply.expect("an answer").descriptors.len(), 1);
}
