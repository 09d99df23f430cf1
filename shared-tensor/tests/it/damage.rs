//! Streams whose shared words somebody overwrote: errors, never a panic, never a hang.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use shared_tensor::ErrorKind;
use shared_tensor::shm::{Access, Kind, Segment, SegmentName, SharedBytes};
use shared_tensor::stream::{
    Contents, OnAbort, OnEmpty, OnFull, Phase, ReaderOptions, Spin, Stamp, Stream, Wait, list,
    locked_many, stat, wait_any,
};

use crate::support::Scratch;

/// Where things are, in bytes from the start of the file: `docs/LAYOUT.md`.
mod place {
    use std::ops::Range;

    pub(super) const LOCK: usize = 4096;
    pub(super) const CTL: usize = 4096 + 128;
    pub(super) const ROSTER: usize = 4096 + 256;
    pub(super) const WRITER: Range<usize> = 4096 + 384..4096 + 512;
    pub(super) const LESSEES: usize = 4096 + 512;
    pub(super) const SLOTS: usize = 4096 + 1024;
    pub(super) const SLOT_BYTES: usize = 128;
    pub(super) const PARTICIPANTS: usize = 16_384;
    pub(super) const PARTICIPANT_BYTES: usize = 384;
    pub(super) const LEASE: usize = 128;
    pub(super) const END: u64 = 409_600;
}

/// The shared words of a stream, for a process that means no good.
struct Vandal {
    bytes: SharedBytes,
    random: u64,
}

impl Vandal {
    fn new(scratch: &Scratch, name: &str, seed: u64) -> Self {
        let name = SegmentName::new(name).expect("a valid name");
        let kind = Kind { magic: *b"STSTREAM", version: 1 };
        let segment = Segment::open(scratch, &name, Access::ReadWrite, kind).expect("a stream");
        let bytes = segment.map(0..place::END, Access::ReadWrite).expect("its control memory");
        Self { bytes, random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.bytes.at(at).expect("a word of it")
    }

    fn store(&self, at: usize, value: u64) {
        self.word(at).store(value, Ordering::SeqCst);
    }

    fn number(&mut self) -> u64 {
        // xorshift64*: a failure names its seed, and is the same again.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }

    /// What a word may hold that nobody ever wrote, and what is one step beside what somebody did.
    fn value(&mut self, before: u64) -> u64 {
        match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => before ^ (1 << self.below(64)),
            3 => before.wrapping_add(1),
            4 => before | 0xffff_ffff_ffff,
            5 => self.number() >> self.below(64),
            _ => self.number(),
        }
    }

    /// A word that the protocol reads.
    fn target(&mut self) -> usize {
        let within = |vandal: &mut Self, range: Range<usize>| {
            range.start + 8 * vandal.below(range.len() / 8)
        };
        match self.below(9) {
            0 => place::LOCK,
            8 => place::LESSEES + 8 * self.below(2),
            1 => place::ROSTER + 8 * self.below(2),
            2 => within(self, place::WRITER),
            3 | 4 => {
                let slot = place::SLOTS + place::SLOT_BYTES * self.below(4);
                slot + 8 * self.below(3)
            }
            5 | 6 => {
                let entry = place::PARTICIPANTS + place::PARTICIPANT_BYTES * self.below(4);
                entry + [0, 8, 24, 56, place::LEASE, 256][self.below(6)]
            }
            _ => place::CTL,
        }
    }

    fn strike(&mut self) {
        let at = self.target();
        let before = self.word(at).load(Ordering::SeqCst);
        let value = self.value(before);
        self.store(at, value);
    }
}

/// Fails the test if `work` does not come back: a hang is a failure, not a job for the runner.
fn comes_back(what: &str, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let (done, ended) = channel();
        let worker = scope.spawn(move || {
            work();
            let _ = done.send(());
        });
        if ended.recv_timeout(Duration::from_secs(60))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            // A scope would wait for the very thread that hangs.
            abort(what);
        }
        if let Err(panic) = worker.join() {
            panic!("{what}: {panic:?}");
        }
    });
}

fn abort(what: &str) -> ! {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "hangs: {what}");
    std::process::abort();
}

fn soon() -> Wait<'static> {
    Wait::for_at_most(Duration::from_millis(2))
}

fn reader_options(raise: bool) -> ReaderOptions {
    let mut options = ReaderOptions::default();
    if raise {
        options.on_abort = OnAbort::Raise;
        options.on_empty = OnEmpty::Zeros;
        options.spin = Spin::Never;
    }
    options
}

