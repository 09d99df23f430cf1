//! Places in regions for values: many small ones share a region.

use std::sync::Mutex;

use super::{Region, RegionError, page_bytes};
use crate::service::monitor::lock;
use crate::service::value::Storage;

/// The first region of an arena and the largest; each is twice as long as the one before.
const CHUNK_BYTES: (u64, u64) = (1 << 20, 64 << 20);
/// The same on a GPU, whose pages are this large.
const CHUNK_BYTES_ON_DEVICE: (u64, u64) = (2 << 20, 64 << 20);
/// Where storages on a GPU begin, in bytes: as allocators there have it. Nothing is copied there when it
/// is written to, so they need no pages of their own.
const ALIGNMENT_ON_DEVICE: u64 = 512;

/// Hands out places in regions, one after the other, each in pages of its own.
///
/// Whoever reads a region stores to private copies of its pages, and a copied page does not change
/// any more: if two results shared one, a store to the first would hide what is put into the second.
///
/// A region goes when the last storage in it does; what is freed earlier is not used again. Storages
/// larger than half a region have one of their own.
#[derive(Debug, Default)]
pub struct Arena {
    /// Whose memory it is; `None` for the host's.
    device: Option<cuda_ipc::Device>,
    state: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    region: Option<Region>,
    used: u64,
    next_bytes: u64,
}

impl Arena {
    /// An arena without memory; it takes some of the host's when asked.
    pub fn new() -> Self {
        Self::default()
    }

    /// An arena without memory; it takes some of a GPU's when asked. What is lent for writing and what is
    /// not are to come from arenas of their own: who may write to one part of a region may to all.
    pub fn on(device: cuda_ipc::Device) -> Self {
        Self { device: Some(device), state: Mutex::default() }
    }

    fn region(&self, bytes: u64) -> Result<Region, RegionError> {
        match &self.device {
            None => Region::allocate(bytes),
            Some(device) => Region::allocate_on(device, bytes),
        }
    }

    /// A place for `bytes` bytes, zeroed in memory of the host.
    ///
    /// # Errors
    /// [`RegionError::Memory`] and [`RegionError::Chunk`], when there is no room.
    pub fn allocate(&self, bytes: u64) -> Result<Storage, RegionError> {
        if bytes == 0 {
            return Ok(Storage::empty());
        }
        let mut open = lock(&self.state);
        let (sizes, alignment) = match &self.device {
            None => (CHUNK_BYTES, page_bytes()),
            Some(_) => (CHUNK_BYTES_ON_DEVICE, ALIGNMENT_ON_DEVICE),
        };
        let chunk_bytes = open.next_bytes.max(sizes.0);
        if bytes > chunk_bytes / 2 {
            drop(open);
            return Ok(Storage::of(self.region(bytes)?, 0, bytes));
        }
        let start = open.used.next_multiple_of(alignment);
        if let Some(region) = &open.region
            && start.checked_add(bytes).is_some_and(|end| end <= region.bytes())
        {
            let region = region.clone();
            open.used = start + bytes;
            return Ok(Storage::of(region, start, bytes));
        }
        let region = self.region(chunk_bytes)?;
        *open = Open {
            region: Some(region.clone()),
            used: bytes,
            next_bytes: (chunk_bytes * 2).min(sizes.1),
        };
        Ok(Storage::of(region, 0, bytes))
    }

    /// Places for all of them in one region of just that length: one descriptor to hand out.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate).
    pub fn allocate_together(sizes: &[u64]) -> Result<Vec<Storage>, RegionError> {
        let mut end = 0_u64;
        let starts: Vec<u64> = sizes
            .iter()
            .map(|&bytes| {
                let start = next_page(end);
                end = start.saturating_add(bytes);
                start
            })
            .collect();
        if end == 0 {
            return Ok(sizes.iter().map(|_| Storage::empty()).collect());
        }
        let region = Region::allocate(end)?;
        let places = starts.into_iter().zip(sizes);
        Ok(places
            .map(|(start, &bytes)| match bytes {
                0 => Storage::empty(),
                bytes => Storage::of(region.clone(), start, bytes),
            })
            .collect())
    }

    /// Lets go of the region that is being filled: what comes next begins another one.
    pub fn close(&self) {
        *lock(&self.state) = Open::default();
    }
}

fn next_page(from: u64) -> u64 {
    from.next_multiple_of(page_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_ones_share_a_region_and_large_ones_have_their_own() {
        let arena = Arena::new();
        let [a, b, c] = [10, 70_000, 1 << 20].map(|bytes| arena.allocate(bytes).unwrap());
        assert_eq!((a.offset(), a.bytes()), (0, 10));
        assert_eq!((b.offset(), b.bytes()), (page_bytes(), 70_000));
        assert_eq!(a.region(), b.region());
        assert_ne!(a.region(), c.region());
        assert_eq!(arena.allocate(0).unwrap().region(), None);
    }

    #[test]
    fn what_is_allocated_together_shares_no_page() {
        let sizes = [1, 0, 70_000, 256, 5];
        let placed = Arena::allocate_together(&sizes).unwrap();
        let starts: Vec<u64> = placed.iter().map(Storage::offset).collect();
        let page = page_bytes();
        let large = 70_000_u64.next_multiple_of(page);
        assert_eq!(starts, [0, 0, page, page + large, 2 * page + large]);
        assert_eq!(placed.iter().map(Storage::bytes).collect::<Vec<_>>(), sizes);
        assert_eq!(placed[4].region().unwrap().bytes(), 2 * page + large + 5);
    }
}
