//! CUDA device memory shared between processes as file descriptors that outlive their maker.
//!
//! For programs that hand tensors, caches or weights on a GPU to other processes of the same host.
//! Start from [`probe`], which finds the driver or says why there is none; from [`Chunk::create`], which
//! makes memory that can be shared; and from [`Mapping::open`], which brings it to an address here.
//!
//! ```no_run
//! use cuda_ipc::{Access, Chunk, ChunkLabel, Mapping};
//! # fn send(_: ChunkLabel, _: std::os::fd::OwnedFd) {}
//! # fn receive() -> (ChunkLabel, std::os::fd::OwnedFd) { unimplemented!() }
//!
//! // One process makes memory and sends it: a label of 40 bytes, and a descriptor.
//! let device = cuda_ipc::probe()?.device_at(0)?;
//! let (label, descriptor) = Chunk::create(&device, 1 << 30)?.into_parts();
//! send(label, descriptor);
//!
//! // Any other opens it, also when the first one lives no more.
//! let (label, descriptor) = receive();
//! let device = cuda_ipc::probe()?.device(label.device())?;
//! let chunk = Chunk::from_parts(label, descriptor);
//! let mapping = Mapping::open(&device.context()?, &[&chunk], Access::Read)?;
//! println!("a gigabyte at {:#x}", mapping.address());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! | | |
//! |---|---|
//! | lifetime | memory lives until its last holder is gone: a descriptor in any process, also one without a driver, or a mapping. Whoever made it need not live. |
//! | no driver | an error that says why; nothing panics, nothing is loaded before [`probe`]. Each function that an old driver lacks is an error of its own. |
//! | contexts | made by [`Device::context`] alone, and that is the one everybody in the process shares; what is current to a thread is the same after each call |
//! | devices | are meant by [`Uuid`]; numbers are a process's own |
//! | opening | costs what the chunks cost, not their bytes; the same object twice is mapped once, from however many threads |
//! | unmapping | after everybody has let go and the streams that were [named](Mapping::used_on) are done; never in a destructor, never so that it spoils a capture |
//! | a wrong write | through memory opened for reading ends CUDA for the process that wrote, and reaches nobody; the next [error](CallError::suspects) tells what it was likely |
//! | order | [`DeviceWords`], and [`RangeWords`] in memory of others: a stream waits for another process's stream, no host does; a word that a dead writer owes can be [released](Words::release) |
//! | memory of the host | that somebody else mapped ([`HostMemory`]) is [registered](HostRange) once, kept while anything that is queued uses it, and unregistered afterwards |
//! | fork | a child of a process that uses CUDA gets an error that says so |
//!
//! # What this crate does not do
//!
//! - It does not send anything. A label and a descriptor go over whatever socket there is.
//! - It knows bytes, no tensors, and no kernels: the addresses are for those who launch them.
//! - It does not order accesses by itself: use [`DeviceWords`], or wait.
//! - It cannot defend against a process of the same user: whoever has a descriptor may map it writable.
//!
//! # After a crash
//!
//! | died | left behind |
//! |---|---|
//! | maker or holder of a chunk | the memory, if anybody else holds it; else nothing |
//! | process with a mapping | nothing |
//! | writer of a word | its word as it was: release it, once the process is [known to be gone](ProcessMark::fate) |
//!
//! # Safety
//!
//! Unsafe code is in one private module, `sys`, whose head states the invariants that each block cites.
//! The public `unsafe` items are [`Stream::from_raw`] and [`Stream::lent`], for streams that others made, and
//! [`HostMemory`], for memory that others mapped. Addresses on devices are plain numbers: a wrong one is an
//! error of the driver's, or spoils data on the device or in memory that is registered, but no other memory
//! of this process.
//!
//! # Documents
//!
//! [The design and what was rejected][design], [how it is tested][testing], [platforms][platform].
//!
//! [design]: https://github.com/shared-tensor/shared-tensor/blob/main/docs/DESIGN.md
//! [testing]: https://github.com/shared-tensor/shared-tensor/blob/main/docs/TESTING.md
//! [platform]: https://github.com/shared-tensor/shared-tensor/blob/main/docs/PLATFORM.md

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!(
    "cuda-ipc needs Linux on a 64-bit little-endian machine: it shares file descriptors"
);

/// Runs the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod chunk;
mod copies;
mod device;
mod error;
mod foreign;
mod host;
mod idle;
mod legacy;
mod mapping;
mod opened;
mod pool;
mod probe;
mod process;
mod range_words;
mod reaper;
mod references;
mod registered;
mod rooms;
mod space;
mod sync;
#[expect(unsafe_code, reason = "the driver is a C library")]
mod sys;
mod transfers;
mod uses;
mod uuid;
mod waits;
mod words;

pub use self::chunk::{Chunk, ChunkError, ChunkId, ChunkLabel};
pub use self::copies::Copies;
pub use self::device::{Capabilities, Context, Device};
pub use self::error::{Absent, CallError, DeviceError, DriverError, QueueError, lost};
pub use self::foreign::{Backing, ForeignError, InPlace, Origin, origin, share_in_place};
pub use self::host::{HostRange, RegisterError};
pub use self::legacy::LegacyHandle;
pub use self::mapping::{Access, Mapping, OpenError};
pub use self::opened::{Usage, usage};
pub use self::pool::Pool;
pub use self::probe::{Driver, Function, Version, driver_calls, is_loaded, probe};
pub use self::process::{Fate, ProcessMark};
pub use self::range_words::{Ordering, RangeWords, WordStep};
pub use self::reaper::{flush, set_linger, settle};
pub use self::rooms::{Room, Rooms};
pub use self::sys::{HostMemory, Stream, StreamId};
pub use self::uuid::{ParseUuidError, Uuid};
pub use self::waits::before_turns;
pub use self::words::{DeviceWords, Words, WordsError};
