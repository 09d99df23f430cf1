//! Other processes, and what they are asked.

use std::io::Read;

use crate::counts::Tally;
use crate::object::{Object, numbers, send_numbers};
pub(crate) use crate::process::Peer;

impl Peer {
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
}

/// What is free on the device beside one context, as a process of its own sees it.
pub(crate) fn free_bytes() -> u64 {
    let peer = Peer::start("memory");
    let [free, _] = numbers(&peer.socket).expect("an answer");
    peer.join();
    free
}
