//! What `/proc` proves about another process, and no more.
//!
//! Four ways lead from a naive reading to a false death: a leader that has ended while its threads
//! live on reads as a zombie with `PF_EXITING`; `hidepid` hides living processes of other users; a
//! `/proc` of another pid namespace shows a stranger under the same pid; another time namespace
//! shifts start times. So a verdict needs namespaces that are provably our own, and evidence about
//! *every* thread; whatever is missing proves nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::process::Pid;

use crate::fault;
use crate::roster::Identity;
use crate::sys::PerProcess;

/// `PF_EXITING`, `PF_POSTCOREDUMP`, `PF_DUMPCORE`, `PF_SIGNALED`: the kernel sets each of them
/// only on paths from which a thread never returns to user mode.
const ENDING_FLAGS: u64 = 0x4 | 0x8 | 0x200 | 0x400;

/// Stands for the time namespace on a kernel that has none.
const NO_TIME_NAMESPACES: u64 = 1;

/// The fields of a stat file that say whether a thread goes on living.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    flags: u64,
    threads: u64,
    start_ticks: u64,
}

impl Stat {
    fn read(path: &str) -> io::Result<Self> {
        fault::point("read stat file")?;
        // One read, into a buffer that holds the fields wanted here at their longest: the kernel
        // writes the whole text anew for each.
        let mut text = [0; 512];
        let length = File::open(path)?.read(&mut text)?;
        Self::parse(&text[..length]).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The command's name stands in parentheses and may itself contain anything, so fields are
    /// counted from the last closing one. The first after it is field 3.
    fn parse(text: &[u8]) -> Option<Self> {
        let name_end = text.iter().rposition(|byte| *byte == b')')?;
        let mut fields =
            text[name_end + 1..].split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let state = *fields.next()?.first()?;
        let mut number =
            |skip: usize| -> Option<u64> { str::from_utf8(fields.nth(skip)?).ok()?.parse().ok() };
        // Fields 9, 20 and 22.
        let flags = number(5)?;
        let threads = number(10)?;
        let start_ticks = number(1)?;
        Some(Self { state, flags, threads, start_ticks })
    }

    fn is_ending(&self) -> bool {
        matches!(self.state, b'Z' | b'X') || self.flags & ENDING_FLAGS != 0
    }
}

/// This process, as others may look for it. What cannot be read stays zero, which is equal to
/// nobody's.
///
/// Read once per process, as `/proc` is slow to answer; if not all of it can be read, again the next
/// time. Should the process move to another time namespace, what others see of it contradicts this
/// identity, which proves nothing: see [`can_judge`].
pub(crate) fn own_identity() -> Identity {
    static KNOWN: PerProcess<Identity> = PerProcess::new();
    KNOWN
        .get_or_try_init(|| {
            let identity = read_own_identity();
            let complete = identity.pid_namespace != 0
                && identity.time_namespace != 0
                && identity.start_ticks != 0;
            if complete { Ok(identity) } else { Err(identity) }
        })
        .map_or_else(|incomplete| incomplete, |known| *known)
}

fn read_own_identity() -> Identity {
    let namespace = |name: &str| {
        fault::point("identify namespace")?;
        fs::metadata(format!("/proc/self/ns/{name}")).map(|entry| entry.ino())
    };
    let pid_namespace = namespace("pid").unwrap_or(0);
    let time_namespace = match namespace("time") {
        Ok(inode) => inode,
        Err(error) if error.kind() == io::ErrorKind::NotFound && pid_namespace != 0 => {
            NO_TIME_NAMESPACES
        }
        Err(_) => 0,
    };
    Identity {
        pid: own_pid(),
        uid: rustix::process::getuid().as_raw(),
        start_ticks: Stat::read("/proc/self/stat").map_or(0, |stat| stat.start_ticks),
        pid_namespace,
        time_namespace,
    }
}

/// Whether every thread of `them` is past the point of return; `false` if that is not proven.
pub(crate) fn is_ending(me: &Identity, them: &Identity) -> bool {
    let same_namespaces = me.pid_namespace != 0
        && me.time_namespace != 0
        && me.pid_namespace == them.pid_namespace
        && me.time_namespace == them.time_namespace;
    if !same_namespaces || me.start_ticks == 0 || them.start_ticks == 0 || them.pid == 0 {
        return false;
    }
    match evidence(them) {
        Evidence::NoneToFind => is_unknown_to_the_kernel(them.pid),
        Evidence::Ended => can_judge(me),
        Evidence::Inconclusive => false,
    }
}

enum Evidence {
    /// The process has no readable entry: hidden from us, or gone.
    NoneToFind,
    Ended,
    Inconclusive,
}

fn evidence(them: &Identity) -> Evidence {
    let leader_path = format!("/proc/{}/stat", them.pid);
    let Ok(leader) = Stat::read(&leader_path) else { return Evidence::NoneToFind };
    if leader.start_ticks != them.start_ticks {
        // The pid has a new owner.
        return Evidence::Ended;
    }
    if !leader.is_ending() {
        return Evidence::Inconclusive;
    }
    if every_thread_is_ending(them.pid, &leader_path).unwrap_or(false) {
        Evidence::Ended
    } else {
        Evidence::Inconclusive
    }
}

fn every_thread_is_ending(pid: u32, leader_path: &str) -> io::Result<bool> {
    let listed = threads_of(pid)?;
    nobody_lives_on(
        &listed,
        |thread| Ok(Stat::read(thread)?.is_ending()),
        || Ok(Stat::read(leader_path)?.threads),
    )
}

/// Proves that no thread of a process lives on, although threads start and end while we look.
///
/// Ending is final, so it is enough to find a moment at which every thread is known to be ending.
/// That moment is the reading of the thread count: each listed thread was seen ending before it
/// and still existed after it, so the count includes all of them, and if it is no larger than the
/// list, there was nobody else. Only a living thread can start another one. The list itself may be
/// old or incomplete: that can only spoil the proof.
fn nobody_lives_on<T>(
    listed: &[T],
    mut is_ending: impl FnMut(&T) -> io::Result<bool>,
    count: impl FnOnce() -> io::Result<u64>,
) -> io::Result<bool> {
    let mut all_ending = || -> io::Result<bool> {
        for thread in listed {
            if !is_ending(thread)? {
                return Ok(false);
            }
        }
        Ok(true)
    };
    // The second time round, one that was reaped fails to be read: it may not have been counted.
    Ok(all_ending()? && count()? <= listed.len() as u64 && all_ending()?)
}

fn threads_of(pid: u32) -> io::Result<Vec<String>> {
    fault::point("list threads")?;
    fs::read_dir(format!("/proc/{pid}/task"))?
        .map(|entry| Ok(format!("{}/stat", entry?.path().display())))
        .collect()
}

/// Whether nothing at all answers to `pid` in our pid namespace.
fn is_unknown_to_the_kernel(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    fault::point("test pid").is_ok()
        && pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH))
}

