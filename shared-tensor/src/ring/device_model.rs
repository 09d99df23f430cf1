//! Loom models of slots that GPUs fill and read, as shipped: run by `cargo xtask loom`.
//!
//! A stream of a device is a thread that does what is queued, in order; it may be as late as it likes.

use loom::sync::{Arc, mpsc};
use loom::thread;

use super::device::{
    DeviceWords, Use, is_complete, is_only_in_file, note_owed, note_use, outstanding, standing,
    uses,
};
use super::model::{Heap, Nobody, Without, check, identity};
use super::word::{LeaseWord, Seq};
use super::*;
use crate::sync::fence;

/// A ring on the heap, and the words of two lanes.
struct Device {
    heap: Heap,
    ready: Vec<AtomicU64>,
    done: Vec<AtomicU64>,
    owed: Vec<AtomicU64>,
    /// With the frames, and the uses of those before.
    used: Vec<[Vec<AtomicU64>; 3]>,
    /// Of a mirrored ring: its words, and the slots of the file.
    mirror: Option<(Vec<AtomicU64>, Heap)>,
}

impl Device {
    fn new(slots: usize, ticking: bool) -> Self {
        let words = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
        Self {
            heap: Heap::new(slots, 2, ticking),
            ready: words(slots),
            done: words(1),
            owed: words(slots),
            used: vec![[(); 3].map(|()| words(slots))],
            mirror: None,
        }
    }

    fn mirrored(slots: usize, ticking: bool) -> Self {
        let words = (0..slots).map(|_| AtomicU64::new(0)).collect();
        let mirror = Some((words, Heap::new(slots, 1, false)));
        Self { mirror, ..Self::new(slots, ticking) }
    }

