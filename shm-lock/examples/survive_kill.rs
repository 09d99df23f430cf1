//! A process takes a lock and is killed; another one goes on.
//!
//! `cargo run -p shm-lock --example survive_kill`

use std::env;
use std::error::Error;
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Instant;

use shm_lock::{FutexLock, Membership, MemoryFile, Wait};

const PATH: &str = "SURVIVE_KILL_PATH";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    if let Some(path) = env::var_os(PATH) {
        return owner(PathBuf::from(path));
    }
    let path = PathBuf::from(format!("/dev/shm/survive-kill-{}", std::process::id()));
    let outcome = heir(&path);
    std::fs::remove_file(&path)?;
    outcome
}

/// Takes the lock, says so, and never gives it back.
fn owner(path: PathBuf) -> Result<ExitCode, Box<dyn Error>> {
    let lock = FutexLock::new(Membership::join(Arc::new(MemoryFile::open(path)?))?);
    let _guard = lock.acquire(&Wait::forever())?;
    writeln!(io::stdout(), "held")?;
    loop {
        std::thread::park();
    }
}

/// Kills the owner and takes over.
fn heir(path: &PathBuf) -> Result<ExitCode, Box<dyn Error>> {
    let lock = FutexLock::new(Membership::join(Arc::new(MemoryFile::open(path)?))?);
    let mut owner =
        Command::new(env::current_exe()?).env(PATH, path).stdout(Stdio::piped()).spawn()?;
    let mut answer = String::new();
    BufReader::new(owner.stdout.take().ok_or("a pipe")?).read_line(&mut answer)?;

    let mut out = io::stdout();
    let holder = lock.holder().ok_or("the owner holds the lock")?;
    writeln!(out, "the lock is held by pid {}, participant {}", holder.pid, holder.id)?;
    if let Err(refused) = lock.try_acquire() {
        writeln!(out, "nobody else gets it: {refused}")?;
    }

    let killed = Instant::now();
    owner.kill()?;
    let guard = lock.acquire(&Wait::forever())?;
    let took = killed.elapsed();
    match guard.recovered() {
        Some(dead) => writeln!(out, "pid {} was killed; taken over after {took:.1?}", dead.pid)?,
        None => return Err("the next owner must be told of the death".into()),
    }
    drop(guard);
    assert!(lock.acquire(&Wait::forever())?.recovered().is_none(), "a death is told of once");
    writeln!(out, "the lock is as good as new")?;
    owner.wait()?;
    Ok(ExitCode::SUCCESS)
}
