//! One process's hold on one stream: its mappings, its membership and its leases.
//!
//! All handles of a process on the same stream share one attachment, found again by inode, so that
//! a stream is mapped once and a process is one participant however often it opens the name.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use shm_core::{
    Access, Identity as FileIdentity, Populate, PopulateReport, Populator, Segment, SharedBytes,
    ViewError,
};
use shm_lock::{FutexLock, Membership, Onlooker, PerProcess};
use zerocopy::FromZeros;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::word::{Ctl, Seq};
use crate::ring::{Identity, RingLoads};
use crate::stream::description::Description;
use crate::stream::device::OnGpu;
use crate::stream::layout::{CONTROL_END, HEADER_OFFSET, Header, Layout, ReaderCounters};
use crate::stream::lease::LeaseBook;
use crate::stream::memory::{ObservedMemory, Peers, StreamMemory};
use crate::stream::turn::Turns;
use crate::sync::Ordering;
use crate::sys::{ObservedControl, SharedControl, SharedSeats};

/// A process's hold on a stream.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) segment: Arc<Segment>,
    pub(crate) layout: Layout,
    pub(crate) role: Role,
    /// The frames, without write permission: what readers touch. `None`: they are on a GPU.
    readable: Option<SharedBytes>,
    /// The payload with write permission, mapped by the first writer of this process.
    writable: OnceLock<SharedBytes>,
    /// Page population in the background, started by the first writer. A forked child has neither
    /// the thread nor a use for a lock that the thread may have held.
    population: PerProcess<Option<Populator>>,
    /// Of a ring on a GPU.
    pub(crate) turns: Option<Turns>,
    /// What this process has of a ring on a GPU.
    pub(crate) on_gpu: PerProcess<Mutex<OnGpu>>,
}

/// Rings below this are not populated ahead: their pages come quickly enough one by one.
const POPULATE_BYTES_MIN: usize = 1 << 20;
/// Slots from this size on are put on huge pages.
const HUGE_SLOT_BYTES_MIN: usize = 2 << 20;

/// What this process may do.
#[derive(Debug)]
pub(crate) enum Role {
    /// Reads, writes control words, takes part in the lock.
    Member(Member),
    /// Has no write permission on the file: copies, waits in slices, leases nothing.
    Observer(ObservedMemory),
}

/// The hold of a process that may write control words.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) memory: Arc<StreamMemory>,
    pub(crate) membership: Arc<Membership<StreamMemory>>,
    pub(crate) lock: FutexLock<StreamMemory>,
    book: PerProcess<Mutex<LeaseBook>>,
}

impl Member {
    /// This process in the participant table; registers a forked child on first use.
    #[inline]
    pub(crate) fn me(&self) -> Result<Identity> {
        let me = self.membership.me().map_err(join_error)?;
        Ok(Identity { entry: me.slot, id: me.id })
    }

    pub(crate) fn peers(&self) -> Peers<'_> {
        Peers(&self.membership)
    }

    /// This process's leases, locked for a few instructions.
    pub(crate) fn book(&self) -> MutexGuard<'_, LeaseBook> {
        self.book.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The read counters of this process.
    pub(crate) fn counters(&self, me: Identity) -> &ReaderCounters {
        &self.memory.record(me.entry).reader.0
    }
}

/// The attachments of this process, by inode and whether they may write.
type Registry = Mutex<HashMap<(FileIdentity, bool), Weak<Attachment>>>;

static ATTACHED: PerProcess<Registry> = PerProcess::new();

impl Attachment {
    /// The attachment of this process to an opened segment: a new one or the one that exists.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Version`] if the header is not one of ours,
    /// [`ErrorKind::NoSpace`] if the table of participants is full.
    pub(crate) fn of(segment: Segment) -> Result<Arc<Self>> {
        let writes = segment.access() == Access::ReadWrite;
        let key = (segment.identity(), writes);
        let mut attached =
            ATTACHED.get_or_init(Registry::default).lock().unwrap_or_else(PoisonError::into_inner);
        // An inode number can come back with another file once the first one is gone, but not
        // while an attachment maps it.
        if let Some(existing) = attached.get(&key).and_then(Weak::upgrade) {
            return Ok(existing);
        }
        let attachment = Arc::new(Self::new(segment)?);
        attached.retain(|_, known| known.strong_count() > 0);
        attached.insert(key, Arc::downgrade(&attachment));
        Ok(attachment)
    }

