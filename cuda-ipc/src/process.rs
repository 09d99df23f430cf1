//! Whether a process is gone, with everything that it had queued on devices.
//!
//! Work of a process that was killed goes on for a while: its threads end first, then the kernel closes
//! its files, the driver's among them, and only with these the work is stopped. A descriptor of the
//! process (a pidfd) can be read after that; a file lock, a socket, or the state in `/proc` may tell of
//! its death before.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

/// A process, as one notes it for others of the same host, in shared memory perhaps: plain numbers, none
/// of which is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProcessMark {
    /// Its id in its own namespace.
    pub pid: u32,
    /// When it was started, in clock ticks since the system was (field 22 of `/proc/pid/stat`);
    /// 0: unknown.
    pub start_ticks: u64,
    /// The inode of its pid namespace; 0: unknown.
    pub pid_namespace: u64,
    /// The inode of its time namespace, by which start times are shifted; 1 where the system has none,
    /// 0: unknown.
    pub time_namespace: u64,
}

/// What is known of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has ended, and the kernel has closed its files: without an MPS server, nothing that it queued is
    /// run any more. A child that was forked from it without `exec`, and lives, may keep the driver's files
    /// open, and with them what was queued.
    Gone,
    /// It lives, or some of its threads do.
    Alive,
    /// It cannot be told from here: it is of another pid namespace, `/proc` is hidden or another's, or
    /// descriptors of processes cannot be had.
    Unknown,
}

const NO_TIME_NAMESPACES: u64 = 1;

impl ProcessMark {
    /// This process. What cannot be found out is 0.
    pub fn own() -> Self {
        let namespace = |name: &str| fs::metadata(format!("/proc/self/ns/{name}"));
        let pid_namespace = namespace("pid").map_or(0, |entry| entry.ino());
        let time_namespace = match namespace("time") {
            Ok(entry) => entry.ino(),
            Err(error) if error.kind() == io::ErrorKind::NotFound && pid_namespace != 0 => {
                NO_TIME_NAMESPACES
            }
            Err(_) => 0,
        };
        Self {
            pid: getpid().as_raw_nonzero().get().unsigned_abs(),
            start_ticks: start_ticks("self").unwrap_or(0),
            pid_namespace,
            time_namespace,
        }
    }

    /// What has become of it. Takes some files of `/proc`, and needs no driver.
    pub fn fate(&self) -> Fate {
        let here = Self::own();
        if self.pid_namespace == 0 || self.pid_namespace != here.pid_namespace {
            return Fate::Unknown;
        }
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { return Fate::Unknown };
        let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::SRCH) => return Fate::Gone,
            // The number is a thread's by now, or a group's or session's that outlives its process; or
            // nobody gets descriptors here.
            Err(Errno::INVAL | Errno::NOENT) if gives_descriptors() => return Fate::Gone,
            Err(_) => return Fate::Unknown,
        };
        let start = start_ticks(&self.pid.to_string());
        // Whichever process has the number: if it has ended, so has the one that had it before. If it has
        // not, nobody else had it since the descriptor was opened, and the start that was read is its.
        match has_ended(descriptor.as_fd()) {
            Some(true) => return Fate::Gone,
            Some(false) => {}
            None => return Fate::Unknown,
        }
        match start {
            Some(start) if start == self.start_ticks => Fate::Alive,
            Some(_) if self.start_ticks != 0 && here.tells_start_of(self) => Fate::Gone,
            _ => Fate::Unknown,
        }
    }

    /// Whether a start that is read here can be compared with that one.
    fn tells_start_of(&self, them: &Self) -> bool {
        self.time_namespace != 0
            && self.time_namespace == them.time_namespace
            && proc_is_of_own_namespace()
    }
}