/// Everything that can be done with a stream; results are the caller's, errors are welcome.
fn use_everything(scratch: &Scratch, stream: &Stream, raise: bool) {
    let mut out = [0; 1000];
    let _ = stat(scratch, stream.name());
    let _ = list(scratch);
    let _ = (stream.count(), stream.info());
    let mut reader = stream.reader_with(reader_options(raise));
    let _ = reader.latest().map(|frame| frame.publication().age());
    let _ = reader.read_into(&mut out);
    let _ = reader.next(&soon());
    let _ = reader.next_after(0, &soon()).map(|frame| frame.publication().published());
    let _ = reader.next_into(&mut out, &soon());
    let count = reader.count();
    let _ = reader.wait(count, &soon());
    let _ = wait_any(&mut [&mut reader], &soon());
    let mut leases = Vec::new();
    for on_full in [OnFull::Copy, OnFull::Revoke, OnFull::Wait(Duration::from_millis(2))] {
        if let Ok(lease) = reader.lease(on_full) {
            let _ = (lease.is_revoked(), lease.copy_to(&mut out));
            leases.push(lease);
        }
    }
    let mut writer = stream.writer().expect("a writer");
    let _ = writer.write_with(&[1; 1000], &Stamp::frame_id(1), &soon());
    let _ = locked_many([&mut writer], &soon()).map(|mut locked| locked[0].clear());
    for contents in [Contents::Fresh, Contents::Previous] {
        if let Ok(mut view) = writer.write_view(contents, &soon()) {
            let _ = view.write_at(10, &[2; 100]);
            if contents == Contents::Previous {
                let _ = view.publish(&Stamp::default());
            }
        }
    }
    drop(leases);
}

#[test]
fn garbage_gives_errors() {
    let scratch = Scratch::new();
    for seed in 0..200_u64 {
        let slots = [1, 2, 3, 4][usize::try_from(seed % 4).unwrap()];
        let stream = scratch.small().slots(slots).create("a").unwrap();
        let mut vandal = Vandal::new(&scratch, "a", seed);
        stream.writer().unwrap().write(&[9; 1000]).unwrap();
        comes_back(&format!("seed {seed}"), || {
            for _ in 0..=seed % 7 {
                vandal.strike();
            }
            use_everything(&scratch, &stream, seed % 8 < 4);
        });
        stream.unlink().unwrap();
    }
}

#[test]
fn garbage_that_keeps_coming_gives_errors() {
    let scratch = Scratch::new();
    for slots in [1, 2, 3, 4] {
        let stream = scratch.small().slots(slots).create("a").unwrap();
        let mut vandal = Vandal::new(&scratch, "a", slots as u64);
        let stop = AtomicBool::new(false);
        comes_back(&format!("K = {slots}"), || {
            std::thread::scope(|scope| {
                // Also when what follows panics: the scope waits for its threads.
                let _stop = StopWhenDropped(&stop);
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        vandal.strike();
                        std::thread::yield_now();
                    }
                });
                for round in 0..20 {
                    use_everything(&scratch, &stream, round % 2 == 0);
                }
            });
        });
        stream.unlink().unwrap();
    }
}

struct StopWhenDropped<'a>(&'a AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_count_without_its_frame_is_damage_and_no_reason_to_wait() {
    let scratch = Scratch::new();
    for slots in [2, 3, 8] {
        let stream = scratch.small().slots(slots).create("a").unwrap();
        stream.writer().unwrap().write(&[9; 1000]).unwrap();
        let vandal = Vandal::new(&scratch, "a", 0);
        let mut reader = stream.reader();
        // Two hundred more than there are: no slot has any of them.
        vandal.word(place::CTL).fetch_add(200 << 1, Ordering::SeqCst);
        comes_back("next", || {
            assert_eq!(reader.next(&Wait::forever()).unwrap_err().kind(), ErrorKind::Corrupt);
        });
        stream.unlink().unwrap();
    }
}

#[test]
fn a_ring_of_one_slot_whose_writer_vanished_says_so() {
    let scratch = Scratch::new();
    let stream = scratch.small().slots(1).create("a").unwrap();
    stream.writer().unwrap().write(&[9; 1000]).unwrap();
    let vandal = Vandal::new(&scratch, "a", 0);
    let mut reader = stream.reader();
    // As a writer leaves it that is killed after it marked the slot and before it said so.
    vandal.store(place::SLOTS, (2 << 16) | 1);
    vandal.store(place::SLOTS + 8, 77);
    comes_back("latest", || {
        assert_eq!(reader.latest().unwrap_err().kind(), ErrorKind::Inconsistent);
    });
    // Healed, nobody having written since: still no frame, and still no reason to wait for one.
    let lock: &AtomicU32 = vandal.bytes.at(place::LOCK).unwrap();
    lock.store(6 << 21, Ordering::SeqCst);
    assert!(stream.writer().unwrap().lock(&soon()).unwrap().is_recovered());
    assert_eq!(stream.info().phase, Phase::Crashed);
    comes_back("latest", || {
        assert_eq!(reader.latest().unwrap_err().kind(), ErrorKind::Inconsistent);
    });
    stream.writer().unwrap().write(&[8; 1000]).unwrap();
    assert_eq!(reader.latest().unwrap().bytes(), [8; 1000]);
    stream.unlink().unwrap();
}

#[test]
fn lease_bits_of_nobody_bar_no_writer() {
    let scratch = Scratch::new();
    let stream = scratch.small().slots(4).create("a").unwrap();
    let vandal = Vandal::new(&scratch, "a", 0);
    // In an entry that nobody has: left by a process that died while it took the entry over.
    vandal.store(place::ROSTER + 8, 2);
    let entry = place::PARTICIPANTS + place::PARTICIPANT_BYTES;
    vandal.store(entry + place::LEASE, u64::MAX);
    let mut writer = stream.writer().unwrap();
    for value in 0..10 {
        assert_eq!(writer.write(&[value; 1000]).unwrap(), u64::from(value) + 1);
    }
    assert!(!stream.reader().lease(OnFull::Copy).unwrap().is_copy(), "nobody has leased anything");
    stream.unlink().unwrap();
}
