//! The socket at which this process answers, one for all its streams.
//!
//! It is opened with the first offer and closed with the last, so a process that ends in order leaves no
//! file in the runtime directory, and one that has no stream of a GPU has no thread for it. What killed
//! processes leave there is removed by the next one that opens an office.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rpc_uds::{BindError, Call, Connection, FrameLimits, Handler, Refusal, Server};
use shm_lock::PerProcess;

use super::counter::Counter;
use super::name::SocketName;
use super::trusted;
use super::wire::{ASK, CONTEXTS, Reply, decode_question};
use crate::error::{Error, ErrorKind, Result};
use crate::service::runtime_directory;
use crate::stream::device::watch;

/// Nobody says more than this, and one descriptor is handed out at a time.
pub(super) const LIMITS: FrameLimits = FrameLimits { body_bytes_max: 4096, descriptors_max: 1 };
/// How many are served at once; each has a thread. More are told to come again.
const CONNECTIONS_MAX: usize = 64;
/// How often a name is drawn anew if somebody who cleans up holds its lock just then.
const ATTEMPTS: u32 = 8;

/// What this process has for all its offers. A forked child finds none.
static OFFICE: PerProcess<Office> = PerProcess::new();

#[derive(Debug, Default)]
pub(super) struct Office {
    pub(super) counter: Arc<Counter>,
    door: Mutex<Door>,
}

#[derive(Debug, Default)]
struct Door {
    server: Option<(Server, SocketName)>,
    /// How many offers need it.
    offers: usize,
}

impl Office {
    pub(super) fn of_this_process() -> &'static Self {
        OFFICE.get_or_init(Self::default)
    }

    /// Listens, for one offer more. Returns the name of the socket.
    ///
    /// # Errors
    /// [`ErrorKind::Os`] if there is no private runtime directory, or no socket can be made there.
    pub(super) fn open(&self) -> Result<SocketName> {
        let mut door = lock(&self.door);
        let name = match &door.server {
            Some((_, name)) => name.clone(),
            None => door.server.insert(start(&self.counter)?).1.clone(),
        };
        door.offers += 1;
        Ok(name)
    }

    /// One offer less.
    pub(super) fn close(&self) {
        let mut door = lock(&self.door);
        door.offers -= 1;
        if door.offers == 0
            && let Some((server, _)) = door.server.take()
        {
            // Nobody is listed with it any more: who comes late goes to the next holder. It is an error
            // in a forked child only, which has an office of its own.
            let _ = server.stop(Duration::ZERO);
        }
    }
}

fn lock(door: &Mutex<Door>) -> MutexGuard<'_, Door> {
    door.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(counter: &Arc<Counter>) -> Result<(Server, SocketName)> {
    let failed = |source: &dyn std::error::Error| {
        format!("cannot hand out the memory of CUDA streams to other processes: {source}")
    };
    let directory = runtime_directory()
        .map_err(|source| Error::with_source(ErrorKind::Os, failed(&source), source))?;
    directory.remove_dead(SocketName::is_one);
    let mut attempts = ATTEMPTS;
    loop {
        let name = SocketName::random();
        let server = Server::options()
            .policy(trusted())
            .limits(LIMITS)
            .connections_max(CONNECTIONS_MAX)
            // Everything is answered by the connection's own thread; a server has one worker at least.
            .workers(1)
            .serve(directory.socket(name.as_str()), Clerk(Arc::clone(counter)));
        match server {
            Ok(server) => return Ok((server, name)),
            Err(BindError::Taken { .. }) if attempts > 1 => attempts -= 1,
            Err(source) => return Err(Error::with_source(ErrorKind::Os, failed(&source), source)),
        }
    }
}

/// Answers whoever asks.
struct Clerk(Arc<Counter>);

impl Handler for Clerk {
    type Session = ();

    fn connected(&self, _: &Connection) -> Result<(), Refusal> {
        Ok(())
    }

    fn fast(&self, _: &Arc<()>, call: Call) -> Option<Call> {
        self.answer(call);
        None
    }

    fn call(&self, _: &Arc<()>, call: Call) {
        self.answer(call);
    }
}

impl Clerk {
    /// Who asked may have gone: nobody to tell, then.
    fn answer(&self, call: Call) {
        if call.tag == CONTEXTS {
            watch::ask();
            let _ = call.reply(CONTEXTS, &[]);
            return;
        }
        let question =
            if call.tag == ASK { decode_question(&call.body) } else { Err(Reply::Unread) };
        let subject = match question {
            Ok(subject) => subject,
            Err(reply) => {
                let _ = call.reply(ASK, &reply.encode());
                return;
            }
        };
        self.0.serve(&subject, |chunk| {
            let _ = match chunk {
                Some(chunk) => {
                    let reply = Reply::Here(subject.into()).encode();
                    call.responder.reply(ASK, &reply, &[chunk.as_fd()])
                }
                None => call.reply(ASK, &Reply::NotHere.encode()),
            };
        });
    }
}
