//! Peers that say what no client says.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rpc_uds::{Client as Socket, Message, Request};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use shared_tensor::service::Value;

use crate::desk::{Service, descriptors, options, soon, stat, until};
use crate::harness::{say, tests};

tests![
    requests_with_one_mutation_harm_nobody,
    memory_that_could_be_taken_away_is_refused,
    numbers_that_lie_are_refused,
    bytes_that_nobody_has_are_refused,
];

/// The kinds of requests, by their tags, each valid as it stands.
fn valid() -> Vec<(u16, &'static str, Vec<u8>)> {
    // Head: endpoint, ticket, parent, regions, confirmed; then a payload without storages.
    let call = |endpoint: &str, payload: &[u8]| {
        let mut body = vec![endpoint.len() as u8];
        body.extend(endpoint.as_bytes());
        body.extend([0, 0, 0, 0]);
        body.extend(payload);
        body
    };
    // No storages; two arguments by place: 1 and 2; none by name.
    let sum = [0, 2, 3, 2, 3, 4, 0];
    // One argument: a list of a text, a float, a dict.
    let nest = [0, 1, 8, 3, 6, 1, b'x', 5, 0, 0, 0, 0, 0, 0, 0, 0, 10, 1, 6, 1, b'k', 0, 0];
    let id = vec![7; 16];
    let task = [&id[..], &[0, 0]].concat();
    vec![
        (1, "call", call("add", &sum)),
        (1, "call nested", call("echo", &nest)),
        (1, "call cached", call("add_by_arguments", &sum)),
        (1, "call managed", call("managed_table", &[0, 0, 0])),
        (2, "submit", call("add", &sum)),
        (3, "info", vec![]),
        (4, "endpoints", vec![]),
        (5, "release", [&[1], &id[..]].concat()),
        (6, "release leases", vec![1, 200, 1, 3]),
        (7, "object", id.clone()),
        (8, "invalidate call", call("add_by_arguments", &sum)),
        (9, "invalidate endpoint", [&[7][..], b"nothing"].concat()),
        (10, "task status", task.clone()),
        (11, "task result", task.clone()),
        (12, "task wait", task.clone()),
        (13, "task cancel", task),
        (14, "task list", vec![1, 2]),
        (15, "forget", [&[1], &id[..], &[1, 5]].concat()),
    ]
}

/// The next number of a sequence that is the same in every run (Marsaglia's xorshift).
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn requests_with_one_mutation_harm_nobody() {
    let count: u64 =
        std::env::var("ST_HOSTILE").ok().and_then(|it| it.parse().ok()).unwrap_or(4000);
    let mut service = Service::start();
    let client = service.client();
    let mut socket = Socket::options().connect(service.scratch.socket(), soon()).unwrap();
    let kinds = valid();
    for (tag, name, body) in &kinds {
        let answer = socket.call(Request::new(*tag, body), soon()).unwrap();
        let knows = !matches!(*name, "task status" | "task result" | "task wait" | "task cancel");
        assert_eq!(answer.tag == 0, knows, "{name} is valid as it stands");
    }
    client.ping(soon()).unwrap();
    let before = descriptors(&mut service.peer);
    let mut seen: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for number in 0..count {
        let (tag, name, body) = &kinds[(number % kinds.len() as u64) as usize];
        let mut body = body.clone();
        let mut tag = *tag;
        match next(&mut state) % 8 {
            0 if !body.is_empty() => drop(body.pop()),
            1 => body.push(next(&mut state) as u8),
            2 => tag = next(&mut state) as u16,
            _ if body.is_empty() => body = vec![next(&mut state) as u8],
            _ => {
                let at = (next(&mut state) % body.len() as u64) as usize;
                body[at] = next(&mut state) as u8;
            }
        }
        let counts = seen.entry(name).or_default();
        match socket.call(Request::new(tag, &body), soon()) {
            Ok(Message { tag: 0, .. }) => counts.0 += 1,
            Ok(_) => counts.1 += 1,
            Err(error) => {
                // Nothing of this ends the connection.
                panic!("{name} {body:?}: {error}");
            }
        }
        if number % 1000 == 999 {
            socket = Socket::options().connect(service.scratch.socket(), soon()).unwrap();
        }
    }
    for (name, (taken, refused)) in &seen {
        say(&format!("  {name}: {taken} taken, {refused} refused"));
    }
    assert_eq!(client.call("add", [1, 2], options()).unwrap().value, Value::Int(3));
    drop(socket);
    until("the hostile session is gone", || stat(&client, "sessions") == 1);
    // A session is over before its socket is closed.
    until("its descriptors are closed", || descriptors(&mut service.peer) <= before + 2);
}

/// CALL of `echo` with one tensor, of 8 bytes at the start of the only region, as an engine that lies
/// would say it.
fn echo(
    region_bytes: u64,
    flags: u8,
    storage: [u64; 2],
    shape: &[u64],
    strides: &[i64],
) -> Vec<u8> {
    fn number(body: &mut Vec<u8>, mut number: u64) {
        while number >= 0x80 {
            body.push(number as u8 | 0x80);
            number >>= 7;
        }
        body.push(number as u8);
    }
    let mut body = vec![4];
    body.extend(b"echo");
    body.extend([0, 0, 1]);
    body.extend([9; 16]);
    number(&mut body, region_bytes);
    body.extend([0, flags, 0]);
    body.extend([1, 1]);
    for it in storage {
        number(&mut body, it);
    }
    body.extend([1, 11, 0, 2, 0]);
    number(&mut body, shape.len() as u64);
    for it in shape {
        number(&mut body, *it);
    }
    for it in strides {
        number(&mut body, (it << 1 ^ it >> 63).cast_unsigned());
    }
    number(&mut body, 0);
    body.push(0);
    body
}

