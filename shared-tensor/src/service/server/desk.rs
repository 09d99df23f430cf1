//! What a server does with each request.

use std::sync::Arc;

use rpc_uds::{Call, Connection, Handler, Refusal, Responder};
use serde::Serialize;

use super::calls::{self, Asked, listen, not_understood};
use super::core::{Core, count};
use super::session::{Session, fail};
use super::tasks::{Cancelled, Waiter, Wants};
use crate::service::failure::{Code, Failure};
use crate::service::region::Id;
use crate::service::value::Value;
use crate::service::wire::messages::{
    CustodyAt, LeaseEntry, TaskAsk, TaskStatus, answer, ask, decode_all, encode,
};
use crate::service::wire::payload::Packer;
use crate::service::wire::{DecodeError, PayloadKind};

/// The sessions' requests, answered on their connections' threads: nothing here runs code of users
/// or waits for it.
pub(crate) struct Desk(pub(crate) Arc<Core>);

impl Handler for Desk {
    type Session = Arc<Session>;

    fn connected(&self, connection: &Connection) -> Result<Arc<Session>, Refusal> {
        Ok(Arc::new(Session::new(connection.clone(), self.0.cache.open_session())))
    }

    fn is_control(&self, tag: u16) -> bool {
        matches!(
            tag,
            ask::INFO
                | ask::ENDPOINTS
                | ask::RELEASE
                | ask::RELEASE_LEASES
                | ask::OBJECT
                | ask::INVALIDATE_ENDPOINT
                | ask::TASK_STATUS
                | ask::TASK_CANCEL
                | ask::TASK_LIST
                | ask::FORGET
        )
    }

    fn fast(&self, session: &Arc<Arc<Session>>, call: Call) -> Option<Call> {
        count(&self.0.counters.requests_processed);
        let Call { tag, body, descriptors, responder, .. } = call;
        let done = match tag {
            ask::CALL | ask::SUBMIT | ask::INVALIDATE_CALL => {
                match Asked::read(&self.0, session, body, descriptors) {
                    Ok(asked) if tag == ask::CALL => {
                        calls::call(&self.0, session, asked, responder);
                    }
                    Ok(asked) if tag == ask::SUBMIT => calls::submit(&self.0, asked, responder),
                    Ok(asked) => calls::invalidate(&self.0, asked, responder),
                    Err(failure) => self.refuse(responder, &failure),
                }
                return None;
            }
            ask::TASK_RESULT | ask::TASK_WAIT => {
                match self.task(&body) {
                    Ok((task, ask)) if tag == ask::TASK_WAIT => {
                        listen(session, &task.ticker(), ask.ticket);
                        let session = Arc::clone(&**session);
                        task.wait(&self.0, Waiter { session, responder, wants: Wants::Status });
                    }
                    Ok((task, _)) => task.give(&self.0, session, responder),
                    Err(failure) => self.refuse(responder, &failure),
                }
                return None;
            }
            _ => self.answer(session, tag, &body),
        };
        match done {
            Ok(body) => {
                // Who has gone need not be told.
                let _ = responder.reply(answer::DONE, &body, &[]);
            }
            Err(failure) => self.refuse(responder, &failure),
        }
        None
    }

    fn call(&self, _: &Arc<Arc<Session>>, call: Call) {
        // Everything is taken by `fast`.
        drop(call);
    }

    fn disconnected(&self, session: &Arc<Arc<Session>>, _: &Connection) {
        session.cache.close();
        self.0.tasks.let_go();
    }
}

impl Desk {
    fn refuse(&self, responder: Responder, failure: &Failure) {
        count(&self.0.counters.errors_encountered);
        fail(responder, failure);
    }

    fn task(&self, body: &[u8]) -> Result<(Arc<super::tasks::Task>, TaskAsk), Failure> {
        let ask: TaskAsk = read(body)?;
        Ok((self.0.tasks.get(ask.task)?, ask))
    }

    /// What is answered at once.
    fn answer(&self, session: &Session, tag: u16, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let core = &self.0;
        Ok(match tag {
            ask::INFO => {
                let mut info = core.info();
                if let Value::Dict(pairs) = &mut info {
                    let held = i64::try_from(session.regions_held()).unwrap_or(i64::MAX);
                    pairs.push(("regions_held".into(), held.into()));
                }
                packed(&info)?
            }
            ask::ENDPOINTS => packed(&core.provider.describe())?,
            ask::RELEASE => {
                let objects: Vec<Id> = read(body)?;
                let release = |id| core.release(&session.cache, id);
                told(&objects.into_iter().map(release).collect::<Vec<_>>())
            }
            ask::RELEASE_LEASES => {
                let leases: Vec<LeaseEntry> = read(body)?;
                let release = |lease: LeaseEntry| {
                    let object = tensor_cache::ObjectId::from_raw(lease.object);
                    let id = tensor_cache::LeaseId { object, serial: lease.serial };
                    session.cache.release(id).is_some()
                };
                told(&leases.into_iter().map(release).collect::<Vec<_>>())
            }
            ask::OBJECT => told(&core.object_info(read(body)?)),
            ask::INVALIDATE_ENDPOINT => {
                let name: &str = read(body)?;
                let endpoint = core.endpoint(name)?;
                told(&core.invalidated(core.cache.invalidate_group(&endpoint.name)))
            }
            ask::TASK_STATUS => told(&self.task(body)?.0.info()),
            ask::TASK_CANCEL => {
                let (task, ask) = self.task(body)?;
                let cancelled = core.tasks.cancel(core, &task, ask.is_cooperative);
                told(&(cancelled != Cancelled::No))
            }
            ask::TASK_LIST => {
                let status: Option<TaskStatus> = read(body)?;
                told(&core.tasks.list(status))
            }
            ask::FORGET => {
                let forgotten: Vec<CustodyAt> = read(body)?;
                told(&session.forget(&forgotten))
            }
            _ => {
                let found = tag.into();
                let error = DecodeError::Code { what: PayloadKind::Tag, found };
                return Err(Failure::new(Code::Protocol, error.to_string()));
            }
        })
    }
}

fn read<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Failure> {
    decode_all(body).map_err(not_understood)
}

fn told<T: Serialize>(message: &T) -> Vec<u8> {
    encode(message)
}

/// A value without regions: what the server says of itself is short.
fn packed(value: &Value) -> Result<Vec<u8>, Failure> {
    let mut packer = Packer::default();
    packer.value(value).map_err(super::kept::refused)?;
    Ok(packer.finish(usize::MAX).map_err(super::kept::refused)?.bytes)
}
