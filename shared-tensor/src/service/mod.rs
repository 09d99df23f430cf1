//! Functions of one process, called by others, whose results stay where they are.
//!
//! A server builds tensors and objects, once per key, and lends them to clients in other processes,
//! who read them in place. What is lent lives until its last user lets go of it, and whoever dies
//! lets go of everything.

mod client;
mod custody;
mod endpoint;
mod failure;
mod monitor;
mod place;
mod provider;
mod reaper;
mod region;
mod server;
mod value;
mod wire;

pub use client::{
    Answer, Arguments, CallOptions, Client, ClientOptions, Error, Handle, Lease, Started,
};
pub use endpoint::{Asker, Call, Concurrency, Endpoint, Execution, KeyRule, Native, Output};
pub use failure::{Code, Failure};
pub use place::{
    Address, DEFAULT_BASE_PATH, Device, PlaceError, RUNTIME_DIRECTORY_VARIABLE, runtime_directory,
};
pub use provider::Provider;
pub use region::{
    ALIGNMENT, Access, Arena, Id, PAGE_ALIGNED_FROM, Place, Region, RegionError, Rights,
};
pub use server::{Local, ServeError, Server, ServerOptions, Stopped};
pub use value::{
    BigInt, Layout, Object, OutsideRegion, RANK_MAX, Storage, StorageView, Tensor, TensorError,
    Value,
};
pub use wire::messages::{Invalidated, ObjectInfo, Progress, Released, TaskInfo, TaskStatus};
pub use wire::payload::{DEPTH_MAX, PackError, REGIONS_MAX, STORAGES_MAX, VALUES_MAX};
pub use wire::{DecodeError, PayloadKind};

#[doc(hidden)]
pub use region::accounting;
#[doc(hidden)]
pub use wire::try_decode;

pub(crate) use server::{HEAD_BYTES_MAX, MESSAGE_BYTES_MAX};
