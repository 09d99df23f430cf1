//! The memory behind regions, once per process: its descriptors and its mappings.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use shm_core::{Identity, SharedBytes};
use shm_lock::{InheritedMutex, PerProcess};

use super::{Access, Id, RegionError, Rights};
use crate::service::monitor::lock;

type Chunks = HashMap<Identity, Weak<Chunk>>;

/// Every chunk of this process by its file, so that memory that came twice is mapped once.
static CHUNKS: PerProcess<Mutex<Chunks>> = PerProcess::new();

fn chunks() -> MutexGuard<'static, Chunks> {
    lock(CHUNKS.get_or_init(Mutex::default))
}

/// One file of memory.
pub(crate) struct Chunk {
    id: Id,
    bytes: u64,
    identity: Identity,
    /// A forked child neither takes locks nor undoes anything here: other threads of its parent may
    /// have held them.
    process: u32,
    /// As it was made or came first.
    region: shm_core::Region,
    state: InheritedMutex<State>,
}

struct State {
    /// One that allows more and came later.
    better: Option<shm_core::Region>,
    lent: Lent,
    /// Descriptors to hand out, made when first needed.
    for_readers: Option<Arc<OwnedFd>>,
    for_writers: Option<Arc<OwnedFd>>,
    maps: [Weak<Map>; 3],
    /// A sealed file cannot be mapped writable again: what its owner has is kept for its owner.
    kept: Option<Arc<Map>>,
}

