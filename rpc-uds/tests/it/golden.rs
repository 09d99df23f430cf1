//! What is on the wire, byte by byte: a message that changes its bytes needs another version.

use std::fmt::Write;
use std::path::Path;

use rpc_uds::{Agreement, Control, Header, Kind, Offer, Refusal, Versions};

use crate::harness::tests;

tests![control_messages_are_those_of_the_files, headers_are_those_of_the_file];

fn messages() -> Vec<(&'static str, Control)> {
    let versions = Versions { min: 1, max: 300 };
    let offer =
        Offer { versions, features: 1 << 40 | 3, body_bytes_max: 1 << 20, descriptors_max: 64 };
    let agreement =
        Agreement { version: 1, features: 3, body_bytes_max: 4096, descriptors_max: 253 };
    let refusals = [
        ("version", Refusal::Version { client: versions, server: Versions { min: 2, max: 2 } }),
        ("user", Refusal::User { client: 1000, server: 65534 }),
        ("connections", Refusal::Connections { limit: 512 }),
        ("threads", Refusal::Threads),
        ("queue", Refusal::Queue { limit: 1024 }),
        ("unanswered", Refusal::Unanswered { limit: 128 }),
        ("stopping", Refusal::Stopping),
        ("cancelled", Refusal::Cancelled),
        ("dropped", Refusal::Dropped),
        ("panicked", Refusal::Panicked),
        ("reply", Refusal::Reply { what: "long".to_owned() }),
        ("protocol", Refusal::Protocol { what: "é".to_owned() }),
        ("rejected", Refusal::rejected("no")),
        ("descriptors", Refusal::Descriptors { limit: 512 }),
    ];
    let mut messages = vec![
        ("hello", Control::Hello(offer)),
        ("welcome", Control::Welcome(agreement)),
        ("ping", Control::Ping),
        ("pong", Control::Pong),
        ("cancel", Control::Cancel),
        ("goodbye", Control::Goodbye),
    ];
    messages.extend(refusals.map(|(name, refusal)| (name, Control::Refusal(refusal))));
    messages
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        write!(text, "{byte:02x}").expect("there is memory");
    }
    text
}

fn control_messages_are_those_of_the_files() {
    let mut said = String::new();
    for (name, control) in messages() {
        writeln!(said, "{name} {}", hex(&control.encode())).expect("there is memory");
        assert_eq!(Control::decode(&control.encode()), Ok(control));
    }
    assert_eq!(said, fixture("control-v1.txt"));
}

fn headers_are_those_of_the_file() {
    let header = Header {
        kind: Kind::Request,
        tag: 0x1234,
        descriptors: 2,
        body_bytes: 0x0001_0203,
        id: 0x0405_0607_0809_0a0b,
    };
    assert_eq!(format!("{}\n", hex(&header.encode())), fixture("header-v1.txt"));
}
