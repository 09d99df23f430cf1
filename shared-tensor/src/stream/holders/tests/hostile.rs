//! Holders that lie. Who asks one of them goes on to the next, and says what was wrong if there is none.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use cuda_ipc::{ChunkId, ChunkLabel, Uuid};
use shm_core::Generation;

use super::super::Subject;
use super::super::name::SocketName;
use super::super::roll::{self, Roll};
use super::super::wire::{ASK, PROTOCOL, Reply};
use super::hostile_server::{Parrot, Raw, RawServer};
use super::label;
use super::peer::Peer;
use super::scene::{Scene, member, runtime_directory};
use crate::stream::Stream;
use crate::sync::Ordering;

/// A stream whose first line is of this process, which lives and holds nothing.
struct Trap {
    scene: Scene,
    stream: Stream,
    socket: PathBuf,
    client: Peer,
}

impl Trap {
    fn new() -> Self {
        let scene = Scene::new();
        let stream = scene.create();
        let name = SocketName::random();
        let member = member(&stream);
        let me = member.me().unwrap();
        let roll = Roll { memory: &member.memory, peers: &member.peers() };
        assert_eq!(roll.claim(me), Some(0));
        roll::name(&member.memory, 0, me, &name);
        let directory = rpc_uds::RuntimeDirectory::at(runtime_directory(scene.folder())).unwrap();
        let socket = directory.socket(name.as_str());
        let client = Peer::start(&scene);
        Self { scene, stream, socket, client }
    }

    /// What is told when the trap is the only holder, and was asked once.
    #[track_caller]
    fn says(&mut self, reason: &str) {
        let is_late = |answer: &str| {
            answer.contains("did not answer within") || answer.contains("no reply within")
        };
        let mut answer = self.client.ask("look");
        // A machine may be busy for longer than a holder is given.
        while is_late(&answer) {
            answer = self.client.ask("look");
        }
        assert!(answer.starts_with("Timeout: "), "{answer}");
        assert!(answer.contains("one of 1 processes"), "{answer}");
        assert!(answer.contains(reason), "{answer}\ninstead of: {reason}");
    }

    /// The reply that an honest holder would give.
    fn honest(&self) -> Reply {
        let subject = Subject { generation: self.stream.generation(), label: label() };
        Reply::Here(subject.into())
    }
}

#[test]
fn whatever_a_line_leads_to_the_next_holder_is_asked() {
    let mut trap = Trap::new();
    trap.says("no server listens");
    let mut honest = Peer::start(&trap.scene);
    honest.expect("make frames", "made");
    honest.expect("offer", "listed");
    trap.client.expect("fetch", "got frames");
    let other = Subject { generation: Generation::from_bytes([1; 16]), label: label() };
    let parrot = Parrot { tag: ASK, body: Reply::Here(other.into()).encode(), descriptors: 1 };
    let server = parrot.serve(&trap.socket);
    trap.client.expect("fetch", "got frames");
    drop(server);
    for hostile in [Raw::Noise, Raw::Closes, Raw::Answers { announced: 1, sent: 3 }] {
        let server = RawServer::start(&trap.socket, hostile, trap.honest().encode());
        trap.client.expect("fetch", "got frames");
        drop(server);
    }
    honest.expect("withdraw", "withdrawn");
}

#[test]
fn what_is_not_what_was_asked_for_is_not_taken() {
    let mut trap = Trap::new();
    let generation = trap.stream.generation();
    let chunk = |id, device, bytes| {
        ChunkLabel::new(ChunkId::from_bytes([id; 16]), Uuid::from_bytes([device; 16]), bytes)
    };
    let others = [
        Subject { generation: Generation::from_bytes([1; 16]), label: label() },
        Subject { generation, label: chunk(8, 9, 4096) },
        Subject { generation, label: chunk(7, 8, 4096) },
        Subject { generation, label: chunk(7, 9, 8192) },
    ];
    for other in others {
        let body = Reply::Here(other.into()).encode();
        let server = Parrot { tag: ASK, body, descriptors: 1 }.serve(&trap.socket);
        trap.says("other memory than it was asked for");
        drop(server);
    }
    let honest = trap.honest().encode();
    let longer = [&honest[..], &[0]].concat();
    let said = [
        (ASK, Reply::NotHere.encode(), 0, "does not hand out"),
        (ASK, Reply::NotHere.encode(), 1, "does not hand out"),
        (ASK, Reply::Protocol(PROTOCOL + 1).encode(), 0, "speaks protocol 2, this process 1"),
        (ASK, Reply::Unread.encode(), 0, "could not read"),
        (ASK, honest.clone(), 0, "0 descriptors came"),
        (ASK, longer, 1, "cannot be read"),
        (ASK, Vec::new(), 1, "cannot be read"),
        (ASK, vec![255; 64], 1, "cannot be read"),
        (ASK + 1, honest.clone(), 1, "cannot be read"),
        (ASK, vec![0; 5000], 0, "more than was agreed"),
        (ASK, honest, 2, "more than was agreed"),
    ];
    for (tag, body, descriptors, reason) in said {
        let server = Parrot { tag, body, descriptors }.serve(&trap.socket);
        trap.says(reason);
        drop(server);
    }
}

