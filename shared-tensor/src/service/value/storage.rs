//! A range of a region that tensors lie in.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use shm_core::SharedBytes;

use super::Ready;
use crate::service::reaper;
use crate::service::region::{self, Access, Map, Place, Region, RegionError, page_bytes};

/// A range of bytes of a [`Region`], or no bytes at all.
///
/// On a GPU a range may go on from the end of a region into others, in their order: allocators there
/// put many pieces one behind the other.
///
/// Tensors that name the same storage share its bytes, on both sides of a call: ties and views stay
/// what they are. Clones are the same storage, and keep alive what it hangs on: its region, and the
/// lease on the object that it came with.
#[derive(Clone)]
pub struct Storage(Arc<Inner>);

struct Inner {
    /// One; none for a storage without bytes; more on a GPU only.
    regions: Vec<Region>,
    offset: u64,
    bytes: u64,
    /// The usual way to look at it, kept from the first look on: the pages that were touched are not
    /// asked for again.
    usual: OnceLock<Arc<Map>>,
    ready: OnceLock<Ready>,
    _keeper: Option<Keeper>,
}

/// Something that is dropped when the last storage that it came with is.
pub(crate) type Keeper = Arc<dyn Any + Send + Sync>;

/// From this many bytes on, unmapping is left to the reaper: it takes microseconds per megabyte that
/// was touched.
const UNMAPPED_APART_FROM: u64 = 1 << 20;

impl Drop for Inner {
    fn drop(&mut self) {
        let is_large = self.regions.first().is_some_and(|it| it.bytes() >= UNMAPPED_APART_FROM);
        if let Some(map) = self.usual.take().filter(|_| is_large) {
            reaper::unmap(map);
        }
    }
}

impl Storage {
    /// A storage without bytes.
    pub fn empty() -> Self {
        Self::made(Vec::new(), 0, 0, None)
    }

    /// `bytes` bytes of `region` from `offset` on.
    ///
    /// What is lent at different times, and read-only, should share no page: a reader that stores to
    /// one result keeps its copy of the page, and does not see what is put there later. An
    /// [arena](crate::service::Arena) sees to that.
    ///
    /// # Errors
    /// [`OutsideRegion`], if the region is not that long.
    pub fn new(region: Region, offset: u64, bytes: u64) -> Result<Self, OutsideRegion> {
        Self::kept(vec![region], offset, bytes, None)
    }

    /// `bytes` bytes from `offset` on of `regions`, which lie one behind the other on one GPU.
    ///
    /// # Errors
    /// [`OutsideRegion`], if they are not that long together, or it begins behind the first.
    ///
    /// # Panics
    /// If there are several, and they are not all on one GPU, or one is volatile.
    pub fn spanning(regions: Vec<Region>, offset: u64, bytes: u64) -> Result<Self, OutsideRegion> {
        assert!(may_follow(&regions), "a storage spans several regions on one GPU only");
        Self::kept(regions, offset, bytes, None)
    }

    pub(crate) fn kept(
        regions: Vec<Region>,
        offset: u64,
        bytes: u64,
        keeper: Option<Keeper>,
    ) -> Result<Self, OutsideRegion> {
        let length = regions.iter().map(Region::bytes).fold(0, u64::saturating_add);
        let is_of_first = regions.len() < 2 || offset < regions[0].bytes();
        match offset.checked_add(bytes) {
            Some(end) if end <= length && is_of_first => {
                Ok(Self::made(regions, offset, bytes, keeper))
            }
            _ => Err(OutsideRegion { offset, bytes, length }),
        }
    }

    /// A range that its allocator knows to lie in the region.
    pub(crate) fn of(region: Region, offset: u64, bytes: u64) -> Self {
        Self::made(vec![region], offset, bytes, None)
    }

    fn made(regions: Vec<Region>, offset: u64, bytes: u64, keeper: Option<Keeper>) -> Self {
        let (usual, ready) = (OnceLock::new(), OnceLock::new());
        Self(Arc::new(Inner { regions, offset, bytes, usual, ready, _keeper: keeper }))
    }

    /// The memory in which it begins; `None` for one without bytes.
    pub fn region(&self) -> Option<&Region> {
        self.0.regions.first()
    }

    /// All memory that it is a range of, one region behind the other.
    pub fn regions(&self) -> &[Region] {
        &self.0.regions
    }

    /// Where its bytes are; without any, the host's memory.
    pub fn place(&self) -> Place {
        self.region().map_or(Place::Cpu, Region::place)
    }

    /// Its memory at addresses of this process, for the GPU of `context`, where it may be written to if
    /// the right to was granted and `access` says so. Opening the same again costs a look at a table.
    /// Where the storage begins there, [`address_in`](Self::address_in) says.
    ///
    /// # Errors
    /// [`RegionError::Open`] and [`RegionError::Foreign`], also for a GPU that does not reach that of the memory;
    /// [`RegionError::OnHost`] for memory of the host, and for a storage without bytes;
    /// [`RegionError::Sealed`], if writing was not granted.
    pub fn open(
        &self,
        context: &cuda_ipc::Context,
        access: cuda_ipc::Access,
    ) -> Result<cuda_ipc::Mapping, RegionError> {
        let region = self.region().ok_or(RegionError::OnHost)?;
        if access == cuda_ipc::Access::ReadWrite && region.usual_access() != Access::Shared {
            return Err(RegionError::Sealed);
        }
        region::open(&self.0.regions, context, access)
    }

