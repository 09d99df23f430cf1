//! The memory limits of the control groups that this process is in, versions 1 and 2.
//!
//! A limit anywhere between the group and the root of the mounted hierarchy binds. What the kernel
//! would reclaim before it kills counts as free: cached file pages, and swap where it may be used.

use std::io;
use std::path::{Path, PathBuf};

/// Reads a whole file; tests put a made-up tree behind it.
type Read<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// No machine has so much.
const UNLIMITED_FROM: u64 = 1 << 62;

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
        // Version 1 writes "no limit" as the largest number of whole pages.
        let limit = self.number(limit).filter(|&limit| limit < UNLIMITED_FROM)?;
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const MIB: u64 = 1 << 20;

    const V1: &str = "\
22 1 0:20 / /proc rw - proc proc rw
35 34 0:30 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu
36 34 0:31 / /sys/fs/cgroup/memory rw,nosuid shared:7 master:3 - cgroup cgroup rw,memory
37 34 0:32 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
";
    const V2: &str = "\
22 1 0:20 / /proc rw - proc proc rw
30 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate
";

    /// Files by path; whatever else is read does not exist.
    struct Tree(HashMap<PathBuf, String>);

    impl Tree {
        fn new(cgroup: &str, mountinfo: &str) -> Tree {
            let mut tree = Tree(HashMap::new());
            tree.put("/proc/self/cgroup", &cgroup);
            tree.put("/proc/self/mountinfo", &mountinfo);
            tree
        }

        fn put(&mut self, path: &str, text: &dyn std::fmt::Display) {
            self.0.insert(path.into(), format!("{text}\n"));
        }

        fn tightest(&self, needed: u64, swap: u64) -> Option<Tight> {
            let read = |path: &Path| {
                self.0.get(path).cloned().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
            };
            MemoryGroups::of_this_process(&read).tightest(&read, needed, swap)
        }
    }

    fn tight(directory: &str, limit_bytes: u64, free_bytes: u64) -> Tight {
        Tight { directory: directory.into(), limit_bytes, free_bytes }
    }

    #[test]
    fn a_limit_anywhere_above_binds_in_version_2() {
        let mut tree = Tree::new("0::/system/app/worker", V2);
        let group = "/sys/fs/cgroup/system/app";
        tree.put(&format!("{group}/worker/memory.max"), &"max");
        tree.put(&format!("{group}/worker/memory.current"), &MIB);
        tree.put(&format!("{group}/memory.max"), &(100 * MIB));
        tree.put(&format!("{group}/memory.current"), &(60 * MIB));
        assert_eq!(tree.tightest(40 * MIB, 0), None);
        assert_eq!(tree.tightest(41 * MIB, 0), Some(tight(group, 100 * MIB, 40 * MIB)));

        // The tightest of several is told.
        tree.put("/sys/fs/cgroup/system/memory.max", &(70 * MIB));
        tree.put("/sys/fs/cgroup/system/memory.current", &(65 * MIB));
        let told = tree.tightest(41 * MIB, 0);
        assert_eq!(told, Some(tight("/sys/fs/cgroup/system", 70 * MIB, 5 * MIB)));
    }

    #[test]
    fn what_the_kernel_would_reclaim_counts_as_free() {
        let mut tree = Tree::new("0::/app", V2);
        tree.put("/sys/fs/cgroup/app/memory.max", &(100 * MIB));
        tree.put("/sys/fs/cgroup/app/memory.current", &(99 * MIB));
        let stat = format!(
            "anon 5\nfile {}\nshmem {}\ninactive_file {}\nactive_file {}\ninactive_anon 77",
            90 * MIB,
            70 * MIB,
            15 * MIB,
            5 * MIB
        );
        tree.put("/sys/fs/cgroup/app/memory.stat", &stat);
        assert_eq!(tree.tightest(21 * MIB, 0), None, "a full page cache is no full memory");
        assert_eq!(
            tree.tightest(22 * MIB, 0),
            Some(tight("/sys/fs/cgroup/app", 100 * MIB, 21 * MIB))
        );
        assert_eq!(tree.tightest(22 * MIB, MIB), None, "swap without a limit");
        tree.put("/sys/fs/cgroup/app/memory.swap.max", &0);
        tree.put("/sys/fs/cgroup/app/memory.swap.current", &0);
        assert!(tree.tightest(22 * MIB, MIB).is_some(), "no swap for this group");
    }

    #[test]
    fn version_1_is_read_by_its_own_names() {
        let mut tree = Tree::new("9:name=systemd:/x\n4:cpu,memory:/docker/ab\n0::/y", V1);
        let group = "/sys/fs/cgroup/memory/docker/ab";
        tree.put(&format!("{group}/memory.limit_in_bytes"), &(64 * MIB));
        tree.put(&format!("{group}/memory.usage_in_bytes"), &(60 * MIB));
        tree.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", &0x7fff_ffff_ffff_f000_u64);
        tree.put("/sys/fs/cgroup/memory/memory.usage_in_bytes", &(500 * MIB));
        assert_eq!(tree.tightest(5 * MIB, 0), Some(tight(group, 64 * MIB, 4 * MIB)));
        tree.put(&format!("{group}/memory.stat"), &"inactive_file 99\ntotal_inactive_file 2097152");
        assert_eq!(tree.tightest(6 * MIB, 0), None);
        assert_eq!(tree.tightest(8 * MIB, 2 * MIB), None, "swap");
        tree.put(&format!("{group}/memory.memsw.limit_in_bytes"), &(64 * MIB));
        tree.put(&format!("{group}/memory.memsw.usage_in_bytes"), &(60 * MIB));
        assert_eq!(tree.tightest(8 * MIB, 2 * MIB), Some(tight(group, 64 * MIB, 6 * MIB)));
    }

    #[test]
    fn containers_see_their_group_at_the_mount_point() {
        // The hierarchy is mounted from the container's group, the membership names it in full.
        let mount = "36 1 0:31 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let mut tree = Tree::new("4:memory:/docker/ab/child", mount);
        tree.put("/sys/fs/cgroup/memory/memory.limit_in_bytes", &(10 * MIB));
        tree.put("/sys/fs/cgroup/memory/memory.usage_in_bytes", &(9 * MIB));
        let told = Some(tight("/sys/fs/cgroup/memory", 10 * MIB, MIB));
        assert_eq!(tree.tightest(2 * MIB, 0), told);
        // A membership outside of what is mounted.
        for elsewhere in ["4:memory:/elsewhere", "4:memory:/../../host", "4:memory:/"] {
            tree.put("/proc/self/cgroup", &elsewhere);
            assert_eq!(tree.tightest(2 * MIB, 0), told, "{elsewhere}");
        }
        tree.put("/proc/self/mountinfo", &V2.replace("/sys/fs/cgroup rw", "/odd\\040place rw"));
        tree.put("/proc/self/cgroup", &"0::/../escape");
        tree.put("/odd place/memory.max", &MIB);
        tree.put("/odd place/memory.current", &0);
        assert_eq!(tree.tightest(2 * MIB, 0), Some(tight("/odd place", MIB, MIB)));
    }

    #[test]
    fn what_cannot_be_read_or_understood_sets_no_limit() {
        for (cgroup, mounts) in [
            ("", ""),
            ("0::/app", ""),
            ("", V2),
            ("garbage", "garbage - cgroup2"),
            ("4:memory", V1),
            ("4:cpu:/app", V1),
        ] {
            assert_eq!(Tree::new(cgroup, mounts).tightest(u64::MAX, 0), None, "{cgroup} {mounts}");
        }
        let mut tree = Tree::new("0::/app", V2);
        tree.put("/sys/fs/cgroup/app/memory.max", &"many");
        tree.put("/sys/fs/cgroup/app/memory.current", &0);
        assert_eq!(tree.tightest(u64::MAX, 0), None);
        tree.put("/sys/fs/cgroup/app/memory.max", &5);
        tree.put("/sys/fs/cgroup/app/memory.current", &"?");
        assert_eq!(tree.tightest(u64::MAX, 0), None);
    }
}
