//! Calls that are started, and tell when they are done.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rpc_uds::{CallError, Lost, Message};

use super::lane::Lane;
use super::letter::Letter;
use super::link::{Link, OnProgress, Parcel};
use super::pulse::Pulse;
use super::reach::Patience;
use super::{Answer, Arguments, CallOptions, Client, Error};
use crate::service::endpoint::enclosing;
use crate::service::monitor::lock;
use crate::service::region::Id;
use crate::service::server::giving_place_away;
use crate::service::wire::messages::{TaskInfo, ask};

/// How often a wait asks whether it is interrupted.
const SLICE: Duration = Duration::from_millis(100);

/// A call that was started.
///
/// Dropping this changes nothing: the call goes on.
#[derive(Debug)]
pub struct Started {
    link: Weak<Link>,
    number: u64,
}

impl Started {
    /// Gives the call up: what was to be told of its end is told [`Error::Cancelled`], on this
    /// thread, and the server is told. `false` if it was over.
    pub fn cancel(&self) -> bool {
        let link = self.link.upgrade();
        let Some(link) = link.filter(|link| {
            let lane = link.lane.as_ref();
            lane.is_some_and(|lane| lane.cancel(self.number))
        }) else {
            return false;
        };
        link.gave_up();
        true
    }
}

type Done<T> = Box<dyn FnOnce(Result<T, Error>) + Send>;