impl State {
    fn new(lent: Lent) -> Self {
        Self {
            better: None,
            lent,
            for_readers: None,
            for_writers: None,
            maps: [const { Weak::new() }; 3],
            kept: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lent {
    ToNobody,
    ToWriters,
    Sealed,
}

/// A mapping of a whole chunk, shared by all who look at it in this way.
#[derive(Debug)]
pub(crate) struct Map {
    pub(crate) bytes: SharedBytes,
    process: u32,
}

impl Map {
    fn new(bytes: SharedBytes) -> Arc<Self> {
        Arc::new(Self { bytes, process: std::process::id() })
    }

    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Chunk {
    /// `bytes` zeroes.
    pub(crate) fn create(bytes: u64) -> Result<Arc<Self>, RegionError> {
        let options = shm_core::RegionOptions::new();
        let region = shm_core::Region::create("shared-tensor", bytes, &options)?;
        let id = Id::random();
        Ok(Self::register(&mut chunks(), region, id))
    }

    /// What came from a peer as `id` with `fd`; one that this process has already is the one it has.
    pub(crate) fn adopt(fd: OwnedFd, id: Id, bytes: u64) -> Result<Arc<Self>, RegionError> {
        let region = shm_core::Region::from_fd(fd)?;
        if region.total_bytes() != bytes {
            return Err(RegionError::Size { said: bytes, found: region.total_bytes() });
        }
        let mut chunks = chunks();
        let Some(known) = chunks.get(&region.identity()).and_then(Weak::upgrade) else {
            return Ok(Self::register(&mut chunks, region, id));
        };
        drop(chunks);
        let mut state = known.state();
        let is_better = region.access() == shm_core::Access::ReadWrite
            && known.access(&state) == shm_core::Access::ReadOnly;
        // One that is sealed by now never allows more than it did.
        if is_better && state.lent != Lent::Sealed {
            state.better = Some(region);
        }
        drop(state);
        Ok(known)
    }

    fn register(chunks: &mut Chunks, region: shm_core::Region, id: Id) -> Arc<Self> {
        let (bytes, identity) = (region.total_bytes(), region.identity());
        let state = InheritedMutex::new(State::new(Lent::ToNobody));
        let process = std::process::id();
        let chunk = Arc::new(Self { id, bytes, identity, process, region, state });
        chunks.insert(identity, Arc::downgrade(&chunk));
        chunk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A child that does not know whether it was lent does not lend it for writing.
        self.state.lock(|| State::new(Lent::Sealed))
    }

    fn region<'a>(&'a self, state: &'a State) -> &'a shm_core::Region {
        state.better.as_ref().unwrap_or(&self.region)
    }

    /// What new mappings may do.
    fn access(&self, state: &State) -> shm_core::Access {
        if state.lent == Lent::Sealed {
            return shm_core::Access::ReadOnly;
        }
        self.region(state).access()
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn bytes_there(&self) -> Result<u64, RegionError> {
        let state = self.state();
        let status = rustix::fs::fstat(self.region(&state).as_fd());
        let status = status.map_err(|errno| RegionError::Descriptor(errno.into()))?;
        // In units of 512 bytes, whatever the blocks of the file are.
        let blocks = u64::try_from(status.st_blocks).unwrap_or(0);
        Ok(blocks.saturating_mul(512).min(self.bytes))
    }

    /// What this process may do with it at most.
    pub(crate) fn rights(&self) -> Rights {
        let state = self.state();
        match self.access(&state) {
            shm_core::Access::ReadWrite => Rights::Write,
            shm_core::Access::ReadOnly if state.kept.is_some() => Rights::Write,
            shm_core::Access::ReadOnly => Rights::Read,
        }
    }

    /// The mapping for `access`, the one there is or a new one.
    pub(crate) fn map(&self, access: Access) -> Result<Arc<Map>, RegionError> {
        let mut state = self.state();
        if let Some(map) = state.maps[access as usize].upgrade() {
            return Ok(map);
        }
        let map = Map::new(map_of(self.region(&state), self.bytes, access)?);
        state.maps[access as usize] = Arc::downgrade(&map);
        Ok(map)
    }

    /// A mapping of a part that nobody else looks at: what is stored to it, nobody else sees.
    pub(crate) fn map_apart(
        &self,
        range: std::ops::Range<u64>,
    ) -> Result<SharedBytes, RegionError> {
        let state = self.state();
        Ok(self.region(&state).map_private(range)?)
    }

    /// A descriptor for a peer that may do what `rights` say.
    ///
    /// Lending to readers seals the file first, so that nobody can write to it but who has mapped
    /// it, unless somebody may by then.
    pub(crate) fn lend(&self, rights: Rights) -> Result<Arc<OwnedFd>, RegionError> {
        let mut state = self.state();
        let may_write = self.access(&state) == shm_core::Access::ReadWrite;
        if rights == Rights::Write {
            if state.lent == Lent::Sealed || !may_write {
                return Err(RegionError::Sealed);
            }
            state.lent = Lent::ToWriters;
            if let Some(fd) = &state.for_writers {
                return Ok(Arc::clone(fd));
            }
            let fd = self
                .region(&state)
                .as_fd()
                .try_clone_to_owned()
                .map_err(RegionError::Descriptor)?;
            return Ok(Arc::clone(state.for_writers.insert(Arc::new(fd))));
        }
        if state.lent == Lent::ToNobody && may_write {
            let map = match state.maps[Access::Shared as usize].upgrade() {
                Some(map) => map,
                None => Map::new(map_of(self.region(&state), self.bytes, Access::Shared)?),
            };
            let own = self.region(&state).as_fd().try_clone_to_owned();
            let mut own = shm_core::Region::from_fd(own.map_err(RegionError::Descriptor)?)?;
            own.seal().map_err(RegionError::Descriptor)?;
            state.maps[Access::Shared as usize] = Arc::downgrade(&map);
            state.kept = Some(map);
            state.lent = Lent::Sealed;
        }
        if let Some(fd) = &state.for_readers {
            return Ok(Arc::clone(fd));
        }
        let fd = self.region(&state).read_only_fd().map_err(RegionError::Descriptor)?;
        Ok(Arc::clone(state.for_readers.insert(Arc::new(fd))))
    }
}

fn map_of(
    region: &shm_core::Region,
    bytes: u64,
    access: Access,
) -> Result<SharedBytes, RegionError> {
    Ok(match access {
        Access::PrivateCopyOnWrite => region.map_private(0..bytes)?,
        Access::Shared => region.map(0..bytes, shm_core::Access::ReadWrite)?,
        Access::ReadOnly => region.map(0..bytes, shm_core::Access::ReadOnly)?,
    })
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let mut chunks = chunks();
        // Another one may have taken its place since its last user went.
        if chunks.get(&self.identity).is_some_and(|known| known.strong_count() == 0) {
            chunks.remove(&self.identity);
        }
    }
}

/// How many chunks there are, and how many of them are mapped, in which ways altogether.
#[doc(hidden)]
pub fn accounting() -> (usize, usize) {
    let chunks: Vec<Arc<Chunk>> = chunks().values().filter_map(Weak::upgrade).collect();
    let maps = |chunk: &Arc<Chunk>| {
        let state = chunk.state();
        state.maps.iter().filter(|map| map.strong_count() > 0).count()
    };
    (chunks.len(), chunks.iter().map(maps).sum())
}
