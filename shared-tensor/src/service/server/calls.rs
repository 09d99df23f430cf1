//! From a request for a value to its delivery.
//!
//! What is there is delivered on the thread of the connection. Everything else is a job for a pool;
//! those who want its result wait without a thread.

use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};

use rpc_uds::Responder;
use tensor_cache::{
    AdmitError, Built, Charges, FlightError, GetError, Lease, Lookup, OverBudget, Request,
    Retention,
};

use super::core::{Core, Noted, count};
use super::flight::BuildFailure;
use super::kept::Kept;
use super::pool::Pool;
use super::serial::{self, Begin};
use super::session::{CacheSession, Session, fail};
use super::tasks::{Made, Task, Waiter, Wants};
use super::wait::{Outcome, Wait};
use crate::service::client::Arguments;
use crate::service::endpoint::{
    Asker, CacheKey, Call, CallParts, Concurrency, Enclosing, Endpoint, Entry, Execution, Flag,
    KeyRule, Native, Ticker, enclosing, next_number, within,
};
use crate::service::failure::{Code, Failure};
use crate::service::monitor::lock;
use crate::service::region::{Id, Place, Region};
use crate::service::wire::DecodeError;
use crate::service::wire::messages::{CallHead, RegionEntry, Told, answer, decode, encode, push};
use crate::service::wire::payload::{PackError, Packed, Packer, Unpacker};

/// A request for a value, read but for its arguments.
pub(crate) struct Asked {
    asker: Asker,
    endpoint: Arc<Endpoint>,
    body: Vec<u8>,
    payload_at: usize,
    regions: Vec<Region>,
    ticket: u64,
    parent: u64,
    native: Option<Native>,
}

impl Asked {
    /// A call from this process.
    pub(crate) fn local(
        core: &Core,
        endpoint: &str,
        arguments: &Arguments,
        native: Option<Native>,
    ) -> Result<Self, Failure> {
        let endpoint = core.endpoint(endpoint)?;
        endpoint.check(arguments)?;
        let refused = |error: PackError| Failure::new(Code::Serialization, error.to_string());
        let mut packer = Packer::default();
        packer.values(&arguments.positional).map_err(refused)?;
        packer.named(&arguments.named).map_err(refused)?;
        let Packed { bytes, regions, .. } = packer.finish(usize::MAX).map_err(refused)?;
        let uid = rustix::process::geteuid().as_raw();
        let asker = Asker { pid: Some(std::process::id()), uid, session: 0 };
        let parent = enclosing().map_or(0, |call| call.number);
        Ok(Self { asker, endpoint, body: bytes, payload_at: 0, regions, ticket: 0, parent, native })
    }

