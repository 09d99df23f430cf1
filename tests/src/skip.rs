//! Tests that cannot run here.

use std::fs::OpenOptions;
use std::io::Write;

/// Records that `test` cannot run on this host, and why; the test then returns.
///
/// The test harness of Rust knows no such outcome and counts the test as passed. `cargo xtask test`
/// names a file in the variable `ST_SKIPS`, reads it afterwards, and counts honestly.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {test}: {reason}");
    let Some(path) = std::env::var_os("ST_SKIPS") else { return };
    let file = OpenOptions::new().append(true).create(true).open(&path);
    // One write, so that lines of tests that run at the same time stay whole.
    let line = format!("{test}: {reason}\n");
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .unwrap_or_else(|error| panic!("{} cannot be written: {error}", path.display()));
}
