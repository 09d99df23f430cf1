//! A stream of frames, cut into runs, with descriptors beside some of its bytes.
//!
//! | bytes of the input | |
//! |---|---|
//! | 1 | which limits |
//! | 2 | the longest run |
//! | 1 | how many descriptors come |
//! | 2 each for 4 | beside which bytes, in the stream's length |
//! | the rest | the stream |

use std::cell::Cell;
use std::rc::Rc;

use rpc_uds::{Control, FrameLimits, Header, Kind, Offer};

use crate::feed::feed;
use crate::heap;

const PLAN_BYTES: usize = 12;
const DESCRIPTORS: usize = 4;

const LIMITS: [FrameLimits; 4] = [
    FrameLimits { body_bytes_max: 1 << 20, descriptors_max: 64 },
    FrameLimits { body_bytes_max: 64, descriptors_max: 2 },
    FrameLimits { body_bytes_max: u32::MAX, descriptors_max: 253 },
    FrameLimits { body_bytes_max: 4096, descriptors_max: 0 },
];

/// Decodes the stream, in the runs that the input says and in the longest possible ones.
pub fn run(input: &[u8]) {
    let Some((plan, stream)) = input.split_first_chunk::<PLAN_BYTES>() else { return };
    heap::bounded(input.len(), || decode(plan, stream));
}

fn decode(plan: &[u8; PLAN_BYTES], stream: &[u8]) {
    let number = |at: usize| usize::from(u16::from_le_bytes([plan[at], plan[at + 1]]));
    let limits = LIMITS[usize::from(plan[0]) % LIMITS.len()];
    let run = 1 + number(1);
    let count = usize::from(plan[3]) % (DESCRIPTORS + 1);
    let mut places: Vec<usize> = (0..count).map(|index| number(4 + 2 * index)).collect();
    places.retain(|place| *place < stream.len());
    places.sort_unstable();

    let open = Rc::new(Cell::new(0));
    let one = feed(stream, &places, limits, run, &open);
    for frame in &one.frames {
        let header = frame.header;
        assert_eq!(frame.body.len(), header.body_bytes as usize);
        assert!(header.body_bytes <= limits.body_bytes_max);
        assert_eq!(frame.descriptors.len(), usize::from(header.descriptors));
        assert!(header.descriptors <= limits.descriptors_max);
        assert_eq!(Header::decode(&header.encode(), limits), Ok(header));
        if header.kind == Kind::Control {
            crate::handshake::said(&frame.body);
        }
    }
    let other = feed(stream, &places, limits, usize::MAX, &open);
    one.assert_same(&other, !places.is_empty());
    drop((one, other));
    assert_eq!(open.get(), 0, "descriptors stay open");
}

/// A frame as it is sent.
pub(crate) fn frame(kind: Kind, descriptors: u8, body: &[u8]) -> Vec<u8> {
    let body_bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let header = Header { kind, tag: 7, descriptors, body_bytes, id: 1 };
    [&header.encode()[..], body].concat()
}

/// Streams of frames of every kind, whole and in small runs, with and without descriptors.
pub fn seeds() -> Vec<Vec<u8>> {
    let hello = frame(Kind::Control, 0, &Control::Hello(Offer::default()).encode());
    let request = frame(Kind::Request, 2, b"a request");
    let reply = frame(Kind::Reply, 0, &[7; 300]);
    let push = frame(Kind::Push, 1, b"");
    let long = frame(Kind::Reply, 0, &[7; 9000]);
    let plan = |limits: u8, run: u16, places: &[usize]| {
        let mut plan = [0; PLAN_BYTES];
        plan[0] = limits;
        plan[1..3].copy_from_slice(&run.to_le_bytes());
        plan[3] = places.len() as u8;
        for (index, place) in places.iter().enumerate() {
            plan[4 + 2 * index..6 + 2 * index].copy_from_slice(&(*place as u16).to_le_bytes());
        }
        plan.to_vec()
    };
    let after = hello.len();
    let both = [hello.clone(), request.clone()].concat();
    let all = [hello.clone(), request.clone(), reply.clone(), push.clone()].concat();
    let last = all.len() - push.len();
    vec![
        [plan(0, u16::MAX, &[]), hello].concat(),
        [plan(0, u16::MAX, &[0, 0]), request].concat(),
        [plan(0, 0, &[after, after]), both].concat(),
        [plan(1, 10, &[]), reply.clone()].concat(),
        [plan(2, 30, &[after, after, last]), all.clone()].concat(),
        [plan(0, u16::MAX, &[after, after, last]), all].concat(),
        [plan(2, 5000, &[]), reply, long].concat(),
    ]
}
