//! Other processes: this program again, in a role.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use crate::counts::Tally;
use crate::object::{Object, numbers, send_numbers};

pub(crate) const ROLE: &str = "SURVIVORS_ROLE";

/// Another process, killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    pub(crate) socket: UnixStream,
}

impl Peer {
    pub(crate) fn start(role: &str) -> Self {
        let (socket, theirs) = UnixStream::pair().expect("a pair");
        let mut command = Command::new(std::env::current_exe().expect("an executable"));
        let child = command.env(ROLE, role).stdin(OwnedFd::from(theirs)).spawn();
        Self { child: child.expect("it starts"), socket }
    }

    /// Starts one that makes an object, and waits to be killed.
    pub(crate) fn maker(seed: u64, bytes: u64, chunk: u64) -> Self {
        let maker = Self::start("maker");
        send_numbers(&maker.socket, [seed, bytes]);
        send_numbers(&maker.socket, [chunk, 0]);
        maker
    }

    /// Starts one that reads again and again, and waits until it has a context.
    pub(crate) fn reader() -> Self {
        let mut reader = Self::start("reader");
        reader.await_word();
        reader
    }

    pub(crate) fn say(&mut self, word: u8) {
        self.socket.write_all(&[word]).expect("it listens");
    }

    /// Waits until it says that it is so far.
    pub(crate) fn await_word(&mut self) {
        let mut word = [0];
        self.socket.read_exact(&mut word).expect("it is so far");
    }

    /// Gives a reader one more object to read.
    pub(crate) fn give(&mut self, object: &Object) {
        self.say(b'o');
        object.send(&self.socket);
    }

    /// What a reader found so far, and in reading everything once more from now on.
    pub(crate) fn tally(&mut self) -> Tally {
        self.say(b'r');
        let mut form = [0; Tally::BYTES];
        self.socket.read_exact(&mut form).expect("it answers");
        Tally::decode(&form)
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

/// What is free on the device beside one context, as a process of its own sees it.
pub(crate) fn free_bytes() -> u64 {
    let peer = Peer::start("memory");
    let [free, _] = numbers(&peer.socket).expect("an answer");
    peer.join();
    free
}
