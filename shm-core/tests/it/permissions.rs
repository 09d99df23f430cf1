//! Modes, groups and other users.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;

use shm_core::{
    Access, CreateError, OpenError, PurgeOptions, Segment, SegmentOptions, UnlinkError,
};

use crate::harness::{
    KIND, PAGE, Peer, PeerCommand, Role, Scratch, Watchdog, is_root, name, program_for_everybody,
    skip,
};

const NOBODY: u32 = 65534;
const GROUP: u32 = 54321;

/// The umask belongs to the process, so each one is tried in a process of its own.
#[test]
fn the_mode_is_what_was_asked_for_under_any_umask() {
    if let Some(role) = Role::mine() {
        let umask: u32 = role.role.parse().expect("a number");
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(umask));
        for mode in [0o600, 0o640, 0o660, 0o666, 0o777] {
            let segment = SegmentOptions::new(KIND, PAGE)
                .mode(mode)
                .create(&role.namespace, &name("a"), |_| Ok(()))
                .expect("created");
            let found = std::fs::metadata(segment.path()).expect("a stat").mode() & 0o7777;
            assert_eq!(found, mode, "umask {umask:#o}");
            segment.unlink().expect("removed");
        }
        return;
    }
    let _watchdog = Watchdog::start("umask");
    let scratch = Scratch::new("mode");
    for umask in [0o000, 0o022, 0o077, 0o777] {
        let test = "permissions::the_mode_is_what_was_asked_for_under_any_umask";
        Peer::spawn(test, &umask.to_string(), &scratch).succeed();
    }
}

fn as_somebody_else(role: &Role) {
    let ns = &role.namespace;
    let open = |text, access| Segment::open(ns, &name(text), access, KIND);
    assert!(matches!(
        open("private", Access::ReadOnly),
        Err(OpenError::PermissionDenied { writable: false, .. })
    ));
    let shared = open("group", Access::ReadOnly).expect("the group may read");
    shared.map(0..PAGE, Access::ReadOnly).expect("mapped");
    assert!(shared.map(0..PAGE, Access::ReadWrite).is_err());
    assert!(shared.reopen().is_ok_and(|fd| rustix::io::write(fd, b"x").is_err()));
    let denied = open("group", Access::ReadWrite).expect_err("the group may not write");
    assert!(denied.to_string().contains("open it read-only"), "{denied}");
    let writable = open("everybody", Access::ReadWrite).expect("all may write");

    // The directory is sticky: even who may write the file may not remove its name.
    for text in ["private", "group", "everybody"] {
        let denied = ns.unlink(&name(text)).expect_err("only the owner");
        assert!(matches!(denied, UnlinkError::PermissionDenied { .. }), "{text}: {denied:?}");
    }
    let report = ns.purge(&PurgeOptions::new().include_live(true)).expect("purged");
    assert_eq!((report.removed.len(), report.failed.len(), report.skipped.len()), (0, 2, 1));
    assert_eq!(writable.is_current().expect("a stat"), shm_core::Current::Yes);

    let options = SegmentOptions::new(KIND, PAGE).group(0);
    let refused = options.create(ns, &name("mine"), |_| Ok(())).expect_err("not our group");
    assert!(matches!(refused, CreateError::Group { gid: 0, .. }), "{refused:?}");
    let own = SegmentOptions::new(KIND, PAGE).create(ns, &name("mine"), |_| Ok(()));
    own.expect("every user may create").unlink().expect("and remove");
}

#[test]
fn other_users_may_do_what_the_mode_says() {
    if let Some(role) = Role::mine() {
        return as_somebody_else(&role);
    }
    if !is_root() {
        return skip("other users", "only root can become another user");
    }
    let _watchdog = Watchdog::start("other users");
    let scratch = Scratch::new("users");
    let ns = scratch.namespace();
    let program = program_for_everybody(scratch.directory());
    let make = |text, mode, group| {
        let options = SegmentOptions::new(KIND, PAGE).mode(mode).group(group);
        options.create(ns, &name(text), |_| Ok(())).expect("created")
    };
    let segments =
        [make("private", 0o600, 0), make("group", 0o640, GROUP), make("everybody", 0o666, 0)];
    assert_eq!(std::fs::metadata(segments[1].path()).expect("a stat").gid(), GROUP);
    let test = "permissions::other_users_may_do_what_the_mode_says";
    let mut command = PeerCommand::of_program(&program, test, "nobody", scratch.directory());
    command.command().uid(NOBODY).gid(GROUP);
    command.spawn().succeed();
    scratch.clear();
}

#[test]
fn a_directory_that_admits_nothing_is_named() {
    if let Some(role) = Role::mine() {
        let refused = SegmentOptions::new(KIND, PAGE)
            .create(&role.namespace, &name("a"), |_| Ok(()))
            .expect_err("no permission");
        assert!(matches!(refused, CreateError::PermissionDenied { .. }), "{refused:?}");
        assert!(refused.to_string().contains("make the directory writable"), "{refused}");
        return;
    }
    if !is_root() {
        return skip("a foreign directory", "only root can become another user");
    }
    let _watchdog = Watchdog::start("foreign directory");
    let scratch = Scratch::new("users");
    let closed = Scratch::new("closed");
    let program = program_for_everybody(scratch.directory());
    let test = "permissions::a_directory_that_admits_nothing_is_named";
    let mut command = PeerCommand::of_program(&program, test, "nobody", closed.directory());
    command.command().uid(NOBODY).gid(NOBODY);
    command.spawn().succeed();
    scratch.clear();
}
