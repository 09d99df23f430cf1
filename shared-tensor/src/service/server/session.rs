//! What the server keeps per connection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use rpc_uds::{Connection, Responder};
use tensor_cache::Lease;

use super::flight::BuildFailure;
use super::kept::Kept;
use super::ledger::Ledger;
use crate::service::endpoint::{Asker, CacheKey};
use crate::service::failure::{Code, Failure};
use crate::service::monitor::lock;
use crate::service::region::Id;
use crate::service::wire::messages::{
    CustodyAt, Delivery, FailureEntry, HandleEntry, LeaseEntry, RegionEntry, VOLATILE, answer,
    encode,
};

pub(crate) type CacheSession = tensor_cache::Session<CacheKey, Kept, BuildFailure>;

/// A client, as long as it is connected. Its leases go with it.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) cache: CacheSession,
    ledger: Mutex<Ledger>,
}

impl Session {
    pub(crate) fn new(connection: Connection, cache: CacheSession) -> Self {
        Self { connection, cache, ledger: Mutex::default() }
    }

    pub(crate) fn asker(&self) -> Asker {
        let peer = self.connection.peer();
        Asker { pid: peer.pid, uid: peer.uid, session: self.cache.id().raw() }
    }

    pub(crate) fn confirm(&self, confirmed: &[CustodyAt]) {
        if !confirmed.is_empty() {
            let mut ledger = lock(&self.ledger);
            for at in confirmed {
                ledger.confirm(*at);
            }
        }
    }

    pub(crate) fn forget(&self, forgotten: &[CustodyAt]) -> Vec<bool> {
        let mut ledger = lock(&self.ledger);
        forgotten.iter().map(|at| ledger.forget(*at)).collect()
    }

    pub(crate) fn regions_held(&self) -> usize {
        lock(&self.ledger).len()
    }

    /// Delivers a result, with the lease on it, if there is one.
    ///
    /// # Errors
    /// The lease, if nobody takes the result.
    pub(crate) fn deliver(
        &self,
        responder: Responder,
        server: Id,
        kept: &Kept,
        lease: Option<Lease<Kept>>,
    ) -> Result<(), Option<Lease<Kept>>> {
        kept.touch();
        let handle = kept.object.map(|object| HandleEntry { object, server });
        let lease_entry = lease
            .as_ref()
            .map(|lease| LeaseEntry { object: lease.id().object.raw(), serial: lease.id().serial });
        let regions = &kept.packed.regions;
        let mut descriptors: Vec<Arc<OwnedFd>> = Vec::new();
        let agreed = self.connection.agreement().map_or(0, |it| it.features);
        let knows_volatile = agreed & VOLATILE != 0;
        // Held until the reply is on its way: the ledger tells how.
        let mut ledger = lock(&self.ledger);
        let mut entries = Vec::with_capacity(regions.len());
        for region in regions {
            let rights = region.granting(kept.grants);
            if region.is_volatile() && !knows_volatile {
                drop(ledger);
                let what = "the result lies in memory that is lent where it is (copy=False), which this \
                            client's release does not know: update it, or leave copy=False out";
                fail(responder, &Failure::new(Code::Capability, what));
                return Err(lease);
            }
            let mut entry = RegionEntry::new(region, rights, false);
            // What is volatile has no custody: nobody but its maker holds it, and it is named whole.
            if region.is_volatile() || !ledger.holds(entry.custody()) {
                match region.lend(rights) {
                    Ok(descriptor) => descriptors.extend(descriptor),
                    Err(error) => {
                        drop(ledger);
                        fail(responder, &Failure::new(Code::Capability, error.to_string()));
                        return Err(lease);
                    }
                }
                entry = RegionEntry::new(region, rights, true);
            }
            entries.push(entry);
        }
        let serial = ledger.next_serial();
        let custody: Vec<_> = entries.iter().map(RegionEntry::custody).collect();
        let head = Delivery { serial, lease: lease_entry, handle, regions: entries };
        let mut body = encode(&head);
        body.extend_from_slice(&kept.packed.bytes);
        let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(|it| it.as_fd()).collect();
        let sent = responder.reply(answer::DONE, &body, &descriptors);
        if !custody.is_empty() && sent.is_ok() {
            ledger.sent(custody);
        }
        drop(ledger);
        if sent.is_err() {
            return Err(lease);
        }
        if let Some(lease) = lease {
            // The session gives it back if the client does not.
            let _ = lease.into_id();
        }
        Ok(())
    }
}

/// Tells of a failure. Whoever asked may have gone.
pub(crate) fn fail(responder: Responder, failure: &Failure) {
    // What cannot be sent is replaced by a refusal.
    let _ = responder.reply(answer::FAILED, &encode(&FailureEntry::from(failure)), &[]);
}
