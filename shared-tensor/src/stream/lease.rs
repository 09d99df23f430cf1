//! Leases: reading a frame in place while writers keep off it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use shm_core::SharedBytes;
use shm_lock::Wait;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::{LeaseWord, SLOTS_MAX};
use crate::ring::{
    self, Found, Identity, LeaseRefusal, Pins, Ring, RingLoads, leased_mask, lessees, pin, promote,
    reclaim_ended_lessees,
};
use crate::stream::attachment::{Attachment, Member};
use crate::stream::copy;
use crate::stream::counters::add;
use crate::stream::description::Publication;
use crate::sync::{Ordering, fence};
use crate::tensor::{DType, Element};

/// What a lease does when the ring has no slot to spare.
///
/// At most K - 3 distinct frames of a ring of K slots are leased at once (in memory of the host 1 at
/// K = 3, 0 below), so that a writer never waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// Answer with a private copy of the frame. [`Lease::is_copy`] says so.
    #[default]
    Copy,
    /// Wait for a slot, up to this long, then fail with a timeout. A ring that can spare none at all
    /// answers with a copy.
    Wait(Duration),
    /// Take the slot of the oldest leased frame away. Its holders are told by
    /// [`Lease::is_revoked`]; what they read afterwards may be another frame.
    Revoke,
}

impl OnFull {
    /// How long a call waits: as long as this says, and no longer than `wait`.
    pub(crate) fn patience<'w>(self, wait: &Wait<'w>) -> Wait<'w> {
        match self {
            Self::Wait(time) => wait.no_later_than(Instant::now().checked_add(time)),
            Self::Copy | Self::Revoke => *wait,
        }
    }
}

/// The leases of one process: how many handles share each slot.
#[derive(Debug, Default)]
pub(crate) struct LeaseBook {
    pins: Pins,
    entries: [Entry; SLOTS_MAX],
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// The slot's sequence word when it was leased.
    seq: u64,
    holders: u32,
}

/// How a try to lease ended.
pub(crate) enum Attempt {
    Leased,
    /// The frame is gone: look for the newest again.
    Gone,
    Full,
}

/// Pins the slot of `found` for this process, softly.
pub(crate) fn try_pin(member: &Member, me: Identity, found: &Found) -> bool {
    pin(&*member.memory, &mut member.book().pins, me, found)
}

/// Leases the slot of `found` for this process, or shares the lease it has, if no more than `budget`
/// distinct slots are leased then.
pub(crate) fn try_lease(member: &Member, me: Identity, budget: usize, found: &Found) -> Attempt {
    let memory = &*member.memory;
    let mut book = member.book();
    let LeaseBook { pins, entries } = &mut *book;
    let entry = &mut entries[found.slot];
    let held = LeaseWord(memory.lease(me.entry).load(Ordering::Acquire)).is_held(found.slot);
    if held && entry.holders > 0 && entry.seq == found.seq.0 {
        entry.holders += 1;
        return Attempt::Leased;
    }
    if !pin(memory, pins, me, found) {
        return Attempt::Gone;
    }
    let mut outcome = promote(memory, pins, me, found.slot, budget);
    if outcome == Err(LeaseRefusal::BudgetSpent)
        && reclaim_ended_lessees(memory, &member.peers()) > 0
    {
        if !pin(memory, pins, me, found) {
            return Attempt::Gone;
        }
        outcome = promote(memory, pins, me, found.slot, budget);
    }
    match outcome {
        Ok(()) => {
            // A revoked lease of the same frame comes back to life; one of an older frame is over.
            let survivors = if entry.seq == found.seq.0 { entry.holders } else { 0 };
            *entry = Entry { seq: found.seq.0, holders: survivors + 1 };
            Attempt::Leased
        }
        Err(LeaseRefusal::Revoked) => Attempt::Gone,
        Err(LeaseRefusal::BudgetSpent) => Attempt::Full,
    }
}

