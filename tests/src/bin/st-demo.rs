//! The demo of shared-tensor, and every process that it starts. See `st_tests::demo`.

use std::process::ExitCode;

fn main() -> ExitCode {
    st_tests::demo::main(std::env::args_os().skip(1))
}
