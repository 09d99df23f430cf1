//! Leases: in place, unchanging, within the budget, never in the way of a writer.

use std::time::Duration;

use shared_tensor::stream::{Contents, OnFull, Stamp, StreamOptions, Wait};
use shared_tensor::{DType, ErrorKind};

use crate::support::Scratch;

#[test]
fn a_leased_frame_does_not_change_and_writers_go_on() {
    let scratch = Scratch::new();
    for slots in 3..=8 {
        let stream = scratch.small().slots(slots).create("a").unwrap();
        let budget = stream.info().leases_max;
        let mut writer = stream.writer().unwrap();
        let mut reader = stream.reader();
        let mut leases = Vec::new();
        for value in 0..200_u8 {
            writer.write(&[value; 1000]).unwrap();
            if leases.len() <= budget {
                leases.push((value, reader.lease(OnFull::Copy).unwrap()));
            }
            for (index, (value, lease)) in leases.iter().enumerate() {
                assert_eq!(lease.is_copy(), index >= budget, "K = {slots}, lease {index}");
                assert!(!lease.is_revoked());
                let mut out = [0; 1000];
                lease.copy_to(&mut out).unwrap();
                assert_eq!(out, [*value; 1000], "K = {slots}");
            }
        }
        assert_eq!(stream.info().participants[0].leases as usize, budget);
        leases.clear();
        assert_eq!(stream.info().participants[0].leases, 0);
        assert!(!reader.lease(OnFull::Copy).unwrap().is_copy(), "the budget is free again");
        stream.unlink().unwrap();
    }
}

#[test]
fn views_of_one_frame_share_its_slot() {
    let scratch = Scratch::new();
    let stream = scratch.small().slots(3).create("a").unwrap();
    let mut writer = stream.writer().unwrap();
    writer.write(&[1; 1000]).unwrap();
    let mut reader = stream.reader();
    let leases: Vec<_> = (0..5).map(|_| reader.lease(OnFull::Copy).unwrap()).collect();
    assert!(leases.iter().all(|lease| !lease.is_copy()));
    let pointer = leases[0].as_ptr();
    assert!(leases.iter().all(|lease| lease.as_ptr() == pointer));
    writer.write(&[2; 1000]).unwrap();
    drop(leases);
    writer.write(&[3; 1000]).unwrap();
    writer.write(&[4; 1000]).unwrap();
    assert_eq!(reader.latest().unwrap().bytes(), [4; 1000]);
    stream.unlink().unwrap();
}

#[test]
fn a_full_budget_waits_or_revokes_as_asked() {
    let scratch = Scratch::new();
    let stream = scratch.small().slots(4).create("a").unwrap();
    let mut writer = stream.writer().unwrap();
    let mut reader = stream.reader();
    writer.write(&[1; 1000]).unwrap();
    let first = reader.lease(OnFull::Copy).unwrap();
    writer.write(&[2; 1000]).unwrap();
    let error = reader.lease(OnFull::Wait(Duration::from_millis(10))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let says = error.to_string();
    assert!(says.contains("no slot came free to lease"), "{says}");
    assert!(says.contains("4 slots lends 1 at once, and 1 are leased"), "{says}");
    assert!(!first.is_revoked());
    let second = reader.lease(OnFull::Revoke).unwrap();
    assert!(!second.is_copy() && !second.is_revoked());
    assert!(first.is_revoked(), "its holder is told");
    assert_eq!(first.copy_to(&mut [0; 1000]).unwrap_err().kind(), ErrorKind::Inconsistent);
    for value in 3..=9 {
        writer.write(&[value; 1000]).unwrap();
    }
    drop(first);
    let mut out = [0; 1000];
    second.copy_to(&mut out).unwrap();
    assert_eq!(out, [2; 1000], "dropping the revoked lease did not release the other");
    assert_eq!(stream.info().participants[0].reader.leases_revoked, 1);
    drop(second);
    stream.unlink().unwrap();
}

#[test]
fn a_lease_outlives_reader_stream_and_name() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    stream.writer().unwrap().write(&[5; 1000]).unwrap();
    let lease = stream.reader().lease(OnFull::Copy).unwrap();
    stream.unlink().unwrap();
    drop(stream);
    let mut out = [0; 1000];
    lease.copy_to(&mut out).unwrap();
    assert_eq!(out, [5; 1000]);
    assert_eq!(lease.shared_bytes().unwrap().unwrap().len(), 1000);
}

#[test]
fn rings_too_small_to_lease_from_say_so() {
    let scratch = Scratch::new();
    for slots in [1, 2] {
        let stream = scratch.small().slots(slots).create("a").unwrap();
        assert!(stream.info().warnings.iter().any(|warning| warning.contains("leased")));
        stream.writer().unwrap().write(&[1; 1000]).unwrap();
        // There is nothing to wait for and nothing to take away.
        for on_full in [OnFull::Copy, OnFull::Revoke, OnFull::Wait(Duration::from_secs(60))] {
            assert!(stream.reader().lease(on_full).unwrap().is_copy(), "{on_full:?}");
        }
        stream.unlink().unwrap();
    }
}

/// Threads of one process have one pin bit per slot between them: a copy's pin must not be taken for
/// that of a lease whose frame is gone.
#[test]
fn leases_and_copies_of_one_process_do_not_mix() {
    const WORDS: usize = 8192;
    const FRAMES: u64 = 20_000;
    let scratch = Scratch::new();
    let options = StreamOptions::new(DType::U64, [WORDS as u64]).namespace(scratch.clone());
    let stream = options.slots(3).create("a").unwrap();
    let is_frame = |bytes: &[u8], count: u64| {
        bytes.as_chunks::<8>().0.iter().all(|word| u64::from_ne_bytes(*word) == count)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = stream.writer().unwrap();
            for _ in 0..FRAMES {
                let mut view = writer.write_view(Contents::Fresh, &Wait::forever()).unwrap();
                let word = view.count().to_ne_bytes();
                view.write_at(0, &word.repeat(WORDS)).unwrap();
                view.publish(&Stamp::default()).unwrap();
            }
        });
        for leases in [true, true, false, false] {
            let stream = &stream;
            scope.spawn(move || {
                let mut reader = stream.reader();
                let mut out = vec![0; WORDS * 8];
                reader.wait(0, &Wait::forever()).unwrap();
                while reader.last_count() < FRAMES {
                    let count = if leases {
                        let lease = reader.lease(OnFull::Copy).unwrap();
                        lease.copy_to(&mut out).unwrap();
                        lease.publication().count
                    } else {
                        reader.read_into(&mut out).unwrap().count
                    };
                    assert!(is_frame(&out, count), "frame {count}, lease {leases}");
                }
            });
        }
    });
    assert_eq!(stream.info().participants[0].leases, 0);
    stream.unlink().unwrap();
}
