//! What the others do. They are spoken to over their standard input, and end with it.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use cuda_ipc::{Access, Chunk, Context, Mapping, probe};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::counts::Tally;
use crate::object::{Object, numbers, send_numbers};
use crate::pattern::Pattern;
use crate::sys;

pub(crate) fn play(role: &str) {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
    let mut socket = UnixStream::from(socket);
    match role {
        "maker" => make(&mut socket),
        "reader" => read(&mut socket),
        "holder" => hold(&mut socket),
        "memory" => send_numbers(&socket, [sys::free_bytes(&context()), 0]),
        other => panic!("there is no role {other}"),
    }
}

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

fn make(socket: &mut UnixStream) {
    let [seed, bytes] = numbers(socket).expect("told");
    let [chunk, _] = numbers(socket).expect("told");
    let context = context();
    let create = |_| Chunk::create(context.device(), chunk).expect("memory");
    let object = Object { seed, chunks: (0..bytes / chunk).map(create).collect() };
    let all: Vec<&Chunk> = object.chunks.iter().collect();
    let mapping = Mapping::open(&context, &all, Access::ReadWrite).expect("mapped");
    Pattern::new(&context).fill(mapping.address(), mapping.bytes(), seed);
    object.send(socket);
    // Killed meanwhile, or the other side is gone.
    let _ = socket.read(&mut [0]);
}

/// Holds what it is sent, without a driver, and sends it back when it is told to.
fn hold(socket: &mut UnixStream) {
    let object = Object::receive(socket);
    socket.write_all(b"h").expect("somebody listens");
    socket.read_exact(&mut [0]).expect("told");
    assert!(!cuda_ipc::is_loaded());
    object.send(socket);
}

/// Reads all objects in turn until it is told something.
fn read(socket: &mut UnixStream) {
    let context = context();
    let pattern = Pattern::new(&context);
    let mut opened: Vec<(u64, Mapping)> = Vec::new();
    let mut tally = Tally::default();
    socket.write_all(b"c").expect("somebody listens");
    let mut next = 0;
    loop {
        if !opened.is_empty() && !is_told(socket) {
            check(&pattern, &opened[next % opened.len()], &mut tally);
            next += 1;
            continue;
        }
        let mut word = [0];
        if socket.read(&mut word).expect("a socket") == 0 {
            return;
        }
        match word[0] {
            // One more object: opened and read, for a start.
            b'o' => {
                let object = Object::receive(socket);
                let all: Vec<&Chunk> = object.chunks.iter().collect();
                let mapping = Mapping::open(&context, &all, Access::Read).expect("mapped");
                opened.push((object.seed, mapping));
                check(&pattern, &opened[opened.len() - 1], &mut tally);
                socket.write_all(b"o").expect("somebody listens");
            }
            // All of them once more, and what was found.
            b'r' => {
                for it in &opened {
                    check(&pattern, it, &mut tally);
                }
                socket.write_all(&tally.encode()).expect("somebody listens");
                tally = Tally::default();
            }
            // The last part of each as the host sees it.
            b'h' => {
                for (seed, mapping) in &opened {
                    let from = mapping.offsets().last().copied().expect("a chunk");
                    let length = mapping.bytes() - from;
                    tally.wrong += pattern.wrong_by_copies(mapping.address(), from, length, *seed);
                    tally.bytes += length;
                }
                socket.write_all(b"h").expect("somebody listens");
            }
            // Gives up all of them.
            b'f' => {
                opened.clear();
                let soon = Instant::now() + Duration::from_secs(600);
                assert!(cuda_ipc::flush(soon), "what was mapped can be unmapped");
                socket.write_all(b"f").expect("somebody listens");
            }
            other => panic!("there is no word {other}"),
        }
    }
}

fn check(pattern: &Pattern, (seed, mapping): &(u64, Mapping), tally: &mut Tally) {
    tally.wrong += pattern.wrong(mapping.address(), mapping.bytes(), *seed);
    tally.bytes += mapping.bytes();
    tally.passes += 1;
}

fn is_told(socket: &UnixStream) -> bool {
    let mut wanted = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut wanted, Some(&Timespec::default())).expect("a socket") > 0
}
