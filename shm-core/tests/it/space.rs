//! Too little room: an error with the numbers, before anything is taken.

use std::path::{Path, PathBuf};

use shm_core::{
    Access, CreateError, Region, RegionError, RegionOptions, ReserveError, Resource, Segment,
    SegmentOptions, Shortage,
};

use crate::harness::{
    KIND, PAGE, PeerCommand, Role, Scratch, Watchdog, alone, in_private_mounts, name, skip,
};
use crate::sys;

const MIB: u64 = 1 << 20;
/// The size of the private file system.
const SMALL: u64 = 16 * MIB;

fn shortage(refused: Result<Segment, CreateError>) -> Shortage {
    match refused {
        Err(CreateError::NoSpace { shortage, .. }) => shortage,
        other => panic!("{other:?}"),
    }
}

fn on_a_small_filesystem(role: &Role) {
    let ns = &role.namespace;
    let create =
        |text: &str, bytes| SegmentOptions::new(KIND, bytes).create(ns, &name(text), |_| Ok(()));
    let free = || {
        let stat = rustix::fs::statvfs(ns.directory()).expect("a stat");
        stat.f_bavail * stat.f_frsize
    };
    assert_eq!(free(), SMALL);
    let refused = create("big", SMALL + 1);
    let text = refused.as_ref().expect_err("too big").to_string();
    assert!(text.contains("--shm-size") && text.contains("16781312 bytes"), "{text}");
    let short = shortage(refused);
    assert_eq!(short.resource, Resource::Filesystem);
    assert_eq!((short.needed_bytes, short.limit_bytes), (SMALL + PAGE, SMALL));
    assert_eq!((short.free_bytes, free()), (SMALL, SMALL), "nothing was taken");

    let first = create("first", SMALL - 4 * MIB).expect("fits");
    assert_eq!(shortage(create("second", 4 * MIB + PAGE)).free_bytes, 4 * MIB);
    // The room is promised: writing everywhere cannot fail.
    let bytes = first.map(0..first.total_bytes(), Access::ReadWrite).expect("mapped");
    bytes.fill(512..bytes.len(), 0xa5).expect("in bounds");

    // With holes a segment may be larger than the room, and is told when it grows beyond.
    let sparse = SegmentOptions::new(KIND, 64 * MIB)
        .reserve(std::iter::once(0..MIB))
        .create(ns, &name("sparse"), |_| Ok(()))
        .expect("fits");
    sparse.reserve(MIB..2 * MIB).expect("fits");
    match sparse.reserve(2 * MIB..8 * MIB) {
        Err(ReserveError::NoSpace { shortage, .. }) => {
            assert_eq!((shortage.free_bytes, shortage.needed_bytes), (2 * MIB, 6 * MIB));
        }
        other => panic!("{other:?}"),
    }
    let third = create("third", 2 * MIB).expect("exactly what is left");
    assert_eq!(free(), 0);
    first.reserve(0..first.total_bytes()).expect("it has all of this");
    sparse.reserve(0..2 * MIB).expect("it has all of this");
    match sparse.reserve(MIB..2 * MIB + PAGE) {
        Err(ReserveError::NoSpace { shortage, .. }) => assert_eq!(shortage.free_bytes, 0),
        other => panic!("{other:?}"),
    }
    assert_eq!(shortage(create("fourth", PAGE)).free_bytes, 0);
    for segment in [first, sparse, third] {
        segment.unlink().expect("removed");
    }
}

/// A mount namespace of its own, so that the full file system is nobody else's.
#[test]
fn a_full_filesystem_is_an_error_with_the_numbers() {
    if let Some(role) = Role::mine() {
        return on_a_small_filesystem(&role);
    }
    let _watchdog = Watchdog::start("full file system");
    let scratch = Scratch::new("space");
    let mount = format!("mount -t tmpfs -o size={SMALL} none \"$0\"");
    in_private_mounts("space::a_full_filesystem_is_an_error_with_the_numbers", &mount, &scratch);
}

