//! Requests, replies and pushes with file descriptors over a Unix socket.
//!
//! For processes of one Linux host that ask each other for things and hand each other open files. The
//! server answers from a fixed number of threads and stays reachable whatever they do; the client is
//! blocking, shared by any number of threads, and knows within a moment when its server has died.
//! Start from [`Server`] and its [`Handler`], and from [`Client`]. What a request says is not this
//! crate's business: bodies are bytes, tags are numbers.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//! use rpc_uds::{Call, Client, Connection, Handler, Refusal, Request, Server};
//!
//! struct Upper;
//!
//! impl Handler for Upper {
//!     type Session = ();
//!
//!     fn connected(&self, _: &Connection) -> Result<(), Refusal> {
//!         Ok(())
//!     }
//!
//!     fn call(&self, _: &Arc<()>, call: Call) {
//!         let answer = call.body.to_ascii_uppercase();
//!         // Whoever asked may have gone meanwhile.
//!         let _ = call.reply(0, &answer);
//!     }
//! }
//!
//! # let path = std::env::temp_dir().join(format!("rpc-uds-doc-{}", std::process::id()));
//! let server = Server::options().serve(&path, Upper)?;
//!
//! // In another process:
//! let deadline = Instant::now() + Duration::from_secs(5);
//! let client = Client::options().wait_for_server(true).connect(&path, deadline)?;
//! let reply = client.call(Request::new(1, b"hello"), deadline)?;
//! assert_eq!(reply.body, b"HELLO");
//!
//! let stopped = server.stop(Duration::from_secs(1))?;
//! assert!(stopped.is_drained);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | who | both sides know the other's user before the first request ([`PeerPolicy`]); the socket has mode 0600 |
//! | limits | what a header announces is checked before anything is allocated; bodies 1 MiB, 64 descriptors unless set otherwise; the smaller of both sides' limits holds ([`Agreement`]) |
//! | descriptors | arrive close-on-exec, with the frame that announces them, all of them or the connection ends; none is left open by an error |
//! | deadlines | are points in time, for a whole call; a peer that trickles stretches neither them nor a server's frame |
//! | control lane | pings and requests that the handler names are answered while every worker is busy, every queue full, the server stopping |
//! | one client | cannot delay another: its requests are refused beyond a number, its replies queued up to a size, then it is cut off ([`ServerStats::slow_readers`]) |
//! | client's death | [`Handler::disconnected`] is told once; its session is dropped after its last request |
//! | server's death | every wait ends at once with [`Lost`]; calls on a dead connection do too |
//! | cancelling | ends the wait at once; the handler sees it; a late reply is dropped with its descriptors |
//! | the path | is refused to a second server while the first lives, taken over when it is dead, removed by its owner only |
//! | accepting | goes on whatever happens: without descriptors or memory it pauses, without threads it sheds |
//! | fork | a child holds none of the parent's connections, nor its path, whatever other threads were at; using an inherited object is an error ([`Forked`]), dropping it does nothing |
//! | stopping | refuses new requests by name, drains for a grace, joins every thread but those whose handler does not come back, and names their calls ([`Stopped`]); without work it takes no time |
//!
//! # One call
//!
//! The caller sends on its own thread and, if nobody else does, reads on its own thread: no reader
//! thread stands between, so an idle client has none and a lone caller is woken by the kernel with its
//! reply. Of several callers one reads for all; the top of `desk.rs` says how they agree, and which
//! loom models show that no wake-up is lost. The server has one thread per connection. What the
//! handler answers [at once](Handler::fast) costs no other thread; anything else one hand-over to a
//! worker, who sends the reply itself.
//!
//! # On the wire
//!
//! A 24-byte header ([`Header`]) and a body. The client says hello with what it speaks and takes
//! ([`Offer`]), the server welcomes it with what both do ([`Agreement`]) or refuses. The crate's own
//! words ([`Control`]) are postcard; golden files hold their bytes. Bodies over the limit are not cut
//! in pieces: put what is large into a memfd and send that.
//!
//! Who speaks something else gets a refusal that a person can read; a client of shared-tensor 0.2
//! gets one that its own decoder shows.
//!
//! # What this crate does not do
//!
//! - Other hosts, encryption, authentication beyond the user id.
//! - Calls from server to client: there are pushes.
//! - Order between requests: those of one connection may be answered in any order.
//! - Half-closed connections: who closes its sending side is gone.
//! - Notice a fork by raw `clone`, or keep descriptors beyond number 65535 from forked children.
//!
//! # Safety
//!
//! `unsafe` lives in the module `sys` alone; its file begins with the numbered invariants that every
//! block cites.
//!
//! # Features
//!
//! None. `--cfg loom` builds the two state machines on loom's locks and atomics,
//! `--cfg st_fault` lets a test break any kernel call.

#[cfg(not(target_os = "linux"))]
compile_error!("rpc-uds is for Linux only: it is built on SO_PEERCRED, eventfd, epoll and /proc");

/// Runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(not(loom))]
mod address;
#[cfg(not(loom))]
mod client;
mod control;
#[cfg(not(loom))]
mod deadline;
mod decoder;
mod desk;
mod error;
#[cfg(not(any(loom, st_fault)))]
mod fault;
#[cfg(all(st_fault, not(loom)))]
#[doc(hidden)]
pub mod fault;
mod frame;
mod gate;
mod handshake;
#[cfg(not(loom))]
mod legacy;
#[cfg(all(test, loom))]
mod models;
#[cfg(not(loom))]
mod peer;
#[cfg(not(loom))]
mod runtime_directory;
#[cfg(not(loom))]
mod server;
#[cfg(not(loom))]
mod signals;
mod sync;
#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "fork and signal handlers, credentials, a mapping: behind safe functions"
)]
mod sys;
#[cfg(not(loom))]
mod transport;

#[cfg(not(loom))]
pub use client::{
    Canceller, Client, ClientOptions, ClientStats, Message, PendingCall, Progress, Request,
};
pub use control::{Control, Refusal};
pub use decoder::Decoder;
pub use error::{
    BindError, CallError, ConnectError, Forked, FrameError, Lost, RuntimeDirectoryError, SendError,
};
pub use frame::{
    DESCRIPTORS_MAX, Frame, FrameLimits, HEADER_BYTES, HEADER_VERSION, Header, Kind, MAGIC,
};
pub use handshake::{Agreement, Offer, VERSIONS, Versions};
#[cfg(not(loom))]
pub use legacy::is_legacy_server;
#[cfg(not(loom))]
pub use peer::{Credentials, PeerPolicy};
#[cfg(not(loom))]
pub use runtime_directory::RuntimeDirectory;
#[cfg(not(loom))]
pub use server::{
    Call, Connection, Handler, Responder, Server, ServerOptions, ServerStats, Stopped, Unfinished,
};
#[cfg(not(loom))]
pub use signals::Termination;