/// Takes the slot of the oldest leased frame from all who hold it. `false`: nothing is leased.
pub(crate) fn revoke_oldest(member: &Member) -> bool {
    let memory = &*member.memory;
    let mask = leased_mask(memory);
    let newest = memory.ctl(Ordering::Acquire).slot();
    let oldest = (0..memory.slots())
        .filter(|&slot| mask & (1 << slot) != 0 && slot != newest)
        .min_by_key(|&slot| memory.seq(slot, Ordering::Acquire).frame())
        .or_else(|| (mask & (1 << newest) != 0).then_some(newest));
    let Some(slot) = oldest else { return false };
    let bits = LeaseWord::held_bit(slot) | LeaseWord::pending_bit(slot);
    // SYNC: revocation. A writer takes the slot after this exchange; a lessee that copied any of its
    // bytes finds the held bit gone.
    for entry in lessees(memory) {
        let word = memory.lease(entry);
        let before = LeaseWord(word.fetch_and(!bits, Ordering::AcqRel));
        if before.is_held(slot) {
            add(&memory.record(entry).reader.0.leases_revoked, 1);
        }
    }
    true
}

/// A frame read in place, or a private copy of it when the ring had no slot to spare.
///
/// While it lives no writer that keeps the protocol touches the bytes (unless somebody leases with
/// [`OnFull::Revoke`]). Dropping it is one atomic operation. It outlives its reader, its stream and
/// the stream's name.
#[derive(Debug)]
pub struct Lease {
    publication: Publication,
    dtype: DType,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    Slot(SlotLease),
    Copy(Box<[u8]>),
}

#[derive(Debug)]
struct SlotLease {
    attachment: Arc<Attachment>,
    owner: Identity,
    process: u64,
    slot: usize,
    seq: u64,
}

impl Lease {
    pub(crate) fn of_slot(
        attachment: Arc<Attachment>,
        owner: Identity,
        found: &Found,
        publication: Publication,
    ) -> Self {
        let process = shm_lock::process_token();
        let slot = found.slot;
        let dtype = attachment.layout.dtype;
        let storage =
            Storage::Slot(SlotLease { attachment, owner, process, slot, seq: found.seq.0 });
        Self { publication, dtype, storage }
    }

    pub(crate) fn of_copy(bytes: Box<[u8]>, dtype: DType, publication: Publication) -> Self {
        Self { publication, dtype, storage: Storage::Copy(bytes) }
    }

    /// Which frame this is.
    pub fn publication(&self) -> &Publication {
        &self.publication
    }

    /// Whether this is a private copy: the ring had no slot to spare.
    pub fn is_copy(&self) -> bool {
        matches!(self.storage, Storage::Copy(_))
    }

    /// Whether the slot was taken away, so that the bytes may be those of another frame. Also true
    /// in a forked child, which inherits the view but not the lease.
    pub fn is_revoked(&self) -> bool {
        match &self.storage {
            Storage::Slot(lease) => lease.is_revoked(),
            Storage::Copy(_) => false,
        }
    }

    /// Whether this is a forked child's copy of its parent's lease.
    pub(crate) fn is_inherited(&self) -> bool {
        match &self.storage {
            Storage::Slot(lease) => shm_lock::process_token() != lease.process,
            Storage::Copy(_) => false,
        }
    }