    pub(crate) fn read(
        core: &Core,
        session: &Arc<Session>,
        body: Vec<u8>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, Failure> {
        let (head, payload) = decode::<CallHead<'_>>(&body).map_err(not_understood)?;
        session.confirm(&head.confirmed);
        let endpoint = core.endpoint(head.endpoint)?;
        let (ticket, parent) = (head.ticket, head.parent);
        let regions = adopted(&head.regions, descriptors).map_err(not_understood)?;
        let payload_at = body.len() - payload.len();
        let (asker, native) = (session.asker(), None);
        let read = Self { asker, endpoint, body, payload_at, regions, ticket, parent, native };
        if read.endpoint.is_choosy() {
            read.endpoint.check(&read.arguments()?)?;
        }
        Ok(read)
    }

    fn arguments(&self) -> Result<Arguments, Failure> {
        let unpacker = Unpacker::open(self.payload(), &self.regions, None, self.asker.pid);
        let mut unpacker = unpacker.map_err(not_understood)?;
        let positional = unpacker.values().map_err(not_understood)?;
        let named = unpacker.named().map_err(not_understood)?;
        unpacker.finish().map_err(not_understood)?;
        Ok(Arguments { positional, named })
    }

    fn payload(&self) -> &[u8] {
        &self.body[self.payload_at..]
    }

    /// The call as its function sees it.
    fn call(&self, core: &Core, terms: Terms) -> Result<Call, Failure> {
        let Arguments { positional, named } = self.arguments()?;
        Ok(Call::new(CallParts {
            endpoint: Arc::clone(&self.endpoint.name),
            positional,
            named,
            asker: self.asker,
            native: self.native.clone(),
            flag: terms.flag,
            ticker: terms.ticker,
            arena: core.arena(self.endpoint.grants()),
        }))
    }

    fn key(&self, entry: Entry) -> CacheKey {
        CacheKey { endpoint: Arc::clone(&self.endpoint.name), entry }
    }

    /// The key, if it is known without the endpoint's code.
    fn known_key(&self) -> Result<Option<CacheKey>, Failure> {
        Ok(match &self.endpoint.key {
            KeyRule::Endpoint => Some(self.key(Entry::Text(Arc::clone(&self.endpoint.name)))),
            KeyRule::Constant(text) => Some(self.key(Entry::Text(Arc::clone(text)))),
            KeyRule::Arguments => {
                if !self.regions.is_empty() {
                    // Long texts, or tensors: seen when they are read, which takes its time.
                    return Ok(None);
                }
                Some(self.key(Entry::Bytes(self.payload().into())))
            }
            KeyRule::Computed(_) if !self.regions.is_empty() => None,
            KeyRule::Computed(_) => {
                self.endpoint.memo.find(self.payload()).map(|text| self.key(Entry::Text(text)))
            }
        })
    }

    /// The arguments as bytes, with the texts that travelled in regions.
    fn key_of_long_arguments(&self, call: &Call) -> Result<CacheKey, Failure> {
        let refused = |error: PackError| Failure::new(Code::Serialization, error.to_string());
        let mut packer = Packer::with_long_texts();
        packer.values(call.positional()).map_err(refused)?;
        packer.named(call.named()).map_err(refused)?;
        let Packed { bytes, regions, .. } = packer.finish(usize::MAX).map_err(refused)?;
        if !regions.is_empty() {
            let what = "a key made of the arguments cannot be made of tensors, whose bytes may \
                        change: compute one";
            return Err(Failure::new(Code::Configuration, what));
        }
        Ok(self.key(Entry::Bytes(bytes.into())))
    }

    /// The key by the endpoint's code, or of arguments that have to be read for it.
    fn computed_key(&self, core: &Core) -> Result<CacheKey, Failure> {
        let terms = Terms { flag: Arc::default(), ticker: Arc::default() };
        let call = self.call(core, terms)?;
        let KeyRule::Computed(compute) = &self.endpoint.key else {
            return self.key_of_long_arguments(&call);
        };
        let text = caught(|| compute(&call))?;
        let text: Arc<str> = text.into();
        if self.regions.is_empty() {
            self.endpoint.memo.keep(self.payload(), &text);
        }
        Ok(self.key(Entry::Text(text)))
    }
}

/// The regions of a request, each of which comes with its descriptor.
pub(crate) fn adopted(
    entries: &[RegionEntry],
    descriptors: Vec<OwnedFd>,
) -> Result<Vec<Region>, DecodeError> {
    let mut descriptors = descriptors.into_iter();
    let mut regions = Vec::with_capacity(entries.len().min(descriptors.len()));
    for entry in entries {
        entry.check()?;
        if let Some(region) = entry.volatile() {
            // A client has such memory from us, or it has none to lend.
            if region.address_here().is_none() {
                return Err(DecodeError::Astray);
            }
            regions.push(region);
            continue;
        }
        let Some(descriptor) = descriptors.next().filter(|_| entry.is_attached()) else {
            let number = regions.len() as u64;
            return Err(DecodeError::Reference { what: "descriptor", number });
        };
        let region =
            Region::adopt(descriptor, entry.id, entry.place(), entry.bytes, entry.rights());
        regions.push(region.map_err(|it| DecodeError::Region(it.to_string()))?);
    }
    if descriptors.next().is_some() { Err(DecodeError::Surplus) } else { Ok(regions) }
}

/// How a call is spoken to, and speaks.
#[derive(Clone)]
struct Terms {
    flag: Arc<Flag>,
    ticker: Arc<Ticker>,
}

/// Who gets the result. It gets something in any case.
pub(crate) struct Receiver {
    core: Arc<Core>,
    to: Option<To>,
}

enum To {
    Caller {
        session: Arc<Session>,
        responder: Arc<Mutex<Option<Responder>>>,
        ticket: u64,
    },
    Task(Arc<Task>),
    /// Somebody in this process.
    Local(mpsc::Sender<Result<Made, Failure>>),
}

impl Receiver {
    fn caller(
        core: &Arc<Core>,
        session: &Arc<Session>,
        asked: &Asked,
        responder: Responder,
    ) -> Self {
        let (session, ticket) = (Arc::clone(session), asked.ticket);
        let responder = Arc::new(Mutex::new(Some(responder)));
        Self { core: Arc::clone(core), to: Some(To::Caller { session, responder, ticket }) }
    }

