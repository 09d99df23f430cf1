//! Drivers and devices that have less: calls wait for the device then, or what mends has less room, and frames are
//! the same.

use std::env;

use cuda_ipc::Ordering;

use crate::driver;
use crate::frames::Ground;
use crate::harness::{Outcome, Skip, tests};

tests![
    the_driver_orders_by_the_device,
    without_words_the_host_orders,
    frames_are_mended_with_one_context,
    frames_are_mended_through_one_queue,
];

/// What needs no stream to be held up.
const THE_SAME: &[&str] = &[
    "frames::frames_are_written_and_read",
    "frames::large_frames_of_the_host_come_in_pieces",
    "frames::frames_in_memory_of_their_own_are_filled_again_at_once",
    "frames::a_frame_that_is_given_up_is_nobodys",
    "frames::a_write_can_change_the_last_frame",
    "leases::a_lease_keeps_its_frame",
    "leases::a_ring_without_slots_to_spare_gives_copies",
    "leases::frames_are_filled_under_a_lock_that_is_held",
    "mirror::processes_without_cuda_read_what_a_gpu_writes",
    "mirror::both_sides_write_and_read",
    "mirror::parts_of_frames_are_kept_by_both_sides",
    "processes::a_stream_outlives_its_creator",
    "fallback::the_driver_orders_by_the_device",
];

const WITHOUT_WORDS: &str = "ST_ON_GPU_WITHOUT_WORDS";

/// And the stream says by what.
fn the_driver_orders_by_the_device() {
    let ground = Ground::new(3);
    let wanted = match env::var_os(WITHOUT_WORDS) {
        Some(_) => Ordering::Host,
        None => Ordering::Device,
    };
    let info = ground.stream.info();
    assert_eq!(info.ordering, Some(wanted));
    assert_eq!(info.device, Some(ground.context.device().uuid()));
    let is_told = info.warnings.iter().any(|it| it.contains("calls wait for the GPU"));
    assert_eq!(is_told, wanted == Ordering::Host);
    ground.end();
}

fn without_words_the_host_orders() -> Outcome {
    if driver::is_device() {
        return Err(Skip("needs another driver than the device's".to_owned()));
    }
    let folder = driver::build("without-words", &["-DVERSION=11030", "-DWITHOUT_WORDS"]);
    driver::run_tests(THE_SAME, |it| it.env("LD_LIBRARY_PATH", folder).env(WITHOUT_WORDS, "1"));
    Ok(())
}

/// What writers leave that were killed.
const MENDED: &[&str] = &[
    "mending::a_frame_is_mended_whose_slot_a_dead_writer_had_claimed",
    "mending::a_frame_is_mended_for_its_readers_before_the_next_one_comes",
    "processes::frames_of_dead_writers_are_the_last_whole_one",
    "processes::a_first_frame_that_is_lost_is_zeros",
];

/// There is no memory for a second one.
fn frames_are_mended_with_one_context() -> Outcome {
    if driver::is_device() {
        return Err(Skip("needs a device whose memory is used up".to_owned()));
    }
    driver::run_tests(MENDED, |it| it.env("TEST_DRIVER_ONE_CONTEXT", "1"));
    Ok(())
}

/// All streams of a context share it, so that nothing goes on there as long as one of them waits.
fn frames_are_mended_through_one_queue() {
    driver::run_tests(MENDED, |it| it.env("CUDA_DEVICE_MAX_CONNECTIONS", "1"));
}
