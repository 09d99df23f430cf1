//! Where segments live: a directory and the prefix of their file names.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::NamespaceError;
use crate::name::SegmentName;

/// The longest prefix: with 200 bytes of encoded name it stays a file name.
const PREFIX_BYTES_MAX: usize = 48;

/// A directory and a file-name prefix: the place where segments are created, found and listed.
///
/// The default is `/dev/shm` and `st.`. The directory should be a tmpfs: on any other file system
/// segments work, but the kernel writes their pages to disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace {
    directory: PathBuf,
    prefix: String,
}

impl Namespace {
    /// Describes a namespace; nothing is created. A relative directory is resolved now.
    ///
    /// A directory that is not there may be made later: until then creating and listing fail with an
    /// error that names it, and opening finds nothing. Something else in its place is refused here.
    ///
    /// The prefix is at most 48 bytes of ASCII letters, digits, `.`, `-` and `_`, and may be empty.
    pub fn new(
        directory: impl AsRef<Path>,
        prefix: impl Into<String>,
    ) -> Result<Namespace, NamespaceError> {
        let (given, prefix) = (directory.as_ref(), prefix.into());
        let readable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let problem = if prefix.len() > PREFIX_BYTES_MAX {
            Some("is too long; use at most 48 bytes")
        } else if !prefix.chars().all(readable) {
            Some("holds other characters than ASCII letters, digits, `.`, `-` and `_`")
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(NamespaceError::Prefix { prefix, problem });
        }
        let directory = std::path::absolute(given)
            .map_err(|source| NamespaceError::Directory { directory: given.to_owned(), source })?;
        if fs::metadata(&directory).is_ok_and(|found| !found.is_dir()) {
            return Err(NamespaceError::NotADirectory { directory });
        }
        Ok(Namespace { directory, prefix })
    }

    /// The directory, absolute.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What every file name starts with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The file that stands for `name`: the prefix, then the name with every byte but ASCII
    /// letters, digits, `-`, `_` and `.` as `%` and two hexadecimal digits; longer than 200 bytes,
    /// a hash.
    pub fn path_of(&self, name: &SegmentName) -> PathBuf {
        self.directory.join(format!("{}{}", self.prefix, name.encode()))
    }

    /// The file name of an unfinished segment, where the kernel cannot create files without a
    /// name. No segment's name encodes to it: `t` is no hexadecimal digit.
    pub(crate) fn temporary_path(&self, unique: u128) -> PathBuf {
        self.directory.join(format!("{}{TEMPORARY_MARK}{unique:032x}", self.prefix))
    }

    /// Whether a file name may be that of a segment of this namespace.
    pub(crate) fn holds(&self, file_name: &str) -> Option<Entry> {
        let rest = file_name.strip_prefix(&self.prefix)?;
        let unique = rest.strip_prefix(TEMPORARY_MARK);
        let is_ours = unique.is_some_and(|unique| {
            unique.len() == 32 && unique.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        Some(if is_ours { Entry::Temporary } else { Entry::Segment })
    }
}

const TEMPORARY_MARK: &str = "%tmp.";

/// What a file name in the directory promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Segment,
    Temporary,
}

impl Default for Namespace {
    fn default() -> Self {
        Namespace { directory: "/dev/shm".into(), prefix: "st.".into() }
    }
}
