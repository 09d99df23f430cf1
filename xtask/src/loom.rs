//! `cargo xtask loom`: the models of the lock-free state machines, and proof that they can fail.
//!
//! A crate has loom models when it has a list of mutants, `src/loom_mutants.txt`: one per line, a
//! name and then what the mutant leaves out. The shipped code carries each of them behind
//! `cfg(st_mutant = "name")`, and every one must make a model fail.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::tally::{Report, Tally};
use crate::task::Task;
use crate::verb::Verb;
use crate::workspace::Package;
use crate::{Failure, Flags, Workspace, screen};

pub(crate) const VERB: Verb = Verb {
    name: "loom",
    usage: "[--mutants]",
    summary: "run the loom models (--mutants: and check that they catch every listed mutant)",
    exists: |workspace| workspace.packages.iter().any(|package| list(package).exists()),
    run,
};

/// Fewer would not show that a model looks at more than one thing.
const MUTANTS_MIN: usize = 5;

/// Interleavings with more forced switches find little more and take far longer.
const PREEMPTIONS: &str = "3";

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let mutants = flags.switch("--mutants");
    flags.finish()?;
    let mut report = Report::default();
    let mut verdicts = vec![["crate", "mutant", "verdict", "by"].map(str::to_owned).to_vec()];
    for package in workspace.packages.iter().filter(|package| list(package).exists()) {
        let name = &package.name;
        screen::step(&format!("Models of {name}"));
        let mut tally = Tally::default();
        let outcome = models(workspace, name, &mut tally);
        report.add(format!("{name}, models"), tally, &outcome);
        if mutants && outcome.is_ok() {
            let mut tally = Tally::default();
            let outcome = hunt(workspace, package, &mut tally, &mut verdicts);
            report.add(format!("{name}, mutants"), tally, &outcome);
        }
    }
    if mutants {
        screen::step("Mutants");
        screen::table(&verdicts);
    }
    report.close()
}

/// Runs the models of one crate as shipped.
fn models(workspace: &Workspace, package: &str, tally: &mut Tally) -> Result<(), Failure> {
    let models = Models::build(workspace, package, None)?;
    models.task().tee(|line| *tally += Tally::of_libtest(line).unwrap_or_default())?;
    match tally.passed {
        0 => Err(Failure::new(format!("{package} lists mutants but has no test named loom_*"))),
        _ => Ok(()),
    }
}

/// Runs the models of one crate against each of its mutants. A caught one is a test passed.
fn hunt(
    workspace: &Workspace,
    package: &Package,
    tally: &mut Tally,
    verdicts: &mut Vec<Vec<String>>,
) -> Result<(), Failure> {
    let path = list(package);
    let text = fs::read_to_string(&path)
        .map_err(|error| Failure::new(format!("{} cannot be read: {error}", path.display())))?;
    let mutants = names(&text);
    for mutant in &mutants {
        screen::step(&format!("Mutant {mutant} of {}", package.name));
        let catchers = Models::build(workspace, &package.name, Some(mutant))?.catchers()?;
        let caught = !catchers.is_empty();
        tally.passed += u32::from(caught);
        tally.failed += u32::from(!caught);
        let verdict = if caught { "caught" } else { "SURVIVED" };
        let by = catchers.join(", ");
        screen::line(&format!("  {verdict} {by}"));
        verdicts.push([package.name.as_str(), mutant, verdict, &by].map(str::to_owned).to_vec());
    }
    match mutants.len() {
        MUTANTS_MIN.. => Ok(()),
        fewer => Err(Failure::new(format!(
            "{} lists {fewer} mutants, fewer than {MUTANTS_MIN}",
            path.display()
        ))),
    }
}

fn list(package: &Package) -> PathBuf {
    package.folder.join("src/loom_mutants.txt")
}

fn names(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()).collect()
}

/// A built test program of a crate under loom.
struct Models {
    program: PathBuf,
}

