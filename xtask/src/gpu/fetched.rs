//! What is fetched for the bundle, as wheels that are unpacked: the peers, and pytest.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Failure;
use crate::python::Tools;

/// A package that figures are compared with, in a folder of its own: one of them has our name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// What it needs beside NumPy and torch, which the machine has.
    needs: &'static [&'static str],
}

pub(crate) const PEERS: &[Peer] = &[
    Peer { name: "pyshmem", version: "1.4.0", needs: &["portalocker>=3.1"] },
    Peer { name: "shared-tensor", version: "0.2.16", needs: &["cloudpickle>=3"] },
];

/// pytest with everything that it needs on the oldest Python; all are plain Python.
const PYTEST: &[&str] = &[
    "pytest>=8,<9",
    "exceptiongroup",
    "iniconfig",
    "packaging",
    "pluggy",
    "pygments",
    "tomli",
    "typing-extensions",
];

impl Peer {
    /// Its folder in the bundle.
    pub(crate) fn folder(&self) -> String {
        format!("peers/{}-{}", self.name, self.version)
    }
}

/// Fetches them into `bundle`.
pub(crate) fn fetch(tools: &Tools, bundle: &Path, scratch: &Path) -> Result<(), Failure> {
    for peer in PEERS {
        let exact = format!("{}=={}", peer.name, peer.version);
        let mut wanted = vec![exact.as_str()];
        wanted.extend(peer.needs);
        unpacked(tools, &wanted, &bundle.join(peer.folder()), scratch)?;
    }
    unpacked(tools, PYTEST, &bundle.join("tools"), scratch)
}

fn unpacked(tools: &Tools, wanted: &[&str], to: &Path, scratch: &Path) -> Result<(), Failure> {
    let wheels = scratch.join("wheels");
    let lost = |error| Failure::new(format!("{} cannot be used: {error}", wheels.display()));
    if wheels.exists() {
        fs::remove_dir_all(&wheels).map_err(lost)?;
    }
    tools
        .python()
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"])
        // For every Python that the bundle may meet.
        .args(["--python-version", "3.9", "--implementation", "py", "--abi", "none"])
        .args(["--platform", "any", "--dest"])
        .args([&wheels])
        .args(wanted)
        .run()?;
    for entry in fs::read_dir(&wheels).map_err(lost)? {
        unpack(tools, &entry.map_err(lost)?.path(), to)?;
    }
    Ok(())
}

/// Unpacks one wheel beside what is there.
pub(crate) fn unpack(tools: &Tools, wheel: &Path, to: &Path) -> Result<(), Failure> {
    let paths: [PathBuf; 2] = [wheel.to_owned(), to.to_owned()];
    tools.python().args(["-m", "zipfile", "-e"]).args(paths).run()
}
