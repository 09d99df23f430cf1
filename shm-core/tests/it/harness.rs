//! Private directories, watchdogs, and peers: this very binary, running one test in a role.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use shm_core::{Kind, Namespace, Segment, SegmentName, SegmentOptions};

pub(crate) const KIND: Kind = Kind { magic: *b"shmtest\n", version: 3 };
pub(crate) const PAGE: u64 = 4096;

pub(crate) fn name(text: &str) -> SegmentName {
    SegmentName::new(text).expect("a valid name")
}

/// One page of header, one page for the test.
pub(crate) fn small(namespace: &Namespace, text: &str) -> Segment {
    SegmentOptions::new(KIND, 2 * PAGE)
        .create(namespace, &name(text), |_| Ok(()))
        .expect("a small segment")
}

/// A directory on `/dev/shm` for one test. Whatever the test leaves in it is a failure.
#[derive(Debug)]
pub(crate) struct Scratch {
    namespace: Namespace,
}

impl Scratch {
    pub(crate) fn new(tag: &str) -> Scratch {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            PathBuf::from(format!("/dev/shm/shm-core-{tag}-{}-{count}", std::process::id()));
        std::fs::create_dir(&directory).expect("a fresh directory");
        let namespace = Namespace::new(&directory, "t.").expect("a plain prefix");
        Scratch { namespace }
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn directory(&self) -> &Path {
        self.namespace.directory()
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let mut files: Vec<_> = std::fs::read_dir(self.directory())
            .expect("the scratch directory")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        files
    }

    /// For tests that put other things than segments there.
    pub(crate) fn clear(&self) {
        for file in self.files() {
            let path = self.directory().join(file);
            if path.is_dir() && !path.is_symlink() {
                std::fs::remove_dir(path).expect("an empty directory");
            } else {
                std::fs::remove_file(path).expect("a file of this test");
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let left = self.files();
        let _ = std::fs::remove_dir_all(self.directory());
        if !std::thread::panicking() {
            assert_eq!(left, [] as [&str; 0], "left in {}", self.directory().display());
        }
    }
}

/// Ends the process if the test hangs.
#[derive(Debug)]
pub(crate) struct Watchdog {
    _done: Sender<()>,
}

impl Watchdog {
    pub(crate) fn start(what: &'static str) -> Watchdog {
        let (done, wait) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if wait.recv_timeout(Duration::from_secs(1200)) == Err(RecvTimeoutError::Timeout) {
                eprintln!("watchdog: {what} hangs");
                std::process::abort();
            }
        });
        Watchdog { _done: done }
    }
}

const ROLE: &str = "SHM_CORE_TEST_ROLE";
const DIRECTORY: &str = "SHM_CORE_TEST_DIRECTORY";
const MARK: &str = "@ ";
const ALONE: &str = "alone";

/// The peer's end: its role, the namespace to work in, and lines to and from the test.
#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) role: String,
    pub(crate) namespace: Namespace,
}

impl Role {
    /// `None`: this is the test itself, not a peer of it.
    pub(crate) fn mine() -> Option<Role> {
        let role = std::env::var(ROLE).ok()?;
        // No peer outlives the test that started it, however that ends.
        let killed = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(killed).expect("a valid signal");
        let directory = std::env::var_os(DIRECTORY).expect("peers are told their directory");
        let namespace = Namespace::new(directory, "t.").expect("a plain prefix");
        Some(Role { role, namespace })
    }

    /// As [`mine`](Role::mine), but the test itself also when it runs [`alone`].
    pub(crate) fn of_peer() -> Option<Role> {
        Role::mine().filter(|role| role.role != ALONE)
    }

    pub(crate) fn say(line: &str) {
        // The test runner leaves its own line open.
        println!("\n{MARK}{line}");
        std::io::stdout().flush().expect("the test listens");
    }

    /// The next line from the test; `None` once it has hung up.
    pub(crate) fn hear() -> Option<String> {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line).expect("a line");
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Tells the test and waits for its word.
    pub(crate) fn barrier(line: &str) {
        Role::say(line);
        Role::hear();
    }
}

/// How a peer is started.
#[derive(Debug)]
pub(crate) struct PeerCommand {
    test: String,
    command: Command,
}

impl PeerCommand {
    /// A peer that runs the test `test` (its path without the crate) in `role`.
    pub(crate) fn new(test: &str, role: &str, directory: &Path) -> PeerCommand {
        let program = std::env::current_exe().expect("the path of this program");
        PeerCommand::of_program(&program, test, role, directory)
    }

    pub(crate) fn of_program(
        program: &Path,
        test: &str,
        role: &str,
        directory: &Path,
    ) -> PeerCommand {
        let mut command = Command::new(program);
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        PeerCommand { test: test.to_owned(), command }
    }

