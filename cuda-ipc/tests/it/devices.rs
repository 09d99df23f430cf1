//! What is known of devices, and that knowing makes no context.

use std::panic;

use cuda_ipc::{DeviceError, Stream, StreamId, Uuid, driver_calls, is_loaded, probe};

use crate::calls::Calls;
use crate::harness::tests;
use crate::peer::Peer;
use crate::sys;

tests![
    devices_are_found,
    calls_are_counted,
    unknown_ones_are_named,
    nothing_becomes_current,
    calls_go_together,
    streams_are_told_apart,
    looking_makes_no_context,
];

fn devices_are_found() {
    let driver = probe().expect("a driver");
    assert!(is_loaded());
    assert!(driver.version().major() >= 11, "{}", driver.version());
    let devices = driver.devices().expect("some");
    for (ordinal, device) in devices.iter().enumerate() {
        assert_eq!(device.ordinal(), ordinal);
        assert_eq!(driver.device(device.uuid()).expect("itself").ordinal(), ordinal);
        assert_eq!(device.uuid().to_string().parse(), Ok(device.uuid()));
        assert!(device.memory_bytes() > 1 << 30 && !device.name().is_empty());
        assert!(device.can_access(device).expect("an answer"));
        assert_eq!(device.granularity().expect("an answer") % 4096, 0);
        let capabilities = device.capabilities();
        assert!(capabilities.chunks && capabilities.stream_words, "{capabilities:?}");
    }
    let functions = driver.functions().expect("a table");
    let found = functions.iter().find(|it| it.symbol == "cuDeviceGetCount").expect("listed");
    assert!(found.is_there && found.calls > 0);
}

fn calls_are_counted() {
    let device = probe().expect("a driver").device_at(0).expect("one");
    let before = Calls::now();
    for _ in 0..3 {
        device.can_access(&device).expect("an answer");
        device.granularity().expect("an answer");
    }
    let made = Calls::now().since(&before);
    assert_eq!(made.of("cuMemGetAllocationGranularity"), 3);
    assert_eq!(made.of("cuMemCreate"), 0);
    let names: Vec<&str> = driver_calls().iter().map(|function| function.symbol).collect();
    assert!(names.contains(&"cuIpcOpenMemHandle_v2") && !names.contains(&"cuCtxSynchronize"));
}

fn unknown_ones_are_named() {
    let driver = probe().expect("a driver");
    let uuid = Uuid::from_bytes([3; 16]);
    let error = driver.device(uuid).expect_err("nobody's");
    assert!(error.to_string().contains(&uuid.to_string()), "{error}");
    let error = driver.device_at(99).expect_err("too many");
    assert!(matches!(error, DeviceError::Ordinal { ordinal: 99, .. }), "{error}");
}

fn nothing_becomes_current() {
    let before = sys::current_context();
    let context = probe().expect("a driver").device_at(0).expect("one").context().expect("one");
    let stream = context.stream().expect("a stream");
    context.synchronize(&stream).expect("idle");
    assert_eq!(sys::current_context(), before);
}

/// In a process that has done nothing else yet.
fn looking_makes_no_context() {
    Peer::start("looking").join();
}

/// The context is made current once, and what was current is so again, also after a panic.
fn calls_go_together() {
    let driver = probe().expect("a driver");
    let context = driver.device_at(0).expect("one").context().expect("one");
    let stream = context.stream().expect("a stream");
    let idle = |times: usize| {
        (0..times).for_each(|_| assert!(context.is_idle(&stream).expect("an answer")));
    };
    let calls = || Calls::now().of("cuCtxPushCurrent_v2");
    let (before, current) = (calls(), sys::current_context());
    idle(3);
    assert_eq!(calls() - before, 3);
    context.together(|| idle(3)).expect("together");
    context.together(|| context.together(|| idle(3))).expect("together").expect("still");
    assert_eq!((calls() - before, sys::current_context()), (5, current));
    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let _ = context.together(|| panic!("on purpose"));
    }));
    assert!(panicked.is_err());
    idle(1);
    assert_eq!((calls() - before, sys::current_context()), (7, current));
    // Current already, as in a thread that uses another library of the device.
    sys::entered(&context, || {
        let (before, current) = (calls(), sys::current_context());
        idle(1);
        context.together(|| idle(2)).expect("together");
        assert_eq!((calls() - before, sys::current_context()), (0, current));
    });
    // Another device's within it, and then this one's again.
    if let Some(other) = driver.devices().expect("devices").get(1) {
        let other = other.context().expect("one");
        let there = other.stream().expect("a stream");
        let both = context.together(|| {
            idle(1);
            assert!(other.is_idle(&there).expect("an answer"));
            other.together(|| idle(2)).expect("together");
            idle(1);
        });
        both.expect("together");
        assert_eq!(sys::current_context(), current);
    }
}

/// By more than their handles, which come again.
fn streams_are_told_apart() {
    let driver = probe().expect("a driver");
    let context = driver.device_at(0).expect("one").context().expect("one");
    let first = context.stream().expect("a stream");
    let (id, handle) = (first.id(), first.as_raw());
    assert_eq!((id, id.is_some()), (first.id(), true));
    drop(first);
    let second = context.stream().expect("a stream");
    assert_ne!(second.id(), id, "whether its handle is {handle:#x} or not");
    assert_eq!(Stream::default_of_context().id(), Some(StreamId::of_handle(0)));
}
