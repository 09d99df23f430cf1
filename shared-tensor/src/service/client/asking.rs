//! What a call brings, and how it is waited for.

use std::fmt;
use std::time::{Duration, Instant};

#[cfg(doc)]
use super::Client;
use super::Error;
use super::link::OnProgress;
use crate::service::value::Value;
use crate::service::wire::messages::Progress;

/// The arguments of a call.
///
/// Made of `()`, of an array or vector of values of one type, or of a tuple of up to six, all by place;
/// [`and_named`](Self::and_named) adds some by name.
///
/// ```
/// use shared_tensor::service::{Arguments, Value};
///
/// assert_eq!(Arguments::from([1, 2]).positional, [Value::Int(1), Value::Int(2)]);
/// assert_eq!(Arguments::from(("rows", 2.5)).positional, [Value::from("rows"), Value::from(2.5)]);
/// let named = Arguments::none().and(1).and_named("rows", 2);
/// assert_eq!(named.named, [("rows".to_owned(), Value::Int(2))]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    /// By place.
    pub positional: Vec<Value>,
    /// By name, in the order in which they are given.
    pub named: Vec<(String, Value)>,
}

impl Arguments {
    /// None.
    pub fn none() -> Self {
        Self::default()
    }

    /// And one more by place.
    #[must_use]
    pub fn and(mut self, value: impl Into<Value>) -> Self {
        self.positional.push(value.into());
        self
    }

    /// And one by name.
    #[must_use]
    pub fn and_named(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.named.push((name.into(), value.into()));
        self
    }
}

impl<T: Into<Value>> From<Vec<T>> for Arguments {
    fn from(positional: Vec<T>) -> Self {
        let positional = positional.into_iter().map(Into::into).collect();
        Self { positional, named: Vec::new() }
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Arguments {
    fn from(positional: [T; N]) -> Self {
        Vec::from(positional).into()
    }
}

impl From<()> for Arguments {
    fn from((): ()) -> Self {
        Self::none()
    }
}

macro_rules! tuples {
    ($(($($name:ident $place:tt),+);)*) => {$(
        impl<$($name: Into<Value>),+> From<($($name,)+)> for Arguments {
            fn from(positional: ($($name,)+)) -> Self {
                Self::none()$(.and(positional.$place))+
            }
        }
    )*};
}

tuples! {
    (A 0);
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, F 5);
}

impl From<&Arguments> for Arguments {
    fn from(arguments: &Self) -> Self {
        arguments.clone()
    }
}

/// How long, and in which company, a call is waited for.
///
/// Made of a [`Duration`] from now on, of an [`Instant`], or of `()` for ever:
///
/// ```no_run
/// use std::time::Duration;
/// use shared_tensor::service::{Address, CallOptions, Client};
///
/// let client = Client::at(Address::at("/run/user/1000/tables"));
/// client.call("table", (), Duration::from_secs(60))?;
/// client.call("table", ("rows", 1000), CallOptions::new().on_progress(|told| eprintln!("{told:?}")))?;
/// # Ok::<(), shared_tensor::service::Error>(())
/// ```
#[derive(Default)]
pub struct CallOptions<'a> {
    pub(in crate::service) deadline: Option<Instant>,
    pub(super) is_interrupted: Option<&'a (dyn Fn() -> bool + Sync)>,
    pub(super) on_progress: Option<OnProgress>,
    /// Whether somebody waits for a call that is started.
    pub(super) is_waited_for: bool,
}

impl<'a> CallOptions<'a> {
    /// For ever, in silence.
    pub fn new() -> Self {
        Self::default()
    }

    /// Until then: the whole call, connecting included. A call whose deadline has passed is not sent,
    /// and ends as [timed out](Error::TimedOut).
    #[must_use]
    pub fn deadline(self, deadline: impl Into<Option<Instant>>) -> Self {
        Self { deadline: deadline.into(), ..self }
    }

    /// So long from now on: the whole call, connecting included. What the clock cannot say is for
    /// ever.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.deadline(Instant::now().checked_add(timeout))
    }

    /// Until `is_interrupted` says so; it is asked ten times a second.
    #[must_use]
    pub fn interrupted(self, is_interrupted: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self { is_interrupted: Some(is_interrupted), ..self }
    }

    /// Calls `on_progress` with what the endpoint tells, on the thread that reads for the client: see
    /// [`Client::start_call`] for what it may do.
    #[must_use]
    pub fn on_progress(self, on_progress: impl FnMut(&Progress) + Send + 'static) -> Self {
        Self { on_progress: Some(Box::new(on_progress)), ..self }
    }

    /// What is late already is not asked: the answer might come before anybody looks at the clock.
    pub(super) fn in_time(&self) -> Result<(), Error> {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(Error::TimedOut { waited: Duration::ZERO });
        }
        Ok(())
    }

    pub(in crate::service) fn is_interrupted(&self) -> bool {
        self.is_interrupted.is_some_and(|is_interrupted| is_interrupted())
    }
}

impl From<Instant> for CallOptions<'_> {
    fn from(deadline: Instant) -> Self {
        Self::new().deadline(deadline)
    }
}

impl From<Option<Instant>> for CallOptions<'_> {
    fn from(deadline: Option<Instant>) -> Self {
        Self::new().deadline(deadline)
    }
}

impl From<Duration> for CallOptions<'_> {
    fn from(timeout: Duration) -> Self {
        Self::new().timeout(timeout)
    }
}

impl From<()> for CallOptions<'_> {
    fn from((): ()) -> Self {
        Self::new()
    }
}

impl<'a> From<&CallOptions<'a>> for CallOptions<'a> {
    /// The same deadline and interruption. Progress is told to the original only.
    fn from(options: &CallOptions<'a>) -> Self {
        let CallOptions { deadline, is_interrupted, .. } = *options;
        Self { deadline, is_interrupted, ..Self::new() }
    }
}

impl fmt::Debug for CallOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallOptions").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_written_in_a_line() {
        let options = |it: CallOptions<'static>| it.deadline;
        let at = Instant::now();
        assert_eq!(options(at.into()), Some(at));
        assert_eq!(options(Some(at).into()), Some(at));
        assert!(options(Duration::from_secs(1).into()).is_some_and(|by| by > at));
        assert_eq!(options(Duration::MAX.into()), None, "no clock says it");
        assert_eq!(options(().into()), None);
        let is_interrupted = || true;
        let original = CallOptions::from(at).interrupted(&is_interrupted).on_progress(|_| ());
        let same = CallOptions::from(&original);
        assert!(same.is_interrupted() && same.deadline == Some(at) && same.on_progress.is_none());
    }

    #[test]
    fn arguments_of_several_types_keep_their_places() {
        let arguments = Arguments::from((1, "two", 3.0, vec![4_u8], None::<i64>, true));
        let wanted: [Value; 6] =
            [1.into(), "two".into(), 3.0.into(), vec![4_u8].into(), Value::None, true.into()];
        assert_eq!(arguments.positional, wanted);
        assert_eq!(Arguments::from(&arguments), arguments);
        assert_eq!(Arguments::from(("one",)).positional, ["one".into()]);
    }
}
