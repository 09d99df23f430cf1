//! The only module with `unsafe` code. Everything it exports is safe to call, but what says `unsafe`.
//!
//! - **D1** The types of the table are those of the driver's documentation, the same from driver 11.8
//!   on; functions are called while the library is loaded, which is for good.
//! - **D2** Loading the driver runs its initialisers, which are made for that.
//! - **D3** Pointers that a function fills lead to variables of the size that it fills, and what it
//!   reads is initialised.
//! - **D4** The fork handler touches one atomic and nothing else.
//! - **D5** Handles and addresses of allocations, contexts, streams and events come from the driver, belong to one
//!   value here, and are given back once, when it is dropped, in the process that made them.
//! - **D6** An address range is reserved by its [`Reservation`], maps whole allocations that the
//!   reservation keeps, and is unmapped only as a whole, before it is freed. Addresses on devices are
//!   numbers here: nothing dereferences them, and the driver answers for those it does not know.
//! - **D7** Memory of the host that devices reach is mapped by its [`HostMemory`], which is kept for as
//!   long as it is registered, or borrowed; this crate touches it through atomics only, and registers no
//!   page twice. It is unregistered when all is done that was queued with it.
//! - **D8** Host memory that the device copies from or to is borrowed until the copy is over.

mod context;
mod event;
mod fork;
mod host;
mod legacy;
mod linear;
mod memory;
mod pages;
mod pointer;
mod query;
mod reservation;
mod stream;
mod table;
mod words;

pub(crate) use self::context::ContextHandle;
pub(crate) use self::event::Event;
pub(crate) use self::fork::Generation;
pub use self::host::HostMemory;
pub(crate) use self::host::{
    Place, Registration, check_word, load, pages_of, place, word_to_write,
};
pub(crate) use self::legacy::{LegacyMapping, legacy_handle};
pub(crate) use self::linear::Linear;
pub(crate) use self::memory::{Allocation, granularity};
pub(crate) use self::pages::Pages;
pub(crate) use self::pointer::{Kind, address_range, pointer};
pub(crate) use self::query::{
    attribute, can_access_peer, device_count, device_memory, device_name, device_uuid,
    has_primary_context,
};
pub(crate) use self::reservation::Reservation;
pub use self::stream::{Stream, StreamId};
pub(crate) use self::table::{describe, entries, table, version, was_loaded};
pub(crate) use self::words::WordCall;
