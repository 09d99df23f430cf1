//! When memory is unmapped, and when not.

use std::sync::Arc;
use std::time::Instant;

use cuda_ipc::{Access, Context, Copies, Mapping, Words, flush, probe, settle, usage};

use crate::calls::Calls;
use crate::harness::tests;
use crate::mappings::soon;
use crate::peer::{BYTES, filled};
use crate::sys::{self, Graph};

tests![
    work_in_a_named_stream_is_waited_for,
    a_stream_may_be_dropped_first,
    streams_that_nobody_has_are_forgotten,
    coming_back_meanwhile_keeps_it,
    what_is_kept_goes_when_the_work_is_done,
    what_was_let_go_of_is_waited_for,
    a_capture_is_not_spoilt,
    a_graph_keeps_what_it_uses,
    waiting_for_a_context_would_spoil_it,
];

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

fn work_in_a_named_stream_is_waited_for() {
    let (context, chunk) = (context(), filled(1, BYTES));
    let (stream, words) = (context.stream().expect("a stream"), Words::create(1).expect("memory"));
    let words = words.attach(&context).expect("attached");
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    mapping.used_on(&stream).expect("noted");
    words.wait(&stream, 0, 1).expect("queued");
    drop(mapping);
    assert!(!flush(Instant::now()), "the stream is not done");
    assert_eq!(usage().mappings, 1);
    words.release(0, 1);
    assert!(flush(soon()));
    assert_eq!(usage().mappings, 0);
    context.synchronize(&stream).expect("done");
}

fn a_stream_may_be_dropped_first() {
    let (context, chunk) = (context(), filled(1, BYTES));
    let words = Words::create(1).expect("memory").attach(&context).expect("attached");
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    let stream = context.stream().expect("a stream");
    mapping.used_on(&stream).expect("noted");
    words.wait(&stream, 0, 1).expect("queued");
    drop(stream);
    // Idle streams that nobody has are forgotten when there are many, and this one is not idle.
    for _ in 0..100 {
        mapping.used_on(&context.stream().expect("a stream")).expect("noted");
    }
    drop(mapping);
    assert!(!flush(Instant::now()), "the stream is not done");
    words.release(0, 1);
    assert!(flush(soon()));
}

/// Also where they were named for several mappings, each of which keeps them.
fn streams_that_nobody_has_are_forgotten() {
    let (context, chunks) = (context(), [filled(1, BYTES), filled(2, BYTES)]);
    let open = |chunk| Mapping::open(&context, &[chunk], Access::ReadWrite).expect("mapped");
    let mappings = chunks.each_ref().map(open);
    let before = Calls::now();
    for _ in 0..200 {
        let stream = context.stream().expect("a stream");
        for mapping in &mappings {
            mapping.used_on(&stream).expect("noted");
        }
    }
    let since = Calls::now().since(&before);
    assert!(since.of("cuStreamDestroy_v2") > 100, "{since:?}");
    drop(mappings);
    assert!(flush(soon()));
}

fn coming_back_meanwhile_keeps_it() {
    let (context, chunk) = (context(), filled(1, BYTES));
    let (stream, words) = (context.stream().expect("a stream"), Words::create(2).expect("memory"));
    let words = words.attach(&context).expect("attached");
    let open = || Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    let mapping = open();
    let address = mapping.address();
    mapping.used_on(&stream).expect("noted");
    words.wait(&stream, 0, 1).expect("queued");
    drop(mapping);
    assert!(!flush(Instant::now()));
    // What was waited for so far is done, but it is in use again, and then there is more to wait for.
    let again = open();
    assert_eq!(again.address(), address);
    words.release(0, 1);
    context.synchronize(&stream).expect("done");
    words.wait(&stream, 1, 1).expect("queued");
    drop(again);
    assert!(!flush(Instant::now()));
    words.release(1, 1);
    assert!(flush(soon()));
    context.synchronize(&stream).expect("done");
}

