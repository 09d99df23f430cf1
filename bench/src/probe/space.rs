//! The names that one run uses on /dev/shm, and their removal.

use shared_tensor::DType;
use shared_tensor::shm::{Namespace, PurgeOptions};
use shared_tensor::stream::{OpenOptions, Stream, StreamOptions};

use crate::Outcome;

/// Tells the processes of a run which names are theirs.
pub const VARIABLE: &str = "ST_BENCH_SPACE";

const DIRECTORY: &str = "/dev/shm";

/// The prefix of this run's names.
pub fn prefix() -> String {
    std::env::var(VARIABLE).unwrap_or_else(|_| format!("stbench{}.", std::process::id()))
}

/// The same as the beginning of a path.
pub fn file_prefix() -> String {
    format!("{DIRECTORY}/{}", prefix())
}

/// Removes whatever a killed probe has left.
///
/// # Errors
/// The directory cannot be listed.
pub fn sweep() -> Outcome<()> {
    namespace()?.purge(&PurgeOptions::new().include_live(true))?;
    Ok(())
}

pub(super) fn namespace() -> Outcome<Namespace> {
    Ok(Namespace::new(DIRECTORY, prefix())?)
}

/// A new stream of `bytes` bytes a frame; `slots` 0 is the default number.
pub(super) fn create(name: &str, bytes: usize, slots: usize) -> Outcome<Stream> {
    let options = StreamOptions::new(DType::U8, [bytes as u64]).namespace(namespace()?);
    let options = if slots == 0 { options } else { options.slots(slots) };
    Ok(options.create(name)?)
}

pub(super) fn open(name: &str) -> Outcome<Stream> {
    Ok(OpenOptions::new().namespace(namespace()?).open(name)?)
}

/// Waits until the pages of a stream that has a writer are there, huge ones included.
pub(super) fn settle(stream: &Stream) {
    while stream.info().population.is_some_and(|it| !it.finished) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
