//! What a call brings.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::link::Link;
use crate::service::region::Id;
use crate::service::value::Value;
use crate::service::wire::messages::LeaseEntry;

/// A result, as it came from the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The value. Its storages hold on to the lease.
    pub value: Value,
    /// What the server knows it by, if it is managed.
    pub handle: Option<Handle>,
    /// What keeps it alive on the server, if it is kept there.
    pub lease: Option<Lease>,
}

/// The name of a managed object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    /// The object.
    pub object: Id,
    /// The server that has it. Another server at the same path does not know it.
    pub server: Id,
}

/// A share in an object of a server, which is neither dropped nor evicted meanwhile.
///
/// It is given back with its last clone: the storages of its value have one each. A server sees it
/// as given back when the client's connection ends, too.
#[derive(Clone)]
#[must_use = "dropping the last clone gives it back"]
pub struct Lease(Arc<Inner>);

struct Inner {
    link: Option<Arc<Link>>,
    entry: LeaseEntry,
    is_over: AtomicBool,
    process: u32,
}

impl Lease {
    pub(super) fn new(link: &Arc<Link>, entry: LeaseEntry) -> Self {
        Self(Arc::new(Inner {
            link: Some(Arc::clone(link)),
            entry,
            is_over: AtomicBool::new(false),
            process: std::process::id(),
        }))
    }

    /// Whether it is still this process's to give back.
    pub fn is_held(&self) -> bool {
        !self.0.is_over.load(Ordering::Acquire) && self.0.process == std::process::id()
    }

    /// Says that it was given back by other means. `true` the first time.
    pub(super) fn end(&self) -> bool {
        self.is_held() && !self.0.is_over.swap(true, Ordering::AcqRel)
    }

    pub(super) fn entry(&self) -> LeaseEntry {
        self.0.entry
    }

    pub(super) fn link(&self) -> Option<&Arc<Link>> {
        self.0.link.as_ref()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("is_held", &self.is_held()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(link) = self.link.take() else { return };
        if self.process != std::process::id() {
            // The parent's: what is behind it may be locked for ever here.
            std::mem::forget(link);
            return;
        }
        if !self.is_over.load(Ordering::Acquire) && !link.is_lost() {
            link.ended(self.entry);
        }
    }
}
