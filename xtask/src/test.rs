//! `cargo xtask test`: every ring of tests, from a bare clone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::python::{Interpreter, Tools, Venv};
use crate::tally::{Report, Tally};
use crate::task::Task;
use crate::verb::{Verb, always};
use crate::{Failure, Flags, Workspace, consumers, fuzz, python, screen, wheel};

pub(crate) const VERB: Verb = Verb {
    name: "test",
    usage: "[--no-torch]",
    summary: "all tests, Rust and Python, with all their set-up (--no-torch: not those that need it)",
    exists: always,
    run,
};

/// Examples end by themselves, within seconds. This is for the one that does not: a hang is a failure,
/// not a longer wait.
const PROGRAM_LIMIT: Duration = Duration::from_secs(300);

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let is_without_torch = flags.switch("--no-torch");
    flags.finish()?;
    all(workspace, is_without_torch)
}

pub(crate) fn all(workspace: &Workspace, is_without_torch: bool) -> Result<(), Failure> {
    let mut report = Report::default();
    rust(workspace, &mut report)?;
    examples(workspace, &mut report);
    consumers::run(workspace, &mut report)?;
    fuzz::near_seeds(workspace, &mut report);
    python(workspace, is_without_torch, &mut report);
    report.close()
}

fn rust(workspace: &Workspace, report: &mut Report) -> Result<(), Failure> {
    let cargo = |ring: &str, targets: &[&str]| {
        (ring.to_owned(), Task::cargo(["test", "--locked", "--no-fail-fast"]).args(targets))
    };
    let (faults, leaves) = cargo("Rust, faults at every kernel call", &["--test", "it"]);
    let rings = [
        cargo("Rust, unit and integration", &["--lib", "--bins", "--tests", "--examples"]),
        cargo("Rust, documentation", &["--doc"]),
        // The same suites, and more of them, with every call to the kernel a place to fail or die.
        (
            faults,
            leaves
                .args(["-p", "shm-core", "-p", "shm-lock", "-p", "rpc-uds"])
                .env("RUSTFLAGS", "--cfg st_fault")
                .env("CARGO_TARGET_DIR", workspace.target.join("fault")),
        ),
    ];
    for (ring, task) in rings {
        screen::step(&ring);
        let skips = SkipFile::new(workspace)?;
        let mut tally = Tally::default();
        let outcome = task
            .within(&workspace.root)
            .env("ST_SKIPS", &skips.0)
            .tee(|line| tally += Tally::of_libtest(line).unwrap_or_default());
        let skipped = skips.read();
        // libtest counts a test that found its ground missing as passed.
        let count = u32::try_from(skipped.len()).unwrap_or(u32::MAX).min(tally.passed);
        tally.passed -= count;
        tally.skipped += count;
        report.add(&ring, tally, &outcome);
        report.add_skips(skipped);
    }
    Ok(())
}

/// The file in which a Rust test that cannot run here leaves one line, `name: reason`.
struct SkipFile(std::path::PathBuf);

impl SkipFile {
    fn new(workspace: &Workspace) -> Result<Self, Failure> {
        let path = workspace.target.join("skips.txt");
        fs::create_dir_all(&workspace.target).and_then(|()| fs::write(&path, "")).map_err(
            |error| Failure::new(format!("{} cannot be written: {error}", path.display())),
        )?;
        Ok(Self(path))
    }

