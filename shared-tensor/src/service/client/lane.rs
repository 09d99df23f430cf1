//! Calls that nobody waits for: their replies are handed to callbacks.
//!
//! They have a connection of their own, which is read by one thread per client while such calls are
//! under way, or by whoever watches a descriptor: an event loop needs no thread at all. It is another
//! connection than that of calls that somebody waits for, because there the waiting thread reads.

use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rpc_uds::{CallError, Message, PendingCall, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link::Link;
use crate::service::monitor::lock;

pub(crate) type OnDone = Box<dyn FnOnce(Result<Message, CallError>) + Send>;

/// How long the thread stays when no call is under way, and how often it looks at deadlines.
const LINGER: Duration = Duration::from_secs(5);
const SLICE: Duration = Duration::from_millis(50);

pub(crate) struct Lane {
    queue: Arc<Queue>,
    /// Whether somebody else reads.
    is_driven: AtomicBool,
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    begun: Condvar,
}

#[derive(Default)]
struct State {
    calls: Vec<Waiting>,
    /// For the thread; it ends when this is gone.
    link: Option<Arc<Link>>,
    has_thread: bool,
    next: u64,
}

struct Waiting {
    number: u64,
    call: PendingCall,
    deadline: Option<Instant>,
    begun: Instant,
    on_done: OnDone,
}

impl Lane {
    pub(crate) fn new(is_driven: bool) -> Self {
        Self { queue: Arc::default(), is_driven: AtomicBool::new(is_driven) }
    }

    /// Sends a request; `on_done` is called once with what comes of it, on whichever thread reads.
    /// The number is for [`cancel`](Self::cancel).
    ///
    /// # Errors
    /// What the layer below says; `on_done` is not called then.
    pub(crate) fn start(
        link: &Arc<Link>,
        request: Request<'_>,
        deadline: Option<Instant>,
        on_done: OnDone,
    ) -> Result<u64, CallError> {
        let lane = link.lane.as_ref().expect("the connection was made for callbacks");
        // Its reply is looked for only when it is in the list. Who drives is called when something
        // comes, and not again; a thread looks now and then, and need not wait for what is sent.
        let held = lane.is_driven().then(|| lock(&lane.queue.state));
        let call = link.rpc.start(request, deadline)?;
        let mut state = held.unwrap_or_else(|| lock(&lane.queue.state));
        state.next += 1;
        let number = state.next;
        state.calls.push(Waiting { number, call, deadline, begun: Instant::now(), on_done });
        if lane.is_driven() {
            return Ok(number);
        }
        state.link = Some(Arc::clone(link));
        if state.has_thread {
            drop(state);
            lane.queue.begun.notify_one();
            return Ok(number);
        }
        let queue = Arc::clone(&lane.queue);
        let builder = thread::Builder::new().name("st-replies".to_owned());
        state.has_thread = builder.spawn(move || read_for(&queue)).is_ok();
        if state.has_thread {
            return Ok(number);
        }
        let failed = state.calls.pop();
        state.link = None;
        drop(state);
        drop(failed);
        Err(CallError::Interrupted)
    }

    /// Gives leases back ahead of a call that is started next; the answer is read with the others.
    pub(crate) fn give_back_ahead(link: &Link) {
        let Some(lane) = &link.lane else { return };
        let Some(call) = link.give_back_ahead() else { return };
        let (begun, on_done) = (Instant::now(), Box::new(drop));
        let mut state = lock(&lane.queue.state);
        state.next += 1;
        let number = state.next;
        state.calls.push(Waiting { number, call, deadline: None, begun, on_done });
    }

    /// Gives a call up; `on_done` is called with [`CallError::Cancelled`]. `false` if it was over.
    pub(crate) fn cancel(&self, number: u64) -> bool {
        let mut state = lock(&self.queue.state);
        let Some(index) = state.calls.iter().position(|it| it.number == number) else {
            return false;
        };
        let waiting = state.calls.swap_remove(index);
        drop(state);
        let Waiting { call, on_done, .. } = waiting;
        // Tells the server.
        drop(call);
        guarded(|| on_done(Err(CallError::Cancelled)));
        true
    }

    /// Ends what is under way: whoever drove it does so no more.
    pub(crate) fn end(&self, error: &CallError) {
        self.is_driven.store(false, Ordering::Release);
        self.queue.end(error);
    }

    /// The first deadline of a call that is under way.
    pub(crate) fn earliest(&self) -> Option<Instant> {
        earliest(&lock(&self.queue.state))
    }

    pub(crate) fn is_driven(&self) -> bool {
        self.is_driven.load(Ordering::Acquire)
    }

    /// Reads what has come, and hands it out.
    pub(crate) fn drive(&self, link: &Arc<Link>) {
        drive(&self.queue, link);
    }
}

impl Queue {
    fn end(&self, error: &CallError) {
        let calls = mem::take(&mut lock(&self.state).calls);
        for Waiting { call, on_done, .. } in calls {
            // Tells the server, if there is one.
            drop(call);
            guarded(|| on_done(Err(error.clone())));
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // A thread holds on to the connection of its calls. Nobody else has the lock.
        self.queue.end(&CallError::Cancelled);
    }
}

/// Calls what a caller has left to be called. Whoever reads goes on after its panic, which has been
/// reported by then; `false` for such a one.
pub(super) fn guarded(call: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_ok()
}

fn earliest(state: &State) -> Option<Instant> {
    state.calls.iter().filter_map(|waiting| waiting.deadline).min()
}

fn drive(queue: &Queue, link: &Arc<Link>) {
    // Before reading: what is read from here on is late for deadlines that have passed by now.
    let now = Instant::now();
    // Its end is told to each call below.
    let _ = link.rpc.try_receive();
    link.take_pushes();
    link.take_late();
    let mut done: Vec<(OnDone, Result<Message, CallError>)> = Vec::new();
    let mut is_given_up = false;
    let is_lost = link.is_lost();
    let mut state = lock(&queue.state);
    let mut index = 0;
    while index < state.calls.len() {
        let waiting = &mut state.calls[index];
        let is_late = !is_lost && waiting.deadline.is_some_and(|deadline| deadline <= now);
        let outcome = if is_late {
            let waited = now.saturating_duration_since(waiting.begun);
            Some(Err(CallError::TimedOut { waited }))
        } else {
            waiting.call.try_wait()
        };
        match outcome {
            Some(outcome) => {
                let Waiting { call, on_done, .. } = state.calls.swap_remove(index);
                is_given_up |= is_late;
                // For one that is late, tells the server, or keeps what has come to let go of it.
                drop(call);
                done.push((on_done, outcome));
            }
            None => index += 1,
        }
    }
    drop(state);
    if is_given_up {
        link.gave_up();
    }
    if !done.is_empty() {
        // Somebody else may have read meanwhile: whoever is done has been told everything before.
        link.take_pushes();
    }
    for (on_done, outcome) in done {
        guarded(|| on_done(outcome));
    }
}

/// A thread that reads; should it panic, its calls end, and the next one gets another thread.
struct Reading<'a>(&'a Queue);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut state = lock(&self.0.state);
            state.has_thread = false;
            let link = state.link.take();
            drop(state);
            self.0.end(&CallError::Cancelled);
            drop(link);
        }
    }
}

