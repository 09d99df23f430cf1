//! What can go wrong, by operation.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::control::Refusal;

/// A client, server or connection was used in a forked child of the process that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("it belongs to the process that this one was forked from: connect anew in the child")]
pub struct Forked;

impl From<Forked> for io::Error {
    fn from(forked: Forked) -> Self {
        Self::other(forked)
    }
}

/// What came is not what was agreed. The connection ends, for nothing after it can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first bytes are not those of a frame.
    #[error("the bytes {found:02x?} where a frame should begin: the peer speaks another protocol")]
    Magic {
        /// The bytes found, zero where none came.
        found: [u8; 4],
    },
    /// A header of another version.
    #[error("a frame header of version {found}, this side reads 1: use releases that fit together")]
    Version {
        /// The version found.
        found: u16,
    },
    /// A kind of frame that does not exist, or not in this direction.
    #[error("a frame of kind {found}, which has no place here: use releases that fit together")]
    Kind {
        /// The number found.
        found: u16,
    },
    /// Flags that mean nothing.
    #[error("frame flags {found:#010x}, of which bits 8 to 15 must be zero")]
    Flags {
        /// The flags found.
        found: u32,
    },
    /// A body longer than the limit.
    #[error(
        "a body of {bytes} bytes, the limit is {limit}: raise it on both sides, or send a memfd"
    )]
    TooLong {
        /// The length announced.
        bytes: u32,
        /// The limit.
        limit: u32,
    },
    /// More descriptors than the limit.
    #[error(
        "{count} descriptors with one frame, the limit is {limit}: send fewer, or raise it on both sides"
    )]
    TooManyDescriptors {
        /// The number announced.
        count: u8,
        /// The limit.
        limit: u8,
    },
    /// The first byte of a frame came with fewer descriptors than the header announces.
    #[error("{came} of {announced} announced descriptors came")]
    MissingDescriptors {
        /// How many the header announces.
        announced: u8,
        /// How many came.
        came: usize,
    },
    /// Descriptors came that no frame announces.
    #[error("{count} descriptors came that no frame announces")]
    SurplusDescriptors {
        /// How many.
        count: usize,
    },
    /// The kernel had to drop descriptors on the way in.
    #[error(
        "descriptors were lost on arrival: more came than a frame may have, or this process is at \
         its limit of open files (ulimit -n)"
    )]
    TruncatedDescriptors,
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Cut,
    /// The body of a control frame is not one message.
    #[error("a control message that {}", match .surplus {
        Some(count) => format!("is followed by {count} bytes"),
        None => "cannot be read".to_owned(),
    })]
    Control {
        /// How many bytes are left over; `None` if there is no message.
        surplus: Option<usize>,
    },
    /// A control message that does not belong where it came.
    #[error("a control message out of turn")]
    OutOfTurn,
    /// The server granted what was not offered.
    #[error("the server granted more than the client had offered")]
    Agreement,
    /// A request with an id that is in use, or zero, or a reply to what was never asked.
    #[error("the request id {id}, which cannot be")]
    Id {
        /// The id.
        id: u64,
    },
}

