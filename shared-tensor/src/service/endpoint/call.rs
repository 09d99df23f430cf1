//! One call, as the endpoint's function sees it.

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use shm_lock::PerProcess;

use super::Native;
use crate::service::failure::{Code, Failure};
use crate::service::monitor::lock;
use crate::service::region::{Arena, Id};
use crate::service::value::{Value, ValueError};
use crate::service::wire::messages::Progress;

/// Who makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Asker {
    /// Its process, if it can be seen from here.
    pub pid: Option<u32>,
    /// Its user.
    pub uid: u32,
    /// A number that no other session of the server has; 0 for the server's own process.
    pub session: u64,
}

/// The arguments of a call, and what its function may ask and tell meanwhile.
///
/// Clones are the same call: they may be used on other threads.
#[derive(Clone)]
pub struct Call {
    parts: Arc<CallParts>,
}

pub(crate) struct CallParts {
    pub(crate) endpoint: Arc<str>,
    pub(crate) positional: Vec<Value>,
    pub(crate) named: Vec<(String, Value)>,
    pub(crate) asker: Asker,
    pub(crate) native: Option<Native>,
    pub(crate) flag: Arc<Flag>,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) arena: Arc<Arena>,
}

impl Call {
    pub(crate) fn new(parts: CallParts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// The name of the endpoint.
    pub fn endpoint(&self) -> &str {
        &self.parts.endpoint
    }

    /// The arguments by place.
    pub fn positional(&self) -> &[Value] {
        &self.parts.positional
    }

    /// The arguments by name, in the order in which they were given.
    pub fn named(&self) -> &[(String, Value)] {
        &self.parts.named
    }

    /// The argument at `place`, or called `name`.
    pub fn argument(&self, place: usize, name: &str) -> Option<&Value> {
        let by_name = || self.named().iter().find(|(known, _)| known == name);
        self.positional().get(place).or_else(|| by_name().map(|(_, value)| value))
    }

    /// The argument at `place`, or called `name`, as what is wanted: see [`Value`] for what it can be.
    ///
    /// ```
    /// # use shared_tensor::service::{Call, Failure, Tensor};
    /// fn scaled(call: &Call) -> Result<Tensor, Failure> {
    ///     let (table, factor): (&Tensor, f64) = (call.get(0, "table")?, call.get(1, "factor")?);
    ///     let elements: Vec<f64> = table.view::<f64>()?.iter().map(|it| it * factor).collect();
    ///     Ok(Tensor::from_slice(call.arena(), table.shape(), &elements)?)
    /// }
    /// ```
    ///
    /// # Errors
    /// A failure with [`Code::Arguments`], if it is missing or something else.
    pub fn get<'a, T>(&'a self, place: usize, name: &str) -> Result<T, Failure>
    where
        T: TryFrom<&'a Value, Error = ValueError>,
    {
        let refused = |found: &dyn fmt::Display| {
            let endpoint = self.endpoint();
            let what = format!("Endpoint '{endpoint}', argument {place} (`{name}`): {found}");
            Failure::new(Code::Arguments, what)
        };
        let value = self.argument(place, name).ok_or_else(|| refused(&"it is missing"))?;
        T::try_from(value).map_err(|error| refused(&error))
    }

    /// As [`get`](Self::get), for one that may be left out.
    ///
    /// # Errors
    /// As there, if it is something else.
    pub fn get_or<'a, T>(&'a self, place: usize, name: &str, default: T) -> Result<T, Failure>
    where
        T: TryFrom<&'a Value, Error = ValueError>,
    {
        match self.argument(place, name) {
            None => Ok(default),
            Some(_) => self.get(place, name),
        }
    }

    /// Who asks: of several who wait for one result, the first.
    pub fn asker(&self) -> Asker {
        self.parts.asker
    }

    /// What a call from the server's own process brought beside the arguments.
    pub fn native(&self) -> Option<&Native> {
        self.parts.native.as_ref()
    }

    /// Whether the result is not wanted any more: the task was told to stop, the server is ending, or
    /// whoever made a call whose result is not kept has gone.
    ///
    /// Once it has said so, it stays so, whoever comes to wait for the result after that. A task whose
    /// function then fails, with whatever failure, has been cancelled; one whose function returns a
    /// value all the same has completed with it.
    pub fn cancelled(&self) -> bool {
        self.parts.flag.hear()
    }

    /// Tells everybody who waits how far it is, in a unit of one's own; `total` 0 if not known.
    pub fn progress(&self, done: u64, total: u64, note: impl Into<String>) {
        self.parts.ticker.tell(Progress { done, total, note: note.into() });
    }

    /// Where results that are to be lent are best put. Anything in shared memory can be lent; what
    /// is made here is not mixed with what clients may write to, unless they may write to this.
    pub fn arena(&self) -> &Arena {
        &self.parts.arena
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("endpoint", &self.endpoint())
            .field("asker", &self.asker())
            .finish_non_exhaustive()
    }
}