impl Models {
    /// Builds with `cargo rustc`, because flags given there reach this one crate: a mutant rebuilds
    /// the crate and nothing that it depends on.
    fn build(workspace: &Workspace, package: &str, mutant: Option<&str>) -> Result<Self, Failure> {
        let mut task = Task::cargo(["rustc", "--locked", "--package", package, "--lib"])
            // The profile `bench` of `cargo rustc` is: optimised, and with the tests compiled in.
            .args(["--profile", "bench", "--message-format", "json-render-diagnostics"])
            .within(&workspace.root)
            // Under loom whole modules are left out; lints are for the build that has them.
            .env("RUSTFLAGS", "--cfg loom --cap-lints allow")
            .env("CARGO_TARGET_DIR", workspace.target.join("loom"));
        if let Some(mutant) = mutant {
            task = task.args(["--", "--cfg", &format!("st_mutant=\"{mutant}\"")]);
        }
        let messages = task.read()?;
        let program = messages.lines().filter_map(test_program).next_back();
        Ok(Self {
            program: program
                .ok_or_else(|| Failure::new(format!("{package} has no test program to run")))?,
        })
    }

    fn task(&self) -> Task {
        let bound =
            std::env::var("LOOM_MAX_PREEMPTIONS").unwrap_or_else(|_| PREEMPTIONS.to_owned());
        Task::new(&self.program).args(["loom_"]).env("LOOM_MAX_PREEMPTIONS", bound)
    }

    /// The tests that fail; empty when none does.
    fn catchers(&self) -> Result<Vec<String>, Failure> {
        // One at a time, so that the last one begun is known when the program dies.
        let (status, said) = self.task().args(["--test-threads", "1"]).observe()?;
        let mut failed = failed_tests(&said);
        if failed.is_empty() && !status.success() {
            // A model that panics while it unwinds takes the whole program down.
            let begun = begun_test(&said).unwrap_or_else(|| "before any model".to_owned());
            failed.push(format!("{begun} ({status})"));
        }
        Ok(failed)
    }
}

/// Reads lines such as `test word::loom_two_takers ... FAILED`.
fn failed_tests(said: &str) -> Vec<String> {
    let named = |line: &str| Some(leaf(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?));
    said.lines().filter_map(named).collect()
}

/// Reads a last line such as `test word::loom_two_takers ... `, without an outcome.
fn begun_test(said: &str) -> Option<String> {
    let (name, rest) = said.rsplit_once("test ")?.1.split_once(" ... ")?;
    let has_outcome = ["ok", "FAILED"].iter().any(|outcome| rest.starts_with(outcome));
    (!has_outcome).then(|| leaf(name))
}

fn leaf(path: &str) -> String {
    path.rsplit("::").next().unwrap_or(path).to_owned()
}

fn test_program(message: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    Some(PathBuf::from(message["executable"].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::{begun_test, failed_tests, names, test_program};

    #[test]
    fn mutants_are_the_first_words() {
        assert_eq!(
            names("# why\nrelaxed_unlock  unlock without Release\n\n no_recheck\n"),
            ["relaxed_unlock", "no_recheck"]
        );
    }

    #[test]
    fn failing_tests_are_named() {
        let said =
            "test word::loom_a ... ok\ntest word::tests::loom_b ... FAILED\ntest result: FAILED";
        assert_eq!(failed_tests(said), ["loom_b"]);
    }

    #[test]
    fn the_test_that_took_the_program_down_is_named() {
        let said = "test word::loom_a ... ok\ntest word::tests::loom_b ... ";
        assert_eq!(begun_test(said).as_deref(), Some("loom_b"));
        assert_eq!(begun_test("test word::loom_a ... ok\n"), None);
        assert_eq!(begun_test(""), None);
    }

    #[test]
    fn the_test_program_is_found_in_the_messages_of_cargo() {
        let found = test_program(r#"{"reason":"compiler-artifact","executable":"/t/shm_lock-1"}"#);
        assert_eq!(found.unwrap().to_str(), Some("/t/shm_lock-1"));
        assert!(test_program(r#"{"reason":"compiler-artifact","executable":null}"#).is_none());
    }
}
