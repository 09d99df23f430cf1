//! Is there room? Asked before memory is reserved, because the kernel's own answers come too late:
//! a full tmpfs is an error, but past the limit of a memory cgroup, or of the machine, `fallocate`
//! does not fail: the kernel kills the process that asked.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use crate::cgroup::MemoryGroups;
use crate::sys::{self, file};

/// Reservations below this are not compared with memory limits, only with the file system: the
/// comparison reads a dozen small kernel files, which would cost more than the pages, and a
/// process that close to its limit dies of any allocation.
const MEMORY_CHECK_BYTES_MIN: u64 = 1 << 20;

/// What is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// The file system of the segment, usually the tmpfs on `/dev/shm`.
    Filesystem,
    /// A memory cgroup of this process, for instance a container's limit.
    MemoryGroup,
    /// The machine's memory.
    Machine,
}

/// Too little room, found before anything was reserved. `Display` names size, limit, what is free
/// and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// What is short.
    pub resource: Resource,
    /// Where: the directory of the segment, that of the cgroup, or `/proc/meminfo`.
    pub place: PathBuf,
    /// Bytes that were to be reserved.
    pub needed_bytes: u64,
    /// The limit in bytes.
    pub limit_bytes: u64,
    /// Bytes that were free below the limit.
    pub free_bytes: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (needed, free) = (Bytes(self.needed_bytes), Bytes(self.free_bytes));
        let (limit, place) = (Bytes(self.limit_bytes), self.place.display());
        match self.resource {
            Resource::Filesystem => write!(
                f,
                "{needed} needed, {free} free of {limit} in `{place}`; remove segments nobody \
                 uses or enlarge the file system (in a container start it with a larger \
                 `--shm-size`)"
            ),
            Resource::MemoryGroup => write!(
                f,
                "{needed} needed, {free} left of the memory limit of {limit} set by `{place}`, \
                 past which the kernel kills this process; ask for less or raise the limit (in a \
                 container `--memory`; `--shm-size` does not help here)"
            ),
            Resource::Machine => write!(
                f,
                "{needed} needed, {free} available of the machine's {limit} according to \
                 `{place}`, past which the kernel kills processes; ask for less or stop others"
            ),
        }
    }
}

impl std::error::Error for Shortage {}

/// Bytes for people: exact, and rounded where that helps.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..0x10_0000 => return write!(f, "{} bytes", self.0),
            0x10_0000..0x4000_0000 => (0x10_0000, "MiB"),
            _ => (0x4000_0000_u64, "GiB"),
        };
        write!(f, "{} bytes ({:.1} {name})", self.0, self.0 as f64 / unit as f64)
    }
}

/// Looks whether `needed_bytes` more fit the file system of `fd`, which shows as `directory`, and
/// the memory limits of this process.
pub(crate) fn shortage(
    fd: BorrowedFd<'_>,
    directory: &Path,
    needed_bytes: u64,
) -> io::Result<Option<Shortage>> {
    if let Some(shortage) = filesystem_shortage(fd, directory, needed_bytes)? {
        return Ok(Some(shortage));
    }
    Ok(memory_shortage(needed_bytes))
}

/// As [`shortage`], the file system alone.
pub(crate) fn filesystem_shortage(
    fd: BorrowedFd<'_>,
    directory: &Path,
    needed_bytes: u64,
) -> io::Result<Option<Shortage>> {
    let space = file::space(fd)?;
    let short = space.total_bytes > 0 && space.available_bytes < needed_bytes;
    Ok(short.then(|| Shortage {
        resource: Resource::Filesystem,
        place: directory.to_owned(),
        needed_bytes,
        limit_bytes: space.total_bytes,
        free_bytes: space.available_bytes,
    }))
}

