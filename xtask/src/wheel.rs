//! `cargo xtask wheel`: build the wheel and try it as a stranger would get it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::python::{Interpreter, Tools, Venv};
use crate::tally::{Report, Tally};
use crate::verb::{Verb, always};
use crate::{Failure, Flags, Workspace, python, screen};

pub(crate) const VERB: Verb = Verb {
    name: "wheel",
    usage: "",
    summary: "build the wheel into dist/, install it afresh, run its tests, ruff, mypy, stubtest",
    exists: always,
    run,
};

/// Everything in Python.
const SOURCES: [&str; 6] = [
    "st-python",
    "bench/python",
    "tests/demo",
    "tests/gpu",
    "tests/soak",
    "tests/test_benchmark.py",
];
const CONFIG: &str = "pyproject.toml";
fn run(workspace: &Workspace, flags: Flags) -> Result<(), Failure> {
    flags.finish()?;
    let (interpreters, _) = python::interpreters()?;
    let interpreter = &interpreters[0];
    screen::step("Build");
    let wheel = build(workspace, interpreter, &workspace.root.join("dist"))?;
    screen::step("Install");
    let tools = Tools::prepare(workspace, interpreter, &["test", "lint"])?;
    let venv = Venv::fresh(&workspace.target.join("python/wheel"), interpreter, &tools)?;
    venv.install(&tools, &wheel)?;

    let mut report = Report::default();
    screen::step("Tests");
    let mut tally = Tally::default();
    let outcome = venv.pytest(workspace, &[], None, &mut tally);
    report.add("pytest", tally, &outcome);
    let checks: [(&str, &[&str]); 4] = [
        ("ruff check", &["-m", "ruff", "check"]),
        ("ruff format", &["-m", "ruff", "format", "--check"]),
        ("mypy", &["-m", "mypy", "--strict", "--config-file", CONFIG, "-p", "shared_tensor"]),
        (
            "stubtest",
            &[
                "-m",
                "mypy.stubtest",
                "--mypy-config-file",
                CONFIG,
                "--allowlist",
                "st-python/stubtest-allow.txt",
                "--ignore-unused-allowlist",
                "shared_tensor",
            ],
        ),
    ];
    for (name, arguments) in checks {
        screen::step(name);
        let sources: &[&str] = if name.starts_with("ruff") { &SOURCES } else { &[] };
        let outcome = venv.python().args(arguments).args(sources).within(&workspace.root).run();
        report.add(name, Tally::of(&outcome), &outcome);
    }
    report.close()?;
    screen::line(&format!("the wheel is {}", wheel.display()));
    Ok(())
}

/// Builds the wheel and returns its path. One wheel serves every supported CPython.
pub(crate) fn build(
    workspace: &Workspace,
    interpreter: &Interpreter,
    folder: &Path,
) -> Result<PathBuf, Failure> {
    let tools = Tools::prepare(workspace, interpreter, &["build"])?;
    // Into an empty folder first: what lies in `folder` may be of another version.
    let fresh = workspace.target.join("wheel-fresh");
    let lost = |error| Failure::new(format!("{} cannot be used: {error}", fresh.display()));
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(lost)?;
    }
    tools
        .python()
        .args(["-m", "maturin", "build", "--profile", "wheel", "--locked", "--out"])
        .args([&fresh])
        .within(&workspace.root)
        .run()?;
    let mut built = fs::read_dir(&fresh).map_err(lost)?;
    let built =
        built.next().ok_or_else(|| Failure::new("maturin built no wheel"))?.map_err(lost)?;
    let wheel = folder.join(built.file_name());
    fs::create_dir_all(folder)
        .and_then(|()| fs::copy(built.path(), &wheel))
        .map_err(|error| Failure::new(format!("{} cannot be written: {error}", wheel.display())))?;
    Ok(wheel)
}
