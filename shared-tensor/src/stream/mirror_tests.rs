//! What readers and writers of a mirrored stream's file do, with a device that the test plays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering as Plain};
use std::time::Duration;

use cuda_ipc::ChunkLabel;
use shm_core::{Access, Namespace, Segment};
use shm_lock::Wait;
use zerocopy::IntoBytes as _;

use crate::error::ErrorKind;
use crate::ring::device::DeviceWords as _;
use crate::ring::{Claim, Look, newest_in_file};
use crate::stream::attachment::Attachment;
use crate::stream::device::seat::word_of;
use crate::stream::layout::{KIND, Layout, flags};
use crate::stream::locked::Locked;
use crate::stream::open::parse_name;
use crate::stream::place::Place;
use crate::stream::{
    Contents, OnWriting, Reader, ReaderOptions, Stamp, Stream, StreamOptions, Writer,
};
use crate::sync::Ordering;
use crate::tensor::{DType, Shape};

const BYTES: u64 = 100;

fn layout(slots: usize, flags: u32) -> Layout {
    let shape = Shape::new([BYTES]).unwrap();
    let layout = Layout::on_device(DType::U8, shape, slots, flags).unwrap();
    // A label with as many bytes as its ring needs.
    let mut chunk = [0; ChunkLabel::BYTES];
    chunk[ChunkLabel::BYTES - 8..].copy_from_slice(&(1_u64 << 30).to_le_bytes());
    Layout { place: Place::Chunk(chunk), ..layout }
}

/// A mirrored stream without its chunk.
struct Scene {
    stream: Stream,
}

impl Scene {
    fn new(slots: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Plain::Relaxed);
        let prefix = format!("st-mirror.{}.{number}.", std::process::id());
        let options = StreamOptions::new(DType::U8, [BYTES])
            .namespace(Namespace::new("/dev/shm", &prefix).unwrap());
        let layout = layout(slots, flags::MIRRORED | flags::ALWAYS_WAKE);
        let stream = options.create_with(&parse_name("it").unwrap(), &layout).unwrap();
        Self { stream }
    }

    fn attachment(&self) -> &Arc<Attachment> {
        &self.stream.attachment
    }

    /// Publishes a frame that a device is to fill.
    fn publish(&self) -> Claim {
        let locked = Locked::acquire(self.attachment(), &Wait::never()).unwrap();
        let claim = locked.tenure().claim_for_device().unwrap();
        let member = self.attachment().member().unwrap();
        let words = member.memory.slot_words(claim.slot);
        words.owed_by.store(word_of(member.me().unwrap()), Ordering::Relaxed);
        words.owed.store(claim.busy.ticket(), Ordering::Release);
        locked.tenure().commit(&claim, &Stamp::default()).unwrap();
        claim
    }

    /// What the device does then, and its driver's thread.
    fn complete(&self, claim: &Claim, value: u8) {
        let start = self.attachment().layout.slot_start(claim.slot);
        let bytes = self.attachment().writable().unwrap();
        bytes.fill(start..start + BYTES as usize, value).unwrap();
        let memory = &self.attachment().member().unwrap().memory;
        let ticket = claim.busy.ticket();
        memory.ready(claim.slot).store(ticket, Ordering::Release);
        memory.mirrored(claim.slot).unwrap().store(ticket, Ordering::Release);
        memory.tell_arrival();
    }

    /// The stream for somebody who may not write.
    fn observed(&self) -> Stream {
        let namespace = self.stream.namespace().clone();
        let name = parse_name("it").unwrap();
        let segment = Segment::open(&namespace, &name, Access::ReadOnly, KIND).unwrap();
        Stream { attachment: Attachment::of(segment).unwrap(), namespace, read_only: true }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stream.unlink().unwrap();
    }
}

fn soon() -> Wait<'static> {
    Wait::for_at_most(Duration::from_millis(1))
}

fn watchdog() -> Wait<'static> {
    Wait::for_at_most(Duration::from_secs(60))
}

fn newest(reader: &mut Reader) -> (u64, u8) {
    let frame = reader.latest_with(&watchdog()).unwrap();
    assert!(frame.bytes().iter().all(|byte| *byte == frame.bytes()[0]));
    (frame.publication().count, frame.bytes()[0])
}

fn write(writer: &mut Writer, value: u8) -> u64 {
    writer.write(&[value; BYTES as usize]).unwrap()
}

