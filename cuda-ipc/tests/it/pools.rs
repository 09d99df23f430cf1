//! Memory for other people's allocators.

use std::sync::mpsc;

use cuda_ipc::{
    Access, Chunk, ChunkError, Context, Copies, DriverError, Mapping, Pool, Words, probe,
    share_in_place,
};

use crate::calls::Calls;
use crate::harness::{Outcome, Skip, tests};
use crate::peer::{BYTES, pattern};
use crate::sys::{Graph, in_forked_child};

tests![
    blocks_are_shared_where_they_are,
    blocks_share_chunks_which_go_with_the_last,
    sizes_that_cannot_be_are_refused,
    a_block_is_taken_back_when_its_stream_is_done,
    a_capture_is_not_spoilt,
    threads_get_blocks_of_their_own,
    a_block_outlives_its_stream,
    devices_in_use_reach_it,
    devices_that_come_into_use_reach_it,
    a_child_is_told,
];

fn context() -> Context {
    probe().expect("a driver").device_at(0).expect("one").context().expect("one")
}

fn blocks_are_shared_where_they_are() {
    let (context, bytes) = (context(), pattern(5, BYTES));
    let (pool, copies) = (Pool::new(&context), Copies::new(&context).expect("a stream"));
    let blocks: Vec<u64> = (0..3).map(|_| pool.allocate(BYTES as u64).expect("memory")).collect();
    let address = blocks[1] + 4096;
    copies.upload(address, &bytes[4096..]).expect("copied");
    let shared = share_in_place(&context, address, (BYTES - 4096) as u64).expect("shared");
    assert_eq!(shared.chunks.len(), 1);
    for block in blocks {
        assert!(pool.release(block, copies.stream()));
    }
    // Whoever it was shared with has it still.
    assert_eq!(pool.bytes(), 0);
    let all: Vec<&Chunk> = shared.chunks.iter().collect();
    let mapping = Mapping::open(&context, &all, Access::Read).expect("mapped");
    let mut found = vec![0; BYTES - 4096];
    copies.download(&mut found, mapping.address() + shared.offset).expect("copied");
    assert_eq!(found, bytes[4096..]);
}

fn blocks_share_chunks_which_go_with_the_last() {
    let context = context();
    let unit = context.device().granularity().expect("an answer");
    let (pool, stream) = (Pool::new(&context), context.stream().expect("a stream"));
    let (first, second) = (pool.allocate(1).expect("one"), pool.allocate(unit).expect("one"));
    assert_eq!((first % unit, second), (0, first + unit));
    let there = pool.bytes();
    assert!(there >= 2 * unit);
    let large = pool.allocate(there + 1).expect("one");
    assert_eq!(pool.bytes(), 2 * there + unit);
    assert!(pool.release(large, &stream));
    assert_eq!(pool.bytes(), there);
    assert!(pool.release(first, &stream));
    assert!(!pool.release(first, &stream), "it is nobody's by now");
    assert_eq!(pool.allocate(unit).expect("one"), first);
    assert!(pool.release(first, &stream) && pool.release(second, &stream));
    assert!(!pool.release(second, &stream));
    assert_eq!(pool.bytes(), 0);
}

fn sizes_that_cannot_be_are_refused() {
    let pool = Pool::new(&context());
    for bytes in [0, u64::MAX, 1 << 60] {
        let error = pool.allocate(bytes).expect_err("refused");
        assert!(matches!(error, ChunkError::Size { .. }), "{error}");
    }
    let error = pool.allocate(1 << 44).expect_err("more than there is");
    assert!(matches!(error, ChunkError::OutOfMemory { .. }), "{error}");
    assert_eq!(pool.bytes(), 0);
}

fn a_block_is_taken_back_when_its_stream_is_done() {
    let context = context();
    let (pool, stream) = (Pool::new(&context), context.stream().expect("a stream"));
    let words = Words::create(1).expect("memory").attach(&context).expect("attached");
    let block = pool.allocate(1).expect("one");
    words.wait(&stream, 0, 1).expect("queued");
    let (pool, stream, words) = (&pool, &stream, &words);
    std::thread::scope(|scope| {
        let (says, said) = mpsc::channel();
        scope.spawn(move || {
            says.send(()).expect("somebody listens");
            assert!(pool.release(block, stream));
            assert_eq!(words.load(0), 1, "the stream was not done");
        });
        said.recv().expect("it begins");
        assert!(pool.bytes() > 0);
        words.release(0, 1);
    });
    assert_eq!(pool.bytes(), 0);
}

fn a_capture_is_not_spoilt() {
    let context = context();
    let (pool, stream) = (Pool::new(&context), context.stream().expect("a stream"));
    let other = context.stream().expect("a stream");
    let block = pool.allocate(1).expect("one");
    Graph::begin(&context, &stream);
    let within = pool.allocate(1).expect("memory can be had meanwhile");
    assert!(pool.release(within, &other), "it waits for other streams");
    assert!(pool.release(block, &stream));
    assert!(pool.bytes() > 0, "its stream cannot be waited for");
    let graph = Graph::end(&context, &stream).expect("not spoilt");
    // Any other call will do.
    assert!(!pool.release(0, &other));
    assert_eq!(pool.bytes(), 0);
    drop(graph);
}

