//! What is known about one frame beside its payload.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::ring::Slot;
use crate::ring::word::Phase;
use crate::sync::{AtomicU64, Ordering};

/// Bytes of user metadata that travel with every frame.
pub const METADATA_BYTES: usize = 64;

const FRAME_ID_GIVEN: u64 = 1;
const ACQUIRED_GIVEN: u64 = 2;

/// What a writer says about a frame; everything is optional.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The caller's own number for the frame, such as a camera's. Left out, the previous one stays.
    pub frame_id: Option<u64>,
    /// When the data was taken, in nanoseconds since the UNIX epoch.
    pub acquired_unix_ns: Option<i64>,
    /// 64 bytes of the caller's; zero when left out.
    pub metadata: Option<[u8; METADATA_BYTES]>,
}

impl Stamp {
    /// A stamp with a frame id.
    pub fn frame_id(frame_id: u64) -> Self {
        Self { frame_id: Some(frame_id), ..Self::default() }
    }
}

/// One completed publication, as a reader saw it. All fields belong to the same frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Publication {
    /// How many frames the stream had published with this one: the first has 1.
    pub count: u64,
    /// The writer's number for the frame; the last one given when this frame came without, 0 when
    /// none was ever given.
    pub frame_id: u64,
    /// Whether `frame_id` was given with this very frame.
    pub has_own_frame_id: bool,
    /// Wall-clock time of publication, nanoseconds since the UNIX epoch. The clock may be stepped.
    pub published_unix_ns: i64,
    /// Monotonic time of publication, nanoseconds (`CLOCK_MONOTONIC`, shared by all processes of
    /// the host).
    pub published_monotonic_ns: u64,
    /// When the data was taken, if the writer said so, nanoseconds since the UNIX epoch.
    pub acquired_unix_ns: Option<i64>,
    /// The writer's 64 bytes.
    pub metadata: [u8; METADATA_BYTES],
    /// Frames published since this reader's previous one that it did not see.
    pub missed: u64,
    /// What the stream was doing when the frame was read. After an aborted or crashed write this is
    /// [`Phase::Aborted`] or [`Phase::Crashed`], and the frame is the last good one.
    pub phase: Phase,
}

impl Publication {
    /// The even number that identifies this publication: twice its count.
    pub fn sequence(&self) -> u64 {
        self.count * 2
    }

    /// Wall-clock time of publication.
    pub fn published(&self) -> SystemTime {
        match u64::try_from(self.published_unix_ns) {
            Ok(ns) => UNIX_EPOCH + Duration::from_nanos(ns),
            Err(_) => UNIX_EPOCH - Duration::from_nanos(self.published_unix_ns.unsigned_abs()),
        }
    }

    /// Time since publication, by the monotonic clock.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(monotonic_ns().saturating_sub(self.published_monotonic_ns))
    }
}

/// The words of a slot that describe its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Description {
    frame_id: u64,
    published_unix_ns: u64,
    published_monotonic_ns: u64,
    acquired_unix_ns: u64,
    given: u64,
    metadata: [u64; METADATA_BYTES / 8],
}

impl Description {
    /// Copies the words; whether they belong together is for the slot's sequence word to say.
    pub(crate) fn load(slot: &Slot) -> Self {
        Self {
            frame_id: slot.frame_id.load(Ordering::Relaxed),
            published_unix_ns: slot.published_unix_ns.load(Ordering::Relaxed),
            published_monotonic_ns: slot.published_monotonic_ns.load(Ordering::Relaxed),
            acquired_unix_ns: slot.acquired_unix_ns.load(Ordering::Relaxed),
            given: slot.given.load(Ordering::Relaxed),
            metadata: std::array::from_fn(|i| slot.metadata[i].load(Ordering::Relaxed)),
        }
    }

    /// Describes the frame in `slot`, which the caller has claimed. `previous_frame_id` stays if
    /// the stamp has none.
    pub(crate) fn store(slot: &Slot, stamp: &Stamp, previous_frame_id: u64) {
        let mut given = 0;
        let mut frame_id = previous_frame_id;
        if let Some(id) = stamp.frame_id {
            given |= FRAME_ID_GIVEN;
            frame_id = id;
        }
        if stamp.acquired_unix_ns.is_some() {
            given |= ACQUIRED_GIVEN;
        }
        slot.frame_id.store(frame_id, Ordering::Relaxed);
        slot.acquired_unix_ns
            .store(stamp.acquired_unix_ns.unwrap_or(0).cast_unsigned(), Ordering::Relaxed);
        slot.given.store(given, Ordering::Relaxed);
        let metadata = stamp.metadata.unwrap_or([0; METADATA_BYTES]);
        for (word, bytes) in slot.metadata.iter().zip(metadata.as_chunks::<8>().0) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        let now = monotonic_ns();
        slot.published_unix_ns.store(WALL_CLOCK.unix_ns(now).cast_unsigned(), Ordering::Relaxed);
        slot.published_monotonic_ns.store(now, Ordering::Relaxed);
    }

