//! Calls that clients come back for.
//!
//! A task ends once, and everybody who waits for it is told at that moment. What it made is held for
//! whoever fetches it: the first to get something in shared memory gets a lease of its own, and the
//! task's lease goes; whoever comes later gets one as long as anybody has. So a task does not keep
//! memory that all its users have let go of.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rpc_uds::Responder;
use tensor_cache::{Lease, ObjectId};

use super::core::Core;
use super::kept::{Kept, now};
use super::session::{Session, fail};
use crate::service::endpoint::{Flag, Ticker};
use crate::service::failure::{Code, Failure};
use crate::service::monitor::lock;
use crate::service::region::Id;
use crate::service::wire::messages::{TaskInfo, TaskStatus, answer, encode};

/// A result on its way to whoever wants it.
pub(crate) enum Made {
    /// Held by a lease of the session that asked.
    Leased(Lease<Kept>),
    /// Kept by nobody else.
    Loose(Arc<Kept>),
}

impl Made {
    pub(crate) fn kept(&self) -> &Arc<Kept> {
        match self {
            Self::Leased(lease) => lease.value(),
            Self::Loose(kept) => kept,
        }
    }
}

pub(crate) struct Task {
    pub(crate) id: Id,
    pub(crate) endpoint: Arc<str>,
    /// Whose it is, by session; 0 for this process.
    owner: u64,
    pub(crate) flag: Arc<Flag>,
    created_at: f64,
    state: Mutex<State>,
}

struct State {
    status: TaskStatus,
    started_at: Option<f64>,
    completed_at: Option<f64>,
    failure: Option<Failure>,
    result: Holding,
    object: Option<Id>,
    ticker: Arc<Ticker>,
    waiters: Vec<Waiter>,
}

impl State {
    /// Those who gave up need not be told.
    fn without_waiters_gone(&mut self) -> Vec<Waiter> {
        self.waiters.extract_if(.., |waiter| waiter.responder.is_cancelled()).collect()
    }
}

enum Holding {
    Nothing,
    Made(Made),
    /// Fetched: it lives by the leases of others.
    Given(ObjectId),
}

/// Who waits for a task, and for what of it.
pub(crate) struct Waiter {
    pub(crate) session: Arc<Session>,
    pub(crate) responder: Responder,
    pub(crate) wants: Wants,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    Status,
    Result,
}

/// What came of asking a task to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// It will not run.
    Yes,
    /// It runs, and has been asked.
    Asked,
    No,
}

impl Task {
    pub(crate) fn info(&self) -> TaskInfo {
        let state = lock(&self.state);
        TaskInfo {
            id: self.id,
            endpoint: self.endpoint.to_string(),
            status: state.status,
            created_at: self.created_at,
            started_at: state.started_at,
            completed_at: state.completed_at,
            error_type: state.failure.as_ref().map(|it| it.type_name.clone()),
            error_message: state.failure.as_ref().map(|it| it.message.clone()),
            object: state.object,
            progress: state.ticker.latest(),
        }
    }

    fn was_cancelled(&self) -> Failure {
        Failure::of_cancelling(format!("Task '{}' was cancelled", self.id.hyphenated()))
    }

    pub(crate) fn ticker(&self) -> Arc<Ticker> {
        Arc::clone(&lock(&self.state).ticker)
    }

    /// From now on it tells what somebody else's build tells.
    pub(crate) fn follow(&self, ticker: &Arc<Ticker>) {
        let mut state = lock(&self.state);
        let own = std::mem::replace(&mut state.ticker, Arc::clone(ticker));
        drop(state);
        own.hand_over(ticker);
    }

    /// From now on it is not wanted any more once nobody waits for it: whoever called got no id to
    /// come back with.
    pub(crate) fn depend_on_waiters(self: &Arc<Self>) {
        let own = Arc::downgrade(self);
        self.flag.watch(move || own.upgrade().is_some_and(|task| task.is_deserted()));
    }

    fn is_deserted(&self) -> bool {
        let state = lock(&self.state);
        !state.status.is_final() && state.waiters.iter().all(|it| it.responder.is_cancelled())
    }

