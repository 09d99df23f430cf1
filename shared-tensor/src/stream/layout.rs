//! What a stream looks like in memory: the only file of the stream engine with `repr(C)`.
//!
//! `docs/LAYOUT.md` shows the same bytes with their history; a test compares the two. Offsets are
//! bytes from the start of the file. The first 512 bytes are `shm-core`'s object header.

use std::mem::{align_of, offset_of, size_of};
use std::ops::Range;

use cuda_ipc::ChunkLabel;
use shm_core::Kind;
use shm_lock::{LockWord, Participant, Roster};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, ErrorKind, Result};
use crate::ring::Slot;
use crate::ring::word::{SLOTS_MAX, lease_budget};
use crate::stream::place::{Place, PlaceWords};
use crate::sync::AtomicU64;
use crate::tensor::{DIMENSIONS_MAX, DType, Shape};

/// Marks a segment as a stream; the version is that of this file.
pub(crate) const KIND: Kind = Kind { magic: *b"STSTREAM", version: 1 };

/// Where the stream's own immutable header starts.
pub(crate) const HEADER_OFFSET: usize = shm_core::HEADER_BYTES as usize;
/// Where the control page starts: the first byte that changes after creation.
pub(crate) const CONTROL_OFFSET: usize = 4096;
/// Where the table of participants starts.
pub(crate) const PARTICIPANTS_OFFSET: usize = 16384;
/// End of the control memory that exists from the start: the first page of participants included, so
/// that the first few to attach have nothing to reserve.
pub(crate) const RESERVED_AT_CREATION: usize = PARTICIPANTS_OFFSET + PAGE;
/// Entries of the table of participants; further pages of it exist once somebody claims an entry there.
pub(crate) const PARTICIPANTS: usize = shm_lock::PARTICIPANTS_MAX;
/// End of the participants, rounded to pages: what is mapped as control memory.
pub(crate) const CONTROL_END: usize =
    (PARTICIPANTS_OFFSET + PARTICIPANTS * size_of::<ParticipantRecord>()).next_multiple_of(PAGE);
/// Of CUDA streams: where what devices write starts, a page that is registered with the driver.
pub(crate) const DEVICE_PAGE_OFFSET: usize = CONTROL_OFFSET + offset_of!(Control, device);
/// Of CUDA streams: where the seats start.
pub(crate) const SEATS_OFFSET: usize = CONTROL_END;
/// Of CUDA streams: processes whose devices may have work with the slots at a time.
pub(crate) const SEATS: usize = 32;
/// Streams of a device, of one process, that are told apart.
pub(crate) const LANES_PER_SEAT: usize = 4;
pub(crate) const LANES: usize = SEATS * LANES_PER_SEAT;
/// Of the word that says who sits in a seat: bits for a place in the table of participants.
pub(crate) const SITTER_ENTRY_BITS: u32 = 10;
const SEATS_END: usize = SEATS_OFFSET + SEATS * size_of::<Seat>();

const PAGE: usize = 4096;
const HUGE_PAGE: u64 = 2 << 20;
/// Of CUDA streams: each read leases its slot for a moment, beside which a writer needs one that is not the
/// newest.
pub(crate) const SLOTS_MIN_ON_DEVICE: usize = 3;
/// What slots of less than a page begin at multiples of, on a device: what DLPack asks for.
const SMALL_ON_DEVICE: u64 = 256;

/// `mode` bits of the header.
pub(crate) mod flags {
    /// The file mode lets some class of users read but not write, so a publication always wakes:
    /// such readers cannot say that they are parked.
    pub(crate) const ALWAYS_WAKE: u32 = 1 << 0;
    /// Fewer slots than asked for or than the default, because space was short at creation.
    pub(crate) const STEPPED_DOWN: u32 = 1 << 1;
    /// Of CUDA streams: the file has a ring as well, slot for slot, for processes without CUDA.
    pub(crate) const MIRRORED: u32 = 1 << 2;
    /// Bits that this build understands.
    pub(crate) const KNOWN: u32 = ALWAYS_WAKE | STEPPED_DOWN | MIRRORED;
}