#[test]
fn what_breaks_the_protocol_is_told() {
    let mut trap = Trap::new();
    let hostile = [
        (Raw::Noise, "another protocol"),
        (Raw::Closes, "shake hands"),
        (Raw::Answers { announced: 1, sent: 0 }, "0 of 1 announced descriptors came"),
        (Raw::Answers { announced: 0, sent: 1 }, "descriptors came that no frame announces"),
        (Raw::Answers { announced: 2, sent: 2 }, "descriptors"),
        (Raw::Answers { announced: 1, sent: 3 }, "descriptors"),
    ];
    // Attached to the stream from here on.
    trap.says("no server listens");
    let before = trap.client.ask("usage");
    for (hostile, reason) in hostile {
        let server = RawServer::start(&trap.socket, hostile, trap.honest().encode());
        trap.says(reason);
        drop(server);
    }
    let after = trap.client.ask("usage");
    assert_eq!(before, after, "nothing that came stayed open");
}

#[test]
fn another_users_process_is_not_asked() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can start a process of another user");
        return;
    }
    let mut trap = Trap::new();
    let folder = trap.scene.folder().join("theirs");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let stranger = Peer::of_user(65534, &folder);
    symlink(folder.join("socket"), &trap.socket).unwrap();
    trap.says("runs as user 65534, this client as user 0 and does not trust it");
    fs::remove_file(&trap.socket).unwrap();
    drop(stranger);
}

#[test]
fn damaged_lines_are_told() {
    let mut trap = Trap::new();
    let holder = |trap: &Trap, bytes: u64, word: u64| {
        let holder = roll::holder(&member(&trap.stream).memory, 0);
        holder.name[0].store(word, Ordering::Relaxed);
        holder.name_bytes.store(bytes, Ordering::Release);
    };
    holder(&trap, 8, u64::from_ne_bytes(*b"../../.."));
    trap.says("`../../..`, which is no plain file name");
    holder(&trap, 8, u64::MAX);
    trap.says("not UTF-8");
    holder(&trap, 999, 0);
    trap.says("999 bytes");
    holder(&trap, 0, 0);
    trap.says("about to listen");
}

#[test]
fn what_is_no_question_is_answered_by_name() {
    let scene = Scene::new();
    let mut creator = Peer::start(&scene);
    creator.expect("create", "created");
    creator.expect("make frames", "made");
    creator.expect("offer", "listed");
    let [socket] = &scene.sockets()[..] else { panic!("one socket") };
    let client = rpc_uds::Client::options().connect(socket, None).unwrap();
    let asked = |tag, body: &[u8]| {
        let message = client.call(rpc_uds::Request::new(tag, body), None).unwrap();
        assert!(message.descriptors.is_empty());
        Reply::decode(&message.body)
    };
    assert_eq!(asked(ASK, &[]), Some(Reply::Unread));
    assert_eq!(asked(ASK, &[1]), Some(Reply::Unread));
    assert_eq!(asked(ASK, &[1; 60]), Some(Reply::Unread));
    assert_eq!(asked(ASK, &[2]), Some(Reply::Protocol(1)));
    assert_eq!(asked(1, &[1]), Some(Reply::Unread), "a request of the service");
    let generation = scene.open().generation();
    let ours = Subject { generation, label: label() };
    let other = Subject { generation: Generation::from_bytes([1; 16]), ..ours };
    let question = super::super::wire::encode_question(&other);
    assert_eq!(asked(ASK, &question), Some(Reply::NotHere));
    creator.expect("fetch", "got frames");
    drop(client);
    creator.expect("withdraw", "withdrawn");
}
