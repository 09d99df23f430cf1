//! Who made a segment, and when.

use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::sys::{self, file};

/// Who made a segment, for people: a process id can be reused, and means nothing in another pid
/// namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Creator {
    /// Process id, as the creator saw it.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Nanoseconds since 1970, by the wall clock.
    pub created_unix_ns: i64,
    /// When the process started, in clock ticks since boot (field 22 of `/proc/pid/stat`);
    /// 0: unknown.
    pub start_ticks: u64,
    /// Inode of the pid namespace; 0: unknown.
    pub pid_namespace: u64,
}

impl Creator {
    /// This process, now.
    pub(crate) fn current() -> Creator {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Origin { pid, start_ticks, pid_namespace } = Origin::current();
        Creator {
            pid,
            uid: sys::user(),
            created_unix_ns: i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            start_ticks,
            pid_namespace,
        }
    }

    /// Whether that process still runs, as far as can be told from here: one of another pid namespace,
    /// or one that is hidden from this user, counts as running.
    pub fn is_running(&self) -> bool {
        let here = Origin::current();
        if self.pid_namespace == 0 || self.pid_namespace != here.pid_namespace {
            return true;
        }
        if !sys::answers(self.pid) {
            return false;
        }
        let Ok(stat) = sys::read_text(format!("/proc/{}/stat", self.pid)) else { return true };
        let reused = self.start_ticks != 0
            && start_ticks(&stat).is_some_and(|started| started != self.start_ticks);
        !reused && !has_ended(&stat)
    }

    /// The time of creation.
    pub fn created(&self) -> SystemTime {
        let since = Duration::from_nanos(self.created_unix_ns.unsigned_abs());
        if self.created_unix_ns < 0 { UNIX_EPOCH - since } else { UNIX_EPOCH + since }
    }
}

/// What tells one process from another.
#[derive(Clone, Copy)]
struct Origin {
    pid: u32,
    start_ticks: u64,
    pid_namespace: u64,
}

impl Origin {
    /// This process. Read once, as `/proc` is slow to answer; a forked child has another pid.
    fn current() -> Origin {
        static KNOWN: Mutex<Option<Origin>> = Mutex::new(None);
        let pid = sys::process();
        // Never waited for: a child may inherit the lock in the hands of a thread that it has not.
        let mut known = KNOWN.try_lock();
        if let Ok(known) = &known
            && let Some(origin) = known.filter(|origin| origin.pid == pid)
        {
            return origin;
        }
        let stat = sys::read_text("/proc/self/stat");
        let origin = Origin {
            pid,
            start_ticks: stat.ok().and_then(|stat| start_ticks(&stat)).unwrap_or(0),
            pid_namespace: file::inode_of("/proc/self/ns/pid".as_ref()).unwrap_or(0),
        };
        if let Ok(known) = &mut known
            && origin.start_ticks != 0
            && origin.pid_namespace != 0
        {
            **known = Some(origin);
        }
        origin
    }
}

/// Whether a process is over and only waits for its parent to ask how it ended. One whose first
/// thread has ended while others go on looks the same but for their number (field 20).
fn has_ended(stat: &str) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_ascii_whitespace();
    let is_zombie = fields.next().is_some_and(|state| matches!(state, "Z" | "X"));
    is_zombie && fields.nth(16).is_some_and(|threads| matches!(threads, "0" | "1"))
}

/// Field 22 of a `/proc/pid/stat` line. The command in field 2 may hold anything, so counting
/// starts behind the last closing parenthesis.
fn start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_command() {
        let fields: Vec<_> = (3..=52).map(|field| field.to_string()).collect();
        for command in ["plain", "two words", "a) R 1 (b", ")))"] {
            let stat = format!("17 ({command}) {}\n", fields.join(" "));
            assert_eq!(start_ticks(&stat), Some(22), "{stat}");
        }
        assert_eq!(start_ticks(""), None);
        assert_eq!(start_ticks("17 (short) R 1 2"), None);
    }

    #[test]
    fn only_a_process_without_threads_has_ended() {
        let stat =
            |state: &str, threads: u32| format!("1 (a) {state}{} {threads} 0 22", " 0".repeat(16));
        assert!(has_ended(&stat("Z", 1)));
        assert!(!has_ended(&stat("Z", 2)), "its other threads go on");
        assert!(!has_ended(&stat("S", 1)));
        assert!(Creator::current().is_running());
    }

    #[test]
    fn a_process_that_was_reaped_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().expect("`true` starts");
        let creator = Creator { pid: child.id(), start_ticks: 0, ..Creator::current() };
        child.wait().expect("it ends");
        assert!(!creator.is_running());
        let elsewhere = Creator { pid_namespace: 1, ..creator };
        assert!(elsewhere.is_running(), "nobody can tell");
        let successor = Creator { start_ticks: 1, ..Creator::current() };
        assert!(!successor.is_running(), "this process has that number, but is another one");
    }

    #[test]
    fn any_stored_time_is_a_time() {
        let mut creator = Creator::current();
        for ns in [i64::MIN, -1, 0, 1, i64::MAX] {
            creator.created_unix_ns = ns;
            let shown = creator.created();
            assert_eq!(shown < UNIX_EPOCH, ns < 0, "{shown:?}");
        }
    }
}
