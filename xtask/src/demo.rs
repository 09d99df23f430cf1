//! `cargo xtask demo`: photographs streamed between processes, with a writer killed on the way.

use std::path::PathBuf;

use crate::python::{Interpreter, Tools};
use crate::task::Task;
use crate::verb::Verb;
use crate::{Failure, Flags, Workspace, python, screen};

pub(crate) const VERB: Verb = Verb {
    name: "demo",
    usage: "[--seconds N]",
    summary: "stream photographs between processes, kill the writer, watch the readers go on",
    exists: |workspace| workspace.has("tests/src/bin/st-demo.rs"),
    run,
};

/// The wheel that brings the photographs. Only its files are wanted, none of its code is run.
const PACKAGE: &str = "scikit-image>=0.19";

/// Photographs in colour and one in grey, bundled with every release since that one.
const PHOTOGRAPHS: &[&str] = &[
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "retina.jpg",
    "rocket.jpg",
];

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let seconds = flags.value::<u32>("--seconds")?;
    flags.finish()?;
    screen::step("Photographs");
    let (interpreters, _) = python::interpreters()?;
    let photographs = photographs(&interpreters[0])?;
    screen::line(&format!("  {} photographs of scikit-image", photographs.len()));
    screen::step("Build");
    let program = ["--release", "--locked", "-p", "st-tests", "--bin", "st-demo"];
    Task::cargo(["build"]).args(program).within(&workspace.root).run()?;
    screen::step("Demo");
    let mut demo = Task::new(workspace.target.join("release/st-demo"));
    if let Some(seconds) = seconds {
        demo = demo.args(["--seconds", &seconds.to_string()]);
    }
    Err(demo.args(photographs).within(&workspace.root).replace())
}

fn photographs(interpreter: &Interpreter) -> Result<Vec<PathBuf>, Failure> {
    let tools = Tools::with(
        interpreter,
        "photographs",
        &[PACKAGE.to_owned()],
        &["--no-deps", "--only-binary", ":all:"],
    )?;
    let folder = tools.packages()?.join("skimage/data");
    let found: Vec<PathBuf> =
        PHOTOGRAPHS.iter().map(|name| folder.join(name)).filter(|path| path.is_file()).collect();
    if found.is_empty() {
        return Err(Failure::new(format!("no photograph was found in {}", folder.display())));
    }
    Ok(found)
}
