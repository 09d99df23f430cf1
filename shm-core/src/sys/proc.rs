//! What the kernel tells in text, and who we are.

use std::io;
use std::path::Path;

use super::fault;

/// Reads a whole small file of `/proc` or `/sys`.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    fault::point("read")?;
    std::fs::read_to_string(path)
}

/// The effective user id.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The process id as this process sees it.
pub(crate) fn process() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().cast_unsigned()
}
