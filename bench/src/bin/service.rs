//! `cargo xtask bench service [--rounds N] [--quick] [--only WORD] [--enforce]`
//!
//! The service beside bare C and beside shared-tensor 0.2.16. The table goes to the screen, everything
//! else to `bench/out/`.

use std::process::ExitCode;

use st_bench::command::Bench;

fn main() -> ExitCode {
    Bench { name: "service", plan: |planner| planner.service(), rounds: 9 }.main()
}