    fn new(segment: Segment) -> Result<Self> {
        let access = segment.access();
        let (control, layout) = map_control(&segment, access)?;
        let segment = Arc::new(segment);
        let frames = layout.frames_in_file();
        let readable = frames.map(|frames| map(&segment, frames, Access::ReadOnly)).transpose()?;
        let role = if access == Access::ReadWrite {
            let shared = SharedControl::new(control).map_err(damaged)?;
            let seats = layout.seats().map(|seats| map(&segment, seats, access)).transpose()?;
            let seats = seats.map(SharedSeats::new).transpose().map_err(damaged)?;
            let memory = StreamMemory::new(Arc::clone(&segment), shared, seats, &layout);
            let memory = Arc::new(memory);
            let membership = Membership::join(Arc::clone(&memory)).map_err(join_error)?;
            let lock = FutexLock::new(Arc::clone(&membership));
            Role::Member(Member { memory, membership, lock, book: PerProcess::new() })
        } else {
            let observed = ObservedControl::new(control).map_err(damaged)?;
            let onlooker = segment.reopen().and_then(Onlooker::new).map_err(|source| {
                let message = format!("cannot look on at stream `{}`: {source}", segment.name());
                Error::with_source(ErrorKind::Os, message, source)
            })?;
            Role::Observer(ObservedMemory {
                observed,
                onlooker,
                slots: layout.slots,
                is_mirrored: layout.is_mirrored(),
            })
        };
        let turns = layout.label().is_some().then(Turns::new);
        Ok(Self {
            segment,
            layout,
            role,
            turns,
            readable,
            writable: OnceLock::new(),
            population: PerProcess::new(),
            on_gpu: PerProcess::new(),
        })
    }

    /// The name of the stream.
    pub(crate) fn name(&self) -> &str {
        self.segment.name().as_str()
    }

    /// The hold of a member.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] for an observer.
    pub(crate) fn member(&self) -> Result<&Member> {
        match &self.role {
            Role::Member(member) => Ok(member),
            Role::Observer(_) => Err(Error::new(
                ErrorKind::PermissionDenied,
                format!(
                    "stream `{}` was opened without write permission on `{}`: it can be copied \
                     from and waited on, not written, locked or leased",
                    self.name(),
                    self.segment.path().display()
                ),
            )),
        }
    }

    /// The frames, for reading.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] if they are on a GPU.
    #[inline]
    pub(crate) fn readable(&self) -> Result<&SharedBytes> {
        self.readable.as_ref().ok_or_else(|| self.frames_elsewhere("read"))
    }

    /// The frames, for writing by processes.
    ///
    /// # Errors
    /// [`ErrorKind::Device`] if a GPU writes them; what mapping fails with.
    pub(crate) fn writable(&self) -> Result<&SharedBytes> {
        if let Some(mapped) = self.writable.get() {
            return Ok(mapped);
        }
        let range = self.layout.frames_in_file();
        let range = range.ok_or_else(|| self.frames_elsewhere("written"))?;
        let mapped = self.segment.map(range, Access::ReadWrite).map_err(|source| {
            let message = format!("cannot map stream `{}` for writing: {source}", self.name());
            Error::with_source(ErrorKind::Os, message, source)
        })?;
        Ok(self.writable.get_or_init(|| mapped))
    }

    /// Where a frame is copied to: asked for beforehand, as memory that is not to be had is an error
    /// here and the end of the process later.
    pub(crate) fn room_for_a_frame(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let wanted = self.layout.payload_bytes;
        bytes.try_reserve_exact(wanted).map_err(|error| {
            let name = self.name();
            let what = format!(
                "a copy of a frame of stream `{name}` needs {wanted} bytes: read it in place, or \
                 into a buffer that is there already"
            );
            Error::with_source(ErrorKind::OutOfMemory, what, error)
        })?;
        Ok(bytes)
    }

    #[cold]
    pub(crate) fn frames_elsewhere(&self, done: &str) -> Error {
        let device = self.layout.place.device().map(|device| device.to_string());
        Error::new(
            ErrorKind::Device,
            format!(
                "stream `{}` has its frames on {}: they are {done} with `reader_on` and `writer_on`, or \
                 without CUDA where the stream was created with a mirror",
                self.name(),
                device.unwrap_or_default()
            ),
        )
    }

