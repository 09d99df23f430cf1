//! What a peer does with its orders.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufRead;
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpid};
use shm_lock::{
    AcquireError, Broadcast, FileLock, FutexLock, Holder, LockGuard, Membership, OwnedFileGuard,
    OwnedGuard, Wait, process_token,
};

use crate::harness::say;
use crate::memories::{self, AnyMemory};
use crate::namespaces;
use crate::peer::Role;
use crate::sys;
use crate::syscalls;

/// Follows orders from standard input until it ends.
pub(crate) fn play(role: &Role) {
    sys::die_with_parent();
    if let Some(kind) = role.kind.strip_prefix("confined-") {
        return namespaces::confine(kind, role);
    }
    #[cfg(st_fault)]
    if let Some(scenario) = role.kind.strip_prefix("fault-") {
        return crate::fault::play(scenario, &role.path);
    }
    if let Some(path) = role.kind.strip_prefix("walk-") {
        return syscalls::walk(path);
    }
    let mut role = role.clone();
    if let Some(kind) = role.kind.strip_prefix("ownproc-") {
        sys::mount_over_proc("proc", "").expect("a pid namespace can have a /proc of its own");
        role = Role { kind: kind.to_owned(), path: role.path };
    }
    Script::new(role).follow();
}

enum Lock {
    Futex(Arc<FutexLock<AnyMemory>>),
    File(Arc<FileLock>),
}

enum Guard {
    Futex(OwnedGuard<AnyMemory>),
    File(OwnedFileGuard),
}

struct Script {
    lock: Lock,
    guards: VecDeque<Guard>,
    role: Role,
}

impl Script {
    fn new(role: Role) -> Self {
        let lock = if role.kind == "file" {
            Lock::File(Arc::new(FileLock::new(&role.path)))
        } else {
            let memory = memories::open(&role.kind, &role.path);
            let membership = Membership::join(Arc::new(memory)).expect("a peer can join");
            Lock::Futex(Arc::new(FutexLock::new(membership)))
        };
        Self { lock, guards: VecDeque::new(), role }
    }

    fn follow(mut self) {
        // Not `lines()` of a locked handle: a forked child, or another thread, reads on.
        while let Some(order) = next_order() {
            let words: Vec<&str> = order.split_whitespace().collect();
            match words[..] {
                ["quit"] => return,
                ["end-leader"] => return self.go_on_in_a_thread(),
                [verb, ref arguments @ ..] => self.obey(verb, arguments),
                [] => {}
            }
        }
    }

    fn obey(&mut self, verb: &str, arguments: &[&str]) {
        let number = |index: usize| -> u64 {
            arguments[index].parse().expect("the argument of this order is a number")
        };
        match verb {
            "acquire" => self.acquire(&Wait::forever()),
            "acquire-for" => self.acquire(&Wait::for_at_most(Duration::from_millis(number(0)))),
            "acquire-in-thread" => {
                let lock = &self.lock;
                let guard = thread::scope(|scope| scope.spawn(|| lock.acquire()).join());
                self.guards.push_back(guard.expect("acquiring does not panic"));
                say("held");
            }
            "try" => self.attempt(),
            "release" => {
                self.guards.pop_front().expect("something is held");
                say("released");
            }
            "release-in-thread" => {
                let guard = self.guards.pop_front().expect("something is held");
                thread::spawn(|| drop(guard)).join().expect("releasing does not panic");
                say("released");
            }
            "holder" => say(&self.lock.holder().map_or(0, |holder| holder.pid).to_string()),
            "me" => {
                let me = self.membership().me().expect("a peer can register");
                say(&format!("{} {} {}", me.slot, me.id, std::process::id()));
            }
            "liveness" => {
                let slot = usize::try_from(number(0)).expect("a slot is small");
                say(&format!("{:?}", self.membership().liveness(slot, number(1))));
            }
            "count" => {
                self.count(number(0));
                say("counted");
            }
            "fork" => fork(),
            "fork-bystander" => match sys::fork() {
                Some(child) => say(&child.to_string()),
                None => sys::sleep_for_good(),
            },
            "exec" => {
                // It answers what it is told from then on, and knows nothing of locks. The answer
                // here keeps orders that are meant for it from being read ahead.
                say("executing cat");
                let error = Command::new("cat").exec();
                panic!("cat cannot be executed: {error}");
            }
            "close-all" => {
                sys::close_all_from(3);
                say("closed");
            }
            "shift-time" => match sys::shift_time() {
                Ok(()) => say("shifted"),
                Err(error) => say(&format!("the clock cannot be shifted: {error}")),
            },
            "open" => {
                // Takes the lowest numbers free, as any program would, and keeps them.
                for _ in 0..number(0) {
                    std::mem::forget(File::open(arguments[1]).expect("the file can be opened"));
                }
                say("opened");
            }
            "token" => say(&process_token().to_string()),
            "open-descriptors" => say(&sys::open_descriptors().to_string()),
            "leave-lock" => {
                // The memory stays: its file is an ordinary one, closed like any other.
                std::mem::forget(Arc::clone(self.membership().memory()));
                let other = Lock::File(Arc::new(FileLock::new("/nonexistent")));
                drop(std::mem::replace(&mut self.lock, other));
                say("left");
            }
            "dump-core" => {
                sys::allow_core_dumps();
                say("dumping");
                std::process::abort();
            }
            "grow" => {
                let megabytes = usize::try_from(number(0)).expect("it fits memory");
                std::mem::forget(vec![1_u8; megabytes << 20]);
                say("grown");
            }
            "churn" => {
                for _ in 0..number(0) {
                    thread::spawn(churn);
                }
                say("churning");
            }
            "spin" => {
                for _ in 0..number(0) {
                    thread::spawn(|| {
                        loop {
                            std::hint::spin_loop();
                        }
                    });
                }
                say("spinning");
            }
            "wait-broadcast" => self.wait_broadcast(),
            _ => panic!("`{verb}` is not an order of {:?}", self.role),
        }
    }

