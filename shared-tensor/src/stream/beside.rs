//! Writing a mirrored stream without CUDA, beside devices that have work with its slots.
//!
//! The frame goes to the file alone; devices that read it copy it from there. So a process may only fill a
//! slot of the file that no device copies to or from any more, and waits if there is none.

use std::time::{Duration, Instant};

use crate::ring::device::{DeviceWords as _, is_settled};
use crate::ring::word::SlotState;
use crate::ring::{Claim, Found, Liveness as _, RingLoads as _, published_until};
use crate::stream::device::seat;
use crate::stream::memory::StreamMemory;
use crate::stream::tenure::Tenure;
use crate::stream::wait::is_lost;
use crate::sync::Ordering;

/// How long a device may keep a process from writing. The lock is held meanwhile.
const AT_MOST: Duration = Duration::from_secs(10);
/// How often devices are looked at.
const LOOK: (Duration, Duration) = (Duration::from_micros(20), Duration::from_millis(1));
/// How often one asks after the living, which takes system calls.
const PROBE_EVERY: Duration = Duration::from_millis(2);

/// Waiting for devices, for a while.
#[derive(Debug)]
pub(super) struct Patience {
    pause: Duration,
    begun: Option<Instant>,
    /// When the living were asked after.
    probed: Option<Instant>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { pause: LOOK.0, begun: None, probed: None }
    }

    /// Sleeps for a moment. `false`: it was long enough.
    pub(super) fn lasts(&mut self, tenure: Tenure<'_>) -> bool {
        let now = Instant::now();
        if now - *self.begun.get_or_insert(now) > AT_MOST {
            return false;
        }
        if self.probed.is_none_or(|last| now - last >= PROBE_EVERY) {
            self.probed = Some(now);
            // A device that reads for nobody harms nobody.
            let peers = tenure.member.peers();
            seat::release_uses_of_the_dead(&tenure.member.memory, |who| peers.has_ended(who));
        }
        std::thread::sleep(self.pause);
        self.pause = (self.pause * 2).min(LOOK.1);
        true
    }
}

/// Where a process finds the frame that the next one starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Previous {
    /// In another slot.
    Slot(usize),
    /// Where the next one is to be.
    InPlace,
    /// Nowhere: it was never there, or is lost.
    Nowhere,
}

impl Tenure<'_> {
    /// Finds the newest frame in the file, for which devices may have to be waited for. `None`: in vain.
    pub(super) fn previous_in_file(self, claim: &Claim) -> Option<Previous> {
        let memory = &*self.member.memory;
        let was_there = claim.previous.state() == SlotState::Ready
            && is_settled(memory, claim.slot, claim.previous);
        let ctl = memory.ctl(Ordering::Acquire);
        let slot = claim.newest();
        let newest = Found { ctl, slot, seq: memory.seq(slot, Ordering::Acquire) };
        let mut patience = Patience::new();
        while !memory.is_in_file(slot, newest.seq) {
            if is_lost(self.attachment, &newest) {
                return Some(last_left(memory, &newest, was_there.then_some(claim)));
            }
            if !patience.lasts(self) {
                return None;
            }
        }
        Some(Previous::Slot(slot))
    }
}

/// The last frame that is in the file, if the newest never will be.
fn last_left(memory: &StreamMemory, newest: &Found, overwritten: Option<&Claim>) -> Previous {
    let last = published_until(memory, newest.ctl)
        .filter(|found| memory.is_in_file(found.slot, found.seq))
        .max_by_key(|found| found.seq.frame());
    let in_place = overwritten.map(|claim| claim.previous.frame());
    match last {
        Some(last) if in_place.is_none_or(|frame| frame < last.seq.frame()) => {
            Previous::Slot(last.slot)
        }
        _ if in_place.is_some() => Previous::InPlace,
        _ => Previous::Nowhere,
    }
}

/// Says that the frame of a claimed slot is in the file: before it is published, so that whoever finds it
/// published finds it there.
#[inline]
pub(super) fn is_written(memory: &StreamMemory, claim: &Claim) {
    if let Some(word) = memory.mirrored(claim.slot) {
        word.store(claim.busy.ticket(), Ordering::Release);
    }
}
