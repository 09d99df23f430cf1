//! Loom models of slots that GPUs fill and read, as shipped: run by `cargo xtask loom`.
//!
//! A stream of a device is a thread that does what is queued, in order; it may be as late as it likes.

use loom::sync::{Arc, mpsc};
use loom::thread;

use super::device::{DeviceWords, Use, is_complete, note_use, standing, uses};
use super::model::{Heap, Nobody, check, identity};
use super::word::{LeaseWord, Seq};
use super::*;

/// A ring on the heap, and the words of two lanes.
struct Device {
    heap: Heap,
    ready: Vec<AtomicU64>,
    done: Vec<AtomicU64>,
    used: Vec<Vec<AtomicU64>>,
}

impl Device {
    fn new(slots: usize, ticking: bool) -> Self {
        let words = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        Self {
            heap: Heap::new(slots, 2, ticking),
            ready: words(slots),
            done: words(1),
            used: vec![words(slots)],
        }
    }
}

impl RingLoads for Device {
    fn slots(&self) -> usize {
        self.heap.slots()
    }

    fn ctl(&self, order: Ordering) -> Ctl {
        self.heap.ctl(order)
    }

    fn seq(&self, slot: usize, order: Ordering) -> Seq {
        self.heap.seq(slot, order)
    }
}

impl Ring for Device {
    fn ctl_word(&self) -> &AtomicU64 {
        self.heap.ctl_word()
    }

    fn slot(&self, slot: usize) -> &Slot {
        self.heap.slot(slot)
    }

    fn high_water(&self) -> usize {
        self.heap.high_water()
    }

    fn lease(&self, entry: usize) -> &AtomicU64 {
        self.heap.lease(entry)
    }

    fn lessees(&self, group: usize) -> &AtomicU64 {
        self.heap.lessees(group)
    }

    fn standing(&self, slot: usize, seq: Seq) -> Standing {
        standing(self, slot, seq)
    }
}

impl DeviceWords for Device {
    fn ready(&self, slot: usize) -> &AtomicU64 {
        &self.ready[slot]
    }

    fn done(&self, lane: usize) -> &AtomicU64 {
        &self.done[lane]
    }

    fn used(&self, lane: usize, slot: usize) -> &AtomicU64 {
        &self.used[lane][slot]
    }

    fn lanes(&self) -> impl Iterator<Item = usize> + '_ {
        0..self.done.len()
    }
}

/// What a device does, in the order in which it was queued.
enum Work {
    AwaitFrame(usize, u64),
    AwaitUse(Use),
    Fill(usize, u64),
    Read(usize, u64),
    Complete(usize, u64),
    End(Use),
    /// Nothing more is queued.
    Stop,
}

fn until(reached: impl Fn() -> bool) {
    while !reached() {
        thread::yield_now();
    }
}

fn device(ring: &Device, queue: &mpsc::Receiver<Work>) {
    while let Ok(work) = queue.recv() {
        match work {
            Work::AwaitFrame(slot, ticket) => {
                until(|| ring.ready[slot].load(Ordering::Acquire) >= ticket);
            }
            Work::AwaitUse(it) => until(|| ring.done[it.lane].load(Ordering::Acquire) >= it.number),
            Work::Fill(slot, value) => ring.heap.fill(slot, value),
            Work::Read(slot, value) => {
                assert_eq!(ring.heap.copy(slot), [value; 2], "a device read another frame");
            }
            Work::Complete(slot, ticket) => ring.ready[slot].store(ticket, Ordering::Release),
            Work::End(it) => ring.done[it.lane].store(it.number, Ordering::Release),
            Work::Stop => break,
        }
    }
}

/// Writes a frame, by a device. `false`: no slot came free.
fn write(ring: &Device, queue: &mpsc::Sender<Work>) -> bool {
    let Ok(claim) = claim(ring, identity(0), &Nobody) else { return false };
    // The same stream filled the slot before: it does one after the other.
    for it in uses(ring, claim.slot) {
        queue.send(Work::AwaitUse(it)).unwrap();
    }
    queue.send(Work::Fill(claim.slot, claim.count)).unwrap();
    queue.send(Work::Complete(claim.slot, claim.busy.ticket())).unwrap();
    commit(ring, &claim).unwrap();
    true
}

/// Reads the newest frame, by a device.
fn read(ring: &Device, queue: &mpsc::Sender<Work>, number: u64) {
    let (me, mut pins) = (identity(1), Pins::default());
    let Look::Frame(found) = newest(ring) else { return };
    if !pin(ring, &mut pins, me, &found) || promote(ring, &mut pins, me, found.slot, 1).is_err() {
        return;
    }
    let it = Use { lane: 0, number };
    queue.send(Work::AwaitFrame(found.slot, found.seq.ticket())).unwrap();
    queue.send(Work::Read(found.slot, found.seq.frame())).unwrap();
    queue.send(Work::End(it)).unwrap();
    assert!(note_use(ring, me, found.slot, it), "nobody revokes here");
    release(ring, me, found.slot);
}

#[test]
fn loom_devices_read_whole_frames() {
    check(|ticking| {
        let ring = Arc::new(Device::new(2, ticking));
        let (fills, filled) = mpsc::channel();
        let (reads, readed) = mpsc::channel();
        let run = |queue: mpsc::Receiver<Work>| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || device(&ring, &queue))
        };
        let devices = [run(filled), run(readed)];
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                write(&ring, &fills);
                write(&ring, &fills);
                fills.send(Work::Stop).unwrap();
            })
        };
        read(&ring, &reads, 1);
        reads.send(Work::Stop).unwrap();
        writer.join().unwrap();
        devices.into_iter().for_each(|it| it.join().unwrap());
        let Look::Frame(found) = newest(&*ring) else { panic!("no newest frame") };
        assert!(is_complete(&*ring, found.slot, found.seq), "its device is done");
        assert_eq!(ring.heap.copy(found.slot), [found.seq.frame(); 2]);
        let word = LeaseWord(ring.lease(1).load(Ordering::Acquire));
        assert_eq!(word.mask(), 0, "nothing is held");
    });
}
