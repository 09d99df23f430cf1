//! Another process that does what it is told, line by line: this program, started in a role.
//!
//! Orders and answers go over one socket, which is its standard input: the standard output belongs to the
//! harness of tests.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::roles;
use super::scene::{Scene, runtime_directory};
use crate::service::RUNTIME_DIRECTORY_VARIABLE;

const FOLDER: &str = "ST_HOLDERS_FOLDER";

/// What a peer runs, in the folder that it is given. Without one this is a test of peers.
#[test]
fn does_what_it_is_told() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else {
        let scene = Scene::new();
        let mut peer = Peer::start(&scene);
        assert_ne!(peer.ask("usage"), "");
        return peer.end();
    };
    // No peer outlives the test that started it, however that ends.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let orders = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    if env::var_os(RUNTIME_DIRECTORY_VARIABLE).is_some() {
        roles::play(&folder, &orders);
    } else {
        roles::listen(&folder, &orders);
    }
}

/// A running peer; killed when dropped.
#[derive(Debug)]
pub(super) struct Peer {
    child: Child,
    orders: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Peer {
    /// Starts it. It opens the stream when it is first told to do something with it.
    pub(super) fn start(scene: &Scene) -> Self {
        let mut command = Self::command(scene.folder());
        command.env(RUNTIME_DIRECTORY_VARIABLE, runtime_directory(scene.folder()));
        Self::run(command)
    }

    /// Starts one of another user, that listens in `folder` and does nothing else. Only root can.
    pub(super) fn of_user(user: u32, folder: &Path) -> Self {
        let mut command = Self::command(folder);
        command.env_remove(RUNTIME_DIRECTORY_VARIABLE).uid(user).current_dir("/");
        Self::run(command)
    }

    fn command(folder: &Path) -> Command {
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "stream::holders::tests::peer::does_what_it_is_told"])
            .args(["--nocapture", "--test-threads=1", "--quiet"])
            .env(FOLDER, folder);
        command
    }

    fn run(mut command: Command) -> Self {
        let (orders, its) = UnixStream::pair().unwrap();
        let child =
            command.stdin(Stdio::from(OwnedFd::from(its))).stdout(Stdio::null()).spawn().unwrap();
        let answers = BufReader::new(orders.try_clone().unwrap());
        let mut peer = Self { child, orders, answers };
        assert_eq!(peer.hear(), "ready");
        peer
    }

    /// The next answer; empty when the peer has ended.
    pub(super) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Gives an order whose answer is heard later.
    pub(super) fn say(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    pub(super) fn ask(&mut self, order: &str) -> String {
        self.say(order);
        self.hear()
    }

    #[track_caller]
    pub(super) fn expect(&mut self, order: &str, answer: &str) {
        assert_eq!(self.ask(order), answer, "to `{order}`");
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.unwrap(), signal).unwrap();
    }

    pub(super) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().unwrap();
    }

    /// Tells the peer to end, and waits until it, and every process that it forked, has.
    pub(super) fn end(mut self) {
        self.orders.shutdown(Shutdown::Write).unwrap();
        while !self.hear().is_empty() {}
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
