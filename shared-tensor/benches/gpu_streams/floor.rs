//! What `tests/gpu/floor/stream.c` says.

use std::process::Command;

use serde_json::Value;

use crate::figures::PARTS;

const NAME: &str = "floor-stream";
/// Names its path, where it does not lie beside this program.
const PATH: &str = "ST_FLOOR_STREAM";

/// What it prints for these arguments, if it is there.
pub(crate) fn ask(arguments: &[&str], samples: usize) -> Option<Value> {
    let beside = std::env::current_exe().ok()?.with_file_name(NAME);
    let program = std::env::var_os(PATH).map_or(beside, Into::into);
    if !program.is_file() {
        return None;
    }
    let said = Command::new(program).args(arguments).arg(samples.to_string()).output();
    let said = said.expect("it starts");
    assert!(said.status.success(), "{NAME}: {}", String::from_utf8_lossy(&said.stderr));
    Some(serde_json::from_slice(&said.stdout).expect("a line of JSON"))
}

/// The median of a row, in microseconds.
pub(crate) fn median(said: &Value, row: &str) -> f64 {
    said[row]["p50"].as_f64().expect("a number")
}

/// Of a turn the medians of its parts, in microseconds.
pub(crate) fn parts(said: &Value, row: &str) -> [f64; PARTS] {
    std::array::from_fn(|part| said[row]["parts"][part].as_f64().expect("a number"))
}
