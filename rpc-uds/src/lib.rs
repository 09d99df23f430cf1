//! Requests, replies and pushes with file descriptors over a Unix socket.
#![doc = ""]

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
mod decoder;
mod desk;
mod error;
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
#[expect(unsafe_code, reason = "fork and signal handlers, credentials and a mapping, behind safe functions")]
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
pub use peer::{Credentials, PeerPolicy};
#[cfg(not(loom))]
pub use runtime_directory::RuntimeDirectory;
#[cfg(not(loom))]
pub use server::{
    Call, Connection, Handler, Responder, Server, ServerOptions, ServerStats, Stopped,
};
#[cfg(not(loom))]
pub use signals::Termination;
