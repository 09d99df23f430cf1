//! Bounded access to mapped bytes.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use proptest::prelude::*;
use shm_core::{Access, Region, RegionOptions, SharedBytes, ViewError};

use crate::sys;

fn bytes(len: usize) -> SharedBytes {
    let region = Region::create("views", len as u64, &RegionOptions::new()).expect("a region");
    region.map(0..len as u64, Access::ReadWrite).expect("a mapping")
}

#[test]
fn atomics_are_shared_between_mappings() {
    let region = Region::create("views", 8192, &RegionOptions::new()).expect("a region");
    let one = region.map(0..8192, Access::ReadWrite).expect("a mapping");
    let two = region.map(4096..8192, Access::ReadOnly).expect("a mapping");
    one.at::<AtomicU32>(4096 + 8).expect("in bounds").store(7, Ordering::Release);
    assert_eq!(sys::load_u32(&two, 8), Ok(7));
    assert_eq!(two.at::<AtomicU32>(8).map(drop), Err(ViewError::ReadOnly));
    assert_eq!(two.write_from(0, &[1]), Err(ViewError::ReadOnly));
    assert_eq!(two.fill(0..1, 1), Err(ViewError::ReadOnly));
    assert_eq!(two.copy_from(0, &one, 0..1), Err(ViewError::ReadOnly));
    assert!(one.is_writable() && !two.is_writable());
    let words = one.slice_at::<[AtomicU16; 2]>(0, 3).expect("in bounds");
    words[2][1].store(0xabcd, Ordering::Relaxed);
    assert_eq!(one.at::<AtomicU8>(11).expect("in bounds").load(Ordering::Relaxed), 0xab);
}

#[test]
fn places_outside_or_askew_are_refused_with_the_numbers() {
    let whole = bytes(4096);
    let view = whole.slice(8..40).expect("in bounds");
    assert_eq!(view.len(), 32);
    assert_eq!(view.as_ptr().addr() - whole.as_ptr().addr(), 8);
    assert_eq!(
        view.at::<AtomicU64>(25).map(drop).expect_err("beyond").to_string(),
        "8 bytes at offset 25 do not lie in the 32 bytes of this view"
    );
    assert_eq!(
        view.at::<AtomicU64>(4).map(drop).expect_err("askew").to_string(),
        "offset 4 is not aligned to the 8 bytes that the type needs"
    );
    for count in [5, usize::MAX / 8, usize::MAX / 8 + 1, usize::MAX] {
        assert!(view.slice_at::<AtomicU64>(0, count).is_err(), "{count}");
    }
    assert!(view.slice_at::<AtomicU64>(32, 0).is_ok_and(<[_]>::is_empty));
    assert!(view.slice_at::<AtomicU64>(33, 0).is_err());
    assert!(view.at::<AtomicU8>(usize::MAX).is_err());
    assert!(view.slice(0..33).is_err());
    #[expect(clippy::reversed_empty_ranges, reason = "to be refused")]
    let reversed = [view.slice(5..4).is_err(), view.fill(5..4, 0).is_err()];
    assert_eq!(reversed, [true, true]);
    assert!(view.read_into(32, &mut [0]).is_err());
    assert!(view.read_into(usize::MAX, &mut [0, 0]).is_err());
    assert!(view.populate(0..33).is_err());
    assert!(view.read_into(32, &mut []).is_ok());
}

#[test]
fn a_view_keeps_its_mapping() {
    let part = {
        let whole = bytes(1 << 16);
        whole.write_from(5000, b"alive").expect("in bounds");
        whole.slice(5000..5005).expect("in bounds")
    };
    let mut read = [MaybeUninit::uninit(); 5];
    part.read_uninit(0, &mut read).expect("in bounds");
    let mut text = [0; 5];
    part.clone().read_into(0, &mut text).expect("in bounds");
    assert_eq!(&text, b"alive");
}

#[test]
fn copies_that_race_with_a_writer_only_mix_what_was_written() {
    let view = bytes(1 << 12);
    let stop = AtomicU8::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut turn = 0u8;
            while stop.load(Ordering::Relaxed) == 0 {
                turn = (turn + 1) % 3;
                view.fill(0..view.len(), [0x11, 0x22, 0x33][usize::from(turn)]).expect("bounds");
            }
        });
        let mut copy = vec![0; view.len()];
        for _ in 0..20_000 {
            view.read_into(0, &mut copy).expect("in bounds");
            assert!(copy.iter().all(|byte| matches!(byte, 0 | 0x11 | 0x22 | 0x33)));
        }
        stop.store(1, Ordering::Relaxed);
    });
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, Vec<u8>),
    Fill(usize, usize, u8),
    Copy(usize, usize, usize),
    Read(usize, usize),
    Byte(usize, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0usize..300;
    prop_oneof![
        (at(), proptest::collection::vec(any::<u8>(), 0..80)).prop_map(|(a, v)| Step::Write(a, v)),
        (at(), at(), any::<u8>()).prop_map(|(a, b, v)| Step::Fill(a, b, v)),
        (at(), at(), at()).prop_map(|(a, b, c)| Step::Copy(a, b, c)),
        (at(), at()).prop_map(|(a, n)| Step::Read(a, n)),
        (at(), any::<u8>()).prop_map(|(a, v)| Step::Byte(a, v)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A view behaves as a vector would, and what a vector would panic at is an error that changes
    /// nothing.
    #[test]
    fn a_view_is_a_vector_with_errors(
        start in 0usize..60,
        len in 0usize..256,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let whole = bytes(4096);
        let view = whole.slice(start..start + len).expect("in bounds");
        let mut model = vec![0u8; len];
        for step in steps {
            match step {
                Step::Write(at, source) => {
                    let there = model.get_mut(at..at + source.len());
                    prop_assert_eq!(view.write_from(at, &source).is_ok(), there.is_some());
                    if let Some(there) = there { there.copy_from_slice(&source); }
                }
                Step::Fill(a, b, value) => {
                    let there = model.get_mut(a..b);
                    prop_assert_eq!(view.fill(a..b, value).is_ok(), there.is_some());
                    if let Some(there) = there { there.fill(value); }
                }
                Step::Copy(to, a, b) => {
                    let fits = a <= b && b <= len && to + (b - a) <= len;
                    prop_assert_eq!(view.copy_from(to, &view, a..b).is_ok(), fits);
                    if fits { model.copy_within(a..b, to); }
                }
                Step::Read(at, n) => {
                    let mut copy = vec![0xee; n];
                    let read = view.read_into(at, &mut copy);
                    match model.get(at..at + n) {
                        Some(there) => prop_assert_eq!(there, &copy[..]),
                        None => prop_assert!(read.is_err() && copy.iter().all(|b| *b == 0xee)),
                    }
                }
                Step::Byte(at, value) => {
                    let there = model.get_mut(at);
                    match (view.at::<AtomicU8>(at), there) {
                        (Ok(byte), Some(there)) => {
                            *there = value;
                            byte.store(value, Ordering::Relaxed);
                        }
                        (byte, there) => prop_assert!(byte.is_err() && there.is_none()),
                    }
                }
            }
        }
        let mut outside = vec![0; 4096];
        whole.read_into(0, &mut outside).expect("in bounds");
        prop_assert_eq!(&outside[start..start + len], &model[..]);
        outside[start..start + len].fill(0);
        prop_assert!(outside.iter().all(|byte| *byte == 0), "stores left the view");
    }
}
