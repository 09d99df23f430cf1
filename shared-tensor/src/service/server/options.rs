//! How a server is set up.

use std::sync::Arc;
use std::time::Duration;

use rpc_uds::{FrameLimits, PeerPolicy};
use tensor_cache::{Cache, Options};

use super::core::{Core, Setup};
use super::desk::Desk;
use super::pool::{Around, Pool};
use super::tasks::Tasks;
use super::{Inner, ServeError, Server};
use crate::service::place::{Address, Signpost};
use crate::service::provider::Provider;
use crate::service::region::{Id, Place};
use crate::service::value::Value;
use crate::service::wire::messages::FEATURES;
use crate::service::wire::payload::REGIONS_MAX;

/// The choices that hold for a whole server.
#[derive(Clone)]
pub struct ServerOptions {
    max_workers: usize,
    result_ttl: Duration,
    max_tasks: usize,
    message_bytes_max: u32,
    stack_bytes: usize,
    failures_kept: Duration,
    budgets: Vec<(Place, u64)>,
    is_ready: bool,
    is_host_memory_for_gpu: bool,
    extra: Vec<(String, Value)>,
    capabilities: Vec<(String, Value)>,
    around: Option<Arc<Around>>,
    socket: rpc_uds::ServerOptions,
    id: Option<Id>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_workers: 4,
            result_ttl: Duration::from_secs(3600),
            max_tasks: 1000,
            message_bytes_max: MESSAGE_BYTES_MAX,
            stack_bytes: 8 << 20,
            failures_kept: Duration::ZERO,
            budgets: Vec::new(),
            is_ready: true,
            is_host_memory_for_gpu: false,
            extra: Vec::new(),
            capabilities: Vec::new(),
            around: None,
            socket: rpc_uds::Server::options(),
            id: None,
        }
    }
}

/// The longest message, unless set otherwise: values take bytes besides their tensors.
pub(crate) const MESSAGE_BYTES_MAX: u32 = 16 << 20;
/// What a delivery may need around its payload: the regions it names.
pub(crate) const HEAD_BYTES_MAX: u32 = 16 << 10;
/// How long messages have to be allowed to be at least, in bytes.
pub const MESSAGE_BYTES_LEAST: u32 = 2 * HEAD_BYTES_MAX;

impl ServerOptions {
    /// How many calls compute at once, and how many tasks. At least one of each. Default: 4.
    #[must_use]
    pub fn max_workers(self, max_workers: usize) -> Self {
        Self { max_workers, ..self }
    }

    /// How long the result of a task is kept. Default: an hour.
    #[must_use]
    pub fn result_ttl(self, result_ttl: Duration) -> Self {
        Self { result_ttl, ..self }
    }

    /// How many tasks are known at once; of more, the oldest ended ones are dropped. When all are
    /// unfinished, a client that has fewer than its share of them gets some beyond. Default: 1000.
    #[must_use]
    pub fn max_tasks(self, max_tasks: usize) -> Self {
        Self { max_tasks, ..self }
    }

    /// How long a message may be, in bytes; tensors and long texts do not count. At least
    /// [`MESSAGE_BYTES_LEAST`], 32 KiB. Default: 16 MiB.
    #[must_use]
    pub fn message_bytes_max(self, bytes: u32) -> Self {
        Self { message_bytes_max: bytes, ..self }
    }

    /// The stack of each thread that runs endpoints, in bytes. Default: 8 MiB.
    #[must_use]
    pub fn stack_bytes(self, stack_bytes: usize) -> Self {
        Self { stack_bytes, ..self }
    }

    /// How long the failure of a cached endpoint answers those who ask for the same. Default: not at
    /// all, beyond those who waited for it.
    #[must_use]
    pub fn keep_failures(self, time: Duration) -> Self {
        Self { failures_kept: time, ..self }
    }

    /// How many bytes results may take in a place. What nobody holds goes to make room; what is held
    /// by clients stays, and new results are refused with [`Code::OverBudget`](crate::service::Code::OverBudget).
    ///
    /// What counts is the length of the storages that a result lies in, each once per result, whatever
    /// part of them its tensors show; two results over one storage count it twice. It is counted from
    /// when the result is there, or, if the endpoint [reserves](crate::service::Endpoint::reserve), from
    /// before its function runs, until the server lets go of it. Not counted: the number of regions and
    /// of the descriptors that they take, what lies in a region beside the storages (up to a page for
    /// each, and the unused end of an [arena](crate::service::Arena)'s last region), results that are
    /// neither cached nor managed, and what an endpoint allocates and does not return.
    ///
    /// A client lets go when the last tensor of a result is dropped there, and says so before its next
    /// call on the same connection, or soon; [`Client::settle`](crate::service::Client::settle) waits
    /// for that.
    #[must_use]
    pub fn budget(mut self, place: Place, bytes: u64) -> Self {
        self.budgets.push((place, bytes));
        self
    }

