//! The Python that has the wheel and what it is compared with.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::program::Program;

/// The interpreter to use; `cargo xtask bench` prepares one and sets it.
pub const VARIABLE: &str = "ST_BENCH_PYTHON";
/// One that has shared-tensor 0.2.16 instead, for `bench service`.
pub const RIVAL: &str = "ST_BENCH_RIVAL";

/// The probes, part of the clone that this program was built from.
const PROBES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python");

/// An interpreter and the libraries that it has.
#[derive(Debug)]
pub struct Python {
    interpreter: PathBuf,
    /// Name and version of each, as the probes call them.
    pub libraries: Vec<(String, String)>,
}

impl Python {
    /// The interpreter that a variable of the environment names; `None` if it is not set.
    ///
    /// # Errors
    /// It cannot be run, or lacks NumPy or the wheel.
    pub fn find(variable: &str) -> Outcome<Option<Self>> {
        let Some(interpreter) = std::env::var_os(variable).map(PathBuf::from) else {
            return Ok(None);
        };
        let told = Command::new(&interpreter).args([PROBES, "libraries"]).output();
        let told = told.map_err(|source| format!("{variable} cannot be run: {source}"))?;
        let lines = String::from_utf8_lossy(&told.stdout);
        let libraries: Vec<_> = lines
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .collect();
        let python = Self { interpreter, libraries };
        if !told.status.success() || !python.has("ours") {
            let said = String::from_utf8_lossy(&told.stderr);
            return Err(format!("{variable} has no shared-tensor: `{}`", said.trim()).into());
        }
        Ok(Some(python))
    }

    /// Whether it has a library.
    pub fn has(&self, library: &str) -> bool {
        self.libraries.iter().any(|(name, _)| name == library)
    }

    /// The libraries and their versions, in one line.
    pub fn described(&self) -> String {
        let all: Vec<_> =
            self.libraries.iter().map(|(name, version)| format!("{name} {version}")).collect();
        all.join(", ")
    }

    /// One case of the probes.
    pub fn case(&self, arguments: &[&str]) -> Program {
        let mut all = vec![PROBES.to_owned()];
        all.extend(arguments.iter().map(|&it| it.to_owned()));
        Program::new(Path::new(&self.interpreter), &all)
    }
}
