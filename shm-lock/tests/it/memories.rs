//! Memories that behave as some owner's might: small, slow to claim, careless in reopening.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use shm_lock::{LockWord, Memory, MemoryFile, Participant, Roster};

use crate::harness::say;
use crate::sys;

/// A memory file, bent where a test wants it.
pub(crate) struct AnyMemory {
    file: MemoryFile,
    pub(crate) capacity: usize,
    pub(crate) on_claim: fn(),
    pub(crate) reopening: Reopening,
}

pub(crate) type Reopening = Box<dyn Fn(&MemoryFile) -> io::Result<OwnedFd> + Send + Sync>;

impl AnyMemory {
    pub(crate) fn open(path: &Path) -> Self {
        let file = MemoryFile::open(path).expect("the memory can be opened");
        let capacity = file.capacity();
        Self { file, capacity, on_claim: || (), reopening: Box::new(MemoryFile::reopen) }
    }

    pub(crate) fn anonymous() -> Self {
        let file = MemoryFile::anonymous().expect("a memfd can be made");
        let capacity = file.capacity();
        Self { file, capacity, on_claim: || (), reopening: Box::new(MemoryFile::reopen) }
    }
}

/// The memory that a peer of this kind works on.
pub(crate) fn open(kind: &str, path: &Path) -> AnyMemory {
    let mut memory = AnyMemory::open(path);
    match kind {
        "futex" => {}
        "futex-small" => memory.capacity = 3,
        "futex-stuck" => {
            memory.on_claim = || {
                say("claiming");
                sys::sleep_for_good();
            };
        }
        _ => panic!("no memory is called `{kind}`"),
    }
    memory
}

impl Memory for AnyMemory {
    fn lock_word(&self) -> &LockWord {
        self.file.lock_word()
    }

    fn roster(&self) -> &Roster {
        self.file.roster()
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn participant(&self, slot: usize) -> &Participant {
        self.file.participant(slot)
    }

    fn prepare(&self, slot: usize) -> io::Result<()> {
        self.file.prepare(slot)
    }

    fn claimed(&self, _slot: usize, _id: u64) {
        (self.on_claim)();
    }

    fn reopen(&self) -> io::Result<OwnedFd> {
        (self.reopening)(&self.file)
    }
}

/// What a memory file holds, read past the library.
pub(crate) struct Raw(File);

const WORD: u64 = 64;
const LAST_ID: u64 = 128;
const PARTICIPANTS: u64 = 256;

impl Raw {
    pub(crate) fn open(path: &Path) -> Self {
        let file = File::options().read(true).write(true).open(path);
        Self(file.expect("the memory file exists"))
    }

    /// Waits until somebody sleeps on the lock, or is about to.
    pub(crate) fn wait_for_waiter(&self) {
        while self.word() & 1 == 0 {
            std::thread::yield_now();
        }
    }

    pub(crate) fn word(&self) -> u32 {
        let mut bytes = [0; 4];
        self.read(WORD, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn entry(&self, slot: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(PARTICIPANTS + slot * 128, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    pub(crate) fn set_last_id(&self, id: u64) {
        self.write(LAST_ID, &id.to_le_bytes());
    }

    /// Overwrites everything behind the magic number.
    pub(crate) fn scribble(&self, bytes: &[u8]) {
        self.write(8, bytes);
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, offset)
            .expect("the memory file is whole");
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        std::os::unix::fs::FileExt::write_all_at(&self.0, bytes, offset)
            .expect("the memory file can be written");
    }
}
