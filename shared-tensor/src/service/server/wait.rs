//! Waiting for a build without a thread.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use tensor_cache::{GetError, Lease, Pending};

use super::flight::BuildFailure;
use super::kept::Kept;
use crate::service::endpoint::CacheKey;
use crate::service::monitor::lock;

pub(crate) type Outcome = Result<Lease<Kept>, GetError<BuildFailure>>;
type Then = Box<dyn FnOnce(Outcome) + Send>;

/// Calls `then` with the outcome of a build, on whichever thread ends it; or right here, if it has
/// ended.
pub(crate) struct Wait {
    state: Mutex<Option<Waiting>>,
}

struct Waiting {
    pending: Pending<CacheKey, Kept, BuildFailure>,
    then: Then,
}

impl Wait {
    pub(crate) fn start(
        pending: Pending<CacheKey, Kept, BuildFailure>,
        then: impl FnOnce(Outcome) + Send + 'static,
    ) {
        let wait =
            Arc::new(Self { state: Mutex::new(Some(Waiting { pending, then: Box::new(then) })) });
        wait.look();
    }

    fn look(self: &Arc<Self>) {
        let waker = Waker::from(Arc::clone(self));
        let mut state = lock(&self.state);
        let Some(Waiting { pending, .. }) = &mut *state else { return };
        let Poll::Ready(outcome) = Pin::new(pending).poll(&mut Context::from_waker(&waker)) else {
            return;
        };
        let ended = state.take();
        drop(state);
        if let Some(Waiting { then, .. }) = ended {
            then(outcome);
        }
    }
}

impl Wake for Wait {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}