    fn acquire(&mut self, wait: &Wait<'_>) {
        match self.lock.acquire_within(wait) {
            Ok(guard) => self.report(guard),
            Err(AcquireError::Timeout { .. }) => say("timeout"),
            Err(error) => panic!("{error}"),
        }
    }

    fn attempt(&mut self) {
        match self.lock.attempt() {
            Ok(guard) => self.report(guard),
            Err(AcquireError::Timeout { .. } | AcquireError::WouldBlock { .. }) => say("taken"),
            Err(error) => panic!("{error}"),
        }
    }

    fn report(&mut self, guard: Guard) {
        match guard.as_guard().recovered() {
            None => say("held"),
            Some(dead) => say(&format!("held after {} {:?}", dead.pid, dead.liveness)),
        }
        self.guards.push_back(guard);
    }

    fn go_on_in_a_thread(self) {
        // The whole script moves, its guards included: they are tokens.
        thread::spawn(move || {
            sys::wait_until_leader_is_a_zombie();
            say("leader ended");
            self.follow();
            std::process::abort();
        });
        sys::end_this_thread();
    }

    /// Adds one to a number in a file, `times` over, each time under the lock.
    fn count(&self, times: u64) {
        let path = self.role.path.with_extension("count");
        let file = File::options().read(true).write(true).open(path).expect("the count exists");
        for _ in 0..times {
            let _guard = self.lock.acquire();
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, 0).expect("the count can be read");
            let count = u64::from_le_bytes(bytes) + 1;
            file.write_all_at(&count.to_le_bytes(), 0).expect("the count can be written");
        }
    }

    fn membership(&self) -> &Membership<AnyMemory> {
        match &self.lock {
            Lock::Futex(lock) => lock.membership(),
            Lock::File(_) => panic!("a file lock has no members"),
        }
    }

    /// Waits on a broadcast word that lies in the first reserved words of the memory's roster.
    fn wait_broadcast(&self) {
        let page = sys::SharedPage::open(&self.role.path.with_extension("page"));
        let word = Broadcast::from_atomic(page.word(0));
        let seen = word.sequence();
        say(&format!("at {seen}"));
        let now = word.wait(seen, &Wait::forever()).expect("a wait for ever ends with news");
        say(&format!("now {now}"));
    }
}

impl Lock {
    fn acquire(&self) -> Guard {
        self.acquire_within(&Wait::forever()).expect("a wait for ever ends with the lock")
    }

    fn acquire_within(&self, wait: &Wait<'_>) -> Result<Guard, AcquireError> {
        Ok(match self {
            Self::Futex(lock) => Guard::Futex(lock.acquire_owned(wait)?),
            Self::File(lock) => Guard::File(lock.acquire_owned(wait)?),
        })
    }

    /// `try_acquire` for a guard that is kept: an attempt with no time left.
    fn attempt(&self) -> Result<Guard, AcquireError> {
        self.acquire_within(&Wait::for_at_most(Duration::ZERO))
    }

    fn holder(&self) -> Option<Holder> {
        match self {
            Self::Futex(lock) => lock.holder(),
            Self::File(lock) => lock.holder(),
        }
    }
}

impl Guard {
    fn as_guard(&self) -> &dyn LockGuard {
        match self {
            Self::Futex(guard) => guard,
            Self::File(guard) => guard,
        }
    }
}

/// The child follows the orders from here on; this process waits for it to quit.
fn fork() {
    match sys::fork() {
        Some(child) => {
            let child = i32::try_from(child).ok().and_then(Pid::from_raw);
            waitpid(child, WaitOptions::empty()).expect("the child can be waited for");
            say("parent again");
        }
        None => say(&format!("child {}", std::process::id())),
    }
}

/// A thread that starts the next one and ends.
fn churn() {
    thread::spawn(churn);
}

fn next_order() -> Option<String> {
    let mut order = String::new();
    let read = std::io::stdin().lock().read_line(&mut order).expect("orders are text");
    (read > 0).then_some(order)
}
