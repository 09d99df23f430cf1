//! What tests need of the system and of the driver beside the crate.

use std::ffi::{c_int, c_uint, c_void};

use cuda_ipc::{Context, Stream};
use libloading::os::unix::Library;

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

/// A function of the driver that the crate does not use.
fn function<F: Copy>(symbol: &str) -> F {
    // SAFETY: the driver is loaded already.
    let library = unsafe { Library::new("libcuda.so.1") }.expect("the driver is there");
    // SAFETY: each caller gives the type of the driver's documentation.
    *unsafe { library.get::<F>(symbol.as_bytes()) }.expect("the driver has it")
}

type Handle = *mut c_void;

/// What is current to this thread.
pub(crate) fn current_context() -> usize {
    let mut context: Handle = std::ptr::null_mut();
    let get = function::<unsafe extern "C" fn(*mut Handle) -> c_uint>("cuCtxGetCurrent");
    // SAFETY: the variable is written to.
    let code = unsafe { get(&raw mut context) };
    assert_eq!(code, 0);
    context as usize
}

/// Runs `act` with the device's primary context current.
fn entered<T>(context: &Context, act: impl FnOnce() -> T) -> T {
    let mut raw: Handle = std::ptr::null_mut();
    let ordinal = c_int::try_from(context.device().ordinal()).expect("few devices");
    let retain =
        function::<unsafe extern "C" fn(*mut Handle, c_int) -> c_uint>("cuDevicePrimaryCtxRetain");
    let release = function::<unsafe extern "C" fn(c_int) -> c_uint>("cuDevicePrimaryCtxRelease_v2");
    let push = function::<unsafe extern "C" fn(Handle) -> c_uint>("cuCtxPushCurrent_v2");
    let pop = function::<unsafe extern "C" fn(*mut Handle) -> c_uint>("cuCtxPopCurrent_v2");
    // SAFETY: the variable is written to.
    assert_eq!(unsafe { retain(&raw mut raw, ordinal) }, 0);
    // SAFETY: it was retained.
    assert_eq!(unsafe { push(raw) }, 0);
    let outcome = act();
    // SAFETY: the variable is written to.
    assert_eq!(unsafe { pop(&raw mut raw) }, 0);
    // SAFETY: it was retained.
    assert_eq!(unsafe { release(ordinal) }, 0);
    outcome
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
    bytes: usize,
    handles: Vec<u64>,
}

impl Segment {
    pub(crate) fn new(context: &Context, unit: u64, count: usize) -> Self {
        #[repr(C)]
        struct Properties(c_int, c_int, c_int, c_int, usize, u64);
        #[repr(C)]
        struct Access(c_int, c_int, c_int);
        type Create = unsafe extern "C" fn(*mut u64, usize, *const Properties, u64) -> c_uint;
        type Reserve = unsafe extern "C" fn(*mut u64, usize, usize, u64, u64) -> c_uint;
        type Map = unsafe extern "C" fn(u64, usize, usize, u64, u64) -> c_uint;
        type Allow = unsafe extern "C" fn(u64, usize, *const Access, usize) -> c_uint;
        let create = function::<Create>("cuMemCreate");
        let reserve = function::<Reserve>("cuMemAddressReserve");
        let (map, allow) = (function::<Map>("cuMemMap"), function::<Allow>("cuMemSetAccess"));
        let unit = usize::try_from(unit).expect("few");
        let ordinal = c_int::try_from(context.device().ordinal()).expect("few");
        let (mut address, mut handles) = (0, Vec::new());
        // SAFETY: the variable is written to.
        assert_eq!(unsafe { reserve(&raw mut address, unit * count, 0, 0, 0) }, 0);
        for index in 0..count {
            let properties = Properties(1, 1, 1, ordinal, 0, 0);
            let mut handle = 0;
            // SAFETY: the variables are read and written to.
            assert_eq!(unsafe { create(&raw mut handle, unit, &raw const properties, 0) }, 0);
            // SAFETY: within what was reserved.
            let code = unsafe { map(address + (index * unit) as u64, unit, 0, handle, 0) };
            assert_eq!(code, 0);
            handles.push(handle);
        }
        let access = Access(1, ordinal, 3);
        // SAFETY: what was mapped, and a variable that is read.
        assert_eq!(unsafe { allow(address, unit * count, &raw const access, 1) }, 0);
        Self { address, bytes: unit * count, handles }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let unmap = function::<unsafe extern "C" fn(u64, usize) -> c_uint>("cuMemUnmap");
        let free = function::<unsafe extern "C" fn(u64, usize) -> c_uint>("cuMemAddressFree");
        let release = function::<unsafe extern "C" fn(u64) -> c_uint>("cuMemRelease");
        // SAFETY: mapped by `new`.
        unsafe { unmap(self.address, self.bytes) };
        // SAFETY: reserved by `new`.
        unsafe { free(self.address, self.bytes) };
        for handle in &self.handles {
            // SAFETY: made by `new`.
            unsafe { release(*handle) };
        }
    }
}

/// A graph that was captured.
#[derive(Debug)]
pub(crate) struct Graph(Handle);

impl Graph {
    /// Begins to capture `stream` in the mode that forbids most.
    pub(crate) fn begin(context: &Context, stream: &Stream) {
        const GLOBAL: c_uint = 0;
        let begin =
            function::<unsafe extern "C" fn(Handle, c_uint) -> c_uint>("cuStreamBeginCapture_v2");
        // SAFETY: the stream lives.
        let code = entered(context, || unsafe { begin(stream.as_raw() as Handle, GLOBAL) });
        assert_eq!(code, 0);
    }

    /// Ends it: the graph, or the code of what spoilt it.
    pub(crate) fn end(context: &Context, stream: &Stream) -> Result<Self, c_uint> {
        let end =
            function::<unsafe extern "C" fn(Handle, *mut Handle) -> c_uint>("cuStreamEndCapture");
        let mut graph = std::ptr::null_mut();
        // SAFETY: the stream lives, the variable is written to.
        let code = entered(context, || unsafe { end(stream.as_raw() as Handle, &raw mut graph) });
        if code == 0 { Ok(Self(graph)) } else { Err(code) }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let destroy = function::<unsafe extern "C" fn(Handle) -> c_uint>("cuGraphDestroy");
        // SAFETY: made by `end`, destroyed once.
        unsafe { destroy(self.0) };
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
