//! What is said before the first request, and every other word of the protocol itself.
//!
//! The first byte of the input says what this side offers, and whether the rest is the body of one
//! frame or the beginning of a stream.

use rpc_uds::{Agreement, Control, Decoder, FrameLimits, Kind, Offer, Refusal, Versions};

use crate::frame::frame;
use crate::heap;

const STREAM: u8 = 0x80;

/// What a side takes before anything is agreed.
const LIMITS: FrameLimits = FrameLimits { body_bytes_max: 4096, descriptors_max: 0 };

/// Shakes hands with whoever sent the input, as the server and as the client.
pub fn run(input: &[u8]) {
    let Some((&plan, bytes)) = input.split_first() else { return };
    heap::bounded(input.len(), || {
        if plan & STREAM == 0 {
            return greeted(plan, bytes);
        }
        let mut decoder: Decoder<()> = Decoder::new(LIMITS);
        let room = decoder.room();
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        decoder.advance(count, []);
        while let Ok(Some(frame)) = decoder.next() {
            if frame.header.kind == Kind::Control {
                greeted(plan, &frame.body);
            }
        }
    });
}

fn offer(plan: u8) -> Offer {
    let versions = [(1, 1), (1, 3), (2, 9), (3, 2)][usize::from(plan & 3)];
    let versions = Versions { min: versions.0, max: versions.1 };
    let features = [0, 1, 0b1010, u64::MAX][usize::from(plan >> 2 & 3)];
    Offer { versions, features, body_bytes_max: 1 << (plan >> 4 & 7), descriptors_max: plan }
}

fn greeted(plan: u8, body: &[u8]) {
    let own = offer(plan);
    match said(body) {
        Some(Control::Hello(client)) => match own.answer(&client) {
            Ok(agreement) => {
                assert_eq!((own.check(&agreement), client.check(&agreement)), (Ok(()), Ok(())));
                said(&Control::Welcome(agreement).encode());
            }
            Err(refusal) => {
                assert!(matches!(refusal, Refusal::Version { .. }));
                assert!(!refusal.to_string().is_empty());
                said(&Control::Refusal(refusal).encode());
            }
        },
        Some(Control::Welcome(agreement)) if own.check(&agreement).is_ok() => {
            assert!((own.versions.min..=own.versions.max).contains(&agreement.version));
            assert_eq!(agreement.features & !own.features, 0);
            assert!(agreement.body_bytes_max <= own.body_bytes_max);
            assert!(agreement.descriptors_max <= own.descriptors_max);
        }
        Some(Control::Refusal(refusal)) => assert!(!refusal.to_string().is_empty()),
        _ => {}
    }
}

/// Whatever can be read as the protocol's own words is those words.
pub(crate) fn said(body: &[u8]) -> Option<Control> {
    let control = Control::decode(body).ok()?;
    let once = control.encode();
    assert!(once.len() <= body.len(), "a number has a shorter form");
    assert_eq!(Control::decode(&once).as_ref(), Ok(&control));
    Some(control)
}

/// One of each word, alone and in a frame.
pub fn seeds() -> Vec<Vec<u8>> {
    let versions = Versions { min: 1, max: 300 };
    let agreement = Agreement { version: 1, features: 2, body_bytes_max: 9, descriptors_max: 1 };
    let words = [
        Control::Hello(Offer::default()),
        Control::Hello(offer(0b0111_1101)),
        Control::Welcome(agreement),
        Control::Ping,
        Control::Pong,
        Control::Cancel,
        Control::Goodbye,
        Control::Refusal(Refusal::Version { client: versions, server: versions }),
        Control::Refusal(Refusal::User { client: 1000, server: 0 }),
        Control::Refusal(Refusal::Connections { limit: 512 }),
        Control::Refusal(Refusal::Threads),
        Control::Refusal(Refusal::Queue { limit: 1 << 20 }),
        Control::Refusal(Refusal::Unanswered { limit: 3 }),
        Control::Refusal(Refusal::Stopping),
        Control::Refusal(Refusal::Cancelled),
        Control::Refusal(Refusal::Dropped),
        Control::Refusal(Refusal::Panicked),
        Control::Refusal(Refusal::Reply { what: "words".to_owned() }),
        Control::Refusal(Refusal::Protocol { what: "wörds".to_owned() }),
        Control::Refusal(Refusal::rejected("words")),
        Control::Refusal(Refusal::Descriptors { limit: 64 }),
    ];
    let bodies: Vec<Vec<u8>> = words.iter().map(Control::encode).collect();
    let alone = bodies.iter().map(|body| [&[0x7d][..], body].concat());
    let framed = bodies.iter().map(|body| [vec![STREAM], frame(Kind::Control, 0, body)].concat());
    alone.chain(framed).collect()
}