/// The immutable header, at byte 512. Written before the name exists, never after.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) dtype: u32,
    pub(crate) dimensions: u32,
    pub(crate) slots: u32,
    pub(crate) flags: u32,
    pub(crate) payload_bytes: u64,
    pub(crate) slot_stride: u64,
    pub(crate) payload_offset: u64,
    pub(crate) participants_offset: u64,
    pub(crate) participants: u32,
    pub(crate) participant_stride: u32,
    pub(crate) shape: [u64; DIMENSIONS_MAX],
    /// UUID of the GPU that the stream belongs to; zero on CPU.
    pub(crate) device_uuid: [u8; 16],
    /// Where the frames are: 0 in the file, 1 in a chunk of that GPU, 2 in the file though the stream is the
    /// GPU's.
    pub(crate) device_mode: u32,
    /// A number of the creator's, for whoever opens the stream; means nothing here.
    pub(crate) tag: u32,
    /// The label of that chunk; zero without one.
    pub(crate) chunk: [u8; ChunkLabel::BYTES],
    /// Why a GPU's stream has its frames in the file; zero for any other.
    pub(crate) unshared: u32,
    pub(crate) reserved_tail: [u8; 236],
}

/// One or more words that have one writer, alone on two cache lines (adjacent-line prefetch).
#[repr(C, align(128))]
#[derive(Debug, Default)]
pub(crate) struct Line<T>(pub(crate) T);

/// The control page and what follows it up to the participants.
#[repr(C)]
pub(crate) struct Control {
    /// Written by whoever locks.
    pub(crate) lock: Line<LockWord>,
    /// The control word. Written by the lock holder; parking readers set W, `unlink` the tombstone.
    pub(crate) ctl: Line<AtomicU64>,
    /// Written by processes that attach.
    pub(crate) roster: Roster,
    /// Written by the lock holder.
    pub(crate) writer: Line<WriterCounters>,
    /// One bit per participant that ever pinned a slot. Written by participants, once each.
    pub(crate) lessees: Line<[AtomicU64; PARTICIPANTS.div_ceil(64)]>,
    /// CUDA streams: one bit for each seat that was ever taken. Written by who takes one.
    pub(crate) seated: AtomicU64,
    reserved: [AtomicU64; 15],
    /// Mirrored streams: changes whenever the file may have something new. Written by the lock holder and by
    /// processes whose devices have filled a slot of it; parking readers set its lowest bit.
    pub(crate) arrivals: Line<AtomicU64>,
    reserved_after: Line<[AtomicU64; 16]>,
    /// Written by the lock holder.
    pub(crate) slots: [Slot; SLOTS_MAX],
    /// CUDA streams: processes that hand out the chunk's descriptor. Written by each of them.
    pub(crate) holders: [Line<Holder>; SEATS],
    /// CUDA streams: what devices write.
    pub(crate) device: DevicePage,
}

/// A process that hands out the descriptor of the chunk.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Holder {
    /// The participant; 0 for none. Exchanged by who claims the line.
    pub(crate) id: AtomicU64,
    /// Its place in the table.
    pub(crate) entry: AtomicU64,
    /// Bytes of the name, 0 until it is there.
    pub(crate) name_bytes: AtomicU64,
    /// The name of its socket in the user's runtime directory.
    pub(crate) name: [AtomicU64; 13],
}

/// Words that devices write, and processes for those that have died: one page.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct DevicePage {
    pub(crate) slots: [Line<SlotWords>; SLOTS_MAX],
    /// Of each lane: the number of its last use of a slot that is over.
    pub(crate) done: [AtomicU64; LANES],
}

