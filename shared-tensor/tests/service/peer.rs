//! Another process that does what it is told, line by line: this program, started in a role.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

const ROLE: &str = "ST_SERVICE_ROLE";

/// What this process was started for, and the path it works on.
pub(crate) fn role() -> Option<(String, PathBuf)> {
    let role = env::var(ROLE).ok()?;
    let (kind, path) = role.split_once(':')?;
    // No peer outlives the test that started it, however that ends.
    let killed = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    killed.expect("the kernel takes it");
    Some((kind.to_owned(), path.into()))
}

/// A command that starts this program in a role.
pub(crate) fn command(kind: &str, path: &Path) -> Command {
    let mut command = Command::new(env::current_exe().expect("a program knows itself"));
    command.env(ROLE, format!("{kind}:{}", path.display()));
    command
}

/// A running peer; killed when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Peer {
    /// Starts it, and waits until it has said `ready`.
    pub(crate) fn start(kind: &str, path: &Path) -> Self {
        Self::run(command(kind, path))
    }

    pub(crate) fn run(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started again");
        let orders = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut peer = Self { child, orders, answers };
        assert_eq!(peer.hear(), "ready");
        peer
    }

    /// The next answer; empty when the peer has ended.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("answers are text");
        line.trim_end().to_owned()
    }

    /// Gives an order whose answer is heard later.
    pub(crate) fn say(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("a peer takes orders while it lives");
    }

    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.say(order);
        self.hear()
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, order: &str, answer: &str) {
        assert_eq!(self.ask(order), answer, "to `{order}`");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a pid"), signal).expect("a peer can be signalled");
    }

    pub(crate) fn reap(&mut self) -> ExitStatus {
        self.child.wait().expect("a peer is a child")
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.reap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
