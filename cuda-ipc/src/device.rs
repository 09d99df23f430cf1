//! Devices and their contexts.

use std::ffi::c_int;
use std::sync::Arc;

use crate::error::DriverError;
use crate::idle;
use crate::sys::{self, ContextHandle, Stream};
use crate::uuid::Uuid;

/// A device that this process sees.
#[derive(Clone, Debug)]
pub struct Device {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ordinal: c_int,
    uuid: Uuid,
    name: String,
    memory_bytes: u64,
    capabilities: Capabilities,
}

/// What a device and its driver can do, by attribute and by function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::struct_excessive_bools, reason = "each is there or not, whatever the others are")]
pub struct Capabilities {
    /// Memory as chunks that travel as descriptors: what this crate is about.
    pub chunks: bool,
    /// Memory that is mapped to addresses, which chunks need, whether or not it travels.
    pub virtual_memory: bool,
    /// Zero-copy sharing of what `cudaMalloc` made, bound to its maker's life.
    pub legacy_ipc: bool,
    /// Words that streams write and wait for, 64 bits wide.
    pub stream_words: bool,
    /// Host memory that the device reaches.
    pub host_registration: bool,
    /// Such memory that devices cannot write to, also if it is mapped for reading only.
    pub read_only_registration: bool,
}

const VIRTUAL_MEMORY: u32 = 102;
const POSIX_DESCRIPTORS: u32 = 103;
const UNIFIED_ADDRESSES: u32 = 41;
const HOST_REGISTRATION: u32 = 99;
const READ_ONLY_REGISTRATION: u32 = 113;
const STREAM_WORDS: u32 = 122;

impl Capabilities {
    fn of(ordinal: c_int) -> Result<Self, DriverError> {
        let table = sys::table()?;
        let has = |attribute| Ok::<_, DriverError>(sys::attribute(ordinal, attribute)? != 0);
        let chunks = [
            table.memory_create.is_there(),
            table.memory_release.is_there(),
            table.memory_export.is_there(),
            table.memory_import.is_there(),
            table.memory_granularity.is_there(),
            table.memory_properties.is_there(),
            table.address_reserve.is_there(),
            table.address_free.is_there(),
            table.memory_map.is_there(),
            table.memory_unmap.is_there(),
            table.memory_access.is_there(),
        ];
        let legacy = [
            table.ipc_handle.is_there(),
            table.ipc_open.is_there(),
            table.ipc_close.is_there(),
            table.address_range.is_there(),
        ];
        let words = [table.stream_write.is_there(), table.stream_wait.is_there()];
        let registration = [
            table.host_register.is_there(),
            table.host_unregister.is_there(),
            table.host_device_address.is_there(),
        ];
        let all = |functions: &[bool]| functions.iter().all(|it| *it);
        let virtual_memory = all(&chunks) && has(VIRTUAL_MEMORY)?;
        let host_registration = all(&registration) && has(HOST_REGISTRATION)?;
        Ok(Self {
            chunks: virtual_memory && has(POSIX_DESCRIPTORS)?,
            virtual_memory,
            legacy_ipc: all(&legacy) && has(UNIFIED_ADDRESSES)?,
            stream_words: all(&words) && host_registration && has(STREAM_WORDS)?,
            host_registration,
            read_only_registration: host_registration && has(READ_ONLY_REGISTRATION)?,
        })
    }
}

impl Device {
    pub(crate) fn at(ordinal: usize) -> Result<Self, DriverError> {
        let ordinal = c_int::try_from(ordinal).unwrap_or(c_int::MAX);
        Ok(Self {
            inner: Arc::new(Inner {
                ordinal,
                uuid: Uuid::from_bytes(sys::device_uuid(ordinal)?),
                name: sys::device_name(ordinal)?,
                memory_bytes: sys::device_memory(ordinal)?,
                capabilities: Capabilities::of(ordinal)?,
            }),
        })
    }

    /// Its identity.
    pub fn uuid(&self) -> Uuid {
        self.inner.uuid
    }

    /// Its number in this process, which another process may give to another device.
    pub fn ordinal(&self) -> usize {
        usize::try_from(self.inner.ordinal).unwrap_or(0)
    }

    pub(crate) fn raw_ordinal(&self) -> c_int {
        self.inner.ordinal
    }

