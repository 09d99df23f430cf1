//! The side that builds and lends.
//!
//! | thread | does |
//! |---|---|
//! | one per connection | reads requests; answers what needs no endpoint: hits, releases, what is known of tasks and objects |
//! | `st-call` | functions of endpoints, as many as there are places |
//! | `st-task` | the same for tasks |
//! | `st-time` | ends the time of results of tasks that nobody fetched |
//! | `st-drop` | drops them, when there are some |
//!
//! Nobody waits on a thread: those who want what is being built are told by whoever ends the build.

mod calls;
mod core;
mod desk;
mod flight;
mod kept;
mod ledger;
mod local;
#[cfg(test)]
mod older_clients;
mod options;
mod pool;
mod serial;
mod session;
mod tasks;
mod wait;
mod waits;

use std::fmt;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::endpoint::Asker;
use super::monitor::lock;
use super::place::{PlaceError, Signpost};
use super::provider::Provider;
use super::region::{Arena, Id, Rights};
use super::value::Value;

pub use local::Local;
pub use options::{MESSAGE_BYTES_LEAST, ServerOptions};

pub(crate) use options::{HEAD_BYTES_MAX, MESSAGE_BYTES_MAX};

pub(crate) use pool::giving_place_away;

#[cfg(any(test, fuzzing))]
pub(crate) use calls::adopted;

#[cfg(test)]
pub(crate) use ledger::Ledger;

use self::core::Core;

/// A server of endpoints. Dropping it stops it without grace.
///
/// A forked child that inherits one neither stops it nor answers for it.
#[must_use = "dropping it stops it"]
pub struct Server {
    /// Gone with the server only.
    inner: Option<Inner>,
    process: u32,
}

struct Inner {
    core: Arc<Core>,
    socket: rpc_uds::Server,
    signpost: Mutex<Option<Signpost>>,
}

/// Why there is no server.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The socket cannot be listened at.
    #[error(transparent)]
    Bind(#[from] rpc_uds::BindError),
    /// There is no place for the socket.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Messages would have no room for anything.
    #[error("messages of at most {found} bytes are too short: allow {least} at least")]
    MessageBytes {
        /// What was set.
        found: u32,
        /// The least that there has to be.
        least: u32,
    },
    /// A thread could not be started.
    #[error("the server's threads cannot be started")]
    Threads(#[source] io::Error),
}

/// A call whose function had not come back when the server stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unfinished {
    /// The endpoint.
    pub endpoint: String,
    /// Who asked for it.
    pub asker: Asker,
}

/// How a server came to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it tells whether everything had ended, and what had not"]
pub struct Stopped {
    /// Whether every call and task had ended within the grace.
    pub is_drained: bool,
    /// Threads that are still in the code of an endpoint. They end with it.
    pub threads_left: usize,
    /// What they are at, by the names of the endpoints.
    pub unfinished: Vec<Unfinished>,
}

impl Server {
    fn inner(&self) -> &Inner {
        self.inner.as_ref().expect("there until the server is dropped")
    }

    /// How to serve.
    pub fn options() -> ServerOptions {
        ServerOptions::default()
    }

    /// What tells it from every other server, its predecessors at the same path included.
    pub fn id(&self) -> Id {
        self.inner().core.id
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.inner().socket.path()
    }

    /// The link that leads to it from where the contract has its socket; `None` if somebody else's
    /// leads from there, or none can be made.
    pub fn signpost(&self) -> Option<std::path::PathBuf> {
        lock(&self.inner().signpost).as_ref().map(|it| it.path().to_owned())
    }

    /// What it offers; more can be registered.
    pub fn provider(&self) -> &Provider {
        &self.inner().core.provider
    }

    /// What it tells about itself.
    pub fn info(&self) -> Value {
        self.inner().core.info()
    }

    /// Says that every endpoint is registered: clients that look see it as ready.
    pub fn publish(&self) {
        self.inner().core.is_ready.store(true, Ordering::Release);
    }

    /// Memory for what is to be lent, to readers or to writers.
    pub fn arena(&self, rights: Rights) -> Arc<Arena> {
        self.inner().core.arena(rights)
    }

    /// What the layer below has counted.
    pub fn socket_stats(&self) -> Result<rpc_uds::ServerStats, rpc_uds::Forked> {
        self.inner().socket.stats()
    }

    /// Stops: new calls are refused, tasks that have not begun are cancelled, what runs has `grace` to
    /// end and is then asked to; every thread that is not in an endpoint's code is joined. The
    /// second time it only waits, for as long, for the threads that were left.
    pub fn stop(&self, grace: Duration) -> Result<Stopped, rpc_uds::Forked> {
        let Inner { core, socket, signpost } = self.inner();
        if self.process != std::process::id() {
            return Err(rpc_uds::Forked);
        }
        let by = Instant::now() + grace;
        let is_first = !core.is_stopping.swap(true, Ordering::AcqRel);
        if !is_first {
            let threads_left = core.calls.join(by) + core.task_pool.join(by);
            let unfinished = if threads_left > 0 { core.waits().running() } else { Vec::new() };
            return Ok(Stopped { is_drained: threads_left == 0, threads_left, unfinished });
        }
        drop(lock(signpost).take());
        core.tasks.close(core);
        let is_done = core.task_pool.wait_until_idle(by);
        let stopped = socket.stop(by.saturating_duration_since(Instant::now()))?;
        core.waits().raise_all();
        core.calls.close();
        core.task_pool.close();
        // What was asked to stop a moment ago, and does, is worth a short wait.
        let end = Instant::now().max(by) + Duration::from_millis(100);
        let threads_left = core.calls.join(end) + core.task_pool.join(end);
        let unfinished = if threads_left > 0 { core.waits().running() } else { Vec::new() };
        core.tasks.clear();
        core.cache.clear();
        Ok(Stopped {
            is_drained: is_done && stopped.is_drained,
            threads_left: threads_left + stopped.threads_left,
            unfinished,
        })
    }

    /// Serves until SIGTERM or SIGINT comes, then stops. A program that returns from `main` after this
    /// exits with 0.
    pub fn run(self, termination: &rpc_uds::Termination, grace: Duration) -> io::Result<Stopped> {
        termination.wait(None)?;
        Ok(self.stop(grace)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // Its threads, and whoever held its locks, are in the parent; its socket is closed here
            // without its doing.
            mem::forget(self.inner.take());
            return;
        }
        // Fails in forked children only.
        let _ = self.stop(Duration::ZERO);
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("id", &self.inner().core.id)
            .field("path", &self.inner().socket.path())
            .finish_non_exhaustive()
    }
}