/// Whether somebody wants a call to stop, and whether that was acted upon.
#[derive(Default)]
pub(crate) struct Flag {
    is_raised: AtomicBool,
    was_heard: AtomicBool,
    /// Whoever waits for a result that nobody else will want.
    is_deserted: Mutex<Option<Box<dyn Fn() -> bool + Send>>>,
    /// Of those for whom the call is made together: raised when all of theirs are.
    shares: Mutex<Vec<Arc<Self>>>,
}

impl Flag {
    pub(crate) fn raise(&self) {
        self.is_raised.store(true, Ordering::Release);
    }

    pub(crate) fn watch(&self, is_deserted: impl Fn() -> bool + Send + 'static) {
        *lock(&self.is_deserted) = Some(Box::new(is_deserted));
    }

    pub(crate) fn share(&self, of: Arc<Self>) {
        lock(&self.shares).push(of);
    }

    /// Whether it is raised, of which nobody learns: it may be lowered by who comes.
    pub(crate) fn is_raised(&self) -> bool {
        self.is_raised_among(&lock(&self.shares))
    }

    /// Whether it is raised, for those who act upon it: if so it stays raised, as do those of all
    /// for whom the call is made.
    pub(crate) fn hear(&self) -> bool {
        // Held, so that nobody joins between the look and what follows from it.
        let shares = lock(&self.shares);
        if !self.is_raised_among(&shares) {
            return false;
        }
        self.settle();
        for share in &*shares {
            share.settle();
        }
        true
    }

    /// Whether anybody acted upon its being raised.
    pub(crate) fn was_heard(&self) -> bool {
        self.was_heard.load(Ordering::Acquire)
    }

    fn is_raised_among(&self, shares: &[Arc<Self>]) -> bool {
        self.is_raised.load(Ordering::Acquire)
            || lock(&self.is_deserted).as_ref().is_some_and(|is_deserted| is_deserted())
            || (!shares.is_empty() && shares.iter().all(|share| share.is_raised()))
    }

    fn settle(&self) {
        self.raise();
        self.was_heard.store(true, Ordering::Release);
    }
}

type Listener = Box<dyn Fn(&Progress) -> bool + Send>;

/// Spreads what a call tells to those who wait for it.
#[derive(Default)]
pub(crate) struct Ticker {
    state: Mutex<Telling>,
}

#[derive(Default)]
struct Telling {
    latest: Option<Progress>,
    listeners: Vec<Listener>,
    /// There will be nothing more to tell.
    is_over: bool,
}

impl Ticker {
    /// One that has told everything: nobody is kept to be told more.
    pub(crate) fn ended(latest: Option<Progress>) -> Self {
        Self { state: Mutex::new(Telling { latest, listeners: Vec::new(), is_over: true }) }
    }

    pub(crate) fn latest(&self) -> Option<Progress> {
        lock(&self.state).latest.clone()
    }

    fn tell(&self, progress: Progress) {
        let mut state = lock(&self.state);
        // Whoever cannot be told has gone.
        state.listeners.retain(|listener| listener(&progress));
        state.latest = Some(progress);
    }

    /// Those who listen here listen there.
    pub(crate) fn hand_over(&self, to: &Arc<Self>) {
        let listeners = std::mem::take(&mut lock(&self.state).listeners);
        for listener in listeners {
            to.listen(listener);
        }
    }

    /// Calls `listener` with the latest and whatever follows, until it says `false`.
    pub(crate) fn listen(&self, listener: impl Fn(&Progress) -> bool + Send + 'static) {
        let mut state = lock(&self.state);
        if state.latest.as_ref().is_none_or(&listener) && !state.is_over {
            state.listeners.push(Box::new(listener));
        }
    }
}

/// The call that a thread is busy with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enclosing {
    pub(crate) number: u64,
}

thread_local! {
    static ENCLOSING: Cell<Option<Enclosing>> = const { Cell::new(None) };
}

/// The call within which this thread runs.
pub(crate) fn enclosing() -> Option<Enclosing> {
    ENCLOSING.get()
}

/// Runs `act` as part of a call.
pub(crate) fn within<R>(call: Enclosing, act: impl FnOnce() -> R) -> R {
    struct Restore(Option<Enclosing>);
    impl Drop for Restore {
        fn drop(&mut self) {
            ENCLOSING.set(self.0);
        }
    }
    let _restore = Restore(ENCLOSING.replace(Some(call)));
    act()
}

/// A number that no other call has, in any process of the host, for all that chance can do.
pub(crate) fn next_number() -> u64 {
    // A forked child that went on counting where its parent was would use its parent's numbers.
    static NEXT: PerProcess<AtomicU64> = PerProcess::new();
    let next = NEXT.get_or_init(|| {
        let bytes = Id::random().to_bytes();
        AtomicU64::new(u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")))
    });
    match next.fetch_add(1, Ordering::Relaxed) {
        0 => next_number(),
        number => number,
    }
}