    /// Whether the server calls itself ready before [`Server::publish`]. Default: yes.
    #[must_use]
    pub fn ready(self, is_ready: bool) -> Self {
        Self { is_ready, ..self }
    }

    /// Whether a server at the address of a [GPU](crate::service::Device::Gpu) lends memory of the host,
    /// too. Otherwise results with tensors there are refused: clients that look for memory of that GPU
    /// would get something else. Default: no.
    #[must_use]
    pub fn host_memory_for_gpu(self, is_host_memory_for_gpu: bool) -> Self {
        Self { is_host_memory_for_gpu, ..self }
    }

    /// Adds to what the server tells about itself, or replaces it.
    #[must_use]
    pub fn info(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Adds to the capabilities that the server tells.
    #[must_use]
    pub fn capability(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.capabilities.push((name.into(), value.into()));
        self
    }

    /// Runs the whole life of each thread for endpoints, for what must be set up once per thread and
    /// undone at its end. `around` must call what it is given, once.
    #[must_use]
    pub fn around_worker(self, around: impl Fn(&mut dyn FnMut()) + Send + Sync + 'static) -> Self {
        Self { around: Some(Arc::new(around)), ..self }
    }

    /// Which users may connect. Default: the server's own.
    #[must_use]
    pub fn policy(self, policy: PeerPolicy) -> Self {
        Self { socket: self.socket.policy(policy), ..self }
    }

    /// Changes what the layer below is set up with: connections, time-outs, limits of one client.
    #[must_use]
    pub fn socket(
        self,
        change: impl FnOnce(rpc_uds::ServerOptions) -> rpc_uds::ServerOptions,
    ) -> Self {
        Self { socket: change(self.socket), ..self }
    }

    /// What tells the server from every other, for an owner that has drawn it before. Default: drawn
    /// here.
    #[must_use]
    pub fn id(self, id: Id) -> Self {
        Self { id: Some(id), ..self }
    }

    /// Serves what `provider` has, and will have, at `address` until the server is stopped or dropped.
    ///
    /// # Errors
    /// [`ServeError::Bind`] with [`rpc_uds::BindError::Taken`] if a living server is there;
    /// [`ServeError::MessageBytes`] if messages are to be [too short](Self::message_bytes_max).
    pub fn serve(self, address: &Address, provider: &Provider) -> Result<Server, ServeError> {
        if self.message_bytes_max < MESSAGE_BYTES_LEAST {
            let (found, least) = (self.message_bytes_max, MESSAGE_BYTES_LEAST);
            return Err(ServeError::MessageBytes { found, least });
        }
        let path = address.socket()?;
        let mut cache = Options::new().keep_failures(self.failures_kept);
        for (place, bytes) in &self.budgets {
            cache = cache.budget(place.budget(), *bytes);
        }
        let pool =
            |label| Pool::new(label, self.max_workers, self.stack_bytes, self.around.clone());
        let setup = Setup {
            provider: provider.clone(),
            cache: Cache::new(&cache).map_err(ServeError::Threads)?,
            calls: pool("st-call"),
            task_pool: pool("st-task"),
            tasks: Tasks::new(self.result_ttl, self.max_tasks.max(1)),
            gpu_alone: address.gpu().filter(|_| !self.is_host_memory_for_gpu).cloned(),
            result_bytes_max: (self.message_bytes_max - HEAD_BYTES_MAX) as usize,
            is_ready: self.is_ready,
            extra: self.extra,
            capabilities: self.capabilities,
            id: self.id,
        };
        let core = Arc::new(Core::new(setup));
        // Before anybody can connect.
        let _ = core.path.set(path.clone());
        core.tasks.start_timer().map_err(ServeError::Threads)?;
        let limits = FrameLimits {
            body_bytes_max: self.message_bytes_max,
            descriptors_max: u8::try_from(REGIONS_MAX).unwrap_or(u8::MAX),
        };
        // Everything is answered or handed over by the connections' own threads.
        let options = self.socket.features(FEATURES).limits(limits).workers(1);
        let socket = match options.serve(&path, Desk(Arc::clone(&core))) {
            Ok(socket) => socket,
            Err(error) => {
                core.tasks.clear();
                return Err(error.into());
            }
        };
        let signpost = address.signpost().map(|link| Signpost::raise(&link, &path));
        let signpost = signpost.transpose().unwrap_or_default().flatten();
        let inner = Inner { core, socket, signpost: signpost.into() };
        Ok(Server { inner: Some(inner), process: std::process::id() })
    }
}

impl std::fmt::Debug for ServerOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions")
            .field("max_workers", &self.max_workers)
            .field("result_ttl", &self.result_ttl)
            .field("max_tasks", &self.max_tasks)
            .field("message_bytes_max", &self.message_bytes_max)
            .field("budgets", &self.budgets)
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}
