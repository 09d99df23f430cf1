//! What a publication says, and that it belongs to the payload it comes with.

use shared_tensor::stream::{
    Contents, OnAbort, OnEmpty, OnFull, Phase, ReaderOptions, Stamp, Wait,
};
use shared_tensor::{DType, ErrorKind};

use crate::support::Scratch;

#[test]
fn fields_travel_with_the_frame() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut writer = stream.writer().unwrap();
    let mut reader = stream.reader();
    let before = std::time::SystemTime::now();
    let stamp =
        Stamp { frame_id: Some(u64::MAX), acquired_unix_ns: Some(-5), metadata: Some([7; 64]) };
    assert_eq!(writer.write_with(&[1; 1000], &stamp, &Wait::forever()).unwrap(), 1);
    let frame = reader.latest().unwrap();
    let publication = frame.publication();
    assert_eq!(frame.bytes(), [1; 1000]);
    assert_eq!((publication.count, publication.sequence()), (1, 2));
    assert_eq!((publication.frame_id, publication.has_own_frame_id), (u64::MAX, true));
    assert_eq!(publication.acquired_unix_ns, Some(-5));
    assert_eq!(publication.metadata, [7; 64]);
    assert_eq!((publication.missed, publication.phase), (0, Phase::Idle));
    assert!(publication.published() >= before && publication.published_monotonic_ns > 0);

    writer.write(&[2; 1000]).unwrap();
    let publication = *reader.latest().unwrap().publication();
    assert_eq!((publication.frame_id, publication.has_own_frame_id), (u64::MAX, false));
    assert_eq!((publication.acquired_unix_ns, publication.metadata), (None, [0; 64]));
    stream.unlink().unwrap();
}

#[test]
fn nothing_published_is_said_or_served_as_zeros() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let error = stream.reader().latest().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Empty);
    let mut options = ReaderOptions::default();
    options.on_empty = OnEmpty::Zeros;
    let frame = stream.reader_with(options).latest().unwrap();
    assert_eq!((frame.bytes(), frame.publication().count), (&[0; 1000][..], 0));
    stream.unlink().unwrap();
}

#[test]
fn wrong_sizes_and_types_say_what_was_expected() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("frames").unwrap();
    let mut writer = stream.writer().unwrap();
    let message = writer.write(&[0; 999]).unwrap_err().to_string();
    assert_eq!(message, "stream `frames` expects 1000 bytes (uint8[1000]), got 999");
    let message = writer.write_slice(&[0_f32; 250]).unwrap_err().to_string();
    assert_eq!(message, "stream `frames` has elements of uint8, the slice has float32");
    assert_eq!(stream.info().count, 0, "a refused write leaves no trace");
    assert!(stream.reader().read_into(&mut [0; 10]).is_err());
    stream.unlink().unwrap();
}

#[test]
fn an_aborted_write_leaves_the_last_frame_and_says_so() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut writer = stream.writer().unwrap();
    let mut reader = stream.reader();
    let mut options = ReaderOptions::default();
    options.on_abort = OnAbort::Raise;
    let mut strict = stream.reader_with(options);
    writer.write(&[1; 1000]).unwrap();
    {
        let mut locked = writer.lock(&Wait::forever()).unwrap();
        let mut view = locked.view(Contents::Fresh).unwrap();
        view.write_at(0, &[9; 500]).unwrap();
        assert_eq!(reader.latest().unwrap().publication().phase, Phase::Writing);
        assert_eq!(strict.latest().unwrap().bytes(), [1; 1000], "its writer lives");
    }
    let frame = reader.latest().unwrap();
    assert_eq!((frame.bytes(), frame.publication().phase), (&[1; 1000][..], Phase::Aborted));
    let error = strict.latest().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Inconsistent);
    assert!(error.to_string().contains("incomplete write"), "{error}");
    assert_eq!(strict.wait(1, &Wait::forever()).unwrap_err().kind(), ErrorKind::Inconsistent);
    writer.write(&[2; 1000]).unwrap();
    assert_eq!(strict.latest().unwrap().bytes(), [2; 1000]);
    assert_eq!(stream.info().writer.aborts, 1);
    stream.unlink().unwrap();
}

#[test]
fn a_view_can_start_from_the_previous_frame() {
    let scratch = Scratch::new();
    for slots in [1, 2, 3, 8] {
        let stream = scratch.small().slots(slots).create("a").unwrap();
        let mut writer = stream.writer().unwrap();
        for step in 1..=10_u8 {
            let mut locked = writer.lock(&Wait::forever()).unwrap();
            let mut view = locked.view(Contents::Previous).unwrap();
            assert!(view.write_at(999, &[0, 0]).is_err());
            view.write_at(usize::from(step), &[step]).unwrap();
            view.publish(&Stamp::default()).unwrap();
        }
        let frame = stream.reader().latest().unwrap();
        let expected: Vec<u8> = (0..=10).collect();
        assert_eq!(frame.bytes()[..11], expected, "K = {slots}");
        writer.clear().unwrap();
        assert_eq!(stream.reader().latest().unwrap().bytes(), [0; 1000]);
        stream.unlink().unwrap();
    }
}

#[test]
fn a_view_of_its_own_holds_the_lock_as_long_as_it_lives() {
    let scratch = Scratch::new();
    let stream = scratch.small().create("a").unwrap();
    let mut writer = stream.writer().unwrap();
    let mut other = stream.writer().unwrap();
    let forever = Wait::forever();
    let mut view = writer.write_view(Contents::Fresh, &forever).unwrap();
    assert_eq!((view.count(), stream.count()), (1, 0));
    let soon = Wait::for_at_most(std::time::Duration::from_millis(5));
    assert!(other.write_with(&[2; 1000], &Stamp::default(), &soon).unwrap_err().is_timeout());
    view.write_at(0, &[3; 1000]).unwrap();
    assert_eq!(view.publish(&Stamp::frame_id(9)).unwrap(), 1);
    other.write(&[4; 1000]).unwrap();
    drop(writer.write_view(Contents::Previous, &forever).unwrap());
    other.write(&[5; 1000]).unwrap();
    assert_eq!((stream.count(), stream.info().writer.aborts), (3, 1));
    let lease = stream.reader().lease(OnFull::Copy).unwrap();
    let mut part = [0; 10];
    lease.read_at(990, &mut part).unwrap();
    assert_eq!(part, [5; 10]);
    assert!(lease.read_at(991, &mut part).is_err());
    drop(lease);
    stream.unlink().unwrap();
}

#[test]
fn elements_round_trip() {
    let scratch = Scratch::new();
    let options =
        shared_tensor::stream::StreamOptions::new(DType::F32, [2, 3]).namespace(scratch.clone());
    let stream = options.create("floats").unwrap();
    stream.writer().unwrap().write_slice(&[0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let frame = stream.reader().latest().unwrap();
    assert_eq!(frame.to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert!(frame.to_vec::<f64>().is_err());
    let lease = stream.reader().lease(OnFull::Copy).unwrap();
    assert_eq!(lease.to_vec::<f32>().unwrap(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert!(lease.to_vec::<u32>().is_err());
    drop(lease);
    let writer = stream.writer().unwrap();
    writer.write_slice_with(&[1.0_f32; 6], &Stamp::frame_id(3), &Wait::forever()).unwrap();
    assert_eq!(stream.reader().latest().unwrap().publication().frame_id, 3);
    stream.unlink().unwrap();
}