    /// Number of bytes of the frame.
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::Slot(lease) => lease.attachment.layout.payload_bytes,
            Storage::Copy(bytes) => bytes.len(),
        }
    }

    /// Whether the frame has no bytes: never, as shapes have none of size 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the frame's bytes are. Valid while the lease lives.
    pub fn as_ptr(&self) -> *const u8 {
        match &self.storage {
            Storage::Slot(lease) => lease.bytes_start(),
            Storage::Copy(bytes) => bytes.as_ptr(),
        }
    }

    /// Copies the frame out.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if `out` is not as long as the frame;
    /// [`ErrorKind::Inconsistent`] if the lease was revoked, before or during the copy.
    pub fn copy_to(&self, out: &mut [u8]) -> Result<()> {
        if out.len() != self.len() {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("the frame has {} bytes, the destination {}", self.len(), out.len()),
            ));
        }
        self.read_at(0, out)
    }

    /// Copies a part of the frame out: `out.len()` bytes from `offset` on.
    ///
    /// # Errors
    /// As [`copy_to`](Self::copy_to).
    pub fn read_at(&self, offset: usize, out: &mut [u8]) -> Result<()> {
        if offset.checked_add(out.len()).is_none_or(|end| end > self.len()) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "{} bytes at offset {offset} are not in a frame of {} bytes",
                    out.len(),
                    self.len()
                ),
            ));
        }
        match &self.storage {
            Storage::Copy(bytes) => {
                out.copy_from_slice(&bytes[offset..offset + out.len()]);
                Ok(())
            }
            Storage::Slot(lease) => lease.read_at(offset, out, self.publication.count),
        }
    }

    /// The frame's elements, copied.
    ///
    /// # Errors
    /// As [`copy_to`](Self::copy_to); also [`ErrorKind::InvalidArgument`] if `T` is not the stream's
    /// element type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("the frame has elements of {}, not {}", self.dtype, T::DTYPE),
            ));
        }
        let mut elements = vec![T::new_zeroed(); self.len() / size_of::<T>()];
        self.copy_to(zerocopy::IntoBytes::as_mut_bytes(elements.as_mut_slice()))?;
        Ok(elements)
    }

    /// The frame's bytes as shared memory, for bounded copies; `None` for a private copy.
    ///
    /// # Errors
    /// None in practice: the range was checked when the stream was opened.
    pub fn shared_bytes(&self) -> Result<Option<SharedBytes>> {
        match &self.storage {
            Storage::Copy(_) => Ok(None),
            Storage::Slot(lease) => {
                let start = lease.attachment.layout.slot_start(lease.slot);
                let end = start + lease.attachment.layout.payload_bytes;
                lease.attachment.readable()?.slice(start..end).map(Some).map_err(out_of_range)
            }
        }
    }
}

impl SlotLease {
    fn read_at(&self, offset: usize, out: &mut [u8], count: u64) -> Result<()> {
        let start = self.attachment.layout.slot_start(self.slot) + offset;
        let destination = copy::Destination::Initialised(out);
        copy::from_shared(self.attachment.readable()?, start, destination)
            .map_err(out_of_bounds)?;
        // SYNC: revocation. The copy comes before the look at whether the slot was still ours.
        fence(Ordering::Acquire);
        if self.is_revoked() {
            let name = self.attachment.name();
            return Err(Error::new(
                ErrorKind::Inconsistent,
                format!("the lease of frame {count} of stream `{name}` was revoked"),
            ));
        }
        Ok(())
    }

    fn is_revoked(&self) -> bool {
        if shm_lock::process_token() != self.process {
            return true;
        }
        let Ok(member) = self.attachment.member() else { return true };
        let word = LeaseWord(member.memory.lease(self.owner.entry).load(Ordering::Acquire));
        // A held bit alone could be that of a later lease of the same slot. The slot's own word is
        // no witness: a writer that tries a leased slot marks it for a moment, then backs off.
        !word.is_held(self.slot) || member.book().entries[self.slot].seq != self.seq
    }

    fn bytes_start(&self) -> *const u8 {
        let frames =
            self.attachment.readable().map_or(std::ptr::null(), |it| it.as_ptr().cast_const());
        frames.wrapping_add(self.attachment.layout.slot_start(self.slot))
    }
}

impl Drop for SlotLease {
    fn drop(&mut self) {
        // A forked child inherits the value, not the lease.
        if shm_lock::process_token() != self.process {
            return;
        }
        let Ok(member) = self.attachment.member() else { return };
        let mut book = member.book();
        let entry = &mut book.entries[self.slot];
        // After a revocation the slot may be leased anew, for another frame.
        if entry.seq != self.seq || entry.holders == 0 {
            return;
        }
        entry.holders -= 1;
        if entry.holders == 0 {
            ring::release(&*member.memory, self.owner, self.slot);
        }
    }
}

pub(crate) fn out_of_bounds(source: shm_core::ViewError) -> Error {
    Error::with_source(ErrorKind::Corrupt, format!("payload: {source}"), source)
}

fn out_of_range(source: shm_core::OutOfBounds) -> Error {
    Error::with_source(ErrorKind::Corrupt, format!("payload: {source}"), source)
}