fn what_is_kept_goes_when_the_work_is_done() {
    let (context, chunk) = (context(), filled(1, BYTES));
    let (stream, words) = (context.stream().expect("a stream"), Words::create(1).expect("memory"));
    let words = words.attach(&context).expect("attached");
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    mapping.used_on(&stream).expect("noted");
    let kept = Arc::new(());
    // With nothing to wait for it goes as soon as the thread looks, mapped as the memory still is.
    mapping.clone().let_go_when_done(Arc::clone(&kept));
    while Arc::strong_count(&kept) > 1 {
        std::thread::yield_now();
    }
    words.wait(&stream, 0, 1).expect("queued");
    mapping.let_go_when_done(Arc::clone(&kept));
    assert!(!flush(Instant::now()), "the stream is not done");
    assert_eq!((Arc::strong_count(&kept), usage().mappings), (2, 1));
    words.release(0, 1);
    assert!(flush(soon()));
    assert_eq!((Arc::strong_count(&kept), usage().mappings), (1, 0));
    context.synchronize(&stream).expect("done");
    // What a graph is made of is waited for until it is made.
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    Graph::begin(&context, &stream);
    mapping.used_on(&stream).expect("noted");
    mapping.let_go_when_done(Arc::clone(&kept));
    assert!(!flush(Instant::now()), "it is captured");
    assert_eq!(Arc::strong_count(&kept), 2);
    let graph = Graph::end(&context, &stream).expect("not spoilt");
    assert!(flush(soon()));
    assert_eq!(Arc::strong_count(&kept), 1);
    drop(graph);
    is_unmapped();
}

fn what_was_let_go_of_is_waited_for() {
    let (context, chunk) = (context(), filled(1, BYTES));
    let (stream, words) = (context.stream().expect("a stream"), Words::create(1).expect("memory"));
    let words = words.attach(&context).expect("attached");
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    mapping.used_on(&stream).expect("noted");
    let (kept, later) = (Arc::new(()), Arc::new(()));
    words.wait(&stream, 0, 1).expect("queued");
    mapping.clone().let_go_when_done(Arc::clone(&kept));
    assert!(!settle(Instant::now()), "the stream is not done");
    assert_eq!(Arc::strong_count(&kept), 2);
    words.release(0, 1);
    assert!(settle(soon()));
    assert_eq!((Arc::strong_count(&kept), usage().mappings), (1, 1));
    // What lingers is left alone, and what comes after is not waited for.
    words.wait(&stream, 0, 2).expect("queued");
    let (words, stream) = (&words, &stream);
    std::thread::scope(|scope| {
        let first = mapping.clone();
        first.let_go_when_done(Arc::clone(&kept));
        let settled = scope.spawn(|| settle(soon()));
        words.release(0, 2);
        assert!(settled.join().expect("it ends"));
    });
    assert_eq!(Arc::strong_count(&kept), 1);
    words.wait(stream, 0, 3).expect("queued");
    mapping.let_go_when_done(Arc::clone(&later));
    assert!(!settle(Instant::now()));
    words.release(0, 3);
    assert!(settle(soon()));
    assert_eq!((Arc::strong_count(&later), usage().mappings), (1, 1));
    assert!(flush(soon()));
}

fn a_capture_is_not_spoilt() {
    let (context, chunk) = (context(), filled(1, BYTES));
    let stream = context.stream().expect("a stream");
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    mapping.used_on(&stream).expect("noted");
    let other = filled(2, BYTES);
    let elsewhere = Mapping::open(&context, &[&other], Access::ReadWrite).expect("mapped");
    Graph::begin(&context, &stream);
    // Its stream is captured, so it has to wait; the other one has not.
    drop(mapping);
    assert!(!flush(Instant::now()));
    drop(elsewhere);
    while usage().mappings > 1 {
        flush(Instant::now());
    }
    // Nor does making and opening memory.
    let third = filled(3, BYTES);
    drop(Mapping::open(&context, &[&third], Access::Read).expect("mapped"));
    let graph = Graph::end(&context, &stream).expect("not spoilt");
    assert!(flush(soon()));
    drop(graph);
}

fn a_graph_keeps_what_it_uses() {
    let (context, chunk) = (context(), filled(1, BYTES));
    let stream = context.stream().expect("a stream");
    let mapping = Mapping::open(&context, &[&chunk], Access::ReadWrite).expect("mapped");
    Graph::begin(&context, &stream);
    mapping.used_on(&stream).expect("kept");
    let graph = Graph::end(&context, &stream).expect("not spoilt");
    drop(mapping);
    assert!(flush(soon()));
    assert_eq!((usage().mappings, usage().lingering), (1, 0), "the graph refers to it");
    drop(graph);
    is_unmapped();
}

/// A driver lets go of what a graph kept on a thread of its own.
fn is_unmapped() {
    while usage().lingering == 0 && usage().mappings > 0 {
        std::thread::yield_now();
    }
    assert!(flush(soon()));
    assert_eq!(usage().mappings, 0);
}

/// Why the streams are waited for and not their context.
fn waiting_for_a_context_would_spoil_it() {
    let context = context();
    let stream = context.stream().expect("a stream");
    Graph::begin(&context, &stream);
    assert_ne!(sys::synchronize_context(&context), 0);
    assert!(Graph::end(&context, &stream).is_err());
    let copies = Copies::new(&context).expect("a stream");
    copies.synchronize().expect("the context is whole");
}
