//! The thread that hands out pushes while no call is made.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use rustix::event::{EventfdFlags, eventfd};

use super::Message;
use super::connection::Connection;
use crate::desk::Watch;
use crate::fault;
use crate::sys::UnsharedFd;

/// What is done with each push. It may make calls on the same client.
pub(super) type OnPush = Box<dyn FnMut(Message) + Send>;

#[derive(Debug)]
pub(super) struct Watcher(Option<JoinHandle<()>>);

impl Watcher {
    pub(super) fn start(connection: &Arc<Connection>, on_push: OnPush) -> io::Result<Self> {
        let kick = UnsharedFd::make(|| {
            fault::point("eventfd")?;
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        })?;
        // Set once: a connection has one watcher.
        let _ = connection.kick.set(kick);
        let connection = Arc::clone(connection);
        let watch = move || watch(&connection, on_push);
        let thread = thread::Builder::new().name("rpc-uds push".to_owned()).spawn(watch)?;
        Ok(Self(Some(thread)))
    }
}

fn watch(connection: &Connection, mut on_push: OnPush) {
    loop {
        match connection.desk.watch() {
            Watch::HandOut(push) => {
                let Ok(push) = push else { continue };
                // One push that cannot be handled is no reason to lose the next.
                let _ = catch_unwind(AssertUnwindSafe(|| on_push(push)));
            }
            Watch::Poll => {
                connection.poll();
                // Nothing to read if a caller was quicker; an end is told by the desk.
                let _ = connection.receive_now();
            }
            Watch::End => return,
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let Some(thread) = self.0.take() else { return };
        // The callback may hold the last handle to the client.
        if thread.thread().id() != thread::current().id() {
            // It has caught its panics.
            let _ = thread.join();
        }
    }
}
