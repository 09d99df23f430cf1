//! A ready-made [`Memory`]: one file that holds one lock and its participants.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use thiserror::Error;

use crate::fault;
use crate::memory::Memory;
use crate::roster::{PARTICIPANTS_MAX, Participant, Roster};
use crate::sync::atomic::Ordering;
use crate::sys::{Inode, Mapping};
use crate::word::LockWord;

/// "SHMLOCK" and a layout version, as the first eight bytes of the file.
const MAGIC: u64 = u64::from_le_bytes(*b"SHMLOCK\x01");

const LINE: usize = 128;
const WORD_OFFSET: usize = 64;
const ROSTER_OFFSET: usize = LINE;
const PARTICIPANTS_OFFSET: usize = 2 * LINE;
const LENGTH: usize = PARTICIPANTS_OFFSET + PARTICIPANTS_MAX * LINE;

/// A file that holds one lock word and a participant table, and nothing else.
///
/// For a lock beside data of your own, implement [`Memory`] for your memory instead. Keep the file
/// on a memory file system (`/dev/shm`, `$XDG_RUNTIME_DIR`): it is used as memory. It is 128 KiB
/// long, of which only what is used takes space. Truncating it while it is in use kills its users
/// with `SIGBUS`, as with any mapped file.
#[derive(Debug)]
pub struct MemoryFile {
    mapping: Mapping,
    file: File,
    inode: Inode,
    path: Option<PathBuf>,
}

/// Why a file could not be used as a lock's memory.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MemoryFileError {
    /// The kernel refused.
    #[error("cannot {step} `{}`", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The file exists and is something else.
    #[error("`{}` is not a lock's memory: {found}; choose another path", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How it differs.
        found: &'static str,
    },
}

impl MemoryFile {
    /// Opens the file at `path`, creating it with mode 0600 if there is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, MemoryFileError> {
        let path = path.as_ref();
        let failed = |step| {
            move |source: io::Error| MemoryFileError::Io { step, path: path.to_owned(), source }
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fault::point("open memory file")
            .and_then(|()| Ok(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
            .map_err(failed("open"))?;
        Self::over(file.into(), Some(path)).map_err(|error| match error {
            Unusable::Foreign(found) => MemoryFileError::Foreign { path: path.to_owned(), found },
            Unusable::Io(step, source) => failed(step)(source),
        })
    }

    /// Makes memory without a name: for this process, its forked children, and those who are sent
    /// [`descriptor`](Self::descriptor).
    pub fn anonymous() -> Result<Self, MemoryFileError> {
        let failed = |step| {
            move |source: io::Error| MemoryFileError::Io { step, path: "memfd".into(), source }
        };
        let file = fault::point("create memfd")
            .and_then(|()| Ok(rustix::fs::memfd_create("shm-lock", MemfdFlags::CLOEXEC)?))
            .map_err(failed("create"))?;
        Self::from_descriptor(file)
    }

    /// Uses memory that another process made and sent.
    pub fn from_descriptor(file: OwnedFd) -> Result<Self, MemoryFileError> {
        let path = PathBuf::from("the given descriptor");
        Self::over(file.into(), None).map_err(|error| match error {
            Unusable::Foreign(found) => MemoryFileError::Foreign { path, found },
            Unusable::Io(step, source) => MemoryFileError::Io { step, path, source },
        })
    }

    /// The open file, to send to another process.
    pub fn descriptor(&self) -> &File {
        &self.file
    }

    fn over(file: File, path: Option<&Path>) -> Result<Self, Unusable> {
        let inode = Inode::of(&file).map_err(|error| Unusable::Io("identify", error))?;
        extend(&file)?;
        reserve(&file, 0, PARTICIPANTS_OFFSET).map_err(|e| Unusable::Io("reserve space in", e))?;
        let mapping = Mapping::of(&file, LENGTH).map_err(|error| Unusable::Io("map", error))?;
        let [magic, ..] = mapping.line(0);
        // Whoever comes first says what the file is; everybody else checks it.
        match magic.compare_exchange(0, MAGIC.to_le(), Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {}
            Err(found) if found == MAGIC.to_le() => {}
            Err(_) => return Err(Unusable::Foreign("it does not begin like one")),
        }
        Ok(Self { mapping, file, inode, path: path.map(Path::to_owned) })
    }
}

enum Unusable {
    Io(&'static str, io::Error),
    Foreign(&'static str),
}

/// Gives a new file its length. An old one must have it: foreign files are not touched.
fn extend(file: &File) -> Result<(), Unusable> {
    let failed = |error| Unusable::Io("size", error);
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(Unusable::Foreign("it is not a regular file"));
    }
    if found.len() == 0 {
        fault::point("size memory file").map_err(failed)?;
        file.set_len(LENGTH as u64).map_err(failed)?;
    } else if found.len() != LENGTH as u64 {
        return Err(Unusable::Foreign("it is neither empty nor 128 KiB long"));
    }
    Ok(())
}

/// Takes the space now, so that a full file system is an error here and not a signal later.
fn reserve(file: &File, offset: usize, length: usize) -> io::Result<()> {
    fault::point("reserve space")?;
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset as u64, length as u64) {
        // A file system that cannot reserve cannot be asked.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl Memory for MemoryFile {
    fn lock_word(&self) -> &LockWord {
        LockWord::from_atomic(self.mapping.word(WORD_OFFSET))
    }

    fn roster(&self) -> &Roster {
        aligned(Roster::from_words(self.mapping.line(ROSTER_OFFSET)))
    }

    fn capacity(&self) -> usize {
        PARTICIPANTS_MAX
    }

    fn participant(&self, slot: usize) -> &Participant {
        aligned(Participant::from_words(self.mapping.line(PARTICIPANTS_OFFSET + slot * LINE)))
    }

    fn prepare(&self, slot: usize) -> io::Result<()> {
        reserve(&self.file, PARTICIPANTS_OFFSET + slot * LINE, LINE)
    }

    fn reopen(&self) -> io::Result<OwnedFd> {
        let by_number = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let ways = [Some(Path::new(&by_number)), self.path.as_deref()];
        let mut failure = io::ErrorKind::NotFound.into();
        for way in ways.into_iter().flatten() {
            // The number may be another file's by now, and the path may lead to another one.
            match reopened(way, self.inode) {
                Ok(file) => return Ok(file),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

fn reopened(way: &Path, inode: Inode) -> io::Result<OwnedFd> {
    fault::point("reopen memory file")?;
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(way, flags, Mode::empty())?;
    if Inode::of(&file)? == inode {
        Ok(file)
    } else {
        Err(io::Error::other("the file was replaced by another one"))
    }
}

fn aligned<T>(line: Option<&T>) -> &T {
    line.expect("a mapping begins on a page and every line in it on a multiple of 128")
}
