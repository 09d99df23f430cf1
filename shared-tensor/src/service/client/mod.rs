//! The side that asks and borrows.

mod answer;
mod asking;
mod error;
mod lane;
mod letter;
mod link;
mod options;
mod pulse;
mod reach;
mod start;

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use rpc_uds::{CallError, Forked, Message};

pub use answer::{Answer, Handle, Lease};
pub use asking::{Arguments, CallOptions};
pub use error::Error;
pub use options::ClientOptions;
pub use start::Started;

pub(crate) use link::{Forgetting, Link};

use self::lane::Lane;
use self::letter::Letter;
use self::link::Parcel;
use self::pulse::Pulse;
use self::reach::Patience;
use super::endpoint::enclosing;
use super::monitor::lock;
use super::place::{Address, FOREIGN, PlaceError};
use super::reaper;
use super::region::Id;
use super::server::giving_place_away;
use super::value::Value;
use super::wire::messages::{
    Invalidated, ObjectInfo, Released, TaskAsk, TaskInfo, TaskStatus, ask, encode,
};

/// A client of a server, for any number of threads at once. Clones are the same client.
///
/// It connects when first used, and again when its server is gone and another one has come. A call
/// that was under way when the server went fails: whether it was done is not known. Calls do not wait
/// for a successor, [`wait_for_server`](Self::wait_for_server) does.
///
/// In a forked child every method is an error ([`Error::Forked`]), and dropping it gives nothing of
/// the parent's back.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: ClientOptions,
    process: u32,
    /// For calls that somebody waits for, and for those that are started.
    main: Slot,
    lane: Slot,
    /// What was closed, and may have leases hanging on it.
    closed: Mutex<Vec<Weak<Link>>>,
    /// That of its connections.
    identity: Arc<()>,
    /// Whether there ever was a server.
    was_there: AtomicBool,
    pulse: OnceLock<Pulse>,
    /// Of a driven client: lost connections whose calls are still to be told so.
    ending: Mutex<Vec<Arc<Link>>>,
}

type Slot = Mutex<Option<Arc<Link>>>;

impl Client {
    /// How to find the server.
    pub fn options() -> ClientOptions {
        ClientOptions::default()
    }

    /// A client of the server at `address`. Connects when first used.
    pub fn at(address: Address) -> Self {
        Self::options().at(address)
    }

    fn with(options: ClientOptions) -> Self {
        Self {
            inner: Arc::new(Inner {
                options,
                process: std::process::id(),
                main: Slot::default(),
                lane: Slot::default(),
                closed: Mutex::default(),
                identity: Arc::default(),
                was_there: AtomicBool::new(false),
                pulse: OnceLock::new(),
                ending: Mutex::default(),
            }),
        }
    }

