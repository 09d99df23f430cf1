//! Streams between processes, one suite per behaviour.

mod crowd;
mod death;
mod fork;
mod names;
mod observers;
mod order;
mod several;
mod space;

use st_tests::{Namespace, Peer};

use super::peer;

/// A peer with the stream `a` of frames of `bytes`, and another one that opened it.
fn pair(space: &Namespace, bytes: usize, options: &str) -> (Peer, Peer) {
    let (mut one, mut other) = (peer(space), peer(space));
    one.ask(format!("stream.create a {bytes} {options}").trim_end());
    other.ask("stream.open a");
    (one, other)
}

/// One more peer that opened the stream `a`.
fn guest(space: &Namespace) -> Peer {
    let mut guest = peer(space);
    guest.ask("stream.open a");
    guest
}

/// A field of what `stream.info` says.
fn field(peer: &mut Peer, name: &str) -> String {
    let info = peer.ask("stream.info a");
    let found = info.split(' ').find_map(|word| word.strip_prefix(&format!("{name}=")));
    found.unwrap_or_else(|| panic!("no {name} in `{info}`")).to_owned()
}

/// What a peer is refused with at last: readers that fail on a dead writer ask whether it lives once in
/// a millisecond at most.
fn refused_at_last(peer: &mut Peer, line: &str) -> String {
    loop {
        peer.say(line);
        if let Some(why) = peer.hear().strip_prefix("error") {
            return why.trim_start().to_owned();
        }
    }
}

/// Comes back when `sleeper`, which was told to wait on the stream, has gone to sleep and up again
/// at least once: from then on the stream knows that somebody sleeps.
fn until_parked(sleeper: &Peer, witness: &mut Peer) {
    let question = format!("stream.parks a {}", sleeper.pid());
    while witness.ask(&question).parse::<u32>().expect("a number") < 2 {}
}
