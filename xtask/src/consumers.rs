//! The projects under `tests/consumers/`: each uses one crate as a stranger would.
//!
//! Each is run, and the packages that it compiles are counted: not more than its line in
//! `tests/consumers/packages.txt` says, and none of what only the Python side may need.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::tally::{Report, Tally};
use crate::task::Task;
use crate::{Failure, Workspace, screen};

/// Consumer projects end by themselves, within seconds. This is for the one that does not.
const PROGRAM_LIMIT: Duration = Duration::from_secs(300);
const BUDGET: &str = "tests/consumers/packages.txt";

/// What begins like this is not for a program in Rust.
const FOREIGN: &[&str] = &["numpy", "pyo3", "python", "tch", "torch"];
/// What begins like this is for these alone.
const OF_GPUS: (&str, &[&str]) = ("cuda", &["cuda-ipc-consumer", "shared-tensor-consumer"]);

/// Runs all of them, and looks at what each is made of.
pub(crate) fn run(workspace: &Workspace, report: &mut Report) -> Result<(), Failure> {
    let mut tally = Tally::default();
    let ring = "Rust, consumer projects";
    screen::step(ring);
    let budget = fs::read_to_string(workspace.root.join(BUDGET)).unwrap_or_default();
    for manifest in workspace.consumers()? {
        let folder = manifest.parent().unwrap_or(Path::new("."));
        let ran = Task::cargo(["run", "--locked", "--manifest-path"])
            .args([&manifest])
            .within(folder)
            // One build folder for all of them: they share most of what they build.
            .env("CARGO_TARGET_DIR", workspace.target.join("consumers"))
            .limit(PROGRAM_LIMIT)
            .run();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let judged = packages(&manifest).and_then(|packages| {
            screen::line(&format!("  {name} compiles {} other packages", packages.len()));
            judge(&name, &packages, &budget)
        });
        for outcome in [ran, judged] {
            if let Err(failure) = &outcome {
                screen::error(&failure.to_string());
            }
            tally += Tally::of(&outcome);
        }
    }
    report.add(ring, tally, &Ok(()));
    Ok(())
}

/// The names of all packages that are compiled for it on this host, without itself.
fn packages(manifest: &Path) -> Result<BTreeSet<String>, Failure> {
    let said = Task::cargo(["tree", "--locked", "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{p}", "--manifest-path"])
        .args([manifest])
        .capture()?;
    // The first line is the project itself. Two versions of one package are two.
    let mut packages = BTreeSet::new();
    for line in said.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().take(2).collect();
        if words.len() == 2 {
            packages.insert(words.join(" "));
        }
    }
    Ok(packages)
}

fn judge(name: &str, packages: &BTreeSet<String>, budget: &str) -> Result<(), Failure> {
    let foreign: Vec<&str> = packages
        .iter()
        .map(String::as_str)
        .filter(|package| {
            let is_of_gpus = package.starts_with(OF_GPUS.0) && !OF_GPUS.1.contains(&name);
            is_of_gpus || FOREIGN.iter().any(|foreign| package.starts_with(foreign))
        })
        .collect();
    if !foreign.is_empty() {
        let foreign = foreign.join(", ");
        return Err(Failure::new(format!("{name} compiles {foreign}, which is not for it")));
    }
    let lines = budget.lines().filter(|line| !line.starts_with('#'));
    let allowed = lines.filter_map(|line| line.split_once(' ')).find(|(known, _)| *known == name);
    let allowed = allowed.and_then(|(_, count)| count.trim().parse().ok()).unwrap_or(0);
    let count = packages.len();
    if count <= allowed {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{name} compiles {count} other packages, its budget is {allowed}: do without, or write \
         `{name} {count}` into {BUDGET}"
    )))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::judge;

    fn judged(packages: &[&str], budget: &str) -> Result<(), String> {
        let packages: BTreeSet<String> = packages.iter().map(|it| (*it).to_owned()).collect();
        judge("a-consumer", &packages, budget).map_err(|failure| failure.to_string())
    }

    #[test]
    fn packages_within_the_budget_pass() {
        assert_eq!(judged(&["rustix v1.0.0", "libc v0.2.1"], "# why\na-consumer 2\n"), Ok(()));
        assert_eq!(judged(&[], ""), Ok(()));
    }

    #[test]
    fn one_too_many_is_found_with_the_line_to_write() {
        let said = judged(&["libc v0.2.1"], "another 5\n").unwrap_err();
        assert!(said.contains("write `a-consumer 1` into"), "{said}");
    }

    #[test]
    fn python_and_torch_are_found() {
        for package in ["pyo3-ffi v0.30.0", "torch-sys v0.1.0", "numpy v0.30.0"] {
            let said = judged(&[package], "a-consumer 9\n").unwrap_err();
            assert!(said.contains(package), "{said}");
        }
    }

    #[test]
    fn what_is_of_gpus_is_for_their_consumers() {
        let packages: BTreeSet<String> = ["cudarc v0.19.10".to_owned()].into();
        assert!(judge("rpc-uds-consumer", &packages, "rpc-uds-consumer 9\n").is_err());
        assert!(judge("cuda-ipc-consumer", &packages, "cuda-ipc-consumer 9\n").is_ok());
    }
}
