//! What a server offers, and how it is to be run.

mod call;
mod key;

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use call::{Asker, Call};
pub use key::KeyRule;

pub(crate) use call::{CallParts, Enclosing, Flag, Ticker, enclosing, next_number, within};
pub(crate) use key::{CacheKey, Entry, Memo, digest};

use super::client::Arguments;
use super::failure::{Code, Failure};
use super::region::{Place, Rights};
use super::value::Value;

/// Where calls of an endpoint run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Execution {
    /// On a worker for calls.
    #[default]
    Direct,
    /// As tasks, on their own workers.
    Task,
}

impl Execution {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Task => "task",
        }
    }
}

/// How many calls of an endpoint run at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Concurrency {
    /// As many as there are workers.
    #[default]
    Parallel,
    /// One.
    Serialized,
}

impl Concurrency {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::Serialized => "serialized",
        }
    }
}

/// Something of the server's own language that goes with a value: what calls within its process get.
pub type Native = Arc<dyn Any + Send + Sync>;

/// What an endpoint returns.
#[derive(Clone)]
pub struct Output {
    pub(crate) value: Value,
    pub(crate) native: Option<Native>,
}

impl Output {
    /// The same with something that only calls within the server's process get.
    #[must_use]
    pub fn with_native(self, native: Native) -> Self {
        Self { native: Some(native), ..self }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("value", &self.value).finish_non_exhaustive()
    }
}

impl<T: Into<Value>> From<T> for Output {
    fn from(value: T) -> Self {
        Self { value: value.into(), native: None }
    }
}

type Accept = dyn Fn(&Arguments) -> Result<(), Failure> + Send + Sync;
type Run = dyn Fn(&Call) -> Result<Output, Failure> + Send + Sync;

/// A function under a name, with how its results are kept and lent.
///
/// By default its first result is kept for ever and answers every call, whatever the arguments: the
/// one key of the endpoint. [`key`](Self::key) and [`cache`](Self::cache) change that.
#[expect(clippy::struct_excessive_bools, reason = "independent choices of its owner")]
pub struct Endpoint {
    pub(crate) name: Arc<str>,
    pub(crate) run: Arc<Run>,
    pub(crate) is_cached: bool,
    pub(crate) key: KeyRule,
    pub(crate) memo: Memo,
    pub(crate) cache_format_key: Option<String>,
    pub(crate) is_managed: bool,
    pub(crate) execution: Execution,
    pub(crate) concurrency: Concurrency,
    pub(crate) is_singleflight: bool,
    pub(crate) async_default_wait: bool,
    pub(crate) is_writable: bool,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) time_to_idle: Option<Duration>,
    pub(crate) parameters: Option<Vec<String>>,
    pub(crate) accept: Option<Box<Accept>>,
    pub(crate) reserved: Option<(Place, u64)>,
}

