//! Clients that share nothing with the server but a directory, or may do little but talk to it.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use rpc_uds::{Client, Request};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::desk::{Desk, ECHO, FAST_ECHO, INFO, PUSH, connect, soon};
use crate::harness::{Outcome, Skip, say, tests};
use crate::peer::{self, Peer};
use crate::sys;

tests![
    a_client_in_namespaces_of_its_own,
    a_client_that_may_neither_trace_nor_take_descriptors,
    a_client_with_few_descriptors_is_told,
    a_server_with_few_descriptors_says_so,
];

/// Calls in every lane, and descriptors both ways and with a push: what a client can do.
fn everything_works(client: &Client) {
    client.ping(soon()).expect("an answer");
    let mut file = File::from(memfd_create("isolated", MemfdFlags::CLOEXEC).expect("a memfd"));
    file.write_all(b"inside").expect("room");
    let given = [file.as_fd()];
    for tag in [ECHO, FAST_ECHO, INFO] {
        let request = Request::new(tag, b"").with_descriptors(&given);
        let reply = client.call(request, soon()).expect("an answer");
        let mut back = File::from(reply.descriptors.into_iter().next().expect("the file"));
        // They are one open file, and so is where it is read next.
        back.rewind().expect("a file");
        let mut text = String::new();
        back.read_to_string(&mut text).expect("text");
        assert_eq!(text, "inside");
    }
    let request = Request::new(PUSH, b"\x01pushed").with_descriptors(&given);
    client.call(request, soon()).expect("an answer");
    let push = client.next_push(soon()).expect("a push");
    assert_eq!((&push.body[..], push.descriptors.len()), (&b"pushed"[..], 1));
}

/// In a pid namespace of its own this process is the first one, and the server is nobody.
pub(crate) fn namespaced(path: &Path) {
    let client = connect(path);
    everything_works(&client);
    let shared = std::fs::read_dir("/dev/shm").expect("a folder").count();
    let server = client.server().pid;
    say(&format!("ready\npid {}, server {server:?}, {shared} folder", std::process::id()));
    for _ in std::io::stdin().lines() {}
}

/// A script that hides everything of /dev/shm but one folder, and goes on as the program.
const HIDE: &str = "set -e\n\
    mount -t tmpfs none /mnt\n\
    mkdir /mnt/keep\n\
    mount --bind \"$0\" /mnt/keep\n\
    mount -t tmpfs none /dev/shm\n\
    mkdir -p \"$0\"\n\
    mount --move /mnt/keep \"$0\"\n\
    umount /mnt\n\
    exec \"$1\"";

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--ipc", "--mount", "--fork", "--kill-child", "--mount-proc"]);
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    command
}

fn a_client_in_namespaces_of_its_own() -> Outcome {
    let can = unshare().args(["sh", "-c", "mount -t tmpfs none /mnt"]).output();
    if !can.as_ref().is_ok_and(|output| output.status.success()) {
        return Err(Skip("`unshare` gives no private namespaces here".to_owned()));
    }
    let desk = Desk::new();
    let program = peer::command("namespaced", &desk.place.socket());
    let mut command = unshare();
    command.args(["sh", "-c", HIDE]).arg(desk.place.folder()).arg(program.get_program());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut peer = Peer::run(command);
    assert_eq!(peer.hear(), "pid 1, server None, 1 folder");
    // Killed from outside, it is gone for the server as anybody else.
    assert_eq!(desk.stats().sessions, 1);
    peer.kill();
    desk.seen.until_gone(1);
    desk.seen.until(|seen| seen.sessions_dropped() == 1);
    Ok(())
}

/// The calls by which one process gets at another's descriptors or memory.
const DENIED: [i64; 5] = [
    libc::SYS_ptrace,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
];

pub(crate) fn sandboxed(path: &Path) {
    if let Err(error) = sys::deny(&DENIED) {
        say(&format!("ready\ncannot: {error}"));
        return;
    }
    let own = Pid::from_raw(std::process::id().cast_signed()).expect("a pid");
    let denied = rustix::io::Errno::PERM;
    assert_eq!(pidfd_open(own, PidfdFlags::empty()).map(drop), Err(denied));
    let file = File::open("/dev/null").expect("it is everywhere");
    let got = pidfd_getfd(&file, 0, PidfdGetfdFlags::empty());
    assert_eq!(got.map(drop), Err(denied));
    everything_works(&connect(path));
    say("ready\nyes");
}

fn a_client_that_may_neither_trace_nor_take_descriptors() -> Outcome {
    let desk = Desk::new();
    let mut peer = Peer::start("sandboxed", &desk.place.socket());
    let said = peer.hear();
    if let Some(reason) = said.strip_prefix("cannot: ") {
        return Err(Skip(format!("no seccomp filter can be installed: {reason}")));
    }
    assert_eq!(said, "yes");
    assert!(peer.reap().success());
    desk.seen.until_gone(1);
    Ok(())
}

/// Meets its limit of open files with the reply.
pub(crate) fn starving(path: &Path) {
    let client = connect(path);
    client.ping(soon()).expect("alive");
    let file = File::open("/dev/null").expect("it is everywhere");
    let given = vec![file.as_fd(); 40];
    let restore = sys::limit_descriptors(10);
    let reply = client.call(Request::new(ECHO, b"").with_descriptors(&given), soon());
    let error = reply.expect_err("they do not fit").to_string();
    restore();
    let open = std::fs::read_dir("/proc/self/fd").expect("/proc").count();
    everything_works(&connect(path));
    let now = std::fs::read_dir("/proc/self/fd").expect("/proc").count();
    assert_eq!(now, open, "what came was closed");
    say(&format!("ready\n{error}"));
}

fn a_client_with_few_descriptors_is_told() {
    let desk = Desk::new();
    let mut peer = Peer::start("starving-client", &desk.place.socket());
    let said = peer.hear();
    assert!(said.contains("ulimit -n"), "{said}");
    assert!(peer.reap().success());
    desk.seen.until_gone(2);
}

fn a_server_with_few_descriptors_says_so() {
    let place = crate::desk::Place::new();
    let mut peer = Peer::start("starving-server", &place.socket());
    let client = connect(&place.socket());
    let file = File::open("/dev/null").expect("it is everywhere");
    let given = vec![file.as_fd(); 40];
    let reply = client.call(Request::new(ECHO, b"").with_descriptors(&given), soon());
    let error = reply.expect_err("they do not fit").to_string();
    assert!(error.contains("ulimit -n"), "{error}");
    drop(client);
    // It has closed what had come, and serves the next.
    let other = connect(&place.socket());
    let one = Request::new(ECHO, b"").with_descriptors(&given[..1]);
    assert_eq!(other.call(one, soon()).expect("an answer").descriptors.len(), 1);
    peer.kill();
    for name in place.files() {
        std::fs::remove_file(place.folder().join(name)).expect("left by the killed server");
    }
}
