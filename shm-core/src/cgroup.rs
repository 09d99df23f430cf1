//! The memory limits of the control groups that this process is in, versions 1 and 2.
//!
//! A limit anywhere between the group and the root of the mounted hierarchy binds. What the kernel
//! would reclaim before it kills counts as free: cached file pages, and swap where it may be used.

use std::io;
use std::path::{Path, PathBuf};

/// Reads a whole file; tests put a made-up tree behind it.
type Read<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A directory of a mounted memory hierarchy, and the directory where its tree ends.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    version: Version,
    leaf: PathBuf,
    root: PathBuf,
}

/// Where the limits of this process stand.
#[derive(Debug)]
pub(crate) struct MemoryGroups(Vec<Place>);

/// A limit that is too near.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tight {
    pub(crate) directory: PathBuf,
    pub(crate) limit_bytes: u64,
    pub(crate) free_bytes: u64,
}

impl MemoryGroups {
    /// Looks up this process's groups. What cannot be read sets no limit.
    pub(crate) fn of_this_process(read: Read<'_>) -> MemoryGroups {
        let membership = read("/proc/self/cgroup".as_ref()).unwrap_or_default();
        let mounts = read("/proc/self/mountinfo".as_ref()).unwrap_or_default();
        MemoryGroups(membership.lines().filter_map(|line| place_of(line, &mounts)).collect())
    }

    /// The limit that leaves least room, if it leaves less than `needed_bytes`.
    pub(crate) fn tightest(
        &self,
        read: Read<'_>,
        needed_bytes: u64,
        swap_free_bytes: u64,
    ) -> Option<Tight> {
        self.0
            .iter()
            .flat_map(|place| {
                place
                    .leaf
                    .ancestors()
                    .take_while(|directory| directory.starts_with(&place.root))
                    .filter_map(|directory| {
                        let group = Group { version: place.version, directory, read };
                        group.tight(needed_bytes, swap_free_bytes)
                    })
            })
            .min_by_key(|tight| tight.free_bytes)
    }
}

/// The directory of one `/proc/self/cgroup` line, `id:controllers:path`, if it accounts memory.
fn place_of(line: &str, mounts: &str) -> Option<Place> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let version = match controllers {
        "" => Version::Two,
        list if list.split(',').any(|name| name == "memory") => Version::One,
        _ => return None,
    };
    let (inside, root) = mounts.lines().find_map(|mount| hierarchy(mount, version))?;
    // Seen from inside a container, the path may lead from a root that is not mounted here: then
    // the mount point itself is the process's group.
    let below = Path::new(path).strip_prefix(&inside).unwrap_or(Path::new(""));
    let climbs = below.components().any(|part| part.as_os_str() == "..");
    let leaf = if climbs { root.clone() } else { root.join(below) };
    Some(Place { version, leaf, root })
}

/// The root inside the hierarchy and the mount point of a `mountinfo` line, if it is the memory
/// hierarchy of `version`.
fn hierarchy(mount: &str, version: Version) -> Option<(PathBuf, PathBuf)> {
    let (front, back) = mount.split_once(" - ")?;
    let mut back = back.split(' ');
    let (kind, _, options) = (back.next()?, back.next()?, back.next()?);
    let wanted = match version {
        Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        Version::Two => kind == "cgroup2",
    };
    let mut front = front.split(' ').skip(3).map(unescape);
    wanted.then_some((front.next()?, front.next()?))
}

/// `mountinfo` writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut text = field.to_owned();
    for (code, plain) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        text = text.replace(code, plain);
    }
    text.into()
}

struct Group<'a> {
    version: Version,
    directory: &'a Path,
    read: Read<'a>,
}

impl Group<'_> {
    fn number(&self, file: &str) -> Option<u64> {
        // "max" is no number: no limit.
        (self.read)(&self.directory.join(file)).ok()?.trim().parse().ok()
    }

    fn room(&self, limit: &str, usage: &str) -> Option<(u64, u64)> {
        let limit = self.number(limit)?;
        Some((limit, limit.saturating_sub(self.number(usage)?)))
    }

    fn tight(&self, needed_bytes: u64, swap_free_bytes: u64) -> Option<Tight> {
        let (limit_bytes, unused) = match self.version {
            Version::One => self.room("memory.limit_in_bytes", "memory.usage_in_bytes")?,
            Version::Two => self.room("memory.max", "memory.current")?,
        };
        // The statistics are costly to read, so only when they decide.
        if unused >= needed_bytes {
            return None;
        }
        let without_swap = unused.saturating_add(self.reclaimable_bytes());
        let free_bytes = match self.version {
            Version::One => {
                let with_swap = without_swap.saturating_add(swap_free_bytes);
                self.room("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes")
                    .map_or(with_swap, |(_, room)| {
                        with_swap.min(room.saturating_add(self.reclaimable_bytes()))
                    })
            }
            Version::Two => {
                let swap = self
                    .room("memory.swap.max", "memory.swap.current")
                    .map_or(swap_free_bytes, |(_, room)| room.min(swap_free_bytes));
                without_swap.saturating_add(swap)
            }
        };
        (free_bytes < needed_bytes).then(|| Tight {
            directory: self.directory.to_owned(),
            limit_bytes,
            free_bytes,
        })
    }

    /// Pages of files, which the kernel drops before it kills. Shared memory is not among them.
    fn reclaimable_bytes(&self) -> u64 {
        let Ok(stat) = (self.read)(&self.directory.join("memory.stat")) else { return 0 };
        let keys = match self.version {
            Version::One => ["total_inactive_file", "total_active_file"],
            Version::Two => ["inactive_file", "active_file"],
        };
        stat.lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(key, _)| keys.contains(key))
            .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
            .fold(0, u64::saturating_add)
    }
}