/// Whether `/proc` shows *us* as we know ourselves: of our own pid namespace, with unshifted
/// start times, and with flags that mean what we think they mean.
fn can_judge(me: &Identity) -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return false };
    let Some(pids) = status.lines().find_map(|line| line.strip_prefix("NSpid:")) else {
        return false;
    };
    // One entry per nested namespace, from that of the mount to our own.
    let only_ours = pids.split_whitespace().eq([own_pid().to_string()]);
    only_ours
        && Stat::read("/proc/self/stat").is_ok_and(|stat| stat.start_ticks == me.start_ticks)
        && Stat::read("/proc/thread-self/stat").is_ok_and(|stat| stat.flags & ENDING_FLAGS == 0)
}

fn own_pid() -> u32 {
    rustix::process::getpid().as_raw_nonzero().get().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_fields() {
        let text = b"42 (a) S (b c) Z 1 42 42 0 -1 4194308 0 0 0 0 0 0 0 0 20 0 3 0 777 0 0";
        let stat = Stat::parse(text).unwrap();
        assert_eq!(stat, Stat { state: b'Z', flags: 4_194_308, threads: 3, start_ticks: 777 });
        assert!(stat.is_ending());
    }

    #[test]
    fn a_cut_or_foreign_text_is_no_stat() {
        for text in [&b""[..], b"42 (a", b"42 (a) S 1 2", b"42 (a) S 1 2 3 4 5 six 7 8 9 10 11"] {
            assert_eq!(Stat::parse(text), None);
        }
    }

    /// A thread of a process that is being looked at.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Thread {
        Alive,
        Ending,
        Reaped,
    }

    /// What a process does between two looks at it. The first thread is the leader, which stays
    /// as a zombie.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Nothing,
        Start,
        End(usize),
        Reap(usize),
    }

    fn advance(threads: &mut Vec<Thread>, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Start => {
                if threads.contains(&Thread::Alive) {
                    threads.push(Thread::Alive);
                }
            }
            Step::End(which) => {
                let which = which % threads.len();
                if threads[which] == Thread::Alive {
                    threads[which] = Thread::Ending;
                }
            }
            Step::Reap(which) => {
                let which = which % threads.len();
                if which != 0 && threads[which] == Thread::Ending {
                    threads[which] = Thread::Reaped;
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_process_with_a_living_thread_is_never_ending(
            listed in 1..4_usize,
            // Between two looks, up to three things happen.
            steps in prop::collection::vec(
                prop_oneof![
                    2 => Just(Step::Nothing),
                    2 => Just(Step::Start),
                    4 => (0..6_usize).prop_map(Step::End),
                    3 => (0..6_usize).prop_map(Step::Reap),
                ],
                40,
            ),
        ) {
            let threads = RefCell::new(vec![Thread::Alive; listed]);
            let script = RefCell::new(steps.into_iter());
            let look = || {
                for step in script.borrow_mut().by_ref().take(3) {
                    advance(&mut threads.borrow_mut(), step);
                }
            };
            let list: Vec<usize> = (0..listed).collect();
            let verdict = nobody_lives_on(
                &list,
                |thread| {
                    look();
                    match threads.borrow()[*thread] {
                        Thread::Reaped => Err(io::ErrorKind::NotFound.into()),
                        state => Ok(state == Thread::Ending),
                    }
                },
                || {
                    look();
                    let existing = threads.borrow();
                    Ok(existing.iter().filter(|state| **state != Thread::Reaped).count() as u64)
                },
            );
            if verdict.is_ok_and(|ending| ending) {
                prop_assert!(!threads.borrow().contains(&Thread::Alive), "{:?}", threads);
            }
        }
    }

    #[test]
    fn a_process_whose_threads_have_all_ended_is_ending() {
        let ending = nobody_lives_on(&[1, 2, 3], |_| Ok(true), || Ok(3));
        assert_eq!(ending.ok(), Some(true));
    }

    #[test]
    fn own_stat_reads_as_alive() {
        let stat = Stat::read("/proc/self/stat").unwrap();
        assert!(!stat.is_ending());
        assert!(stat.threads >= 1 && stat.start_ticks > 0);
    }
}
