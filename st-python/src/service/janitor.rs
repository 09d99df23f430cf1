//! Letting go of Python objects from threads that must not wait for the interpreter.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

struct Janitor {
    process: u32,
    inbox: Sender<Py<PyAny>>,
}

static JANITOR: Mutex<Option<Janitor>> = Mutex::new(None);

/// Lets go of an object soon, on a thread that may wait for the interpreter.
pub(super) fn let_go(object: Py<PyAny>) {
    let mut janitor = JANITOR.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    if janitor.as_ref().is_none_or(|it| it.process != process) {
        let (inbox, outbox) = channel::<Py<PyAny>>();
        let started = std::thread::Builder::new().name("st-janitor".into()).spawn(move || {
            for object in outbox {
                let mut object = Some(object);
                Python::try_attach(|_| drop(object.take()));
                // After the interpreter's end there is nothing to give it back to.
                std::mem::forget(object);
            }
        });
        if started.is_err() {
            std::mem::forget(object);
            return;
        }
        // A forked child's copy of its parent's channel has no thread, and is not touched.
        if let Some(stale) = janitor.replace(Janitor { process, inbox }) {
            std::mem::forget(stale);
        }
    }
    if let Some(janitor) = janitor.as_ref()
        && let Err(unsent) = janitor.inbox.send(object)
    {
        std::mem::forget(unsent.0);
    }
}
