//! A lock held by a value.

use shared_tensor::ErrorKind;
use shared_tensor::stream::{Contents, Phase, Stamp, Wait};

use crate::support::Scratch;

#[test]
fn it_outlives_its_writer_and_moves_between_threads() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut held = stream.writer().unwrap().lock_owned(&Wait::forever()).unwrap();
    let held = std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            assert_eq!(held.write(&[1; 1000], &Stamp::frame_id(7)).unwrap(), 1);
            held
        });
        other.join().unwrap()
    });
    let now = Wait::until(std::time::Instant::now());
    assert!(stream.writer().unwrap().lock(&now).unwrap_err().is_timeout(), "still held");
    drop(held);
    drop(stream.writer().unwrap().lock(&now).unwrap());
    assert_eq!(stream.reader().latest().unwrap().publication().frame_id, 7);
    stream.unlink().unwrap();
}

#[test]
fn one_frame_is_open_at_a_time() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut reader = stream.reader();
    let mut held = stream.writer().unwrap().lock_owned(&Wait::forever()).unwrap();
    held.write(&[1; 1000], &Stamp::default()).unwrap();
    let refused = held.publish(&Stamp::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert_eq!(held.begin(Contents::Previous).unwrap(), 2);
    held.write_at(10, &[2; 10]).unwrap();
    for nested in [
        held.begin(Contents::Fresh).unwrap_err(),
        held.write(&[3; 1000], &Stamp::default()).unwrap_err(),
        held.clear(&Stamp::default()).unwrap_err(),
    ] {
        assert!(nested.to_string().contains("nested"), "{nested}");
    }
    assert_eq!(reader.latest().unwrap().publication().count, 1, "readers go on");
    assert_eq!(held.publish(&Stamp::default()).unwrap(), 2);
    let frame = reader.latest().unwrap();
    assert_eq!((frame.bytes()[9], frame.bytes()[10], frame.bytes()[20]), (1, 2, 1));
    assert_eq!(held.clear(&Stamp::default()).unwrap(), 3);
    assert!(reader.latest().unwrap().bytes().iter().all(|&byte| byte == 0));
    stream.unlink().unwrap();
}

#[test]
fn what_is_open_when_it_is_dropped_is_given_up() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    for gives_up_itself in [true, false] {
        let mut held = stream.writer().unwrap().lock_owned(&Wait::forever()).unwrap();
        held.begin(Contents::Fresh).unwrap();
        assert!(held.as_mut_ptr().is_some());
        assert_eq!(stream.info().phase, Phase::Writing);
        if gives_up_itself {
            held.abort();
            assert!(held.as_mut_ptr().is_none());
        } else {
            drop(held);
        }
        assert_eq!((stream.info().phase, stream.info().count), (Phase::Aborted, 0));
    }
    assert_eq!(stream.info().writer.aborts, 2);
    stream.unlink().unwrap();
}
