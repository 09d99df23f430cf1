//! Streams: queues of work on a device.

use std::ffi::{c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use cudarc::driver::sys::{CUgraph, CUstream};

use super::event::Event;
use super::fork::Generation;
use super::host::{self, Place};
use super::table::table;
use crate::error::{Absent, DriverError, NOT_READY};

/// A queue of work on a device: the caller's, such as the current one of torch, or one of ours.
///
/// A null handle is the default stream of the context that is current.
#[derive(Debug)]
pub struct Stream {
    pub(super) raw: CUstream,
    life: Life,
}

/// Which stream one is: another one of the same handle, made after it was destroyed, is not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(Which);

impl StreamId {
    /// That of a stream of the caller's that lasts, by its handle.
    pub fn of_handle(handle: usize) -> Self {
        Self(Which::Lasting(handle))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Which {
    /// One of ours, by the number with which it was made.
    Made(u64),
    /// One that lasts, by its handle.
    Lasting(usize),
}

/// For how long a stream exists.
#[derive(Clone, Debug)]
enum Life {
    /// While the first is kept; the second is with those who may queue something.
    Owned(Arc<Owned>, Arc<()>),
    /// The same for who keeps it for the sake of what was queued, and asks whether more may come.
    Noted(Arc<Owned>, Weak<()>),
    /// For as long as anybody here may ask for it.
    Lasting,
    /// While the value exists, and perhaps no longer.
    Lent,
}

/// A stream that is destroyed when this is dropped.
#[derive(Debug)]
struct Owned {
    handle: usize,
    number: u64,
    made: Generation,
}

/// How many were made.
static MADE: AtomicU64 = AtomicU64::new(0);

const NON_BLOCKING: c_uint = 1;

// SAFETY: D5, and streams may be used from any thread.
unsafe impl Send for Stream {}
// SAFETY: as for `Send`.
unsafe impl Sync for Stream {}

impl Stream {
    /// The stream with a handle of the driver (`CUstream`, `cudaStream_t`), for good: torch's, say.
    ///
    /// # Safety
    ///
    /// The stream exists, and is not destroyed while this value is in use, nor before what it was named for
    /// is given back: a [`Mapping`](crate::Mapping) that was [used on](crate::Mapping::used_on) it, or a
    /// [`HostRange`](crate::HostRange) that anything was queued with. No other thread begins to capture it
    /// during a call of this crate.
    pub unsafe fn from_raw(handle: usize) -> Self {
        Self { raw: handle as CUstream, life: Life::Lasting }
    }

    /// The stream with a handle of the driver, which may be destroyed when this value is dropped: of a
    /// library that was asked for it, say. For this an event is made and recorded behind whatever is queued
    /// in it with a [`HostRange`](crate::HostRange), and [`used_on`](crate::Mapping::used_on) means what is queued
    /// in it by then.
    ///
    /// # Safety
    ///
    /// The stream exists, and is not destroyed before this value is dropped. No other thread begins to capture
    /// it during a call of this crate.
    pub unsafe fn lent(handle: usize) -> Self {
        Self { raw: handle as CUstream, life: Life::Lent }
    }

    /// The default stream of whichever context is current.
    pub fn default_of_context() -> Self {
        Self { raw: ptr::null_mut(), life: Life::Lasting }
    }

    /// Its handle.
    pub fn as_raw(&self) -> usize {
        self.raw as usize
    }

    /// Which it is, among all of its device. `None` for one that is [lent](Self::lent): nobody knows when
    /// there is another one of its handle.
    pub fn id(&self) -> Option<StreamId> {
        match &self.life {
            Life::Owned(owned, _) | Life::Noted(owned, _) => {
                Some(StreamId(Which::Made(owned.number)))
            }
            Life::Lasting => Some(StreamId(Which::Lasting(self.as_raw()))),
            Life::Lent => None,
        }
    }

    /// The same stream once more. One of ours lives on with it.
    pub(crate) fn borrowed(&self) -> Self {
        Self { raw: self.raw, life: self.life.clone() }
    }

    /// The same once more, for who queues nothing: it lives on with it, too, and is not in use by that.
    pub(crate) fn noted(&self) -> Self {
        let life = match &self.life {
            Life::Owned(owned, user) => Life::Noted(Arc::clone(owned), Arc::downgrade(user)),
            life => life.clone(),
        };
        Self { raw: self.raw, life }
    }

    /// Whether it is one of ours in which nobody can queue anything any more.
    pub(crate) fn is_nobodys(&self) -> bool {
        matches!(&self.life, Life::Noted(_, user) if user.strong_count() == 0)
    }

    /// Whether it may be gone when this value is.
    pub(crate) fn is_lent(&self) -> bool {
        matches!(self.life, Life::Lent)
    }

    /// Whether it is the default stream, in which nothing begins before all blocking streams of its
    /// context are done with what was queued earlier.
    pub(crate) fn is_default(&self) -> bool {
        const BY_NAME: usize = 1;
        self.as_raw() <= BY_NAME
    }

    /// Whether it waits for the default stream by itself, and that for it.
    pub(crate) fn is_blocking(&self) -> Result<bool, DriverError> {
        let table = table()?;
        let function = table.stream_flags.get()?;
        let mut flags: c_uint = 0;
        // SAFETY: D1, D3, D5.
        let code = unsafe { function(self.raw, &raw mut flags) };
        table.stream_flags.done(code)?;
        Ok(flags & NON_BLOCKING == 0)
    }

    /// A new one of the current context, which waits for no other stream by itself.
    pub(crate) fn create() -> Result<Self, DriverError> {
        Self::with(NON_BLOCKING)
    }

    /// A new one of the current context, for which the default stream waits.
    pub(crate) fn create_blocking() -> Result<Self, DriverError> {
        const BLOCKING: c_uint = 0;
        Self::with(BLOCKING)
    }

    fn with(flags: c_uint) -> Result<Self, DriverError> {
        let table = table()?;
        let function = table.stream_create.get()?;
        let made = Generation::watch().map_err(Absent::Fork)?;
        let mut raw = ptr::null_mut();
        // SAFETY: D1, D3.
        let code = unsafe { function(&raw mut raw, flags) };
        table.stream_create.done(code)?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let owned = Owned { handle: raw as usize, number, made };
        Ok(Self { raw, life: Life::Owned(Arc::new(owned), Arc::default()) })
    }

    /// Waits on the host until everything that is queued is done, and for the default stream also what it
    /// waits for itself.
    pub(crate) fn synchronize(&self) -> Result<(), DriverError> {
        let table = table()?;
        if self.is_default() {
            // Work, which comes after that of the blocking streams. Nothing is said of waiting alone.
            Event::create()?.record(self)?;
        }
        let function = table.stream_synchronize.get()?;
        // SAFETY: D1, D5.
        let code = unsafe { function(self.raw) };
        Ok(table.stream_synchronize.done(code)?)
    }

    /// Whether everything that is queued is done. Of the default stream this may leave out what it waits
    /// for.
    pub(crate) fn is_idle(&self) -> Result<bool, DriverError> {
        let table = table()?;
        let function = table.stream_query.get()?;
        // SAFETY: D1, D5.
        let code = unsafe { function(self.raw) };
        if code == NOT_READY {
            return Ok(false);
        }
        table.stream_query.done(code)?;
        Ok(true)
    }

    /// Whether what is queued now goes into a graph and is not run.
    pub(crate) fn is_capturing(&self) -> Result<bool, DriverError> {
        let table = table()?;
        let function = table.stream_is_capturing.get()?;
        let mut status: c_uint = 0;
        // SAFETY: D1, D3, D5.
        let code = unsafe { function(self.raw, &raw mut status) };
        table.stream_is_capturing.done(code)?;
        Ok(status != 0)
    }

    /// Queues a wait for what `event` recorded.
    pub(crate) fn wait_for(&self, event: &Event) -> Result<(), DriverError> {
        let table = table()?;
        let function = table.stream_wait_event.get()?;
        // SAFETY: D1, D5.
        let code = unsafe { function(self.raw, event.raw, 0) };
        Ok(table.stream_wait_event.done(code)?)
    }

    /// Queues a copy between addresses on devices.
    pub(crate) fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), DriverError> {
        let table = table()?;
        let function = table.copy_on_device.get()?;
        // SAFETY: D1, D5, D6.
        let code = unsafe { function(to, from, bytes, self.raw) };
        Ok(table.copy_on_device.done(code)?)
    }

    /// Queues a copy from memory of the host that is registered until it is done.
    pub(crate) fn copy_from_host(&self, to: u64, from: Place) -> Result<(), DriverError> {
        let table = table()?;
        let function = table.copy_to_device.get()?;
        // SAFETY: D1, D5, D6, D7.
        let code =
            unsafe { function(to, host::pointer(from.address).cast_const(), from.bytes, self.raw) };
        Ok(table.copy_to_device.done(code)?)
    }

    /// Queues a copy to memory of the host that is registered until it is done.
    pub(crate) fn copy_to_host(&self, to: Place, from: u64) -> Result<(), DriverError> {
        let table = table()?;
        let function = table.copy_to_host.get()?;
        // SAFETY: D1, D5, D6, D7.
        let code = unsafe { function(host::pointer(to.address), from, to.bytes, self.raw) };
        Ok(table.copy_to_host.done(code)?)
    }

    /// Queues a call of `call`. The stream is not captured: a graph would call it each time.
    pub(crate) fn call<F: FnOnce() + Send + 'static>(&self, call: F) -> Result<(), DriverError> {
        let table = table()?;
        let function = table.launch_host_function.get()?;
        let boxed = Box::into_raw(Box::new(call));
        // SAFETY: D1, D5; `called` takes the box that is given here, once.
        let code = unsafe { function(self.raw, Some(called::<F>), boxed.cast()) };
        if let Err(error) = table.launch_host_function.done(code) {
            // SAFETY: nobody took it.
            drop(unsafe { Box::from_raw(boxed) });
            return Err(error.into());
        }
        Ok(())
    }

    /// Queues setting bytes on a device.
    pub(crate) fn fill(&self, address: u64, byte: u8, bytes: usize) -> Result<(), DriverError> {
        let table = table()?;
        let function = table.fill.get()?;
        // SAFETY: D1, D5, D6.
        let code = unsafe { function(address, byte, bytes, self.raw) };
        Ok(table.fill.done(code)?)
    }

    /// Waits before a copy of ordinary memory, which waits in the driver otherwise, with a lock that other
    /// threads need to queue what this stream may be waiting for.
    fn come_to_now(&self) -> Result<(), DriverError> {
        if !self.is_default() && self.is_idle()? { Ok(()) } else { self.synchronize() }
    }

    /// Copies from the host, and waits until that is done.
    pub(crate) fn upload(&self, to: u64, from: &[u8]) -> Result<(), DriverError> {
        self.come_to_now()?;
        let table = table()?;
        let function = table.copy_to_device.get()?;
        // SAFETY: D1, D5, D6, D8.
        let code = unsafe { function(to, from.as_ptr().cast(), from.len(), self.raw) };
        table.copy_to_device.done(code)?;
        self.synchronize()
    }

    /// Copies to the host, and waits until that is done.
    pub(crate) fn download(&self, to: &mut [u8], from: u64) -> Result<(), DriverError> {
        self.come_to_now()?;
        let table = table()?;
        let function = table.copy_to_host.get()?;
        // SAFETY: D1, D5, D6, D8.
        let code = unsafe { function(to.as_mut_ptr().cast(), from, to.len(), self.raw) };
        table.copy_to_host.done(code)?;
        self.synchronize()
    }

    /// Has the graph that is being captured, if one is, keep `kept` for as long as the graph, or an
    /// executable one made from it, exists. Whether one is.
    pub(crate) fn keep_in_graph<T: Send + 'static>(
        &self,
        kept: impl FnOnce() -> T,
    ) -> Result<bool, DriverError> {
        const WITHOUT_WAITING: c_uint = 1;
        const MOVE: c_uint = 1;
        if !self.is_capturing()? {
            return Ok(false);
        }
        let table = table()?;
        let (info, create, retain) =
            (table.stream_capture_info.get()?, table.user_object.get()?, table.graph_retain.get()?);
        let (mut status, mut id, mut graph): (c_uint, u64, CUgraph) = (0, 0, ptr::null_mut());
        let none = ptr::null_mut::<*const c_void>();
        // SAFETY: D1, D3, D5; what is not asked for may be null.
        let code = unsafe {
            info(self.raw, &raw mut status, &raw mut id, &raw mut graph, none, ptr::null_mut())
        };
        table.stream_capture_info.done(code)?;
        let boxed = Box::into_raw(Box::new(kept()));
        let mut object = ptr::null_mut();
        // SAFETY: D1, D3; `let_go` takes the box that is given here, once.
        let code =
            unsafe { create(&raw mut object, boxed.cast(), Some(let_go::<T>), 1, WITHOUT_WAITING) };
        if let Err(error) = table.user_object.done(code) {
            // SAFETY: nobody took it.
            drop(unsafe { Box::from_raw(boxed) });
            return Err(error.into());
        }
        // SAFETY: D1; the graph is being captured, and takes over the one reference there is. If it
        // does not, the object stays for good, and with it what it keeps.
        let code = unsafe { retain(graph, object, 1, MOVE) };
        table.graph_retain.done(code)?;
        Ok(true)
    }
}

/// Called by the driver when nothing refers to a user object any more, on a thread of its own, where
/// the driver must not be called.
extern "C" fn let_go<T: Send>(kept: *mut c_void) {
    // SAFETY: the box that was given to the user object.
    let kept = unsafe { Box::from_raw(kept.cast::<T>()) };
    // The driver is no Rust.
    let _ = catch_unwind(AssertUnwindSafe(|| drop(kept)));
}

/// Called by the driver when a stream is so far, on a thread of its own, where the driver must not be
/// called.
extern "C" fn called<F: FnOnce()>(call: *mut c_void) {
    // SAFETY: the box that was given to the driver.
    let call = unsafe { Box::from_raw(call.cast::<F>()) };
    // The driver is no Rust.
    let _ = catch_unwind(AssertUnwindSafe(call));
}

impl Drop for Owned {
    fn drop(&mut self) {
        if !self.made.is_current() {
            return;
        }
        let Ok(table) = table() else { return };
        let Ok(function) = table.stream_destroy.get() else { return };
        // SAFETY: D1, D5.
        unsafe { function(self.handle as CUstream) };
    }
}