/// What devices say of one slot.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct SlotWords {
    /// The ticket of the last frame that is complete.
    pub(crate) ready: AtomicU64,
    /// Mirrored streams: the ticket of the last frame that is complete in the file. Also written by
    /// processes that fill the file's slot themselves.
    pub(crate) mirrored: AtomicU64,
    /// The ticket of the last frame that a device was told to fill the slot with. This one and those below
    /// are written by the lock holder.
    pub(crate) owed: AtomicU64,
    /// Who told it: a participant, as in [`Sitter::who`].
    pub(crate) owed_by: AtomicU64,
    /// The ticket of the last frame of a dead writer that somebody filled the slot for.
    pub(crate) mended: AtomicU64,
    /// Who did.
    pub(crate) mended_by: AtomicU64,
}

/// A process whose devices may have work with the slots.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Seat {
    pub(crate) sitter: Line<Sitter>,
    /// Of each of its lanes and each slot: the number of the last use. Written by the process.
    pub(crate) used: [[AtomicU64; SLOTS_MAX]; LANES_PER_SEAT],
    /// Beside each: the ticket of the frame that was read.
    pub(crate) used_for: [[AtomicU64; SLOTS_MAX]; LANES_PER_SEAT],
    /// Beside each: the number of the lane's last use of an earlier frame of the slot.
    pub(crate) used_before: [[AtomicU64; SLOTS_MAX]; LANES_PER_SEAT],
    /// Of each slot: the ticket of the last frame that its devices were told to fill it with. Written by
    /// the process, with the lock.
    pub(crate) written: [AtomicU64; SLOTS_MAX],
    reserved: [AtomicU64; 8],
}

/// Who a seat belongs to: enough to find out whether it is gone for good.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Sitter {
    /// The participant: its place in the table in bits 0 to 9, above them its id; 0 for none. Exchanged by
    /// who claims the seat.
    pub(crate) who: AtomicU64,
    /// The same, once what follows is about it.
    pub(crate) told: AtomicU64,
    pub(crate) pid: AtomicU64,
    /// Field 22 of `/proc/<pid>/stat`.
    pub(crate) start_ticks: AtomicU64,
    /// Inode of its pid namespace.
    pub(crate) pid_namespace: AtomicU64,
    /// Inode of its time namespace.
    pub(crate) time_namespace: AtomicU64,
    /// As `who`, once that participant has said that its devices do nothing more, although it lives: its
    /// contexts are lost.
    pub(crate) lost: AtomicU64,
}

/// Counters of the write side since creation.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct WriterCounters {
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) aborts: AtomicU64,
    pub(crate) recoveries: AtomicU64,
    pub(crate) fenced: AtomicU64,
    pub(crate) wakes: AtomicU64,
    pub(crate) pins_revoked: AtomicU64,
    pub(crate) slots_skipped: AtomicU64,
    reserved: [AtomicU64; 8],
}

/// What one attached process owns, in lines by writer.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct ParticipantRecord {
    /// Identity and liveness; written by the process.
    pub(crate) identity: Participant,
    /// Written by the process, by writers (revoking a pin), and by anyone for a dead process.
    pub(crate) lease: Line<AtomicU64>,
    /// Written by the process.
    pub(crate) reader: Line<ReaderCounters>,
}

