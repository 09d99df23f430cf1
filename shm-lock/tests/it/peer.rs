//! Another process that does what it is told, line by line.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

const ROLE: &str = "SHM_LOCK_ROLE";

/// What a started peer works on, e.g. `futex` with the path of a memory file.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) kind: String,
    pub(crate) path: PathBuf,
}

/// The role given to this process, if it was started as a peer.
pub(crate) fn role() -> Option<Role> {
    let role = env::var(ROLE).ok()?;
    let (kind, path) = role.split_once(':')?;
    Some(Role { kind: kind.to_owned(), path: path.into() })
}

/// A command that starts this program again in another role.
pub(crate) fn command(kind: &str, path: &Path) -> Command {
    let program = env::current_exe().expect("a running test knows its own program");
    let mut command = Command::new(program);
    command.env(ROLE, format!("{kind}:{}", path.display()));
    command
}

/// A running peer. It is killed, if it has not ended by then, when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// The process that follows orders: the child, or one that the child has confined.
    pid: u32,
    reaped: bool,
}

impl Peer {
    pub(crate) fn spawn(kind: &str, path: &Path) -> Self {
        Self::start(command(kind, path))
    }

    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a peer can be started");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("the peer's output is a pipe"));
        let pid = child.id();
        Self { child, orders, answers, pid, reaped: false }
    }

    /// The first word of every confined peer: who follows orders, as seen from here.
    pub(crate) fn confined(command: Command) -> Result<Self, String> {
        let mut peer = Self::start(command);
        let first = peer.hear();
        match first.strip_prefix("inner ").map(str::parse) {
            Some(Ok(pid)) => {
                peer.pid = pid;
                Ok(peer)
            }
            _ => Err(first),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Gives an order without waiting for its answer.
    pub(crate) fn order(&mut self, order: &str) {
        let pipe = self.orders.as_mut().expect("orders are given before the pipe is closed");
        writeln!(pipe, "{order}").expect("a peer takes orders while it lives");
    }

    /// The next answer; empty when the peer has ended.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("answers are text");
        line.trim_end().to_owned()
    }

    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.hear()
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, order: &str, answer: &str) {
        assert_eq!(self.ask(order), answer, "to `{order}`");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.rustix_pid(), signal).expect("a peer can be signalled");
    }

    /// Kills it; it may take a while to be gone.
    pub(crate) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Stops it and waits until it has stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
        let stopped = waitpid(Some(self.rustix_pid()), WaitOptions::UNTRACED);
        let (_, status) = stopped.expect("a peer is a child").expect("it has stopped");
        assert!(status.stopped());
    }

    pub(crate) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Waits until it has ended, and is gone with everything it held.
    pub(crate) fn reap(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("a peer is a child");
        self.reaped = true;
        status
    }

    pub(crate) fn kill_and_reap(&mut self) {
        self.kill();
        self.reap();
    }

    fn rustix_pid(&self) -> Pid {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        pid.expect("the kernel gives positive pids")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // Both fail only if it has ended already.
        let _ = kill_process(self.rustix_pid(), Signal::KILL);
        let _ = self.child.kill();
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

/// A folder of its own for one test, on a memory file system, removed at the end.
#[derive(Debug)]
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/shm-lock-it-{}-{count}", std::process::id()));
        std::fs::create_dir(&path).expect("/dev/shm takes a folder");
        Self(path)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("lock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = std::fs::remove_dir_all(&self.0);
        if !std::thread::panicking() {
            removed.expect("a test's folder can be removed");
        }
    }
}
