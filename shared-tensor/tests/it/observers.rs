//! Read-only handles.

use shared_tensor::ErrorKind;
use shared_tensor::stream::{OnFull, OpenOptions, stat};

use crate::support::Scratch;

#[test]
fn a_read_only_handle_reads_and_leases_but_does_not_write() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let reading = OpenOptions::new().namespace(scratch.clone()).read_only(true).open("a").unwrap();
    assert_eq!(reading.writer().unwrap_err().kind(), ErrorKind::PermissionDenied);
    stream.writer().unwrap().write(&[4; 1000]).unwrap();
    assert!(!reading.reader().lease(OnFull::Copy).unwrap().is_copy());
    stream.unlink().unwrap();
}

#[test]
fn modes_that_admit_silent_readers_always_wake() {
    let scratch = Scratch::new();
    for (mode, wakes) in
        [(0o600, false), (0o640, true), (0o660, false), (0o664, true), (0o666, false)]
    {
        let stream = scratch.small().mode(mode).create("a").unwrap();
        assert_eq!(stat(&scratch, "a").unwrap().always_wakes, wakes, "{mode:o}");
        stream.unlink().unwrap();
    }
}
