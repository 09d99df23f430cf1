//! The target `value` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| st_fuzz::value::run(bytes));