/// Turns the kernel's "no space" into what was short; other errors are none of this.
///
/// Somebody may have taken the room after it was looked for.
pub(crate) fn ran_out(
    error: &io::Error,
    fd: BorrowedFd<'_>,
    directory: &Path,
    needed_bytes: u64,
) -> Option<Shortage> {
    if !matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG)) {
        return None;
    }
    let space = file::space(fd).ok()?;
    Some(Shortage {
        resource: Resource::Filesystem,
        place: directory.to_owned(),
        needed_bytes,
        limit_bytes: space.total_bytes,
        free_bytes: space.available_bytes,
    })
}

/// As [`shortage`], the memory limits alone. What cannot be read sets no limit.
pub(crate) fn memory_shortage(needed_bytes: u64) -> Option<Shortage> {
    if needed_bytes < MEMORY_CHECK_BYTES_MIN {
        return None;
    }
    // Page tables and bookkeeping are charged to the same limits.
    let with_overhead = needed_bytes.saturating_add(needed_bytes / 256);
    let read = |path: &Path| sys::read_text(path);
    let machine = Machine::read(&read);
    if let Some(group) =
        MemoryGroups::of_this_process(&read).tightest(&read, with_overhead, machine.swap_free)
    {
        return Some(Shortage {
            resource: Resource::MemoryGroup,
            place: group.directory,
            needed_bytes,
            limit_bytes: group.limit_bytes,
            free_bytes: group.free_bytes,
        });
    }
    let free_bytes = machine.available.saturating_add(machine.swap_free);
    (machine.total > 0 && free_bytes < with_overhead).then(|| Shortage {
        resource: Resource::Machine,
        place: Machine::PATH.into(),
        needed_bytes,
        limit_bytes: machine.total,
        free_bytes,
    })
}

/// The machine's memory in bytes; all zero where it is not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Machine {
    total: u64,
    available: u64,
    swap_free: u64,
}

impl Machine {
    const PATH: &str = "/proc/meminfo";

    fn read(read: &dyn Fn(&Path) -> io::Result<String>) -> Machine {
        let Ok(text) = read(Machine::PATH.as_ref()) else { return Machine::default() };
        let bytes = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
                .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
                .map_or(0, |kib| kib.saturating_mul(1024))
        };
        match bytes("MemAvailable") {
            // A kernel or sandbox that does not tell sets no limit.
            0 => Machine::default(),
            available => {
                Machine { total: bytes("MemTotal"), available, swap_free: bytes("SwapFree") }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_messages_name_size_limit_free_and_the_container_hint() {
        let mut shortage = Shortage {
            resource: Resource::Filesystem,
            place: "/dev/shm".into(),
            needed_bytes: 400 << 20,
            limit_bytes: 64 << 20,
            free_bytes: 1000,
        };
        assert_eq!(
            shortage.to_string(),
            "419430400 bytes (400.0 MiB) needed, 1000 bytes free of 67108864 bytes (64.0 MiB) in \
             `/dev/shm`; remove segments nobody uses or enlarge the file system (in a container \
             start it with a larger `--shm-size`)"
        );
        shortage.resource = Resource::MemoryGroup;
        assert!(shortage.to_string().contains("`--memory`"), "{shortage}");
        shortage.resource = Resource::Machine;
        assert!(shortage.to_string().contains("available of the machine's"), "{shortage}");
    }

    #[test]
    fn an_unreadable_or_partial_meminfo_sets_no_limit() {
        let missing = |_: &Path| Err(io::ErrorKind::NotFound.into());
        assert_eq!(Machine::read(&missing), Machine::default());
        let partial = |_: &Path| Ok("MemTotal: 10 kB\nSwapFree: 1 kB\n".to_owned());
        assert_eq!(Machine::read(&partial), Machine::default());
        let whole = |_: &Path| {
            Ok("MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable:   50 kB\nSwapFree: 7 kB\n".into())
        };
        assert_eq!(
            Machine::read(&whole),
            Machine { total: 102_400, available: 51_200, swap_free: 7_168 }
        );
    }
}
