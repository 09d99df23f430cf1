//! Where a test's names lie, and how its peers learn it.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

const DIRECTORY: &str = "ST_TEST_DIRECTORY";
const PREFIX: &str = "ST_TEST_PREFIX";

/// A directory, and what every name of the test begins with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    pub(crate) directory: PathBuf,
    pub(crate) prefix: String,
}

impl Place {
    /// The place that the tester of this process gave it.
    ///
    /// # Errors
    /// When no tester did.
    pub fn from_environment() -> io::Result<Self> {
        let missing = |name| io::Error::other(format!("{name} is not set: start this from a test"));
        Ok(Self {
            directory: std::env::var_os(DIRECTORY).ok_or_else(|| missing(DIRECTORY))?.into(),
            prefix: std::env::var(PREFIX).map_err(|_| missing(PREFIX))?,
        })
    }

    /// The variables that tell it to a peer.
    pub fn environment(&self) -> [(&'static str, OsString); 2] {
        [(DIRECTORY, self.directory.clone().into()), (PREFIX, self.prefix.clone().into())]
    }

    /// The place as segments know it.
    ///
    /// # Panics
    /// When the prefix is none that segments can have.
    pub fn shm(&self) -> shm_core::Namespace {
        shm_core::Namespace::new(&self.directory, self.prefix.clone())
            .unwrap_or_else(|error| panic!("{self:?} is no place for segments: {error}"))
    }

    /// The beginning of the path of every file called `name...` here.
    pub fn stem(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{}{name}", self.prefix))
    }
}