/// Counters of the read side of one process since it attached.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct ReaderCounters {
    pub(crate) frames: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) pins: AtomicU64,
    pub(crate) leases: AtomicU64,
    pub(crate) lease_copies: AtomicU64,
    pub(crate) leases_revoked: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) parks: AtomicU64,
    pub(crate) spin_hits: AtomicU64,
    pub(crate) missed: AtomicU64,
    /// Highest count read: the stream's count minus this is the lag.
    pub(crate) last_count: AtomicU64,
    reserved: [AtomicU64; 4],
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Header>() == 512 && HEADER_OFFSET + 512 <= CONTROL_OFFSET);
    assert!(offset_of!(Header, dtype) == 0);
    assert!(offset_of!(Header, dimensions) == 4);
    assert!(offset_of!(Header, slots) == 8);
    assert!(offset_of!(Header, flags) == 12);
    assert!(offset_of!(Header, payload_bytes) == 16);
    assert!(offset_of!(Header, slot_stride) == 24);
    assert!(offset_of!(Header, payload_offset) == 32);
    assert!(offset_of!(Header, participants_offset) == 40);
    assert!(offset_of!(Header, participants) == 48);
    assert!(offset_of!(Header, participant_stride) == 52);
    assert!(offset_of!(Header, shape) == 56);
    assert!(offset_of!(Header, device_uuid) == 208);
    assert!(offset_of!(Header, device_mode) == 224);
    assert!(offset_of!(Header, tag) == 228);
    assert!(offset_of!(Header, chunk) == 232);
    assert!(offset_of!(Header, unshared) == 272);
    assert!(offset_of!(Header, reserved_tail) == 276);

    assert!(offset_of!(Control, lock) == 0);
    assert!(offset_of!(Control, ctl) == 128);
    assert!(offset_of!(Control, roster) == 256);
    assert!(offset_of!(Control, writer) == 384);
    assert!(offset_of!(Control, lessees) == 512);
    assert!(offset_of!(Control, seated) == 640);
    assert!(offset_of!(Control, reserved) == 648);
    assert!(offset_of!(Control, arrivals) == 768);
    assert!(offset_of!(Control, reserved_after) == 896);
    assert!(PARTICIPANTS.div_ceil(64) * 8 == 128);
    assert!(offset_of!(Control, slots) == 1024);
    assert!(offset_of!(Control, holders) == 4096);
    assert!(offset_of!(Control, device) == 8192);
    assert!(size_of::<Control>() == 12288 && align_of::<Control>() == 128);
    assert!(CONTROL_OFFSET + size_of::<Control>() == PARTICIPANTS_OFFSET);

    assert!(size_of::<WriterCounters>() == 128);
    assert!(offset_of!(WriterCounters, frames) == 0);
    assert!(offset_of!(WriterCounters, bytes) == 8);
    assert!(offset_of!(WriterCounters, aborts) == 16);
    assert!(offset_of!(WriterCounters, recoveries) == 24);
    assert!(offset_of!(WriterCounters, fenced) == 32);
    assert!(offset_of!(WriterCounters, wakes) == 40);
    assert!(offset_of!(WriterCounters, pins_revoked) == 48);
    assert!(offset_of!(WriterCounters, slots_skipped) == 56);

    assert!(size_of::<Slot>() == 128);
    assert!(offset_of!(Slot, seq) == 0);
    assert!(offset_of!(Slot, owner) == 8);
    assert!(offset_of!(Slot, owner_entry) == 16);
    assert!(offset_of!(Slot, frame_id) == 24);
    assert!(offset_of!(Slot, published_unix_ns) == 32);
    assert!(offset_of!(Slot, published_monotonic_ns) == 40);
    assert!(offset_of!(Slot, acquired_unix_ns) == 48);
    assert!(offset_of!(Slot, given) == 56);
    assert!(offset_of!(Slot, metadata) == 64);

    assert!(size_of::<ParticipantRecord>() == 384);
    assert!(offset_of!(ParticipantRecord, identity) == 0);
    assert!(offset_of!(ParticipantRecord, lease) == 128);
    assert!(offset_of!(ParticipantRecord, reader) == 256);
    assert!(size_of::<ReaderCounters>() == 128);
    assert!(offset_of!(ReaderCounters, frames) == 0);
    assert!(offset_of!(ReaderCounters, bytes) == 8);
    assert!(offset_of!(ReaderCounters, retries) == 16);
    assert!(offset_of!(ReaderCounters, pins) == 24);
    assert!(offset_of!(ReaderCounters, leases) == 32);
    assert!(offset_of!(ReaderCounters, lease_copies) == 40);
    assert!(offset_of!(ReaderCounters, leases_revoked) == 48);
    assert!(offset_of!(ReaderCounters, waits) == 56);
    assert!(offset_of!(ReaderCounters, parks) == 64);
    assert!(offset_of!(ReaderCounters, spin_hits) == 72);
    assert!(offset_of!(ReaderCounters, missed) == 80);
    assert!(offset_of!(ReaderCounters, last_count) == 88);
    assert!(CONTROL_END == 409_600);

    assert!(size_of::<Holder>() == 128);
    assert!(offset_of!(Holder, entry) == 8);
    assert!(offset_of!(Holder, name_bytes) == 16);
    assert!(offset_of!(Holder, name) == 24);
    assert!(DEVICE_PAGE_OFFSET == 3 * PAGE && size_of::<DevicePage>() == PAGE);
    assert!(offset_of!(DevicePage, slots) == 0);
    assert!(offset_of!(DevicePage, done) == 3072);
    assert!(size_of::<Line<SlotWords>>() == 128);
    assert!(offset_of!(SlotWords, ready) == 0);
    assert!(offset_of!(SlotWords, mirrored) == 8);
    assert!(offset_of!(SlotWords, owed) == 16);
    assert!(offset_of!(SlotWords, owed_by) == 24);
    assert!(offset_of!(SlotWords, mended) == 32);
    assert!(offset_of!(SlotWords, mended_by) == 40);
    assert!(size_of::<Seat>() == 2688);
    assert!(offset_of!(Seat, used) == 128);
    assert!(offset_of!(Seat, used_for) == 896);
    assert!(offset_of!(Seat, used_before) == 1664);
    assert!(offset_of!(Seat, written) == 2432);
    assert!(offset_of!(Seat, reserved) == 2624);
    assert!(offset_of!(Sitter, who) == 0);
    assert!(offset_of!(Sitter, told) == 8);
    assert!(offset_of!(Sitter, pid) == 16);
    assert!(offset_of!(Sitter, start_ticks) == 24);
    assert!(offset_of!(Sitter, pid_namespace) == 32);
    assert!(offset_of!(Sitter, time_namespace) == 40);
    assert!(offset_of!(Sitter, lost) == 48);
    assert!(PARTICIPANTS < 1 << SITTER_ENTRY_BITS);
    assert!(SEATS_END == 495_616 && SEATS_END.is_multiple_of(PAGE));
};