    /// It begins to run; `false` if it was cancelled before, or nobody wants it any more.
    pub(crate) fn start(&self) -> bool {
        let begun =
            |status| (status != TaskStatus::Pending).then_some(status == TaskStatus::Running);
        if let Some(is_running) = begun(lock(&self.state).status) {
            return is_running;
        }
        // Asked without the lock, which the answer may need.
        let is_unwanted = self.flag.hear();
        let mut state = lock(&self.state);
        if let Some(is_running) = begun(state.status) {
            return is_running;
        }
        if is_unwanted {
            return false;
        }
        state.status = TaskStatus::Running;
        state.started_at = Some(now());
        true
    }

    /// Keeps the waiter until the task ends; gives it back if it has.
    fn enqueue(&self, waiter: Waiter) -> Option<Waiter> {
        let mut state = lock(&self.state);
        if state.status.is_final() {
            return Some(waiter);
        }
        let gone = state.without_waiters_gone();
        state.waiters.push(waiter);
        drop(state);
        drop(gone);
        None
    }

    /// Keeps nobody who has gone: what waits holds a connection.
    fn let_go(&self) {
        let gone = lock(&self.state).without_waiters_gone();
        drop(gone);
    }

    /// Serves one who waits, now or when the task ends.
    pub(crate) fn wait(&self, core: &Arc<Core>, waiter: Waiter) {
        if let Some(waiter) = self.enqueue(waiter) {
            self.serve(core, waiter);
        }
    }

    /// Serves one of an ended task.
    fn serve(&self, core: &Arc<Core>, waiter: Waiter) {
        match waiter.wants {
            Wants::Status => {
                // Who has gone need not be told.
                let _ = waiter.responder.reply(answer::DONE, &encode(&self.info()), &[]);
            }
            Wants::Result => self.give(core, &waiter.session, waiter.responder),
        }
    }

    /// Delivers the result of a task, or says why not.
    pub(crate) fn give(&self, core: &Arc<Core>, session: &Session, responder: Responder) {
        let mut state = lock(&self.state);
        match state.status {
            TaskStatus::Completed => {}
            TaskStatus::Failed => {
                let failure = state.failure.clone();
                drop(state);
                let failure = failure.unwrap_or_else(|| Failure::other("Exception", ""));
                fail(responder, &failure.of_task());
                return;
            }
            TaskStatus::Cancelled => {
                drop(state);
                let what = format!("Task '{}' was cancelled", self.id.hyphenated());
                fail(responder, &Failure::new(Code::Task, what));
                return;
            }
            status => {
                drop(state);
                let what = format!(
                    "Task '{}' is not complete; its status is '{status}'",
                    self.id.hyphenated()
                );
                fail(responder, &Failure::new(Code::Task, what));
                return;
            }
        }
        let object = match &state.result {
            Holding::Made(Made::Loose(kept)) => {
                let kept = Arc::clone(kept);
                drop(state);
                drop(session.deliver(responder, core.id, &kept, None));
                return;
            }
            Holding::Made(Made::Leased(lease)) => Some(lease.object()),
            Holding::Given(object) => Some(*object),
            Holding::Nothing => None,
        };
        let lease = object.and_then(|object| session.cache.lease(object));
        let Some(lease) = lease else {
            drop(state);
            let what = format!(
                "the result of task '{}' was fetched and has been released since",
                self.id.hyphenated()
            );
            fail(responder, &Failure::new(Code::Task, what));
            return;
        };
        let (object, kept) = (lease.object(), Arc::clone(lease.value()));
        // Before anybody hears of it, so that the count is right; the other lease keeps the value.
        let own = std::mem::replace(&mut state.result, Holding::Given(object));
        let was_own = matches!(own, Holding::Made(_));
        drop(own);
        if let Err(Some(lease)) = session.deliver(responder, core.id, &kept, Some(lease)) {
            // Whoever comes next is to find it.
            if was_own && let Some(own) = core.own.lease(object) {
                state.result = Holding::Made(Made::Leased(own));
            }
            drop(state);
            drop(lease);
        }
    }
}