    fn file(&self) -> &Heap {
        &self.mirror.as_ref().expect("the model has a mirror").1
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

    fn is_in_file(&self, slot: usize, seq: Seq) -> bool {
        self.mirrored(slot).is_none_or(|word| word.load(Ordering::Acquire) >= seq.ticket())
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

    fn standing(&self, slot: usize) -> Standing {
        standing(self, slot)
    }

    fn is_in_use(&self, slot: usize) -> bool {
        uses(self, slot).next().is_some()
    }
}

impl DeviceWords for Device {
    fn ready(&self, slot: usize) -> &AtomicU64 {
        &self.ready[slot]
    }

    fn mirrored(&self, slot: usize) -> Option<&AtomicU64> {
        self.mirror.as_ref().map(|(words, _)| &words[slot])
    }

    fn done(&self, lane: usize) -> &AtomicU64 {
        &self.done[lane]
    }

    fn used(&self, lane: usize, slot: usize) -> &AtomicU64 {
        &self.used[lane][0][slot]
    }

    fn used_for(&self, lane: usize, slot: usize) -> &AtomicU64 {
        &self.used[lane][1][slot]
    }

    fn used_before(&self, lane: usize, slot: usize) -> &AtomicU64 {
        &self.used[lane][2][slot]
    }

    fn owed(&self, slot: usize) -> &AtomicU64 {
        &self.owed[slot]
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
    ReadFile(usize, u64),
    Complete(usize, u64),
    End(Use),
    AwaitMirror(usize, u64),
    /// Copies a slot to the file.
    Mirror(usize, u64),
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
            Work::ReadFile(slot, value) => {
                assert_eq!(ring.file().copy(slot), [value; 2], "a device read another frame");
            }
            Work::Complete(slot, ticket) => ring.ready[slot].store(ticket, Ordering::Release),
            Work::End(it) => ring.done[it.lane].store(it.number, Ordering::Release),
            Work::AwaitMirror(slot, ticket) => {
                let word = ring.mirrored(slot).expect("the model has a mirror");
                until(|| word.load(Ordering::Acquire) >= ticket);
            }
            Work::Mirror(slot, ticket) => {
                let [value, _] = ring.heap.copy(slot);
                // What a device writes comes after what was there when it was told to.
                fence(Ordering::Release);
                ring.file().fill(slot, value);
                let word = ring.mirrored(slot).expect("the model has a mirror");
                word.store(ticket, Ordering::Release);
            }
            Work::Stop => break,
        }
    }
}

/// Writes a frame, by a device. `false`: no slot came free.
fn write(ring: &Device, queue: &mpsc::Sender<Work>) -> bool {
    let Ok(claim) = claim(ring, identity(0), Filler::Device, &Nobody) else { return false };
    // The same stream filled the slot before: it does one after the other.
    for it in uses(ring, claim.slot) {
        queue.send(Work::AwaitUse(it)).unwrap();
    }
    queue.send(Work::Fill(claim.slot, claim.count)).unwrap();
    note_owed(ring, claim.slot, claim.busy);
    queue.send(Work::Complete(claim.slot, claim.busy.ticket())).unwrap();
    commit(ring, &claim).unwrap();
    true
}

/// Writes a frame of a mirrored ring, by a device, which copies it to the file behind that.
fn write_mirrored(ring: &Device, queue: &mpsc::Sender<Work>, copies: &mpsc::Sender<Work>) {
    let Ok(claim) = claim(ring, identity(0), Filler::Device, &Nobody) else { return };
    let ticket = claim.busy.ticket();
    if let Some(owed) = outstanding(ring, claim.slot) {
        queue.send(Work::AwaitMirror(claim.slot, owed.ticket())).unwrap();
    }
    queue.send(Work::Fill(claim.slot, claim.count)).unwrap();
    note_owed(ring, claim.slot, claim.busy);
    queue.send(Work::Complete(claim.slot, ticket)).unwrap();
    commit(ring, &claim).unwrap();
    copies.send(Work::AwaitFrame(claim.slot, ticket)).unwrap();
    copies.send(Work::Mirror(claim.slot, ticket)).unwrap();
}

/// Writes a frame of a mirrored ring, by a process, unless devices have work with every slot.
fn write_file(ring: &Device) {
    let Ok(claim) = claim(ring, identity(0), Filler::Host, &Nobody) else { return };
    ring.file().fill(claim.slot, claim.count);
    let word = ring.mirrored(claim.slot).expect("the model has a mirror");
    word.store(claim.busy.ticket(), Ordering::Release);
    commit(ring, &claim).unwrap();
}

/// Reads the newest frame of the file, by a process.
fn read_file(ring: &Device) -> Option<u64> {
    let Look::Frame(found) = newest_in_file(ring) else { return None };
    let words = ring.file().copy(found.slot);
    if !is_unchanged(ring, &found) {
        return None;
    }
    assert_eq!(words, [found.seq.frame(); 2], "another frame than the file was said to have");
    Some(words[0])
}

/// Reads the newest frame, by a device.
fn read(ring: &Device, queue: &mpsc::Sender<Work>, number: u64) {
    let (me, mut pins) = (identity(1), Pins::default());
    let Look::Frame(found) = newest(ring) else { return };
    if !pin(ring, &mut pins, me, &found) || promote(ring, &mut pins, me, found.slot, 1).is_err() {
        return;
    }
    let it = Use { lane: 0, number };
    if is_only_in_file(ring, found.slot, found.seq) {
        queue.send(Work::ReadFile(found.slot, found.seq.frame())).unwrap();
    } else {
        queue.send(Work::AwaitFrame(found.slot, found.seq.ticket())).unwrap();
        queue.send(Work::Read(found.slot, found.seq.frame())).unwrap();
    }
    queue.send(Work::End(it)).unwrap();
    assert!(note_use(ring, me, found.slot, found.seq, it), "nobody revokes here");
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

/// Of several writers one dies in the slot that another one's device has yet to fill: who claims it next has
/// its own device wait for that.
#[test]
fn loom_devices_fill_slots_one_after_the_other() {
    check(|ticking| {
        let ring = Arc::new(Device::new(2, ticking));
        let run = |queue: mpsc::Receiver<Work>| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || device(&ring, &queue))
        };
        let (first, firsts) = mpsc::channel();
        let (second, seconds) = mpsc::channel();
        let devices = [run(firsts), run(seconds)];
        write(&ring, &first);
        write(&ring, &first);
        first.send(Work::Stop).unwrap();
        let dead = claim(&*ring, identity(1), Filler::Device, &Nobody).unwrap();
        heal(&*ring, &Without(1));
        let next = claim(&*ring, identity(0), Filler::Device, &Without(1)).unwrap();
        assert_eq!(next.slot, dead.slot, "the other one is the newest");
        for it in outstanding(&*ring, next.slot) {
            second.send(Work::AwaitFrame(next.slot, it.ticket())).unwrap();
        }
        second.send(Work::Fill(next.slot, next.count)).unwrap();
        note_owed(&*ring, next.slot, next.busy);
        second.send(Work::Complete(next.slot, next.busy.ticket())).unwrap();
        second.send(Work::Stop).unwrap();
        commit(&*ring, &next).unwrap();
        devices.into_iter().for_each(|it| it.join().unwrap());
        assert_eq!(ring.heap.copy(next.slot), [next.count; 2], "the frame of another writer");
        assert_eq!(outstanding(&*ring, next.slot), None);
    });
}

