//! Rings under load: whole frames, no starving, at every number of slots.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shared_tensor::DType;
use shared_tensor::stream::{OnFull, Stamp, StreamOptions, Wait};

use crate::support::{Scratch, watchdog};

/// A frame that tells whether it is whole: every word is its number.
fn is_whole(bytes: &[u8]) -> bool {
    bytes.as_chunks::<8>().0.iter().all(|word| word == &bytes[..8])
}

#[test]
fn readers_and_writers_of_every_ring_see_whole_frames() {
    const WORDS: u64 = 4096;
    let scratch = Scratch::new();
    for slots in [1, 2, 3, 4, 8] {
        let options = StreamOptions::new(DType::U64, [WORDS]).namespace(scratch.clone());
        let stream = options.slots(slots).create("a").unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for writer in 0..2 {
                let (stream, stop) = (&stream, &stop);
                scope.spawn(move || {
                    let mut writer_handle = stream.writer().unwrap();
                    let mut number: u64 = writer;
                    while !stop.load(Ordering::Relaxed) {
                        number += 2;
                        writer_handle.write_slice(&vec![number; WORDS as usize]).unwrap();
                    }
                });
            }
            let readers: Vec<_> = (0..3)
                .map(|kind| {
                    let stream = &stream;
                    scope.spawn(move || {
                        let mut reader = stream.reader();
                        reader.wait(0, &watchdog()).unwrap();
                        let mut last = 0;
                        for _ in 0..300 {
                            let bytes = match kind {
                                0 => reader.latest().unwrap().into_bytes(),
                                1 => reader.next(&watchdog()).unwrap().into_bytes(),
                                _ => {
                                    let lease = reader.lease(OnFull::Copy).unwrap();
                                    let mut out = vec![0; lease.len()];
                                    lease.copy_to(&mut out).unwrap();
                                    out
                                }
                            };
                            assert!(is_whole(&bytes), "K = {slots}, reader {kind}");
                            assert!(reader.last_count() >= last, "counts never fall");
                            last = reader.last_count();
                        }
                    })
                })
                .collect();
            for reader in readers {
                reader.join().unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        stream.unlink().unwrap();
    }
}

#[test]
fn two_processes_worth_of_locks_order_writers() {
    let scratch = Scratch::new();
    let first = scratch.small().create("a").unwrap();
    let second = scratch.small().create("b").unwrap();
    let mut a = first.writer().unwrap();
    let mut b = second.writer().unwrap();
    let mut other = first.writer().unwrap();
    {
        let writers: [&mut _; 2] = [&mut b, &mut a];
        let mut locked = shared_tensor::stream::locked_many(writers, &Wait::forever()).unwrap();
        locked[0].write(&[1; 1000], &Stamp::default()).unwrap();
        locked[1].write(&[2; 1000], &Stamp::default()).unwrap();
        let soon = Wait::for_at_most(Duration::from_millis(10));
        let error = other.lock(&soon).unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("`a`"), "{error}");
    }
    assert_eq!(second.reader().latest().unwrap().bytes(), [1; 1000]);
    assert_eq!(first.reader().latest().unwrap().bytes(), [2; 1000]);
    let error =
        shared_tensor::stream::locked_many([&mut a, &mut other], &Wait::forever()).unwrap_err();
    assert!(error.to_string().contains("one writer for each stream"), "{error}");
    first.unlink().unwrap();
    second.unlink().unwrap();
}

#[test]
fn large_frames_are_copied_whole_by_two() {
    let scratch = Scratch::new();
    let bytes = (9 << 20) + 136;
    let options = StreamOptions::new(DType::U8, [bytes]).namespace(scratch.clone());
    let stream = options.create("large").unwrap();
    let mut writer = stream.writer().unwrap();
    let mut reader = stream.reader();
    let mut out = vec![0; bytes as usize];
    for step in 0..40_u64 {
        let frame: Vec<u8> =
            (0..bytes).map(|index| (index.wrapping_mul(31) >> 3) as u8 ^ step as u8).collect();
        writer.write(&frame).unwrap();
        if step % 2 == 0 {
            reader.read_into(&mut out).unwrap();
            assert!(out == frame, "step {step}");
        } else {
            assert!(reader.latest().unwrap().bytes() == frame, "step {step}");
        }
    }
    stream.unlink().unwrap();
}
