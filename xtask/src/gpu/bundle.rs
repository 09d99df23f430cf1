//! `cargo xtask gpu-bundle`: one folder to carry to a machine with GPUs and without Rust.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::fetched::{self, PEERS};
use super::glibc::{self, NEWEST};
use super::programs::{PROGRAMS, Program, of_python};
use super::{SOURCES, parts, sizes};
use crate::python::{Interpreter, Tools};
use crate::verb::Verb;
use crate::{Failure, Flags, Workspace, python, screen, wheel};

pub(crate) const VERB: Verb = Verb {
    name: "gpu-bundle",
    usage: "[--out DIR]",
    summary: "put all that runs on a GPU into one folder that needs no Rust (gpu-bundle/)",
    exists: |workspace| workspace.has(SOURCES),
    run,
};

const MANIFEST: &str = "manifest.json";

fn run(workspace: &Workspace, mut flags: Flags) -> Result<(), Failure> {
    let out = flags.value::<PathBuf>("--out")?;
    flags.finish()?;
    let folder = out.unwrap_or_else(|| workspace.root.join("gpu-bundle"));
    let (interpreters, _) = python::interpreters()?;
    make(workspace, &interpreters[0], &folder)?;
    screen::line(&format!("the bundle is {}; there: ./run.sh all", folder.display()));
    Ok(())
}

/// Makes it in `folder`, in place of the one that may be there.
pub(crate) fn make(
    workspace: &Workspace,
    interpreter: &Interpreter,
    folder: &Path,
) -> Result<(), Failure> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu")) {
        return Err(Failure::new("a bundle is made on x86-64 Linux with glibc, for such machines"));
    }
    clear(folder)?;
    // First: by its `run.sh` a bundle is known, also one that did not get finished.
    parts::copied(workspace, folder)?;
    screen::step("Bundle: the wheel");
    let wheel = wheel::build(workspace, interpreter, &folder.join("wheel"))?;
    screen::step("Bundle: programs");
    parts::programs(workspace, folder)?;
    parts::floors(workspace, folder)?;
    screen::step("Bundle: peers and pytest");
    let tools = Tools::prepare(workspace, interpreter, &["build"])?;
    let scratch = workspace.target.join("gpu-scratch");
    fetched::fetch(&tools, folder, &scratch)?;
    screen::step("Bundle: glibc");
    let unpacked = scratch.join("wheel");
    if unpacked.exists() {
        fs::remove_dir_all(&unpacked).map_err(|error| lost(&unpacked, &error))?;
    }
    fetched::unpack(&tools, &wheel, &unpacked)?;
    let mut needed = check(folder)?;
    needed.extend(check(&unpacked)?);
    for (path, version) in &needed {
        screen::line(&format!("  {path}: {version}"));
    }
    let manifest = manifest(workspace, &wheel, &needed);
    let path = folder.join(MANIFEST);
    fs::write(&path, format!("{manifest:#}\n")).map_err(|error| lost(&path, &error))?;
    screen::step("Bundle: sizes");
    let files = sizes::files(folder).map_err(|error| lost(folder, &error))?;
    sizes::judge(&files, sizes::BYTES_MAX)
}

/// Removes a bundle that is there; anything else stays.
fn clear(folder: &Path) -> Result<(), Failure> {
    let entries = fs::read_dir(folder).map_or(0, Iterator::count);
    if entries > 0 && !folder.join("run.sh").exists() {
        return Err(Failure::new(format!(
            "{} holds something that is no bundle; name another folder with --out",
            folder.display()
        )));
    }
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| lost(folder, &error))?;
    }
    fs::create_dir_all(folder).map_err(|error| lost(folder, &error))
}

/// What each program and library in a folder needs of glibc, which must not be too new.
fn check(folder: &Path) -> Result<Vec<(String, String)>, Failure> {
    let mut needed = Vec::new();
    for (path, _) in sizes::files(folder).map_err(|error| lost(folder, &error))? {
        let full = folder.join(&path);
        let image = fs::read(&full).map_err(|error| lost(&full, &error))?;
        if !glibc::is_elf(&image) {
            continue;
        }
        let newest = glibc::needed(&image)
            .ok_or_else(|| Failure::new(format!("{path} has broken tables of versions")))?
            .into_iter()
            .max();
        if let Some(newest) = newest.filter(|newest| *newest > NEWEST) {
            return Err(Failure::new(format!(
                "{path} needs glibc {newest}, and a bundle may need {NEWEST} at most: build it on an \
                 older system"
            )));
        }
        needed.push((path, newest.map_or_else(|| "none".to_owned(), |it| it.to_string())));
    }
    Ok(needed)
}

fn manifest(workspace: &Workspace, wheel: &Path, needed: &[(String, String)]) -> Value {
    let wheel = wheel.file_name().unwrap_or_default().to_string_lossy();
    let needed = needed.iter().map(|(path, version)| (path.clone(), json!(version)));
    json!({
        "schema": 1,
        "version": env!("CARGO_PKG_VERSION"),
        "commit": parts::commit(workspace),
        "wheel": format!("wheel/{wheel}"),
        "glibc": needed.collect::<serde_json::Map<_, _>>(),
        "peers": PEERS.iter().map(|peer| json!({
            "name": peer.name, "version": peer.version, "folder": peer.folder(),
        })).collect::<Vec<_>>(),
        "programs": PROGRAMS.iter().map(Program::as_json).chain(of_python()).collect::<Vec<_>>(),
    })
}

fn lost(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{} cannot be used: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{check, clear};
    use crate::Workspace;

    fn folder(name: &str) -> std::path::PathBuf {
        let target = Workspace::find().unwrap().target;
        target.join(format!("gpu-{name}-{}", std::process::id()))
    }

    #[test]
    fn what_is_no_bundle_stays() {
        let folder = folder("clear");
        fs::create_dir_all(&folder).unwrap();
        assert!(clear(&folder).is_ok(), "empty");
        fs::write(folder.join("precious"), "").unwrap();
        assert!(clear(&folder).unwrap_err().to_string().contains("--out"));
        assert!(folder.join("precious").exists());
        fs::write(folder.join("run.sh"), "").unwrap();
        assert!(clear(&folder).is_ok(), "a bundle");
        assert!(!folder.join("precious").exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn programs_tell_what_they_need() {
        let folder = folder("check");
        fs::create_dir_all(folder.join("programs")).unwrap();
        fs::copy(std::env::current_exe().unwrap(), folder.join("programs/own")).unwrap();
        fs::write(folder.join("run.sh"), "#!/bin/sh\n").unwrap();
        let needed = check(&folder).unwrap();
        assert_eq!(needed.len(), 1);
        assert_eq!(needed[0].0, "programs/own");
        fs::write(folder.join("programs/own"), b"\x7fELF\x02\x01").unwrap();
        assert!(check(&folder).is_err());
        fs::remove_dir_all(folder).unwrap();
    }
}
