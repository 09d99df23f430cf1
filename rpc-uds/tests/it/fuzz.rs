//! The decoders under bytes that were once right: a fixed number of rounds here, or as many as fit into
//! `RPC_UDS_FUZZ_SECONDS`, from a seed (`RPC_UDS_FUZZ_SEED`) that is printed.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rpc_uds::{Agreement, Control, FrameLimits, Kind, Offer, Refusal, Versions};

use crate::feed::feed;
use crate::harness::{say, tests};
use crate::random::Random;
use crate::raw::frame;

tests![frames_and_words_that_were_once_right];

const ROUNDS: u64 = 20_000;

fn words(random: &mut Random) -> Control {
    let number = |random: &mut Random| match random.below(3) {
        0 => random.next(),
        1 => random.next() >> random.below(64),
        _ => random.below(4) as u64,
    };
    let versions = Versions { min: number(random) as u16, max: number(random) as u16 };
    let (features, body_bytes_max) = (number(random), number(random) as u32);
    let descriptors_max = number(random) as u8;
    let text = "wörd ".repeat(random.below(40));
    match random.below(12) {
        0 => Control::Hello(Offer { versions, features, body_bytes_max, descriptors_max }),
        1 => {
            let version = versions.max;
            Control::Welcome(Agreement { version, features, body_bytes_max, descriptors_max })
        }
        2 => Control::Ping,
        3 => Control::Pong,
        4 => Control::Cancel,
        5 => Control::Goodbye,
        6 => Control::Refusal(Refusal::Version { client: versions, server: versions }),
        7 => Control::Refusal(Refusal::User { client: body_bytes_max, server: 0 }),
        8 => Control::Refusal(Refusal::Queue { limit: body_bytes_max }),
        9 => Control::Refusal(Refusal::Reply { what: text }),
        10 => Control::Refusal(Refusal::Protocol { what: text }),
        _ => Control::Refusal(Refusal::rejected(text)),
    }
}

/// A stream of a few frames, and where descriptors come with it.
fn stream(random: &mut Random) -> (Vec<u8>, Vec<usize>) {
    let (mut bytes, mut descriptors) = (Vec::new(), Vec::new());
    for _ in 0..=random.below(4) {
        let kind = [Kind::Control, Kind::Request, Kind::Reply, Kind::Push][random.below(4)];
        let body = if kind == Kind::Control {
            words(random).encode()
        } else {
            let length = [0, 1, 100, 9000, 70_000][random.below(5)];
            vec![random.next() as u8; random.below(length + 1)]
        };
        let count = if random.below(3) == 0 { random.below(5) } else { 0 };
        descriptors.extend(vec![bytes.len(); count]);
        bytes.extend(frame(kind, random.next() as u16, random.next(), count as u8, &body));
    }
    (bytes, descriptors)
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let (at, other) = (random.below(bytes.len()), random.below(bytes.len()));
        let (from, to) = (at.min(other), at.max(other));
        match random.below(8) {
            0..4 => random.mutate(bytes, 0),
            4 => bytes.truncate(at),
            5 => bytes.insert(at, random.next() as u8),
            6 => drop(bytes.drain(from..to.min(from + 64))),
            _ => {
                let copy = bytes[from..to.min(from + 64)].to_vec();
                bytes.splice(other..other, copy);
            }
        }
    }
}

fn round(random: &mut Random) {
    let (mut bytes, mut descriptors) = stream(random);
    mutate(random, &mut bytes);
    if random.below(4) == 0 {
        for _ in 0..random.below(4) {
            descriptors.push(random.below(bytes.len() + 1));
        }
        descriptors.sort_unstable();
    }
    descriptors.retain(|at| *at < bytes.len());
    let limits = FrameLimits {
        body_bytes_max: [0, 64, 4096, 1 << 20, u32::MAX][random.below(5)],
        descriptors_max: [0, 2, 64, 253][random.below(4)],
    };
    let open = Rc::new(Cell::new(0));
    let run = [1, 30, 9000, 200_000][random.below(4)];
    let run = 1 + random.below(run);
    let one = feed(&bytes, &descriptors, limits, run, &open);
    for frame in &one.frames {
        assert_eq!(frame.body.len(), frame.header.body_bytes as usize);
        assert!(frame.body.len() <= limits.body_bytes_max as usize);
        assert_eq!(frame.descriptors.len(), usize::from(frame.header.descriptors));
        assert!(frame.header.descriptors <= limits.descriptors_max);
        assert!(frame.body.capacity() <= 2 * frame.body.len() + (64 << 10));
        word(&frame.body);
    }
    let other = feed(&bytes, &descriptors, limits, usize::MAX, &open);
    one.assert_same(&other, !descriptors.is_empty());
    drop((one, other));
    assert_eq!(open.get(), 0, "descriptors are dropped");
}

/// Whatever can be read as the crate's own words is those words.
fn word(body: &[u8]) {
    let Ok(control) = Control::decode(body) else { return };
    assert_eq!(Control::decode(&control.encode()), Ok(control.clone()));
    let own = Offer::default();
    match control {
        Control::Hello(offer) => {
            if let Ok(agreement) = own.answer(&offer) {
                assert_eq!((own.check(&agreement), offer.check(&agreement)), (Ok(()), Ok(())));
            }
        }
        Control::Welcome(agreement) if own.check(&agreement).is_ok() => {
            assert!(agreement.body_bytes_max <= own.body_bytes_max);
        }
        Control::Refusal(refusal) => assert!(!refusal.to_string().is_empty()),
        _ => {}
    }
}

fn frames_and_words_that_were_once_right() {
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let seed = number("RPC_UDS_FUZZ_SEED").unwrap_or(0xf022).max(1);
    let time = number("RPC_UDS_FUZZ_SECONDS").map(Duration::from_secs);
    let begun = Instant::now();
    let mut rounds = 0;
    while time.map_or(rounds < ROUNDS, |time| begun.elapsed() < time) {
        rounds += 1;
        // Each round has a seed of its own, so that one can be had again alone.
        let own = seed.wrapping_add(rounds).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let outcome = std::panic::catch_unwind(|| {
            let mut random = Random(own.max(1));
            round(&mut random);
            let mut body = words(&mut random).encode();
            mutate(&mut random, &mut body);
            word(&body);
        });
        assert!(outcome.is_ok(), "round {rounds} of seed {seed}");
    }
    say(&format!("  {rounds} rounds of seed {seed}"));
}
