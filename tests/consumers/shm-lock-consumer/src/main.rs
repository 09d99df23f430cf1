//! Four processes count together under one lock while one after the other is killed, and a lock
//! lives in memory that this program lays out itself. Nothing but `shm-lock` and `std`.

use std::env;
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use shm_lock::{FutexLock, LockWord, Membership, Memory, MemoryFile, Participant, Roster, Wait};

const ROLE: &str = "CONSUMER_COUNTS_IN";
const PROCESSES: usize = 4;
const KILLS: usize = 20;

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(folder) = env::var_os(ROLE) {
        return count(Path::new(&folder));
    }
    let folder = PathBuf::from(format!("/dev/shm/shm-lock-consumer-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let outcome = kill_counters(&folder).and_then(|()| lock_in_own_memory(&folder));
    fs::remove_dir_all(&folder)?;
    outcome
}

/// Adds one to both halves of a record, for ever. Between the two the record is inconsistent.
fn count(folder: &Path) -> Result<(), Box<dyn Error>> {
    let lock = join(folder)?;
    let record = record(folder)?;
    writeln!(io::stdout(), "ready")?;
    loop {
        let guard = lock.acquire(&Wait::forever())?;
        if guard.recovered().is_some() {
            repair(&record)?;
        }
        let [one, two] = read(&record)?;
        if one != two {
            return Err(format!("{one} and {two}, and nobody died").into());
        }
        record.write_all_at(&(one + 1).to_le_bytes(), 0)?;
        record.write_all_at(&(two + 1).to_le_bytes(), 8)?;
    }
}

fn kill_counters(folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::write(folder.join("record"), [0; 16])?;
    let lock = join(folder)?;
    let record = record(folder)?;
    let start = || start(folder);
    let mut counters = (0..PROCESSES).map(|_| start()).collect::<Result<Vec<_>, _>>()?;
    let mut recoveries = 0;
    for kill in 0..KILLS {
        let mut victim = counters.swap_remove(kill % PROCESSES);
        victim.kill()?;
        let guard = lock.acquire(&Wait::forever())?;
        if let Some(dead) = guard.recovered() {
            assert_eq!(dead.pid, victim.id());
            repair(&record)?;
            recoveries += 1;
        }
        let [one, two] = read(&record)?;
        assert_eq!(one, two, "whoever recovers repairs");
        drop(guard);
        victim.wait()?;
        counters.push(start()?);
    }
    for counter in &mut counters {
        // One that found an inconsistent record has ended with an error by itself.
        assert!(counter.try_wait()?.is_none());
        counter.kill()?;
        counter.wait()?;
    }
    let [counted, _] = read(&record)?;
    let told = format!("counted to {counted}, {KILLS} kills, {recoveries} recovered here");
    Ok(writeln!(io::stdout(), "{told}")?)
}

fn join(folder: &Path) -> Result<FutexLock<MemoryFile>, Box<dyn Error>> {
    let memory = Arc::new(MemoryFile::open(folder.join("lock"))?);
    Ok(FutexLock::new(Membership::join(memory)?))
}

fn start(folder: &Path) -> io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    let mut child = command.env(ROLE, folder).stdout(Stdio::piped()).spawn()?;
    if let Some(answers) = child.stdout.take() {
        BufReader::new(answers).read_line(&mut String::new())?;
    }
    Ok(child)
}

fn record(folder: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(folder.join("record"))
}

fn read(record: &File) -> io::Result<[u64; 2]> {
    let half = |offset| {
        let mut bytes = [0; 8];
        record.read_exact_at(&mut bytes, offset).map(|()| u64::from_le_bytes(bytes))
    };
    Ok([half(0)?, half(8)?])
}

/// The first half is written first: it says how far the dead one got.
fn repair(record: &File) -> io::Result<()> {
    let [one, _] = read(record)?;
    record.write_all_at(&one.to_le_bytes(), 8)
}

/// The words of a lock as plain fields, for the threads of one process.
struct Own {
    word: LockWord,
    roster: Roster,
    participants: [Participant; 2],
    file: PathBuf,
}

impl Memory for Own {
    fn lock_word(&self) -> &LockWord {
        &self.word
    }

    fn roster(&self) -> &Roster {
        &self.roster
    }

    fn capacity(&self) -> usize {
        self.participants.len()
    }

    fn participant(&self, slot: usize) -> &Participant {
        &self.participants[slot]
    }

    fn reopen(&self) -> io::Result<OwnedFd> {
        Ok(File::open(&self.file)?.into())
    }
}

fn lock_in_own_memory(folder: &Path) -> Result<(), Box<dyn Error>> {
    let file = folder.join("own");
    fs::write(&file, "")?;
    let own = Own {
        word: LockWord::new(),
        roster: Roster::new(),
        participants: Default::default(),
        file,
    };
    let membership = Membership::join(Arc::new(own))?;
    let lock = Arc::new(FutexLock::new(Arc::clone(&membership)));
    let guard = lock.acquire_owned(&Wait::forever())?;
    assert!(lock.try_acquire().is_err());
    // A guard is a token: it may end anywhere.
    std::thread::spawn(move || drop(guard)).join().map_err(|_| "dropping a guard panicked")?;
    drop(lock.try_acquire()?);
    let known = membership.participants().len();
    Ok(writeln!(io::stdout(), "a lock in memory of our own, {known} participant")?)
}
