//! Which crate may name which: the leaves know nothing of each other.

use std::path::Path;

use crate::workspace::Package;

/// Every edge between members. A new one is a decision about the design, made here in the open.
const EDGES: &[(&str, &[&str])] = &[
    ("shm-core", &[]),
    ("shm-lock", &[]),
    ("cuda-ipc", &[]),
    ("rpc-uds", &[]),
    ("tensor-cache", &[]),
    ("shared-tensor", &["cuda-ipc", "rpc-uds", "shm-core", "shm-lock", "tensor-cache"]),
    ("st-python", &["shared-tensor"]),
    ("st-tests", &["shared-tensor", "shm-core", "shm-lock"]),
    ("xtask", &[]),
];

/// Packages from outside that only some members may use.
const OWNED: &[(&str, &[&str])] = &[
    // An example of the facade launches kernels.
    ("cudarc", &["cuda-ipc", "shared-tensor"]),
    ("fs4", &["shm-lock"]),
    (
        "libc",
        &["cuda-ipc", "rpc-uds", "shared-tensor", "shm-core", "shm-lock", "st-python", "st-tests"],
    ),
    // Tests of the facade ask the driver for functions for kernels.
    ("libloading", &["cuda-ipc", "shared-tensor"]),
    ("pyo3", &["st-python"]),
    ("serde_json", &["shared-tensor", "xtask"]),
];

pub(crate) fn check(root: &Path, packages: &[Package], findings: &mut Vec<String>) {
    for package in packages {
        let name = package.name.as_str();
        let Some((_, allowed)) = EDGES.iter().find(|(member, _)| *member == name) else {
            findings.push(format!(
                "{name} is not in the table of edges (xtask/src/tidy/boundaries.rs)"
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let is_member = packages.iter().any(|other| other.name == *dependency);
            if is_member && !allowed.contains(&dependency.as_str()) {
                findings.push(format!("{name} names {dependency}, an edge that is not allowed"));
            }
            let owners = OWNED.iter().find(|(owned, _)| owned == dependency);
            if owners.is_some_and(|(_, owners)| !owners.contains(&name)) {
                findings.push(format!("{name} uses {dependency}, which belongs to other crates"));
            }
        }
        let folder = package.folder.strip_prefix(root).unwrap_or(&package.folder);
        if folder != Path::new(name) && (name, folder) != ("st-tests", Path::new("tests")) {
            findings
                .push(format!("{name} lies in {}, not in a folder of its name", folder.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{Package, check};

    fn package(name: &str, folder: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            folder: PathBuf::from(folder),
            is_published: true,
            dependencies: dependencies.iter().map(|it| (*it).to_owned()).collect(),
            examples: Vec::new(),
        }
    }

    fn found(packages: &[Package]) -> Vec<String> {
        let mut findings = Vec::new();
        check(Path::new("/clone"), packages, &mut findings);
        findings
    }

    #[test]
    fn a_leaf_that_names_a_leaf_is_found() {
        let lock = package("shm-lock", "/clone/shm-lock", &["shm-core", "rustix"]);
        let core = package("shm-core", "/clone/shm-core", &[]);
        assert_eq!(found(&[lock, core]), ["shm-lock names shm-core, an edge that is not allowed"]);
    }

    #[test]
    fn allowed_edges_pass() {
        let core = package("shm-core", "/clone/shm-core", &["libc"]);
        let facade = package("shared-tensor", "/clone/shared-tensor", &["shm-core"]);
        assert_eq!(found(&[core, facade]), [""; 0]);
    }

    #[test]
    fn strangers_and_borrowed_packages_are_found() {
        assert_eq!(found(&[package("shm-rings", "/clone/shm-rings", &[])]).len(), 1);
        assert_eq!(found(&[package("shm-core", "/clone/shm-core", &["pyo3"])]).len(), 1);
        assert_eq!(found(&[package("shm-core", "/clone/core", &[])]).len(), 1);
    }
}
