//! `cargo xtask bench streams [--rounds N] [--quick] [--only WORD] [--enforce]`
//!
//! Streams beside bare C and beside other libraries, from Rust and from Python. The table goes to the
//! screen, everything else to `bench/out/`.

use std::process::ExitCode;

use st_bench::command::Bench;

fn main() -> ExitCode {
    Bench { name: "streams", plan: |planner| planner.streams(), rounds: 9 }.main()
}
