//! Memory on a GPU that is lent where `cudaMalloc` put it, by a handle and without a descriptor.
//!
//! Nothing holds it but its maker: it is there while that process lives and keeps it. So each piece that
//! is lent keeps what its maker needs for that, and clients a lease on the result that it came in. Its
//! maker cannot open its own handle, and nobody can pass one on: what comes back is found by its name.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use cuda_ipc::{Context, ForeignError, LegacyHandle, Mapping, Uuid};
use shm_lock::PerProcess;

use super::{Id, Place};
use crate::service::monitor::lock;

/// A piece of memory that is its maker's, here or elsewhere.
pub(crate) struct Volatile {
    id: Id,
    device: Uuid,
    handle: LegacyHandle,
    whose: Whose,
}

enum Whose {
    /// This process's, at an address. A forked child has no part in it.
    Own { address: u64, process: u32, _keeper: Box<dyn Any + Send + Sync> },
    /// Another one's, if it is seen here.
    Theirs { maker: Option<u32> },
}

/// What this process lends, by name and by where it lies.
#[derive(Default)]
struct Lent {
    by_id: HashMap<Id, Weak<Volatile>>,
    by_handle: HashMap<LegacyHandle, Id>,
}

static LENT: PerProcess<Mutex<Lent>> = PerProcess::new();

fn lent() -> MutexGuard<'static, Lent> {
    lock(LENT.get_or_init(Mutex::default))
}

impl Volatile {
    /// `bytes` from `address` on, kept by `keeper`. What is lent already is the same again.
    pub(crate) fn lend(
        context: &Context,
        address: u64,
        bytes: u64,
        keeper: Box<dyn Any + Send + Sync>,
    ) -> Result<Arc<Self>, ForeignError> {
        let handle = LegacyHandle::new(context, address, bytes)?;
        let whose = Whose::Own { address, process: std::process::id(), _keeper: keeper };
        Ok(Self::register(context.device().uuid(), handle, whose))
    }

    fn register(device: Uuid, handle: LegacyHandle, whose: Whose) -> Arc<Self> {
        let made = Arc::new(Self { id: Id::random(), device, handle, whose });
        let mut lent = lent();
        let known = lent.by_handle.get(&handle).and_then(|id| lent.by_id.get(id));
        if let Some(known) = known.and_then(Weak::upgrade) {
            return known;
        }
        lent.by_handle.insert(handle, made.id);
        lent.by_id.insert(made.id, Arc::downgrade(&made));
        made
    }

    /// What this process lends by a name.
    pub(crate) fn own(id: Id) -> Option<Arc<Self>> {
        lent().by_id.get(&id).and_then(Weak::upgrade)
    }

    /// What came from a peer. Whether it is what was said shows when it is opened.
    pub(crate) fn theirs(device: Uuid, id: Id, handle: LegacyHandle) -> Self {
        Self { id, device, handle, whose: Whose::Theirs { maker: None } }
    }

    /// The same, as that process's.
    pub(crate) fn made_by(&self, maker: Option<u32>) -> Option<Self> {
        let whose = Whose::Theirs { maker };
        match self.whose {
            Whose::Own { .. } => None,
            Whose::Theirs { .. } => {
                Some(Self { id: self.id, device: self.device, handle: self.handle, whose })
            }
        }
    }

    /// Whether that process made it.
    pub(crate) fn is_of(&self, process: u32) -> bool {
        match self.whose {
            Whose::Own { process: own, .. } => own == process,
            Whose::Theirs { maker } => maker == Some(process),
        }
    }

    pub(crate) fn id(&self) -> Id {
        self.id
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.handle.bytes()
    }

    pub(crate) fn place(&self) -> Place {
        Place::Cuda(self.device)
    }

    pub(crate) fn handle(&self) -> &LegacyHandle {
        &self.handle
    }

    /// Where it lies in the process that made it, if that is this one.
    pub(crate) fn address_here(&self) -> Option<u64> {
        match self.whose {
            Whose::Own { address, process, .. } if process == std::process::id() => Some(address),
            _ => None,
        }
    }

    pub(crate) fn open(&self, context: &Context) -> Result<Mapping, ForeignError> {
        Mapping::open_handle(context, &self.handle)
    }
}

impl Drop for Volatile {
    fn drop(&mut self) {
        if self.address_here().is_none() {
            return;
        }
        let mut lent = lent();
        lent.by_id.remove(&self.id);
        // Another one may have taken its place since its last user went.
        if lent.by_handle.get(&self.handle) == Some(&self.id) {
            lent.by_handle.remove(&self.handle);
        }
    }
}

impl fmt::Debug for Volatile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volatile")
            .field("id", &self.id)
            .field("handle", &self.handle)
            .field("address_here", &self.address_here())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn handle(mark: u8, offset: u64, bytes: u64) -> LegacyHandle {
        let mut form = [mark; LegacyHandle::BYTES];
        form[64..72].copy_from_slice(&offset.to_le_bytes());
        form[72..].copy_from_slice(&bytes.to_le_bytes());
        LegacyHandle::decode(&form)
    }

    /// As if this process had it at an address, without a driver to ask.
    pub(crate) fn lend(handle: LegacyHandle, keeper: Arc<()>) -> Arc<Volatile> {
        let process = std::process::id();
        let whose = Whose::Own { address: 4096, process, _keeper: Box::new(keeper) };
        Volatile::register(Uuid::from_bytes([7; 16]), handle, whose)
    }

    /// The same as a region.
    pub(crate) fn lent(handle: LegacyHandle) -> super::super::Region {
        super::super::Region::of_volatile(lend(handle, Arc::default()))
    }

    #[test]
    fn what_is_lent_is_found_and_kept_until_nobody_has_it() {
        let (first, second) = (Arc::new(()), Arc::new(()));
        let one = lend(handle(1, 512, 64), Arc::clone(&first));
        let again = lend(handle(1, 512, 64), Arc::clone(&second));
        assert!(Arc::ptr_eq(&one, &again), "the same memory is the same piece");
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (2, 1));
        let other = lend(handle(1, 576, 64), Arc::default());
        assert_ne!(one.id(), other.id(), "another part of one allocation");
        let found = Volatile::own(one.id()).unwrap();
        assert_eq!(found.address_here(), Some(4096));
        assert!(found.is_of(std::process::id()) && !found.is_of(1));
        let id = one.id();
        drop((one, again));
        assert_eq!(Arc::strong_count(&first), 2, "who found it keeps it");
        drop(found);
        assert_eq!(Arc::strong_count(&first), 1);
        assert!(Volatile::own(id).is_none());
        assert_ne!(lend(handle(1, 512, 64), Arc::default()).id(), id);
    }

    #[test]
    fn what_came_is_its_makers() {
        let came = Volatile::theirs(Uuid::from_bytes([7; 16]), Id::random(), handle(2, 0, 64));
        assert!(!came.is_of(std::process::id()) && came.address_here().is_none());
        let came = came.made_by(Some(17)).unwrap();
        assert!(came.is_of(17) && !came.is_of(18));
        assert!(Volatile::own(came.id()).is_none());
        assert!(lend(handle(3, 0, 64), Arc::default()).made_by(Some(17)).is_none());
    }
}
