//! Memory that others made.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use cuda_ipc::{
    Access, Backing, Chunk, Context, Copies, ForeignError, InPlace, LegacyHandle, Mapping, Origin,
    flush, origin, probe, share_in_place,
};

use crate::calls::Calls;
use crate::harness::tests;
use crate::mappings::soon;
use crate::parcel;
use crate::peer::{BYTES, Peer, pattern, receive_handle};
use crate::sys::{Allocated, Segment};
use crate::transfers::Gate;

tests![
    mapped_memory_is_shared_in_place,
    other_memory_at_an_address_is_told,
    opened_memory_is_passed_on,
    allocated_memory_is_copied,
    ranges_are_checked,
    hosts_are_no_devices,
    handles_travel,
    handles_open_in_place,
    handles_of_the_dead_are_refused,
    nothing_is_closed_beside_streams_that_wait,
];

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

/// As torch's expandable segments are: many allocations at one range, and a tensor across some of them.
fn mapped_memory_is_shared_in_place() {
    let context = context();
    let unit = context.device().granularity().expect("an answer");
    let segment = Segment::new(&context, unit, 4);
    let copies = Copies::new(&context).expect("a stream");
    let bytes = pattern(9, usize::try_from(unit).expect("few") + 100);
    let address = segment.address + unit + 1000;
    copies.upload(address, &bytes).expect("copied");
    assert_eq!(origin(&context, address, bytes.len() as u64).expect("known"), Origin::Chunks);
    let shared = share_in_place(&context, address, bytes.len() as u64).expect("shared");
    assert_eq!((shared.chunks.len(), shared.offset), (2, 1000));
    let too_far = share_in_place(&context, address, 1 << 40).expect_err("beyond");
    assert!(matches!(too_far, ForeignError::Range { .. }), "{too_far}");
    // It does not need the segment.
    drop(segment);
    assert!(holds_at(&context, &shared, &bytes));
}

/// As when torch gives pieces back to the driver and takes others for the same addresses.
fn other_memory_at_an_address_is_told() {
    let context = context();
    let unit = context.device().granularity().expect("an answer");
    let mut segment = Segment::new(&context, unit, 4);
    let middle = Backing::of(&context, segment.address + unit + 7, unit).expect("mapped");
    let last = Backing::of(&context, segment.address + 3 * unit, 1).expect("mapped");
    assert!(middle.is_there() && last.is_there());
    segment.replace(0);
    assert!(middle.is_there() && last.is_there());
    segment.replace(2);
    assert!(!middle.is_there() && last.is_there());
    let again = Backing::of(&context, segment.address + unit + 7, unit).expect("mapped");
    assert!(again.is_there());
    drop(segment);
    assert!(!again.is_there() && !last.is_there());
    let allocated = Allocated::new(&context, BYTES);
    let error = Backing::of(&context, allocated.address, 1).expect_err("not from chunks");
    assert!(matches!(error, ForeignError::CopyOnly { .. }), "{error}");
}

/// The driver exports nothing that it imported; what was opened here is passed on all the same.
fn opened_memory_is_passed_on() {
    let context = context();
    let unit = context.device().granularity().expect("an answer");
    let chunks: Vec<_> =
        (0..4).map(|_| Chunk::create(context.device(), unit).expect("memory")).collect();
    let all: Vec<&Chunk> = chunks.iter().collect();
    let mapping = Mapping::open(&context, &all, Access::ReadWrite).expect("mapped");
    let copies = Copies::new(&context).expect("a stream");
    for (from, length, first, count) in [
        (0, 1, 0, 1),
        (unit - 1, 1, 0, 1),
        (unit - 1, 2, 0, 2),
        (unit, unit, 1, 1),
        (unit + 5, 2 * unit, 1, 3),
        (0, 4 * unit, 0, 4),
    ] {
        let bytes = pattern(from.to_le_bytes()[0], usize::try_from(length).expect("few"));
        copies.upload(mapping.address() + from, &bytes).expect("copied");
        let shared = share_in_place(&context, mapping.address() + from, length).expect("shared");
        assert_eq!((shared.chunks.len(), shared.offset), (count, from % unit));
        assert_eq!(shared.chunks[0].label(), chunks[first].label());
        assert!(holds_at(&context, &shared, &bytes));
    }
    let beyond = share_in_place(&context, mapping.address() + 1, 4 * unit);
    assert!(beyond.is_err());
    assert_eq!(mapping.chunks().len(), 4);
}

fn holds_at(context: &Context, shared: &InPlace, bytes: &[u8]) -> bool {
    let all: Vec<&Chunk> = shared.chunks.iter().collect();
    let mapping = Mapping::open(context, &all, Access::Read).expect("mapped");
    let mut found = vec![0; bytes.len()];
    let copies = Copies::new(context).expect("a stream");
    copies.download(&mut found, mapping.address() + shared.offset).expect("copied");
    found == bytes
}

