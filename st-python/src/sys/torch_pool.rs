//! The functions by which torch allocates, under names that its `CUDAPluggableAllocator` looks up.

use std::ffi::{c_int, c_void};
use std::ptr;

use crate::service::torch_pool;

/// Memory of `size` bytes on a device; null if there is none.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
extern "C" fn shared_tensor_pool_allocate(
    size: isize,
    device: c_int,
    _stream: *mut c_void,
) -> *mut c_void {
    let (Ok(bytes), Ok(ordinal)) = (u64::try_from(size), usize::try_from(device)) else {
        return ptr::null_mut();
    };
    let address = torch_pool::allocate(bytes, ordinal).and_then(|it| usize::try_from(it).ok());
    // A device's address, which nobody here dereferences.
    address.map_or(ptr::null_mut(), ptr::without_provenance_mut)
}

/// Takes it back; `stream` is the one that was current when it was allocated, and may be gone by now if it
/// is another library's.
// SAFETY: nothing else has this name.
#[unsafe(no_mangle)]
extern "C" fn shared_tensor_pool_release(
    address: *mut c_void,
    _size: isize,
    device: c_int,
    stream: *mut c_void,
) {
    if let Ok(ordinal) = usize::try_from(device)
        && !address.is_null()
    {
        torch_pool::release(address.addr() as u64, ordinal, stream.addr());
    }
}
