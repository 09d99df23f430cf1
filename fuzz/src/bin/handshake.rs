//! The target `handshake` under libFuzzer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| st_fuzz::handshake::run(bytes));
