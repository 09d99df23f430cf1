//! What tests need of the system and of the driver beside the crate.

use std::ffi::{c_int, c_uint};

use cuda_ipc::{Context, Stream};

use self::raw::{Handle, function};

mod graph;
mod pages;
mod raw;

pub(crate) use self::graph::Graph;
pub(crate) use self::pages::Pages;
pub(crate) use self::raw::entered;

/// Runs `act` in a forked child, which exits with 0 if it returns true.
pub(crate) fn in_forked_child(act: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child runs `act` on its only thread and leaves without running destructors.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "forked");
    if child == 0 {
        let is_right = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).unwrap_or(false);
        // SAFETY: ends the child.
        unsafe { libc::_exit(c_int::from(!is_right)) };
    }
    let mut status = 0;
    // SAFETY: the status is written to.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    waited == child && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
}

/// What is current to this thread.
pub(crate) fn current_context() -> usize {
    let mut context: Handle = std::ptr::null_mut();
    let get = function::<unsafe extern "C" fn(*mut Handle) -> c_uint>("cuCtxGetCurrent");
    // SAFETY: the variable is written to.
    let code = unsafe { get(&raw mut context) };
    assert_eq!(code, 0);
    context as usize
}

/// Memory as `cudaMalloc` makes it, freed when it is dropped.
#[derive(Debug)]
pub(crate) struct Allocated {
    pub(crate) address: u64,
    context: Context,
}

impl Allocated {
    pub(crate) fn new(context: &Context, bytes: usize) -> Self {
        let allocate = function::<unsafe extern "C" fn(*mut u64, usize) -> c_uint>("cuMemAlloc_v2");
        let mut address = 0;
        // SAFETY: the variable is written to.
        let code = entered(context, || unsafe { allocate(&raw mut address, bytes) });
        assert_eq!(code, 0);
        Self { address, context: context.clone() }
    }
}

impl Drop for Allocated {
    fn drop(&mut self) {
        let free = function::<unsafe extern "C" fn(u64) -> c_uint>("cuMemFree_v2");
        // SAFETY: made by `new`, freed once.
        entered(&self.context, || unsafe { free(self.address) });
    }
}

/// Allocations that were made here, mapped one behind the other.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    unit: usize,
    ordinal: c_int,
    handles: Vec<u64>,
}

impl Segment {
    pub(crate) fn new(context: &Context, unit: u64, count: usize) -> Self {
        type Reserve = unsafe extern "C" fn(*mut u64, usize, usize, u64, u64) -> c_uint;
        let reserve = function::<Reserve>("cuMemAddressReserve");
        let unit = usize::try_from(unit).expect("few");
        let ordinal = c_int::try_from(context.device().ordinal()).expect("few");
        let mut address = 0;
        // SAFETY: the variable is written to.
        assert_eq!(unsafe { reserve(&raw mut address, unit * count, 0, 0, 0) }, 0);
        let mut made = Self { address, unit, ordinal, handles: Vec::new() };
        for index in 0..count {
            let handle = made.mapped(index);
            made.handles.push(handle);
        }
        made
    }

    /// Puts other memory in the place of one piece.
    pub(crate) fn replace(&mut self, index: usize) {
        let unmap = function::<unsafe extern "C" fn(u64, usize) -> c_uint>("cuMemUnmap");
        let release = function::<unsafe extern "C" fn(u64) -> c_uint>("cuMemRelease");
        // SAFETY: mapped by `mapped`.
        assert_eq!(unsafe { unmap(self.at(index), self.unit) }, 0);
        // SAFETY: made by `mapped`.
        assert_eq!(unsafe { release(self.handles[index]) }, 0);
        self.handles[index] = self.mapped(index);
    }

    fn at(&self, index: usize) -> u64 {
        self.address + (index * self.unit) as u64
    }