    fn task(core: &Arc<Core>, task: &Arc<Task>) -> Self {
        Self { core: Arc::clone(core), to: Some(To::Task(Arc::clone(task))) }
    }

    /// What is not there yet is made as a task, if the endpoint says so. `None`: it was refused.
    fn at_work(mut self, asked: &Asked) -> Option<Self> {
        let Some(To::Caller { session, responder, ticket }) = &self.to else { return Some(self) };
        if asked.endpoint.execution == Execution::Direct {
            return Some(self);
        }
        match start_task(&self.core, asked) {
            Ok(task) => {
                listen(session, &task.ticker(), *ticket);
                let responder = lock(responder).take();
                if let Some(responder) = responder {
                    let session = Arc::clone(session);
                    let waiter = Waiter { session, responder, wants: Wants::Result };
                    task.wait(&self.core, waiter);
                }
                task.depend_on_waiters();
                self.to = Some(To::Task(task));
                Some(self)
            }
            Err(failure) => {
                self.conclude(Err(failure));
                None
            }
        }
    }

    /// Whose leases they are. Of what tasks make, the server's: a task may outlive its caller.
    fn cache(&self, endpoint: &Endpoint) -> &CacheSession {
        match &self.to {
            Some(To::Caller { session, .. }) if endpoint.execution == Execution::Direct => {
                &session.cache
            }
            _ => &self.core.own,
        }
    }

    /// Its own share in what was found under a lease of [`cache`](Self::cache).
    fn share(&self, endpoint: &Endpoint, lease: Lease<Kept>) -> Result<Made, Failure> {
        match &self.to {
            Some(To::Caller { session, .. }) if endpoint.execution == Execution::Task => {
                let own = session.cache.lease(lease.object());
                own.map(Made::Leased)
                    .ok_or_else(|| Failure::other("Abandoned", "the client is gone"))
            }
            _ => Ok(Made::Leased(lease)),
        }
    }

    /// What it is told of is told to it.
    fn listen(&self, ticker: &Arc<Ticker>) {
        match &self.to {
            Some(To::Caller { session, ticket, .. }) => listen(session, ticker, *ticket),
            Some(To::Task(task)) => task.follow(ticker),
            Some(To::Local(_)) | None => {}
        }
    }

    fn flag(&self) -> Arc<Flag> {
        match &self.to {
            Some(To::Task(task)) => Arc::clone(&task.flag),
            Some(To::Caller { responder, .. }) => {
                let (flag, responder) = (Flag::default(), Arc::clone(responder));
                flag.watch(move || lock(&responder).as_ref().is_none_or(Responder::is_cancelled));
                Arc::new(flag)
            }
            Some(To::Local(_)) | None => Arc::default(),
        }
    }

    /// Says whether it still wants what others may want as well. A call does, come what may: what it
    /// asked for is kept.
    fn wish(&self) -> Arc<Flag> {
        match &self.to {
            Some(To::Task(task)) => Arc::clone(&task.flag),
            _ => Arc::default(),
        }
    }

