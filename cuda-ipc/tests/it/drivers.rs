//! Drivers that are old, dead, or not there.

use std::process::Command;

use cuda_ipc::{
    Absent, Access, Chunk, ChunkError, Context, Copies, DriverError, Ordering, QueueError,
    RangeWords, Rooms, Version, WordStep, Words, driver_calls, is_loaded, probe,
};

use crate::driver::{build, is_device};
use crate::harness::{Outcome, Skip, tests};
use crate::peer::Peer;
use crate::sys::{Graph, Pages};

tests![
    an_old_driver_lacks_words_only,
    a_driver_without_batches_is_asked_one_by_one,
    a_driver_without_chunks_says_so,
    a_device_says_what_it_lacks,
    a_refused_descriptor_is_no_want_of_memory,
    a_missing_driver_is_an_error,
    a_dead_driver_is_an_error,
];

fn on(role: &str, how: impl FnOnce(&mut Command) -> &mut Command) -> Outcome {
    if is_device() {
        return Err(Skip("needs another driver than the device's"));
    }
    Peer::with(role, how).join();
    Ok(())
}

fn an_old_driver_lacks_words_only() -> Outcome {
    let options = ["-DVERSION=11030", "-DWITHOUT_WORDS"];
    on("old", |it| it.env("LD_LIBRARY_PATH", build("old", &options)))
}

fn a_driver_without_batches_is_asked_one_by_one() -> Outcome {
    let options = ["-DVERSION=13000", "-DWITHOUT_BATCHES"];
    on("one by one", |it| it.env("LD_LIBRARY_PATH", build("without batches", &options)))
}

fn a_driver_without_chunks_says_so() -> Outcome {
    let options = ["-DVERSION=10000", "-DWITHOUT_WORDS", "-DWITHOUT_CHUNKS"];
    on("bare", |it| it.env("LD_LIBRARY_PATH", build("bare", &options)))
}

fn a_device_says_what_it_lacks() -> Outcome {
    for lacks in ["chunks", "descriptors", "pinning"] {
        on("lacking", |it| it.env("TEST_DRIVER_LACKS", lacks))?;
    }
    Ok(())
}

fn a_refused_descriptor_is_no_want_of_memory() -> Outcome {
    for code in ["800", "801"] {
        on("refused", |it| it.env("TEST_DRIVER_NO_EXPORT", code))?;
    }
    Ok(())
}

fn a_missing_driver_is_an_error() -> Outcome {
    on("missing", |it| it.env("LD_LIBRARY_PATH", "/nowhere"))
}

fn a_dead_driver_is_an_error() -> Outcome {
    for (code, said) in [("34", "LD_LIBRARY_PATH"), ("100", "CUDA_VISIBLE_DEVICES"), ("3", "spawn")]
    {
        on("dead", |it| it.env("TEST_DRIVER_DEAD", code).env("CUDA_IPC_SAID", said))?;
    }
    Ok(())
}

/// The other side of these, and of what needs a process that has done nothing yet.
pub(crate) fn play(role: &str) {
    match role {
        "looking" => {
            assert!(!is_loaded() && driver_calls().is_empty());
            for device in probe().expect("a driver").devices().expect("some") {
                drop(Chunk::create(&device, 1).expect("memory"));
                assert!(!device.has_context().expect("an answer"), "nobody asked for one");
            }
            assert!(is_loaded());
            let device = probe().expect("a driver").device_at(0).expect("one");
            let context = device.context().expect("one");
            assert!(device.has_context().expect("an answer"));
            drop(context);
            assert!(!device.has_context().expect("an answer"), "given back");
        }
        "asking" => crate::idle::asking(),
        "old" => old(),
        "one by one" => one_by_one(),
        "bare" => {
            let device = probe().expect("a driver").device_at(0).expect("one");
            assert!(!device.capabilities().chunks);
            let error = Chunk::create(&device, 1).expect_err("not with this driver");
            assert!(matches!(error, ChunkError::Unsupported { .. }), "{error}");
            assert!(device.granularity().expect_err("lacking").to_string().contains("too old"));
            // Of its own it has as much as any.
            let rooms = Rooms::new(&device.context().expect("one"), 1000);
            drop(rooms.take().expect("memory"));
        }
        "lacking" => {
            let lacks = std::env::var("TEST_DRIVER_LACKS").expect("set");
            let device = probe().expect("a driver").device_at(0).expect("one");
            let can = device.capabilities();
            assert_eq!(can.virtual_memory, lacks != "chunks");
            assert_eq!(can.chunks, lacks == "pinning");
            assert_eq!(can.host_registration, lacks != "pinning");
            let made = Chunk::create(&device, 1);
            assert_eq!(matches!(made, Err(ChunkError::Unsupported { .. })), !can.chunks);
        }
        "refused" => {
            let device = probe().expect("a driver").device_at(0).expect("one");
            assert!(device.capabilities().chunks, "it does not know");
            let error = Chunk::create(&device, 1).expect_err("not to be shared");
            let ChunkError::Driver(DriverError::Call(error)) = error else { panic!("{error}") };
            assert_eq!(error.call(), "cuMemExportToShareableHandle");
            assert!(error.is_refusal() && !error.is_out_of_memory(), "{error}");
            let error = Chunk::create(&device, 1 << 46).expect_err("too much");
            assert!(matches!(error, ChunkError::OutOfMemory { .. }), "{error}");
        }
        "missing" => {
            let error = probe().expect_err("none");
            assert!(matches!(error, DriverError::Absent(Absent::Library { .. })), "{error}");
            assert!(error.to_string().contains("libcuda.so.1"), "{error}");
            assert!(!is_loaded());
            assert_eq!(cuda_ipc::usage(), cuda_ipc::Usage::default());
        }
        "dead" => {
            let said = std::env::var("CUDA_IPC_SAID").expect("set");
            let error = probe().expect_err("dead");
            assert!(matches!(error, DriverError::Absent(Absent::Init { .. })), "{error}");
            assert!(error.to_string().contains(&said), "{error}");
        }
        other => panic!("there is no role {other}"),
    }
}