    /// What its maker calls it.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its memory, all of it.
    pub fn memory_bytes(&self) -> u64 {
        self.inner.memory_bytes
    }

    /// What it can do.
    pub fn capabilities(&self) -> Capabilities {
        self.inner.capabilities
    }

    /// Whether it can read the memory of `other`. A device always can its own.
    pub fn can_access(&self, other: &Device) -> Result<bool, DriverError> {
        if self.inner.ordinal == other.inner.ordinal {
            return Ok(true);
        }
        sys::can_access_peer(self.inner.ordinal, other.inner.ordinal)
    }

    /// What sizes of chunks are multiples of, in bytes.
    pub fn granularity(&self) -> Result<u64, DriverError> {
        Ok(sys::granularity(self.inner.ordinal)? as u64)
    }

    /// Whether this process has a context on it, which takes some hundred megabytes of its memory.
    pub fn has_context(&self) -> Result<bool, DriverError> {
        sys::has_primary_context(self.inner.ordinal)
    }

    /// The context that everything in this process shares, torch included; made if there is none yet.
    /// Nothing else in this crate makes that one.
    pub fn context(&self) -> Result<Context, DriverError> {
        let handle = ContextHandle::retain(self.inner.ordinal)?;
        Ok(Context { device: self.clone(), handle: Arc::new(handle) })
    }
}

/// A device's primary context, or [one beside it](Context::apart), which exists while one of these does.
///
/// It is current to a thread only within a call of this crate; what was current before is so again
/// afterwards.
#[derive(Clone, Debug)]
pub struct Context {
    device: Device,
    handle: Arc<ContextHandle>,
}

impl Context {
    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A new context of the same device, for work that nothing of this process may hold up.
    ///
    /// A device takes the work of a context from a few queues, which its streams share: 8, or
    /// `CUDA_DEVICE_MAX_CONNECTIONS`, however many streams there are, and of whatever priority. When the streams that
    /// wait for something have all of them, no other stream of that context goes on. The queues of another
    /// context are others. It takes some hundred megabytes of the device's memory, and a tenth of a second.
    ///
    /// # Errors
    /// The driver's, such as that memory is short, or that the device is for one context only.
    pub fn apart(&self) -> Result<Self, DriverError> {
        let handle = ContextHandle::create(self.device.raw_ordinal())?;
        Ok(Self { device: self.device.clone(), handle: Arc::new(handle) })
    }

    /// A new stream, which waits for no other by itself.
    pub fn stream(&self) -> Result<Stream, DriverError> {
        self.within(Stream::create)
    }

    /// Waits on the host until everything that is queued in `stream` is done. For the default stream that
    /// includes what is queued in streams for which it waits by itself.
    pub fn synchronize(&self, stream: &Stream) -> Result<(), DriverError> {
        self.within(|| stream.synchronize())
    }

    /// Whether everything that is queued in `stream` is done. What goes into a graph never is.
    ///
    /// The default stream (a null handle) waits by itself for all streams that were not made otherwise,
    /// such as those of other libraries, and these for it. It is idle when they are, and with a driver that
    /// does not tell, never; they are when it has nothing to do.
    pub fn is_idle(&self, stream: &Stream) -> Result<bool, DriverError> {
        let is_idle = self.within(|| {
            // To ask a stream that is captured spoils the capture.
            let is_idle = |it: &Stream| Ok::<_, DriverError>(!it.is_capturing()? && it.is_idle()?);
            Ok(is_idle(stream)?
                && (stream.is_default()
                    || !stream.is_blocking()?
                    || is_idle(&Stream::default_of_context())?))
        })?;
        Ok(is_idle && (!stream.is_default() || idle::default_counts_others(self)))
    }

    /// Runs `act` with the context current to this thread, so that calls of this crate in it need not make it
    /// so one by one. Nothing in it makes another context current, or leaves it so.
    pub fn together<T>(&self, act: impl FnOnce() -> T) -> Result<T, DriverError> {
        let _entered = self.handle.enter()?;
        Ok(act())
    }

    pub(crate) fn within<T>(
        &self,
        act: impl FnOnce() -> Result<T, DriverError>,
    ) -> Result<T, DriverError> {
        let _entered = self.handle.enter()?;
        act()
    }
}
