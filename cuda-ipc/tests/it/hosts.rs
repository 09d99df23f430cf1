//! Memory of the host that others mapped, registered.

use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use cuda_ipc::{
    Access, Context, DriverError, HostRange, QueueError, RegisterError, Rooms, flush, probe, usage,
};

use crate::calls::Calls;
use crate::harness::tests;
use crate::mappings::soon;
use crate::sys::{Allocated, Foreign, Graph, Pages, in_forked_child};
use crate::transfers::Gate;

tests![
    threads_share_a_registration,
    parts_share_a_registration,
    what_overlaps_is_refused,
    what_cannot_be_written_is_refused,
    nothing_is_unregistered_under_a_copy,
    coming_back_meanwhile_keeps_it,
    nothing_is_unregistered_beside_streams_that_wait,
    a_lent_stream_may_be_destroyed_first,
    a_graph_keeps_what_it_uses,
    a_child_is_told,
];

const BYTES: usize = 256 << 10;

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

fn register(pages: &Pages, access: Access) -> Result<HostRange, RegisterError> {
    HostRange::register(&context(), pages.clone(), access)
}

fn registered(pages: &Pages) -> HostRange {
    register(pages, Access::ReadWrite).expect("registered")
}

fn calls_of(name: &str, since: &Calls) -> u64 {
    Calls::now().since(since).of(name)
}

fn threads_share_a_registration() {
    const THREADS: usize = 16;
    let (pages, before, together) = (Pages::new(BYTES), Calls::now(), Barrier::new(THREADS));
    for _ in 0..20 {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    together.wait();
                    let range = registered(&pages);
                    together.wait();
                    assert_eq!((usage().host_ranges, usage().host_bytes), (1, BYTES as u64));
                    // Nobody lets go before everybody has looked.
                    together.wait();
                    drop(range);
                });
            }
        });
    }
    assert!(flush(soon()));
    assert_eq!((usage().host_ranges, pages.holders()), (0, 1));
    let made = calls_of("cuMemHostRegister_v2", &before);
    assert_eq!(made, calls_of("cuMemHostUnregister", &before));
    assert!((1..=20).contains(&made), "{made}");
}

fn parts_share_a_registration() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let whole = registered(&pages);
    // Not at a page, and of no whole number of them.
    let part = registered(&pages.part(5000, 600));
    assert_eq!((usage().host_ranges, part.bytes()), (1, 600));
    let address = |range: &HostRange| range.address(&context).expect("an address");
    assert_eq!(address(&part), address(&whole) + 5000);
    drop(whole);
    assert!(!flush(Instant::now()) || usage().host_ranges == 1, "the part is in use");
    // A part that is alone takes the pages that it lies in, and what lies in these shares them.
    drop(part);
    assert!(flush(soon()));
    let part = registered(&pages.part(5000, 600));
    assert_eq!(usage().host_bytes, 4096);
    let beside = registered(&pages.part(4096, 8));
    assert_eq!(usage().host_ranges, 1);
    drop((part, beside));
}

fn what_overlaps_is_refused() {
    let pages = Pages::new(BYTES);
    let middle = registered(&pages.part(8192, 8192));
    for (offset, bytes) in [(0, BYTES), (4096, 8192), (12288, 8192)] {
        let error = register(&pages.part(offset, bytes), Access::ReadWrite).expect_err("overlaps");
        assert!(matches!(error, RegisterError::Overlap { .. }), "{error}");
        assert!(error.to_string().contains("let go of that range first"), "{error}");
    }
    // Neighbours do not overlap.
    let sides = [(0, 8192), (16384, 8192)].map(|(at, bytes)| registered(&pages.part(at, bytes)));
    assert_eq!(usage().host_ranges, 3);
    drop((middle, sides));
    assert!(flush(soon()));
    drop(registered(&pages));
}

fn what_cannot_be_written_is_refused() {
    let context = context();
    let pages = Pages::for_reading(BYTES);
    assert_eq!(register(&pages, Access::ReadWrite).expect_err("no"), RegisterError::ReadOnly);
    let empty = register(&pages.part(0, 0), Access::Read).expect_err("no");
    assert_eq!(empty, RegisterError::Empty);
    if context.device().capabilities().read_only_registration {
        let range = register(&pages, Access::Read).expect("registered");
        assert_eq!(range.access(), Access::Read);
    }
    // What is registered for reading is not written to by others who have the same pages.
    let pages = Pages::new(BYTES);
    let range = register(&pages, Access::Read).expect("registered");
    let error = register(&pages, Access::ReadWrite).expect_err("for reading");
    assert!(matches!(error, RegisterError::ForReading { .. }), "{error}");
    let stream = context.stream().expect("a stream");
    let error = context.copy_to_host(&stream, (&range, 0), 0, 8).expect_err("for reading");
    assert_eq!(error, QueueError::ReadOnly);
}

