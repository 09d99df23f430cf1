//! The parts of the bundle that come from this clone: programs, the driver, the package's tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::programs::{FLOORS, PROGRAMS, Program, Target};
use crate::task::Task;
use crate::{Failure, Workspace, screen};

/// What goes in as it is: from the clone, to the bundle.
const COPIED: &[(&str, &str)] = &[
    ("tests/gpu/run.sh", "run.sh"),
    ("tests/gpu/gpu_bundle", "driver/gpu_bundle"),
    ("st-python/tests/conftest.py", "python/conftest.py"),
    ("st-python/tests/gpu", "python/gpu"),
    ("st-python/tests/support", "python/support"),
    ("pyproject.toml", "python/pyproject.toml"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
];

/// Builds every program and puts it in, without what only a debugger reads.
pub(crate) fn programs(workspace: &Workspace, bundle: &Path) -> Result<(), Failure> {
    let folder = bundle.join("programs");
    let mut packages: Vec<&str> = PROGRAMS.iter().map(|program| program.package).collect();
    packages.dedup();
    for package in packages {
        let wanted: Vec<&Program> = PROGRAMS.iter().filter(|it| it.package == package).collect();
        let built = build(workspace, package, &wanted)?;
        for program in wanted {
            let to = folder.join(program.file());
            // A soak is of a test program that is there already.
            if to.exists() {
                continue;
            }
            let (kind, name) = kind_and_name(program.target);
            let from = built.get(&(kind.to_owned(), name.to_owned())).ok_or_else(|| {
                Failure::new(format!("cargo built no {kind} `{name}` of {package}"))
            })?;
            copy_file(from, &to)?;
            Task::new("strip").args([&to]).run()?;
        }
    }
    Ok(())
}

/// Compiles what the figures are compared with.
pub(crate) fn floors(workspace: &Workspace, bundle: &Path) -> Result<(), Failure> {
    for (source, name) in FLOORS {
        let to = bundle.join("programs").join(name);
        Task::new("cc")
            .args(["-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
            .args([&to, &workspace.root.join(source)])
            .args(["-ldl"])
            .run()?;
    }
    Ok(())
}

fn kind_and_name(target: Target) -> (&'static str, &'static str) {
    match target {
        Target::Test(name) => ("test", name),
        Target::Example(name) => ("example", name),
        Target::Bench(name) => ("bench", name),
    }
}

type Built = BTreeMap<(String, String), PathBuf>;

fn build(workspace: &Workspace, package: &str, wanted: &[&Program]) -> Result<Built, Failure> {
    let mut task = Task::cargo(["build", "--release", "--locked", "--package", package])
        .args(["--message-format", "json-render-diagnostics"])
        .within(&workspace.root);
    for program in wanted {
        let (kind, name) = kind_and_name(program.target);
        task = task.args([format!("--{kind}"), name.to_owned()]);
    }
    Ok(task.read()?.lines().filter_map(executable).collect())
}

/// Reads a message of cargo's about a program: kind, name, path.
fn executable(message: &str) -> Option<((String, String), PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let path = message["executable"].as_str()?;
    let target = &message["target"];
    let kind = target["kind"].as_array()?.first()?.as_str()?;
    Some(((kind.to_owned(), target["name"].as_str()?.to_owned()), PathBuf::from(path)))
}

/// Copies what needs no building.
pub(crate) fn copied(workspace: &Workspace, bundle: &Path) -> Result<(), Failure> {
    for (from, to) in COPIED {
        copy(&workspace.root.join(from), &bundle.join(to))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    if from.is_file() {
        return copy_file(from, to);
    }
    let lost = |error| Failure::new(format!("{} cannot be read: {error}", from.display()));
    for entry in fs::read_dir(from).map_err(lost)? {
        let entry = entry.map_err(lost)?;
        if entry.file_name() != "__pycache__" {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn copy_file(from: &Path, to: &Path) -> Result<(), Failure> {
    let made = to.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::copy(from, to)).map(drop).map_err(|error| {
        Failure::new(format!("{} cannot be copied to {}: {error}", from.display(), to.display()))
    })
}

/// What `git` says of this clone; a clone without it has no commit to name.
pub(crate) fn commit(workspace: &Workspace) -> String {
    let git =
        |arguments: &[&str]| Task::new("git").args(arguments).within(&workspace.root).capture();
    let Ok(commit) = git(&["rev-parse", "HEAD"]) else {
        screen::line("  git does not say which commit this is");
        return "unknown".to_owned();
    };
    let is_clean = git(&["status", "--porcelain"]).is_ok_and(|said| said.trim().is_empty());
    format!("{}{}", commit.trim(), if is_clean { "" } else { ", changed" })
}

#[cfg(test)]
mod tests {
    use super::{COPIED, copied, executable};
    use crate::Workspace;

    #[test]
    fn messages_about_programs_are_read() {
        let message = r#"{"executable": "/t/it", "target": {"kind": ["test"], "name": "it"}}"#;
        let ((kind, name), path) = executable(message).unwrap();
        assert_eq!((kind.as_str(), name.as_str(), path.to_str()), ("test", "it", Some("/t/it")));
        assert_eq!(executable(r#"{"executable": null, "target": {}}"#), None);
        assert_eq!(executable("warning"), None);
    }

    #[test]
    fn what_is_copied_is_there() {
        let workspace = Workspace::find().unwrap();
        let folder = workspace.target.join(format!("gpu-parts-{}", std::process::id()));
        copied(&workspace, &folder).unwrap();
        for (_, to) in COPIED {
            assert!(folder.join(to).exists(), "{to}");
        }
        assert!(folder.join("driver/gpu_bundle/__main__.py").is_file());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
