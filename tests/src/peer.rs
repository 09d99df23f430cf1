//! Another process of a test, spoken to in lines.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::Namespace;
use crate::namespace::{Groups, MARK};

/// A process that answers every line said to it with one line: `ok`, with what was asked for, or
/// `error` and why. It is killed and reaped when it is dropped.
///
/// Each method that fails panics with what was said so far, because that is what a failing test has
/// to show.
#[derive(Debug)]
pub struct Peer {
    label: String,
    child: Child,
    commands: ChildStdin,
    replies: BufReader<ChildStdout>,
    said: String,
    groups: Arc<Groups>,
    ended: Option<ExitStatus>,
}

impl Peer {
    /// Starts the scripted peer, the program at `st_peer`, which answers to [`crate::script`].
    pub fn script(space: &Namespace, st_peer: &Path) -> Self {
        let mut peer = Self::start(space, "peer", Command::new(st_peer));
        peer.ask("hello");
        peer
    }

    /// Starts this very program again, with the arguments `--role` and `role`.
    pub fn role(space: &Namespace, role: &str) -> Self {
        let this = std::env::current_exe().expect("the path of this program");
        let mut command = Command::new(this);
        command.args(["--role", role]);
        Self::start(space, role, command)
    }

    /// Starts `command` as a peer. `label` names it in messages.
    ///
    /// It leads a process group of its own, so that whatever it starts can be ended with it.
    pub fn start(space: &Namespace, label: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .env(MARK, space.mark())
            .envs(space.place().environment())
            .process_group(0);
        let groups = Arc::clone(space.groups());
        let mut child = groups.start(|| {
            command
                .spawn()
                .unwrap_or_else(|error| panic!("peer `{label}` cannot be started: {error}"))
        });
        let commands = child.stdin.take().expect("a piped input");
        let replies = BufReader::new(child.stdout.take().expect("a piped output"));
        let (label, said) = (label.to_owned(), String::new());
        Self { label, child, commands, replies, said, groups, ended: None }
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Says a line, and does not wait for the answer: for what blocks until somebody else acts.
    pub fn say(&mut self, line: &str) {
        assert!(!line.contains('\n'), "`{line}` is more than a line");
        let _ = writeln!(self.said, "  > {line}");
        let sent = self.commands.write_all(format!("{line}\n").as_bytes());
        // A peer that has ended is told by the answer that does not come.
        if sent.is_err() {
            let _ = writeln!(self.said, "  (it does not listen any more)");
        }
    }

    /// Waits for the next line that it says.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        let read = self.replies.read_line(&mut line);
        if !matches!(read, Ok(count) if count > 0) {
            let status = self.reap();
            self.fail(&format!("ended instead of answering ({status})"));
        }
        let line = line.trim_end().to_owned();
        let _ = writeln!(self.said, "  < {line}");
        line
    }

    /// Waits for an `ok`, and returns what came with it.
    pub fn hear_ok(&mut self) -> String {
        let line = self.hear();
        match line.strip_prefix("ok") {
            Some(rest) => rest.trim_start().to_owned(),
            None => self.fail("refused"),
        }
    }

    /// Says a line, waits for its `ok`, and returns what came with it.
    pub fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear_ok()
    }

    /// Says a line that must be refused, and returns the error.
    pub fn ask_refused(&mut self, line: &str) -> String {
        self.say(line);
        let answer = self.hear();
        match answer.strip_prefix("error") {
            Some(rest) => rest.trim_start().to_owned(),
            None => self.fail("did not refuse"),
        }
    }

    /// Waits for the next line, which must be `expected`.
    pub fn expect(&mut self, expected: &str) {
        if self.hear() != expected {
            self.fail(&format!("was to say `{expected}`"));
        }
    }

    /// Comes back when the peer has done everything said before and every answer was heard.
    pub fn barrier(&mut self) {
        self.say("barrier");
        self.expect("ok barrier");
    }

    /// Ends it as a crash would, and returns when the kernel has taken back all it held.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            // It may be ending by itself this very moment; what counts is that it has ended after.
            let _ = rustix::process::kill_process(self.pid(), Signal::KILL);
        }
        self.reap();
    }

    /// Stops it where it stands, and returns when every thread of it has stopped.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
        self.await_change(WaitIdOptions::STOPPED, "did not stop");
    }

    /// Lets it go on.
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
        self.await_change(WaitIdOptions::CONTINUED, "did not go on");
    }

    /// Asks it to end by itself; it must succeed.
    pub fn quit(mut self) {
        self.ask("quit");
        let status = self.reap();
        if !status.success() {
            self.fail("did not end well");
        }
    }

    /// Waits until it has ended, of itself or by a signal that something else sent.
    pub fn wait(&mut self) -> ExitStatus {
        self.reap()
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        assert!(
            self.ended.is_none(),
            "peer `{}` was waited for, it has no signals left",
            self.label
        );
        let sent = rustix::process::kill_process(self.pid(), signal);
        assert!(sent.is_ok(), "peer `{}` cannot be sent {signal:?}", self.label);
    }

    fn await_change(&mut self, change: WaitIdOptions, failure: &str) {
        let id = WaitId::Pid(self.pid());
        let look = change | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = rustix::io::retry_on_intr(|| rustix::process::waitid(id.clone(), look));
        let changed = status.ok().flatten().is_some_and(|it| it.stopped() || it.continued());
        if !changed {
            self.fail(failure);
        }
        // Looked at without taking; now taken, or the next change would find this one.
        let taken = rustix::process::waitid(id, change);
        assert!(taken.is_ok(), "the change of peer `{}` is lost", self.label);
    }

    fn reap(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let status = self.groups.reap(&mut self.child).expect("the end of a child");
        self.ended = Some(status);
        status
    }

    fn fail(&mut self, what: &str) -> ! {
        if self.ended.is_none() {
            let _ = rustix::process::kill_process(self.pid(), Signal::KILL);
        }
        self.reap();
        panic!("peer `{}` {what}:\n{}", self.label, self.said)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // The whole group, while its unreaped leader keeps the number from being another's.
            let _ = rustix::process::kill_process_group(self.pid(), Signal::KILL);
            self.reap();
        }
    }
}
