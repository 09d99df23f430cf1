//! Frames that a device reads in place, and writes under a lock that is held.

use std::sync::Arc;

use cuda_ipc::{Context, Copies, Stream as Queue, Words};
use shared_tensor::ErrorKind;
use shared_tensor::stream::{
    Contents, GpuLease, OnFull, ReaderOptions, Source, Stamp, StreamOptions,
};

use crate::frames::{BYTES, Ground};
use crate::harness::tests;
use crate::support::watchdog;

tests![
    a_lease_keeps_its_frame,
    a_slot_is_waited_for_until_its_reader_is_done,
    a_ring_without_slots_to_spare_gives_copies,
    rings_of_fewer_than_three_slots_are_refused,
    a_lease_that_is_taken_away_says_so,
    leases_outlive_reader_and_stream,
    frames_are_filled_under_a_lock_that_is_held,
    a_frame_that_is_filled_is_given_up_with_its_lock,
    a_lock_of_another_stream_is_refused,
];

/// What a device finds at an address now.
fn bytes_at(context: &Context, address: u64) -> Vec<u8> {
    let mut found = vec![0; BYTES];
    let work = Copies::new(context).unwrap();
    work.download(&mut found, address).unwrap();
    found
}

impl Ground {
    fn lease(&mut self, queue: &Arc<Queue>, on_full: OnFull) -> GpuLease {
        self.reader.lease(queue, on_full, &watchdog()).unwrap()
    }

    fn queue(&self) -> Arc<Queue> {
        Arc::new(self.context.stream().unwrap())
    }
}

fn a_lease_keeps_its_frame() {
    let mut ground = Ground::new(4);
    let queue = ground.queue();
    ground.write(1);
    let lease = ground.lease(&queue, OnFull::Copy);
    assert_eq!((lease.publication().count, lease.len(), lease.is_copy()), (1, BYTES, false));
    for value in 2..=20 {
        ground.write(value);
    }
    ground.context.synchronize(ground.work[0].stream()).unwrap();
    assert_eq!(bytes_at(&ground.context, lease.address()), [1; BYTES]);
    assert!(!lease.is_revoked());
    // The newest one, beside it: a ring of four lends one frame, and the same frame any number of times.
    let again = ground.lease(&queue, OnFull::Copy);
    assert!(again.is_copy());
    assert_eq!(again.publication().count, 20);
    ground.context.synchronize(&queue).unwrap();
    assert_eq!(bytes_at(&ground.context, again.address()), [20; BYTES]);
    drop(lease);
    let free = ground.lease(&queue, OnFull::Copy);
    let shared = ground.lease(&queue, OnFull::Copy);
    assert_eq!((free.is_copy(), shared.address()), (false, free.address()));
    drop((again, free, shared));
    ground.end_with(&queue);
}

/// The lease is over, what was queued under it is not.
fn a_slot_is_waited_for_until_its_reader_is_done() {
    let mut ground = Ground::new(4);
    let queue = ground.queue();
    let words = Words::create(1).unwrap().attach(&ground.context).unwrap();
    ground.write(1);
    let lease = ground.lease(&queue, OnFull::Copy);
    words.wait(&queue, 0, 1).unwrap();
    ground.context.copy(&queue, ground.beside.at(5), lease.address(), BYTES as u64).unwrap();
    drop(lease);
    // No call waits, and the fourth of them needs the slot.
    for value in 2..=9 {
        ground.write(value);
    }
    words.release(0, 1);
    ground.context.synchronize(&queue).unwrap();
    ground.context.synchronize(ground.work[0].stream()).unwrap();
    assert_eq!(ground.found(5), [1; BYTES], "nobody wrote before it was read");
    ground.read(1);
    assert_eq!(ground.found(1), [9; BYTES]);
    drop(words);
    ground.end_with(&queue);
}

fn a_ring_without_slots_to_spare_gives_copies() {
    let mut ground = Ground::new(3);
    let queue = ground.queue();
    ground.write(1);
    let copy = ground.lease(&queue, OnFull::Copy);
    assert!(copy.is_copy() && !copy.is_revoked());
    ground.write(2);
    ground.context.synchronize(&queue).unwrap();
    assert_eq!(bytes_at(&ground.context, copy.address()), [1; BYTES]);
    drop(copy);
    ground.end_with(&queue);
}

fn rings_of_fewer_than_three_slots_are_refused() {
    let (context, scratch) = (crate::frames::context(), crate::support::Scratch::new());
    for slots in [0, 1, 2, 25] {
        let options = StreamOptions::new(shared_tensor::DType::U8, [8]).slots(slots);
        let refused = options.namespace((*scratch).clone()).create_on(&context, "it").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        assert!(refused.to_string().contains("3 to 24"), "{refused}");
    }
}