impl Endpoint {
    /// `run` under `name`. It may run on many threads at once.
    pub fn new<O: Into<Output>>(
        name: impl Into<Arc<str>>,
        run: impl Fn(&Call) -> Result<O, Failure> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            run: Arc::new(move |call| run(call).map(Into::into)),
            is_cached: true,
            key: KeyRule::Endpoint,
            memo: Memo::default(),
            cache_format_key: None,
            is_managed: false,
            execution: Execution::Direct,
            concurrency: Concurrency::Parallel,
            is_singleflight: true,
            async_default_wait: true,
            is_writable: false,
            time_to_live: None,
            time_to_idle: None,
            parameters: None,
            accept: None,
            reserved: None,
        }
    }

    /// Whether results are kept for later calls. Default: yes.
    #[must_use]
    pub fn cache(self, is_cached: bool) -> Self {
        Self { is_cached, ..self }
    }

    /// What tells cached results apart. Default: [`KeyRule::Endpoint`], nothing.
    #[must_use]
    pub fn key(self, key: KeyRule) -> Self {
        Self { key, ..self }
    }

    /// The template behind a computed key, for those who list endpoints.
    #[must_use]
    pub fn cache_format_key(self, template: impl Into<String>) -> Self {
        Self { cache_format_key: Some(template.into()), ..self }
    }

    /// Whether results are objects: clients get handles, and the server lets go of an object with
    /// its last handle. Default: no.
    #[must_use]
    pub fn managed(self, is_managed: bool) -> Self {
        Self { is_managed, ..self }
    }

    /// Where calls run. Default: [`Execution::Direct`].
    #[must_use]
    pub fn execution(self, execution: Execution) -> Self {
        Self { execution, ..self }
    }

    /// How many calls run at once. Default: [`Concurrency::Parallel`].
    #[must_use]
    pub fn concurrency(self, concurrency: Concurrency) -> Self {
        Self { concurrency, ..self }
    }

    /// Whether calls of one key that come while it is built wait for that build. Default: yes.
    #[must_use]
    pub fn singleflight(self, is_singleflight: bool) -> Self {
        Self { is_singleflight, ..self }
    }

    /// Kept and listed; it changes nothing. Default: yes.
    #[must_use]
    pub fn async_default_wait(self, async_default_wait: bool) -> Self {
        Self { async_default_wait, ..self }
    }

    /// Whether clients write to the server's own memory although the result is cached or managed.
    /// Results that are neither are always lent so. Default: no.
    #[must_use]
    pub fn writable(self, is_writable: bool) -> Self {
        Self { is_writable, ..self }
    }

    /// How long a cached result is served, counted from the end of its build. Default: for ever.
    #[must_use]
    pub fn time_to_live(self, time: Duration) -> Self {
        Self { time_to_live: Some(time), ..self }
    }

    /// How long a cached result is kept while no client holds it. Default: for ever.
    #[must_use]
    pub fn time_to_idle(self, time: Duration) -> Self {
        Self { time_to_idle: Some(time), ..self }
    }

    /// How many bytes a cached result is expected to take in `place`: taken from its
    /// [budget](super::ServerOptions::budget) before the function runs. What has no room is refused
    /// before it allocates anything, and two builds do not count on the same room. When the result is
    /// there, its true size counts instead. Default: nothing is taken before.
    #[must_use]
    pub fn reserve(self, place: Place, bytes: u64) -> Self {
        Self { reserved: Some((place, bytes)), ..self }
    }

    /// What it is called with, by place and by name. Calls that bring more, or something of another
    /// name, are refused with [`Code::Arguments`]; by default what an endpoint does not look at is ignored.
    ///
    /// With parameters, one result for every call is [refused](super::Provider::register): a cached
    /// endpoint needs a [key](Self::key).
    #[must_use]
    pub fn parameters<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        Self { parameters: Some(names.into_iter().map(Into::into).collect()), ..self }
    }

    /// Has every call looked at before anything else, its cached result included: one for which
    /// `accept` fails is refused with that failure. It runs on the thread that reads requests, and has
    /// to be quick. Default: all are accepted that have the [`parameters`](Self::parameters).
    #[must_use]
    pub fn accept(
        self,
        accept: impl Fn(&Arguments) -> Result<(), Failure> + Send + Sync + 'static,
    ) -> Self {
        Self { accept: Some(Box::new(accept)), ..self }
    }

    /// Whether [`check`](Self::check) looks at arguments.
    pub(crate) fn is_choosy(&self) -> bool {
        self.parameters.is_some() || self.accept.is_some()
    }

    /// The parameters that the one key of all calls leaves out.
    pub(crate) fn ignored_by_key(&self) -> Option<&[String]> {
        let is_one_for_all = matches!(self.key, KeyRule::Endpoint | KeyRule::Constant(_));
        let parameters = self.parameters.as_deref().filter(|names| !names.is_empty())?;
        (self.is_cached && is_one_for_all).then_some(parameters)
    }

    /// Whether it can be called with these.
    pub(crate) fn check(&self, arguments: &Arguments) -> Result<(), Failure> {
        if let Some(accept) = &self.accept {
            accept(arguments)?;
        }
        let Some(parameters) = &self.parameters else { return Ok(()) };
        let refused = |found: String| {
            let takes = match parameters.join(", ") {
                takes if takes.is_empty() => "no arguments".to_owned(),
                takes => takes,
            };
            let what = format!("Endpoint '{}' takes {takes}: {found}", self.name);
            Err(Failure::new(Code::Arguments, what))
        };
        let by_place = arguments.positional.len();
        if by_place > parameters.len() {
            return refused(format!("{by_place} arguments by place were given"));
        }
        for (name, _) in &arguments.named {
            match parameters.iter().position(|known| known == name) {
                None => return refused(format!("an argument `{name}` was given")),
                Some(place) if place < by_place => {
                    return refused(format!("`{name}` was given twice, by place and by name"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it was set up, as clients list it.
    pub fn describe(&self) -> Value {
        Value::dict([
            ("cache", self.is_cached.into()),
            ("cache_format_key", self.cache_format_key.as_deref().into()),
            ("managed", self.is_managed.into()),
            ("async_default_wait", self.async_default_wait.into()),
            ("execution", self.execution.name().into()),
            ("concurrency", self.concurrency.name().into()),
            ("singleflight", self.is_singleflight.into()),
            ("writable", (self.grants() == Rights::Write).into()),
        ])
    }

    /// What clients may do with the memory of its results.
    pub(crate) fn grants(&self) -> Rights {
        let is_kept = self.is_cached || self.is_managed;
        if self.is_writable || !is_kept { Rights::Write } else { Rights::Read }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("setup", &self.describe())
            .finish_non_exhaustive()
    }
}
