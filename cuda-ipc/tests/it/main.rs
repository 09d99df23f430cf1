//! The crate through its public interface, in one process and from several.
//!
//! Without `ST_GPU=require` it runs on a driver of its own, `driver/driver.c`, which is compiled here and
//! found through `LD_LIBRARY_PATH`; with it, on the device.

mod calls;
mod chunks;
mod devices;
mod driver;
mod drivers;
mod foreign;
mod forks;
mod harness;
mod hosts;
mod idle;
mod mappings;
mod parcel;
mod peer;
mod places;
mod pools;
mod process;
mod releases;
mod rooms;
#[expect(unsafe_code, reason = "forks and the driver's functions for captures have no safe form")]
mod sys;
mod transfers;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(role) = std::env::var_os(process::ROLE) {
        let role = role.to_string_lossy();
        peer::play(&role);
        calls::note("role", &role, &calls::Calls::now());
        return ExitCode::SUCCESS;
    }
    if !driver::is_device() && !driver::is_chosen() {
        return driver::run_again();
    }
    harness::run(&[
        ("devices", devices::TESTS),
        ("chunks", chunks::TESTS),
        ("mappings", mappings::TESTS),
        ("releases", releases::TESTS),
        ("words", words::TESTS),
        ("hosts", hosts::TESTS),
        ("places", places::TESTS),
        ("transfers", transfers::TESTS),
        ("rooms", rooms::TESTS),
        ("idle", idle::TESTS),
        ("foreign", foreign::TESTS),
        ("pools", pools::TESTS),
        ("drivers", drivers::TESTS),
        ("forks", forks::TESTS),
    ])
}