/// Why a connection is no more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Lost {
    /// The peer closed it, or died.
    #[error("the peer closed the connection or died")]
    Closed,
    /// The server had said that it was stopping.
    #[error("the server stopped")]
    Stopped,
    /// The server refused to go on.
    #[error("the server ended the connection: {0}")]
    Refused(Refusal),
    /// What came was not the protocol.
    #[error("the peer broke the protocol: {0}")]
    Protocol(FrameError),
    /// The kernel reported an error.
    #[error("the connection failed: {}", io::Error::from_raw_os_error(*.code))]
    Kernel {
        /// Its number.
        code: i32,
    },
    /// This side closed it.
    #[error("the client was closed")]
    ClosedHere,
}

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CallError {
    /// The deadline passed. The server was told; a late reply is dropped.
    #[error("no reply within {waited:.1?}")]
    TimedOut {
        /// How long was waited.
        waited: Duration,
    },
    /// It was cancelled on this side.
    #[error("the call was cancelled")]
    Cancelled,
    /// The closure given for it said so.
    #[error("the call was interrupted")]
    Interrupted,
    /// The server said no.
    #[error("the server refused the call: {0}")]
    Refused(#[source] Refusal),
    /// More than was agreed; nothing was sent.
    #[error("the request is more than was agreed: {0}")]
    TooMuch(#[source] FrameError),
    /// The kernel did not take the descriptors; nothing was sent.
    #[error("the descriptors cannot be sent: {}", io::Error::from_raw_os_error(*.code))]
    Descriptors {
        /// The kernel's error number.
        code: i32,
    },
    /// The connection is no more. Whether the server has done what was asked is not known.
    #[error("the connection is lost: {0}")]
    Lost(#[source] Lost),
    /// See [`Forked`].
    #[error("the client cannot be used: {0}")]
    Forked(#[from] Forked),
}

/// Why there is no connection.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody listens at the path, and nobody did until the deadline.
    #[error("no server listens at {}: start one, or check the path", .path.display())]
    Absent {
        /// The path.
        path: PathBuf,
        /// The kernel's last answer.
        #[source]
        source: io::Error,
    },
    /// Something else than a socket is at the path: no server will come there.
    #[error(
        "{} is {found}, not a socket: give the path of a server's socket", .path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// What is there, with its article.
        found: &'static str,
    },
    /// The deadline passed although somebody listens.
    #[error("the server at {} did not answer within {waited:.1?}", .path.display())]
    TimedOut {
        /// The path.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
    /// The closure given for it said so.
    #[error("connecting to {} was interrupted", .path.display())]
    Interrupted {
        /// The path.
        path: PathBuf,
    },
    /// The process that listens belongs to a user that the client's policy does not admit.
    #[error(
        "the server at {} runs as user {server}, this client as user {client} and does not trust \
         it: somebody else took the path, or the client's policy must be widened", .path.display()
    )]
    User {
        /// The path.
        path: PathBuf,
        /// The server's effective user id.
        server: u32,
        /// The client's.
        client: u32,
    },
    /// The server said no.
    #[error("the server at {} refused: {refusal}", .path.display())]
    Refused {
        /// The path.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// The connection ended during the handshake.
    #[error("the server at {} did not shake hands: {lost}", .path.display())]
    Handshake {
        /// The path.
        path: PathBuf,
        /// How it ended.
        lost: Lost,
    },
    /// The path cannot be a socket's.
    #[error("{} cannot be the path of a socket: {reason}", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The kernel refused.
    #[error("cannot {step} for {}", .path.display())]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

/// Why a server cannot listen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// A living server holds the path.
    #[error("a server already listens at {}{}: stop it first, or use another path",
        .path.display(), match .pid { Some(pid) => format!(" (pid {pid})"), None => String::new() })]
    Taken {
        /// The path.
        path: PathBuf,
        /// Who, if it left its pid.
        pid: Option<u32>,
    },
    /// Something else is there.
    #[error(
        "{} is {found}, and a server replaces nothing but dead sockets of its own user: move it away, \
         or use another path", .path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
        /// What is there, with its article.
        found: &'static str,
    },
    /// The path cannot be a socket's.
    #[error("{} cannot be the path of a socket: {reason}", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A thread could not be started.
    #[error("cannot start the server's threads")]
    Threads(#[source] io::Error),
    /// The kernel refused.
    #[error("cannot {step} for {}", .path.display())]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

/// Why a reply or push was not sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The request was cancelled, or timed out at the client.
    #[error("nobody waits for the reply any more")]
    Cancelled,
    /// The client has gone.
    #[error("the connection is closed")]
    Gone,
    /// The client does not read what it is sent; its connection was closed.
    #[error("the client left {bytes} bytes unread, more than its queue takes, and was cut off")]
    Slow {
        /// How many bytes waited for it.
        bytes: usize,
    },
    /// More than was agreed; a reply is replaced by a refusal that says so.
    #[error("it is more than was agreed: {0}")]
    TooMuch(#[source] FrameError),
    /// The kernel did not take the descriptors; a reply is replaced by a refusal that says so.
    #[error("the descriptors cannot be sent: {}", io::Error::from_raw_os_error(*.code))]
    Descriptors {
        /// The kernel's error number.
        code: i32,
    },
    /// See [`Forked`].
    #[error("the server cannot be used: {0}")]
    Forked(#[from] Forked),
}

/// Why there is no private directory for sockets.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RuntimeDirectoryError {
    /// The application's name is not a plain file name.
    #[error("`{name}` cannot be a directory's name: use letters, digits, `.`, `-` and `_`")]
    Name {
        /// The name.
        name: String,
    },
    /// It is a symbolic link or not a directory.
    #[error("{} is not a directory, or is a symbolic link: remove it", .path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error(
        "{} belongs to user {owner}, not to user {own}: \
         remove it, or set XDG_RUNTIME_DIR to a directory of your own", .path.display()
    )]
    Owner {
        /// The path.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        own: u32,
    },
    /// Others may enter it.
    #[error("{0} has mode {mode:03o}, others may enter it: chmod 700 {0}", .path.display())]
    Mode {
        /// The path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The kernel refused.
    #[error("cannot {step} {}", .path.display())]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}
