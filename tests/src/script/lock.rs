//! Commands on locks, of both kinds.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shm_lock::{
    AcquireError, FileLock, FutexLock, Holder, Liveness, LockGuard, Membership, MemoryFile, Wait,
};

use super::{Answer, Subject, number, said, word};

/// The locks that a peer knows, by name, and those that it holds.
///
/// | command | answer |
/// |---|---|
/// | `lock.open NAME futex` or `file` | `ok` |
/// | `lock.acquire NAME [MS]` | `ok` `free`, or `recovered`, the dead owner's pid, `ending` or `gone` |
/// | `lock.try NAME` | the same, or an error when somebody holds it |
/// | `lock.release NAME` | `ok` |
/// | `lock.holder NAME` | `ok` the pid, or `none` |
/// | `lock.close NAME` | `ok` |
#[derive(Debug)]
pub struct Locks {
    /// Every name begins with it.
    stem: PathBuf,
    known: HashMap<String, Known>,
}

struct Known {
    lock: Either,
    /// Before the lock, so that it is dropped first.
    guard: Option<Box<dyn LockGuard>>,
}

enum Either {
    Futex(Arc<FutexLock<MemoryFile>>),
    File(Arc<FileLock>),
}

impl Locks {
    /// None yet. The files of locks have names that begin with `stem`.
    pub fn new(stem: PathBuf) -> Self {
        Self { stem, known: HashMap::new() }
    }

    fn open(&self, name: &str, kind: &str) -> Result<Either, String> {
        let mut path = self.stem.clone().into_os_string();
        path.push(name);
        match kind {
            "futex" => {
                let memory = Arc::new(MemoryFile::open(path).map_err(said)?);
                let membership = Membership::join(memory).map_err(said)?;
                Ok(Either::Futex(Arc::new(FutexLock::new(membership))))
            }
            "file" => Ok(Either::File(Arc::new(FileLock::new(path)))),
            _ => Err(format!("`{kind}` is neither futex nor file")),
        }
    }
}

impl Subject for Locks {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn run(&mut self, verb: &str, words: &[&str]) -> Answer {
        let name = word(words, 0, "the name")?;
        if verb == "open" {
            let lock = self.open(name, word(words, 1, "the kind")?)?;
            self.known.insert(name.to_owned(), Known { guard: None, lock });
            return Ok(String::new());
        }
        let known = self.known.get_mut(name).ok_or_else(|| format!("lock `{name}` is not open"))?;
        match verb {
            "acquire" if words.len() > 1 => {
                let limit = Duration::from_millis(number(words, 1, "the milliseconds")?);
                known.acquire(&Wait::for_at_most(limit))
            }
            "acquire" => known.acquire(&Wait::forever()),
            "try" => known.acquire(&Wait::for_at_most(Duration::ZERO)),
            "release" => match known.guard.take() {
                Some(_) => Ok(String::new()),
                None => Err(format!("lock `{name}` is not held")),
            },
            "holder" => {
                let holder = known.lock.holder();
                Ok(holder.map_or("none".to_owned(), |holder| holder.pid.to_string()))
            }
            "close" => {
                self.known.remove(name);
                Ok(String::new())
            }
            _ => Err(format!("unknown command `lock.{verb}`")),
        }
    }
}

impl Known {
    fn acquire(&mut self, wait: &Wait<'_>) -> Answer {
        let guard = self.lock.acquire(wait).map_err(said)?;
        let answer = match guard.recovered() {
            None => "free".to_owned(),
            Some(dead) => {
                let left = if dead.liveness == Liveness::Ending { "ending" } else { "gone" };
                format!("recovered {} {left}", dead.pid)
            }
        };
        self.guard = Some(guard);
        Ok(answer)
    }
}

impl Either {
    fn acquire(&self, wait: &Wait<'_>) -> Result<Box<dyn LockGuard>, AcquireError> {
        Ok(match self {
            Self::Futex(lock) => Box::new(lock.acquire_owned(wait)?),
            Self::File(lock) => Box::new(lock.acquire_owned(wait)?),
        })
    }

    fn holder(&self) -> Option<Holder> {
        match self {
            Self::Futex(lock) => lock.holder(),
            Self::File(lock) => lock.holder(),
        }
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Known").field("held", &self.guard.is_some()).finish_non_exhaustive()
    }
}
