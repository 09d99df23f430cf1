//! Everything that is mapped in this process: each object once per device and access.

use std::collections::HashMap;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use crate::chunk::{Chunk, ChunkId};
use crate::device::Context;
use crate::error::DriverError;
use crate::mapping::{Access, Mapped, Mapping, OpenError};
use crate::registered;
use crate::sync::{Mutex, lock};
use crate::sys::table;

/// What makes two openings the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) ordinal: usize,
    pub(crate) access: Access,
    pub(crate) what: What,
}

/// What is opened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// Chunks, one behind the other.
    Chunks(Vec<ChunkId>),
    /// Another process's `cudaMalloc`, by its handle.
    Allocation([u8; 64]),
}

impl Key {
    fn chunks(&self) -> usize {
        match &self.what {
            What::Chunks(chunks) => chunks.len(),
            What::Allocation(_) => 0,
        }
    }
}

/// What there is under a key. Whoever opens or unmaps it holds this, and nothing else, meanwhile.
#[derive(Default)]
struct Place {
    mapped: Mutex<Option<Arc<Mapped>>>,
}

static PLACES: Mutex<Option<HashMap<Key, Arc<Place>>>> = Mutex::new(None);

fn place(key: &Key) -> Arc<Place> {
    let mut places = lock(&PLACES);
    Arc::clone(places.get_or_insert_default().entry(key.clone()).or_default())
}

pub(crate) fn open(
    context: &Context,
    chunks: &[&Chunk],
    access: Access,
) -> Result<Mapping, OpenError> {
    if chunks.is_empty() {
        return Err(OpenError::Empty);
    }
    let key = Key {
        ordinal: context.device().ordinal(),
        access,
        what: What::Chunks(chunks.iter().map(|chunk| chunk.label().id()).collect()),
    };
    open_as(&key, |key| Mapped::make(context, chunks, key))
}

/// Opens what a key names by `open`, unless it is open.
pub(crate) fn open_as<E: From<DriverError>>(
    key: &Key,
    open: impl FnOnce(Key) -> Result<Mapped, E>,
) -> Result<Mapping, E> {
    // Not in a forked child, where somebody may have held the locks.
    table()?;
    let place = place(key);
    let mut mapped = lock(&place.mapped);
    if let Some(mapped) = &*mapped {
        return Ok(mapped.refer());
    }
    match open(key.clone()) {
        Ok(made) => {
            let made = Arc::new(made);
            *mapped = Some(Arc::clone(&made));
            Ok(made.refer())
        }
        Err(error) => {
            drop(mapped);
            tidy(key);
            Err(error)
        }
    }
}

/// Takes what nobody refers to, and nobody has since, out of the table, for it to be unmapped with its
/// last reference. Returns whether it is out.
pub(crate) fn take(mapped: &Mapped, since: Instant) -> bool {
    let place = lock(&PLACES).as_ref().and_then(|places| places.get(&mapped.key).cloned());
    let Some(place) = place else { return true };
    {
        let mut there = lock(&place.mapped);
        if !there.as_ref().is_some_and(|it| ptr::eq(Arc::as_ptr(it), mapped)) {
            return true;
        }
        // References come from nothing only while this is held.
        if !mapped.references.are_none_since(since) {
            return false;
        }
        there.take();
    }
    drop(place);
    tidy(&mapped.key);
    true
}

/// Removes a place that is empty and at which nobody is.
fn tidy(key: &Key) {
    let mut places = lock(&PLACES);
    let Some(places) = places.as_mut() else { return };
    let is_idle =
        |place: &Arc<Place>| Arc::strong_count(place) == 1 && lock(&place.mapped).is_none();
    if places.get(key).is_some_and(is_idle) {
        places.remove(key);
    }
}

/// Copies of the chunks that hold a range of what this process has opened, and where it begins in the
/// first of them, in bytes; `None` if it was not opened here.
pub(crate) fn chunks_at(address: u64, bytes: u64) -> io::Result<Option<(Vec<Chunk>, u64)>> {
    for mapped in all() {
        if let Some((chunks, offset)) = mapped.part(address, bytes) {
            let copies = chunks.iter().map(Chunk::try_clone).collect::<Result<_, _>>()?;
            return Ok(Some((copies, offset)));
        }
    }
    Ok(None)
}

/// Whether an address lies in another process's `cudaMalloc` that is open here.
pub(crate) fn is_allocation_at(address: u64) -> bool {
    all().iter().any(|mapped| mapped.is_allocation() && mapped.holds(address))
}

fn all() -> Vec<Arc<Mapped>> {
    let places: Vec<Arc<Place>> =
        lock(&PLACES).iter().flat_map(|places| places.values().cloned()).collect();
    places.iter().filter_map(|place| lock(&place.mapped).clone()).collect()
}

/// What this process has mapped and registered through this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Objects: what one [`Mapping::open`] or [`Mapping::open_handle`] opened, counted once however often
    /// it was opened.
    pub mappings: usize,
    /// Their chunks.
    pub chunks: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Objects among them that nobody refers to and that are not unmapped yet.
    pub lingering: usize,
    /// Ranges of pages of the host that are registered: each once, whoever shares it.
    pub host_ranges: usize,
    /// The bytes of those pages.
    pub host_bytes: u64,
}

/// What this process has mapped and registered.
pub fn usage() -> Usage {
    if table().is_err() {
        return Usage::default();
    }
    let (host_ranges, host_bytes) = registered::count();
    let mut usage = Usage { host_ranges, host_bytes, ..Usage::default() };
    for mapped in all() {
        usage.mappings += 1;
        usage.chunks += mapped.key.chunks();
        usage.bytes += mapped.bytes();
        usage.lingering += usize::from(!mapped.references.are_there());
    }
    usage
}
