//! Memory that outlives its maker.

use cuda_ipc::{Chunk, ChunkError, probe};

use crate::calls;
use crate::harness::{Outcome, Skip, tests};
use crate::parcel;
use crate::peer::{BYTES, Peer, filled, holds};

tests![
    sizes_are_rounded_up,
    sizes_that_cannot_be_are_refused,
    memory_outlives_its_maker,
    a_holder_needs_no_driver,
    order_and_hiding_of_devices_do_not_matter,
    a_device_out_of_reach_is_named,
];

fn sizes_are_rounded_up() {
    let device = probe().expect("a driver").device_at(0).expect("one");
    let granularity = device.granularity().expect("an answer");
    for (wanted, made) in [(1, 1), (granularity, 1), (granularity + 1, 2)] {
        let chunk = Chunk::create(&device, wanted).expect("memory");
        assert_eq!(chunk.label().bytes(), made * granularity);
        assert_eq!(chunk.label().device(), device.uuid());
        let copy = chunk.try_clone().expect("a descriptor");
        assert_eq!(copy.label(), chunk.label());
    }
}

fn sizes_that_cannot_be_are_refused() {
    let device = probe().expect("a driver").device_at(0).expect("one");
    for bytes in [0, u64::MAX, 1 << 60] {
        let error = Chunk::create(&device, bytes).expect_err("refused");
        assert!(matches!(error, ChunkError::Size { .. }), "{error}");
    }
    let error = Chunk::create(&device, 1 << 44).expect_err("more than there is");
    assert!(matches!(error, ChunkError::OutOfMemory { .. }), "{error}");
}

fn memory_outlives_its_maker() {
    let maker = Peer::start("maker");
    let chunk = parcel::receive_chunk(&maker.socket);
    assert!(holds(&chunk, 0, 7, BYTES));
    maker.kill();
    assert!(holds(&chunk, 0, 7, BYTES), "mapped before");
    assert!(cuda_ipc::flush(std::time::Instant::now() + std::time::Duration::from_secs(60)));
    assert!(holds(&chunk, 0, 7, BYTES), "opened afterwards");
}

fn a_holder_needs_no_driver() {
    let maker = Peer::start("maker");
    let chunk = parcel::receive_chunk(&maker.socket);
    let mut holder = Peer::start("holder");
    parcel::send_chunk(&holder.socket, &chunk);
    holder.await_word();
    maker.kill();
    drop(chunk);
    // Now the holder is the only one.
    assert!(!holder.maps().contains("libcuda"));
    holder.say(b'w');
    let chunk = parcel::receive_chunk(&holder.socket);
    holder.join();
    assert!(holds(&chunk, 0, 7, BYTES));
}

fn order_and_hiding_of_devices_do_not_matter() -> Outcome {
    let devices = probe().expect("a driver").devices().expect("some");
    if devices.len() < 2 {
        return Err(Skip("there is one device"));
    }
    calls::on(&devices[..2]);
    let chunk = filled(7, BYTES);
    for visible in ["0,1", "1,0", "1", "0"] {
        let reader = Peer::with("reader", |it| it.env("CUDA_VISIBLE_DEVICES", visible));
        parcel::send_chunk(&reader.socket, &chunk);
        reader.join();
    }
    Ok(())
}

fn a_device_out_of_reach_is_named() -> Outcome {
    if crate::driver::is_device() {
        return Err(Skip("needs devices without peer access"));
    }
    let chunk = filled(7, BYTES);
    let far = |it: &'_ mut std::process::Command| {
        it.env("CUDA_VISIBLE_DEVICES", "1").env("TEST_DRIVER_NO_PEERS", "1");
    };
    let stranger = Peer::with("stranger", |it| {
        far(it);
        it
    });
    parcel::send_chunk(&stranger.socket, &chunk);
    stranger.join();
    Ok(())
}
