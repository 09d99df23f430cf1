//! What this crate calls of the driver. Each function may be missing: drivers differ by years.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_ulonglong, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::{
    CUcontext, CUdeviceptr, CUevent, CUgraph, CUhostFn, CUipcMemHandle, CUmemAccessDesc,
    CUmemAllocationProp, CUmemGenericAllocationHandle, CUstream, CUstreamBatchMemOpParams,
    CUuserObject, CUuuid,
};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::fork::Generation;
use crate::error::{Absent, CallError, DriverError};

/// The only name by which the driver is looked for. The toolkit ships a stub as `libcuda.so`, which
/// can be linked with and fails when it is used.
const LIBRARY: &str = "libcuda.so.1";

/// One function of the driver.
pub(crate) struct Entry<F> {
    pub(crate) symbol: &'static str,
    function: Option<F>,
    calls: AtomicU64,
}

impl<F: Copy> Entry<F> {
    fn find(library: &Library, symbol: &'static str) -> Self {
        // SAFETY: D1, the types below are those of the driver's documentation.
        let function = unsafe { library.get::<F>(symbol.as_bytes()) }.ok().map(|found| *found);
        Self { symbol, function, calls: AtomicU64::new(0) }
    }

    /// The function, to be called once now.
    pub(crate) fn get(&self) -> Result<F, DriverError> {
        let function = self.function.ok_or(DriverError::Missing { symbol: self.symbol })?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(function)
    }

    pub(crate) fn is_there(&self) -> bool {
        self.function.is_some()
    }

    /// What a code that it returned means.
    pub(crate) fn done(&self, code: c_uint) -> Result<(), CallError> {
        if code == 0 { Ok(()) } else { Err(CallError::new(self.symbol, code)) }
    }
}

macro_rules! table {
    ($($name:ident: fn($($argument:ty),* $(,)?) = $symbol:literal,)*) => {
        /// The functions, by the names under which the driver exports the versions meant here.
        pub(crate) struct Table {
            $(pub(crate) $name: Entry<unsafe extern "C" fn($($argument),*) -> c_uint>,)*
        }

        impl Table {
            fn find(library: &Library) -> Self {
                Self { $($name: Entry::find(library, $symbol),)* }
            }

            /// Each function, whether the driver has it, and how often it was called.
            pub(crate) fn entries(&self) -> Vec<(&'static str, bool, u64)> {
                vec![$((
                    self.$name.symbol,
                    self.$name.is_there(),
                    self.$name.calls.load(Ordering::Relaxed),
                ),)*]
            }
        }
    };
}

