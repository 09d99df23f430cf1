//! `cargo xtask crash`: kill processes at random moments and check what is left.

use crate::task::Task;
use crate::verb::Verb;
use crate::{Failure, Flags, Workspace, screen};

pub(crate) const VERB: Verb = Verb {
    name: "crash",
    usage: "[--iterations N] [--seed S]",
    summary: "kill writers, readers and lock owners at random; check integrity after each",
    exists: |workspace| workspace.has("tests/src/bin/st-crash.rs"),
    run,
};

const ITERATIONS: u64 = 200;

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let iterations = flags.value::<u64>("--iterations")?.unwrap_or(ITERATIONS);
    let seed = flags.value::<u64>("--seed")?;
    flags.finish()?;
    screen::step(&format!("Crash test, {iterations} iterations"));
    let mut task =
        Task::cargo(["run", "--release", "--locked", "-p", "st-tests", "--bin", "st-crash"])
            .args(["--", "--iterations", &iterations.to_string()])
            .within(&workspace.root);
    if let Some(seed) = seed {
        task = task.args(["--seed", &seed.to_string()]);
    }
    task.run()
}