    /// Its turn has come; `false` if it is not wanted any more.
    fn start(&self) -> bool {
        match &self.to {
            Some(To::Task(task)) => task.start(),
            Some(To::Caller { responder, .. }) => {
                lock(responder).as_ref().is_some_and(|responder| !responder.is_cancelled())
            }
            Some(To::Local(_)) => true,
            None => false,
        }
    }

    fn end(mut self, outcome: Result<Made, Failure>) {
        self.conclude(outcome);
    }

    fn conclude(&mut self, outcome: Result<Made, Failure>) {
        let core = &self.core;
        if outcome.is_err() {
            count(&core.counters.errors_encountered);
        }
        match self.to.take() {
            Some(To::Task(task)) => core.tasks.end(core, &task, outcome),
            Some(To::Caller { session, responder, .. }) => {
                let Some(responder) = lock(&responder).take() else { return };
                match outcome {
                    Ok(made) => hand_out(core, &session, responder, made),
                    Err(failure) => fail(responder, &failure),
                }
            }
            Some(To::Local(sender)) => {
                // Whoever waited may have been interrupted.
                let _ = sender.send(outcome);
            }
            None => {}
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.to.is_some() {
            let (kind, what) = if self.core.is_stopping() {
                ("ServerStopping", "the call was dropped: the server is stopping")
            } else {
                ("OutOfThreads", "the call was dropped: the server has no thread for it")
            };
            self.conclude(Err(Failure::other(kind, what)));
        }
    }
}

fn hand_out(core: &Arc<Core>, session: &Session, responder: Responder, made: Made) {
    let kept = Arc::clone(made.kept());
    // One that is not handed on is given back before anybody hears of the result.
    let lease = match made {
        Made::Leased(lease) => Some(lease).filter(|_| kept.is_leased()),
        Made::Loose(_) => None,
    };
    // If nobody takes it the lease ends here.
    drop(session.deliver(responder, core.id, &kept, lease));
}

/// Pushes what is told to a client that has a ticket for it.
pub(crate) fn listen(session: &Arc<Session>, to: &Arc<Ticker>, ticket: u64) {
    if ticket == 0 {
        return;
    }
    // A session that is over is not kept for what may be told to nobody.
    let session = Arc::downgrade(session);
    to.listen(move |progress| {
        let Some(session) = session.upgrade() else { return false };
        let told = Told { ticket, progress: progress.clone() };
        session.connection.push(push::PROGRESS, &encode(&told), &[]).is_ok()
    });
}

/// CALL.
pub(crate) fn call(core: &Arc<Core>, session: &Arc<Session>, asked: Asked, responder: Responder) {
    let receiver = Receiver::caller(core, session, &asked, responder);
    begin(core, asked, receiver);
}

/// A call from this process: the same way as all others, and the same cache.
pub(crate) fn invoke(core: &Arc<Core>, asked: Asked) -> mpsc::Receiver<Result<Made, Failure>> {
    let (sender, outcome) = mpsc::channel();
    begin(core, asked, Receiver { core: Arc::clone(core), to: Some(To::Local(sender)) });
    outcome
}

/// SUBMIT.
pub(crate) fn submit(core: &Arc<Core>, asked: Asked, responder: Responder) {
    match start_task(core, &asked) {
        Ok(task) => {
            // Known before it begins, and so before its first progress; who has gone needs no id.
            let _ = responder.reply(answer::DONE, &encode(&task.id), &[]);
            begin(core, asked, Receiver::task(core, &task));
        }
        Err(failure) => fail(responder, &failure),
    }
}

/// `INVALIDATE_CALL`.
pub(crate) fn invalidate(core: &Arc<Core>, asked: Asked, responder: Responder) {
    let tell = |core: &Core, key: Result<CacheKey, Failure>, responder: Responder| match key {
        Ok(key) => {
            let hit = core.invalidated(core.cache.invalidate(&key));
            // Who has gone need not be told.
            let _ = responder.reply(answer::DONE, &encode(&hit), &[]);
        }
        Err(failure) => fail(responder, &failure),
    };
    if !asked.endpoint.is_cached {
        let nothing = core.invalidated(tensor_cache::Invalidated::default());
        let _ = responder.reply(answer::DONE, &encode(&nothing), &[]);
        return;
    }
    match asked.known_key() {
        Ok(Some(key)) => tell(core, Ok(key), responder),
        Ok(None) => {
            let own = Arc::clone(core);
            let job = move || tell(&own, asked.computed_key(&own), responder);
            drop(core.calls.submit(Box::new(job)));
        }
        Err(failure) => tell(core, Err(failure), responder),
    }
}

fn start_task(core: &Core, asked: &Asked) -> Result<Arc<Task>, Failure> {
    let task = core.tasks.create(&asked.endpoint.name, asked.asker.session)?;
    count(&core.counters.task_submissions);
    Ok(task)
}

fn begin(core: &Arc<Core>, asked: Asked, receiver: Receiver) {
    if !asked.endpoint.is_cached {
        let Some(receiver) = receiver.at_work(&asked) else { return };
        build_alone(core, asked, receiver, None);
        return;
    }
    match asked.known_key() {
        Ok(Some(key)) => look_up(core, asked, receiver, key),
        Ok(None) => {
            let own = Arc::clone(core);
            let pool = Arc::clone(pool_of(core, &asked));
            let job = move || match asked.computed_key(&own) {
                Ok(key) => look_up(&own, asked, receiver, key),
                Err(failure) => receiver.end(Err(failure)),
            };
            // If the pool is closed the receiver says so when it is dropped.
            drop(pool.submit(Box::new(job)));
        }
        Err(failure) => receiver.end(Err(failure)),
    }
}

fn pool_of<'a>(core: &'a Arc<Core>, asked: &Asked) -> &'a Arc<Pool> {
    match asked.endpoint.execution {
        Execution::Direct => &core.calls,
        Execution::Task => &core.task_pool,
    }
}