    /// Its first byte at an address of this process, in what [`open`](Self::open) gave.
    pub fn address_in(&self, mapping: &cuda_ipc::Mapping) -> u64 {
        mapping.address() + self.region().map_or(0, Region::start) + self.offset()
    }

    /// When its bytes are there; `None`: at once.
    pub fn ready(&self) -> Option<&Ready> {
        self.0.ready.get()
    }

    /// Says when its bytes will be there, before it is lent. What was said first counts.
    pub fn set_ready(&self, ready: Ready) {
        // As documented.
        let _ = self.0.ready.set(ready);
    }

    /// Where it begins in its first region, in bytes.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Its bytes, in the [usual](Region::usual_access) way: shared for who may write, else private.
    ///
    /// # Errors
    /// [`RegionError`], if the kernel refuses to map the region; [`RegionError::OnDevice`] for memory of
    /// a GPU, which [`open`](Self::open) opens.
    pub fn view(&self) -> Result<StorageView, RegionError> {
        let usual = self.region().map_or(Access::ReadOnly, Region::usual_access);
        self.view_as(usual)
    }

    /// Its bytes as `access` says.
    ///
    /// # Errors
    /// [`RegionError::Sealed`] for shared access without the right to write, and what the kernel says.
    pub fn view_as(&self, access: Access) -> Result<StorageView, RegionError> {
        let Some(region) = self.region() else {
            return Ok(StorageView { bytes: None, _map: None, storage: self.clone() });
        };
        let is_usual = access == region.usual_access();
        let map = match self.0.usual.get().filter(|_| is_usual) {
            Some(map) => Arc::clone(map),
            None => region.map(access)?,
        };
        if is_usual {
            // Whoever was quicker has put the same one there.
            let _ = self.0.usual.set(Arc::clone(&map));
        }
        let bytes = part(&map.bytes, self.0.offset, self.0.bytes);
        Ok(StorageView { bytes: Some(bytes), _map: Some(map), storage: self.clone() })
    }

    /// Its bytes, private to the caller: nobody else in this process sees what is stored to them.
    ///
    /// Costs a mapping of its own; other looks at a region share one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn view_apart(&self) -> Result<StorageView, RegionError> {
        let Some(region) = self.region() else { return self.view() };
        if self.0.bytes == 0 {
            return self.view();
        }
        // Mappings begin at pages.
        let start = self.0.offset / page_bytes() * page_bytes();
        let pages = region.map_apart(start..self.0.offset + self.0.bytes)?;
        let bytes = part(&pages, self.0.offset - start, self.0.bytes);
        Ok(StorageView { bytes: Some(bytes), _map: None, storage: self.clone() })
    }
}

/// Whether a storage may span them.
pub(crate) fn may_follow(regions: &[Region]) -> bool {
    let first = regions.first().map_or(Place::Cpu, Region::place);
    let follows = |it: &Region| it.place() == first && !it.is_volatile();
    regions.len() < 2 || (first != Place::Cpu && regions.iter().all(follows))
}

/// The range was checked against the region when the storage was made, in 64 bits.
fn part(bytes: &SharedBytes, offset: u64, length: u64) -> SharedBytes {
    let range = offset as usize..(offset + length) as usize;
    bytes.slice(range).expect("a storage lies in its region")
}

impl PartialEq for Storage {
    /// Whether both are the same bytes of the same memory.
    fn eq(&self, other: &Self) -> bool {
        let place = |it: &Self| (it.0.offset, it.0.bytes);
        self.regions() == other.regions() && place(self) == place(other)
    }
}

impl Eq for Storage {}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("region", &self.region().map(Region::id))
            .field("offset", &self.offset())
            .field("bytes", &self.bytes())
            .finish()
    }
}

/// The mapped bytes of a storage, which keep it alive.
#[derive(Clone, Debug)]
pub struct StorageView {
    bytes: Option<SharedBytes>,
    _map: Option<Arc<Map>>,
    storage: Storage,
}

impl StorageView {
    /// What is viewed.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The bytes; `None` if the storage has no region.
    pub fn bytes(&self) -> Option<&SharedBytes> {
        self.bytes.as_ref()
    }

    /// The address of the first byte, for foreign interfaces; null if there is none.
    pub fn as_ptr(&self) -> *mut u8 {
        self.bytes.as_ref().map_or(std::ptr::null_mut(), SharedBytes::as_ptr)
    }
}

impl Deref for StorageView {
    type Target = Storage;

    fn deref(&self) -> &Storage {
        &self.storage
    }
}

/// A range that does not lie in its region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes from byte {offset} on do not lie in a region of {length} bytes")]
pub struct OutsideRegion {
    /// Where the range begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
    /// How long the region is, in bytes.
    pub length: u64,
}
