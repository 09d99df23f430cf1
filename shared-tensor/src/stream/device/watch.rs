//! One thread that sees to it that no device waits for the dead, and that no slot stays leased.
//!
//! It is there while this process's devices have waits queued for what other processes' are to do, the ends
//! of leases cannot be queued, or devices have work with streams that were closed; and a moment longer, so that a
//! process which reads again and again does not start it again and again.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use shm_lock::PerProcess;

use crate::stream::device::doubts::Doubts;
use crate::stream::device::endings::Ending;
use crate::stream::device::fresh::Fresh;
use crate::stream::device::hold::Hold;
use crate::stream::device::mend::Debt;
use crate::stream::device::seat::Taken;
use crate::stream::device::settle;

/// How often debtors are looked after: at first, and at most.
const TICK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
/// So many that are paid are let go of by who adds others: more than most add.
const PAID: usize = 4;
/// How long the thread stays when there is nothing to do.
const LINGER: Duration = Duration::from_millis(500);

static WATCH: PerProcess<Watch> = PerProcess::new();

#[derive(Default)]
struct Watch {
    state: Mutex<State>,
    filled: Condvar,
}

/// A debt that is looked after.
pub(super) struct Watched {
    /// What is waited with, which is kept.
    pub(super) hold: Arc<Hold>,
    debt: Debt,
    /// Of the first look.
    pub(super) since: Option<Instant>,
}

impl Watched {
    fn new(hold: &Arc<Hold>, debt: Debt) -> Self {
        Self { hold: Arc::clone(hold), debt, since: None }
    }
}

#[derive(Default)]
struct State {
    /// Of calls that wait for them: mostly paid when the next one comes.
    fresh: Fresh<Watched>,
    debts: Vec<Watched>,
    endings: Vec<Ending>,
    leaving: Vec<Arc<Taken>>,
    /// Whether somebody asked how this process's contexts are.
    is_asked: bool,
    is_watched: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.fresh.is_empty()
            && self.debts.is_empty()
            && self.endings.is_empty()
            && self.leaving.is_empty()
            && !self.is_asked
    }
}

impl Watch {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has debts looked after until they are paid.
///
/// # Errors
/// If there is no thread, and none can be started. Then nobody looks after these.
pub(super) fn over(hold: &Arc<Hold>, debts: impl Iterator<Item = Debt>) -> io::Result<()> {
    let mut debts = debts.map(|debt| Watched::new(hold, debt)).peekable();
    if debts.peek().is_none() {
        return Ok(());
    }
    let mut known = 0;
    let mut paid = [const { None }; PAID];
    let (started, mut state) = add(|state| {
        let fresh = &mut state.fresh;
        paid.fill_with(|| fresh.pop_if(|it| it.hold.is_paid_already(&it.debt)));
        known = fresh.len();
        debts.for_each(|it| fresh.push(it));
    });
    let refused = if started.is_err() { state.fresh.split_off(known) } else { Vec::new() };
    drop(state);
    // The last use of a stream may be among them, which asks for what is locked.
    drop((refused, paid));
    started
}

/// Has a debt looked after that its call does not wait for: without a thread, when the next one can be started.
pub(super) fn over_unawaited(hold: &Arc<Hold>, debt: Debt) {
    let _ = add(|state| state.debts.push(Watched::new(hold, debt)));
}

/// Has the end of a lease queued when its stream is not captured any more.
pub(super) fn ending(ending: Ending) {
    let _ = add(|state| state.endings.push(ending));
}

/// Has a seat given back when devices are done with what was queued.
pub(super) fn leaving(taken: Arc<Taken>) {
    let _ = add(|state| state.leaving.push(taken));
}

/// Has others know if this process's contexts are lost. It asks the driver, so not the caller does.
pub(crate) fn ask() {
    let _ = add(|state| state.is_asked = true);
}

/// Without a thread what is added is looked after when the next one can be started.
fn add(what: impl FnOnce(&mut State)) -> (io::Result<()>, MutexGuard<'static, State>) {
    let watch = WATCH.get_or_init(Watch::default);
    let mut state = watch.state();
    let was_empty = state.is_empty();
    what(&mut state);
    let mut outcome = Ok(());
    if !state.is_watched {
        let started = thread::Builder::new().name("st-watch".into()).spawn(move || run(watch));
        state.is_watched = started.is_ok();
        outcome = started.map(drop);
    } else if was_empty {
        watch.filled.notify_one();
    }
    (outcome, state)
}

/// Lets another thread be started, should this one panic.
struct Watching<'a>(&'a Watch);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.state().is_watched = false;
        }
    }
}

fn run(watch: &Watch) {
    let _watching = Watching(watch);
    let mut tick = TICK.0;
    let mut idle = Instant::now();
    let mut doubts = Doubts::default();
    loop {
        let mut state = watch.state();
        if state.is_empty() {
            let (now, _) =
                watch.filled.wait_timeout(state, LINGER).unwrap_or_else(PoisonError::into_inner);
            state = now;
            if state.is_empty() && idle.elapsed() >= LINGER {
                state.is_watched = false;
                return;
            }
            tick = TICK.0;
        }
        let mut left = std::mem::take(&mut state.debts);
        left.extend(state.fresh.take_seen());
        let mut endings = std::mem::take(&mut state.endings);
        let mut leaving = std::mem::take(&mut state.leaving);
        let is_asked = std::mem::take(&mut state.is_asked);
        let has_fresh = !state.fresh.is_empty();
        drop(state);
        let over: Vec<_> = endings.extract_if(.., |ending| !ending.has_to_wait()).collect();
        endings.extend(over.into_iter().filter_map(Ending::queue));
        leaving.extract_if(.., |taken| taken.is_over()).for_each(|taken| taken.give_back());
        // One that cannot be looked at is looked at again.
        left.retain_mut(|it| {
            it.since.get_or_insert_with(Instant::now);
            !it.hold.is_paid(&it.debt).unwrap_or(false)
        });
        if doubts.have_come(&left, !leaving.is_empty()) || is_asked {
            settle::tell_if_lost();
        }
        // Theirs until this process is gone: nothing is over that a lost context was to do, and nothing waits there.
        leaving.retain(|taken| !taken.is_lost());
        left.retain(|it| !it.hold.seat.is_lost());
        if left.is_empty() && endings.is_empty() && leaving.is_empty() && !has_fresh {
            continue;
        }
        {
            let mut state = watch.state();
            state.debts.extend(left);
            state.endings.append(&mut endings);
            state.leaving.append(&mut leaving);
        }
        thread::sleep(tick);
        tick = (tick * 2).min(TICK.1);
        idle = Instant::now();
    }
}
