//! `cargo xtask bench <name>`: the benchmarks against floors and other libraries.
//!
//! They stand in a workspace of their own, so that what they compare with is no dependency of
//! anything here. Each is a program under `bench/src/bin/`. What it measures from Python, it measures
//! in an environment that is made here: the wheel as it would be released, and its peers.

use std::path::PathBuf;

use crate::python::{Interpreter, Tools, Venv};
use crate::task::Task;
use crate::verb::Verb;
use crate::{Failure, Flags, Workspace, python, screen, wheel};

pub(crate) const VERB: Verb = Verb {
    name: "bench",
    usage: "NAME [--without-python] [its options]",
    summary: "build and run a program of bench/ (without a name: list them)",
    exists,
    run,
};

/// The interpreter, for the program.
const PYTHON: &str = "ST_BENCH_PYTHON";
/// The interpreter that has the other service.
const RIVAL: &str = "ST_BENCH_RIVAL";
/// The benchmark that has one.
const SERVICE: &str = "service";
/// What the Python half is compared with; only the first is needed.
const PEERS: &str = "bench/python/requirements.txt";

fn exists(workspace: &Workspace) -> bool {
    !names(workspace).is_empty()
}

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let names = names(workspace);
    let Some(name) = flags.word() else {
        flags.finish()?;
        screen::line(&format!(
            "cargo xtask bench NAME, where NAME is one of: {}",
            names.join(", ")
        ));
        return Ok(());
    };
    if !names.contains(&name) {
        return Err(Failure::new(format!("`{name}` is none of: {}", names.join(", "))));
    }
    let without_python = flags.switch("--without-python");
    let mut task =
        Task::cargo(["run", "--release", "--locked", "--manifest-path", "bench/Cargo.toml"])
            .args(["--bin", &name, "--"])
            .args(flags.rest())
            .within(&workspace.root)
            .without_env(PYTHON);
    if !without_python {
        let (interpreters, _) = python::interpreters()?;
        let interpreter = &interpreters[0];
        task = if name == SERVICE {
            let (python, rival) = with_services(workspace, interpreter)?;
            task.env(PYTHON, python).env(RIVAL, rival)
        } else {
            task.env(PYTHON, with_streams(workspace, interpreter)?)
        };
    }
    screen::step(&format!("Benchmark {name}"));
    task.run()
}

/// A Python with the wheel and models, and one with the other service instead, which has the same name.
fn with_services(
    workspace: &Workspace,
    interpreter: &Interpreter,
) -> Result<(PathBuf, PathBuf), Failure> {
    screen::step("Python, the wheel, models and the other service");
    let wheel = wheel::build(workspace, interpreter, &workspace.target.join("wheels"))?;
    let models = python::with_models(workspace, interpreter)?;
    let own = Venv::fresh(&workspace.target.join("python/bench-service"), interpreter, &models)?;
    own.install(&models, &wheel)?;
    let other = python::with_other_service(workspace, interpreter, &models)?;
    Ok((own.program(), other.program()))
}

/// A Python with the wheel and the peers that install.
fn with_streams(workspace: &Workspace, interpreter: &Interpreter) -> Result<PathBuf, Failure> {
    screen::step("Python, the wheel and its peers");
    let wheel = wheel::build(workspace, interpreter, &workspace.target.join("wheels"))?;
    let peers = python::requirements(&workspace.root.join(PEERS))?;
    let tools = Tools::with(interpreter, "bench", &peers, &[]).or_else(|failure| {
        screen::error(&format!("{failure}; without {}", peers[1..].join(", ")));
        Tools::with(interpreter, "bench", &peers[..1], &[])
    })?;
    let venv = Venv::fresh(&workspace.target.join("python/bench"), interpreter, &tools)?;
    venv.install(&tools, &wheel)?;
    Ok(venv.program())
}

fn names(workspace: &Workspace) -> Vec<String> {
    let programs = std::fs::read_dir(workspace.root.join("bench/src/bin")).into_iter().flatten();
    let mut names: Vec<String> = programs
        .flatten()
        .filter_map(|entry| Some(entry.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}