/// All tasks of a server.
pub(crate) struct Tasks {
    table: Arc<Table>,
    time_to_live: Duration,
    count_max: usize,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Table {
    state: Mutex<Listed>,
    changed: Condvar,
}

#[derive(Default)]
struct Listed {
    tasks: HashMap<Id, Arc<Task>>,
    /// Ended ones, in that order, with the moment they are dropped.
    ended: VecDeque<(Instant, Id)>,
    is_closed: bool,
}

impl Listed {
    /// Whether `owner` has fewer tasks than there are for each of those who have some. None has ended.
    fn has_share_left(&self, owner: u64, count_max: usize) -> bool {
        let mut owners: HashMap<u64, usize> = HashMap::from([(owner, 0)]);
        for task in self.tasks.values() {
            *owners.entry(task.owner).or_default() += 1;
        }
        owners[&owner] < (count_max / owners.len()).max(1) && owners.len() > 1
    }
}

impl Tasks {
    pub(crate) fn new(time_to_live: Duration, count_max: usize) -> Self {
        let (table, thread) = (Arc::default(), Mutex::new(None));
        Self { table, time_to_live, count_max, thread }
    }

    /// Starts the thread that drops what nobody has fetched in time.
    pub(crate) fn start_timer(&self) -> std::io::Result<()> {
        let table: Weak<Table> = Arc::downgrade(&self.table);
        let builder = thread::Builder::new().name("st-time".to_owned());
        let thread = builder.stack_size(256 * 1024).spawn(move || expire(&table))?;
        *lock(&self.thread) = Some(thread);
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.table.state).tasks.len()
    }

    pub(crate) fn create(&self, endpoint: &Arc<str>, owner: u64) -> Result<Arc<Task>, Failure> {
        let mut listed = lock(&self.table.state);
        if listed.is_closed {
            return Err(Failure::new(Code::Task, "the server takes no more tasks: it is stopping"));
        }
        let mut dropped = None;
        if listed.tasks.len() >= self.count_max {
            let oldest = listed.ended.pop_front();
            dropped = oldest.and_then(|(_, id)| listed.tasks.remove(&id));
            // One client that has filled it keeps no other from having its share.
            if dropped.is_none() && !listed.has_share_left(owner, self.count_max) {
                let what = format!("Task capacity exceeded ({} unfinished tasks)", self.count_max);
                return Err(Failure::new(Code::Task, what));
            }
        }
        let state = State {
            status: TaskStatus::Pending,
            started_at: None,
            completed_at: None,
            failure: None,
            result: Holding::Nothing,
            object: None,
            ticker: Arc::default(),
            waiters: Vec::new(),
        };
        let task = Arc::new(Task {
            id: Id::random(),
            endpoint: Arc::clone(endpoint),
            owner,
            flag: Arc::default(),
            created_at: now(),
            state: Mutex::new(state),
        });
        listed.tasks.insert(task.id, Arc::clone(&task));
        drop(listed);
        drop(dropped);
        Ok(task)
    }

    pub(crate) fn get(&self, id: Id) -> Result<Arc<Task>, Failure> {
        lock(&self.table.state).tasks.get(&id).cloned().ok_or_else(|| {
            let id = id.hyphenated();
            Failure::new(Code::Task, format!("Task '{id}' was not found"))
        })
    }

    pub(crate) fn list(&self, status: Option<TaskStatus>) -> Vec<TaskInfo> {
        let tasks: Vec<Arc<Task>> = lock(&self.table.state).tasks.values().cloned().collect();
        let mut infos: Vec<TaskInfo> = tasks.iter().map(|task| task.info()).collect();
        infos.retain(|info| status.is_none_or(|status| info.status == status));
        infos.sort_by(|one, other| one.created_at.total_cmp(&other.created_at));
        infos
    }

    /// Lets go of those who waited for a task and have gone.
    pub(crate) fn let_go(&self) {
        let tasks: Vec<Arc<Task>> = lock(&self.table.state).tasks.values().cloned().collect();
        for task in tasks {
            task.let_go();
        }
    }

    /// The task has ended. What it made is dropped if it was cancelled before.
    pub(crate) fn end(&self, core: &Arc<Core>, task: &Arc<Task>, outcome: Result<Made, Failure>) {
        // Whoever never looked whether to stop has failed by itself, wanted or not.
        let is_stopped = task.flag.was_heard();
        let mut state = lock(&task.state);
        if state.status.is_final() {
            drop(state);
            return;
        }
        match outcome {
            Ok(made) => {
                state.status = TaskStatus::Completed;
                state.object = made.kept().object;
                state.result = Holding::Made(made);
            }
            Err(failure) => {
                let is_begun = state.status == TaskStatus::Running;
                state.status = if is_stopped { TaskStatus::Cancelled } else { TaskStatus::Failed };
                state.failure =
                    Some(if is_stopped && !is_begun { task.was_cancelled() } else { failure });
            }
        }
        self.conclude(core, task, state);
    }