fn threads_get_blocks_of_their_own() {
    let (context, pool) = (context(), Pool::new(&context()));
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let (context, pool) = (&context, &pool);
            scope.spawn(move || {
                let copies = Copies::new(context).expect("a stream");
                for round in 0..20_u8 {
                    let bytes = pattern(thread.wrapping_mul(31).wrapping_add(round), 5000);
                    let block = pool.allocate(5000).expect("memory");
                    copies.upload(block, &bytes).expect("copied");
                    let mut found = vec![0; bytes.len()];
                    copies.download(&mut found, block).expect("copied");
                    assert_eq!(found, bytes);
                    assert!(pool.release(block, copies.stream()));
                }
            });
        }
    });
    assert_eq!(pool.bytes(), 0);
}

fn devices_in_use_reach_it() -> Outcome {
    let devices = probe().expect("a driver").devices().expect("some");
    let [first, second, ..] = devices.as_slice() else { return Err(Skip("there is one device")) };
    if !second.can_access(first).expect("an answer") {
        return Err(Skip("the devices do not reach each other"));
    }
    let (context, other) = (first.context().expect("one"), second.context().expect("one"));
    let (pool, bytes) = (Pool::new(&context), pattern(6, BYTES));
    let before = Calls::now();
    let block = pool.allocate(BYTES as u64).expect("memory");
    let in_use = devices.iter().filter(|it| {
        it.has_context().expect("an answer") && it.can_access(first).expect("an answer")
    });
    assert_eq!(Calls::now().since(&before).of("cuMemSetAccess"), in_use.count() as u64);
    let copies = Copies::new(&context).expect("a stream");
    copies.upload(block, &bytes).expect("copied");
    let (theirs, mut found) = (Copies::new(&other).expect("a stream"), vec![0; BYTES]);
    theirs.download(&mut found, block).expect("copied by the other device");
    assert_eq!(found, bytes);
    assert!(pool.release(block, copies.stream()));
    Ok(())
}

/// Streams of other libraries end whenever these like; then somebody else has waited.
fn a_block_outlives_its_stream() {
    let context = context();
    let (pool, stream) = (Pool::new(&context), context.stream().expect("a stream"));
    let (first, second) = (pool.allocate(1).expect("one"), pool.allocate(1).expect("one"));
    drop(stream);
    let before = Calls::now();
    assert!(pool.release_settled(first) && !pool.release_settled(first));
    assert!(pool.release_settled(second));
    let made = Calls::now().since(&before);
    let asked =
        ["cuStreamSynchronize", "cuStreamIsCapturing", "cuStreamQuery"].map(|it| made.of(it));
    assert_eq!((asked, pool.bytes()), ([0; 3], 0), "no stream was asked");
}

fn devices_that_come_into_use_reach_it() -> Outcome {
    let devices = probe().expect("a driver").devices().expect("some");
    let [first, second, ..] = devices.as_slice() else { return Err(Skip("there is one device")) };
    if !second.can_access(first).expect("an answer") {
        return Err(Skip("the devices do not reach each other"));
    }
    if second.has_context().expect("an answer") {
        return Err(Skip("the other device is in use already"));
    }
    let context = first.context().expect("one");
    let (pool, bytes) = (Pool::new(&context), pattern(6, BYTES));
    let block = pool.allocate(BYTES as u64).expect("memory");
    let copies = Copies::new(&context).expect("a stream");
    copies.upload(block, &bytes).expect("copied");
    let grants = || Calls::now().of("cuMemSetAccess");
    let before = grants();
    pool.reach().expect("nothing to do");
    assert_eq!(grants(), before);
    let other = second.context().expect("one");
    pool.reach().expect("granted");
    assert_eq!(grants(), before + 1, "to one device, for one chunk");
    let within = pool.allocate(1).expect("of the same chunk");
    assert_eq!(grants(), before + 1, "it is within reach already");
    let (theirs, mut found) = (Copies::new(&other).expect("a stream"), vec![0; BYTES]);
    theirs.download(&mut found, block).expect("copied by the other device");
    assert_eq!(found, bytes);
    assert!(pool.release(block, copies.stream()) && pool.release(within, copies.stream()));
    Ok(())
}

fn a_child_is_told() {
    let context = context();
    let (pool, stream) = (Pool::new(&context), context.stream().expect("a stream"));
    let block = pool.allocate(1).expect("one");
    assert!(in_forked_child(|| {
        matches!(pool.allocate(1), Err(ChunkError::Driver(DriverError::Forked)))
            && !pool.release(block, &stream)
            && pool.bytes() == 0
    }));
    assert!(pool.bytes() > 0);
    assert!(pool.release(block, &stream));
}
