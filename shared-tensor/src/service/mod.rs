//! Functions of one process, called by others, whose results stay where they are.
//!
//! A server builds tensors and objects, once per key, and lends them to clients in other processes,
//! which read them in place. What is lent lives until its last user lets go of it, and whoever dies
//! lets go of everything. Start from [`Provider`] and [`Server::options`], and from [`Client::at`].
//!
//! ```
//! use std::time::Duration;
//! use shared_tensor::service::{Address, Call, Client, Endpoint, KeyRule, Provider, Server, Tensor};
//!
//! let squares = |call: &Call| {
//!     let count: u32 = call.get(0, "count")?;
//!     let squares: Vec<u64> = (0..u64::from(count)).map(|number| number * number).collect();
//!     Ok(Tensor::from_slice(call.arena(), [squares.len() as u64], &squares)?)
//! };
//! let provider = Provider::new();
//! provider.register(Endpoint::new("squares", squares).parameters(["count"]).key(KeyRule::Arguments))?;
//! # let socket = std::env::temp_dir().join(format!("st-service-doc-{}", std::process::id()));
//! let server = Server::options().serve(&Address::at(&socket), &provider)?;
//!
//! // In other processes, any number of them: the first builds, all read the same memory.
//! let client = Client::at(Address::at(&socket));
//! let answer = client.call("squares", [1000], Duration::from_secs(60))?;
//! let squares: &Tensor = (&answer.value).try_into()?;
//! assert_eq!(squares.view::<u64>()?.get(&[12])?, 144); // in place: nothing was copied
//!
//! let stopped = server.stop(Duration::from_secs(1))?;
//! assert!(stopped.is_drained, "still at work: {:?}", stopped.unfinished);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | use |
//! |---|---|
//! | read and write elements by their type, in place | [`Tensor::view`], [`TensorView`]; [`Tensor::row`], [`narrow`](Tensor::narrow), [`transposed`](Tensor::transposed) for parts |
//! | get at arguments by their type | [`Call::get`], [`Call::get_or`]; `TryFrom` of a [`Value`] |
//! | have surplus arguments refused instead of ignored | [`Endpoint::parameters`] |
//! | fail | `?` on any error makes a [`Failure`], [`Failure::of`] makes one of a boxed error; [`Failure::other`] names its type |
//! | know what failed | [`Error::failure`], [`Error::code`], [`Error::is_timeout`], [`Error::is_server_lost`] |
//! | wait for the next server | [`Client::wait_for_server`] |
//! | call from the server's own process | [`Server::call`] |
//! | know when what was dropped is given back | [`Client::settle`]: it waits for the thread that gives back |
//! | bound the memory of results | [`ServerOptions::budget`], and [`Endpoint::reserve`] before they are built |
//!
//! # Who may write to a result
//!
//! | the endpoint is | clients get | a store reaches |
//! |---|---|---|
//! | neither cached nor managed | the server's memory, writable | the server and everybody who has it |
//! | cached or managed | a private view, copy-on-write | this process: nobody else, and it kills nobody |
//! | either, and [`writable`](Endpoint::writable) | the server's memory, writable | everybody |
//!
//! A private view is one per process and region: what is stored to a result is seen through every
//! other delivery of that result to the process, of whichever client, until the process has let go of
//! all that it has of the region; what comes then is as the server has it. Another result never shows
//! it, for no two share a page, unless they are views of one storage. A page that was stored to does
//! not follow the server any more. [`Storage::view_apart`] is a view of one's own.
//!
//! Arguments are the client's memory, writable for the endpoint, unless the client may only read them.
//! Memory that was first lent to readers is sealed and not lent for writing later: such a result is
//! refused with a failure that says what to declare.
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | bytes | tensors never travel in messages: a descriptor does, once per connection and region |
//! | building | once per key, whoever asks how often; those who come meanwhile wait for it, without a thread |
//! | failures | reach everybody who waits; a panic is one; nothing that cannot be delivered is kept |
//! | hits | and whatever needs no endpoint are answered while every worker is busy |
//! | leases | one per delivery of what is kept; given back when its handle and the last tensor of it are gone, or its client is; one gives back one's own only |
//! | tasks | their ends and their progress are told, not asked for; what nobody fetches goes in time |
//! | nesting | an endpoint that waits for another gives its place away: one worker is enough for any depth; of calls that wait for each other in a circle, one is refused ([`Code::Deadlock`]); a circle over tasks, other servers or threads of one's own ends by its deadlines |
//! | invalidation | beats a build in progress; disturbs no lease |
//! | a client's death | ends its leases, at the end of its connection |
//! | the server's death | clients keep what they have mapped; calls fail at once, by name ([`Error::ServerLost`]), and go to its successor when there is one; [`Client::wait_for_server`] waits for that |
//! | hostile numbers | every offset, size, stride, count and depth is checked before it is used; memory that its sender could shorten is refused |
//! | fork | a child uses what is mapped; its calls are refused, and its drops give nothing back |
//!
//! # Calls without a thread each
//!
//! [`Client::call`] waits on the calling thread. [`Client::start_call`] and its relatives return at
//! once and call back; one thread per client reads for all of them, or none:
//! [`ClientOptions::driven`] gives an event loop a [descriptor](Client::descriptor) to watch and a
//! [step](Client::drive) to take.
//!
//! # What this does not do
//!
//! - Keep values when the server ends. What clients have mapped stays; nobody finds it any more.
//! - Open an [`Object`]: its bytes are carried, its meaning is that of a layer above.
//! - Bound what clients keep: memory lives as long as anybody has its descriptor.
//! - Notice a client that is stuck: it keeps its leases.

mod client;
mod custody;
#[cfg(test)]
mod custody_model;
mod endpoint;
mod failure;
mod monitor;
mod owed;
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
pub use provider::{ENDPOINT_NAME_BYTES_MAX, Provider, RegisterError};
pub use region::{Access, Arena, Id, Place, Region, RegionError, Rights};
pub use server::{
    Local, MESSAGE_BYTES_LEAST, ServeError, Server, ServerOptions, Stopped, Unfinished,
};
pub use value::{
    BigInt, Elements, Layout, Object, OutsideRegion, RANK_MAX, Ready, Storage, StorageView, Tensor,
    TensorError, TensorView, Value, ValueError,
};
pub use wire::messages::{Invalidated, ObjectInfo, Progress, Released, TaskInfo, TaskStatus};
pub use wire::payload::{DEPTH_MAX, PackError, REGIONS_MAX, STORAGES_MAX, VALUES_MAX};
pub use wire::{DecodeError, PayloadKind};

#[doc(hidden)]
pub use region::accounting;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub use wire::probe;

/// GPUs and their memory: what [`Place::Cuda`] and [`Storage::open`] speak of.
pub use cuda_ipc as cuda;

pub(crate) use server::{HEAD_BYTES_MAX, MESSAGE_BYTES_MAX};
