//! The lock on a whole file, for set-up and tear-down, where there is no shared memory yet.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::error::AcquireError;
use crate::fault;
use crate::guard::{Holder, Lock, LockGuard, OfProcess, Recovered, Sealed};
use crate::membership::Liveness;
use crate::sys::{Forks, Inode, Pin};
use crate::wait::Wait;

/// How often a taken lock is tried again. The kernel can be asked to wait, but then neither a
/// deadline nor an interruption ends the wait.
const SLICE: Duration = Duration::from_millis(2);

/// How often an attempt is begun anew because the file was replaced or the process forked.
const ATTEMPTS: u32 = 64;

/// What the holder leaves in the file: while it is there, somebody holds the lock or died with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    pid: u32,
    /// Counts the acquisitions of this file.
    acquisition: u64,
}

/// What a file that is to be locked holds already.
enum Found {
    /// It is new.
    Nothing,
    Record(Record),
    /// Something that no lock wrote.
    Foreign,
}

impl Found {
    fn record(self) -> Option<Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::Nothing | Self::Foreign => None,
        }
    }
}

/// The upper half of the record's first word; the pid is the lower one.
const RECORD_MAGIC: u64 = u32::from_le_bytes(*b"LOCK") as u64;
const RECORD_BYTES: usize = 16;

/// A mutual exclusion lock between processes on a file of its own.
///
/// Give it a path that is used for nothing else. A file that holds what no lock wrote is refused and
/// left as it is.
///
/// The kernel releases it when its holder dies; a record in the file tells the next holder. It
/// costs a few system calls where [`FutexLock`](crate::FutexLock) costs none: it is the lock for
/// the time when there is no shared memory yet. Guards are tokens, and no forked child holds
/// anything of its parent's.
///
/// The file is created with mode 0600 if there is none, and should never be removed while anybody
/// uses it. If it is, those who come later lock the new file, and the old guards guard nothing.
pub struct FileLock {
    path: PathBuf,
}

/// A held [`FileLock`]; dropping it releases.
#[must_use = "the lock is released as soon as its guard is dropped"]
pub struct FileGuard<'a> {
    lock: &'a FileLock,
    hold: FileHold,
}

/// A held [`FileLock`] that keeps the lock's handle alive; dropping it releases.
#[must_use = "the lock is released as soon as its guard is dropped"]
pub struct OwnedFileGuard {
    lock: Arc<FileLock>,
    hold: FileHold,
}

#[derive(Debug)]
struct FileHold {
    /// The description that holds the lock: unmapping it is the release.
    pin: Option<Pin>,
    inode: Inode,
    record: Record,
    process: OfProcess,
    recovered: Option<Recovered>,
}

impl FileLock {
    /// The lock on the file at `path`. Nothing is opened yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the lock. An attempt is made even if the deadline has passed.
    pub fn acquire(&self, wait: &Wait<'_>) -> Result<FileGuard<'_>, AcquireError> {
        Ok(FileGuard { lock: self, hold: self.enter(wait)? })
    }

    /// Takes the lock if it is free.
    pub fn try_acquire(&self) -> Result<FileGuard<'_>, AcquireError> {
        match self.attempt()? {
            Some(hold) => Ok(FileGuard { lock: self, hold }),
            None => Err(AcquireError::WouldBlock { holder: self.holder().map(|held| held.pid) }),
        }
    }

    /// Like [`acquire`](Self::acquire), for a guard that is not tied to a borrow.
    pub fn acquire_owned(
        self: &Arc<Self>,
        wait: &Wait<'_>,
    ) -> Result<OwnedFileGuard, AcquireError> {
        let hold = self.enter(wait)?;
        Ok(OwnedFileGuard { lock: Arc::clone(self), hold })
    }

