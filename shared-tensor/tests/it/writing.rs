//! Readers that wait for a write in progress, and readers that fail on an unfinished one.

use std::time::{Duration, Instant};

use shared_tensor::ErrorKind;
use shared_tensor::stream::{
    Bell, Contents, OnAbort, OnEmpty, OnWriting, Reader, ReaderOptions, Stamp, Stream, Wait,
    wait_any, wait_any_or_bell,
};

use crate::support::Scratch;

/// As the contract of the compatible Python module has it.
fn strict(stream: &Stream) -> Reader {
    stream.reader_with(
        ReaderOptions::new()
            .on_abort(OnAbort::Raise)
            .on_writing(OnWriting::Wait)
            .on_empty(OnEmpty::Zeros),
    )
}

fn parks(stream: &Stream) -> u64 {
    stream.info().participants[0].reader.parks
}

#[test]
fn a_write_in_progress_is_waited_for() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut held = stream.writer().unwrap().lock_owned(&Wait::forever()).unwrap();
    held.write(&[1; 1000], &Stamp::default()).unwrap();
    held.begin(Contents::Fresh).unwrap();
    held.write_at(0, &[2; 1000]).unwrap();
    let late = Wait::until(Instant::now());
    let error = strict(&stream).latest_with(&late).unwrap_err();
    assert!(error.is_timeout() && error.to_string().contains("stable write"), "{error}");
    assert_eq!(stream.reader().latest_with(&late).unwrap().bytes()[0], 1, "others do not wait");
    std::thread::scope(|scope| {
        let before = parks(&stream);
        let reader = scope.spawn(|| strict(&stream).latest_with(&Wait::forever()).unwrap());
        while parks(&stream) == before {
            std::thread::yield_now();
        }
        held.publish(&Stamp::default()).unwrap();
        assert_eq!(reader.join().unwrap().bytes()[0], 2);
    });
    stream.unlink().unwrap();
}

#[test]
fn a_writer_that_never_pauses_starves_nobody() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut held = stream.writer().unwrap().lock_owned(&Wait::forever()).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                held.write(&[1; 1000], &Stamp::default()).unwrap();
            }
        });
        let mut reader = strict(&stream);
        let mut out = [0; 1000];
        for _ in 0..2_000 {
            reader.read_into_with(&mut out, &Wait::forever()).unwrap();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    stream.unlink().unwrap();
}

#[test]
fn an_unfinished_write_fails_strict_readers_and_ends_their_waits() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut writer = stream.writer().unwrap();
    writer.write(&[1; 1000]).unwrap();
    drop(writer.write_view(Contents::Fresh, &Wait::forever()).unwrap());
    let mut reader = strict(&stream);
    assert_eq!(reader.latest().unwrap_err().kind(), ErrorKind::Inconsistent);
    assert_eq!(wait_any(&mut [&mut reader], &Wait::forever()).unwrap(), 0);
    writer.write(&[2; 1000]).unwrap();
    assert_eq!(reader.latest().unwrap().bytes()[0], 2);
    stream.unlink().unwrap();
}

#[test]
fn a_bell_ends_a_wait_that_goes_on_and_the_next_one() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let bell = Bell::new();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut reader = stream.reader();
            wait_any_or_bell(&mut [&mut reader], &bell, &Wait::forever()).unwrap()
        });
        bell.ring();
        assert_eq!(waiter.join().unwrap(), None);
    });
    bell.ring();
    assert_eq!(wait_any_or_bell(&mut [], &bell, &Wait::forever()).unwrap(), None);
    let soon = Wait::for_at_most(Duration::from_millis(5));
    assert!(wait_any_or_bell(&mut [], &bell, &soon).unwrap_err().is_timeout(), "rung once");
    stream.unlink().unwrap();
}

#[test]
fn a_file_removed_by_hand_ends_the_wait_on_several() {
    let scratch = Scratch::new();
    let (first, second) =
        (scratch.small().create("a").unwrap(), scratch.small().create("b").unwrap());
    let (mut one, mut two) = (first.reader(), second.reader());
    std::fs::remove_file(format!("/dev/shm/{}b", scratch.prefix())).unwrap();
    assert_eq!(wait_any(&mut [&mut one, &mut two], &Wait::forever()).unwrap(), 1);
    first.unlink().unwrap();
}
