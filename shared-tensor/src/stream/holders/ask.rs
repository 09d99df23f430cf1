//! One question to one holder. Nothing that it says is believed.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use cuda_ipc::Chunk;
use rpc_uds::{CallError, Client, ConnectError, Message, Request};
use shm_lock::Wait;
use thiserror::Error;

use super::name::NameError;
use super::office::LIMITS;
use super::wire::{ASK, PROTOCOL, Reply, encode_question};
use super::{Subject, trusted};

/// Why a holder that is listed gave nothing.
#[derive(Debug, Error)]
pub(super) enum Unanswered {
    #[error("its line is damaged: {0}")]
    Line(#[from] NameError),
    #[error("it is about to listen")]
    Unready,
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("it does not hand out the memory of this stream")]
    NotHere,
    #[error("it speaks protocol {spoken}, this process {PROTOCOL}: use releases that fit together")]
    Protocol { spoken: u16 },
    #[error("it could not read what it was asked: use releases that fit together")]
    Unread,
    #[error("its answer cannot be read: use releases that fit together")]
    Unreadable,
    #[error("it handed out other memory than it was asked for")]
    Other,
    #[error("{count} descriptors came with its answer, which has one")]
    Descriptors { count: usize },
}

impl Unanswered {
    /// Whether the caller gave up.
    pub(super) fn is_interruption(&self) -> bool {
        let is_connect = matches!(self, Self::Connect(ConnectError::Interrupted { .. }));
        is_connect || matches!(self, Self::Call(CallError::Interrupted))
    }
}

/// Asks whoever listens at `socket`, until `deadline`. Its user is known before anything is said.
pub(super) fn ask(
    socket: &Path,
    subject: &Subject,
    deadline: Instant,
    wait: &Wait<'_>,
) -> Result<Chunk, Unanswered> {
    let options = Client::options().policy(trusted()).limits(LIMITS).pushes_max(1);
    let client = options.connect_unless(socket, deadline, || wait.is_interrupted())?;
    let question = encode_question(subject);
    let pending = client.start(Request::new(ASK, &question), deadline)?;
    judge(subject, pending.wait_unless(|| wait.is_interrupted())?)
}

fn judge(subject: &Subject, message: Message) -> Result<Chunk, Unanswered> {
    let Message { tag, body, descriptors } = message;
    let reply = if tag == ASK { Reply::decode(&body) } else { None };
    match reply.ok_or(Unanswered::Unreadable)? {
        Reply::Here(entry) if Subject::from(entry) == *subject => {
            let one: Result<[OwnedFd; 1], _> = descriptors.try_into();
            let [descriptor] = one.map_err(|all| Unanswered::Descriptors { count: all.len() })?;
            Ok(Chunk::from_parts(subject.label, descriptor))
        }
        Reply::Here(_) => Err(Unanswered::Other),
        Reply::NotHere => Err(Unanswered::NotHere),
        Reply::Protocol(spoken) => Err(Unanswered::Protocol { spoken }),
        Reply::Unread => Err(Unanswered::Unread),
    }
}
