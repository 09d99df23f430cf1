//! The real client of shared-tensor 0.2, where there is one: a Python that has it is named by
//! `RPC_UDS_OLD_PYTHON`.

use std::process::Command;

use crate::desk::Desk;
use crate::harness::{Outcome, Skip, say, tests};

tests![the_real_one_shows_the_refusal];

/// Every kind of request it can make; each must end with the server's own words.
const PROGRAM: &str = r#"
import sys
from importlib.metadata import version
assert version("shared-tensor").startswith("0.2."), version("shared-tensor")
from shared_tensor import SharedTensorClient
from shared_tensor.errors import SharedTensorRemoteError
client = SharedTensorClient(sys.argv[1], device_index=0, timeout=600.0)
assert client.socket_path == sys.argv[1] + "-0.sock", client.socket_path
print(version("shared-tensor"), client.ping())
for ask in (client.get_server_info, client.list_endpoints, lambda: client.call("echo", 1, b"x" * 100_000),
            lambda: client.submit("echo"), lambda: client.release("object")):
    try:
        ask()
    except SharedTensorRemoteError as error:
        print(error.code, error.error_type, error)
"#;

fn the_real_one_shows_the_refusal() -> Outcome {
    let Some(python) = std::env::var_os("RPC_UDS_OLD_PYTHON") else {
        return Err(Skip("RPC_UDS_OLD_PYTHON names no Python with shared-tensor 0.2".to_owned()));
    };
    // It makes the path itself, from a base and the number of a device.
    let desk = Desk::at("base-0.sock");
    let base = desk.place.folder().join("base");
    let output = Command::new(python).args(["-c", PROGRAM]).arg(&base).output();
    let output = output.expect("the Python that is named can be started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    say(&format!("  {}", said.trim_end().replace('\n', "\n  ")));
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].ends_with("False"), "a ping is a question, not an error: {said}");
    assert_eq!(lines.len(), 6, "{said}");
    for line in &lines[1..] {
        assert!(
            line.starts_with("1 SharedTensorProtocolError Remote error [1]: this server speaks")
        );
        assert!(line.contains("upgrade the shared-tensor of this client"), "{line}");
    }
    assert_eq!(desk.stats().refused_legacy, 6);
    Ok(())
}
