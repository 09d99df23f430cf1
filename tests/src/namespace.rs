//! Names that belong to one test, and the proof that it left nothing behind.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::{Place, Watchdog};

/// Where segments lie unless a test wants a folder of its own.
const SHARED: &str = "/dev/shm";

/// Tells a process that it belongs to a test: its children inherit it, however they came to be.
pub(crate) const MARK: &str = "ST_TEST_MARK";
/// More would not fit into a prefix.
const LABEL_BYTES_MAX: usize = 24;

/// Nothing in this ring takes a tenth of it, on any machine.
const LIMIT: Duration = Duration::from_secs(1200);

/// The names of one test: a prefix that no other test has, and the processes it started.
///
/// Declare it first, so that it is dropped last. Then it asserts that no name with its prefix is
/// left in the directory, that this process has no descriptor and no mapping of one, and that every
/// process that the test brought about has ended. A test that fails anyway is only cleaned up
/// after.
#[derive(Debug)]
pub struct Namespace {
    place: Place,
    is_private: bool,
    groups: Arc<Groups>,
    _watchdog: Watchdog,
}

/// The process groups of the peers that are not reaped yet.
#[derive(Debug, Default)]
pub(crate) struct Groups(Mutex<Listed>);

#[derive(Debug, Default)]
struct Listed {
    leaders: Vec<Pid>,
    /// The test ran out of time: whatever it still starts ends at once.
    is_over: bool,
}

impl Groups {
    /// Starts a leader and lists it, in one step, so that no watchdog can miss it.
    pub(crate) fn start(&self, spawn: impl FnOnce() -> Child) -> Child {
        let mut listed = self.lock();
        let child = spawn();
        let leader = Pid::from_child(&child);
        listed.leaders.push(leader);
        if listed.is_over {
            kill_group(leader);
        }
        child
    }

    /// Reaps a leader, and strikes it off in the same step: a listed number is never another's.
    pub(crate) fn reap(&self, child: &mut Child) -> io::Result<ExitStatus> {
        let leader = Pid::from_child(child);
        // Wait without reaping first: the watchdog needs the lock, and may be the one that has to
        // end this process.
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(leader), look))?;
        let mut listed = self.lock();
        let status = child.wait()?;
        listed.leaders.retain(|other| *other != leader);
        Ok(status)
    }

    fn lock(&self) -> MutexGuard<'_, Listed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        let mut listed = self.lock();
        listed.is_over = true;
        listed.leaders.iter().copied().for_each(kill_group);
    }
}

fn kill_group(leader: Pid) {
    // It may have ended by itself; then there is nothing to end.
    let _ = rustix::process::kill_process_group(leader, Signal::KILL);
}

impl Namespace {
    /// Names on the shared `/dev/shm`. `label` is for people.
    pub fn new(label: &str) -> Self {
        Self::watched(label, false, LIMIT)
    }

    /// Names in a folder of their own, which goes with the test.
    pub fn in_private_directory(label: &str) -> Self {
        Self::watched(label, true, LIMIT)
    }

    /// Names on the shared `/dev/shm`, for a test whose work alone takes minutes.
    pub fn with_limit(label: &str, limit: Duration) -> Self {
        Self::watched(label, false, limit)
    }

