//! Everything of the host that is registered in this process: no page twice.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use crate::device::Context;
use crate::host::{HostRange, RegisterError};
use crate::mapping::Access;
use crate::reaper::Reaped;
use crate::references::References;
use crate::sync::{Mutex, lock};
use crate::sys::{HostMemory, Registration, pages_of, table};

/// Pages that are registered, whoever refers to them.
pub(crate) struct Registered {
    pub(crate) registration: Registration,
    /// In which they were registered.
    context: Context,
    access: Access,
    pub(crate) references: References,
}

/// By the address of the first page. Held while pages are registered and unregistered: were they
/// registered anew while they are being unregistered, the driver would refuse.
static RANGES: Mutex<BTreeMap<usize, Arc<Registered>>> = Mutex::new(BTreeMap::new());

/// Registers the pages of `memory`, unless they are.
pub(crate) fn register(
    context: &Context,
    memory: Arc<dyn HostMemory>,
    access: Access,
) -> Result<HostRange, RegisterError> {
    // Not in a forked child, where somebody may have held the lock.
    table()?;
    let can = context.device().capabilities();
    if !can.host_registration {
        return Err(RegisterError::Unsupported { device: context.device().uuid() });
    }
    if access == Access::ReadWrite && !memory.is_writable() {
        return Err(RegisterError::ReadOnly);
    }
    let pages = pages_of(&*memory).ok_or(RegisterError::Empty)?;
    let mut ranges = lock(&RANGES);
    // They are disjoint, so it is the last one that begins before the end, or none.
    let before = ranges.range(..pages.end).next_back().map(|(_, known)| known);
    if let Some(known) = before.filter(|known| known.pages().end > pages.start) {
        return known.shared(memory, &pages, access);
    }
    let is_read_only = access == Access::Read && can.read_only_registration;
    let made = context.within(|| {
        let references = References::new()?;
        let registration = Registration::new(Arc::clone(&memory), pages.clone(), is_read_only)?;
        Ok(Registered { registration, context: context.clone(), access, references })
    })?;
    let made = Arc::new(made);
    ranges.insert(pages.start, Arc::clone(&made));
    Ok(HostRange::new(made, memory, access))
}

/// How many ranges of pages are registered, and their bytes.
pub(crate) fn count() -> (usize, u64) {
    let ranges = lock(&RANGES);
    (ranges.len(), ranges.values().map(|it| it.pages().len() as u64).sum())
}

impl Registered {
    fn pages(&self) -> &Range<usize> {
        self.registration.pages()
    }

    /// Another reference, for memory within the same pages.
    fn shared(
        self: &Arc<Self>,
        memory: Arc<dyn HostMemory>,
        pages: &Range<usize>,
        access: Access,
    ) -> Result<HostRange, RegisterError> {
        let known = self.pages().clone();
        if pages.start < known.start || pages.end > known.end {
            return Err(RegisterError::Overlap { wanted: pages.clone(), known });
        }
        if access == Access::ReadWrite && self.access == Access::Read {
            return Err(RegisterError::ForReading { known });
        }
        Ok(HostRange::new(Arc::clone(self), memory, access))
    }
}

impl Reaped for Registered {
    fn references(&self) -> &References {
        &self.references
    }

    /// Its owner waits for it.
    fn lingers(&self) -> bool {
        false
    }

    fn waits_for_devices(&self) -> bool {
        true
    }

    fn take(&self, since: Instant) -> bool {
        let mut ranges = lock(&RANGES);
        // References come from nothing only while this is held.
        if !self.references.are_none_since(since) {
            return false;
        }
        // A context that is lost takes its registrations along.
        let _ = self.context.within(|| self.registration.end());
        let taken = ranges.remove(&self.pages().start);
        drop(ranges);
        // What it keeps is the caller's, and goes without the lock.
        drop(taken);
        true
    }
}
