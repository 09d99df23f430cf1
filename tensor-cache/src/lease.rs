//! A lease as a guard.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::machine::Granted;
use crate::shared::Lender;
use crate::{LeaseId, ObjectId, SessionId};

/// A value that is lent: it is neither evicted nor dropped before this is, or before the session is
/// closed.
///
/// Dropping gives the lease back. [`Lease::into_id`] leaves it to the session instead, for a holder
/// elsewhere that will send the number back.
pub struct Lease<V> {
    value: Arc<V>,
    id: LeaseId,
    session: SessionId,
    /// Gone when the lease was left to the session.
    lender: Option<Arc<dyn Lender>>,
}

impl<V> Lease<V> {
    pub(crate) fn new(granted: Granted<V>, session: SessionId, lender: Arc<dyn Lender>) -> Self {
        Self { value: granted.value, id: granted.lease, session, lender: Some(lender) }
    }

    /// What identifies this lease.
    pub const fn id(&self) -> LeaseId {
        self.id
    }

    /// What is leased.
    pub const fn object(&self) -> ObjectId {
        self.id.object
    }

    /// Whose lease this is.
    pub const fn session(&self) -> SessionId {
        self.session
    }

    /// The value itself. Who keeps a clone of it keeps memory that the cache believes to be free
    /// when the last lease is gone.
    pub const fn value(&self) -> &Arc<V> {
        &self.value
    }

    /// Leaves the lease to its session, until
    /// [`Session::release`](crate::Session::release) or the session's end.
    #[must_use = "the number is what the lease is given back by"]
    pub fn into_id(mut self) -> LeaseId {
        self.lender = None;
        self.id
    }
}

impl<V> Drop for Lease<V> {
    fn drop(&mut self) {
        if let Some(lender) = self.lender.take() {
            lender.take_back(self.session, self.id);
        }
    }
}

impl<V> Deref for Lease<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V> fmt::Debug for Lease<V> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Lease")
            .field("id", &self.id)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}
