//! Waits: woken by publications, tombstones and successors.

use std::time::Duration;

use shared_tensor::stream::{ReaderOptions, Spin, Stream, StreamOptions, Wait, unlink, wait_any};
use shared_tensor::{DType, ErrorKind};

use crate::support::Scratch;

fn parked() -> ReaderOptions {
    let mut options = ReaderOptions::default();
    options.spin = Spin::Never;
    options
}

#[test]
fn every_publication_wakes_every_waiter() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    for spin in [Spin::Never, Spin::Adaptive, Spin::For(Duration::from_micros(100))] {
        std::thread::scope(|scope| {
            let start = stream.info().count;
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    let mut options = ReaderOptions::default();
                    options.spin = spin;
                    let mut reader = stream.reader_with(options);
                    scope.spawn(move || {
                        let mut count = start;
                        while count < start + 500 {
                            count = reader.wait(count, &Wait::forever()).unwrap();
                        }
                    })
                })
                .collect();
            let mut writer = stream.writer().unwrap();
            for _ in 0..500 {
                writer.write(&[0; 1000]).unwrap();
            }
            for reader in readers {
                reader.join().unwrap();
            }
        });
    }
    stream.unlink().unwrap();
}

#[test]
fn unlink_ends_waits_with_a_typed_error() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    std::thread::scope(|scope| {
        let mut reader = stream.reader_with(parked());
        let waiter = scope.spawn(move || reader.next(&Wait::forever()).unwrap_err());
        while stream.info().participants[0].reader.parks == 0 {
            std::thread::yield_now();
        }
        stream.unlink().unwrap();
        let error = waiter.join().unwrap();
        assert!(error.is_unlinked(), "{error}");
    });
    let mut reader = stream.reader();
    assert_eq!(reader.next(&Wait::forever()).unwrap_err().kind(), ErrorKind::Unlinked);
}

#[test]
fn removal_behind_our_back_is_noticed() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let path = scratch.path_of(&shared_tensor::shm::SegmentName::new("a").unwrap());
    std::fs::remove_file(path).unwrap();
    let mut reader = stream.reader_with(parked());
    assert!(reader.next(&Wait::forever()).unwrap_err().is_unlinked());
}

#[test]
fn a_reader_may_follow_the_name() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut options = parked();
    options.reattach = true;
    let mut reader = stream.reader_with(options);
    stream.writer().unwrap().write(&[1; 1000]).unwrap();
    assert_eq!(reader.next(&Wait::forever()).unwrap().bytes(), [1; 1000]);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(move || {
            let frame = reader.next(&Wait::forever()).unwrap();
            (reader, frame)
        });
        stream.unlink().unwrap();
        let successor = scratch.small().create("a").unwrap();
        successor.writer().unwrap().write(&[2; 1000]).unwrap();
        let (mut reader, frame) = waiter.join().unwrap();
        assert_eq!((frame.bytes(), frame.publication().count), (&[2; 1000][..], 1));
        successor.unlink().unwrap();
        let other = StreamOptions::new(DType::U8, [7]).namespace(scratch.clone());
        let other = other.create("a").unwrap();
        assert_eq!(reader.next(&Wait::forever()).unwrap_err().kind(), ErrorKind::Changed);
        other.unlink().unwrap();
    });
}

#[test]
fn a_reader_that_follows_the_name_is_told_of_its_successor_among_others() {
    let scratch = Scratch::new();
    let (stream, other) =
        (scratch.small().create("a").unwrap(), scratch.small().create("b").unwrap());
    let mut options = parked();
    options.reattach = true;
    let (mut follower, mut other_reader) = (stream.reader_with(options), other.reader());
    let first = follower.generation();
    stream.unlink().unwrap();
    let soon = Wait::for_at_most(Duration::from_millis(10));
    let error = wait_any(&mut [&mut other_reader, &mut follower], &soon).unwrap_err();
    assert!(error.is_timeout(), "an unlinked stream without a successor is no news: {error}");
    let successor = scratch.small().create("a").unwrap();
    successor.writer().unwrap().write(&[2; 1000]).unwrap();
    let mut readers = [&mut other_reader, &mut follower];
    assert_eq!(wait_any(&mut readers, &Wait::forever()).unwrap(), 1);
    assert_ne!(follower.generation(), first);
    assert_eq!(follower.generation(), successor.generation());
    assert_eq!(follower.stream().count(), 1);
    assert_eq!(follower.next(&Wait::forever()).unwrap().bytes(), [2; 1000]);
    successor.unlink().unwrap();
    other.unlink().unwrap();
}

#[test]
fn any_of_several_streams() {
    let scratch = Scratch::new();
    let streams: Vec<_> = ["a", "b", "c"].map(|name| scratch.small().create(name).unwrap()).into();
    let mut readers: Vec<_> = streams.iter().map(Stream::reader).collect();
    let mut readers: Vec<&mut _> = readers.iter_mut().collect();
    let soon = Wait::for_at_most(Duration::from_millis(10));
    assert!(wait_any(&mut readers, &soon).unwrap_err().is_timeout());
    for (index, stream) in streams.iter().enumerate() {
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                while stream.info().participants[0].reader.frames < index as u64 {
                    std::thread::yield_now();
                }
                stream.writer().unwrap().write(&[3; 1000]).unwrap();
            });
            assert_eq!(wait_any(&mut readers, &Wait::forever()).unwrap(), index);
            publisher.join().unwrap();
            readers[index].latest().unwrap();
            for other in &streams {
                other.writer().unwrap().write(&[0; 1000]).unwrap();
            }
            for reader in &mut readers {
                reader.latest().unwrap();
            }
        });
    }
    for name in ["a", "b", "c"] {
        unlink(&scratch, name).unwrap();
    }
    assert_eq!(wait_any(&mut readers, &Wait::forever()).unwrap(), 0, "unlinked counts as news");
    assert!(wait_any(&mut [], &Wait::forever()).is_err());
}

#[test]
fn the_longest_wait_is_no_overflow() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    for longest in [Duration::from_nanos(u64::MAX), Duration::MAX] {
        std::thread::scope(|scope| {
            let mut reader = stream.reader_with(parked());
            let parks = stream.info().participants[0].reader.parks;
            let mut lone = stream.reader_with(parked());
            let any = scope
                .spawn(move || wait_any(&mut [&mut reader], &Wait::for_at_most(longest)).unwrap());
            let one = scope.spawn(move || lone.next(&Wait::for_at_most(longest)).unwrap());
            while stream.info().participants[0].reader.parks == parks {
                std::thread::yield_now();
            }
            stream.writer().unwrap().write(&[1; 1000]).unwrap();
            assert_eq!(any.join().unwrap(), 0);
            one.join().unwrap();
        });
    }
    stream.unlink().unwrap();
}

#[test]
fn a_spinning_wait_keeps_its_deadline_and_can_be_interrupted() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut options = ReaderOptions::default();
    options.spin = Spin::For(Duration::MAX);
    let mut reader = stream.reader_with(options);
    let wait = Wait::for_at_most(Duration::from_millis(10));
    assert_eq!(reader.next(&wait).unwrap_err().kind(), ErrorKind::Timeout);
    let wait = Wait::forever().interruptible(&|| true);
    assert_eq!(reader.next(&wait).unwrap_err().kind(), ErrorKind::Interrupted);
    stream.unlink().unwrap();
}