// Results are codes: an enum would be unsound for those of drivers to come. What the driver fills in
// is read as integers for the same reason.
table! {
    init: fn(c_uint) = "cuInit",
    driver_version: fn(*mut c_int) = "cuDriverGetVersion",
    error_name: fn(c_uint, *mut *const c_char) = "cuGetErrorName",
    error_text: fn(c_uint, *mut *const c_char) = "cuGetErrorString",

    device_count: fn(*mut c_int) = "cuDeviceGetCount",
    device: fn(*mut c_int, c_int) = "cuDeviceGet",
    device_name: fn(*mut c_char, c_int, c_int) = "cuDeviceGetName",
    device_uuid: fn(*mut CUuuid, c_int) = "cuDeviceGetUuid_v2",
    device_uuid_before_11_4: fn(*mut CUuuid, c_int) = "cuDeviceGetUuid",
    device_memory: fn(*mut usize, c_int) = "cuDeviceTotalMem_v2",
    device_attribute: fn(*mut c_int, c_uint, c_int) = "cuDeviceGetAttribute",
    device_can_access_peer: fn(*mut c_int, c_int, c_int) = "cuDeviceCanAccessPeer",

    primary_context_state: fn(c_int, *mut c_uint, *mut c_int) = "cuDevicePrimaryCtxGetState",
    primary_context_retain: fn(*mut CUcontext, c_int) = "cuDevicePrimaryCtxRetain",
    primary_context_release: fn(c_int) = "cuDevicePrimaryCtxRelease_v2",
    context_create: fn(*mut CUcontext, c_uint, c_int) = "cuCtxCreate_v2",
    context_destroy: fn(CUcontext) = "cuCtxDestroy_v2",
    context_current: fn(*mut CUcontext) = "cuCtxGetCurrent",
    context_push: fn(CUcontext) = "cuCtxPushCurrent_v2",
    context_pop: fn(*mut CUcontext) = "cuCtxPopCurrent_v2",
    exchange_capture_mode: fn(*mut c_uint) = "cuThreadExchangeStreamCaptureMode",

    memory_create: fn(
        *mut CUmemGenericAllocationHandle, usize, *const CUmemAllocationProp, c_ulonglong,
    ) = "cuMemCreate",
    memory_release: fn(CUmemGenericAllocationHandle) = "cuMemRelease",
    memory_export: fn(
        *mut c_void, CUmemGenericAllocationHandle, c_uint, c_ulonglong,
    ) = "cuMemExportToShareableHandle",
    memory_import: fn(
        *mut CUmemGenericAllocationHandle, *mut c_void, c_uint,
    ) = "cuMemImportFromShareableHandle",
    memory_retain: fn(*mut CUmemGenericAllocationHandle, *mut c_void) = "cuMemRetainAllocationHandle",
    memory_properties: fn(
        *mut RawProperties, CUmemGenericAllocationHandle,
    ) = "cuMemGetAllocationPropertiesFromHandle",
    memory_granularity: fn(*mut usize, *const CUmemAllocationProp, c_uint) = "cuMemGetAllocationGranularity",
    address_reserve: fn(
        *mut CUdeviceptr, usize, usize, CUdeviceptr, c_ulonglong,
    ) = "cuMemAddressReserve",
    address_free: fn(CUdeviceptr, usize) = "cuMemAddressFree",
    memory_map: fn(
        CUdeviceptr, usize, usize, CUmemGenericAllocationHandle, c_ulonglong,
    ) = "cuMemMap",
    memory_unmap: fn(CUdeviceptr, usize) = "cuMemUnmap",
    memory_access: fn(CUdeviceptr, usize, *const CUmemAccessDesc, usize) = "cuMemSetAccess",

    memory_allocate: fn(*mut CUdeviceptr, usize) = "cuMemAlloc_v2",
    memory_free: fn(CUdeviceptr) = "cuMemFree_v2",

    address_range: fn(*mut CUdeviceptr, *mut usize, CUdeviceptr) = "cuMemGetAddressRange_v2",
    pointer_attribute: fn(*mut c_void, c_uint, CUdeviceptr) = "cuPointerGetAttribute",
    ipc_handle: fn(*mut CUipcMemHandle, CUdeviceptr) = "cuIpcGetMemHandle",
    ipc_open: fn(*mut CUdeviceptr, CUipcMemHandle, c_uint) = "cuIpcOpenMemHandle_v2",
    ipc_close: fn(CUdeviceptr) = "cuIpcCloseMemHandle",

    host_register: fn(*mut c_void, usize, c_uint) = "cuMemHostRegister_v2",
    host_unregister: fn(*mut c_void) = "cuMemHostUnregister",
    host_device_address: fn(*mut CUdeviceptr, *mut c_void, c_uint) = "cuMemHostGetDevicePointer_v2",

    stream_create: fn(*mut CUstream, c_uint) = "cuStreamCreate",
    stream_destroy: fn(CUstream) = "cuStreamDestroy_v2",
    stream_synchronize: fn(CUstream) = "cuStreamSynchronize",
    stream_query: fn(CUstream) = "cuStreamQuery",
    stream_flags: fn(CUstream, *mut c_uint) = "cuStreamGetFlags",
    stream_is_capturing: fn(CUstream, *mut c_uint) = "cuStreamIsCapturing",
    stream_capture_info: fn(
        CUstream, *mut c_uint, *mut c_ulonglong, *mut CUgraph, *mut *const c_void, *mut usize,
    ) = "cuStreamGetCaptureInfo_v2",
    stream_write: fn(CUstream, CUdeviceptr, c_ulonglong, c_uint) = "cuStreamWriteValue64_v2",
    stream_wait: fn(CUstream, CUdeviceptr, c_ulonglong, c_uint) = "cuStreamWaitValue64_v2",
    stream_words: fn(
        CUstream, c_uint, *mut CUstreamBatchMemOpParams, c_uint,
    ) = "cuStreamBatchMemOp_v2",
    launch_host_function: fn(CUstream, CUhostFn, *mut c_void) = "cuLaunchHostFunc",
    stream_wait_event: fn(CUstream, CUevent, c_uint) = "cuStreamWaitEvent",
    event_create: fn(*mut CUevent, c_uint) = "cuEventCreate",
    event_record: fn(CUevent, CUstream) = "cuEventRecord",
    event_query: fn(CUevent) = "cuEventQuery",
    event_destroy: fn(CUevent) = "cuEventDestroy_v2",
    copy_on_device: fn(CUdeviceptr, CUdeviceptr, usize, CUstream) = "cuMemcpyDtoDAsync_v2",
    copy_to_device: fn(CUdeviceptr, *const c_void, usize, CUstream) = "cuMemcpyHtoDAsync_v2",
    copy_to_host: fn(*mut c_void, CUdeviceptr, usize, CUstream) = "cuMemcpyDtoHAsync_v2",
    fill: fn(CUdeviceptr, c_uchar, usize, CUstream) = "cuMemsetD8Async",
    user_object: fn(*mut CUuserObject, *mut c_void, CUhostFn, c_uint, c_uint) = "cuUserObjectCreate",
    graph_retain: fn(CUgraph, CUuserObject, c_uint, c_uint) = "cuGraphRetainUserObject",
}

