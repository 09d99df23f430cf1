//! The pages of this repository whose snippets rustdoc compiles and runs as tests.
//!
//! Every page with Rust in it is listed here, or included by the crate that it belongs to.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