/// The thread's life: it reads while calls are under way, and ends some time after the last.
fn read_for(queue: &Queue) {
    let _reading = Reading(queue);
    let mut state = lock(&queue.state);
    loop {
        while state.calls.is_empty() {
            // Nothing is under way: the connection may go if nobody else has it.
            let link = state.link.take();
            drop(state);
            drop(link);
            state = lock(&queue.state);
            if !state.calls.is_empty() {
                break;
            }
            let waited = queue.begun.wait_timeout(state, LINGER);
            let (now, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
            state = now;
            if timed_out.timed_out() && state.calls.is_empty() {
                state.has_thread = false;
                return;
            }
        }
        let link = state.link.clone();
        let until = earliest(&state);
        drop(state);
        let Some(link) = link else {
            state = lock(&queue.state);
            state.has_thread = false;
            return;
        };
        if let Ok(socket) = link.rpc.descriptor() {
            wait_readable(socket, until);
        }
        drive(queue, &link);
        drop(link);
        state = lock(&queue.state);
    }
}

fn wait_readable(socket: BorrowedFd<'_>, until: Option<Instant>) {
    let mut polled = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)];
    let left = until.map_or(SLICE, |until| until.saturating_duration_since(Instant::now()));
    let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.min(SLICE).subsec_nanos()) };
    // Interrupted or not, what there is to read is looked at next.
    let _ = poll(&mut polled, Some(&timeout));
}
