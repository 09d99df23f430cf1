//! Pages on request: populated, locked, huge, in the background, and what was obtained.

use shm_core::{Access, Populate, Region, RegionOptions, SegmentOptions, SharedBytes, ViewError};

use crate::harness::{KIND, PAGE, Scratch, Watchdog, alone, name, skip};
use crate::sys;

const HUGE: usize = 2 << 20;

fn segment_of(scratch: &Scratch, bytes: usize) -> SharedBytes {
    let segment = SegmentOptions::new(KIND, bytes as u64)
        .create(scratch.namespace(), &name("pages"), |_| Ok(()))
        .expect("room");
    segment.unlink().expect("removed");
    segment.map(0..bytes as u64, Access::ReadWrite).expect("mapped")
}

fn resident(bytes: &SharedBytes) -> usize {
    bytes.residency().expect("smaps").resident_bytes
}

#[test]
fn populating_faults_in_what_was_asked_for_and_no_more() {
    let scratch = Scratch::new("pages");
    let page = PAGE as usize;
    let bytes = segment_of(&scratch, 64 * page);
    assert_eq!(resident(&bytes), 0, "reserved, not touched");
    let obtained = bytes.populate(10 * page + 1..12 * page).expect("in bounds");
    if !obtained.is_complete() {
        return skip("populate", &format!("{:?}", obtained.refusal));
    }
    assert_eq!(resident(&bytes), 2 * page);
    let part = bytes.slice(20 * page..30 * page).expect("in bounds");
    assert!(part.populate(0..part.len()).expect("in bounds").is_complete());
    assert_eq!(resident(&bytes), 12 * page);
    assert!(bytes.populate(0..0).expect("in bounds").is_complete());
    assert!(matches!(bytes.populate(0..64 * page + 1), Err(ViewError::Range { .. })));
}

#[test]
fn locked_pages_are_reported_and_a_refusal_says_why() {
    let scratch = Scratch::new("pages");
    let page = PAGE as usize;
    let bytes = segment_of(&scratch, 16 * page);
    let obtained = bytes.lock(4 * page..6 * page).expect("in bounds");
    let residency = bytes.slice(4 * page..6 * page).expect("in bounds");
    if obtained.is_complete() {
        assert_eq!(residency.residency().expect("smaps").locked_bytes, 2 * page);
    } else {
        let refusal = obtained.refusal.expect("a reason").to_string();
        assert!(refusal.starts_with("mlock: ") && refusal.contains("ulimit -l"), "{refusal}");
    }
}

#[test]
fn collapsing_puts_a_stock_segment_on_huge_pages_and_keeps_its_bytes() {
    let scratch = Scratch::new("pages");
    let bytes = segment_of(&scratch, 4 * HUGE + 4096);
    let marks: Vec<_> = (0..bytes.len()).step_by(HUGE / 4).collect();
    for &at in &marks {
        bytes.write_from(at, &(at as u32).to_le_bytes()).expect("in bounds");
    }
    let obtained = bytes.collapse(0..bytes.len()).expect("in bounds");
    assert_eq!(obtained.asked_bytes, 4 * HUGE, "the mapping is aligned for whole huge pages");
    let residency = bytes.residency().expect("smaps");
    println!("collapse: {obtained:?}, {residency:?}");
    // The kernel's own account must say the same as the report.
    assert_eq!(residency.huge_bytes, obtained.obtained_bytes);
    for &at in &marks {
        let mut read = [0; 4];
        bytes.read_into(at, &mut read).expect("in bounds");
        assert_eq!(u32::from_le_bytes(read) as usize, at);
    }
    if !obtained.is_complete() {
        return skip("huge pages", &obtained.refusal.expect("a reason").to_string());
    }
    // A range inside one huge page asks for that page.
    let part = bytes.slice(HUGE + 5..HUGE + 6).expect("in bounds");
    assert_eq!(part.collapse(0..1).expect("in bounds").asked_bytes, HUGE);
    assert_eq!(part.collapse(1..1).expect("in bounds").asked_bytes, 0);
}

#[test]
fn a_mapping_that_starts_inside_the_file_still_gets_huge_pages() {
    let scratch = Scratch::new("pages");
    let segment = SegmentOptions::new(KIND, 4 * HUGE as u64)
        .create(scratch.namespace(), &name("offset"), |_| Ok(()))
        .expect("room");
    segment.unlink().expect("removed");
    let bytes = segment.map(PAGE..4 * HUGE as u64, Access::ReadWrite).expect("mapped");
    let obtained = bytes.collapse(0..bytes.len()).expect("in bounds");
    assert_eq!(obtained.asked_bytes, 3 * HUGE, "all but the first, of which a page is missing");
    assert_eq!(bytes.residency().expect("smaps").huge_bytes, obtained.obtained_bytes);
}

#[test]
fn the_background_keeps_the_order_and_reports() {
    let _watchdog = Watchdog::start("populator");
    let scratch = Scratch::new("pages");
    let bytes = segment_of(&scratch, 3 * HUGE);
    let ranges = vec![2 * HUGE..3 * HUGE, 0..HUGE];
    let populate = Populate::new(bytes.clone()).ranges(ranges).expect("in bounds");
    let report = populate.huge_pages(true).spawn().expect("a thread").wait();
    println!("background: {report:?}");
    assert!(report.finished);
    assert_eq!(report.collapsed.asked_bytes, 2 * HUGE);
    let residency = bytes.residency().expect("smaps");
    assert_eq!(residency.huge_bytes, report.collapsed.obtained_bytes);
    if report.populated.refusal.is_none() {
        assert_eq!(report.populated.obtained_bytes, 2 * HUGE);
        assert_eq!(residency.resident_bytes, 2 * HUGE, "the middle was not asked for");
    }
    assert!(Populate::new(bytes).ranges(std::iter::once(0..3 * HUGE + 1)).is_err());
}

#[test]
fn a_dropped_populator_stops_early() {
    let _watchdog = Watchdog::start("populator drop");
    let region = Region::create("stop", 256 << 20, &RegionOptions::new()).expect("room");
    let bytes = region.map(0..256 << 20, Access::ReadWrite).expect("mapped");
    // The same range again and again: far more than the time until the stop allows.
    let ranges = vec![0..bytes.len(); 10_000];
    let populator =
        Populate::new(bytes).ranges(ranges).expect("in bounds").spawn().expect("a thread");
    while populator.report().populated.asked_bytes == 0 {
        std::thread::yield_now();
    }
    let report = populator.stop();
    assert!(!report.finished && report.populated.asked_bytes > 0, "{report:?}");
}

#[test]
fn a_forked_child_drops_its_parents_populator_without_waiting() {
    alone("pages::a_forked_child_drops_its_parents_populator_without_waiting", || {
        let _watchdog = Watchdog::start("populator fork");
        let region = Region::create("fork", 64 << 20, &RegionOptions::new()).expect("room");
        let bytes = region.map(0..64 << 20, Access::ReadWrite).expect("mapped");
        let ranges = vec![0..bytes.len(); 10_000];
        let populate = Populate::new(bytes).ranges(ranges).expect("in bounds");
        let populator = populate.spawn().expect("a thread");
        // In the child's copy of memory the option becomes empty, in the parent's it does not.
        let mut inherited = Some(populator);
        let ended = sys::in_forked_child(|| {
            drop(inherited.take());
            true
        });
        assert!(ended, "the child dropped it and ended");
        assert!(!inherited.expect("the parent's copy").stop().finished);
    });
}