    /// Describes the frame in `slot` as the one in another.
    pub(crate) fn copy(slot: &Slot, from: &Slot) {
        for (to, from) in [
            (&slot.frame_id, &from.frame_id),
            (&slot.published_unix_ns, &from.published_unix_ns),
            (&slot.published_monotonic_ns, &from.published_monotonic_ns),
            (&slot.acquired_unix_ns, &from.acquired_unix_ns),
            (&slot.given, &from.given),
        ]
        .into_iter()
        .chain(slot.metadata.iter().zip(&from.metadata))
        {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    pub(crate) fn publication(&self, count: u64, missed: u64, phase: Phase) -> Publication {
        let mut metadata = [0; METADATA_BYTES];
        for (bytes, word) in metadata.as_chunks_mut::<8>().0.iter_mut().zip(self.metadata) {
            *bytes = word.to_ne_bytes();
        }
        Publication {
            count,
            frame_id: self.frame_id,
            has_own_frame_id: self.given & FRAME_ID_GIVEN != 0,
            published_unix_ns: self.published_unix_ns.cast_signed(),
            published_monotonic_ns: self.published_monotonic_ns,
            acquired_unix_ns: (self.given & ACQUIRED_GIVEN != 0)
                .then_some(self.acquired_unix_ns.cast_signed()),
            metadata,
            missed,
            phase,
        }
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Nanoseconds of `CLOCK_REALTIME` since the UNIX epoch.
fn unix_ns() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

static WALL_CLOCK: WallClock = WallClock::new();

/// How far the wall clock is ahead of the monotonic one, as this process last saw it.
///
/// Both clocks run at the same rate, also while that rate is being corrected; they part only when
/// somebody sets the time. So one clock is read for a frame instead of two, which is a sixth of what
/// publishing costs, and a step of the wall clock shows after [`WallClock::TRUSTED_NS`] at the
/// latest.
struct WallClock {
    /// A signed number.
    ahead_ns: AtomicU64,
    checked_ns: AtomicU64,
}

impl WallClock {
    const TRUSTED_NS: u64 = 10_000_000;
    /// An offset whose three readings took longer than this was interrupted: used by nobody else.
    const READINGS_NS: u64 = 1_000;

    const fn new() -> Self {
        // Before the first check: longer ago than anything is trusted.
        Self { ahead_ns: AtomicU64::new(0), checked_ns: AtomicU64::new(u64::MAX / 2) }
    }

    /// The wall-clock time at a moment of the monotonic clock that has just been read.
    #[inline]
    fn unix_ns(&self, monotonic_ns: u64) -> i64 {
        // Acquire: the offset is at least as new as the time of its check. Wrapping: another thread
        // may have checked after our reading, and then the offset is as good as new.
        let checked = self.checked_ns.load(Ordering::Acquire);
        let age = monotonic_ns.wrapping_sub(checked).cast_signed().unsigned_abs();
        if age <= Self::TRUSTED_NS {
            return monotonic_ns.wrapping_add(self.ahead_ns.load(Ordering::Relaxed)).cast_signed();
        }
        self.check()
    }

    #[cold]
    fn check(&self) -> i64 {
        let before = monotonic_ns();
        let wall = unix_ns();
        let after = monotonic_ns();
        if after - before <= Self::READINGS_NS {
            let middle = before + (after - before) / 2;
            self.ahead_ns.store(wall.cast_unsigned().wrapping_sub(middle), Ordering::Relaxed);
            self.checked_ns.store(middle, Ordering::Release);
        }
        wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trusted_offset_gives_the_wall_clock() {
        let clock = WallClock::new();
        let error = WallClock::READINGS_NS.cast_signed();
        for _ in 0..10_000 {
            let before = unix_ns();
            let told = clock.unix_ns(monotonic_ns());
            let after = unix_ns();
            assert!(before - error <= told && told <= after + error, "{before} {told} {after}");
        }
    }

    #[test]
    fn an_offset_is_trusted_for_a_while_only() {
        let clock = WallClock::new();
        let now = monotonic_ns();
        clock.ahead_ns.store(5, Ordering::Relaxed);
        clock.checked_ns.store(now, Ordering::Relaxed);
        assert_eq!(
            clock.unix_ns(now + WallClock::TRUSTED_NS),
            (now + WallClock::TRUSTED_NS + 5).cast_signed()
        );
        // Checked by another thread since the caller read its clock.
        assert_eq!(clock.unix_ns(now - 3), (now + 2).cast_signed());
        let late = clock.unix_ns(now + WallClock::TRUSTED_NS + 1);
        assert!(late > 1_000_000_000_000_000_000, "asked the wall clock: {late}");
    }
}