/// The geometry of one stream: checked once, then trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) dtype: DType,
    pub(crate) shape: Shape,
    pub(crate) slots: usize,
    pub(crate) flags: u32,
    pub(crate) tag: u32,
    pub(crate) payload_bytes: usize,
    pub(crate) slot_stride: usize,
    pub(crate) payload_offset: u64,
    pub(crate) total_bytes: u64,
    pub(crate) place: Place,
}

impl Layout {
    /// Lays a stream out.
    ///
    /// Slots start on pages, so that a slot can be registered with a GPU or populated by itself;
    /// frames below a page share pages. A payload of 2 MiB or more starts on a huge page.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when the ring does not fit 63 bits or has no or too many
    /// slots.
    pub(crate) fn new(dtype: DType, shape: Shape, slots: usize, flags: u32) -> Result<Self> {
        Self::placed(dtype, shape, slots, flags, Place::File)
    }

    /// Lays out a CUDA stream whose chunk has yet to be made, for [`ring_bytes`](Self::ring_bytes).
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn on_device(dtype: DType, shape: Shape, slots: usize, flags: u32) -> Result<Self> {
        Self::placed(dtype, shape, slots, flags, Place::Chunk([0; ChunkLabel::BYTES]))
    }

    /// Distinct slots that may be leased at once for as long as their readers like. Where devices read, each
    /// copy leases a slot for a moment, too, and needs one that is not taken.
    pub(crate) fn leases_max(&self) -> usize {
        match self.place {
            Place::Chunk(_) => self.slots.saturating_sub(3),
            Place::File | Place::FileOf(..) => lease_budget(self.slots),
        }
    }

