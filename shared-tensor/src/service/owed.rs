//! Words that their writer owes when it dies.
//!
//! Whoever opens memory of a GPU has a stream of its own wait for a word that the lender's stream writes.
//! A lender that is killed first never writes it, and the driver does not end the wait. So one thread
//! watches those whose words this process has received, and writes for the dead.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use shm_lock::PerProcess;

use super::monitor::lock;
use super::region::{Access, Id, Region};

/// What stands in the words of the dead: later than whatever they were to write.
pub(crate) const ABANDONED: u64 = 1 << 62;

struct Watch {
    state: Mutex<State>,
    /// Tells the thread of newcomers.
    bell: OwnedFd,
}

#[derive(Default)]
struct State {
    watched: HashSet<Id>,
    newcomers: Vec<Watched>,
    has_thread: bool,
}

struct Watched {
    writer: OwnedFd,
    words: Region,
}

static WATCH: PerProcess<Option<Arc<Watch>>> = PerProcess::new();

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Sees to it that the words in `words` are written when the process `writer` has died. Without
/// descriptors or threads, and where the process is not seen, nobody does.
pub(crate) fn watch(words: &Region, writer: u32) {
    let watch = WATCH.get_or_init(|| {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        Some(Arc::new(Watch { state: Mutex::default(), bell }))
    });
    let Some(watch) = watch else { return };
    let mut state = watch.state();
    if !state.watched.insert(words.id()) {
        return;
    }
    let pid = i32::try_from(writer).ok().and_then(Pid::from_raw);
    let opened = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    let writer = match opened {
        Some(Ok(writer)) => writer,
        Some(Err(Errno::SRCH)) => {
            drop(state);
            abandon(words);
            return;
        }
        _ => return,
    };
    state.newcomers.push(Watched { writer, words: words.clone() });
    if !state.has_thread {
        let own = Arc::clone(watch);
        let run = move || run(&own);
        state.has_thread = thread::Builder::new().name("st-words".to_owned()).spawn(run).is_ok();
    }
    // It fails only when it has been told often already.
    let _ = rustix::io::write(&watch.bell, &1_u64.to_ne_bytes());
}

fn run(watch: &Watch) {
    let mut all: Vec<Watched> = Vec::new();
    loop {
        all.append(&mut watch.state().newcomers);
        let mut polled = vec![PollFd::new(&watch.bell, PollFlags::IN)];
        polled.extend(
            all.iter().map(|it| PollFd::from_borrowed_fd(it.writer.as_fd(), PollFlags::IN)),
        );
        if poll(&mut polled, None).is_err() {
            continue;
        }
        let ended: Vec<bool> = polled.iter().skip(1).map(|it| !it.revents().is_empty()).collect();
        if !polled[0].revents().is_empty() {
            let _ = rustix::io::read(&watch.bell, &mut [0; 8]);
        }
        drop(polled);
        let mut ended = ended.into_iter();
        all.retain(|it| {
            if !ended.next().unwrap_or(false) {
                return true;
            }
            abandon(&it.words);
            watch.state().watched.remove(&it.words.id());
            false
        });
    }
}

/// Writes every word of a dead process.
fn abandon(words: &Region) {
    let Ok(map) = words.map(Access::Shared) else { return };
    for offset in (0..map.bytes.len()).step_by(size_of::<u64>()) {
        if let Ok(word) = map.bytes.at::<AtomicU64>(offset) {
            word.fetch_max(ABANDONED, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn word(words: &Region) -> u64 {
        let map = words.map(Access::Shared).unwrap();
        map.bytes.at::<AtomicU64>(8).unwrap().load(Ordering::Acquire)
    }

    #[test]
    fn words_of_the_dead_are_written_and_no_others() {
        let [dead, living] = [(); 2].map(|()| Region::allocate(4096).unwrap());
        let mut writer =
            Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        watch(&dead, writer.id());
        watch(&dead, writer.id());
        watch(&living, std::process::id());
        assert_eq!(word(&dead), 0, "it lives");
        writer.kill().unwrap();
        while word(&dead) != ABANDONED {
            thread::yield_now();
        }
        assert_eq!(word(&living), 0);
        writer.wait().unwrap();
        let late = Region::allocate(4096).unwrap();
        watch(&late, writer.id());
        assert_eq!(word(&late), ABANDONED, "it was gone before");
    }
}
