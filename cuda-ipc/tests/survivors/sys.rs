//! What these tests need of the driver beside the crate: kernels, and what is free.

use std::ffi::{CStr, c_uint, c_void};
use std::ptr::null_mut;

use cuda_ipc::{Context, Stream};

use self::raw::{Handle, entered, function};

#[path = "../it/sys/raw.rs"]
mod raw;

const PTX: &str = concat!(include_str!("pattern.ptx"), "\0");
const BLOCKS: c_uint = 2048;
const THREADS: c_uint = 256;

/// What is free beside this context.
pub(crate) fn free_bytes(context: &Context) -> u64 {
    let info =
        function::<unsafe extern "C" fn(*mut usize, *mut usize) -> c_uint>("cuMemGetInfo_v2");
    let (mut free, mut total) = (0, 0);
    // SAFETY: the variables are written to, and a context is current.
    let code = entered(context, || unsafe { info(&raw mut free, &raw mut total) });
    assert_eq!(code, 0);
    free as u64
}

/// The kernels of `pattern.ptx`, for the rest of this process.
#[derive(Debug)]
pub(crate) struct Kernels {
    context: Context,
    fill: Handle,
    check: Handle,
}

impl Kernels {
    /// Has the driver compile them; the error is its code.
    pub(crate) fn load(context: &Context) -> Result<Self, c_uint> {
        type Load = unsafe extern "C" fn(*mut Handle, *const c_void) -> c_uint;
        type Get = unsafe extern "C" fn(*mut Handle, Handle, *const std::ffi::c_char) -> c_uint;
        let (load, get) =
            (function::<Load>("cuModuleLoadData"), function::<Get>("cuModuleGetFunction"));
        entered(context, || {
            let mut module = null_mut();
            // SAFETY: the text ends with a zero, and the variable is written to.
            let code = unsafe { load(&raw mut module, PTX.as_ptr().cast()) };
            if code != 0 {
                return Err(code);
            }
            let kernel = |name: &CStr| {
                let mut found = null_mut();
                // SAFETY: the module was loaded, and the variable is written to.
                let code = unsafe { get(&raw mut found, module, name.as_ptr()) };
                if code == 0 { Ok(found) } else { Err(code) }
            };
            Ok(Self { context: context.clone(), fill: kernel(c"fill")?, check: kernel(c"check")? })
        })
    }

    /// Queues writing words: where, how many, and the seed.
    pub(crate) fn fill(&self, stream: &Stream, arguments: [u64; 3]) {
        self.launch(self.fill, stream, arguments);
    }

    /// Queues comparing words: where, how many, the seed, and where to count.
    pub(crate) fn check(&self, stream: &Stream, arguments: [u64; 4]) {
        self.launch(self.check, stream, arguments);
    }

    fn launch<const N: usize>(&self, kernel: Handle, stream: &Stream, mut arguments: [u64; N]) {
        type Launch = unsafe extern "C" fn(
            Handle,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            c_uint,
            Handle,
            *mut Handle,
            *mut Handle,
        ) -> c_uint;
        let launch = function::<Launch>("cuLaunchKernel");
        let mut places = arguments.each_mut().map(|it| std::ptr::from_mut(it).cast::<c_void>());
        let stream = stream.as_raw() as Handle;
        // SAFETY: as many arguments of 64 bits as the kernel has, which are read before it returns.
        let code = entered(&self.context, || unsafe {
            launch(kernel, BLOCKS, 1, 1, THREADS, 1, 1, 0, stream, places.as_mut_ptr(), null_mut())
        });
        assert_eq!(code, 0, "launched");
    }
}
