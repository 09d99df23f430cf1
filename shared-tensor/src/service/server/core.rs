//! What all threads of a server share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use tensor_cache::{Cache, FlightId, ObjectId};

use super::flight::{BuildFailure, Flight};
use super::kept::Kept;
use super::pool::Pool;
use super::session::CacheSession;
use super::tasks::Tasks;
use super::waits::Waits;
use crate::service::endpoint::CacheKey;
use crate::service::failure::{Code, Failure};
use crate::service::monitor::lock;
use crate::service::place::Device;
use crate::service::provider::Provider;
use crate::service::region::{Arena, Id, Rights};
use crate::service::value::Value;
use crate::service::wire::messages::{Invalidated, ObjectInfo, Released, seconds};

pub(crate) struct Core {
    pub(crate) id: Id,
    pub(crate) provider: Provider,
    pub(crate) cache: Cache<CacheKey, Kept, BuildFailure>,
    /// Holds what tasks have made until it is fetched, and what calls within this process got.
    pub(crate) own: CacheSession,
    pub(crate) calls: Arc<Pool>,
    pub(crate) task_pool: Arc<Pool>,
    pub(crate) tasks: Tasks,
    pub(crate) counters: Counters,
    /// The GPU that the server is for, if it lends no memory of the host.
    pub(crate) gpu_alone: Option<Device>,
    pub(crate) result_bytes_max: usize,
    pub(crate) path: OnceLock<PathBuf>,
    pub(crate) is_ready: AtomicBool,
    pub(crate) is_stopping: AtomicBool,
    pub(crate) extra: Vec<(String, Value)>,
    pub(crate) capabilities: Vec<(String, Value)>,
    begun: Instant,
    objects: Mutex<HashMap<Id, Known>>,
    waits: Waits,
    flights: Mutex<HashMap<FlightId, Arc<Flight>>>,
    serial: Mutex<HashMap<Arc<str>, super::serial::Line>>,
    arenas: [Arc<Arena>; 2],
}

/// A managed object that is alive.
struct Known {
    object: ObjectId,
    kept: Weak<Kept>,
}

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }
    };
}

