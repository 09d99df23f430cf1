//! The demo: photographs streamed by one process to three others, through the death of the writer.
//!
//! [`main`] is the whole program `st-demo`. Started by a person it is the stage (`acts`): it
//! creates the stream, starts a writer and three readers, each a process of its own, and asks them
//! for their figures. Started by itself with `--role` it is one of those processes. With `--python`
//! the stage has most roles played by Python (`company`), from `tests/demo`: what a role is told and
//! answers is the same in both languages (`writer`, `reader`, `report`, `label`).
//!
//! Every frame differs from its neighbours in every part, carries the number it must have and a
//! checksum over what it must hold (`label`), and is checked by every reader that reads it.

mod acts;
mod arguments;
mod cast;
mod checks;
mod commands;
mod company;
mod credit;
mod histogram;
mod label;
mod photograph;
mod reader;
mod report;
mod screen;
mod table;
mod writer;

use std::ffi::OsString;
use std::process::ExitCode;

use arguments::Arguments;
use company::Company;
use rustix::time::{ClockId, clock_gettime};

/// What the stream is called.
const STREAM: &str = "photographs";

/// Why the demo ended before its end.
#[derive(Debug)]
enum Stop {
    /// Ctrl-C, or another polite request to end.
    Interrupted,
    /// A check failed, or something could not be done.
    Failed(String),
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Nanoseconds of the clock that all processes of a host share.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Runs the program with the arguments after its name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let outcome = Arguments::parse(arguments).map_err(Stop::Failed).and_then(|it| match it {
        Arguments::Stage { seconds, python, photographs } => {
            acts::run(seconds, &Company::new(python), &photographs)
        }
        Arguments::Writer { number, photographs } => writer::serve(number, &photographs),
        Arguments::Reader(manner) => reader::serve(manner),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Interrupted) => {
            eprintln!("interrupted: every process has ended, nothing is left in /dev/shm");
            ExitCode::from(130)
        }
        Err(Stop::Failed(why)) => {
            eprintln!("the demo failed: {why}");
            ExitCode::FAILURE
        }
    }
}