fn memory(bytes: u64, seals: SealFlags) -> OwnedFd {
    let memory = memfd_create("hostile", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&memory, bytes).unwrap();
    fcntl_add_seals(&memory, seals).unwrap();
    memory
}

fn answer(service: &Service, body: &[u8], descriptors: &[OwnedFd]) -> (u16, String) {
    let socket = Socket::options().connect(service.scratch.socket(), soon()).unwrap();
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    let request = Request::new(1, body).with_descriptors(&descriptors);
    let answer = socket.call(request, soon()).unwrap();
    (answer.tag, String::from_utf8_lossy(&answer.body).into_owned())
}

fn memory_that_could_be_taken_away_is_refused() {
    let mut service = Service::start();
    let length = SealFlags::SHRINK | SealFlags::GROW;
    let honest = echo(4096, 3, [0, 8], &[8], &[1]);
    let (tag, _) = answer(&service, &honest, &[memory(4096, length)]);
    assert_eq!(tag, 0, "an honest one is taken");
    let refused = |body: &[u8], descriptors: &[OwnedFd], why: &str| {
        let (tag, text) = answer(&service, body, descriptors);
        assert!(tag == 1 && text.contains(why), "{why}: {text}");
    };
    refused(&honest, &[memory(4096, SealFlags::empty())], "not sealed");
    refused(&honest, &[memory(4096, SealFlags::GROW)], "not sealed");
    refused(&honest, &[memory(8192, length)], "said to have 4096 bytes has 8192");
    refused(&honest, &[memory(0, length)], "empty");
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    refused(&honest, &[file.into()], "ordinary file");
    let (pipe, _other) = std::io::pipe().unwrap();
    refused(&honest, &[pipe.into()], "no file");
    refused(&honest, &[], "descriptor");
    refused(&honest, &[memory(4096, length), memory(4096, length)], "after the end");
    refused(&honest, &[memory(4096, length | SealFlags::FUTURE_WRITE)], "read-only");
    let client = service.client();
    assert_eq!(client.call("add", [1, 2], options()).unwrap().value, Value::Int(3));
    drop(client);
    until("its memory is let go of", || service.peer.ask("memory").ends_with("chunks 0 maps 0"));
}

fn numbers_that_lie_are_refused() {
    let service = Service::start();
    let refused = |body: Vec<u8>, why: &str| {
        let length = SealFlags::SHRINK | SealFlags::GROW;
        let (tag, text) = answer(&service, &body, &[memory(4096, length)]);
        assert!(tag == 1 && text.contains(why), "{why}: {text}");
    };
    refused(echo(4096, 3, [4000, 97], &[8], &[1]), "leads out of its region");
    refused(echo(4096, 3, [u64::MAX, 2], &[8], &[1]), "leads out of its region");
    refused(echo(4096, 3, [0, 8], &[9], &[1]), "is refused");
    refused(echo(4096, 3, [0, 8], &[2], &[8]), "is refused");
    refused(echo(4096, 3, [0, 8], &[2], &[-1]), "is refused");
    refused(echo(4096, 3, [0, 8], &[2], &[i64::MIN]), "is refused");
    refused(echo(4096, 3, [0, 8], &[u64::MAX, u64::MAX], &[0, 0]), "is refused");
    refused(echo(4096, 3, [0, 8], &[1; 65], &[1; 65]), "dimensions");
    refused(echo(4096, 0xff, [0, 8], &[8], &[1]), "flags");
    refused(echo(4096, 2, [0, 8], &[8], &[1]), "descriptor");
}

/// CALL of `echo` with a list of byte strings, each of them the whole of the only region.
fn echo_of_bytes(region_bytes: u64, count: u8) -> Vec<u8> {
    let mut body = echo(region_bytes, 3, [0, region_bytes], &[], &[]);
    // The one argument that a tensor without dimensions was.
    body.truncate(body.len() - 8);
    body.extend([1, 8, count]);
    body.extend([14, 0].repeat(count.into()));
    body.push(0);
    body
}

fn bytes_that_nobody_has_are_refused() {
    let service = Service::start();
    let length = SealFlags::SHRINK | SealFlags::GROW;
    let filled = |bytes: usize| {
        let memory = memfd_create("hostile", MemfdFlags::ALLOW_SEALING).unwrap();
        rustix::io::write(&memory, &vec![1; bytes]).unwrap();
        fcntl_add_seals(&memory, length).unwrap();
        memory
    };
    let (tag, _) = answer(&service, &echo_of_bytes(8192, 1), &[filled(8192)]);
    assert_eq!(tag, 0, "an honest one is taken");
    let refused = |body: &[u8], memory: OwnedFd| {
        let (tag, text) = answer(&service, body, &[memory]);
        assert!(tag == 1 && text.contains("more bytes than there are"), "{text}");
    };
    refused(&echo_of_bytes(8192, 2), filled(8192));
    refused(&echo_of_bytes(8192, 1), memory(8192, length));
    refused(&echo_of_bytes(1 << 45, 1), memory(1 << 45, length));
    let client = service.client();
    assert_eq!(client.call("add", [1, 2], options()).unwrap().value, Value::Int(3));
}