fn a_lease_that_is_taken_away_says_so() {
    let mut ground = Ground::new(4);
    let queue = ground.queue();
    ground.write(1);
    let first = ground.lease(&queue, OnFull::Copy);
    ground.write(2);
    let second = ground.lease(&queue, OnFull::Revoke);
    assert_eq!((first.is_revoked(), second.is_revoked(), second.is_copy()), (true, false, false));
    let waited = ground.reader.lease(&queue, OnFull::Wait(std::time::Duration::ZERO), &watchdog());
    // The same frame may be shared: nothing has to be waited for.
    assert_eq!(waited.unwrap().address(), second.address());
    ground.write(3);
    let waited = ground.reader.lease(&queue, OnFull::Wait(std::time::Duration::ZERO), &watchdog());
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::Timeout);
    drop((first, second));
    ground.end_with(&queue);
}

fn leases_outlive_reader_and_stream() {
    let mut ground = Ground::new(4);
    let queue = ground.queue();
    ground.write(7);
    let lease = ground.lease(&queue, OnFull::Copy);
    let context = ground.context.clone();
    ground.end_keeping_mapped();
    context.synchronize(&queue).unwrap();
    assert_eq!(bytes_at(&context, lease.address()), [7; BYTES]);
    drop(lease);
    assert!(cuda_ipc::flush(std::time::Instant::now() + std::time::Duration::from_secs(60)));
}

fn frames_are_filled_under_a_lock_that_is_held() {
    let mut ground = Ground::new(3);
    let queue = ground.queue();
    let context = ground.context.clone();
    // The lock knows no GPU: an ordinary handle's is as good.
    let mut locked = ground.writer.lock_owned(&watchdog()).unwrap();
    let beside = ground.beside.at(0);
    context.fill(&queue, beside, 4, BYTES as u64).unwrap();
    let stamp = Stamp { frame_id: Some(44), ..Stamp::default() };
    let source = Source::Device(beside);
    assert_eq!(locked.write_on(&ground.writer, &queue, source, &stamp).unwrap(), 1);
    assert_eq!(locked.begin_on(&ground.writer, &queue, Contents::Previous).unwrap(), 2);
    let nested = locked.begin_on(&ground.writer, &queue, Contents::Fresh).unwrap_err();
    assert_eq!(nested.kind(), ErrorKind::InvalidArgument);
    assert_eq!(locked.as_mut_ptr(), None);
    assert_eq!(locked.write_at(0, &[0]).unwrap_err().kind(), ErrorKind::Device);
    context.fill(&queue, locked.address().unwrap(), 9, 1).unwrap();
    assert_eq!(locked.publish(&Stamp::default()).unwrap(), 2);
    assert_eq!(locked.address(), None);
    ground.read(1);
    let mut wanted = [4; BYTES];
    wanted[0] = 9;
    assert_eq!(ground.found(1), wanted);
    let publication =
        ground.reader.latest_into(ground.work[1].stream(), ground.beside.at(1), &watchdog());
    assert_eq!(publication.unwrap().frame_id, 44, "it stays");
    assert_eq!(locked.clear_on(&ground.writer, &queue, &Stamp::default()).unwrap(), 3);
    drop(locked);
    ground.read(1);
    assert_eq!(ground.found(1), [0; BYTES]);
    ground.end_with(&queue);
}

fn a_frame_that_is_filled_is_given_up_with_its_lock() {
    let mut ground = Ground::new(3);
    let queue = ground.queue();
    ground.write(1);
    let mut locked = ground.writer.lock_owned(&watchdog()).unwrap();
    locked.begin_on(&ground.writer, &queue, Contents::Fresh).unwrap();
    ground.context.fill(&queue, locked.address().unwrap(), 9, BYTES as u64).unwrap();
    drop(locked);
    for value in 2..=9 {
        assert_eq!(ground.write(value), value.into());
        ground.read(1);
        assert_eq!(ground.found(1), [value; BYTES]);
    }
    ground.end_with(&queue);
}

fn a_lock_of_another_stream_is_refused() {
    let (ground, other) = (Ground::new(3), Ground::new(3));
    let queue = ground.queue();
    let mut locked = ground.writer.lock_owned(&watchdog()).unwrap();
    let refused = locked.begin_on(&other.writer, &queue, Contents::Fresh).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(!locked.is_open());
    drop(locked);
    let options = ReaderOptions::default();
    drop(ground.stream.reader_on(&ground.context, options, &watchdog()).unwrap());
    other.end();
    ground.end_with(&queue);
}