    /// Connects, if it is not connected. A server that was never there is waited for, one that is gone
    /// is not: see [`wait_for_server`](Self::wait_for_server).
    ///
    /// # Errors
    /// [`Error::Absent`], [`Error::ServerLost`] and what else connecting can fail with.
    pub fn connect<'a>(&self, options: impl Into<CallOptions<'a>>) -> Result<(), Error> {
        let wait = &options.into();
        let slot = if self.inner.options.is_driven { &self.inner.lane } else { &self.inner.main };
        self.link(slot, wait).map(drop)
    }

    /// Connects, if it is not connected, without waiting for a server: whether there is one.
    ///
    /// # Errors
    /// What else connecting can fail with. With `waited`, that there is none is an error as well, which
    /// says that so long was waited.
    pub fn try_connect<'a>(
        &self,
        options: impl Into<CallOptions<'a>>,
        waited: Option<Duration>,
    ) -> Result<bool, Error> {
        let options = &options.into();
        let slot = if self.inner.options.is_driven { &self.inner.lane } else { &self.inner.main };
        match (self.link_now(slot, options), waited) {
            (Ok(_), _) => Ok(true),
            (Err(Error::Absent { address, others, .. }), Some(waited)) => {
                Err(Error::Absent { address, waited, others })
            }
            // If somebody else has the link, this user's own may come.
            (
                Err(
                    Error::Absent { .. }
                    | Error::Place(PlaceError::Untrusted { reason: FOREIGN, .. }),
                ),
                None,
            ) => Ok(false),
            (Err(error), _) => Err(error),
        }
    }

    /// Waits until there is a server that answers, and connects to it: the first one at this address,
    /// or the next one when the one that was there is gone. Without a deadline for ever; the client's
    /// [patience](ClientOptions::patience) does not count here.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shared_tensor::service::{Address, Call, Client, Endpoint, Provider, Server};
    ///
    /// let minute = Duration::from_secs(60);
    /// let provider = Provider::new().with(Endpoint::new("one", |_: &Call| Ok(1)));
    /// # let socket = std::env::temp_dir().join(format!("st-successor-doc-{}", std::process::id()));
    /// let server = Server::options().serve(&Address::at(&socket), &provider)?;
    /// let client = Client::at(Address::at(&socket));
    /// client.call("one", (), minute)?;
    /// drop(server);
    ///
    /// let lost = client.call("one", (), minute).unwrap_err();
    /// assert!(lost.is_server_lost(), "at once: nobody says that another one will come");
    /// // Somebody starts one again, sooner or later.
    /// let next = std::thread::spawn(move || Server::options().serve(&Address::at(socket), &provider));
    /// client.wait_for_server(minute)?;
    /// client.call("one", (), minute)?;
    /// # drop(next.join().expect("it served")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// What was lent by the server that is gone stays readable; its objects and tasks are not known to
    /// the next one. A [driven](ClientOptions::driven) client notices that its server is gone when it is
    /// driven, and then waits here.
    ///
    /// # Errors
    /// [`Error::Absent`] or [`Error::TimedOut`] at the deadline, and what else connecting can fail with.
    pub fn wait_for_server<'a>(&self, options: impl Into<CallOptions<'a>>) -> Result<(), Error> {
        let wait = &options.into();
        if self.inner.options.is_driven {
            return self.link_within(&self.inner.lane, wait, Patience::Any).map(drop);
        }
        loop {
            let link = self.link_within(&self.inner.main, wait, Patience::Any)?;
            match link.rpc.ping(wait.deadline) {
                Ok(()) => return Ok(()),
                Err(CallError::Lost(_)) => self.discard(&link),
                Err(error) => return Err(self.failed(&link, error)),
            }
        }
    }

    /// The process that this client is connected to, if it is, and the process is seen here.
    pub fn server_pid(&self) -> Option<u32> {
        let slots = [&self.inner.main, &self.inner.lane];
        slots.into_iter().find_map(|slot| lock(slot).as_ref()?.rpc.server().pid)
    }

    /// Calls an endpoint and waits for its result.
    ///
    /// Results that were let go of before are given back before the server sees the call. Those of
    /// [started](Self::start_call) calls, and of calls that told of their progress, come over another
    /// connection: where a server's memory is scarce, [`settle`](Self::settle) in between.
    ///
    /// # Errors
    /// [`Error::Failed`] with the endpoint's failure, and what else can go wrong on the way.
    pub fn call<'a>(
        &self,
        endpoint: &str,
        arguments: impl Into<Arguments>,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<Answer, Error> {
        self.call_with(endpoint, &arguments.into(), options.into())
    }

    /// As [`call`](Self::call), with arguments that are kept for another time.
    ///
    /// # Errors
    /// As there.
    pub fn call_with(
        &self,
        endpoint: &str,
        arguments: &Arguments,
        mut options: CallOptions<'_>,
    ) -> Result<Answer, Error> {
        if let Some(on_progress) = options.on_progress.take() {
            return self.call_told(endpoint, arguments, &options, on_progress);
        }
        let (link, message) = self.ask_call(ask::CALL, endpoint, arguments, &options)?;
        link.receive(message)
    }

    /// Begins a task, which runs whether or not somebody waits for it.
    ///
    /// # Errors
    /// As [`call`](Self::call); the task's own failure is told by it.
    pub fn submit<'a>(
        &self,
        endpoint: &str,
        arguments: impl Into<Arguments>,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<Id, Error> {
        let (arguments, options) = (&arguments.into(), &options.into());
        let (link, message) = self.ask_call(ask::SUBMIT, endpoint, arguments, options)?;
        link.read(&message)
    }

    /// What there is to know of a task.
    ///
    /// # Errors
    /// [`Error::Failed`] if there is no such task, or no more.
    pub fn task_status<'a>(
        &self,
        task: Id,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<TaskInfo, Error> {
        let options = &options.into();
        self.ask_for(ask::TASK_STATUS, &task_ask(task), options)
    }

    /// Waits for the end of a task. At the deadline it tells what there is to know by then.
    ///
    /// # Errors
    /// [`Error::Failed`] if there is no such task, or no more. How the task ended is no error here.
    pub fn wait_task<'a>(
        &self,
        task: Id,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<TaskInfo, Error> {
        let mut options = options.into();
        let on_progress = options.on_progress.take();
        let ended = match on_progress {
            None => self.ask_for(ask::TASK_WAIT, &task_ask(task), &options),
            Some(on_progress) => self.wait_told(task, &options, on_progress),
        };
        match ended {
            Err(Error::TimedOut { .. }) => {
                let soon = Instant::now() + reach::BRIEF;
                self.task_status(task, soon)
            }
            ended => ended,
        }
    }

    /// The result of a task that has ended.
    ///
    /// # Errors
    /// [`Error::Failed`] with the task's failure, or if it has not ended.
    pub fn task_result<'a>(
        &self,
        task: Id,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<Answer, Error> {
        let options = &options.into();
        let body = encode(&task_ask(task));
        let (link, message) = self.ask(ask::TASK_RESULT, Letter::Plain(&body), options)?;
        link.receive(message)
    }

    /// Cancels a task that has not begun; one that runs is asked to stop if `is_cooperative`. `false`
    /// if neither.
    ///
    /// # Errors
    /// [`Error::Failed`] if there is no such task, or no more.
    pub fn cancel_task<'a>(
        &self,
        task: Id,
        is_cooperative: bool,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<bool, Error> {
        let options = &options.into();
        let ask = TaskAsk { is_cooperative, ..task_ask(task) };
        self.ask_for(ask::TASK_CANCEL, &ask, options)
    }

    /// All tasks that the server knows, oldest first; those in one state, if one is given.
    ///
    /// # Errors
    /// What can go wrong on the way.
    pub fn list_tasks<'a>(
        &self,
        status: Option<TaskStatus>,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<Vec<TaskInfo>, Error> {
        let options = &options.into();
        self.ask_for(ask::TASK_LIST, &status, options)
    }

    /// Gives back one lease of this client on each of these objects; `None` where it has none.
    ///
    /// # Errors
    /// What can go wrong on the way.
    pub fn release<'a>(
        &self,
        objects: &[Id],
        options: impl Into<CallOptions<'a>>,
    ) -> Result<Vec<Option<Released>>, Error> {
        let options = &options.into();
        self.check()?;
        self.settled(options.deadline);
        let mut released: Vec<Option<Released>> = self.ask_for(ask::RELEASE, &objects, options)?;
        // Leases that came with calls that were started, or before it was closed, are on the connections
        // of those.
        let main = lock(&self.inner.main).clone();
        let is_asked = |link: &Arc<Link>| main.as_ref().is_some_and(|main| Arc::ptr_eq(main, link));
        for link in self.links().iter().filter(|link| !is_asked(link) && !link.is_lost()) {
            let missing = released.iter_mut().zip(objects).filter(|(it, _)| it.is_none());
            for (released, object) in missing {
                let body = encode(&vec![*object]);
                match self.ask_on(link, ask::RELEASE, Parcel::plain(body), options) {
                    Ok(message) => {
                        let told: Vec<Option<Released>> = link.read(&message)?;
                        *released = told.into_iter().next().flatten();
                    }
                    // Gone with their server.
                    Err(Error::ServerLost { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(released)
    }

    /// Gives back just this lease. `false` if it was given back before, its server is gone, or it is
    /// another client's, which keeps it.
    ///
    /// # Errors
    /// What can go wrong on the way. The lease is over then all the same, and given back soon.
    pub fn release_lease<'a>(
        &self,
        lease: &Lease,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<bool, Error> {
        let options = &options.into();
        self.check()?;
        let Some(link) = lease.link() else { return Ok(false) };
        if !link.is_of(&self.inner.identity) || !lease.end() || link.is_lost() {
            return Ok(false);
        }
        let body = encode(&vec![lease.entry()]);
        match self.ask_on(link, ask::RELEASE_LEASES, Parcel::plain(body), options) {
            Ok(message) => Ok(link.read::<Vec<bool>>(&message)? == [true]),
            // Gone with its server.
            Err(Error::ServerLost { .. }) => Ok(false),
            Err(error) => {
                // Whether the server has heard of it is not known.
                Arc::clone(link).ended(lease.entry());
                Err(error)
            }
        }
    }

    /// What there is to know of a managed object; `None` if it is gone.
    ///
    /// # Errors
    /// What can go wrong on the way.
    pub fn object_info<'a>(
        &self,
        object: Id,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<Option<ObjectInfo>, Error> {
        let options = &options.into();
        self.check()?;
        self.settled(options.deadline);
        self.ask_for(ask::OBJECT, &object, options)
    }

    /// What the server tells about itself: a dict.
    ///
    /// # Errors
    /// What can go wrong on the way.
    pub fn server_info<'a>(&self, options: impl Into<CallOptions<'a>>) -> Result<Value, Error> {
        let options = &options.into();
        self.check()?;
        self.settled(options.deadline);
        let (link, message) = self.ask(ask::INFO, Letter::Plain(&[]), options)?;
        link.read_value(&message)
    }

    /// The server's endpoints, by name: a dict of dicts.
    ///
    /// # Errors
    /// What can go wrong on the way.
    pub fn endpoints<'a>(&self, options: impl Into<CallOptions<'a>>) -> Result<Value, Error> {
        let options = &options.into();
        let (link, message) = self.ask(ask::ENDPOINTS, Letter::Plain(&[]), options)?;
        link.read_value(&message)
    }

    /// Makes the cached result of a call out of date, and stops a build of it from being kept.
    ///
    /// # Errors
    /// [`Error::Failed`] if there is no such endpoint, or no key for such arguments.
    pub fn invalidate_call<'a>(
        &self,
        endpoint: &str,
        arguments: impl Into<Arguments>,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<Invalidated, Error> {
        let (arguments, options) = (&arguments.into(), &options.into());
        let (link, message) = self.ask_call(ask::INVALIDATE_CALL, endpoint, arguments, options)?;
        link.read(&message)
    }

    /// The same for all results of an endpoint.
    ///
    /// # Errors
    /// [`Error::Failed`] if there is no such endpoint.
    pub fn invalidate_endpoint<'a>(
        &self,
        endpoint: &str,
        options: impl Into<CallOptions<'a>>,
    ) -> Result<Invalidated, Error> {
        let options = &options.into();
        self.ask_for(ask::INVALIDATE_ENDPOINT, &endpoint, options)
    }

    /// Whether a server is there and answers. Does not wait for one that is not.
    ///
    /// # Errors
    /// Why it does not answer.
    pub fn ping<'a>(&self, options: impl Into<CallOptions<'a>>) -> Result<(), Error> {
        self.check()?;
        let wait = &options.into();
        wait.in_time()?;
        let link = self.link_now(&self.inner.main, wait)?;
        match link.rpc.ping(wait.deadline) {
            // It may have been replaced since it was last asked.
            Err(CallError::Lost(_)) => {
                self.discard(&link);
                let link = self.link_now(&self.inner.main, wait)?;
                let pinged = link.rpc.ping(wait.deadline);
                pinged.map_err(|error| Error::of_call(error, &self.path()))
            }
            pinged => pinged.map_err(|error| Error::of_call(error, &self.path())),
        }
    }

    /// Waits until what is not used any more is given back, over whichever connection it came; at
    /// most until the deadline, or ten seconds without one.
    ///
    /// A result that is dropped here is given back by a thread of its own soon after: this is for who
    /// wants to see it gone on the server, because memory is scarce there or a test counts it. What was
    /// left to [`let_go_when_done`](cuda_ipc::Mapping::let_go_when_done) is given back when a GPU is done
    /// with it, and waited for as well.
    pub fn settle<'a>(&self, options: impl Into<CallOptions<'a>>) {
        if self.check().is_ok() {
            let deadline = options.into().deadline;
            let deadline = deadline.unwrap_or_else(|| Instant::now() + reaper::PATIENCE);
            cuda_ipc::settle(deadline);
            self.settled(Some(deadline));
        }
    }

    fn settled(&self, deadline: Option<Instant>) {
        reaper::settle(self.links().iter().map(Arc::downgrade).collect(), deadline);
    }

    /// Lets go of its connections. Leases that are held, and what they hang on, keep theirs, and are
    /// given back as ever, [`release`](Self::release) included; the next call connects anew. Calls that
    /// were started go on, but for those of a [driven](ClientOptions::driven) client: they end with
    /// [`Error::Cancelled`].
    pub fn close(&self) {
        if self.check().is_ok() {
            let links = [lock(&self.inner.main).take(), lock(&self.inner.lane).take()];
            let mut closed = lock(&self.inner.closed);
            closed.retain(|link| link.strong_count() > 0);
            closed.extend(links.iter().flatten().map(Arc::downgrade));
            drop(closed);
            self.inner.end_driven(links);
        }
    }

    /// How many regions it holds that the server lent.
    #[doc(hidden)]
    pub fn regions_held(&self) -> usize {
        self.links().iter().map(|link| link.regions()).sum()
    }

    /// Its connections: those that it would use, and those that were closed and that leases hang on.
    fn links(&self) -> Vec<Arc<Link>> {
        let open = [&self.inner.main, &self.inner.lane].map(|slot| lock(slot).clone());
        let closed: Vec<_> = lock(&self.inner.closed).iter().filter_map(Weak::upgrade).collect();
        open.into_iter().flatten().chain(closed).collect()
    }

    fn check(&self) -> Result<(), Forked> {
        if self.inner.process == std::process::id() { Ok(()) } else { Err(Forked) }
    }

    fn path(&self) -> std::path::PathBuf {
        let first = self.inner.options.addresses.first();
        first.and_then(|address| address.socket().ok()).unwrap_or_default()
    }

    /// A request that is a structure, with an answer that is one.
    fn ask_for<A: serde::Serialize + ?Sized, R: serde::de::DeserializeOwned>(
        &self,
        tag: u16,
        asked: &A,
        options: &CallOptions<'_>,
    ) -> Result<R, Error> {
        let body = encode(&asked);
        let (link, message) = self.ask(tag, Letter::Plain(&body), options)?;
        link.read(&message)
    }

    fn ask_call(
        &self,
        tag: u16,
        endpoint: &str,
        arguments: &Arguments,
        options: &CallOptions<'_>,
    ) -> Result<(Arc<Link>, Message), Error> {
        self.check()?;
        // A task is not waited for: it is not part of the call within which it is submitted.
        let is_nested = tag == ask::CALL;
        let parent = enclosing().filter(|_| is_nested).map_or(0, |call| call.number);
        self.ask(tag, Letter::Call { endpoint, arguments, parent }, options)
    }

    /// Asks, on a connection that is made if there is none. What was not sent because the server is
    /// gone goes to its successor, if there is one.
    fn ask(
        &self,
        tag: u16,
        letter: Letter<'_>,
        options: &CallOptions<'_>,
    ) -> Result<(Arc<Link>, Message), Error> {
        self.check()?;
        options.in_time()?;
        let mut is_second_try = false;
        loop {
            let link = self.link(&self.inner.main, options)?;
            if matches!(tag, ask::CALL | ask::TASK_RESULT) {
                link.let_reaper_catch_up(options.deadline);
            }
            // Answered before what follows.
            let _given_back = link.give_back_ahead();
            let parcel = letter.parcel(&link, 0)?;
            let started = parcel.with(tag, |request| link.rpc.start(request, options.deadline));
            let pending = match started {
                Ok(pending) => pending,
                Err(CallError::Lost(_)) if !is_second_try => {
                    is_second_try = true;
                    self.discard(&link);
                    continue;
                }
                Err(error) => return Err(self.failed(&link, error)),
            };
            let waited = giving_place_away(|| pending.wait_unless(|| options.is_interrupted()));
            return match waited {
                Ok(message) => Ok((link, message)),
                Err(error) => Err(self.failed(&link, error)),
            };
        }
    }

    /// Asks on a connection that there is.
    fn ask_on(
        &self,
        link: &Arc<Link>,
        tag: u16,
        parcel: Parcel<'_>,
        options: &CallOptions<'_>,
    ) -> Result<Message, Error> {
        if link.lane.is_some() {
            return self.ask_by_lane(link, tag, parcel, options);
        }
        let started = parcel.with(tag, |request| link.rpc.start(request, options.deadline));
        let waited = started.and_then(|pending| {
            giving_place_away(|| pending.wait_unless(|| options.is_interrupted()))
        });
        waited.map_err(|error| self.failed(link, error))
    }

    fn failed(&self, link: &Arc<Link>, error: CallError) -> Error {
        match error {
            CallError::Lost(_) => self.discard(link),
            CallError::TimedOut { .. } | CallError::Interrupted => link.gave_up(),
            _ => {}
        }
        Error::of_call(error, &self.path())
    }

    fn discard(&self, link: &Arc<Link>) {
        link.is_dead.store(true, Ordering::Release);
        for slot in [&self.inner.main, &self.inner.lane] {
            let mut slot = lock(slot);
            let gone = slot.take_if(|known| Arc::ptr_eq(known, link));
            drop(slot);
            if let Some(gone) = gone {
                self.retire(gone);
            }
        }
    }

    /// Sees to what is under way on a connection that is lost. Its calls are told by whoever drives:
    /// the one who has noticed may be in the middle of something.
    fn retire(&self, link: Arc<Link>) {
        if link.lane.as_ref().is_some_and(Lane::is_driven) {
            lock(&self.inner.ending).push(link);
            self.arm();
        }
    }
}

fn task_ask(task: Id) -> TaskAsk {
    TaskAsk { task, ticket: 0, is_cooperative: false }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Inner {
    /// Ends what is under way on connections that nobody drives any more.
    fn end_driven(&self, links: [Option<Arc<Link>>; 2]) {
        let lost = mem::take(&mut *lock(&self.ending));
        for link in links.into_iter().flatten().chain(lost) {
            let Some(lane) = link.lane.as_ref().filter(|lane| lane.is_driven()) else { continue };
            if let (Some(pulse), Ok(socket)) = (self.pulse.get(), link.rpc.descriptor()) {
                pulse.unwatch(socket);
            }
            lane.end(&CallError::Cancelled);
            link.gave_up();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // What is behind them may be locked for ever here.
            mem::forget(mem::take(&mut self.main));
            mem::forget(mem::take(&mut self.lane));
            mem::forget(mem::take(&mut self.ending));
            return;
        }
        let lane = lock(&self.lane).take();
        self.end_driven([lane, None]);
    }
}