#[test]
fn loom_the_file_of_a_mirror_has_whole_frames() {
    check(|ticking| {
        let ring = Arc::new(Device::mirrored(2, ticking));
        let (fills, filled) = mpsc::channel();
        let (copies, copied) = mpsc::channel();
        let run = |queue: mpsc::Receiver<Work>| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || device(&ring, &queue))
        };
        let devices = [run(filled), run(copied)];
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                write_mirrored(&ring, &fills, &copies);
                write_mirrored(&ring, &fills, &copies);
                fills.send(Work::Stop).unwrap();
                copies.send(Work::Stop).unwrap();
            })
        };
        read_file(&ring);
        writer.join().unwrap();
        devices.into_iter().for_each(|it| it.join().unwrap());
        assert_eq!(read_file(&ring), Some(2), "its devices are done");
    });
}

/// What a process writes is in the file alone, where devices read it.
#[test]
fn loom_devices_read_whole_frames_of_processes() {
    check(|ticking| {
        let ring = Arc::new(Device::mirrored(2, ticking));
        write_file(&ring);
        let (reads, readed) = mpsc::channel();
        let device = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || device(&ring, &readed))
        };
        let writer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                write_file(&ring);
                write_file(&ring);
            })
        };
        read(&ring, &reads, 1);
        reads.send(Work::Stop).unwrap();
        writer.join().unwrap();
        device.join().unwrap();
    });
}

/// Nothing of the control word changes when a frame comes to the file, and readers wait for different ones.
#[test]
fn loom_readers_of_a_mirror_are_woken() {
    check(|_| {
        let (arrivals, frames) = (AtomicU64::new(0), AtomicU64::new(0));
        let words = Arc::new((arrivals, frames));
        // What a driver's thread does when a copy is done, and a process that writes itself.
        let arrive = |words: &(AtomicU64, AtomicU64), frame: u64| {
            words.1.store(frame, Ordering::Release);
            if arrivals::tell(&words.0) {
                shm_lock::park::wake_all_low_half(&words.0);
            }
        };
        let await_frame = |words: &(AtomicU64, AtomicU64), frame: u64| loop {
            let seen = arrivals::seen(&words.0);
            if words.1.load(Ordering::Acquire) >= frame {
                break;
            }
            if let Some(low) = arrivals::announce(&words.0, seen) {
                // Without slices: a lost wake-up is a deadlock that loom reports.
                shm_lock::park::park_low_half(&words.0, low, std::time::Duration::MAX);
            }
        };
        let spawn = |run: Box<dyn FnOnce(&(AtomicU64, AtomicU64)) + Send>| {
            let words = Arc::clone(&words);
            thread::spawn(move || run(&words))
        };
        let device = spawn(Box::new(move |words| arrive(words, 1)));
        let second = spawn(Box::new(move |words| await_frame(words, 2)));
        await_frame(&words, 1);
        arrive(&words, 2);
        device.join().unwrap();
        second.join().unwrap();
    });
}