fn allocated_memory_is_copied() {
    let context = context();
    let allocated = Allocated::new(&context, BYTES);
    let bytes = pattern(8, BYTES);
    let copies = Copies::new(&context).expect("a stream");
    copies.upload(allocated.address, &bytes).expect("copied");
    let kind = origin(&context, allocated.address, BYTES as u64).expect("known");
    assert_eq!(kind, Origin::Allocated);
    let error = share_in_place(&context, allocated.address, 16).expect_err("not in place");
    assert!(matches!(error, ForeignError::CopyOnly { .. }), "{error}");
    let chunk = Chunk::create(context.device(), BYTES as u64).expect("memory");
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    let stream = context.stream().expect("a stream");
    copies.after(&stream).expect("ordered");
    copies.copy(mapping.address(), allocated.address, BYTES as u64).expect("queued");
    copies.before(&stream).expect("ordered");
    let mut found = vec![0; BYTES];
    copies.download(&mut found, mapping.address()).expect("copied");
    assert_eq!(found, bytes);
}

fn ranges_are_checked() {
    let context = context();
    let allocated = Allocated::new(&context, BYTES);
    let too_far = origin(&context, allocated.address, 1 << 40).expect_err("beyond");
    assert!(matches!(too_far, ForeignError::Range { .. }), "{too_far}");
}

fn hosts_are_no_devices() {
    let context = context();
    let host = Box::new(0_u64);
    for address in [0, 16, &raw const *host as u64, u64::MAX] {
        let error = origin(&context, address, 8).expect_err("nothing there");
        assert!(matches!(error, ForeignError::NotOnDevice { .. }), "{error}");
    }
}

fn handles_travel() {
    let mut form = [7; LegacyHandle::BYTES];
    form[72..].copy_from_slice(&9_u64.to_le_bytes());
    let handle = LegacyHandle::decode(&form);
    assert_eq!((handle.bytes(), handle.encode()), (9, form));
}

/// Where what is lent begins and ends within its allocation.
pub(crate) const LENT: std::ops::Range<usize> = 256..BYTES - 512;

fn handles_open_in_place() {
    let context = context();
    let allocated = Allocated::new(&context, BYTES);
    let copies = Copies::new(&context).expect("a stream");
    copies.upload(allocated.address, &pattern(7, BYTES)).expect("copied");
    let address = allocated.address + LENT.start as u64;
    let handle = LegacyHandle::new(&context, address, LENT.len() as u64).expect("a handle");
    let borrower = Peer::start("borrower");
    parcel::send(&borrower.socket, &handle.encode(), &[]);
    borrower.join();
    // Its maker cannot open it, and memory of other kinds has none.
    let own = Mapping::open_handle(&context, &handle).expect_err("its own");
    assert!(matches!(own, ForeignError::Gone { .. }), "{own}");
    let again = LegacyHandle::new(&context, address, LENT.len() as u64).expect("a handle");
    assert_eq!(again, handle, "the same memory has the same handle");
    let chunk = Chunk::create(context.device(), BYTES as u64).expect("memory");
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    let error = LegacyHandle::new(&context, mapping.address(), 16).expect_err("not allocated");
    assert!(matches!(error, ForeignError::CopyOnly { .. }), "{error}");
}

fn handles_of_the_dead_are_refused() {
    let lender = Peer::start("lender");
    let handle = receive_handle(&lender.socket);
    lender.kill();
    let error = Mapping::open_handle(&context(), &handle).expect_err("its maker is dead");
    assert!(matches!(error, ForeignError::Gone { .. }), "{error}");
    assert!(error.to_string().contains("lent only while its maker lives"), "{error}");
}

/// The driver would wait for them, and let nobody queue what may end that.
fn nothing_is_closed_beside_streams_that_wait() {
    let (context, before) = (context(), Calls::now());
    let lender = Peer::start("lender");
    let lent = Mapping::open_handle(&context, &receive_handle(&lender.socket)).expect("opened");
    let gate = Gate::closed(&context);
    // Nothing is queued with it.
    drop(lent);
    assert!(!flush(Instant::now()), "it is closed later");
    let (made, is_made) = mpsc::channel();
    thread::scope(|scope| {
        let context = &context;
        scope.spawn(move || made.send(context.stream().expect("a stream")).expect("heard"));
        let stream = is_made.recv_timeout(Duration::from_secs(30));
        gate.open();
        assert!(stream.is_ok(), "one is made while another waits");
    });
    assert!(flush(soon()));
    assert_eq!(Calls::now().since(&before).of("cuIpcCloseMemHandle"), 1);
    lender.kill();
}
