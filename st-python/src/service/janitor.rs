//! Letting go of Python objects from threads that must not wait for the interpreter.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use shared_tensor::lock::PerProcess;

static JANITOR: PerProcess<Mutex<Option<Sender<Py<PyAny>>>>> = PerProcess::new();

/// Lets go of an object soon, on a thread that may wait for the interpreter.
pub(super) fn let_go(object: Py<PyAny>) {
    let janitor = JANITOR.get_or_init(Mutex::default);
    let mut janitor = janitor.lock().unwrap_or_else(PoisonError::into_inner);
    if janitor.is_none() {
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
        *janitor = Some(inbox);
    }
    if let Some(inbox) = janitor.as_ref()
        && let Err(unsent) = inbox.send(object)
    {
        std::mem::forget(unsent.0);
    }
}