/// What the cache is asked for, on the terms of the endpoint.
fn request(endpoint: &Endpoint, key: CacheKey) -> Request<CacheKey> {
    let mut request = Request::new(key);
    if endpoint.is_managed {
        request = request.retention(Retention::WhileLeased);
    }
    if let Some((place, bytes)) = endpoint.reserved {
        request = request.reserve(Charges::on(place.budget(), bytes));
    }
    if let Some(time) = endpoint.time_to_live {
        request = request.time_to_live(time);
    }
    if let Some(time) = endpoint.time_to_idle {
        request = request.time_to_idle(time);
    }
    request
}

fn look_up(core: &Arc<Core>, asked: Asked, receiver: Receiver, key: CacheKey) {
    let request = request(&asked.endpoint, key.clone());
    match receiver.cache(&asked.endpoint).lookup(&request) {
        Ok(Lookup::Hit(lease)) => {
            count(&core.counters.cache_hits);
            core.note_object(&lease);
            if let Some(To::Task(task)) = &receiver.to {
                task.start();
            }
            let made = receiver.share(&asked.endpoint, lease);
            receiver.end(made);
        }
        Ok(Lookup::Join(pending)) if asked.endpoint.is_singleflight => {
            count(&core.counters.cache_hits);
            let Some(receiver) = receiver.at_work(&asked) else { return };
            let number = pending.flight();
            let noted = core.note_call(next_number(), asked.parent, &asked.endpoint.name);
            if let Err(failure) = serial::join(core, noted.number, number) {
                return receiver.end(Err(failure));
            }
            let flight = core.flight(number);
            flight.join(receiver.wish());
            receiver.listen(&flight.ticker);
            if let Some(To::Task(task)) = &receiver.to {
                task.start();
            }
            let own = Arc::clone(core);
            Wait::start(pending, move |outcome| {
                // Noted above, perhaps after whoever builds had taken it off the books.
                own.end_flight(number);
                drop(noted);
                let is_moot = matches!(
                    &outcome,
                    Err(GetError::Flight(FlightError::Failed(it))) if it.is_deserted
                );
                if is_moot && !receiver.wish().hear() && !own.is_stopping() {
                    // Those who gave it up are others.
                    return look_up(&own, asked, receiver, key);
                }
                arrived(&own, receiver, outcome);
            });
        }
        Ok(Lookup::Join(_)) => {
            count(&core.counters.cache_misses);
            let Some(receiver) = receiver.at_work(&asked) else { return };
            build_alone(core, asked, receiver, Some(key));
        }
        Ok(Lookup::Build(build, pending)) => {
            count(&core.counters.cache_misses);
            let Some(receiver) = receiver.at_work(&asked) else { return };
            let flight = pending.flight();
            let noted = core.note_call(next_number(), asked.parent, &asked.endpoint.name);
            core.waits().builds(noted.number, flight);
            let shared = core.flight(flight);
            shared.join(receiver.wish());
            receiver.listen(&shared.ticker);
            let task = match &receiver.to {
                Some(To::Task(task)) => Some(Arc::clone(task)),
                _ => None,
            };
            let terms =
                Terms { flag: Arc::clone(&shared.flag), ticker: Arc::clone(&shared.ticker) };
            let own = Arc::clone(core);
            let flying = Flying { core: Arc::clone(core), flight };
            let pool = Arc::clone(pool_of(core, &asked));
            let (endpoint, number) = (Arc::clone(&asked.endpoint), noted.number);
            let begin: Begin = Box::new(move |turn| {
                let _flying = flying;
                if let Err(failure) = turn {
                    build.fail(failure.into());
                    return;
                }
                let is_wanted = task.is_none_or(|task| task.start()) || own.is_awaited(flight);
                // Who comes from now on begins another one, whatever is kept of failures.
                let desert = |failure| {
                    own.cache.cancel(flight);
                    BuildFailure { failure, is_deserted: true }
                };
                if !is_wanted {
                    build.fail(desert(Failure::other("Abandoned", "nobody wants it any more")));
                    return;
                }
                match run(&noted, &own, &asked, terms, Some(key.text())) {
                    Ok(kept) => {
                        let charges = kept.charges();
                        // What came of it is told to those who wait.
                        let _ = build.finish(Built::new(kept).charges(charges));
                    }
                    Err(failure) if shared.flag.was_heard() => {
                        build.fail(desert(failure));
                    }
                    Err(failure) => {
                        build.fail(failure.into());
                    }
                }
            });
            let after = Arc::clone(core);
            Wait::start(pending, move |outcome| arrived(&after, receiver, outcome));
            start_job(core, &endpoint, number, &pool, begin);
        }
        Err(error) => receiver.end(Err(told(error))),
    }
}