    fn read(&self) -> Vec<String> {
        fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// Every example of a published crate runs alone, without arguments, and ends.
fn examples(workspace: &Workspace, report: &mut Report) {
    let mut tally = Tally::default();
    let ring = "Rust, examples";
    screen::step(ring);
    for package in workspace.packages.iter().filter(|package| package.is_published) {
        for example in &package.examples {
            let outcome = Task::cargo([
                "run",
                "--locked",
                "--quiet",
                "-p",
                &package.name,
                "--example",
                example,
            ])
            .within(&workspace.root)
            .limit(PROGRAM_LIMIT)
            .run();
            if let Err(failure) = &outcome {
                screen::error(&failure.to_string());
            }
            tally += Tally::of(&outcome);
        }
    }
    report.add(ring, tally, &Ok(()));
}

/// Names the Python whose client the test in rpc-uds starts.
const OLD_PYTHON: &str = "RPC_UDS_OLD_PYTHON";
const OLD_CLIENT_RING: &str = "Rust, with the client of shared-tensor 0.2";
const WITH_TORCH_RING: &str = "Python with torch";
/// The faults of the service that must not exist, also where they do: it stands on torch.
const OTHER_SERVICE_RING: &str = "Python, faults of the service";
const FAULTS: &[&str] = &["service_faults"];

/// The folders of tests that have some for torch.
const WITH_TORCH: &[&str] = &["native", "modules", "service", "gpu"];

fn python(workspace: &Workspace, is_without_torch: bool, report: &mut Report) {
    screen::step("Python, the wheel");
    let (interpreters, unusable) = match python::interpreters() {
        Ok(found) => found,
        Err(failure) => {
            let outcome = Err(failure);
            return report.add("Python", Tally::default(), &outcome);
        }
    };
    for reason in unusable {
        screen::line(&format!("  left out: {reason}"));
    }
    let built = wheel::build(workspace, &interpreters[0], &workspace.target.join("wheels"));
    let wheel = match built {
        Ok(wheel) => wheel,
        Err(failure) => {
            let outcome = Err(failure);
            return report.add("Python, the wheel", Tally::default(), &outcome);
        }
    };
    for (index, interpreter) in interpreters.iter().enumerate() {
        // One of them also has the library whose contract is kept, to compare with.
        let lists: &[&str] = if index == 0 { &["test", "contract"] } else { &["test"] };
        let ring = format!("Python {}", interpreter.version);
        screen::step(&ring);
        let mut tally = Tally::default();
        let outcome = Tools::prepare(workspace, interpreter, lists).and_then(|tools| {
            pytest(workspace, interpreter, &wheel, &tools, &[], None, &mut tally)
        });
        report.add(ring, tally, &outcome);
    }
    if is_without_torch {
        let rings = [WITH_TORCH_RING, OTHER_SERVICE_RING, OLD_CLIENT_RING];
        return report.add_skips(rings.map(|ring| format!("{ring}: --no-torch was said")));
    }
    screen::step(WITH_TORCH_RING);
    let interpreter = &interpreters[0];
    let mut tally = Tally::default();
    let tools = python::with_models(workspace, interpreter);
    let outcome = tools.as_ref().map_err(Clone::clone).and_then(|tools| {
        pytest(workspace, interpreter, &wheel, tools, WITH_TORCH, None, &mut tally)
    });
    report.add(WITH_TORCH_RING, tally, &outcome);
    let Ok(tools) = tools else { return };
    screen::step(OTHER_SERVICE_RING);
    let mut tally = Tally::default();
    let other = python::with_other_service(workspace, interpreter, &tools);
    let outcome = other.as_ref().map_err(Clone::clone).and_then(|other| {
        let other = Some(other.program());
        pytest(workspace, interpreter, &wheel, &tools, FAULTS, other.as_deref(), &mut tally)
    });
    report.add(OTHER_SERVICE_RING, tally, &outcome);
    if let Ok(other) = other {
        old_client(workspace, &other, report);
    }
}

/// The client of the releases before against the server of now.
fn old_client(workspace: &Workspace, other: &Venv, report: &mut Report) {
    screen::step(OLD_CLIENT_RING);
    let mut tally = Tally::default();
    let outcome =
        Task::cargo(["test", "--locked", "-p", "rpc-uds", "--test", "it", "--", "old_client::"])
            .within(&workspace.root)
            .env(OLD_PYTHON, other.program())
            .tee(|line| tally += Tally::of_libtest(line).unwrap_or_default());
    report.add(OLD_CLIENT_RING, tally, &outcome);
}

fn pytest(
    workspace: &Workspace,
    interpreter: &Interpreter,
    wheel: &Path,
    tools: &Tools,
    tests: &[&str],
    other: Option<&Path>,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let folder = workspace.target.join("python").join(&interpreter.version);
    let venv = Venv::fresh(&folder, interpreter, tools)?;
    venv.install(tools, wheel)?;
    venv.pytest(workspace, tests, other, tally)
}