    /// Lays a stream out whose frames are in some place; a label must have the bytes of the ring.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn placed(
        dtype: DType,
        shape: Shape,
        slots: usize,
        flags: u32,
        place: Place,
    ) -> Result<Self> {
        let (least, on) = match place {
            Place::File => (1, ""),
            Place::Chunk(_) | Place::FileOf(..) => (SLOTS_MIN_ON_DEVICE, " on a GPU"),
        };
        if slots < least || slots > SLOTS_MAX {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("a ring of {slots} slots was asked for: use {least} to {SLOTS_MAX}{on}"),
            ));
        }
        let is_mirrored = flags & flags::MIRRORED != 0;
        let has_chunk = matches!(place, Place::Chunk(_));
        if is_mirrored && !has_chunk {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "a ring in the file has no other one to mirror".to_owned(),
            ));
        }
        let lay_out = || {
            let payload = shape.elements().checked_mul(dtype.bytes() as u64)?;
            let (small, end) =
                if has_chunk { (SMALL_ON_DEVICE, SEATS_END) } else { (128, CONTROL_END) };
            let unit = if payload < PAGE as u64 { small } else { PAGE as u64 };
            let stride = payload.checked_next_multiple_of(unit)?;
            let ring = stride.checked_mul(slots as u64)?;
            let in_file = if !has_chunk || is_mirrored { ring } else { 0 };
            let start = if in_file < HUGE_PAGE {
                end as u64
            } else {
                (end as u64).next_multiple_of(HUGE_PAGE)
            };
            let total = start.checked_add(in_file)?.checked_next_multiple_of(PAGE as u64)?;
            i64::try_from(total).ok()?;
            Some((usize::try_from(payload).ok()?, usize::try_from(stride).ok()?, start, total))
        };
        let Some((payload_bytes, slot_stride, payload_offset, total_bytes)) = lay_out() else {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("{slots} slots of {dtype}{shape} do not fit a file: use a smaller shape"),
            ));
        };
        Ok(Self {
            dtype,
            shape,
            slots,
            flags,
            tag: 0,
            payload_bytes,
            slot_stride,
            payload_offset,
            total_bytes,
            place,
        })
    }

    /// The header that describes this layout.
    pub(crate) fn header(&self) -> Header {
        let mut shape = [0; DIMENSIONS_MAX];
        for (stored, &size) in shape.iter_mut().zip(self.shape.dimensions()) {
            *stored = size;
        }
        let words = self.place.words();
        Header {
            dtype: self.dtype.code(),
            dimensions: self.shape.dimensions().len() as u32,
            slots: self.slots as u32,
            flags: self.flags,
            payload_bytes: self.payload_bytes as u64,
            slot_stride: self.slot_stride as u64,
            payload_offset: self.payload_offset,
            participants_offset: PARTICIPANTS_OFFSET as u64,
            participants: PARTICIPANTS as u32,
            participant_stride: size_of::<ParticipantRecord>() as u32,
            shape,
            device_uuid: words.device,
            device_mode: words.mode,
            tag: self.tag,
            chunk: words.chunk,
            unshared: words.unshared,
            reserved_tail: [0; 236],
        }
    }

    /// Where the ring of frames is in the file, if there is one.
    pub(crate) fn frames_in_file(&self) -> Option<Range<u64>> {
        let end = self.payload_offset + self.ring_bytes() as u64;
        (self.label().is_none() || self.is_mirrored()).then_some(self.payload_offset..end)
    }

    /// Whether the frames of a CUDA stream are in its file as well.
    pub(crate) const fn is_mirrored(&self) -> bool {
        self.flags & flags::MIRRORED != 0
    }

    /// Where the seats of a stream with a chunk are.
    pub(crate) fn seats(&self) -> Option<Range<u64>> {
        self.label().map(|_| SEATS_OFFSET as u64..SEATS_END as u64)
    }

    /// The label of a CUDA stream's chunk.
    pub(crate) fn label(&self) -> Option<ChunkLabel> {
        self.place.label()
    }

    /// Reads a header that anybody may have written: the layout is computed anew from its few
    /// independent fields and everything stored must agree with it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] naming the field, [`ErrorKind::Version`] for flags and element types
    /// of a newer build.
    pub(crate) fn from_header(header: &Header, file_bytes: u64) -> Result<Self> {
        let corrupt =
            |what: String| Error::new(ErrorKind::Corrupt, format!("stream header: {what}"));
        let newer = |what: String| {
            Error::new(ErrorKind::Version, format!("stream header: {what}: update this program"))
        };
        if header.flags & !flags::KNOWN != 0 {
            return Err(newer(format!("unknown flags {:#x}", header.flags)));
        }
        let place = Place::of_words(&PlaceWords {
            mode: header.device_mode,
            device: header.device_uuid,
            chunk: header.chunk,
            unshared: header.unshared,
        });
        let Some(place) = place else {
            return Err(newer(format!("device mode {} is unknown", header.device_mode)));
        };
        let dtype = DType::from_code(header.dtype)
            .ok_or_else(|| newer(format!("unknown dtype code {}", header.dtype)))?;
        let dimensions = usize::try_from(header.dimensions).unwrap_or(usize::MAX);
        let Some((used, unused)) = header.shape.split_at_checked(dimensions) else {
            return Err(corrupt(format!("{dimensions} dimensions")));
        };
        if unused.iter().any(|&size| size != 0) {
            return Err(corrupt(format!("sizes beyond the {dimensions} dimensions are not zero")));
        }
        let layout = Shape::new(used)
            .and_then(|shape| {
                Self::placed(dtype, shape, header.slots as usize, header.flags, place)
            })
            .map_err(|source| corrupt(source.to_string()))?;
        let layout = Self { tag: header.tag, ..layout };
        if layout.header().as_bytes() != header.as_bytes() {
            return Err(corrupt("sizes and offsets do not belong to its shape and slots".into()));
        }
        if layout.total_bytes != file_bytes {
            return Err(corrupt(format!(
                "the file has {file_bytes} bytes, its shape and slots need {}",
                layout.total_bytes
            )));
        }
        let ring = layout.ring_bytes() as u64;
        if let Some(label) = layout.label().filter(|label| label.bytes() < ring) {
            let bytes = label.bytes();
            return Err(corrupt(format!("a chunk of {bytes} bytes for a ring of {ring}")));
        }
        Ok(layout)
    }

    /// Slots when the caller does not say: enough to keep writers and readers apart, no more than
    /// a big frame can afford.
    pub(crate) const fn default_slots(payload_bytes: u64) -> usize {
        match payload_bytes {
            0..=0x10_0000 => 8,
            0x10_0001..=0x400_0000 => 4,
            _ => 3,
        }
    }

    /// Where slot `index` starts, relative to the payload.
    pub(crate) const fn slot_start(&self, index: usize) -> usize {
        index * self.slot_stride
    }

    /// Bytes of all slots.
    pub(crate) const fn ring_bytes(&self) -> usize {
        self.slots * self.slot_stride
    }

    /// Whether a publication wakes even when nobody said to be parked.
    pub(crate) const fn always_wakes(&self) -> bool {
        self.flags & flags::ALWAYS_WAKE != 0
    }
}

impl ReaderCounters {
    /// Starts anew for the next process that uses the entry.
    pub(crate) fn reset(&self) {
        for counter in [
            &self.frames,
            &self.bytes,
            &self.retries,
            &self.pins,
            &self.leases,
            &self.lease_copies,
            &self.leases_revoked,
            &self.waits,
            &self.parks,
            &self.spin_hits,
            &self.missed,
            &self.last_count,
        ] {
            counter.store(0, crate::sync::Ordering::Relaxed);
        }
    }
}