/// Takes a build off the books, however it ends.
struct Flying {
    core: Arc<Core>,
    flight: tensor_cache::FlightId,
}

impl Drop for Flying {
    fn drop(&mut self) {
        self.core.end_flight(self.flight);
    }
}

fn arrived(core: &Arc<Core>, receiver: Receiver, outcome: Outcome) {
    receiver.end(match outcome {
        Ok(lease) => {
            core.note_object(&lease);
            Ok(Made::Leased(lease))
        }
        Err(error) => Err(told(error)),
    });
}

/// Builds what nobody else gets.
fn build_alone(core: &Arc<Core>, asked: Asked, receiver: Receiver, key: Option<CacheKey>) {
    let terms = Terms { flag: receiver.flag(), ticker: Arc::default() };
    let noted = core.note_call(next_number(), asked.parent, &asked.endpoint.name);
    receiver.listen(&terms.ticker);
    let own = Arc::clone(core);
    let pool = Arc::clone(pool_of(core, &asked));
    let (endpoint, number) = (Arc::clone(&asked.endpoint), noted.number);
    let begin: Begin = Box::new(move |turn| {
        if let Err(failure) = turn {
            return receiver.end(Err(failure));
        }
        if !receiver.start() {
            return;
        }
        // Of calls that take turns, the first one's result answers the next.
        let is_in_turn = asked.endpoint.concurrency == Concurrency::Serialized;
        if let Some(lease) = key
            .as_ref()
            .filter(|_| is_in_turn)
            .and_then(|key| receiver.cache(&asked.endpoint).find(key))
        {
            count(&own.counters.cache_hits);
            own.note_object(&lease);
            return receiver.end(Ok(Made::Leased(lease)));
        }
        let text = key.as_ref().map(CacheKey::text);
        let outcome = run(&noted, &own, &asked, terms, text).and_then(|kept| {
            let is_admitted = kept.object.is_some()
                || kept.is_borrowed()
                || (matches!(receiver.to, Some(To::Task(_))) && kept.is_leased());
            if !is_admitted {
                return Ok(Made::Loose(Arc::new(kept)));
            }
            let key =
                key.unwrap_or_else(|| asked.key(Entry::Text(Arc::clone(&asked.endpoint.name))));
            let charges = kept.charges();
            let lease =
                receiver.cache(&asked.endpoint).admit(key, Built::new(kept).charges(charges));
            let lease = lease.map_err(|error| match error {
                AdmitError::OverBudget(error) => over_budget(&error),
                error => Failure::other("Abandoned", error.to_string()),
            })?;
            own.note_object(&lease);
            Ok(Made::Leased(lease))
        });
        receiver.end(outcome);
    });
    start_job(core, &endpoint, number, &pool, begin);
}

