//! `cargo xtask bench <name>`: the benchmarks against floors and other libraries.
//!
//! They stand in a workspace of their own, so that what they compare with is no dependency of
//! anything here. Each is a program under `bench/src/bin/`.

use crate::task::Task;
use crate::verb::Verb;
use crate::{Failure, Flags, Workspace, screen};

pub(crate) const VERB: Verb = Verb {
    name: "bench",
    usage: "NAME [its options]",
    summary: "build and run a program of bench/ (without a name: list them)",
    exists,
    run,
};

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
    screen::step(&format!("Benchmark {name}"));
    Task::cargo(["run", "--release", "--locked", "--manifest-path", "bench/Cargo.toml"])
        .args(["--bin", &name, "--"])
        .args(flags.rest())
        .within(&workspace.root)
        .run()
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