#[test]
fn who_may_not_write_reads_what_is_in_the_file() {
    let scene = Scene::new(4);
    let observed = scene.observed();
    let (mut serving, patient) = (observed.reader(), ReaderOptions::new());
    let mut patient = observed.reader_with(patient.on_writing(OnWriting::Wait));
    write(&mut scene.stream.writer().unwrap(), 1);
    assert_eq!(newest(&mut serving), (1, 1));
    let claim = scene.publish();
    assert_eq!(observed.count(), 2);
    assert_eq!(newest(&mut serving), (1, 1));
    assert_eq!(serving.next(&soon()).unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(patient.latest_with(&soon()).unwrap_err().kind(), ErrorKind::Timeout);
    let waits = std::thread::spawn(move || newest(&mut patient));
    scene.complete(&claim, 2);
    assert_eq!(waits.join().unwrap(), (2, 2));
    assert_eq!(serving.wait(1, &watchdog()).unwrap(), 2);
    assert_eq!(serving.next(&watchdog()).unwrap().publication().count, 2);
}

#[test]
fn a_later_frame_that_is_there_does_not_overtake() {
    let scene = Scene::new(4);
    let mut reader = scene.stream.reader();
    let claim = scene.publish();
    let mut writer = scene.stream.writer().unwrap();
    assert_eq!(write(&mut writer, 2), 2);
    assert_eq!(newest(&mut scene.stream.reader()), (2, 2));
    assert_eq!(reader.wait(0, &soon()).unwrap(), 2);
    assert_eq!(reader.next(&soon()).unwrap_err().kind(), ErrorKind::Timeout);
    scene.complete(&claim, 1);
    let frames = [(); 2].map(|()| reader.next(&watchdog()).unwrap().publication().count);
    assert_eq!(frames, [1, 2]);
}

#[test]
fn a_process_writes_where_no_device_does() {
    let scene = Scene::new(3);
    let mut writer = scene.stream.writer().unwrap();
    write(&mut writer, 1);
    let pending = scene.publish();
    for value in 3..20 {
        assert_eq!(write(&mut writer, value), u64::from(value));
        let newest = scene.attachment().member().unwrap().memory.shared.control();
        let busy = pending.busy.ticket();
        let seq = newest.slots[pending.slot].seq.load(Ordering::Acquire);
        assert_eq!(seq >> 8, busy, "the slot that a device fills was taken");
    }
    scene.complete(&pending, 2);
    assert_eq!(newest(&mut scene.stream.reader()), (19, 19));
}

/// Beside frames that are on their way, a process starts from the last one as soon as that is there.
#[test]
fn what_a_process_changes_comes_first() {
    let scene = Scene::new(4);
    let pending = scene.publish();
    let mut writer = scene.stream.writer().unwrap();
    let changes = std::thread::spawn(move || {
        let mut view = writer.write_view(Contents::Previous, &watchdog()).unwrap();
        view.write_at(0, &[9]).unwrap();
        view.publish(&Stamp::default()).unwrap()
    });
    // It may look before or after this.
    scene.complete(&pending, 5);
    assert_eq!(changes.join().unwrap(), 2);
    let frame = scene.stream.reader().latest_with(&watchdog()).unwrap();
    assert_eq!(frame.bytes()[..3], [9, 5, 5]);
}

/// Readers without CUDA have a frame at any time, though the device comes to none for long.
#[test]
fn the_last_frame_that_is_there_stays() {
    for slots in [3, 4, 8, 24] {
        let scene = Scene::new(slots);
        write(&mut scene.stream.writer().unwrap(), 1);
        let mut reader = scene.stream.reader();
        let mut pending = Vec::new();
        for _ in 0..3 * slots {
            pending.push(scene.publish());
            assert_eq!(newest(&mut reader), (1, 1));
        }
        let last = pending.last().unwrap();
        scene.complete(last, 7);
        assert_eq!(newest(&mut reader), (last.count, 7));
    }
}

#[test]
fn a_header_that_mirrors_nothing_is_refused() {
    let bytes = |layout: &Layout, change: &dyn Fn(&mut crate::stream::layout::Header)| {
        let mut header = layout.header();
        change(&mut header);
        Layout::from_header(&header, layout.total_bytes).map_err(|error| error.kind())
    };
    let mirrored = layout(4, flags::MIRRORED);
    assert_eq!(bytes(&mirrored, &|_| {}).as_ref(), Ok(&mirrored));
    assert!(mirrored.header().as_bytes().len() == 512);
    let plain = layout(4, 0);
    assert!(plain.frames_in_file().is_none() && mirrored.frames_in_file().is_some());
    // Not in a file of that length.
    let claims = bytes(&plain, &|header| header.flags |= flags::MIRRORED);
    assert_eq!(claims.unwrap_err(), ErrorKind::Corrupt);
    let denies = bytes(&mirrored, &|header| header.flags = 0);
    assert_eq!(denies.unwrap_err(), ErrorKind::Corrupt);
    let in_file = Layout::new(DType::U8, Shape::new([BYTES]).unwrap(), 4, 0).unwrap();
    let claims = bytes(&in_file, &|header| header.flags |= flags::MIRRORED);
    assert_eq!(claims.unwrap_err(), ErrorKind::Corrupt);
    let newer = bytes(&mirrored, &|header| header.flags |= 1 << 9);
    assert_eq!(newer.unwrap_err(), ErrorKind::Version);
}

#[test]
fn rings_in_the_file_begin_behind_the_seats() {
    let small = layout(4, flags::MIRRORED);
    assert_eq!(small.frames_in_file(), Some(495_616..495_616 + 4 * 256));
    let shape = Shape::new([1 << 20]).unwrap();
    let large = Layout::on_device(DType::U8, shape, 4, flags::MIRRORED).unwrap();
    assert_eq!(large.frames_in_file(), Some(2 << 20..6 << 20));
}

/// A copy may arrive at any moment, also between two looks of one read.
#[test]
fn whether_a_frame_is_the_newest_was_known_when_it_was_found() {
    let scene = Scene::new(4);
    write(&mut scene.stream.writer().unwrap(), 1);
    let pending = scene.publish();
    let Look::Frame(found) = newest_in_file(&**scene.attachment()) else { panic!("no frame") };
    scene.complete(&pending, 2);
    assert_eq!(found.seq.frame(), 1);
    assert!(found.is_behind(), "the second frame was on its way");
}

#[test]
fn a_first_frame_on_its_way_is_waited_for() {
    let scene = Scene::new(4);
    let mut reader = scene.stream.reader();
    assert_eq!(reader.latest_with(&soon()).unwrap_err().kind(), ErrorKind::Empty);
    let pending = scene.publish();
    assert_eq!(reader.latest_with(&soon()).unwrap_err().kind(), ErrorKind::Timeout);
    scene.complete(&pending, 1);
    assert_eq!(newest(&mut reader), (1, 1));
}