fn start_job(
    core: &Arc<Core>,
    endpoint: &Arc<Endpoint>,
    number: u64,
    pool: &Arc<Pool>,
    begin: Begin,
) {
    if endpoint.concurrency == Concurrency::Serialized {
        serial::submit(core, &endpoint.name, number, pool, begin);
    } else {
        // Dropping it tells those who wait for it.
        drop(pool.submit(Box::new(move || begin(Ok(())))));
    }
}

/// Runs the endpoint's function, and encodes what it returns.
fn run(
    noted: &Noted,
    core: &Arc<Core>,
    asked: &Asked,
    terms: Terms,
    key: Option<String>,
) -> Result<Kept, Failure> {
    let number = noted.number;
    core.waits().runs(number, &terms.flag, asked.asker);
    let call = asked.call(core, terms)?;
    let endpoint = &asked.endpoint;
    let output = within(Enclosing { number }, || caught(|| (endpoint.run)(&call)))?;
    let mut kept = Kept::new(endpoint, output, key, core.result_bytes_max)?;
    if let Some(gpu) = &core.gpu_alone {
        kept.must_lie_on(gpu)?;
    }
    let own = Arc::downgrade(core);
    kept.on_drop = Some(Box::new(move |object: Id| {
        if let Some(core) = own.upgrade() {
            core.forget_object(object);
        }
    }));
    Ok(kept)
}

/// The endpoint's own code: its panic is a failure.
fn caught<R>(act: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(Failure::new(Code::Panic, text.unwrap_or("the endpoint panicked")))
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn not_understood(error: DecodeError) -> Failure {
    let code = match error {
        DecodeError::Head | DecodeError::Surplus => Code::Protocol,
        _ => Code::Serialization,
    };
    Failure::new(code, error.to_string())
}

fn over_budget(error: &OverBudget) -> Failure {
    Failure::new(Code::OverBudget, error.told_of(Place::of_budget(error.device)))
}

fn told(error: GetError<BuildFailure>) -> Failure {
    match error {
        GetError::Flight(FlightError::Failed(it)) => it.failure.clone(),
        GetError::Flight(FlightError::Panicked { message, .. }) => {
            Failure::new(Code::Panic, message.to_string())
        }
        GetError::WouldDeadlock { .. } => Failure::new(Code::Deadlock, error.to_string()),
        GetError::OverBudget(error) | GetError::Flight(FlightError::OverBudget(error)) => {
            over_budget(&error)
        }
        error => Failure::other("Abandoned", error.to_string()),
    }
}