    pub(crate) fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    pub(crate) fn spawn(mut self) -> Peer {
        let mut child = self.command.spawn().expect("this program starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Peer { test: self.test, child, stdin, stdout }
    }
}

/// A process that plays a role in a test. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Peer {
    test: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn spawn(test: &str, role: &str, scratch: &Scratch) -> Peer {
        PeerCommand::new(test, role, scratch.directory()).spawn()
    }

    /// The next line it says; `None` once it has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line).expect("text") == 0 {
                return None;
            }
            if let Some(said) = line.strip_prefix(MARK) {
                return Some(said.trim_end().to_owned());
            }
        }
    }

    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.hear().as_deref(), Some(line), "said by a peer of {}", self.test);
    }

    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("piped");
        writeln!(stdin, "{line}").expect("the peer listens");
    }

    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.child.kill().expect("a child of ours");
        self.child.wait().expect("a child of ours")
    }

    /// What it writes to the error stream, if that was piped.
    #[cfg(st_fault)]
    pub(crate) fn stderr(&mut self) -> &mut std::process::ChildStderr {
        self.child.stderr.as_mut().expect("piped")
    }

    /// Waits until it has frozen; `false`: it has ended instead.
    #[cfg(st_fault)]
    pub(crate) fn froze(&mut self) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let options = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
        let pid = rustix::process::Pid::from_child(&self.child);
        let status = waitid(WaitId::Pid(pid), options).expect("a child of ours");
        status.expect("without NOHANG there is a status").stopped()
    }

    #[cfg(st_fault)]
    pub(crate) fn thaw(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let thawed = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
        thawed.expect("a child of ours");
    }

    /// Hangs up, and waits for the end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.child.wait().expect("a child of ours")
    }

    pub(crate) fn succeed(mut self) {
        let status = self.end();
        assert!(status.success(), "a peer of {} ended with {status}", self.test);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `body` in a process of its own. For tests that ask who is attached: a child that another
/// test of this process starts holds copies of all descriptors until it has called exec.
pub(crate) fn alone(test: &'static str, body: impl FnOnce()) {
    let _watchdog = Watchdog::start(test);
    if Role::mine().is_some() {
        body();
    } else {
        succeed_and_show(test, PeerCommand::new(test, ALONE, Path::new("/")).command());
    }
}

/// Runs the peer of `test` where `mount`, a shell command with the scratch directory as `$0`, has
/// changed what is mounted, which nobody else sees. As root, or as root of a user namespace where
/// that is allowed; elsewhere the test is skipped.
pub(crate) fn in_private_mounts(test: &str, mount: &str, scratch: &Scratch) {
    let outer = |how: &str, then: &str| {
        let script = format!("mount --make-rprivate / && {mount} && {then}");
        let mut command = Command::new("unshare");
        command.args([how, "sh", "-c", &script]).arg(scratch.directory());
        command
    };
    let tried = ["-m", "-rm"].map(|how| (how, outer(how, "true").output()));
    let works = |(_, done): &&(&str, std::io::Result<Output>)| {
        done.as_ref().is_ok_and(|done| done.status.success())
    };
    let Some((how, _)) = tried.iter().find(works) else {
        return skip(test, &format!("no private mounts: {tried:?}"));
    };
    let mut peer = PeerCommand::new(test, "inside", scratch.directory());
    let inner = peer.command();
    let mut outer = outer(how, "exec \"$@\"");
    outer.arg(inner.get_program()).args(inner.get_args());
    outer.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    succeed_and_show(test, &mut outer);
}

/// Through the test runner, which shows the output when asked to or when the test fails.
fn succeed_and_show(test: &str, command: &mut Command) {
    let done = command.stdin(Stdio::null()).output().expect("the program starts");
    print!("{}", String::from_utf8_lossy(&done.stdout));
    eprint!("{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "a peer of {test} ended with {}", done.status);
}

/// This program in a place where every user may execute it.
pub(crate) fn program_for_everybody(directory: &Path) -> PathBuf {
    let copy = directory.join("program");
    // By another process: a child that a test beside this one forks while we had the copy open for
    // writing would keep it open, and what is open for writing cannot be executed.
    let program = std::env::current_exe().expect("a path");
    let copied = Command::new("cp").arg(program).arg(&copy).status().expect("`cp` starts");
    assert!(copied.success(), "room for a copy");
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).expect("own file");
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o1777))
        .expect("own directory");
    copy
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Tells loudly that this machine does not allow a test.
pub(crate) fn skip(what: &str, why: &str) {
    eprintln!("SKIPPED {what}: {why}");
}