counters! {
    requests_processed, errors_encountered, cache_hits, cache_misses, task_submissions,
    cache_invalidations,
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What a core is made of.
pub(crate) struct Setup {
    pub(crate) provider: Provider,
    pub(crate) cache: Cache<CacheKey, Kept, BuildFailure>,
    pub(crate) calls: Arc<Pool>,
    pub(crate) task_pool: Arc<Pool>,
    pub(crate) tasks: Tasks,
    /// The GPU that the server is for, if it lends no memory of the host.
    pub(crate) gpu_alone: Option<Device>,
    pub(crate) result_bytes_max: usize,
    pub(crate) is_ready: bool,
    pub(crate) extra: Vec<(String, Value)>,
    pub(crate) capabilities: Vec<(String, Value)>,
    pub(crate) id: Option<Id>,
}

impl Core {
    pub(crate) fn new(setup: Setup) -> Self {
        Self {
            id: setup.id.unwrap_or_else(Id::random),
            own: setup.cache.open_session(),
            provider: setup.provider,
            cache: setup.cache,
            calls: setup.calls,
            task_pool: setup.task_pool,
            tasks: setup.tasks,
            counters: Counters::default(),
            gpu_alone: setup.gpu_alone,
            result_bytes_max: setup.result_bytes_max,
            path: OnceLock::new(),
            is_ready: AtomicBool::new(setup.is_ready),
            is_stopping: AtomicBool::new(false),
            extra: setup.extra,
            capabilities: setup.capabilities,
            begun: Instant::now(),
            objects: Mutex::default(),
            waits: Waits::default(),
            flights: Mutex::default(),
            serial: Mutex::default(),
            arenas: [Arc::default(), Arc::default()],
        }
    }

    /// Where results are made that are lent with these rights.
    pub(crate) fn arena(&self, rights: Rights) -> Arc<Arena> {
        Arc::clone(&self.arenas[usize::from(rights == Rights::Write)])
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Acquire)
    }

    pub(crate) fn serial(&self) -> &Mutex<HashMap<Arc<str>, super::serial::Line>> {
        &self.serial
    }

    /// Makes an object known by the name that clients have for it.
    pub(crate) fn note_object(self: &Arc<Self>, lease: &tensor_cache::Lease<Kept>) {
        if let Some(id) = lease.value().object {
            let known = Known { object: lease.object(), kept: Arc::downgrade(lease.value()) };
            lock(&self.objects).insert(id, known);
        }
    }

    /// The object is gone. Called by its value's end.
    pub(crate) fn forget_object(&self, id: Id) {
        lock(&self.objects).remove(&id);
    }

    pub(crate) fn objects(&self) -> usize {
        lock(&self.objects).len()
    }

    /// Gives back one lease of `session`; `None` if it has none.
    pub(crate) fn release(&self, session: &CacheSession, id: Id) -> Option<Released> {
        let object = lock(&self.objects).get(&id)?.object;
        let released = session.release_object(object)?;
        Some(Released { refcount: released.leases_left, destroyed: released.is_destroyed })
    }

    pub(crate) fn object_info(&self, id: Id) -> Option<ObjectInfo> {
        let objects = lock(&self.objects);
        let known = objects.get(&id)?;
        let (object, kept) = (known.object, known.kept.upgrade());
        drop(objects);
        let refcount = self.cache.refcount(object)?;
        let kept = kept?;
        Some(ObjectInfo {
            object: id,
            endpoint: kept.endpoint.clone(),
            cache_key: kept.cache_key.clone(),
            refcount,
            created_at: kept.created_at,
            last_accessed_at: kept.accessed_at(),
            server: self.id,
        })
    }

    pub(crate) fn waits(&self) -> &Waits {
        &self.waits
    }

    /// Notes a call, made within `parent`, for as long as the guard lives.
    pub(crate) fn note_call(
        self: &Arc<Self>,
        number: u64,
        parent: u64,
        endpoint: &Arc<str>,
    ) -> Noted {
        self.waits.begin(number, parent, endpoint);
        Noted { core: Arc::clone(self), number }
    }

    /// What is known of a build, by whoever comes to it first, until it is [over](Self::end_flight).
    pub(crate) fn flight(&self, flight: FlightId) -> Arc<Flight> {
        Arc::clone(lock(&self.flights).entry(flight).or_default())
    }

    pub(crate) fn end_flight(&self, flight: FlightId) {
        let ended = lock(&self.flights).remove(&flight);
        drop(ended);
    }

    /// Whether anybody else than who began it waits for a build.
    pub(crate) fn is_awaited(&self, flight: FlightId) -> bool {
        let flights = self.cache.flights();
        flights.iter().any(|it| it.flight == flight && it.waiters > 1)
    }

    /// Counts what was invalidated.
    pub(crate) fn invalidated(&self, hit: tensor_cache::Invalidated) -> Invalidated {
        let (entries, builds) = (hit.entries as u64, hit.builds as u64);
        self.counters.cache_invalidations.fetch_add(entries, Ordering::Relaxed);
        Invalidated { entries, builds }
    }

    /// What there is to know of the server, by the names of the contract.
    pub(crate) fn info(&self) -> Value {
        let count = |counter: &AtomicU64| Value::Int(clamped(counter.load(Ordering::Relaxed)));
        let size = |size: usize| Value::Int(clamped(size as u64));
        let (counters, cache) = (&self.counters, self.cache.stats());
        let cached_objects = self.cached_objects();
        let stats = Value::dict([
            ("requests_processed", count(&counters.requests_processed)),
            ("errors_encountered", count(&counters.errors_encountered)),
            ("cache_hits", count(&counters.cache_hits)),
            ("cache_misses", count(&counters.cache_misses)),
            ("task_submissions", count(&counters.task_submissions)),
            ("cache_invalidations", count(&counters.cache_invalidations)),
            ("cache_entries", size(cache.entries.saturating_sub(cached_objects))),
            ("inflight_calls", size(cache.flights)),
            ("objects", size(self.objects())),
            ("cached_objects", size(cached_objects)),
            ("task_count", size(self.tasks.len())),
            ("leases", Value::Int(clamped(cache.leases))),
            ("sessions", size(cache.sessions.saturating_sub(1))),
            ("evictions", Value::Int(clamped(cache.evictions))),
            ("expirations", Value::Int(clamped(cache.expirations))),
            ("calls_waiting", size(self.calls.queued())),
            ("tasks_waiting", size(self.task_pool.queued())),
        ]);
        let is_stopping = self.is_stopping();
        let is_ready = self.is_ready.load(Ordering::Acquire) && !is_stopping;
        let path = self.path.get().map(|path| path.display().to_string());
        let names = self.provider.names().into_iter().map(|name| Value::Str(name.to_string()));
        let mut pairs = vec![
            ("server", "SharedTensorServer".into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
            ("server_id", self.id.to_string().into()),
            ("socket_path", path.into()),
            ("uptime", seconds(self.uptime()).into()),
            ("running", (!is_stopping).into()),
            ("ready", is_ready.into()),
            ("pid", std::process::id().into()),
            ("ppid", rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()).into()),
            ("stats", stats),
            ("endpoints", Value::List(names.collect())),
            ("capabilities", Value::dict(self.capabilities.iter().cloned())),
        ]
        .into_iter()
        .map(|(key, value): (&str, Value)| (key.to_owned(), value))
        .collect::<Vec<_>>();
        for (key, value) in &self.extra {
            match pairs.iter_mut().find(|(known, _)| known == key) {
                Some((_, known)) => *known = value.clone(),
                None => pairs.push((key.clone(), value.clone())),
            }
        }
        Value::dict(pairs)
    }

    /// Managed objects that lookups find.
    fn cached_objects(&self) -> usize {
        let objects: Vec<ObjectId> = lock(&self.objects).values().map(|it| it.object).collect();
        let is_listed =
            |object: &&ObjectId| self.cache.entry(**object).is_some_and(|entry| entry.is_listed);
        objects.iter().filter(is_listed).count()
    }

    fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(crate) fn endpoint(
        &self,
        name: &str,
    ) -> Result<Arc<crate::service::endpoint::Endpoint>, Failure> {
        self.provider.get(name).ok_or_else(|| {
            let near = self.provider.nearest(name);
            let hint = near.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
            Failure::new(Code::Provider, format!("Endpoint '{name}' is not registered{hint}"))
        })
    }
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Takes a call off the books.
pub(crate) struct Noted {
    core: Arc<Core>,
    pub(crate) number: u64,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.core.waits.end(self.number);
    }
}
