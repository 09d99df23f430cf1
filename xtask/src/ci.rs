//! `cargo xtask ci`: everything that must hold before a change is merged.

use crate::task::Task;
use crate::verb::{Verb, always};
use crate::{Failure, Flags, Workspace, screen, test, tidy};

pub(crate) const VERB: Verb = Verb {
    name: "ci",
    usage: "[--tested]",
    summary: "test, then format, clippy, rustdoc, tidy, deny (--tested: the tests have just run)",
    exists: always,
    run,
};

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let tested = flags.switch("--tested");
    flags.finish()?;
    if !tested {
        test::all(workspace)?;
    }
    screen::step("Format");
    cargo(workspace, &["fmt", "--all", "--check"]).run()?;
    for manifest in workspace.separate_manifests()? {
        let manifest = manifest.to_string_lossy();
        cargo(workspace, &["fmt", "--check", "--manifest-path", &manifest]).run()?;
    }
    screen::step("Clippy");
    cargo(
        workspace,
        &["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"],
    )
    .run()?;
    screen::step("Rustdoc");
    cargo(workspace, &["doc", "--workspace", "--no-deps", "--locked"])
        .env("RUSTDOCFLAGS", "-D warnings")
        .run()?;
    tidy::all(workspace)?;
    deny(workspace)
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Task {
    Task::cargo(arguments).within(&workspace.root)
}

/// Licences, sources and duplicate versions. Advisories need a database from the network, so they
/// are for the hosted job: `cargo deny check`.
fn deny(workspace: &Workspace) -> Result<(), Failure> {
    screen::step("Deny");
    if cargo(workspace, &["deny", "--version"]).capture().is_err() {
        screen::line("  left out: cargo-deny is not installed (cargo install cargo-deny)");
        return Ok(());
    }
    cargo(workspace, &["deny", "--locked", "check", "bans", "licenses", "sources"]).run()
}
