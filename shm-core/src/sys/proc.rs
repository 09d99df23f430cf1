//! What the kernel tells in text, and who we are.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::fault;

/// Reads a whole file of `/proc` or `/sys`. Their sizes are not told, so the standard library
/// would feel its way in small steps; nearly all fit one page.
pub(crate) fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    fault::point("read")?;
    let mut file = File::open(path)?;
    let mut bytes = vec![0; 4096];
    let mut filled = 0;
    loop {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if filled == bytes.len() {
            bytes.resize(2 * filled, 0);
        }
    }
    bytes.truncate(filled);
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Whether there is a process of this number, also if it may not be asked.
pub(crate) fn answers(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// The effective user id.
pub(crate) fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The process id as this process sees it.
pub(crate) fn process() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().cast_unsigned()
}
