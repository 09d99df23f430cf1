//! Which memory of this process is mapped from which region, by address: tensors that lie in shared
//! memory already are lent where they are.

use std::collections::BTreeMap;
use std::sync::MutexGuard;

use shared_tensor::lock::InheritedMutex;
use shared_tensor::service::cuda::Mapping;
use shared_tensor::service::{Access, Region, Rights, Storage, StorageView, Value};

static MAPPED: InheritedMutex<BTreeMap<usize, Mapped>> = InheritedMutex::new(BTreeMap::new());

struct Mapped {
    /// More than one on a GPU only.
    regions: Vec<Region>,
    access: Access,
    users: usize,
    /// Whether it was lent to writers or to readers first: for writers that is for ever.
    lent: Option<Rights>,
}

/// Keeps a mapping known. Made for each view that tensors are made over.
pub(super) struct Known {
    base: usize,
}

fn mapped() -> MutexGuard<'static, BTreeMap<usize, Mapped>> {
    MAPPED.lock(BTreeMap::new)
}

/// Makes it known what lies where `view` is, for as long as what is returned lives. It looks at its
/// region in the usual way, of which there is one mapping.
pub(super) fn note(view: &StorageView) -> Option<Known> {
    let region = view.region()?;
    let base = view.as_ptr().addr().checked_sub(usize::try_from(view.offset()).ok()?)?;
    let access = region.usual_access();
    let mut mapped = mapped();
    let known = mapped.entry(base).or_insert_with(|| Mapped {
        regions: vec![region.clone()],
        access,
        users: 0,
        lent: None,
    });
    known.users += 1;
    Some(Known { base })
}

/// The same for memory of a GPU, whose addresses are no addresses of the host's memory.
pub(super) fn note_on_device(storage: &Storage, mapping: &Mapping) -> Option<Known> {
    let region = storage.region()?;
    if region.address_here().is_some() {
        // What this process lends where it has it is lent anew, so that it is kept each time.
        return None;
    }
    let access = region.usual_access();
    let base = storage.address_in(mapping).checked_sub(storage.offset())?;
    let base = usize::try_from(base).ok()?;
    let mut mapped = mapped();
    let regions = || storage.regions().to_vec();
    let known = mapped.entry(base).or_insert_with(|| Mapped {
        regions: regions(),
        access,
        users: 0,
        lent: None,
    });
    known.users += 1;
    Some(Known { base })
}

impl Drop for Known {
    fn drop(&mut self) {
        let mut mapped = mapped();
        let Some(known) = mapped.get_mut(&self.base) else { return };
        known.users -= 1;
        let gone = (known.users == 0).then(|| mapped.remove(&self.base));
        drop(mapped);
        drop(gone);
    }
}

/// The shared memory at `length` bytes from `address` on, if what others see there is what is seen
/// here, and they may write to it if `is_for_writing`.
pub(super) fn find(address: usize, length: u64, is_for_writing: bool) -> Option<Storage> {
    let (storage, access) = known_at(address, length, is_for_writing)?;
    // What was stored to a private mapping is nowhere else.
    let is_same = access != Access::PrivateCopyOnWrite || is_unchanged(&storage);
    is_same.then_some(storage)
}

/// The same for memory of a GPU, for a process to get it, if it is known: what is volatile goes back to
/// its maker only.
pub(super) fn find_on_device(
    address: usize,
    length: u64,
    is_for_writing: bool,
    process: Option<u32>,
) -> Option<Storage> {
    let (storage, _) = known_at(address, length, is_for_writing)?;
    storage.region()?.may_go_to(process).then_some(storage)
}

/// Whether another process's volatile memory lies at an address of a GPU.
pub(super) fn is_volatile(address: usize) -> bool {
    let found = known_at(address, 1, false);
    found.and_then(|(storage, _)| Some(storage.region()?.is_volatile())).unwrap_or(false)
}

fn known_at(address: usize, length: u64, is_for_writing: bool) -> Option<(Storage, Access)> {
    let mapped = mapped();
    let (&base, known) = mapped.range(..=address).next_back()?;
    let offset = (address - base) as u64;
    let bytes = known.regions.iter().map(Region::bytes).fold(0, u64::saturating_add);
    if offset.checked_add(length)? > bytes {
        return None;
    }
    if is_for_writing && known.lent == Some(Rights::Read) {
        return None;
    }
    let (regions, access) = (known.regions.clone(), known.access);
    drop(mapped);
    let rights = if is_for_writing { Rights::Write } else { Rights::Read };
    if regions.iter().any(|region| region.rights() < rights) {
        return None;
    }
    // It may begin behind the first of several.
    let (mut regions, mut offset) = (regions.as_slice(), offset);
    while let [first, rest @ ..] = regions
        && !rest.is_empty()
        && offset >= first.bytes()
    {
        offset -= first.bytes();
        regions = rest;
    }
    let storage = Storage::spanning(regions.to_vec(), offset, length).ok()?;
    Some((storage, access))
}

/// Notes that the regions of a value are about to be lent with these rights.
pub(super) fn note_lent(value: &Value, rights: Rights) {
    let storages: &[Storage] = match value {
        Value::Tensor(tensor) => std::slice::from_ref(tensor.storage()),
        Value::Object(object) => &object.storages,
        _ => return,
    };
    let mut mapped = mapped();
    for region in storages.iter().filter_map(Storage::region) {
        for known in mapped.values_mut().filter(|known| known.regions.first() == Some(region)) {
            known.lent.get_or_insert(rights);
        }
    }
}

/// Whether nothing was stored to this process's private look at a storage.
fn is_unchanged(storage: &Storage) -> bool {
    let (Ok(own), Ok(theirs)) = (storage.view(), storage.view_as(Access::ReadOnly)) else {
        return false;
    };
    let (Some(own), Some(theirs)) = (own.bytes(), theirs.bytes()) else { return true };
    let mut parts = [vec![0; COMPARED_AT_ONCE], vec![0; COMPARED_AT_ONCE]];
    for offset in (0..own.len()).step_by(COMPARED_AT_ONCE) {
        let length = COMPARED_AT_ONCE.min(own.len() - offset);
        let [left, right] = &mut parts;
        let are_read = own.read_into(offset, &mut left[..length]).is_ok()
            && theirs.read_into(offset, &mut right[..length]).is_ok();
        if !are_read || left[..length] != right[..length] {
            return false;
        }
    }
    true
}

/// Bytes; two of these fit into a core's own cache.
const COMPARED_AT_ONCE: usize = 64 << 10;