    /// Maps new memory.
    fn mapped(&self, index: usize) -> u64 {
        #[repr(C)]
        struct Properties(c_int, c_int, c_int, c_int, usize, u64);
        #[repr(C)]
        struct Access(c_int, c_int, c_int);
        type Create = unsafe extern "C" fn(*mut u64, usize, *const Properties, u64) -> c_uint;
        type Map = unsafe extern "C" fn(u64, usize, usize, u64, u64) -> c_uint;
        type Allow = unsafe extern "C" fn(u64, usize, *const Access, usize) -> c_uint;
        let create = function::<Create>("cuMemCreate");
        let (map, allow) = (function::<Map>("cuMemMap"), function::<Allow>("cuMemSetAccess"));
        let properties = Properties(1, 1, 1, self.ordinal, 0, 0);
        let mut handle = 0;
        // SAFETY: the variables are read and written to.
        assert_eq!(unsafe { create(&raw mut handle, self.unit, &raw const properties, 0) }, 0);
        // SAFETY: within what was reserved.
        assert_eq!(unsafe { map(self.at(index), self.unit, 0, handle, 0) }, 0);
        let access = Access(1, self.ordinal, 3);
        // SAFETY: what was mapped, and a variable that is read.
        assert_eq!(unsafe { allow(self.at(index), self.unit, &raw const access, 1) }, 0);
        handle
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let unmap = function::<unsafe extern "C" fn(u64, usize) -> c_uint>("cuMemUnmap");
        let free = function::<unsafe extern "C" fn(u64, usize) -> c_uint>("cuMemAddressFree");
        let release = function::<unsafe extern "C" fn(u64) -> c_uint>("cuMemRelease");
        let bytes = self.unit * self.handles.len();
        // SAFETY: mapped by `mapped`.
        unsafe { unmap(self.address, bytes) };
        // SAFETY: reserved by `new`.
        unsafe { free(self.address, bytes) };
        for handle in &self.handles {
            // SAFETY: made by `mapped`.
            unsafe { release(*handle) };
        }
    }
}

/// A stream as other libraries make theirs, for which the default stream waits.
#[derive(Debug)]
pub(crate) struct Foreign {
    stream: Stream,
    context: Context,
}

impl Foreign {
    pub(crate) fn new(context: &Context) -> Self {
        const BLOCKING: c_uint = 0;
        type Create = unsafe extern "C" fn(*mut Handle, c_uint) -> c_uint;
        let create = function::<Create>("cuStreamCreate");
        let mut raw = std::ptr::null_mut();
        // SAFETY: the variable is written to, and a context is current.
        let code = entered(context, || unsafe { create(&raw mut raw, BLOCKING) });
        assert_eq!(code, 0);
        // SAFETY: it lives as long as this value, which lends it out.
        let stream = unsafe { Stream::lent(raw as usize) };
        Self { stream, context: context.clone() }
    }

    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let destroy = function::<unsafe extern "C" fn(Handle) -> c_uint>("cuStreamDestroy_v2");
        // SAFETY: made by `new`, destroyed once.
        entered(&self.context, || unsafe { destroy(self.stream.as_raw() as Handle) });
    }
}

/// Waits for the whole context from another thread, in the mode that forbids least.
pub(crate) fn synchronize_context(context: &Context) -> c_uint {
    let synchronize = function::<unsafe extern "C" fn() -> c_uint>("cuCtxSynchronize");
    let exchange = function::<unsafe extern "C" fn(*mut c_uint) -> c_uint>(
        "cuThreadExchangeStreamCaptureMode",
    );
    std::thread::scope(|scope| {
        let wait = || {
            let mut relaxed = 2;
            // SAFETY: the variable is read and written to.
            assert_eq!(unsafe { exchange(&raw mut relaxed) }, 0);
            // SAFETY: a context is current.
            entered(context, || unsafe { synchronize() })
        };
        scope.spawn(wait).join().expect("it ends")
    })
}
