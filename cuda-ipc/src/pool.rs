//! Memory for an allocator of somebody else's, which can be shared where it is.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fmt;
use std::iter;
use std::sync::OnceLock;

use crate::chunk::{ChunkError, create};
use crate::device::{Context, Device};
use crate::error::DriverError;
use crate::probe::probe;
use crate::space::Space;
use crate::sync::{Mutex, lock};
use crate::sys::{Reservation, Stream, table};

/// Memory at addresses of this process, for those who allocate with functions instead of values: a
/// framework's allocator asks for blocks here, and [`share_in_place`](crate::share_in_place) shares what
/// lies in them.
///
/// Blocks are parts of chunks of up to 4 GiB, so that sharing costs few descriptors. A chunk is
/// given back to the device when none of its blocks is left; whoever it was shared with keeps it.
pub struct Pool {
    context: Context,
    /// The devices that could reach it, once they have been looked for.
    peers: OnceLock<Vec<Device>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By address.
    chunks: BTreeMap<u64, Held>,
    /// Blocks, by address, that were given back while their stream was captured, which nobody may wait
    /// for.
    unsettled: Vec<(u64, Stream)>,
    /// The other devices, by number, that reach all chunks.
    reached_by: Vec<c_int>,
}

struct Held {
    reservation: Reservation,
    space: Space,
}

/// Chunks grow with what there is, so that no more than an eighth is taken ahead.
const AHEAD: u64 = 8;
/// The smallest and the largest chunk that holds several blocks, in bytes.
const CHUNK: (u64, u64) = (32 << 20, 4 << 30);

impl Pool {
    /// A pool without memory.
    pub fn new(context: &Context) -> Self {
        Self { context: context.clone(), peers: OnceLock::new(), state: Mutex::default() }
    }

    /// The address of at least `bytes` of new memory, a multiple of the
    /// [granularity](crate::Device::granularity), its content undefined. Its device reads and writes it,
    /// and so does any other that [reaches](Self::reach) it.
    ///
    /// # Errors
    ///
    /// As for [`Chunk::create`](crate::Chunk::create).
    pub fn allocate(&self, bytes: u64) -> Result<u64, ChunkError> {
        // Not in a forked child, where somebody may have held the lock.
        table()?;
        self.settle();
        let granularity = self.context.device().granularity()?;
        let max = 1 << 47;
        let wanted =
            bytes.checked_next_multiple_of(granularity).filter(|it| (1..=max).contains(it));
        let wanted = wanted.ok_or(ChunkError::Size { bytes, max })?;
        let mut state = lock(&self.state);
        let state = &mut *state;
        self.let_reach(state)?;
        for (base, held) in &mut state.chunks {
            if let Some(offset) = held.space.take(wanted) {
                return Ok(base + offset);
            }
        }
        let there: u64 = state.chunks.values().map(|held| held.space.bytes()).sum();
        let ahead = (there / AHEAD).clamp(CHUNK.0, CHUNK.1);
        let reservation = match self.map(wanted.max(ahead), &state.reached_by) {
            Err(ChunkError::OutOfMemory { .. }) if wanted < ahead => {
                self.map(wanted, &state.reached_by)?
            }
            mapped => mapped?,
        };
        let (base, bytes) = (reservation.base(), reservation.bytes() as u64);
        let mut space = Space::new(bytes);
        let offset = space.take(wanted).ok_or(ChunkError::Size { bytes, max })?;
        state.chunks.insert(base, Held { reservation, space });
        Ok(base + offset)
    }

    /// Lets every device at the memory, now and from now on, that has a context in this process and peer
    /// access. [`allocate`](Self::allocate) does this, too: what was allocated before a device came into
    /// use is beyond its reach until then, and a kernel there that touches it loses its context.
    ///
    /// # Errors
    ///
    /// The driver's.
    pub fn reach(&self) -> Result<(), DriverError> {
        table()?;
        self.let_reach(&mut lock(&self.state))
    }

    /// Takes back a block, once everything is done that is queued in `stream` so far: this waits for it.
    /// While the stream is captured into a graph it is taken back later, within another call. Returns
    /// whether there is such a block.
    ///
    /// The stream exists, as [`Stream::from_raw`] asks.
    pub fn release(&self, address: u64, stream: &Stream) -> bool {
        if table().is_err() {
            return false;
        }
        self.settle();
        if !self.is_settled(stream) {
            lock(&self.state).unsettled.push((address, stream.borrowed()));
            return true;
        }
        self.take_back(address)
    }

    /// Takes back a block of which the caller knows that no stream has work on it any more. Returns
    /// whether there is such a block.
    pub fn release_settled(&self, address: u64) -> bool {
        table().is_ok() && self.take_back(address)
    }

    /// The bytes that it has of the device.
    pub fn bytes(&self) -> u64 {
        if table().is_err() {
            return 0;
        }
        lock(&self.state).chunks.values().map(|held| held.space.bytes()).sum()
    }

    fn map(&self, bytes: u64, reached_by: &[c_int]) -> Result<Reservation, ChunkError> {
        let device = self.context.device();
        let (allocation, size) = create(device, bytes)?;
        let mut reservation = Reservation::new(size)?;
        reservation.map(allocation, size)?;
        for ordinal in iter::once(device.raw_ordinal()).chain(reached_by.iter().copied()) {
            reservation.allow(ordinal, true)?;
        }
        Ok(reservation)
    }

    /// Lets devices at all chunks that have come into use.
    fn let_reach(&self, state: &mut State) -> Result<(), DriverError> {
        for peer in self.peers()? {
            let ordinal = peer.raw_ordinal();
            if state.reached_by.contains(&ordinal) || !peer.has_context()? {
                continue;
            }
            for held in state.chunks.values() {
                held.reservation.allow(ordinal, true)?;
            }
            state.reached_by.push(ordinal);
        }
        Ok(())
    }

    fn peers(&self) -> Result<&[Device], DriverError> {
        if let Some(known) = self.peers.get() {
            return Ok(known);
        }
        let device = self.context.device();
        let mut peers = Vec::new();
        for other in probe()?.devices()? {
            if other.ordinal() != device.ordinal() && other.can_access(device)? {
                peers.push(other);
            }
        }
        Ok(self.peers.get_or_init(|| peers))
    }

    /// Waits for what is queued in a stream. Returns whether that could be.
    fn is_settled(&self, stream: &Stream) -> bool {
        let waited = self.context.within(|| {
            if stream.is_capturing()? {
                return Ok(false);
            }
            stream.synchronize()?;
            Ok(true)
        });
        match waited {
            Ok(is_settled) => is_settled,
            Err(DriverError::Call(error)) if error.is_capture() => false,
            // A context that is lost runs nothing any more.
            Err(_) => true,
        }
    }

    /// Takes back what could not be waited for earlier.
    fn settle(&self) {
        let unsettled = std::mem::take(&mut lock(&self.state).unsettled);
        for (address, stream) in unsettled {
            if self.is_settled(&stream) {
                self.take_back(address);
            } else {
                lock(&self.state).unsettled.push((address, stream));
            }
        }
    }

    fn take_back(&self, address: u64) -> bool {
        let mut state = lock(&self.state);
        let Some((&base, held)) = state.chunks.range_mut(..=address).next_back() else {
            return false;
        };
        if !held.space.give_back(address - base) {
            return false;
        }
        let unused = if held.space.is_unused() { state.chunks.remove(&base) } else { None };
        drop(state);
        // Unmapped outside of the lock.
        drop(unused.map(|held| held.reservation));
        true
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pool")
            .field("device", &self.context.device().uuid())
            .finish_non_exhaustive()
    }
}
