//! `cargo xtask soak`: minutes of coming, going and dying, and whether anything grows meanwhile.

use crate::python::{Tools, Venv};
use crate::task::Task;
use crate::verb::Verb;
use crate::{Failure, Flags, Workspace, python, screen, wheel};

pub(crate) const VERB: Verb = Verb {
    name: "soak",
    usage: "[--python] [--seconds N] [--seed S]",
    summary: "readers and writers that come, go and are killed, in Rust or in Python; what grows?",
    exists: |workspace| workspace.has("tests/src/bin/st-soak.rs"),
    run,
};

/// Growth is judged from here on.
const SECONDS: u32 = 60;
/// What the soak in Python needs beside the wheel.
const LIST: &str = "test";
const PROGRAM: &str = "tests/soak";

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let in_python = flags.switch("--python");
    let seconds = flags.value::<u32>("--seconds")?.unwrap_or(SECONDS);
    let seed = flags.value::<u64>("--seed")?;
    flags.finish()?;
    let mut task =
        if in_python { python(workspace, seconds)? } else { rust(seconds).within(&workspace.root) };
    if let Some(seed) = seed {
        task = task.args(["--seed", &seed.to_string()]);
    }
    screen::step(&format!("Soak, {seconds} seconds"));
    task.run()
}

fn rust(seconds: u32) -> Task {
    let minutes = f64::from(seconds) / 60.0;
    Task::cargo(["run", "--release", "--locked", "-p", "st-tests", "--bin", "st-soak"]).args([
        "--",
        "--minutes",
        &minutes.to_string(),
    ])
}

fn python(workspace: &Workspace, seconds: u32) -> Result<Task, Failure> {
    screen::step("Build the wheel");
    let (interpreters, _) = python::interpreters()?;
    let interpreter = &interpreters[0];
    let wheel = wheel::build(workspace, interpreter, &workspace.target.join("wheels"))?;
    let tools = Tools::prepare(workspace, interpreter, &[LIST])?;
    let venv = Venv::fresh(&workspace.target.join("python/soak"), interpreter, &tools)?;
    venv.install(&tools, &wheel)?;
    screen::line(&format!("  Python {} with the wheel", interpreter.version));
    let program = workspace.root.join(PROGRAM);
    Ok(venv.python().args([program]).args(["--seconds", &seconds.to_string()]))
}
