//! Anonymous regions: sealed, handed out as descriptors.

use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;

use shm_core::{Access, MapError, Region, RegionError, RegionOptions};

use crate::harness::{PAGE, PeerCommand, Role, Scratch, Watchdog};
use crate::sys;

fn region(bytes: u64) -> Region {
    Region::create("test region", bytes, &RegionOptions::new()).expect("room")
}

#[test]
fn nobody_can_change_the_length() {
    let region = region(3 * PAGE);
    for length in [0, PAGE, 4 * PAGE] {
        let refused = rustix::fs::ftruncate(&region, length);
        assert_eq!(refused, Err(rustix::io::Errno::PERM), "to {length}");
    }
    assert_eq!(region.total_bytes(), 3 * PAGE);
    assert!(region.map(0..3 * PAGE + 1, Access::ReadOnly).is_err());
}

#[test]
fn a_read_only_descriptor_reads_and_does_not_write() {
    let region = region(2 * PAGE);
    let ours = region.map(0..2 * PAGE, Access::ReadWrite).expect("mapped");
    let theirs = Region::from_fd(region.read_only_fd().expect("a descriptor")).expect("a region");
    assert_eq!((theirs.access(), theirs.total_bytes()), (Access::ReadOnly, 2 * PAGE));
    assert_eq!(theirs.identity(), region.identity());
    let refused = theirs.map(0..PAGE, Access::ReadWrite);
    assert!(matches!(refused, Err(MapError::ReadOnly)), "{refused:?}");
    let view = theirs.map(PAGE..2 * PAGE, Access::ReadOnly).expect("mapped");
    ours.write_from(PAGE as usize + 4, &5u32.to_le_bytes()).expect("in bounds");
    assert_eq!(sys::load_u32(&view, 4), Ok(5));
}

#[test]
fn sealing_keeps_existing_writers_and_refuses_new_ones() {
    let mut region = region(2 * PAGE);
    let writer = region.map(0..PAGE, Access::ReadWrite).expect("mapped");
    region.seal().expect("Linux 5.1");
    assert_eq!(region.access(), Access::ReadOnly);
    assert!(matches!(region.map(0..PAGE, Access::ReadWrite), Err(MapError::ReadOnly)));
    assert_eq!(rustix::io::write(&region, b"x"), Err(rustix::io::Errno::PERM));
    writer.write_from(0, b"still writing").expect("in bounds");
    let mut read = [0; 13];
    let reader = region.map(0..PAGE, Access::ReadOnly).expect("mapped");
    reader.read_into(0, &mut read).expect("in bounds");
    assert_eq!(&read, b"still writing");
    // Even with a descriptor that is open for writing, a receiver only reads.
    let received = Region::from_fd(region.into_fd()).expect("a region");
    assert_eq!(received.access(), Access::ReadOnly);
}

#[test]
fn stores_to_a_private_mapping_stay_in_it() {
    let mut region = region(2 * PAGE);
    let writer = region.map(0..2 * PAGE, Access::ReadWrite).expect("mapped");
    writer.write_from(0, b"first").expect("in bounds");
    region.seal().expect("Linux 5.1");
    let theirs = Region::from_fd(region.read_only_fd().expect("a descriptor")).expect("a region");
    let private = theirs.map_private(0..2 * PAGE).expect("mapped");
    let loaded = private.populate(0..2 * PAGE as usize).expect("in bounds");
    assert!(loaded.is_complete(), "{loaded:?}");
    writer.write_from(0, b"later").expect("in bounds");
    let read = |view: &shm_core::SharedBytes| {
        let mut read = [0; 5];
        view.read_into(0, &mut read).expect("in bounds");
        read
    };
    assert_eq!(&read(&private), b"later", "populating has copied nothing");
    private.write_from(0, b"mine!").expect("in bounds");
    writer.write_from(PAGE as usize, b"other").expect("in bounds");
    assert_eq!((&read(&private), &read(&writer)), (b"mine!", b"later"));
    let other_page = private.slice(PAGE as usize..2 * PAGE as usize).expect("in bounds");
    assert_eq!(&read(&other_page), b"other");
}

