//! What the holder of a stream's lock does to its ring, whatever type holds the lock.

use shm_core::SharedBytes;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::Phase;
use crate::ring::{self, Claim, Filler, Identity, Ring, RingLoads, WriteFault};
use crate::stream::attachment::{Attachment, Member};
use crate::stream::beside::{self, Patience, Previous};
use crate::stream::copy;
use crate::stream::counters::add_as_owner;
use crate::stream::description::{Description, Stamp};
use crate::stream::layout::WriterCounters;
use crate::stream::lease::out_of_bounds;
use crate::stream::writer::Contents;
use crate::sync::Ordering;

/// The time during which this process holds the lock. The caller holds it as long as it has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenure<'a> {
    pub(crate) attachment: &'a Attachment,
    pub(crate) member: &'a Member,
}

impl<'a> Tenure<'a> {
    /// The first act under every lock: a writer that died, or left without a word, is cleaned up
    /// after. Costs one load when there is nothing to do.
    #[inline]
    pub(crate) fn begin(self, recovered: bool) {
        let left_open = self.member.memory.ctl(Ordering::Acquire).phase() == Phase::Writing;
        if recovered || left_open {
            self.heal();
        }
        self.attachment.note_held();
    }

    #[cold]
    fn heal(self) {
        ring::heal(&*self.member.memory, &self.member.peers());
        add_as_owner(&self.counters().recoveries, 1);
        self.wake();
    }

    /// Claims a slot for the next frame, to be filled by this process. Beside devices that have work with
    /// every slot it waits for one.
    #[inline]
    pub(crate) fn claim(self) -> Result<Claim> {
        let me = self.member.me()?;
        match self.claim_for(me, Filler::Host) {
            Err(WriteFault::InUse) => self.claim_when_free(me),
            claimed => claimed.map_err(|fault| self.fault(fault)),
        }
    }

    /// Claims a slot for the next frame, to be filled by a device.
    pub(crate) fn claim_for_device(self) -> Result<Claim> {
        let me = self.member.me()?;
        self.claim_for(me, Filler::Device).map_err(|fault| self.fault(fault))
    }

    #[cold]
    fn claim_when_free(self, me: Identity) -> Result<Claim> {
        let mut patience = Patience::new();
        loop {
            match self.claim_for(me, Filler::Host) {
                Err(WriteFault::InUse) if patience.lasts(self) => {}
                claimed => return claimed.map_err(|fault| self.fault(fault)),
            }
        }
    }

    #[inline]
    fn claim_for(self, me: Identity, filler: Filler) -> Result<Claim, WriteFault> {
        let mut turn = self.attachment.turn();
        let claim = ring::claim(&*self.member.memory, me, filler, &self.member.peers())?;
        if let Some(turn) = &mut turn {
            turn.open = (filler == Filler::Host).then_some(claim.slot);
        }
        drop(turn);
        if claim.revoked != 0 {
            add_as_owner(&self.counters().pins_revoked, u64::from(claim.revoked));
        }
        if claim.skipped != 0 {
            add_as_owner(&self.counters().slots_skipped, u64::from(claim.skipped));
        }
        Ok(claim)
    }

    /// Gives a claimed slot the contents that its writer wants to start from.
    pub(crate) fn fill(self, bytes: &SharedBytes, claim: &Claim, contents: Contents) -> Result<()> {
        let layout = &self.attachment.layout;
        if contents == Contents::Fresh {
            return Ok(());
        }
        // Not read from the control word again: what the claim has was checked.
        let newest = match claim.newest() {
            _ if layout.is_mirrored() => match self.previous_in_file(claim) {
                Some(Previous::Slot(slot)) => slot,
                Some(Previous::InPlace) => return Ok(()),
                Some(Previous::Nowhere) => {
                    let start = self.start(claim);
                    let frame = start..start + layout.payload_bytes;
                    return bytes.fill(frame, 0).map_err(out_of_bounds);
                }
                None => return Err(self.fault(WriteFault::InUse)),
            },
            slot if slot == claim.slot => return Ok(()),
            slot => slot,
        };
        let source = layout.slot_start(newest);
        let source = source..source + layout.payload_bytes;
        let frames = self.attachment.readable()?;
        bytes.copy_from(self.start(claim), frames, source).map_err(out_of_bounds)
    }

    /// Where the claimed slot starts in the ring.
    pub(crate) fn start(self, claim: &Claim) -> usize {
        self.attachment.layout.slot_start(claim.slot)
    }