    fn watched(label: &str, is_private: bool, limit: Duration) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(label.len() <= LABEL_BYTES_MAX, "`{label}` is too long for a label");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("st-test-{}-{number}-{label}", std::process::id());
        let shared = Path::new(SHARED);
        let (directory, prefix) = if is_private {
            let directory = shared.join(&unique);
            fs::DirBuilder::new().mode(0o700).create(&directory).expect("a private directory");
            (directory, "st.".to_owned())
        } else {
            (shared.to_owned(), format!("{unique}."))
        };
        let groups = Arc::new(Groups::default());
        let watched = Arc::clone(&groups);
        let watchdog = Watchdog::start(label, limit, move || watched.kill());
        Self { place: Place { directory, prefix }, is_private, groups, _watchdog: watchdog }
    }

    /// Where its names lie, and how they begin.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where its names lie.
    pub fn directory(&self) -> &Path {
        &self.place.directory
    }

    /// What its names begin with.
    pub fn prefix(&self) -> &str {
        &self.place.prefix
    }

    /// The same for segments.
    pub fn shm(&self) -> shm_core::Namespace {
        self.place.shm()
    }

    /// The files that carry its names now, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.directory()).expect("the directory of the names");
        let mine = |entry: &fs::DirEntry| {
            self.is_private || entry.file_name().to_string_lossy().starts_with(self.prefix())
        };
        let mut files: Vec<PathBuf> =
            entries.flatten().filter(mine).map(|entry| entry.path()).collect();
        files.sort();
        files
    }

    /// Asserts, in the middle of a test, that no name is left.
    ///
    /// # Panics
    /// When one is.
    pub fn assert_empty(&self) {
        let files = self.files();
        assert!(files.is_empty(), "names are left: {files:?}");
    }

    pub(crate) fn groups(&self) -> &Arc<Groups> {
        &self.groups
    }

    /// Unique among all tests that run on this host.
    pub(crate) fn mark(&self) -> String {
        let unique = if self.is_private {
            self.directory().file_name().unwrap_or_default().to_string_lossy().into_owned()
        } else {
            self.prefix().trim_end_matches('.').to_owned()
        };
        // Delimited, so that no mark is the beginning of another.
        format!("[{unique}]")
    }

    /// What the test left behind, in words.
    fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for leader in &self.groups.lock().leaders {
            leaks.push(format!("peer {leader} outlives the names that it uses"));
        }
        for process in self.processes() {
            leaks.push(format!("process {process} is left"));
        }
        for file in self.files() {
            leaks.push(format!("{} is left", file.display()));
        }
        let path = self.directory().join(if self.is_private { "" } else { self.prefix() });
        let path = path.to_string_lossy();
        for (descriptor, target) in descriptors() {
            if target.starts_with(&*path) {
                leaks.push(format!("descriptor {descriptor} is open on {target}"));
            }
        }
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        for mapping in maps.lines().filter(|line| line.contains(&*path)) {
            leaks.push(format!("mapped: {mapping}"));
        }
        leaks
    }

    /// Processes of this user that carry the mark, peers included.
    fn processes(&self) -> Vec<Pid> {
        let wanted = format!("{MARK}={}", self.mark());
        let carries = |environment: Vec<u8>| {
            environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
        };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter(|entry| environment(&entry.path()).is_some_and(carries))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
            .collect()
    }

    fn clean_up(&self) {
        self.groups.kill();
        for process in self.processes() {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
        for file in self.files() {
            let _ = fs::remove_file(file);
        }
        if self.is_private {
            let _ = fs::remove_dir_all(self.directory());
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let leaks = if std::thread::panicking() { Vec::new() } else { self.leaks() };
        self.clean_up();
        assert!(leaks.is_empty(), "the test left something behind:\n  {}", leaks.join("\n  "));
    }
}

/// The environment of a process, by its folder in `/proc`; none for zombies, kernel threads and
/// other users' processes.
fn environment(process: &Path) -> Option<Vec<u8>> {
    // Between two programs, in `execve`, it reads as empty: then look again, but not for ever,
    // because some processes have none.
    for _ in 0..1000 {
        let environment = fs::read(process.join("environ")).ok()?;
        if !environment.is_empty() {
            return Some(environment);
        }
        fs::read_link(process.join("exe")).ok()?;
        std::thread::yield_now();
    }
    None
}

/// The open descriptors of this process, and where each leads.
fn descriptors() -> Vec<(String, String)> {
    let links = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    links
        .filter_map(|link| {
            let target = fs::read_link(link.path()).ok()?;
            let name = link.file_name().to_string_lossy().into_owned();
            Some((name, target.to_string_lossy().into_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::Namespace;

    /// What the drop of a namespace says about `leave`.
    fn complaint<T>(space: Namespace, leave: impl FnOnce(&Namespace) -> T) -> Option<String> {
        let left = leave(&space);
        let outcome = catch_unwind(AssertUnwindSafe(|| drop(space)));
        drop(left);
        outcome.err().map(|panic| panic.downcast_ref::<String>().expect("a message").clone())
    }

    #[test]
    fn nothing_left_is_fine() {
        assert_eq!(complaint(Namespace::new("nothing"), |_| ()), None);
        let private = Namespace::in_private_directory("nothing");
        let directory = private.directory().to_owned();
        assert!(directory.exists());
        assert_eq!(complaint(private, |_| ()), None);
        assert!(!directory.exists());
    }

    #[test]
    fn a_name_is_found_and_removed() {
        for space in [Namespace::new("name"), Namespace::in_private_directory("name")] {
            let path = space.directory().join(format!("{}left", space.prefix()));
            let said = complaint(space, |_| fs::write(&path, "").unwrap()).unwrap();
            assert!(said.contains(&format!("{} is left", path.display())), "{said}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_descriptor_of_a_removed_name_is_found() {
        let said = complaint(Namespace::new("descriptor"), |space| {
            let path = space.directory().join(format!("{}open", space.prefix()));
            let file = File::create(&path).unwrap();
            fs::remove_file(path).unwrap();
            file
        });
        let said = said.unwrap();
        assert!(said.contains("is open on") && said.contains("(deleted)"), "{said}");
    }

    #[test]
    fn names_of_two_tests_differ() {
        let (one, other) = (Namespace::new("same"), Namespace::new("same"));
        assert_ne!(one.prefix(), other.prefix());
        assert_ne!(one.mark(), other.mark());
    }
}
