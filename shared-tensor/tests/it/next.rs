//! Next in order: nothing twice, nothing out of order, what is missing is counted.

use std::time::Duration;

use shared_tensor::ErrorKind;
use shared_tensor::stream::Wait;

use crate::support::Scratch;

#[test]
fn frames_come_in_order_while_the_ring_has_them() {
    let scratch = Scratch::new();
    let stream = scratch.small().slots(4).create("a").unwrap();
    let mut writer = stream.writer().unwrap();
    let mut reader = stream.reader();
    for value in 1..=3 {
        writer.write(&[value; 1000]).unwrap();
    }
    for value in 1..=3 {
        let frame = reader.next(&Wait::forever()).unwrap();
        assert_eq!(frame.bytes(), [value; 1000]);
        assert_eq!((frame.publication().count, frame.publication().missed), (u64::from(value), 0));
    }
    for value in 4..=13 {
        writer.write(&[value; 1000]).unwrap();
    }
    let frame = reader.next(&Wait::forever()).unwrap();
    assert_eq!((frame.publication().count, frame.publication().missed), (10, 6));
    assert_eq!(reader.missed_total(), 6);
    reader.seek(0);
    assert_eq!(reader.next(&Wait::forever()).unwrap().publication().count, 10);
    let frame = reader.next_after(12, &Wait::forever()).unwrap();
    assert_eq!(frame.bytes(), [13; 1000]);
    stream.unlink().unwrap();
}

#[test]
fn looking_back_does_not_move_the_reader_nor_count_twice() {
    let scratch = Scratch::new();
    let stream = scratch.small().slots(4).create("a").unwrap();
    let mut writer = stream.writer().unwrap();
    let mut reader = stream.reader();
    for value in 1..=10 {
        writer.write(&[value; 1000]).unwrap();
    }
    let forever = Wait::forever();
    assert_eq!(reader.next(&forever).unwrap().publication().missed, 6);
    assert_eq!(reader.next(&forever).unwrap().publication().count, 8);
    let back = reader.next_after(2, &forever).unwrap();
    assert_eq!((back.publication().count, back.publication().missed), (7, 4));
    assert_eq!((reader.last_count(), reader.missed_total()), (8, 6));
    assert_eq!(reader.next(&forever).unwrap().publication().count, 9);
    assert_eq!(reader.wait_new(&forever).unwrap(), 10);
    stream.unlink().unwrap();
}

#[test]
fn latest_counts_what_it_skipped() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut writer = stream.writer().unwrap();
    writer.write(&[1; 1000]).unwrap();
    let mut reader = stream.reader();
    for value in 2..=6 {
        writer.write(&[value; 1000]).unwrap();
    }
    let mut out = [0; 1000];
    assert_eq!(reader.read_into(&mut out).unwrap().missed, 4);
    assert_eq!(reader.read_into(&mut out).unwrap().missed, 0, "the same frame again");
    assert_eq!((reader.last_count(), reader.missed_total(), out[0]), (6, 4, 6));
    stream.unlink().unwrap();
}

#[test]
fn a_deadline_ends_the_wait() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut reader = stream.reader();
    let error = reader.next(&Wait::for_at_most(Duration::from_millis(20))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("stream `a`"), "{error}");
    let interrupted = || true;
    let error = reader.next(&Wait::forever().interruptible(&interrupted)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    stream.unlink().unwrap();
}