#[test]
fn a_descriptor_that_could_pull_the_memory_away_is_refused() {
    let refused = |fd: OwnedFd| match Region::from_fd(fd) {
        Err(RegionError::NotARegion { reason }) => reason,
        other => panic!("{other:?}"),
    };
    let memfd = |sealable: bool| {
        let flags = if sealable {
            rustix::fs::MemfdFlags::ALLOW_SEALING
        } else {
            rustix::fs::MemfdFlags::empty()
        };
        let fd = rustix::fs::memfd_create("foreign", flags).expect("a memfd");
        rustix::fs::ftruncate(&fd, PAGE).expect("sized");
        fd
    };
    assert!(refused(memfd(false)).contains("not sealed"));
    assert!(refused(memfd(true)).contains("not sealed"));
    let empty = memfd(true);
    rustix::fs::ftruncate(&empty, 0).expect("sized");
    rustix::fs::fcntl_add_seals(&empty, rustix::fs::SealFlags::SHRINK).expect("sealed");
    assert!(refused(empty).contains("empty"));

    let good = memfd(true);
    rustix::fs::fcntl_add_seals(&good, rustix::fs::SealFlags::SHRINK).expect("sealed");
    let again = |flags| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&good));
        rustix::fs::open(path, flags, rustix::fs::Mode::empty()).expect("reopened")
    };
    assert!(refused(again(rustix::fs::OFlags::WRONLY)).contains("not open for reading"));
    assert!(refused(again(rustix::fs::OFlags::PATH)).contains("not open for reading"));
    assert_eq!(Region::from_fd(good).expect("a region").total_bytes(), PAGE);

    let scratch = Scratch::new("region");
    let path = scratch.directory().join("file");
    std::fs::write(&path, [0; 4096]).expect("written");
    let file = std::fs::File::open(&path).expect("opened");
    assert!(refused(file.into()).contains("not sealed"), "tmpfs answers, without seals");
    let elsewhere = std::fs::File::open("/proc/self/status").expect("opened");
    assert!(refused(elsewhere.into()).contains("ordinary file"));
    let directory = std::fs::File::open(scratch.directory()).expect("opened");
    assert!(refused(directory.into()).contains("no file"));
    let (pipe, _end) = std::io::pipe().expect("a pipe");
    assert!(refused(pipe.into()).contains("no file"));
    scratch.clear();
}

#[test]
fn sizes_and_labels_that_make_no_region_are_refused() {
    let create = |label: &str, bytes| Region::create(label, bytes, &RegionOptions::new());
    assert!(matches!(create("a", 0), Err(RegionError::Size { bytes: 0 })));
    assert!(matches!(create("a", u64::MAX), Err(RegionError::Size { .. })));
    assert!(matches!(create(&"l".repeat(250), 1), Err(RegionError::Label { bytes: 250 })));
    assert!(matches!(create("a\0b", 1), Err(RegionError::Label { .. })));
    let odd = create(&"l".repeat(249), 1).expect("one byte");
    assert_eq!(odd.map(0..1, Access::ReadWrite).expect("mapped").len(), 1);
    let huge = create("a", 1 << 60).expect_err("more than any machine");
    assert!(matches!(huge, RegionError::NoSpace { .. }), "{huge}");
}

#[test]
fn huge_pages_are_tried_and_what_was_obtained_is_told() {
    let options = RegionOptions::new().huge_pages(true);
    let region = Region::create("huge", 3 << 20, &options).expect("one or the other");
    let pooled = region.page_bytes() > PAGE;
    println!("page size obtained: {}", region.page_bytes());
    assert_eq!(region.total_bytes(), if pooled { 4 << 20 } else { 3 << 20 });
    let bytes = region.map(0..region.total_bytes(), Access::ReadWrite).expect("mapped");
    bytes.fill(0..bytes.len(), 7).expect("in bounds");
    let residency = bytes.residency().expect("smaps");
    assert_eq!(residency.resident_bytes, bytes.len());
    if pooled {
        assert_eq!(residency.huge_bytes, bytes.len());
    }
}

#[test]
fn another_process_reads_what_this_one_wrote() {
    if Role::mine().is_some() {
        let fd = std::io::stdin().as_fd().try_clone_to_owned().expect("a descriptor");
        let region = Region::from_fd(fd).expect("a region");
        assert_eq!(region.access(), Access::ReadOnly);
        let view = region.map(0..region.total_bytes(), Access::ReadOnly).expect("mapped");
        let mut text = [0; 5];
        view.read_into(100, &mut text).expect("in bounds");
        Role::say(std::str::from_utf8(&text).expect("text"));
        return;
    }
    let _watchdog = Watchdog::start("region hand-out");
    let scratch = Scratch::new("region");
    let mut region = region(PAGE);
    let writer = region.map(0..PAGE, Access::ReadWrite).expect("mapped");
    writer.write_from(100, b"hello").expect("in bounds");
    region.seal().expect("Linux 5.1");
    let fd = region.read_only_fd().expect("a descriptor");
    drop((region, writer));
    let test = "region::another_process_reads_what_this_one_wrote";
    let mut command = PeerCommand::new(test, "reader", scratch.directory());
    command.command().stdin(Stdio::from(fd));
    let mut peer = command.spawn();
    peer.expect("hello");
    peer.succeed();
}
