//! Letting go of Python objects from threads that must not wait for the interpreter.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use shared_tensor::lock::PerProcess;

#[derive(Default)]
struct Janitor {
    state: Mutex<State>,
    emptied: Condvar,
}

#[derive(Default)]
struct State {
    inbox: Option<Sender<Py<PyAny>>>,
    /// How many objects the thread has not let go of yet.
    waiting: usize,
    is_closed: bool,
}

static JANITOR: PerProcess<Janitor> = PerProcess::new();

impl Janitor {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of an object soon, on a thread that may wait for the interpreter.
pub(crate) fn let_go(object: Py<PyAny>) {
    let mut state = JANITOR.get_or_init(Janitor::default).state();
    if state.is_closed {
        std::mem::forget(object);
        return;
    }
    if state.inbox.is_none() {
        let (inbox, outbox) = channel::<Py<PyAny>>();
        let started = std::thread::Builder::new().name("st-janitor".into()).spawn(move || {
            for object in outbox {
                let mut object = Some(object);
                Python::try_attach(|_| drop(object.take()));
                // After the interpreter's end there is nothing to give it back to.
                std::mem::forget(object);
                let janitor = JANITOR.get_or_init(Janitor::default);
                janitor.state().waiting -= 1;
                janitor.emptied.notify_all();
            }
        });
        if started.is_err() {
            std::mem::forget(object);
            return;
        }
        state.inbox = Some(inbox);
    }
    let sent = state.inbox.as_ref().map(|inbox| inbox.send(object));
    match sent {
        Some(Err(unsent)) => std::mem::forget(unsent.0),
        _ => state.waiting += 1,
    }
}

/// How long the end of the interpreter waits for what is being let go of.
const AT_THE_END: Duration = Duration::from_secs(10);

/// Wait for what is being let go of, and let go of nothing more: the interpreter is about to end, and
/// would end the thread in the midst of torch's code, which takes the whole process along.
#[pyfunction]
pub(crate) fn service_close_janitor(py: Python<'_>) {
    py.detach(|| {
        let janitor = JANITOR.get_or_init(Janitor::default);
        let mut state = janitor.state();
        state.is_closed = true;
        let waiting = |state: &mut State| state.waiting > 0;
        drop(janitor.emptied.wait_timeout_while(state, AT_THE_END, waiting));
    });
}
