//! What runs on a GPU: `cargo xtask gpu-bundle` puts it into one folder that needs no Rust, and
//! `cargo xtask gpu` runs that folder here.

pub(crate) mod bundle;
mod fetched;
mod glibc;
mod parts;
mod programs;
mod sizes;

use std::path::PathBuf;

use serde_json::Value;

use crate::python::{Interpreter, with_torch};
use crate::task::Task;
use crate::verb::Verb;
use crate::{Failure, Flags, Workspace, python, screen};

/// The folder with the program that runs a bundle.
const SOURCES: &str = "tests/gpu";

pub(crate) const VERB: Verb = Verb {
    name: "gpu",
    usage: "[tests|bench|soak|sanitize|all] [--out DIR] [--python PY] [options of run.sh]",
    summary: "build the bundle and run it on the GPUs of this machine, with a report",
    exists: |workspace| workspace.has(SOURCES),
    run,
};

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let what = flags.word().unwrap_or_else(|| "all".to_owned());
    let out = flags.value::<PathBuf>("--out")?;
    let out = out.unwrap_or_else(|| workspace.target.join("gpu-report"));
    let named = flags.value::<PathBuf>("--python")?;
    screen::step("Devices");
    let (interpreters, _) = python::interpreters()?;
    for device in devices(workspace, &interpreters[0])? {
        screen::line(&format!("  {device}"));
    }
    screen::step("Python");
    let python = if let Some(program) = named {
        program
    } else {
        let torch = with_torch(workspace, &interpreters[0])?;
        torch.and(workspace, &interpreters[0], &["test"])?.program()
    };
    let folder = workspace.target.join("gpu-bundle");
    bundle::make(workspace, &interpreters[0], &folder)?;
    screen::step("Run");
    Task::new(folder.join("run.sh"))
        .args([what])
        .args([PathBuf::from("--out"), out, PathBuf::from("--python"), python])
        .args(flags.rest())
        .run()
}

/// The names of the devices here.
fn devices(workspace: &Workspace, interpreter: &Interpreter) -> Result<Vec<String>, Failure> {
    let answer = Task::new(&interpreter.program)
        .args(["-B", "-m", "gpu_bundle.devices"])
        .env("PYTHONPATH", workspace.root.join(SOURCES))
        .without_env("PYTHONHOME")
        .capture()?;
    read_devices(&answer)
}

fn read_devices(answer: &str) -> Result<Vec<String>, Failure> {
    let said: Value = serde_json::from_str(answer)
        .map_err(|error| Failure::new(format!("the driver was asked, and {error}: {answer}")))?;
    if let Some(reason) = said["error"].as_str() {
        return Err(Failure::new(format!(
            "no CUDA device can be used here: {reason}; run this on a machine with one, or make the \
             folder with `cargo xtask gpu-bundle` and carry it there"
        )));
    }
    let text = |device: &Value, key: &str| device[key].as_str().unwrap_or("?").to_owned();
    let named = |it: &Value| format!("{}  {}", text(it, "uuid"), text(it, "name"));
    Ok(said["devices"].as_array().into_iter().flatten().map(named).collect())
}

#[cfg(test)]
mod tests {
    use super::read_devices;

    #[test]
    fn what_is_missing_is_named() {
        let failure = read_devices(r#"{"error": "libcuda.so.1 cannot be loaded"}"#).unwrap_err();
        let said = failure.to_string();
        assert!(said.contains("libcuda.so.1 cannot be loaded"), "{said}");
        assert!(said.contains("gpu-bundle"), "{said}");
        assert!(read_devices("Traceback").is_err());
    }

    #[test]
    fn devices_are_named() {
        let answer = r#"{"devices": [{"ordinal": 0, "name": "A", "uuid": "GPU-1"}]}"#;
        assert_eq!(read_devices(answer).unwrap(), ["GPU-1  A"]);
    }
}