fn nothing_is_unregistered_under_a_copy() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let (target, gate) = (Allocated::new(&context, BYTES), Gate::closed(&context));
    pages.write(&vec![7; BYTES]);
    let range = registered(&pages);
    let queued = context.copy_from_host(gate.stream(), target.address, (&range, 0), BYTES as u64);
    queued.expect("queued");
    drop(range);
    assert!(!flush(Instant::now()), "the copy is not done");
    assert_eq!((usage().host_ranges, pages.holders()), (2, 2), "this one, and the gate's words");
    gate.open();
    context.synchronize(gate.stream()).expect("done");
    let mut found = vec![0; BYTES];
    context.download(gate.stream(), &mut found, target.address).expect("copied");
    assert!(found == vec![7; BYTES], "it was there until it was copied");
    drop(gate);
    assert!(flush(soon()));
    assert_eq!((usage().host_ranges, pages.holders()), (0, 1));
}

/// The driver would wait for them, and let nobody make what may end that.
fn nothing_is_unregistered_beside_streams_that_wait() {
    let (context, before) = (context(), Calls::now());
    let gate = Gate::closed(&context);
    let (other, rooms) = (Pages::new(BYTES), Rooms::new(&context, BYTES as u64));
    // Nothing is queued with them.
    drop((registered(&other), rooms.take().expect("memory"), rooms));
    assert!(!flush(Instant::now()), "it is given back later");
    let (made, is_made) = mpsc::channel();
    thread::scope(|scope| {
        let context = &context;
        scope.spawn(move || {
            let objects = (context.stream(), registered(&Pages::new(BYTES)), context.apart());
            assert!(objects.0.is_ok() && objects.2.is_ok());
            made.send(objects).expect("heard");
        });
        let objects = is_made.recv_timeout(Duration::from_secs(30));
        gate.open();
        assert!(objects.is_ok(), "they are made while streams wait");
    });
    assert!(flush(soon()));
    assert_eq!(calls_of("cuMemFree_v2", &before), 1);
    assert_eq!(calls_of("cuMemHostUnregister", &before), 2);
}

fn coming_back_meanwhile_keeps_it() {
    let (context, pages, before) = (context(), Pages::new(BYTES), Calls::now());
    let (target, gate) = (Allocated::new(&context, BYTES), Gate::closed(&context));
    let range = registered(&pages);
    let queued = context.copy_from_host(gate.stream(), target.address, (&range, 0), BYTES as u64);
    queued.expect("queued");
    drop(range);
    assert!(!flush(Instant::now()));
    let again = registered(&pages);
    gate.open();
    context.synchronize(gate.stream()).expect("done");
    drop(gate);
    while usage().host_ranges > 1 {
        flush(Instant::now());
    }
    let queued =
        context.copy_from_host(&context.stream().expect("one"), target.address, (&again, 0), 8);
    queued.expect("it is still registered");
    assert_eq!(calls_of("cuMemHostRegister_v2", &before), 2, "one of them is the gate's");
    drop(again);
    assert!(flush(soon()));
}

fn a_lent_stream_may_be_destroyed_first() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let (target, gate) = (Allocated::new(&context, BYTES), Gate::closed(&context));
    let range = registered(&pages);
    for _ in 0..40 {
        let foreign = Foreign::new(&context);
        let queued =
            context.copy_from_host(foreign.stream(), target.address, (&range, 0), BYTES as u64);
        queued.expect("queued");
    }
    // Held up by the gate, and then gone.
    let held_up = Foreign::new(&context);
    gate.hold_up(held_up.stream());
    let queued = context.copy_to_host(held_up.stream(), (&range, 0), target.address, 8);
    queued.expect("queued");
    drop((held_up, range));
    assert!(!flush(Instant::now()), "the copy is not done");
    gate.open();
    drop(gate);
    assert!(flush(soon()));
}

fn a_graph_keeps_what_it_uses() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let target = Allocated::new(&context, BYTES);
    let (stream, range) = (context.stream().expect("a stream"), registered(&pages));
    Graph::begin(&context, &stream);
    let bytes = BYTES as u64;
    context.copy_from_host(&stream, target.address, (&range, 0), bytes).expect("captured");
    let graph = Graph::end(&context, &stream).expect("not spoilt");
    drop(range);
    assert!(flush(soon()));
    assert_eq!(usage().host_ranges, 1, "the graph refers to it");
    for value in [1, 2] {
        pages.write(&vec![value; BYTES]);
        graph.run(&context, &stream);
        let mut found = vec![0; BYTES];
        context.download(&stream, &mut found, target.address).expect("copied");
        assert!(found == vec![value; BYTES], "replayed");
    }
    drop(graph);
    // A driver lets go of what a graph kept on a thread of its own.
    while usage().host_ranges > 0 {
        flush(Instant::now());
    }
}

fn a_child_is_told() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let stream = context.stream().expect("a stream");
    let mut range = Some(registered(&pages));
    assert!(in_forked_child(|| {
        let kept = range.take().expect("one");
        let copied = context.copy_to_host(&stream, (&kept, 0), 0, 8);
        drop(kept);
        let error = HostRange::register(&context, pages.clone(), Access::Read);
        matches!(copied, Err(QueueError::Driver(DriverError::Forked)))
            && matches!(error, Err(RegisterError::Driver(DriverError::Forked)))
            && usage().host_ranges == 0
    }));
    let range = range.expect("the parent has it still");
    let target = Allocated::new(&context, 8);
    context.copy_from_host(&stream, target.address, (&range, 0), 8).expect("queued");
    context.synchronize(&stream).expect("done");
}
