//! Calls of endpoints from within the server's process: Python objects go in and come out as they are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use shared_tensor::service::{Arguments, Call, Failure, Local, Server};

use super::codec::Codec;
use super::{failures, janitor};
use crate::patience::{Signals, is_main_thread};

/// The name under which the key of a local call stands for its arguments, for the memo of keys. No
/// parameter is called so.
const KEY: &str = "\0key";

/// Whether these stand for a call from within, whose arguments are looked at by whoever makes its key.
pub(super) fn is_from_within(arguments: &Arguments) -> bool {
    matches!(arguments.named.as_slice(), [(name, _)] if name == KEY)
}

/// A call from within, as the endpoint's function sees it.
pub(super) struct LocalCall {
    args: Codec,
    kwargs: Codec,
    key: Option<String>,
    outcome: Mutex<Outcome>,
}

/// What cannot be told to others.
#[derive(Default)]
struct Outcome {
    returned: Option<Py<PyAny>>,
    raised: Option<PyErr>,
}

/// What a function returned, for callers within the process.
pub(super) struct Returned(pub(super) Option<Py<PyAny>>);

impl Drop for Returned {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            janitor::let_go(object);
        }
    }
}

/// Objects that were called for from within: of each key the last counts as one reference, until it is
/// invalidated from within. What has no key cannot be met by anybody else, and lives as long as its
/// caller wants.
#[derive(Default)]
pub(super) struct Pins {
    by_endpoint: Mutex<HashMap<String, HashMap<String, Local>>>,
}

impl LocalCall {
    /// The call from within that `call` is.
    pub(super) fn of(call: &Call) -> Option<&Self> {
        call.native()?.downcast_ref()
    }

    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(super) fn arguments<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        Ok((self.args.bind(py).cast_into()?, self.kwargs.bind(py).cast_into()?))
    }

    /// The function's result, which cannot be lent: for this caller alone.
    pub(super) fn keep_returned(&self, returned: Py<PyAny>) {
        self.outcome().returned = Some(returned);
    }

    /// What it raised, for this caller to raise again.
    pub(super) fn keep_raised(&self, raised: PyErr) {
        self.outcome().raised = Some(raised);
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls an endpoint; its result, and whether the server knows it too.
pub(super) fn call<'py>(
    py: Python<'py>,
    server: &Server,
    codec: &Codec,
    pins: &Pins,
    endpoint: &str,
    key: Option<String>,
    (args, kwargs): (Bound<'py, PyTuple>, Bound<'py, PyDict>),
) -> PyResult<(Bound<'py, PyAny>, bool)> {
    let arguments = match &key {
        Some(key) => Arguments::none().and_named(KEY, key.as_str()),
        None => Arguments::none(),
    };
    let local = Arc::new(LocalCall {
        args: Codec::new(args.into_any().unbind()),
        kwargs: Codec::new(kwargs.into_any().unbind()),
        key,
        outcome: Mutex::default(),
    });
    let native = Arc::clone(&local);
    let (outcome, raised) = py.detach(|| {
        let signals = Signals::default();
        let interrupted = || is_main_thread() && signals.have_raised();
        let outcome = server.invoke(endpoint, &arguments, Some(native), None, &interrupted);
        (outcome, signals.into_raised())
    });
    match (outcome, raised) {
        // What a handler raises is never lost.
        (Ok(_), Some(raised)) => Err(raised),
        (Ok(made), None) => {
            let native = made.native().and_then(|it| it.downcast_ref::<Returned>());
            let value = native.and_then(|it| it.0.as_ref()).map(|it| it.bind(py).clone());
            py.detach(|| pins.keep(endpoint, local.key(), made));
            Ok((value.unwrap_or_else(|| py.None().into_bound(py)), true))
        }
        (Err(failure), raised) => {
            let Outcome { returned, raised: own } = std::mem::take(&mut *local.outcome());
            match (raised.or(own), returned) {
                (Some(raised), _) => Err(raised),
                (None, Some(returned)) => Ok((returned.into_bound(py), false)),
                (None, None) => Err(told(py, codec, &failure)),
            }
        }
    }
}

/// What somebody else's call raised, for which this one waited.
fn told(py: Python<'_>, codec: &Codec, failure: &Failure) -> PyErr {
    failures::remote(py, codec, failure)
}

impl Pins {
    fn keep(&self, endpoint: &str, key: Option<&str>, local: Local) {
        let (Some(key), Some(_)) = (key, local.object()) else { return };
        let mut by_endpoint = self.all();
        let pins = by_endpoint.entry(endpoint.to_owned()).or_default();
        let before = pins.insert(key.to_owned(), local);
        drop(by_endpoint);
        drop(before);
    }

    /// Lets go of those of an endpoint.
    pub(super) fn forget(&self, endpoint: &str) {
        let gone = self.all().remove(endpoint);
        drop(gone);
    }

    /// Lets go of all.
    pub(super) fn clear(&self) {
        let gone = std::mem::take(&mut *self.all());
        drop(gone);
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, Local>>> {
        self.by_endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
