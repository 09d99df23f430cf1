//! `cargo xtask ci`: everything that must hold before a change is merged.

use crate::tally::{Report, Tally};
use crate::task::Task;
use crate::verb::{Verb, always};
use crate::{Failure, Flags, Workspace, screen, test, tidy};

pub(crate) const VERB: Verb = Verb {
    name: "ci",
    usage: "[--tested]",
    summary: "test, then format, clippy, free-threaded build, rustdoc, tidy, deny (--tested: the tests have just run)",
    exists: always,
    run,
};

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let tested = flags.switch("--tested");
    flags.finish()?;
    if !tested {
        test::all(workspace, false)?;
    }
    // Every check runs, so that one round shows all there is to mend.
    let mut report = Report::default();
    for (name, check) in CHECKS {
        screen::step(name);
        let outcome = check(workspace);
        report.add(*name, Tally::of(&outcome), &outcome);
    }
    screen::step("Deny");
    if cargo(workspace, &["deny", "--version"]).capture().is_ok() {
        let outcome = deny(workspace);
        report.add("Deny", Tally::of(&outcome), &outcome);
    } else {
        report.add("Deny", Tally { skipped: 1, ..Tally::default() }, &Ok(()));
        report
            .add_skips(["Deny: cargo-deny is not installed (cargo install cargo-deny)".to_owned()]);
    }
    report.close()
}

type Check = fn(&Workspace) -> Result<(), Failure>;

const CHECKS: &[(&str, Check)] = &[
    ("Format", format),
    ("Clippy", clippy),
    ("Free-threaded Python", free_threaded),
    ("Rustdoc", rustdoc),
    ("Tidy", tidy::all),
];

fn format(workspace: &Workspace) -> Result<(), Failure> {
    cargo(workspace, &["fmt", "--all", "--check"]).run()?;
    for manifest in workspace.separate_manifests()? {
        let manifest = manifest.to_string_lossy();
        cargo(workspace, &["fmt", "--check", "--manifest-path", &manifest]).run()?;
    }
    Ok(())
}

fn clippy(workspace: &Workspace) -> Result<(), Failure> {
    let everything = ["--workspace", "--all-targets", "--keep-going", "--locked"];
    cargo(workspace, &["clippy"]).args(everything).args(["--", "-D", "warnings"]).run()
}

/// The extension as a free-threaded CPython would load it: compiled, as no such interpreter is asked
/// for.
fn free_threaded(workspace: &Workspace) -> Result<(), Failure> {
    let configuration = workspace.root.join("st-python/free-threaded.txt");
    cargo(workspace, &["clippy", "-p", "st-python", "--all-targets", "--locked"])
        .args(["--", "-D", "warnings"])
        .env("PYO3_CONFIG_FILE", configuration)
        // Apart, or every build after this one would begin with PyO3 again.
        .env("CARGO_TARGET_DIR", workspace.root.join("target/free-threaded"))
        .run()
}

fn rustdoc(workspace: &Workspace) -> Result<(), Failure> {
    cargo(workspace, &["doc", "--workspace", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()
}

/// Licences, sources and duplicate versions. Advisories need a database from the network, so they
/// are for the hosted job: `cargo deny check`.
fn deny(workspace: &Workspace) -> Result<(), Failure> {
    cargo(workspace, &["deny", "--locked", "check", "bans", "licenses", "sources"]).run()
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Task {
    Task::cargo(arguments).within(&workspace.root)
}
