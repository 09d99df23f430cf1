//! Calls from within the server's process, without a socket.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use super::calls::{Asked, invoke};
use super::kept::Kept;
use super::tasks::Made;
use super::{Server, giving_place_away};
use crate::service::client::{Arguments, CallOptions};
use crate::service::endpoint::Native;
use crate::service::failure::{Code, Failure};
use crate::service::region::Id;
use crate::service::value::Value;

/// How often a wait asks whether it is interrupted.
const SLICE: Duration = Duration::from_millis(100);

/// A result of the server's own. While this lives, so does what it is on the server: it counts as one
/// lease.
pub struct Local {
    kept: Arc<Kept>,
    _made: Made,
}

impl Local {
    /// The value.
    pub fn value(&self) -> &Value {
        &self.kept.value
    }

    /// What the endpoint returned beside it.
    pub fn native(&self) -> Option<&Native> {
        self.kept.native.as_ref()
    }

    /// What clients know it by, if it is managed.
    pub fn object(&self) -> Option<Id> {
        self.kept.object
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("value", self.value()).finish_non_exhaustive()
    }
}

impl Server {
    /// Calls an endpoint from this process, as [`invoke`](Self::invoke) does. Progress is not told.
    ///
    /// # Errors
    /// As there.
    pub fn call<'a>(
        &self,
        endpoint: &str,
        arguments: impl Into<Arguments>,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<Local, Failure> {
        let options = options.into();
        let is_interrupted = || options.is_interrupted();
        self.invoke(endpoint, &arguments.into(), None, options.deadline, &is_interrupted)
    }

    /// Calls an endpoint from this process: with the cache, the workers and the rules of all other
    /// calls, and without a copy. `native` is for the endpoint's function to see.
    ///
    /// Whoever waits within an endpoint gives its place to others meanwhile.
    ///
    /// # Errors
    /// The endpoint's failure; one of type `TimeoutError` at the deadline, and of type `Interrupted`
    /// when `is_interrupted`, asked ten times a second, says so. What was begun goes on; after the
    /// deadline nothing is begun.
    pub fn invoke(
        &self,
        endpoint: &str,
        arguments: &Arguments,
        native: Option<Native>,
        deadline: Option<Instant>,
        is_interrupted: &dyn Fn() -> bool,
    ) -> Result<Local, Failure> {
        let core = &self.inner().core;
        if self.process != std::process::id() {
            let what = "the server belongs to the process that this one was forked from";
            return Err(Failure::new(Code::Configuration, what));
        }
        let late = || Failure::other("TimeoutError", "the call took too long");
        if deadline.is_some_and(|at| at <= Instant::now()) {
            return Err(late());
        }
        let asked = Asked::local(core, endpoint, arguments, native)?;
        let outcome = invoke(core, asked);
        let made = giving_place_away(|| {
            loop {
                let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
                match outcome.recv_timeout(left.map_or(SLICE, |left| left.min(SLICE))) {
                    Ok(made) => return made,
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(Failure::other("ServerStopping", "the server is stopping"));
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if left.is_some_and(|left| left.is_zero()) {
                    return Err(late());
                }
                if is_interrupted() {
                    return Err(Failure::other("Interrupted", "the call was interrupted"));
                }
            }
        })?;
        Ok(Local { kept: Arc::clone(made.kept()), _made: made })
    }
}