/// `None`: it cannot be told.
fn has_ended(process: BorrowedFd<'_>) -> Option<bool> {
    let mut polled = [PollFd::from_borrowed_fd(process, PollFlags::IN)];
    loop {
        match poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => return Some(polled[0].revents().contains(PollFlags::IN)),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Old systems and filters refuse descriptors of all processes, this one's too.
fn gives_descriptors() -> bool {
    pidfd_open(getpid(), PidfdFlags::empty()).is_ok()
}

/// A `/proc` of another pid namespace shows strangers under the numbers.
fn proc_is_of_own_namespace() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return false };
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    // One for each namespace, from that of the mount to this process's.
    let own = getpid().as_raw_nonzero().to_string();
    pids.is_some_and(|pids| pids.split_whitespace().eq([own.as_str()]))
}

fn start_ticks(process: &str) -> Option<u64> {
    // A name may be no text.
    let stat = fs::read(format!("/proc/{process}/stat")).ok()?;
    start_in(&stat)
}

/// The name in parentheses may itself contain anything, so fields are counted from the last closing one.
/// The first after it is field 3.
fn start_in(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = str::from_utf8(&stat[name_end + 1..]).ok()?;
    fields.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn child() -> (Child, ProcessMark) {
        let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let child = child.unwrap();
        let start_ticks = start_ticks(&child.id().to_string()).unwrap();
        let mark = ProcessMark { pid: child.id(), start_ticks, ..ProcessMark::own() };
        (child, mark)
    }

    #[test]
    fn a_process_is_gone_when_it_has_ended() {
        let (mut child, mark) = child();
        assert_eq!((mark.fate(), ProcessMark::own().fate()), (Fate::Alive, Fate::Alive));
        child.kill().unwrap();
        // Nobody has asked how it ended, so its number is still its own.
        while mark.fate() != Fate::Gone {
            thread::yield_now();
        }
        child.wait().unwrap();
        assert_eq!(mark.fate(), Fate::Gone);
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let (mut child, mark) = child();
        let before = ProcessMark { start_ticks: mark.start_ticks - 1, ..mark };
        assert_eq!((before.fate(), mark.fate()), (Fate::Gone, Fate::Alive));
        // Unless starts cannot be compared.
        for time_namespace in [0, u64::MAX] {
            let mark = ProcessMark { time_namespace, ..before };
            assert_eq!(mark.fate(), Fate::Unknown);
        }
        assert_eq!(ProcessMark { start_ticks: 0, ..mark }.fate(), Fate::Unknown);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ProcessMark { start_ticks: 0, ..mark }.fate(), Fate::Gone);
    }

    #[test]
    fn a_number_that_is_a_threads_is_no_process() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let other = thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            let _ = ended.recv();
        });
        let pid = told.recv().unwrap().as_raw_nonzero().get().unsigned_abs();
        assert_eq!(ProcessMark { pid, ..ProcessMark::own() }.fate(), Fate::Gone);
        drop(end);
        other.join().unwrap();
    }

    #[test]
    fn strangers_are_unknown() {
        let own = ProcessMark::own();
        assert_ne!((own.start_ticks, own.pid_namespace, own.time_namespace), (0, 0, 0));
        for pid_namespace in [0, own.pid_namespace + 1] {
            assert_eq!(ProcessMark { pid_namespace, ..own }.fate(), Fate::Unknown);
        }
        for pid in [0, u32::MAX] {
            assert_eq!(ProcessMark { pid, ..own }.fate(), Fate::Unknown);
        }
        assert_eq!(ProcessMark::default().fate(), Fate::Unknown);
    }

    #[test]
    fn the_start_is_found_behind_any_name() {
        let fields: Vec<_> = (3..=52).map(|field| field.to_string()).collect();
        for name in [&b"plain"[..], b"two words", b"a) R 1 (b", b")))", b"\xff\xfe"] {
            let stat = [b"17 (", name, b") ", fields.join(" ").as_bytes(), b"\n"].concat();
            assert_eq!(start_in(&stat), Some(22));
        }
        for stat in [&b""[..], b"17 (short) R 1 2", b"17 (no", b") \xff"] {
            assert_eq!(start_in(stat), None);
        }
    }
}
