//! Memory of a device for one process, used again and again.

use std::time::Instant;

use cuda_ipc::{Context, Copies, Room, Rooms, flush, probe};

use crate::calls::Calls;
use crate::harness::tests;
use crate::mappings::soon;
use crate::sys::Graph;
use crate::transfers::Gate;

tests![
    a_room_is_used_again_when_its_work_is_done,
    a_few_are_kept_and_all_are_freed,
    a_graph_keeps_its_room,
    a_capture_is_not_spoilt,
];

const BYTES: u64 = 10_000;

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

fn take(rooms: &Rooms) -> Room {
    rooms.take().expect("memory")
}

fn allocated_and_freed(before: &Calls) -> (u64, u64) {
    let made = Calls::now().since(before);
    (made.of("cuMemAlloc_v2"), made.of("cuMemFree_v2"))
}

fn a_room_is_used_again_when_its_work_is_done() {
    let (context, before) = (context(), Calls::now());
    let (rooms, gate) = (Rooms::new(&context, BYTES), Gate::closed(&context));
    let first = take(&rooms);
    assert_eq!(first.bytes(), BYTES);
    first.used_on(gate.stream()).expect("noted");
    let address = first.address();
    context.fill(gate.stream(), address, 7, BYTES).expect("queued");
    drop(first);
    assert!(!flush(Instant::now()), "its stream is not done");
    let second = take(&rooms);
    assert_ne!(second.address(), address);
    gate.open();
    assert!(flush(soon()));
    let third = take(&rooms);
    assert_eq!(third.address(), address);
    let copies = Copies::new(&context).expect("a stream");
    copies.fill(third.address(), 3, BYTES).expect("queued");
    let mut found = vec![0; BYTES as usize];
    copies.download(&mut found, third.address()).expect("copied");
    assert_eq!(found, [3; BYTES as usize]);
    assert_eq!(allocated_and_freed(&before), (2, 0));
    drop((rooms, second, third));
    assert!(flush(soon()));
    assert_eq!(allocated_and_freed(&before), (2, 2));
}

fn a_few_are_kept_and_all_are_freed() {
    let (context, before) = (context(), Calls::now());
    let rooms = Rooms::new(&context, BYTES);
    let many: Vec<_> = (0..10).map(|_| take(&rooms)).collect();
    drop(many);
    assert!(flush(soon()));
    assert_eq!(allocated_and_freed(&before), (10, 6));
    let kept = take(&rooms);
    drop(rooms);
    assert!(flush(soon()));
    assert_eq!(allocated_and_freed(&before), (10, 9), "one is in use");
    drop(kept);
    assert!(flush(soon()));
    assert_eq!(allocated_and_freed(&before), (10, 10));
}

fn a_graph_keeps_its_room() {
    let (context, before) = (context(), Calls::now());
    let (rooms, stream) = (Rooms::new(&context, BYTES), context.stream().expect("a stream"));
    let room = take(&rooms);
    Graph::begin(&context, &stream);
    room.used_on(&stream).expect("noted");
    context.fill(&stream, room.address(), 5, BYTES).expect("captured");
    let graph = Graph::end(&context, &stream).expect("not spoilt");
    drop((room, rooms));
    assert!(flush(soon()));
    assert_eq!(allocated_and_freed(&before), (1, 0), "a replay needs it");
    drop(graph);
    // The driver tells of the graph's end in its own time.
    let deadline = soon();
    while allocated_and_freed(&before) != (1, 1) && Instant::now() < deadline {
        flush(Instant::now());
        std::thread::yield_now();
    }
    assert_eq!(allocated_and_freed(&before), (1, 1));
}

/// By what is allocated and freed meanwhile, for others.
fn a_capture_is_not_spoilt() {
    let (context, before) = (context(), Calls::now());
    let (rooms, stream) = (Rooms::new(&context, BYTES), context.stream().expect("a stream"));
    let kept = take(&rooms);
    Graph::begin(&context, &stream);
    context.fill(&stream, kept.address(), 5, BYTES).expect("captured");
    let others = Rooms::new(&context, BYTES);
    drop((take(&others), others));
    assert!(flush(soon()));
    assert_eq!(allocated_and_freed(&before), (2, 1));
    drop(Graph::end(&context, &stream).expect("not spoilt"));
}
