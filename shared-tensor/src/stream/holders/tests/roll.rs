//! Lines that anybody may have written.

use super::super::name::{NameError, SocketName};
use super::super::roll::{self, Listed, Roll};
use super::peer::Peer;
use super::scene::{Scene, member};
use crate::ring::{Identity, Liveness, Ring};
use crate::stream::layout::{PARTICIPANTS, SEATS};
use crate::sync::Ordering;

#[test]
fn a_line_is_free_if_nobody_has_it_or_its_owner_has_ended() {
    let scene = Scene::new();
    let stream = scene.create();
    let member = member(&stream);
    let (memory, peers, me) = (&*member.memory, &member.peers(), member.me().unwrap());
    let roll = Roll { memory, peers };
    let mut other = Peer::start(&scene);
    other.expect("make frames", "made");
    other.expect("offer", "listed");
    let theirs = roll.read(0).unwrap();
    assert!(matches!(theirs.socket, Ok(Some(_))), "{theirs:?}");
    assert_eq!(roll.claim(me), Some(1), "the first is somebody's");
    assert_eq!(roll.read(1), Some(Listed { id: me.id, socket: Ok(None) }), "not listening yet");

    other.kill();
    assert_eq!(roll.read(0), None);
    assert_eq!(roll.claim(me), Some(0), "its owner has ended");
    assert_eq!(roll.read(0), Some(Listed { id: me.id, socket: Ok(None) }), "the old name is gone");
    let socket = SocketName::random();
    roll::name(memory, 0, me, &socket);
    assert_eq!(roll.read(0), Some(Listed { id: me.id, socket: Ok(Some(socket)) }));

    for line in 2..SEATS {
        assert_eq!(roll.claim(me), Some(line));
    }
    assert_eq!(roll.claim(me), None);
    // Only its owner gives a line back.
    roll::name(memory, 5, me, &SocketName::random());
    let before = roll.read(5);
    roll::leave(memory, 5, Identity { id: me.id + 1, ..me });
    assert_eq!(roll.read(5), before);
    roll::leave(memory, 5, me);
    assert_eq!((roll.read(5), roll.claim(me)), (None, Some(5)));
    drop(other);
    scene.sweep();
}

/// Says that everybody in the table lives, and who was asked about.
struct Everybody;

impl Liveness for Everybody {
    fn has_ended(&self, who: Identity) -> bool {
        who.entry >= PARTICIPANTS
    }

    fn occupant(&self, entry: usize) -> Identity {
        unreachable!("nobody asks for entry {entry}")
    }
}

#[test]
fn a_new_owner_is_not_judged_by_the_place_of_the_old_one() {
    let scene = Scene::new();
    let stream = scene.create();
    let member = member(&stream);
    let (memory, me) = (&*member.memory, member.me().unwrap());
    let roll = Roll { memory, peers: &Everybody };
    let holder = roll::holder(memory, 0);
    for place in [me.entry as u64 + 1, memory.high_water() as u64, PARTICIPANTS as u64, u64::MAX] {
        // Claimed, and its place not yet written.
        holder.entry.store(place, Ordering::Relaxed);
        holder.id.store(me.id, Ordering::Relaxed);
        assert!(roll.read(0).is_some(), "{place}");
        assert_eq!(roll.claim(Identity { id: me.id, ..me }), Some(1), "{place}: the line is taken");
        roll::leave(memory, 1, me);
    }
    // Ids that nobody has.
    for id in [me.id + 1, u64::MAX, 1 << 63] {
        holder.id.store(id, Ordering::Relaxed);
        assert_eq!(roll.read(0), None, "{id}");
    }
}

#[test]
fn hostile_names_are_errors() {
    let scene = Scene::new();
    let stream = scene.create();
    let member = member(&stream);
    let (memory, peers, me) = (&*member.memory, &member.peers(), member.me().unwrap());
    let roll = Roll { memory, peers };
    assert_eq!(roll.claim(me), Some(0));
    let holder = roll::holder(memory, 0);
    let reads = |text: &[u8], bytes: u64| {
        for (word, stored) in holder.name.iter().enumerate() {
            let byte = |at: usize| text.get(word * 8 + at).copied().unwrap_or(0);
            stored.store(u64::from_ne_bytes(std::array::from_fn(byte)), Ordering::Relaxed);
        }
        holder.name_bytes.store(bytes, Ordering::Relaxed);
        roll.read(0).unwrap().socket
    };
    let form = |name: &str| Err(NameError::Form { name: name.to_owned() });
    assert_eq!(reads(b"../../tmp/socket", 16), form("../../tmp/socket"));
    assert_eq!(reads(b"\0\0\0", 3), form("\0\0\0"));
    assert_eq!(reads(b"\xff\xff", 2), Err(NameError::Text));
    for bytes in [105, 1 << 20, u64::MAX] {
        assert_eq!(reads(b"a", bytes), Err(NameError::Length { bytes }));
    }
    assert_eq!(reads(b"a", 0), Ok(None));
}
