//! What is known of devices, and that knowing makes no context.

use cuda_ipc::{DeviceError, Uuid, driver_calls, is_loaded, probe};

use crate::calls::Calls;
use crate::harness::tests;
use crate::peer::Peer;
use crate::sys;

tests![
    devices_are_found,
    calls_are_counted,
    unknown_ones_are_named,
    nothing_becomes_current,
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
