//! Readers of large frames against a writer that never pauses; the long form is `st-soak starve`.

use std::process::Command;

#[test]
fn every_read_of_a_large_frame_succeeds() {
    let output = Command::new(env!("CARGO_BIN_EXE_st-soak")).args(["starve", "--quick"]).output();
    let output = output.expect("the program started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let reads = said.lines().filter_map(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
    let reads: Vec<u64> = reads.collect();
    assert!(reads.len() == 2 && reads[0] >= 4 && reads[1] >= 12, "{said}");
}
