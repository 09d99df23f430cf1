//! Another process: this program again, in a role, spoken to over its standard input.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

/// In the environment: what the process is there for.
pub(crate) const ROLE: &str = "CUDA_IPC_ROLE";

/// Another process, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    pub(crate) socket: UnixStream,
}

impl Peer {
    pub(crate) fn start(role: &str) -> Self {
        Self::with(role, |command| command)
    }

    pub(crate) fn with(role: &str, how: impl FnOnce(&mut Command) -> &mut Command) -> Self {
        let (socket, theirs) = UnixStream::pair().expect("a pair");
        let mut command = Command::new(std::env::current_exe().expect("an executable"));
        command.env(ROLE, role).stdin(OwnedFd::from(theirs));
        let child = how(&mut command).spawn().expect("it starts");
        Self { child, socket }
    }

    pub(crate) fn say(&mut self, word: u8) {
        self.socket.write_all(&[word]).expect("it listens");
    }

    /// Waits until it says that it is so far.
    pub(crate) fn await_word(&mut self) {
        let mut word = [0];
        self.socket.read_exact(&mut word).expect("it is so far");
    }

    /// Kills it, which must be what it dies of.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it lives");
        let status = self.child.wait().expect("a child");
        assert_eq!(status.signal(), Some(9), "{status}");
    }

    /// Lets it end, which must be a good end.
    pub(crate) fn join(mut self) {
        self.socket.shutdown(std::net::Shutdown::Write).expect("a socket");
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "{status}");
    }

    pub(crate) fn maps(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).expect("it lives")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
