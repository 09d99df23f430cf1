//! Where things lie: the clone, its build folder, the user's cache.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Failure;
use crate::task::Task;

/// This clone, as `cargo metadata` describes it.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the root manifest.
    pub(crate) root: PathBuf,
    /// Cargo's build folder.
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One member.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Its folder.
    pub(crate) folder: PathBuf,
    pub(crate) is_published: bool,
    /// Direct dependencies of every kind: ordinary, dev, build.
    pub(crate) dependencies: Vec<String>,
    pub(crate) examples: Vec<String>,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self, Failure> {
        // Cargo sets the variable for programs that it runs; it names the folder of xtask.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .ok_or_else(|| Failure::new("run this as `cargo xtask`, not as a bare program"))?;
        let root = Path::new(&manifest)
            .parent()
            .ok_or_else(|| Failure::new("the folder of xtask has no parent"))?;
        let json = Task::cargo(["metadata", "--no-deps", "--format-version", "1", "--quiet"])
            .within(root)
            .capture()?;
        let metadata: Value = serde_json::from_str(&json)
            .map_err(|error| Failure::new(format!("cargo metadata is not JSON: {error}")))?;
        Self::read(root, &metadata).ok_or_else(|| Failure::new("cargo metadata has another form"))
    }

    fn read(root: &Path, metadata: &Value) -> Option<Self> {
        let packages = metadata["packages"].as_array()?.iter().map(Package::read);
        Some(Self {
            root: root.to_owned(),
            target: PathBuf::from(metadata["target_directory"].as_str()?),
            packages: packages.collect::<Option<_>>()?,
        })
    }

    /// The manifests under `tests/consumers/`, sorted.
    pub(crate) fn consumers(&self) -> Result<Vec<PathBuf>, Failure> {
        let folder = self.root.join("tests/consumers");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let entries = std::fs::read_dir(&folder).map_err(|error| {
            Failure::new(format!("{} cannot be read: {error}", folder.display()))
        })?;
        let manifests = entries.flatten().map(|entry| entry.path().join("Cargo.toml"));
        let mut manifests: Vec<PathBuf> = manifests.filter(|path| path.exists()).collect();
        manifests.sort();
        Ok(manifests)
    }

    /// The manifests of everything in this clone that is a workspace of its own.
    pub(crate) fn separate_manifests(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut manifests = self.consumers()?;
        let others = ["bench/Cargo.toml", "fuzz/Cargo.toml"].map(|path| self.root.join(path));
        manifests.extend(others.into_iter().filter(|path| path.exists()));
        Ok(manifests)
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

/// Where tools fetched for this repository are kept between runs and clones.
pub(crate) fn cache() -> Result<PathBuf, Failure> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")))
        .ok_or_else(|| Failure::new("neither XDG_CACHE_HOME nor HOME names a folder"))?;
    Ok(base.join("shared-tensor-xtask"))
}

impl Package {
    fn read(package: &Value) -> Option<Self> {
        let texts = |list: &Value, key: &str| -> Option<Vec<String>> {
            list.as_array()?.iter().map(|item| Some(item[key].as_str()?.to_owned())).collect()
        };
        let examples = package["targets"].as_array()?.iter().filter(|target| {
            target["kind"]
                .as_array()
                .is_some_and(|kinds| kinds.iter().any(|kind| kind == "example"))
        });
        Some(Self {
            name: package["name"].as_str()?.to_owned(),
            folder: Path::new(package["manifest_path"].as_str()?).parent()?.to_owned(),
            is_published: package["publish"].is_null(),
            dependencies: texts(&package["dependencies"], "name")?,
            examples: examples.filter_map(|it| Some(it["name"].as_str()?.to_owned())).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Workspace;

    #[test]
    fn this_workspace_is_found() {
        let workspace = Workspace::find().unwrap();
        assert!(workspace.has("Cargo.lock"));
        let xtask = workspace.packages.iter().find(|package| package.name == "xtask").unwrap();
        assert!(!xtask.is_published);
        assert_eq!(xtask.dependencies, ["serde_json"]);
        assert!(xtask.folder.ends_with("xtask"));
    }
}
