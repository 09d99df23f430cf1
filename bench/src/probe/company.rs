//! The other processes of a probe: this program again, in another role.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal};

use super::space;
use crate::{Outcome, screen};

/// A process started by a probe. It is killed if it has not ended when this is dropped.
pub(super) struct Companion {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Companion {
    /// Starts a role, and waits until it says that it is ready.
    pub(super) fn start(role: &str, arguments: &[String]) -> Outcome<Self> {
        let mut companion = Self::launch(role, arguments)?;
        companion.await_ready()?;
        Ok(companion)
    }

    /// Starts a role that says later when it is ready.
    pub(super) fn launch(role: &str, arguments: &[String]) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["probe", role]).args(arguments).env(space::VARIABLE, space::prefix());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take().map(BufReader::new).ok_or("a pipe is missing")?;
        Ok(Self { child, said })
    }

    pub(super) fn await_ready(&mut self) -> Outcome<()> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        if line.trim() == "ready" { Ok(()) } else { Err("a companion did not start".into()) }
    }

    /// Lets it go on.
    pub(super) fn cue(&mut self) -> Outcome<()> {
        let stdin = self.child.stdin.as_mut().ok_or("a pipe is missing")?;
        stdin.write_all(b"\n")?;
        Ok(stdin.flush()?)
    }

    /// Ends it without a chance to say goodbye.
    pub(super) fn kill(&self) -> Outcome<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, Signal::KILL)?)
    }

    /// Sleeps until the kernel closes the files of one that was killed.
    pub(super) fn await_end(&mut self) -> Outcome<()> {
        self.said.read_to_end(&mut Vec::new())?;
        Ok(())
    }

    /// Waits for its end and returns what it said.
    pub(super) fn finish(mut self) -> Outcome<Vec<u8>> {
        drop(self.child.stdin.take());
        let mut said = Vec::new();
        self.said.read_to_end(&mut said)?;
        let status = self.child.wait()?;
        if status.success() { Ok(said) } else { Err(format!("a companion {status}").into()) }
    }
}

impl Drop for Companion {
    fn drop(&mut self) {
        // Fails for one that has ended, which is the usual case.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the companion: says that it is ready, and binds its life to that of the probe.
pub(super) fn ready() -> Outcome<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    screen::line("ready");
    Ok(())
}

/// In the companion: waits for the cue, or for the end of the probe.
pub(super) fn await_cue() -> Outcome<()> {
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}