    /// Copies bytes into the claimed slot from `offset` on.
    pub(crate) fn write_at(
        self,
        shared: &SharedBytes,
        claim: &Claim,
        offset: usize,
        bytes: &[u8],
    ) -> Result<()> {
        let frame = self.attachment.layout.payload_bytes;
        if offset.checked_add(bytes.len()).is_none_or(|end| end > frame) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} bytes at offset {offset} do not fit a frame of {frame} bytes",
                    bytes.len()
                ),
            ));
        }
        copy::into_shared(shared, self.start(claim) + offset, bytes).map_err(out_of_bounds)
    }

    /// Publishes what is in the claimed slot and wakes whoever waits.
    #[inline]
    pub(crate) fn commit(self, claim: &Claim, stamp: &Stamp) -> Result<u64> {
        let mut turn = self.attachment.turn();
        let memory = &*self.member.memory;
        let frame_id = match stamp.frame_id {
            Some(_) => 0,
            None => memory.slot(claim.newest()).frame_id.load(Ordering::Relaxed),
        };
        Description::store(memory.slot(claim.slot), stamp, frame_id);
        let by_host = claim.filler == Filler::Host;
        if by_host {
            beside::is_written(memory, claim);
        }
        let committed = ring::commit(memory, claim);
        if let Some(turn) = &mut turn {
            turn.open = None;
        }
        drop(turn);
        let waiters = committed.map_err(|fault| self.fault(fault))?;
        let counters = self.counters();
        add_as_owner(&counters.frames, 1);
        add_as_owner(&counters.bytes, self.attachment.layout.payload_bytes as u64);
        self.wake_if(waiters);
        if by_host {
            memory.tell_arrival();
        }
        Ok(claim.count)
    }

    /// Gives the claimed slot up.
    pub(crate) fn abort(self, claim: &Claim) {
        if let Some(mut turn) = self.attachment.turn() {
            turn.open = None;
        }
        // A fenced writer has nothing to give up: whoever took over has done it.
        if let Ok(waiters) = ring::abort(&*self.member.memory, claim) {
            add_as_owner(&self.counters().aborts, 1);
            self.wake_if(waiters);
            self.member.memory.tell_arrival();
        }
    }

    #[inline]
    fn wake_if(self, waiters: bool) {
        if waiters || self.attachment.layout.always_wakes() {
            add_as_owner(&self.counters().wakes, 1);
            self.wake_for_publication();
        }
    }

    /// Wakes everybody who waits.
    pub(crate) fn wake(self) {
        self.wake_for_publication();
        self.member.memory.tell_arrival();
    }

    fn wake_for_publication(self) {
        shm_lock::park::wake_all_low_half(self.member.memory.ctl_word());
    }

    #[inline]
    fn counters(self) -> &'a WriterCounters {
        &self.member.memory.shared.control().writer.0
    }

    #[cold]
    fn fault(self, fault: WriteFault) -> Error {
        let name = self.attachment.name();
        let (kind, message) = match fault {
            WriteFault::Fenced => {
                add_as_owner(&self.counters().fenced, 1);
                (
                    ErrorKind::Fenced,
                    format!(
                        "this process was declared dead while it wrote to stream `{name}`: the \
                         frame was dropped, write again"
                    ),
                )
            }
            WriteFault::Exhausted => (
                ErrorKind::NoSpace,
                format!(
                    "no slot of stream `{name}` came free: a process holds more slots than the \
                     protocol allows; unlink and create the stream anew"
                ),
            ),
            WriteFault::InUse => (
                ErrorKind::Timeout,
                format!(
                    "devices have work with every slot of stream `{name}` that a process without \
                     CUDA could write now, for longer than that waits: write again, or create the \
                     stream with more slots"
                ),
            ),
            WriteFault::CountExhausted => (
                ErrorKind::NoSpace,
                format!("stream `{name}` has published 2^47 frames: create it anew"),
            ),
            WriteFault::Damaged => (
                ErrorKind::Corrupt,
                format!(
                    "the control page of stream `{name}` was overwritten: unlink and create it \
                     anew"
                ),
            ),
        };
        Error::new(kind, message)
    }
}

/// # Errors
/// [`ErrorKind::InvalidArgument`] if a payload has not exactly the bytes of a frame.
#[inline]
pub(crate) fn check_bytes(attachment: &Attachment, given: usize) -> Result<()> {
    let layout = &attachment.layout;
    if given == layout.payload_bytes {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!(
            "stream `{}` expects {} bytes ({}{}), got {given}",
            attachment.name(),
            layout.payload_bytes,
            layout.dtype,
            layout.shape
        ),
    ))
}

/// # Errors
/// [`ErrorKind::Fenced`] in a forked child of the process that took the lock.
#[inline]
pub(crate) fn check_process(attachment: &Attachment, is_this: bool) -> Result<()> {
    if is_this {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Fenced,
        format!(
            "the lock of stream `{}` belongs to the process that this one was forked from: take \
             it here before writing",
            attachment.name()
        ),
    ))
}

#[cold]
pub(crate) fn lock_error(attachment: &Attachment, source: shm_lock::AcquireError) -> Error {
    let kind = match source {
        shm_lock::AcquireError::Timeout { .. } | shm_lock::AcquireError::WouldBlock { .. } => {
            ErrorKind::Timeout
        }
        shm_lock::AcquireError::Interrupted => ErrorKind::Interrupted,
        shm_lock::AcquireError::Join(source) => {
            return crate::stream::attachment::join_error(source);
        }
        _ => ErrorKind::Os,
    };
    let message = format!("cannot lock stream `{}`: {source}", attachment.name());
    Error::with_source(kind, message, source)
}