impl Client {
    /// Calls an endpoint; `on_done` is called once with what comes of it, on the thread that reads
    /// for this client, or the one that [drives](Self::drive) it. `on_progress` likewise, any number
    /// of times before.
    ///
    /// Both may use the client, but not wait: whoever calls them reads for all calls that were
    /// started, and none of them ends meanwhile. A panic of either is reported as such, and ends
    /// nothing else; an `on_progress` that has panicked is not called again. An answer that is read
    /// after the deadline counts as none.
    ///
    /// Without a connection this makes one first, on this thread. That waits for a server that was
    /// never there as long as the client's [patience](super::ClientOptions::patience) and the deadline
    /// allow: on a [driven](super::ClientOptions::driven) client not at all, unless a patience was given.
    ///
    /// # Errors
    /// What goes wrong before the call is sent, a deadline that has passed included; `on_done` is not
    /// called then.
    pub fn start_call<'a>(
        &self,
        endpoint: &str,
        arguments: impl Into<Arguments>,
        options: impl Into<CallOptions<'a>>,
        on_done: impl FnOnce(Result<Answer, Error>) + Send + 'static,
    ) -> Result<Started, Error> {
        let arguments = &arguments.into();
        let mut options = options.into();
        let parent = enclosing().map_or(0, |call| call.number);
        let on_progress = options.on_progress.take();
        let letter = Letter::Call { endpoint, arguments, parent };
        let read = |link: &Arc<Link>, message| link.receive(message);
        self.start(ask::CALL, letter, &options, on_progress, read, Box::new(on_done))
    }

    /// Begins a task; `on_done` is called with its name.
    ///
    /// # Errors
    /// As [`start_call`](Self::start_call).
    pub fn start_submit<'a>(
        &self,
        endpoint: &str,
        arguments: impl Into<Arguments>,
        options: impl Into<CallOptions<'a>>,
        on_done: impl FnOnce(Result<Id, Error>) + Send + 'static,
    ) -> Result<Started, Error> {
        let arguments = &arguments.into();
        let options = &options.into();
        let letter = Letter::Call { endpoint, arguments, parent: 0 };
        let read = |link: &Arc<Link>, message: Message| link.read(&message);
        self.start(ask::SUBMIT, letter, options, None, read, Box::new(on_done))
    }

    /// Waits for the end of a task; `on_done` is called with what there is to know of it then.
    ///
    /// # Errors
    /// As [`start_call`](Self::start_call).
    pub fn start_wait_task<'a>(
        &self,
        task: Id,
        options: impl Into<CallOptions<'a>>,
        on_done: impl FnOnce(Result<TaskInfo, Error>) + Send + 'static,
    ) -> Result<Started, Error> {
        let mut options = options.into();
        let on_progress = options.on_progress.take();
        let letter = Letter::Task(task);
        let read = |link: &Arc<Link>, message: Message| link.read(&message);
        self.start(ask::TASK_WAIT, letter, &options, on_progress, read, Box::new(on_done))
    }

    /// Fetches the result of a task that has ended.
    ///
    /// # Errors
    /// As [`start_call`](Self::start_call).
    pub fn start_task_result<'a>(
        &self,
        task: Id,
        options: impl Into<CallOptions<'a>>,
        on_done: impl FnOnce(Result<Answer, Error>) + Send + 'static,
    ) -> Result<Started, Error> {
        let options = &options.into();
        let letter = Letter::Task(task);
        let read = |link: &Arc<Link>, message| link.receive(message);
        self.start(ask::TASK_RESULT, letter, options, None, read, Box::new(on_done))
    }

    /// Readable when [`drive`](Self::drive) has something to do: when something has come, and when a
    /// deadline has passed. One descriptor for the client's whole life, whatever becomes of its
    /// connections; nothing is to be read from it.
    ///
    /// # Errors
    /// [`Error::Call`] if the kernel has no descriptor to give.
    pub fn descriptor(&self) -> Result<BorrowedFd<'_>, Error> {
        self.check()?;
        if let Some(pulse) = self.inner.pulse.get() {
            return Ok(pulse.as_fd());
        }
        let made = Pulse::new().map_err(kernel)?;
        // Another thread may have been quicker.
        let pulse = self.inner.pulse.get_or_init(|| made);
        if let Some(link) = lock(&self.inner.lane).clone() {
            self.watch(&link)?;
        }
        self.arm();
        Ok(pulse.as_fd())
    }

    /// Reads what has come for calls that were started, and calls what was to be called.
    pub fn drive(&self) {
        if self.check().is_err() {
            return;
        }
        let link = lock(&self.inner.lane).clone();
        if let Some(link) = link
            && let Some(lane) = &link.lane
        {
            lane.drive(&link);
            if lane.is_driven() && link.is_lost() {
                self.discard(&link);
            }
        }
        for lost in mem::take(&mut *lock(&self.inner.ending)) {
            if let (Some(pulse), Ok(socket)) = (self.inner.pulse.get(), lost.rpc.descriptor()) {
                pulse.unwatch(socket);
            }
            if let Some(lane) = &lost.lane {
                lane.drive(&lost);
                lane.end(&CallError::Lost(Lost::Closed));
            }
        }
        self.arm();
    }

    /// Makes the descriptor tell of this connection.
    pub(super) fn watch(&self, link: &Link) -> Result<(), Error> {
        let Some(pulse) = self.inner.pulse.get() else { return Ok(()) };
        pulse.watch(link.rpc.descriptor()?).map_err(kernel)
    }

    /// Makes the descriptor tell of the next deadline, and of connections that are lost.
    pub(super) fn arm(&self) {
        let Some(pulse) = self.inner.pulse.get() else { return };
        pulse.arm(|| {
            if !lock(&self.inner.ending).is_empty() {
                return Some(Instant::now());
            }
            let link = lock(&self.inner.lane).clone();
            let lane = link.as_ref().and_then(|link| link.lane.as_ref());
            lane.filter(|lane| lane.is_driven()).and_then(Lane::earliest)
        });
    }

    fn start<T: Send + 'static>(
        &self,
        tag: u16,
        letter: Letter<'_>,
        options: &CallOptions<'_>,
        on_progress: Option<OnProgress>,
        read: impl FnOnce(&Arc<Link>, Message) -> Result<T, Error> + Send + 'static,
        on_done: Done<T>,
    ) -> Result<Started, Error> {
        self.check()?;
        options.in_time()?;
        let on_done = std::sync::Mutex::new(Some((read, on_done)));
        let on_done = Arc::new(on_done);
        let mut on_progress = on_progress;
        let patience = if options.is_waited_for {
            self.inner.options.patience_of_waiting()
        } else {
            self.inner.options.patience_of_starting()
        };
        let mut is_second_try = false;
        loop {
            let link = self.link_within(&self.inner.lane, options, Patience::First(patience))?;
            Lane::give_back_ahead(&link);
            let ticket = on_progress.take().map_or(0, |listener| link.open_ticket(listener));
            let parcel = letter.parcel(&link, ticket).inspect_err(|_| link.close_ticket(ticket))?;
            let path = self.path();
            let (own, kept) = (Arc::downgrade(&link), Arc::clone(&on_done));
            let hand_out = move |outcome: Result<Message, CallError>| {
                let Some((read, on_done)) = lock(&kept).take() else { return };
                let Some(link) = own.upgrade() else {
                    on_done(Err(Error::Cancelled));
                    return;
                };
                link.take_pushes();
                link.close_ticket(ticket);
                on_done(match outcome {
                    Ok(message) => read(&link, message),
                    Err(error) => {
                        if matches!(error, CallError::Lost(_)) {
                            link.is_dead.store(true, std::sync::atomic::Ordering::Release);
                        }
                        Err(Error::of_call(error, &path))
                    }
                });
            };
            let started = parcel.with(tag, |request| {
                Lane::start(&link, request, options.deadline, Box::new(hand_out))
            });
            match started {
                Ok(number) => {
                    self.arm();
                    return Ok(Started { link: Arc::downgrade(&link), number });
                }
                Err(CallError::Lost(_)) if !is_second_try => {
                    is_second_try = true;
                    on_progress = link.take_ticket(ticket);
                    self.discard(&link);
                }
                Err(error) => {
                    link.close_ticket(ticket);
                    return Err(self.failed(&link, error));
                }
            }
        }
    }

    /// A call that tells of its progress: by callbacks, waited for here.
    pub(super) fn call_told(
        &self,
        endpoint: &str,
        arguments: &Arguments,
        options: &CallOptions<'_>,
        on_progress: OnProgress,
    ) -> Result<Answer, Error> {
        let (tell, told) = mpsc::channel();
        let CallOptions { deadline, is_interrupted, .. } = *options;
        let on_progress = Some(on_progress);
        let own = CallOptions { deadline, is_interrupted, on_progress, is_waited_for: true };
        let started = self.start_call(endpoint, arguments, own, move |outcome| {
            // Whoever waited may have been interrupted.
            let _ = tell.send(outcome);
        })?;
        self.wait_for(&told, &started, options)
    }

    /// The same for the end of a task.
    pub(super) fn wait_told(
        &self,
        task: Id,
        options: &CallOptions<'_>,
        on_progress: OnProgress,
    ) -> Result<TaskInfo, Error> {
        let (tell, told) = mpsc::channel();
        let own = CallOptions::new().deadline(options.deadline);
        let own = CallOptions { on_progress: Some(on_progress), is_waited_for: true, ..own };
        let started = self.start_wait_task(task, own, move |outcome| {
            let _ = tell.send(outcome);
        })?;
        self.wait_for(&told, &started, options)
    }

    /// A request on the connection for callbacks, waited for here.
    pub(super) fn ask_by_lane(
        &self,
        link: &Arc<Link>,
        tag: u16,
        parcel: Parcel<'_>,
        options: &CallOptions<'_>,
    ) -> Result<Message, Error> {
        let (tell, told) = mpsc::channel();
        let path = self.path();
        let on_done = Box::new(move |outcome: Result<Message, CallError>| {
            let _ = tell.send(outcome.map_err(|error| Error::of_call(error, &path)));
        });
        let number =
            parcel.with(tag, |request| Lane::start(link, request, options.deadline, on_done));
        let number = number.map_err(|error| self.failed(link, error))?;
        let started = Started { link: Arc::downgrade(link), number };
        self.wait_for(&told, &started, options)
    }

    fn wait_for<T>(
        &self,
        told: &mpsc::Receiver<Result<T, Error>>,
        started: &Started,
        options: &CallOptions<'_>,
    ) -> Result<T, Error> {
        giving_place_away(|| {
            let begun = Instant::now();
            loop {
                match told.recv_timeout(SLICE) {
                    Ok(outcome) => return outcome,
                    Err(RecvTimeoutError::Disconnected) => return Err(Error::Cancelled),
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if self.inner.options.is_driven {
                    // Nobody else may be about to.
                    self.drive();
                }
                let is_late = options.deadline.is_some_and(|deadline| Instant::now() >= deadline);
                if is_late && started.cancel() {
                    return Err(Error::TimedOut { waited: begun.elapsed() });
                }
                if options.is_interrupted() && started.cancel() {
                    return Err(Error::Interrupted);
                }
            }
        })
    }
}

fn kernel(errno: rustix::io::Errno) -> Error {
    Error::Call(CallError::Descriptors { code: errno.raw_os_error() })
}
