//! The crate through its public interface: in one process, and from many.

mod calls;
mod desk;
mod harness;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::run(&[("calls", calls::TESTS)])
}