fn old() {
    let driver = probe().expect("a driver");
    let (major, minor): (u32, u32) = (driver.version().major(), driver.version().minor());
    assert_eq!((major, minor), (11, 3));
    let text = |version: Version| version.to_string();
    assert_eq!(text(driver.version()), "11.3");
    let context = driver.device_at(0).expect("one").context().expect("one");
    let capabilities = context.device().capabilities();
    assert!(capabilities.chunks && !capabilities.stream_words);
    assert!(crate::peer::holds(&crate::peer::filled(1, 100), 0, 1, 100));
    let words = Words::create(1).expect("memory").attach(&context).expect("attached");
    assert_eq!(words.ordering(), Ordering::Host);
    let copies = Copies::new(&context).expect("a stream");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| words.wait(copies.stream(), 0, 1));
        let stream = context.stream().expect("a stream");
        words.write(&stream, 0, 1).expect("written");
        waiting.join().expect("it ends").expect("it came");
    });
    words_in_turn(&context, Ordering::Host);
    // The host cannot wait for what is not run.
    let words = RangeWords::new(&context, Pages::new(4096), Access::ReadWrite).expect("words");
    let stream = context.stream().expect("a stream");
    Graph::begin(&context, &stream);
    for refused in [words.write(&stream, 0, 1), words.wait(&stream, 0, 0)] {
        let error = refused.expect_err("captured");
        assert!(matches!(error, QueueError::Captured { .. }), "{error}");
    }
    drop(Graph::end(&context, &stream).expect("not spoilt"));
}

/// Several steps in one call, which the driver takes or is asked for one by one.
fn words_in_turn(context: &Context, ordering: Ordering) {
    let words = RangeWords::new(context, Pages::new(4096), Access::ReadWrite).expect("words");
    assert_eq!(words.ordering(), ordering);
    let stream = context.stream().expect("a stream");
    let steps = |value| [WordStep::Wait { offset: 0, value }, WordStep::Write { offset: 8, value }];
    std::thread::scope(|scope| {
        let queued = scope.spawn(|| words.queue(&stream, &[steps(1), steps(2)].concat()));
        words.release(0, 1).expect("a word");
        while words.load(8) == Ok(0) {
            std::thread::yield_now();
        }
        assert_eq!(words.load(8), Ok(1), "the next has to wait");
        words.release(0, 2).expect("a word");
        queued.join().expect("it ends").expect("it came");
    });
    context.synchronize(&stream).expect("done");
    assert_eq!(words.load(8), Ok(2));
}

fn one_by_one() {
    let context = probe().expect("a driver").device_at(0).expect("one").context().expect("one");
    words_in_turn(&context, Ordering::Device);
    let calls = driver_calls();
    let of = |name| calls.iter().find(|it| it.symbol == name).expect("known");
    assert!(!of("cuStreamBatchMemOp_v2").is_there);
    assert_eq!((of("cuStreamWaitValue64_v2").calls, of("cuStreamWriteValue64_v2").calls), (2, 2));
}
