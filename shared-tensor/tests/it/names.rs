//! Names: creation, discovery, removal, and what stands in the way.

use std::time::Duration;

use shared_tensor::stream::{OpenOptions, Stamp, Wait, list, purge, stat, unlink};
use shared_tensor::{DType, ErrorKind};

use crate::support::Scratch;

#[test]
fn create_open_list_unlink() {
    let scratch = Scratch::new();
    let open = OpenOptions::new().namespace(scratch.clone());
    assert_eq!(open.open("a/b ü").unwrap_err().kind(), ErrorKind::NotFound);
    let stream = scratch.small().create("a/b ü").unwrap();
    assert_eq!(scratch.small().create("a/b ü").unwrap_err().kind(), ErrorKind::AlreadyExists);
    let again = open.open("a/b ü").unwrap();
    assert_eq!((again.dtype(), again.shape().dimensions()), (DType::U8, &[1000][..]));
    assert_eq!(again.generation(), stream.generation());
    scratch.small().create("b").unwrap();
    assert_eq!(list(&scratch).unwrap(), ["a/b ü", "b"]);
    stream.writer().unwrap().write(&[1; 1000]).unwrap();
    let info = stat(&scratch, "a/b ü").unwrap();
    assert_eq!((info.count, info.slots, info.frame_bytes), (1, 8, 1000));
    assert!(unlink(&scratch, "b").unwrap());
    assert!(!unlink(&scratch, "b").unwrap(), "absent is told apart");
    assert!(!again.is_unlinked());
    assert!(stream.unlink().unwrap());
    assert!(again.is_unlinked());
    assert!(!stream.unlink().unwrap());
    assert_eq!(again.reader().latest().unwrap().bytes(), [1; 1000], "handles keep their memory");
}

#[test]
fn purging_spares_the_living_and_can_be_tried_first() {
    let scratch = Scratch::new();
    let live = scratch.small().create("live").unwrap();
    drop(scratch.small().create("left").unwrap());
    assert_eq!(purge(&scratch, false, true).unwrap(), ["left"]);
    assert_eq!(list(&scratch).unwrap(), ["left", "live"], "a dry run removes nothing");
    assert_eq!(purge(&scratch, false, false).unwrap(), ["left"]);
    assert_eq!(list(&scratch).unwrap(), ["live"]);
    assert_eq!(purge(&scratch, true, false).unwrap(), ["live"]);
    let error = live.reader().next(&Wait::forever()).unwrap_err();
    assert!(error.is_unlinked(), "who waits is told: {error}");
}

#[test]
fn impossible_requests_name_what_would_work() {
    let scratch = Scratch::new();
    for (name, shape) in [("", vec![1]), ("  ", vec![1]), ("a\0b", vec![1]), ("a", vec![])] {
        let options = shared_tensor::stream::StreamOptions::new(DType::U8, shape);
        let error = options.namespace(scratch.clone()).create(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    let error = scratch.small().group(u32::MAX).create("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    for slots in [0, 25] {
        let error = scratch.small().slots(slots).create("a").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("1 to 24"), "{error}");
    }
}

#[test]
fn open_or_create_checks_what_it_finds() {
    let scratch = Scratch::new();
    let stream = scratch.small().open_or_create("a").unwrap();
    let again = scratch.small().open_or_create("a").unwrap();
    assert_eq!(stream.generation(), again.generation());
    let other = shared_tensor::stream::StreamOptions::new(DType::F32, [10]);
    let error = other.namespace(scratch.clone()).open_or_create("a").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
    assert!(error.to_string().contains("uint8[1000], not float32[10]"), "{error}");
    stream.unlink().unwrap();
}

#[test]
fn a_stale_handle_does_not_remove_its_successor() {
    let scratch = Scratch::new();
    let old = scratch.small().create("a").unwrap();
    assert!(unlink(&scratch, "a").unwrap());
    let new = scratch.small().create("a").unwrap();
    assert_eq!(old.unlink().unwrap_err().kind(), ErrorKind::Changed);
    assert_eq!(list(&scratch).unwrap(), ["a"]);
    new.unlink().unwrap();
}

#[test]
fn opening_can_wait_for_creation() {
    let scratch = Scratch::new();
    let open = OpenOptions::new().namespace(scratch.clone());
    let soon = Wait::for_at_most(Duration::from_millis(10));
    assert_eq!(open.open_when_created("a", &soon).unwrap_err().kind(), ErrorKind::Timeout);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| open.open_when_created("a", &Wait::forever()).unwrap());
        let stream = scratch.small().create("a").unwrap();
        assert_eq!(waiter.join().unwrap().generation(), stream.generation());
        stream.unlink().unwrap();
    });
}

#[test]
fn damaged_files_are_errors() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    drop(stream);
    let file = std::fs::read_dir(scratch.directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(scratch.prefix()))
        .unwrap();
    let good = std::fs::read(&file).unwrap();
    let open = OpenOptions::new().namespace(scratch.clone());
    for byte in (512..776).chain(1000..1024) {
        for flip in [0x01, 0x80, 0xff] {
            // The flag that says that publications always wake, and the creator's number for others:
            // sane headers.
            if byte == 524 && flip == 0x01 || (740..744).contains(&byte) {
                continue;
            }
            let mut bad = good.clone();
            bad[byte] ^= flip;
            std::fs::write(&file, &bad).unwrap();
            let error = open.open("a").unwrap_err();
            let kind = error.kind();
            assert!(
                matches!(kind, ErrorKind::Corrupt | ErrorKind::Version),
                "byte {byte} ^ {flip:#x}: {error}"
            );
        }
    }
    std::fs::write(&file, &good[..5000]).unwrap();
    assert_eq!(open.open("a").unwrap_err().kind(), ErrorKind::Corrupt);
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_damaged_control_page_is_an_error_not_a_hang() {
    use std::os::unix::fs::FileExt;
    let scratch = Scratch::new();
    for garbage in [[0xff_u8; 128], [0x5a; 128]] {
        let stream = scratch.small().create("a").unwrap();
        let mut writer = stream.writer().unwrap();
        writer.write(&[1; 1000]).unwrap();
        let path = std::fs::read_dir(scratch.directory())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(scratch.prefix()))
            .unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.write_all_at(&garbage, 4096 + 128).unwrap();
        file.write_all_at(&garbage.repeat(24), 4096 + 1024).unwrap();
        let wait = Wait::for_at_most(Duration::from_millis(50));
        assert_eq!(stream.reader().latest().unwrap_err().kind(), ErrorKind::Corrupt);
        let error = writer.write_with(&[1; 1000], &Stamp::default(), &wait).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        let _ = stream.reader().next(&wait);
        stream.unlink().unwrap();
    }
}