/// tmpfs undoes a reservation when a signal arrives. A profiler's timer must not make it start over
/// for ever.
#[test]
fn a_fast_timer_does_not_keep_memory_from_being_reserved() {
    alone("space::a_fast_timer_does_not_keep_memory_from_being_reserved", || {
        let scratch = Scratch::new("timer");
        let ns = scratch.namespace().clone();
        let segment = sys::under_a_fast_timer(move || {
            SegmentOptions::new(KIND, 64 * MIB).create(&ns, &name("a"), |_| Ok(()))
        });
        let segment = segment.expect("created");
        let listed = scratch.namespace().list().expect("listed");
        assert_eq!(listed[0].allocated_bytes, 64 * MIB);
        segment.unlink().expect("removed");
    });
}

const LIMIT: u64 = 64 * MIB;

fn in_a_small_memory_group(role: &Role) {
    let group = PathBuf::from(std::env::var_os(GROUP).expect("told by the test"));
    std::fs::write(group.join("cgroup.procs"), "0").expect("this process may join");
    let segment =
        SegmentOptions::new(KIND, 8 * LIMIT).create(&role.namespace, &name("a"), |_| Ok(()));
    let text = segment.as_ref().expect_err("too big").to_string();
    assert!(text.contains("`--memory`"), "{text}");
    let short = shortage(segment);
    assert_eq!((short.resource, short.limit_bytes), (Resource::MemoryGroup, LIMIT), "{short}");
    assert_eq!(short.place, group);
    assert!(short.free_bytes <= LIMIT, "{short}");
    match Region::create("a", LIMIT + 1, &RegionOptions::new()) {
        Err(RegionError::NoSpace { shortage, .. }) => {
            assert_eq!(shortage.resource, Resource::MemoryGroup);
        }
        other => panic!("{other:?}"),
    }
    // What fits is created and can be written to the last byte.
    let fits = SegmentOptions::new(KIND, LIMIT / 4).create(&role.namespace, &name("a"), |_| Ok(()));
    let fits = fits.expect("room");
    let bytes = fits.map(0..LIMIT / 4, Access::ReadWrite).expect("mapped");
    bytes.fill(512..bytes.len(), 1).expect("in bounds");
    fits.unlink().expect("removed");
}

const GROUP: &str = "SHM_CORE_TEST_GROUP";

/// A cgroup below this process's own, removed when dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new() -> Result<MemoryGroup, String> {
        let membership = std::fs::read_to_string("/proc/self/cgroup").map_err(|e| e.to_string())?;
        let path_of = |wanted: &str| {
            membership.lines().find_map(|line| {
                let mut fields = line.splitn(3, ':').skip(1);
                let controllers = fields.next()?;
                let path = fields.next()?.trim_start_matches('/');
                controllers.split(',').any(|name| name == wanted).then_some(path.to_owned())
            })
        };
        let (parent, limit) = match path_of("memory") {
            Some(path) => (Path::new("/sys/fs/cgroup/memory").join(path), "memory.limit_in_bytes"),
            None => {
                (Path::new("/sys/fs/cgroup").join(path_of("").unwrap_or_default()), "memory.max")
            }
        };
        let path = parent.join(format!("shm-core-test-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let group = MemoryGroup(path);
        std::fs::write(group.0.join(limit), LIMIT.to_string())
            .map_err(|e| format!("{}/{limit}: {e}", group.0.display()))?;
        Ok(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Past the limit `fallocate` does not fail: the kernel kills the process. So this test's peer
/// either tells an error or is gone.
#[test]
fn a_memory_limit_is_an_error_and_not_a_kill() {
    if let Some(role) = Role::mine() {
        return in_a_small_memory_group(&role);
    }
    let _watchdog = Watchdog::start("memory group");
    let scratch = Scratch::new("group");
    let group = match MemoryGroup::new() {
        Ok(group) => group,
        Err(why) => return skip("memory limit", &why),
    };
    let test = "space::a_memory_limit_is_an_error_and_not_a_kill";
    let mut command = PeerCommand::new(test, "inside", scratch.directory());
    command.command().env(GROUP, &group.0);
    command.spawn().succeed();
}
