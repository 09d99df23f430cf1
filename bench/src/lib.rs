//! Benchmarks of shared-tensor: beside floor programs, and beside other libraries, in one run.
//!
//! A *probe* is a program that prints `name value` lines, in nanoseconds: a floor in C
//! (`bench/floors/`), or this program called again as `streams probe NAME`, or a case of `bench/python`,
//! so that every figure comes from fresh processes. A *round* runs every probe once, those that are compared one right
//! after the other; the *plan* says what is compared with what and which ratio is good enough.

pub mod chart;
pub mod command;
pub mod figures;
pub mod floor;
pub mod judgement;
pub mod machine;
pub mod plan;
pub mod probe;
pub mod program;
pub mod python;
pub mod record;
pub mod round;
pub mod screen;

/// The error of everything here: told to the person at the terminal, acted on by nobody.
pub type Fault = Box<dyn std::error::Error>;
/// The result of everything here.
pub type Outcome<T> = Result<T, Fault>;