    /// Who holds the lock at this moment, or died with it.
    pub fn holder(&self) -> Option<Holder> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty()).ok()?);
        let Record { pid, acquisition } =
            Record::read(&file).ok()?.record().filter(Record::is_held)?;
        Some(Holder { slot: 0, id: acquisition, pid })
    }

    fn enter(&self, wait: &Wait<'_>) -> Result<FileHold, AcquireError> {
        let waiting = wait.begin();
        loop {
            if let Some(hold) = self.attempt()? {
                return Ok(hold);
            }
            let slice = waiting.next_slice(SLICE).map_err(|error| {
                AcquireError::from_wait(error, self.holder().map(|held| held.pid))
            })?;
            std::thread::sleep(slice);
        }
    }

    /// One attempt; `None` if somebody else holds the lock.
    fn attempt(&self) -> Result<Option<FileHold>, AcquireError> {
        let failed = |step| {
            move |source: io::Error| AcquireError::File { step, path: self.path.clone(), source }
        };
        for _ in 0..ATTEMPTS {
            let forks = Forks::watch();
            let file = self.open().map_err(failed("open"))?;
            fault::point("lock file").map_err(failed("lock"))?;
            // `std` has a method of the same name: this is the trait's.
            match fs4::FileExt::try_lock(&file) {
                Ok(()) => {}
                Err(fs4::TryLockError::WouldBlock) => return Ok(None),
                Err(fs4::TryLockError::Error(error)) => return Err(failed("lock")(error)),
            }
            let inode = Inode::of(&file).map_err(failed("identify"))?;
            match Inode::at(&self.path) {
                Ok(found) if found == inode => {}
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("find")(error));
                }
                // Removed or replaced while we waited: a lock on it excludes nobody.
                _ => continue,
            }
            let previous = match Record::read(&file).map_err(failed("read"))? {
                Found::Record(record) => Some(record),
                Found::Nothing => None,
                // Nothing was written: whatever it is, it stays what it is.
                Found::Foreign => return Err(AcquireError::Foreign { path: self.path.clone() }),
            };
            let record = Record::after(previous);
            record.write(&file).map_err(failed("write"))?;
            let pin = Pin::hold(&file).map_err(failed("pin"))?;
            let Err(file) = forks.close_unshared(file.into()) else {
                let recovered = previous.filter(Record::is_held).map(Record::recovered);
                let process = OfProcess::this();
                return Ok(Some(FileHold { pin: Some(pin), inode, record, process, recovered }));
            };
            // A child may share the description for as long as it lives: leave nothing on it.
            let file = File::from(file);
            previous.unwrap_or(record.released()).write(&file).map_err(failed("write"))?;
            fs4::FileExt::unlock(&file).map_err(failed("unlock"))?;
        }
        let moving = "the file was replaced, or the process forked, during each attempt";
        Err(failed("lock")(io::Error::other(moving)))
    }

    fn open(&self) -> io::Result<File> {
        fault::point("open lock file")?;
        // Whatever the path leads to, opening it neither waits nor follows the last link.
        let flags = OFlags::RDWR
            | OFlags::CREATE
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::NOCTTY;
        Ok(rustix::fs::open(&self.path, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    fn leave(&self, hold: &mut FileHold) {
        if !hold.process.is_this() {
            return;
        }
        // First the record, then the lock. If the record cannot be cleared, the next holder is
        // told of a death that was none, and checks in vain.
        if let Ok(file) = self.open()
            && Inode::of(&file).is_ok_and(|inode| inode == hold.inode)
        {
            let _ = hold.record.released().write(&file);
        }
        drop(hold.pin.take());
    }
}

impl Record {
    fn after(previous: Option<Self>) -> Self {
        let acquisition = previous.map_or(0, |record| record.acquisition).wrapping_add(1);
        let pid = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
        Self { pid, acquisition }
    }

    fn released(self) -> Self {
        Self { pid: 0, ..self }
    }

    fn is_held(&self) -> bool {
        self.pid != 0
    }

    fn recovered(self) -> Recovered {
        Recovered { slot: 0, id: self.acquisition, pid: self.pid, liveness: Liveness::Gone }
    }

    /// What `file` starts with.
    fn read(file: &File) -> io::Result<Found> {
        fault::point("read record")?;
        if file.metadata()?.len() == 0 {
            return Ok(Found::Nothing);
        }
        let mut bytes = [0; RECORD_BYTES];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Found::Foreign);
            }
            Err(error) => return Err(error),
        }
        let (holder, acquisition) = bytes.split_at(8);
        let [holder, acquisition] = [holder, acquisition]
            .map(|word| word.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte)));
        if holder >> 32 != RECORD_MAGIC {
            return Ok(Found::Foreign);
        }
        Ok(Found::Record(Self { pid: holder as u32, acquisition }))
    }

    fn write(self, file: &File) -> io::Result<()> {
        fault::point("write record")?;
        let holder = RECORD_MAGIC << 32 | u64::from(self.pid);
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&holder.to_le_bytes());
        bytes[8..].copy_from_slice(&self.acquisition.to_le_bytes());
        file.write_all_at(&bytes, 0)
    }
}

impl FileGuard<'_> {
    /// The previous holder, if it died holding the lock.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.hold.recovered.as_ref()
    }
}

impl OwnedFileGuard {
    /// The previous holder, if it died holding the lock.
    pub fn recovered(&self) -> Option<&Recovered> {
        self.hold.recovered.as_ref()
    }
}

impl Drop for FileGuard<'_> {
    fn drop(&mut self) {
        self.lock.leave(&mut self.hold);
    }
}

impl Drop for OwnedFileGuard {
    fn drop(&mut self) {
        self.lock.leave(&mut self.hold);
    }
}

impl Sealed for FileLock {}
impl Sealed for FileGuard<'_> {}
impl Sealed for OwnedFileGuard {}

impl Lock for FileLock {
    type Guard<'a> = FileGuard<'a>;

    fn acquire(&self, wait: &Wait<'_>) -> Result<FileGuard<'_>, AcquireError> {
        self.acquire(wait)
    }

    fn try_acquire(&self) -> Result<FileGuard<'_>, AcquireError> {
        self.try_acquire()
    }

    fn holder(&self) -> Option<Holder> {
        self.holder()
    }
}

impl LockGuard for FileGuard<'_> {
    fn recovered(&self) -> Option<&Recovered> {
        self.recovered()
    }
}

impl LockGuard for OwnedFileGuard {
    fn recovered(&self) -> Option<&Recovered> {
        self.recovered()
    }
}

impl fmt::Debug for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileLock").field(&self.path).finish()
    }
}

impl fmt::Debug for FileGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileGuard").field("recovered", &self.hold.recovered).finish_non_exhaustive()
    }
}

impl fmt::Debug for OwnedFileGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedFileGuard")
            .field("recovered", &self.hold.recovered)
            .finish_non_exhaustive()
    }
}