/// `CUmemAllocationProp` as the driver fills it in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RawProperties {
    pub(crate) kind: c_uint,
    pub(crate) handle_types: c_uint,
    pub(crate) location_kind: c_uint,
    pub(crate) location_id: c_int,
    pub(crate) metadata: usize,
    pub(crate) flags: u64,
}

const _: () = assert!(size_of::<RawProperties>() == size_of::<CUmemAllocationProp>());

struct Loaded {
    table: Table,
    version: i32,
    generation: Generation,
    /// What the functions are code of.
    _library: Library,
}

static LOADED: OnceLock<Result<Loaded, Absent>> = OnceLock::new();

fn load() -> Result<Loaded, Absent> {
    let generation = Generation::watch().map_err(Absent::Fork)?;
    // SAFETY: D2.
    let opened = unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_LOCAL) };
    let library =
        opened.map_err(|error| Absent::Library { name: LIBRARY, reason: reason(&error) })?;
    let table = Table::find(&library);
    let missing = |error: DriverError| Absent::Unusable { reason: error.to_string() };
    let init = table.init.get().map_err(missing)?;
    let version = table.driver_version.get().map_err(missing)?;
    // SAFETY: D1.
    let code = unsafe { init(0) };
    if code != 0 {
        return Err(Absent::Init { code, name: text(&table.error_name, code) });
    }
    let mut number = 0;
    // SAFETY: D1, D3.
    let code = unsafe { version(&raw mut number) };
    if code != 0 {
        return Err(Absent::Init { code, name: text(&table.error_name, code) });
    }
    Ok(Loaded { table, version: number, generation, _library: library })
}

/// The reason without the prose round it.
fn reason(error: &libloading::Error) -> String {
    use std::error::Error as _;
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

fn loaded() -> Result<&'static Loaded, DriverError> {
    match LOADED.get_or_init(load) {
        Ok(loaded) if loaded.generation.is_current() => Ok(loaded),
        Ok(_) => Err(DriverError::Forked),
        Err(absent) => Err(DriverError::Absent(absent.clone())),
    }
}

/// The functions, in the process that loaded them.
pub(crate) fn table() -> Result<&'static Table, DriverError> {
    loaded().map(|loaded| &loaded.table)
}

/// Each function, whether the driver has it, and how often it was called; empty before it was loaded.
pub(crate) fn entries() -> Vec<(&'static str, bool, u64)> {
    match LOADED.get() {
        Some(Ok(loaded)) => loaded.table.entries(),
        _ => Vec::new(),
    }
}

/// As the driver says it: 12040 is 12.4.
pub(crate) fn version() -> Result<i32, DriverError> {
    loaded().map(|loaded| loaded.version)
}

/// Whether the driver was loaded by this crate, in this process or the one that forked it.
pub(crate) fn was_loaded() -> bool {
    LOADED.get().is_some_and(Result::is_ok)
}

/// Name and description of a code, as the driver words them.
pub(crate) fn describe(code: c_uint) -> (String, String) {
    match LOADED.get() {
        Some(Ok(loaded)) => {
            (text(&loaded.table.error_name, code), text(&loaded.table.error_text, code))
        }
        _ => (format!("error {code}"), String::new()),
    }
}

fn text(
    entry: &Entry<unsafe extern "C" fn(c_uint, *mut *const c_char) -> c_uint>,
    code: c_uint,
) -> String {
    let mut text: *const c_char = std::ptr::null();
    if let Ok(function) = entry.get() {
        // SAFETY: D1, D3.
        unsafe { function(code, &raw mut text) };
    }
    if text.is_null() {
        return format!("error {code}");
    }
    // SAFETY: the driver's own constant, ended by a zero.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
