//! Memory of the host that others mapped, for devices to read and write.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::device::Context;
use crate::error::{DriverError, QueueError};
use crate::mapping::Access;
use crate::reaper::{self, Reaped};
use crate::registered::{self, Registered};
use crate::sys::{self, HostMemory, Place, Stream};
use crate::uuid::Uuid;

/// Memory of the host cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Device or driver cannot reach memory of the host that others mapped.
    #[error(
        "{device} or its driver does not reach memory of the host that is registered; copy through \
         ordinary memory instead"
    )]
    Unsupported {
        /// The device of the context.
        device: Uuid,
    },
    /// There is nothing to register.
    #[error("no bytes were given; a range has at least one")]
    Empty,
    /// It is mapped for reading, and devices were to write.
    #[error("the memory is mapped for reading only; ask for Access::Read, or map it for writing")]
    ReadOnly,
    /// Its pages are registered already, and devices may only read them.
    #[error(
        "the pages {:#x}..{:#x} are registered for reading only; let go of that range first, or \
         register it for writing from the beginning", known.start, known.end
    )]
    ForReading {
        /// The pages that are registered, as addresses of this process.
        known: Range<usize>,
    },
    /// Some of its pages are registered already, and others are not.
    #[error(
        "the pages {:#x}..{:#x} overlap {:#x}..{:#x}, which are registered already; let go of that \
         range first, or register one that holds both", wanted.start, wanted.end, known.start, known.end
    )]
    Overlap {
        /// The pages that were to be registered, as addresses of this process.
        wanted: Range<usize>,
        /// Those that are.
        known: Range<usize>,
    },
    /// The driver failed.
    #[error(transparent)]
    Driver(#[from] DriverError),
}

/// Memory of the host that is registered with the driver, so that every device of this process reaches
/// it, and copies from and to it wait for nobody.
///
/// The driver registers whole pages, each once in a process. So what lies in pages that are registered
/// through this crate already shares that registration, whoever registered it and for however few of the
/// bytes; of ranges that overlap otherwise the second is refused. Pages that somebody else in the process
/// registered are refused by the driver.
///
/// A clone is another reference. After the last one is gone the pages stay registered, and the memory is
/// kept, until everything is done that this crate queued with it and what else was queued in the streams
/// of [`used_on`](Self::used_on); only then, and by a thread of this crate, are they unregistered
/// ([`flush`](crate::flush) waits for that). As the driver waits for all streams to do so, it is done while none
/// of them waits for a word by this crate. A graph in which it is captured keeps it as well. While a
/// device may come to write to it, nothing is dropped; in a forked child nothing is called.
///
/// Memory that is mapped privately is no use: a fork gives one of the two processes other pages.
///
/// ```no_run
/// use cuda_ipc::{Access, HostMemory, HostRange, RangeWords};
/// # struct Segment;
/// # impl Segment {
/// #     fn map() -> Self { Self }
/// #     fn first(&self) -> std::ptr::NonNull<u8> { unimplemented!() }
/// #     fn length(&self) -> usize { unimplemented!() }
/// # }
///
/// /// Another crate's segment, mapped while it lives.
/// struct Ours(Segment);
///
/// // SAFETY: a segment is mapped for writing until it is dropped, and reached through atomics only.
/// unsafe impl HostMemory for Ours {
///     fn start(&self) -> std::ptr::NonNull<u8> {
///         self.0.first()
///     }
///     fn bytes(&self) -> usize {
///         self.0.length()
///     }
///     fn is_writable(&self) -> bool {
///         true
///     }
/// }
///
/// let context = cuda_ipc::probe()?.device_at(0)?.context()?;
/// let stream = context.stream()?;
/// # let on_device = 0;
/// let range = HostRange::register(&context, Ours(Segment::map()), Access::ReadWrite)?;
/// let words = RangeWords::in_range(&context, &range)?;
/// words.wait(&stream, 64, 1)?; // until somebody has filled the frame
/// context.copy_from_host(&stream, on_device, (&range, 4096), 1 << 20)?;
/// words.write(&stream, 72, 1)?; // for whoever fills the next one
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HostRange {
    registered: Arc<Registered>,
    memory: Arc<dyn HostMemory>,
    access: Access,
}

impl HostRange {
    /// Registers memory, which is kept for as long as it is registered. Devices read it only, with
    /// [`Access::Read`]: this crate queues no writes, and a device and driver that know such registrations
    /// ([`read_only_registration`](crate::Capabilities::read_only_registration)) allow none. Others
    /// refuse memory that is mapped for reading.
    ///
    /// The context is used for registering; the range serves those of other devices as well.
    ///
    /// Pages that are not in memory yet are brought in, which takes its time, and are kept there.
    pub fn register(
        context: &Context,
        memory: impl HostMemory,
        access: Access,
    ) -> Result<Self, RegisterError> {
        registered::register(context, Arc::new(memory), access)
    }

    /// Another reference to what is registered. The first since there were none is made under the lock of
    /// the table.
    pub(crate) fn new(
        registered: Arc<Registered>,
        memory: Arc<dyn HostMemory>,
        access: Access,
    ) -> Self {
        registered.references.add();
        Self { registered, memory, access }
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.memory.bytes() as u64
    }

    /// What devices may do with it.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The address of the first byte for kernels in a context. Mostly it is the one of the process.
    ///
    /// Whoever uses it names the stream with [`used_on`](Self::used_on).
    pub fn address(&self, context: &Context) -> Result<u64, QueueError> {
        let place = self.place(0, self.bytes())?;
        Ok(context.within(|| self.registered.registration.device_address(place))?)
    }

    /// Says that work on the range is or will be queued in `stream` by others than this crate. While the
    /// stream is captured into a graph, the graph takes a reference.
    ///
    /// One of this crate's streams lives on with the registration; another must outlive it, as
    /// [`Stream::from_raw`] asks. Of a stream that is [lent](Stream::lent) only what is queued by now counts.
    pub fn used_on(&self, context: &Context, stream: &Stream) -> Result<(), DriverError> {
        self.used(context, stream, || Ok(()))
    }

    /// Queues something with the range.
    pub(crate) fn used(
        &self,
        context: &Context,
        stream: &Stream,
        queue: impl FnOnce() -> Result<(), DriverError>,
    ) -> Result<(), DriverError> {
        let references = &self.registered.references;
        context.within(|| references.used((context, stream), || self.clone(), queue))
    }

    pub(crate) fn memory(&self) -> &Arc<dyn HostMemory> {
        &self.memory
    }

    pub(crate) fn place(&self, offset: u64, bytes: u64) -> Result<Place, QueueError> {
        sys::place(&*self.memory, offset, bytes)
    }

    pub(crate) fn place_to_write(&self, offset: u64, bytes: u64) -> Result<Place, QueueError> {
        let place = self.place(offset, bytes)?;
        if self.access == Access::ReadWrite { Ok(place) } else { Err(QueueError::ReadOnly) }
    }
}

impl Clone for HostRange {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.registered), Arc::clone(&self.memory), self.access)
    }
}

impl Drop for HostRange {
    fn drop(&mut self) {
        if self.registered.references.remove() {
            reaper::tell(Arc::clone(&self.registered) as Arc<dyn Reaped>);
        }
    }
}

impl fmt::Debug for HostRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HostRange")
            .field("start", &self.memory.start())
            .field("bytes", &self.bytes())
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}
