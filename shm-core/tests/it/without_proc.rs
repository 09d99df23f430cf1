//! Nothing depends on `/proc`: what it tells is missing then, and the fall-backs serve.

use std::io;
use std::os::fd::AsFd;

use shm_core::{Access, Current, PurgeOptions, Region, RegionOptions, Segment, SegmentOptions};

use crate::harness::{KIND, PAGE, Role, Scratch, Watchdog, in_private_mounts, name, small};

fn inside(role: &Role) {
    let ns = &role.namespace;
    assert!(std::fs::read("/proc/self/stat").is_err(), "the mount hides it");
    let options = SegmentOptions::new(KIND, 2 << 20);
    let segment = options.create(ns, &name("a"), |_| Ok(())).expect("created");
    let creator = segment.creator();
    assert_eq!((creator.start_ticks, creator.pid_namespace), (0, 0), "unknown");
    assert_eq!(creator.pid, std::process::id());
    let opened = Segment::open(ns, &name("a"), Access::ReadOnly, KIND).expect("opened");
    opened.map(0..2 << 20, Access::ReadOnly).expect("mapped");
    assert_eq!(opened.is_current().expect("a stat"), Current::Yes);

    let again = rustix::fs::fstat(segment.reopen().expect("by its path")).expect("a stat");
    assert_eq!(again.st_ino, segment.identity().inode);
    segment.unlink().expect("removed");
    let _other = small(ns, "a");
    let refused = segment.reopen().expect_err("its path leads elsewhere");
    assert_eq!(refused.kind(), io::ErrorKind::NotFound);
    ns.purge(&PurgeOptions::new().include_live(true)).expect("purged");

    let mut region = Region::create("r", PAGE, &RegionOptions::new()).expect("a region");
    assert!(region.read_only_fd().is_err(), "nothing but `/proc` narrows a descriptor");
    region.seal().expect("Linux 5.1");
    let handed = region.read_only_fd().expect("sealed, every descriptor is read-only");
    assert_eq!(rustix::io::write(handed.as_fd(), b"x"), Err(rustix::io::Errno::PERM));
    let mapped = region.map(0..PAGE, Access::ReadOnly).expect("mapped");
    assert!(mapped.residency().is_err(), "an error, not zeroes");
}

#[test]
fn everything_but_the_accounts_works_without_proc() {
    if let Some(role) = Role::mine() {
        return inside(&role);
    }
    let _watchdog = Watchdog::start("without /proc");
    let scratch = Scratch::new("noproc");
    let test = "without_proc::everything_but_the_accounts_works_without_proc";
    in_private_mounts(test, "mount -t tmpfs none /proc", &scratch);
}