    /// Tells those who wait, and sees to it that the task is dropped in time.
    fn conclude(
        &self,
        core: &Arc<Core>,
        task: &Arc<Task>,
        mut state: std::sync::MutexGuard<'_, State>,
    ) {
        let now_at = now();
        state.started_at =
            state.started_at.or(Some(now_at).filter(|_| state.status != TaskStatus::Cancelled));
        state.completed_at = Some(now_at);
        let waiters = std::mem::take(&mut state.waiters);
        // The one it had may be that of others, and keeps those who listened.
        state.ticker = Arc::new(Ticker::ended(state.ticker.latest()));
        // Nobody is first as long as this lease lives: all who wait get theirs.
        let extra = match &state.result {
            Holding::Made(Made::Leased(lease)) if waiters.len() > 1 => {
                core.own.lease(lease.object())
            }
            _ => None,
        };
        drop(state);
        // Before anybody hears of it: whoever does may count on its place.
        let mut listed = lock(&self.table.state);
        if listed.tasks.contains_key(&task.id) {
            listed.ended.push_back((Instant::now() + self.time_to_live, task.id));
        }
        drop(listed);
        self.table.changed.notify_all();
        for waiter in waiters {
            task.serve(core, waiter);
        }
        drop(extra);
    }

    /// Cancels what has not begun; of what runs, asks it to stop if that is wanted.
    pub(crate) fn cancel(
        &self,
        core: &Arc<Core>,
        task: &Arc<Task>,
        is_cooperative: bool,
    ) -> Cancelled {
        let mut state = lock(&task.state);
        match state.status {
            TaskStatus::Pending => {
                state.status = TaskStatus::Cancelled;
                state.failure = Some(task.was_cancelled());
                task.flag.raise();
                self.conclude(core, task, state);
                Cancelled::Yes
            }
            TaskStatus::Running if is_cooperative => {
                drop(state);
                task.flag.raise();
                Cancelled::Asked
            }
            _ => Cancelled::No,
        }
    }

    /// Takes no more tasks, and cancels those that have not begun.
    pub(crate) fn close(&self, core: &Arc<Core>) {
        let mut listed = lock(&self.table.state);
        listed.is_closed = true;
        let tasks: Vec<Arc<Task>> = listed.tasks.values().cloned().collect();
        drop(listed);
        for task in tasks {
            self.cancel(core, &task, false);
        }
    }

    /// Drops all tasks and ends the timer.
    pub(crate) fn clear(&self) {
        let mut listed = lock(&self.table.state);
        listed.is_closed = true;
        listed.ended.clear();
        let tasks = std::mem::take(&mut listed.tasks);
        drop(listed);
        drop(tasks);
        self.table.changed.notify_all();
        if let Some(thread) = lock(&self.thread).take() {
            // It has nothing that panics.
            let _ = thread.join();
        }
    }
}

/// Hands over what has been there for its time, until the table is closed or gone.
fn expire(table: &Weak<Table>) {
    let Some(table) = table.upgrade() else { return };
    let mut drops = None;
    let mut listed = lock(&table.state);
    while !listed.is_closed {
        let Some((due, id)) = listed.ended.front().copied() else {
            listed = table.changed.wait(listed).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            listed.ended.pop_front();
            let task = listed.tasks.remove(&id);
            drop(listed);
            if let Some(task) = task {
                drop_elsewhere(&mut drops, task);
            }
            listed = lock(&table.state);
        } else {
            let waited = table.changed.wait_timeout(listed, left);
            listed = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Leaves a task to a thread of its own: what it made is dropped by code of users, which may take long
/// or panic.
fn drop_elsewhere(drops: &mut Option<mpsc::Sender<Arc<Task>>>, task: Arc<Task>) {
    let drops = drops.get_or_insert_with(|| {
        let (sender, tasks) = mpsc::channel::<Arc<Task>>();
        let live = move || {
            for task in tasks {
                drop_calmly(task);
            }
        };
        // Without a thread they come back.
        drop(thread::Builder::new().name("st-drop".to_owned()).spawn(live));
        sender
    });
    if let Err(mpsc::SendError(task)) = drops.send(task) {
        drop_calmly(task);
    }
}

fn drop_calmly(task: Arc<Task>) {
    // Told by the panic hook; nobody else is concerned.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
}
