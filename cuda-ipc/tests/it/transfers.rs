//! Copies and calls in streams of the caller's.

use std::panic;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};
use std::sync::{Arc, mpsc};

use cuda_ipc::{
    Access, Chunk, Context, Copies, DeviceWords, HostRange, Mapping, QueueError, Stream, Words,
    probe,
};

use crate::harness::{Outcome, Skip, tests};
use crate::peer::{filled, pattern};
use crate::sys::{Allocated, Graph, Pages};

tests![
    bytes_go_from_the_host_and_back,
    copies_wait_for_what_is_queued_before,
    bytes_go_from_device_to_device,
    places_are_checked,
    functions_are_called_in_their_turn,
    a_panic_ends_with_its_function,
    what_cannot_be_captured_is_refused,
    streams_that_wait_hold_up_their_context_alone,
];

const BYTES: usize = 300_001;

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

/// What is queued in its stream begins when it is opened, at the latest when it is dropped.
pub(crate) struct Gate {
    words: Arc<DeviceWords>,
    stream: Stream,
}

impl Gate {
    pub(crate) fn closed(context: &Context) -> Self {
        let words = Words::create(1).expect("memory").attach(context).expect("attached");
        let gate = Self { words, stream: context.stream().expect("a stream") };
        gate.hold_up(&gate.stream);
        gate
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Another stream, too.
    pub(crate) fn hold_up(&self, stream: &Stream) {
        self.words.wait(stream, 0, 1).expect("queued");
    }

    pub(crate) fn open(&self) {
        self.words.release(0, 1);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

fn bytes_go_from_the_host_and_back() {
    let (context, bytes) = (context(), pattern(3, BYTES));
    let (from, to) = (Pages::new(BYTES), Pages::new(BYTES + 77));
    from.write(&bytes);
    let source = HostRange::register(&context, from, Access::Read).expect("registered");
    let target = HostRange::register(&context, to.clone(), Access::ReadWrite).expect("registered");
    let (there, stream) = (Allocated::new(&context, 2 * BYTES), context.stream().expect("one"));
    let (count, next) = (BYTES as u64, there.address + BYTES as u64);
    context.copy_from_host(&stream, there.address, (&source, 0), count).expect("queued");
    context.copy(&stream, next, there.address, count).expect("queued");
    context.copy_to_host(&stream, (&target, 77), next, count).expect("queued");
    context.synchronize(&stream).expect("done");
    assert!(to.part(77, BYTES).read() == bytes);
    assert_eq!(to.part(0, 77).read(), [0; 77]);
    // From and to ordinary memory, which may change as soon as the call returns.
    let mut ordinary = pattern(4, BYTES);
    context.upload(&stream, next, &ordinary).expect("copied");
    ordinary.fill(0);
    context.download(&stream, &mut ordinary, next).expect("copied");
    assert!(ordinary == pattern(4, BYTES));
}

fn copies_wait_for_what_is_queued_before() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let range =
        HostRange::register(&context, pages.clone(), Access::ReadWrite).expect("registered");
    let (gate, count) = (Gate::closed(&context), BYTES as u64);
    let [there, other] = [(); 2].map(|()| Allocated::new(&context, BYTES));
    let beside = context.stream().expect("a stream");
    for address in [there.address, other.address] {
        context.upload(&beside, address, &vec![1; BYTES]).expect("copied");
    }
    pages.write(&vec![2; BYTES]);
    context.copy_from_host(gate.stream(), there.address, (&range, 0), count).expect("queued");
    context.copy(gate.stream(), other.address, there.address, count).expect("queued");
    // The device has gone through what came later in another stream, and these wait.
    let mut found = vec![0; BYTES];
    for address in [there.address, other.address] {
        context.download(&beside, &mut found, address).expect("copied");
        assert!(found == vec![1; BYTES], "copied before it was its turn");
    }
    assert!(!context.is_idle(gate.stream()).expect("an answer"));
    // What is in memory when their turn comes is what they copy.
    pages.write(&vec![3; BYTES]);
    gate.open();
    context.download(gate.stream(), &mut found, other.address).expect("copied");
    assert!(found == vec![3; BYTES]);
}

fn bytes_go_from_device_to_device() -> Outcome {
    let devices = probe().expect("a driver").devices().expect("some");
    let [first, second, ..] = &devices[..] else { return Err(Skip("needs two devices")) };
    if !first.can_access(second).expect("an answer") {
        return Err(Skip("needs devices that reach each other"));
    }
    let bytes = 3 << 20;
    let (here, there) = (first.context().expect("one"), second.context().expect("one"));
    let near = filled(9, bytes);
    let far = Chunk::create(second, bytes as u64).expect("memory");
    // Both for the device in whose stream it is copied.
    let near = Mapping::open(&here, &[&near], Access::ReadWrite).expect("mapped");
    let reached = Mapping::open(&here, &[&far], Access::ReadWrite).expect("mapped");
    let stream = here.stream().expect("a stream");
    near.used_on(&stream).expect("noted");
    reached.used_on(&stream).expect("noted");
    here.copy(&stream, reached.address(), near.address(), bytes as u64).expect("queued");
    here.synchronize(&stream).expect("done");
    let far = Mapping::open(&there, &[&far], Access::Read).expect("mapped");
    let mut found = vec![0; bytes];
    there.download(&there.stream().expect("one"), &mut found, far.address()).expect("copied");
    assert!(found == pattern(9, bytes));
    // Memory of the host that one of them registered serves both.
    let pages = Pages::new(bytes);
    let range = HostRange::register(&here, pages.clone(), Access::ReadWrite).expect("registered");
    let stream = there.stream().expect("a stream");
    there.copy_to_host(&stream, (&range, 0), far.address(), bytes as u64).expect("queued");
    there.synchronize(&stream).expect("done");
    assert!(pages.read() == pattern(9, bytes));
    assert!(range.address(&there).is_ok());
    Ok(())
}

fn places_are_checked() {
    let (context, pages) = (context(), Pages::new(BYTES));
    let range = HostRange::register(&context, pages, Access::ReadWrite).expect("registered");
    let (there, stream) = (Allocated::new(&context, 64), context.stream().expect("a stream"));
    let length = BYTES as u64;
    for (offset, bytes) in [(0, length + 1), (length, 1), (u64::MAX, 2), (1, u64::MAX)] {
        let expected = QueueError::Range { offset, bytes, length };
        let up = context.copy_from_host(&stream, there.address, (&range, offset), bytes);
        assert_eq!(up, Err(expected.clone()));
        let down = context.copy_to_host(&stream, (&range, offset), there.address, bytes);
        assert_eq!(down, Err(expected));
    }
    context.copy_to_host(&stream, (&range, length), there.address, 0).expect("nothing");
    context.copy_to_host(&stream, (&range, length - 64), there.address, 64).expect("the last");
    context.synchronize(&stream).expect("done");
}

fn functions_are_called_in_their_turn() {
    let context = context();
    let words = Words::create(2).expect("memory").attach(&context).expect("attached");
    let gate = Gate::closed(&context);
    let (tell, told) = mpsc::channel();
    let seen = Arc::new(AtomicU64::new(0));
    for number in 1..=3 {
        words.write(gate.stream(), 0, number).expect("queued");
        let (tell, seen, seeing) = (tell.clone(), Arc::clone(&seen), Arc::clone(&words));
        // What it holds goes with it, on the driver's thread.
        let call = move || {
            seen.store(seeing.load(0), Atomic::Release);
            tell.send(number).expect("somebody listens");
        };
        context.call_after(gate.stream(), call).expect("queued");
        // The stream goes on when this has looked at what was called.
        words.wait(gate.stream(), 1, number).expect("queued");
    }
    drop(tell);
    context.synchronize(&context.stream().expect("one")).expect("done");
    assert!(told.try_recv().is_err(), "it is not their turn");
    gate.open();
    for number in 1..=3 {
        assert_eq!(told.recv(), Ok(number));
        assert_eq!(seen.load(Atomic::Acquire), number, "what comes next waits for it");
        words.release(1, number);
    }
    assert!(told.recv().is_err(), "each is called once, and dropped");
    context.synchronize(gate.stream()).expect("done");
}

fn a_panic_ends_with_its_function() {
    let (context, reached) = (context(), Arc::new(()));
    let stream = context.stream().expect("a stream");
    let kept = Arc::clone(&reached);
    let call = move || {
        let _ = &kept;
        // Without a message from the hook.
        panic::resume_unwind(Box::new("as it should"));
    };
    context.call_after(&stream, call).expect("queued");
    context.synchronize(&stream).expect("done");
    assert_eq!(Arc::strong_count(&reached), 1, "unwound");
    let (tell, told) = mpsc::channel();
    context.call_after(&stream, move || tell.send(()).expect("heard")).expect("queued");
    told.recv().expect("the driver's thread goes on");
    context.synchronize(&stream).expect("done");
}

fn what_cannot_be_captured_is_refused() {
    let context = context();
    let (there, stream) = (Allocated::new(&context, 64), context.stream().expect("a stream"));
    let mut ordinary = [0; 64];
    Graph::begin(&context, &stream);
    let called = Arc::new(());
    let kept = Arc::clone(&called);
    let refused = [
        context.upload(&stream, there.address, &[1; 64]),
        context.download(&stream, &mut ordinary, there.address),
        context.call_after(&stream, move || drop(kept)),
    ];
    for refused in refused {
        let error = refused.expect_err("refused");
        assert!(matches!(error, QueueError::Captured { .. }), "{error}");
    }
    assert_eq!(Arc::strong_count(&called), 1, "it comes to nothing, and is dropped");
    drop(Graph::end(&context, &stream).expect("not spoilt"));
}

/// However many there are.
fn streams_that_wait_hold_up_their_context_alone() {
    let context = context();
    let pages =
        HostRange::register(&context, Pages::new(BYTES), Access::ReadWrite).expect("memory");
    let chunk = filled(5, BYTES);
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    // To make so many a device's driver waits for those that wait.
    let others: Vec<_> = (0..40).map(|_| context.stream().expect("a stream")).collect();
    let gate = Gate::closed(&context);
    for stream in &others {
        gate.hold_up(stream);
        context.fill(stream, mapping.address(), 0, 8).expect("queued");
        mapping.used_on(stream).expect("known");
    }
    let apart = Copies::new(&context.apart().expect("room for it")).expect("a stream");
    assert_eq!(apart.context().device().uuid(), context.device().uuid());
    let bytes = BYTES as u64;
    apart.copy_to_host((&pages, 0), mapping.address(), bytes).expect("copied");
    apart.fill(mapping.address(), 9, 4096).expect("queued");
    apart.copy_from_host(mapping.address() + 1, (&pages, 1), 1).expect("copied");
    let mut found = [0; 4];
    apart.download(&mut found, mapping.address()).expect("copied");
    let sent = pattern(5, BYTES);
    assert_eq!(found, [9, sent[1], 9, 9]);
    assert!(!context.is_idle(&others[0]).expect("an answer"), "they wait still");
    assert!(matches!(
        apart.copy_to_host((&pages, bytes), mapping.address(), 8),
        Err(QueueError::Range { .. })
    ));
    gate.open();
    for stream in &others {
        context.synchronize(stream).expect("done");
    }
}
