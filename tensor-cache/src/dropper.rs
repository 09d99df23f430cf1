//! The thread that drops what the timer has ended. A `Drop` may take as long as it likes, and what is
//! over meanwhile ends in time all the same.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::machine::Debris;

/// Where the thread is put once there is one.
#[derive(Clone, Default)]
pub(crate) struct Place(Arc<Mutex<Option<JoinHandle<()>>>>);

impl Place {
    /// Waits for the end of the thread, whose owner is gone.
    pub(crate) fn join(&self) {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A value that it drops may own the last handle of its cache.
        if let Some(thread) = thread.filter(|it| it.thread().id() != thread::current().id()) {
            // It runs no code that can panic past it.
            let _ = thread.join();
        }
    }
}

/// The owner of the thread, which ends with it, when everything is dropped.
pub(crate) struct Dropper<V, E> {
    place: Place,
    sender: Option<Sender<Debris<V, E>>>,
}

impl<V, E> Dropper<V, E>
where
    V: Send + Sync + 'static,
    E: Send + Sync + 'static,
{
    pub(crate) fn new(place: Place) -> Self {
        Self { place, sender: None }
    }

    /// Leaves something to the thread. If the system has none to give, it is dropped here.
    pub(crate) fn leave(&mut self, debris: Debris<V, E>) {
        if debris.is_empty() {
            return;
        }
        if self.sender.is_none() {
            let (sender, left) = mpsc::channel::<Debris<V, E>>();
            let builder = thread::Builder::new().name("tensor-cache-drop".to_owned());
            let started = builder.spawn(move || left.into_iter().for_each(Debris::drop_alone));
            let Ok(thread) = started else { return debris.drop_alone() };
            *self.place.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
            self.sender = Some(sender);
        }
        if let Some(Err(mpsc::SendError(debris))) = self.sender.as_ref().map(|it| it.send(debris)) {
            debris.drop_alone();
        }
    }
}