    /// Starts to populate the ring's pages in the background, once, from the slot on that the next
    /// write needs: the first frames of a large stream do not wait for all of its pages.
    ///
    /// A population that cannot start or finish costs speed only; [`Attachment::population`] tells.
    pub(crate) fn populate(&self) -> Result<()> {
        if self.layout.ring_bytes() < POPULATE_BYTES_MIN {
            return Ok(());
        }
        let bytes = self.writable()?.clone();
        self.population.get_or_init(|| {
            let slots = self.layout.slots;
            let newest = self.ctl(Ordering::Acquire).slot();
            let order = (1..=slots).map(|step| {
                let start = self.layout.slot_start((newest + step) % slots);
                start..start + self.layout.slot_stride
            });
            let huge = self.layout.slot_stride >= HUGE_SLOT_BYTES_MIN;
            let population = Populate::new(bytes).ranges(order).ok()?;
            population.huge_pages(huge).spawn().ok()
        });
        Ok(())
    }

    /// What population has obtained so far, if this process started one.
    pub(crate) fn population(&self) -> Option<PopulateReport> {
        self.population.get().and_then(Option::as_ref).map(Populator::report)
    }

    /// Keeps the payload in memory in this process's mapping.
    ///
    /// # Errors
    /// [`ErrorKind::Os`] saying how much could be locked.
    pub(crate) fn lock_memory(&self) -> Result<()> {
        let Some(readable) = &self.readable else { return Ok(()) };
        let bytes = readable.len();
        let locked = readable.lock(0..bytes).map_err(damaged)?;
        match locked.refusal {
            None => Ok(()),
            Some(refusal) => {
                let message = format!(
                    "stream `{}` cannot be kept in memory: {} of {bytes} bytes locked: {refusal}",
                    self.name(),
                    locked.obtained_bytes
                );
                Err(Error::with_source(ErrorKind::Os, message, refusal))
            }
        }
    }

    /// The description of the frame in a slot.
    #[inline]
    pub(crate) fn description(&self, slot: usize) -> Description {
        match &self.role {
            Role::Member(member) => Description::load(&member.memory.shared.control().slots[slot]),
            Role::Observer(memory) => memory.observed.description(slot),
        }
    }
}

impl RingLoads for Attachment {
    fn slots(&self) -> usize {
        self.layout.slots
    }

    #[inline]
    fn ctl(&self, order: Ordering) -> Ctl {
        match &self.role {
            Role::Member(member) => member.memory.ctl(order),
            Role::Observer(memory) => memory.ctl(order),
        }
    }

    #[inline]
    fn seq(&self, slot: usize, order: Ordering) -> Seq {
        match &self.role {
            Role::Member(member) => member.memory.seq(slot, order),
            Role::Observer(memory) => memory.seq(slot, order),
        }
    }

    #[inline]
    fn is_in_file(&self, slot: usize, seq: Seq) -> bool {
        match &self.role {
            Role::Member(member) => member.memory.is_in_file(slot, seq),
            Role::Observer(memory) => memory.is_in_file(slot, seq),
        }
    }
}

fn map(segment: &Segment, range: Range<u64>, access: Access) -> Result<SharedBytes> {
    segment.map(range, access).map_err(|source| {
        let message = format!("cannot map stream `{}`: {source}", segment.name());
        Error::with_source(ErrorKind::Os, message, source)
    })
}

/// Maps the control memory of a segment, from the first byte of the file on, and checks the stream's
/// header in it.
pub(crate) fn map_control(segment: &Segment, access: Access) -> Result<(SharedBytes, Layout)> {
    let corrupt = |what: String| {
        Error::new(ErrorKind::Corrupt, format!("`{}`: {what}", segment.path().display()))
    };
    if segment.total_bytes() < CONTROL_END as u64 {
        return Err(corrupt(format!(
            "{} bytes are too few for a stream's control page",
            segment.total_bytes()
        )));
    }
    let control = map(segment, 0..CONTROL_END as u64, access)?;
    let mut header = Header::new_zeroed();
    control
        .read_into(HEADER_OFFSET, zerocopy::IntoBytes::as_mut_bytes(&mut header))
        .map_err(|source| corrupt(source.to_string()))?;
    let layout = Layout::from_header(&header, segment.total_bytes()).map_err(|source| {
        Error::new(source.kind(), format!("`{}`: {source}", segment.path().display()))
    })?;
    Ok((control, layout))
}

fn damaged(source: ViewError) -> Error {
    Error::with_source(ErrorKind::Corrupt, format!("stream memory: {source}"), source)
}

/// Turns a failed registration into our error.
pub(crate) fn join_error(source: shm_lock::JoinError) -> Error {
    let kind = match source {
        shm_lock::JoinError::Full { .. } => ErrorKind::NoSpace,
        _ => ErrorKind::Os,
    };
    Error::with_source(kind, format!("cannot attach: {source}"), source)
}
