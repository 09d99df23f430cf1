//! Streams whose frames are on a GPU, through the public interface.
//!
//! Without `ST_GPU=require` it runs on the driver for tests of `cuda-ipc`, which is compiled here and found
//! through `LD_LIBRARY_PATH`; with it, on the device.

#![expect(clippy::unwrap_used, reason = "a step that fails fails its test")]

#[path = "../../../cuda-ipc/tests/it/calls.rs"]
#[allow(dead_code, reason = "others use more of it")]
mod calls;
mod deaths;
mod doom;
mod driver;
mod fallback;
mod frames;
#[path = "../service/harness.rs"]
mod harness;
mod in_file;
mod leases;
mod mending;
mod mirror;
mod peer;
mod peers;
#[path = "../../../cuda-ipc/tests/it/sys/pages.rs"]
#[expect(unsafe_code, reason = "memory that another crate would have mapped")]
#[allow(dead_code, reason = "others use more of it")]
mod pinned;
mod plain;
mod processes;
#[path = "../it/support.rs"]
#[allow(dead_code, reason = "others use more of it")]
mod support;
#[path = "../../../cuda-ipc/tests/survivors/sys.rs"]
#[expect(unsafe_code, reason = "the driver's functions for kernels have no safe form")]
#[allow(dead_code, reason = "others use more of it")]
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    if !driver::is_device() && !driver::is_chosen() {
        return driver::run_again();
    }
    if deaths::play() || peer::play() {
        return ExitCode::SUCCESS;
    }
    // Made once: the driver's descriptors and threads come with it.
    let context = frames::context();
    let words = cuda_ipc::Words::create(1).unwrap().attach(&context).unwrap();
    let outcome = harness::run(&[
        ("frames", frames::TESTS),
        ("leases", leases::TESTS),
        ("mirror", mirror::TESTS),
        ("processes", processes::TESTS),
        ("mending", mending::TESTS),
        ("peers", peers::TESTS),
        ("fallback", fallback::TESTS),
        ("in_file", in_file::TESTS),
        ("deaths", deaths::TESTS),
    ]);
    calls::on(std::slice::from_ref(context.device()));
    calls::ordered_by(words.ordering());
    calls::note("role", "on_gpu", &calls::Calls::now());
    outcome
}
