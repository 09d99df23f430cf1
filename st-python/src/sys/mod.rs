//! The only unsafe of the binding: NumPy arrays as memory, memory as NumPy arrays; beside it tensors,
//! instances and mappings for modules.
//!
//! Invariants:
//! - **S1, arrays stay**: the data of an array stays where it is as long as the array object lives
//!   and nobody resizes it, which NumPy refuses while there is another reference to it; callers hold
//!   a reference for as long as they use what is made here.
//! - **S2, flags and sizes come from NumPy**: contiguity, writability, itemsize and shape are read
//!   from the array itself right before its data is used.
//! - **S3, bytes**: the element types of streams are plain numbers, of which any bytes are a value.
//!   That another Python thread may change an array while it is copied is the caller's affair, as
//!   everywhere in NumPy; the copies themselves are made by code that the compiler cannot look into.
//! - **S4, bases**: an array over memory of ours has a base object that keeps that memory, so it
//!   lives as long as the array and every view of it.
//! - **S5, attached in truth**: code that others call when they please finds out for itself whether
//!   it may touch objects; that Rust code further up the stack was attached says nothing.
//! - **S6, streams**: numbers of streams come from torch, which destroys none that it has made. One of
//!   another library that is current in torch when a tensor comes lives as long as the tensor, and one that
//!   was named for a frame in place as long as the array: the guide asks for that. One that is named in a
//!   call exists until the call is over.
//! - **S7, calls**: the interpreter calls an entry as the flags say with which it was announced, on a thread
//!   that is attached, and holds the object, the arguments and their names until the call is over.

mod attached;
pub(crate) mod dlpack;
pub(crate) mod instances;
pub(crate) mod lanes;
mod mapping;
pub(crate) mod place;
mod torch_pool;

pub(crate) use attached::drop_now;

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, IntoRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;

use numpy::npyffi::{
    _PyArray_GET_ITEM_DATA, NPY_ARRAY_WRITEABLE, NpyTypes, PY_ARRAY_API, PyArrayObject_fields,
    get_type_object, npy_intp,
};
use numpy::{PyArrayDescr, PyArrayDescrMethods as _, PyUntypedArray, PyUntypedArrayMethods as _};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use shared_tensor::stream::{Lease, OwnedLocked, Stream};

use crate::lending::{LentFrame, MappedSlot};
use crate::pool::{Memory, Pool, PooledMemory};

/// What NumPy's headers say an array object consists of.
fn fields(array: &Bound<'_, PyUntypedArray>) -> *const PyArrayObject_fields {
    // SAFETY: the pointer leads to an array object (S1).
    unsafe { _PyArray_GET_ITEM_DATA(array.as_array_ptr().cast_const()) }
}

/// The bytes of a C-contiguous array.
///
/// `None` if it is not contiguous.
pub(crate) fn bytes_of<'a>(array: &'a Bound<'_, PyUntypedArray>) -> Option<&'a [u8]> {
    if !array.is_c_contiguous() {
        return None;
    }
    let length = array.len() * array.dtype().itemsize();
    // SAFETY: a valid array object (S1); its data pointer is a plain field.
    let data = unsafe { (*fields(array)).data };
    // SAFETY: contiguous, so that `length` bytes lie behind the pointer (S2), which is not null for
    // arrays that have elements, and streams have no others; S1, S3.
    Some(unsafe { std::slice::from_raw_parts(data.cast(), length) })
}

/// The bytes of a C-contiguous, aligned and writable array, to be overwritten.
///
/// `None` if it is not all of that.
pub(crate) fn bytes_to_fill<'a>(
    array: &'a mut Bound<'_, PyUntypedArray>,
) -> Option<&'a mut [MaybeUninit<u8>]> {
    // SAFETY: a valid array object (S1).
    let flags = unsafe { (*fields(array)).flags };
    if !array.is_c_contiguous() || !array.is_aligned() || flags & NPY_ARRAY_WRITEABLE == 0 {
        return None;
    }
    let length = array.len() * array.dtype().itemsize();
    // SAFETY: a valid array object (S1).
    let data = unsafe { (*fields(array)).data };
    // SAFETY: as in `bytes_of`, and writable (S2); the caller makes one such slice of an array at a
    // time and only has it overwritten (S3).
    Some(unsafe { std::slice::from_raw_parts_mut(data.cast(), length) })
}

/// A new C-contiguous array whose elements are not initialised.
pub(crate) fn empty_array<'py>(
    descr: &Bound<'py, PyArrayDescr>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyUntypedArray>> {
    // SAFETY: without data NumPy allocates; a null pointer is not a data pointer here.
    unsafe { make(descr, shape, ptr::null_mut(), 0) }
}

/// Memory of that many bytes, with whatever it holds; `None` if there is none to be had.
pub(crate) fn uninitialised(bytes: usize) -> Option<Memory> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).ok()?;
    // SAFETY: as many elements were reserved, and elements of this type need no initialising.
    unsafe { memory.set_len(bytes) };
    Some(memory.into_boxed_slice())
}

/// A new C-contiguous array over pooled memory, which it owns.
///
/// # Errors
/// `ValueError` if the memory has not exactly the bytes of such an array.
pub(crate) fn array_over_pooled<'py>(
    descr: &Bound<'py, PyArrayDescr>,
    shape: &[usize],
    mut memory: Memory,
    pool: &Arc<Pool>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    check_bytes(descr, shape, memory.len())?;
    let data = memory.as_mut_ptr().cast();
    let base = Bound::new(descr.py(), PooledMemory::new(memory, pool))?.into_any();
    // SAFETY: as many bytes as said, with the allocator's alignment, which is that of every number;
    // `base` owns them, and moving a box does not move what is in it.
    unsafe { array_over(descr, shape, data, true, base) }
}

/// A leased frame as a read-only array, which holds the lease.
///
/// # Errors
/// As [`array_over_pooled`].
pub(crate) fn array_over_lease<'py>(
    descr: &Bound<'py, PyArrayDescr>,
    shape: &[usize],
    lease: Lease,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    check_bytes(descr, shape, lease.len())?;
    let data = lease.as_ptr().cast_mut();
    let base = Bound::new(descr.py(), LentFrame { lease })?.into_any();
    // SAFETY: a lease has its frame at its address as long as it lives, in a slot or in a block of its
    // own; slots start on multiples of 128; the array is not writable.
    unsafe { array_over(descr, shape, data, false, base) }
}

/// Where the frame that is being written lies, and the mapping that it lies in.
pub(crate) struct OpenFrame {
    data: *mut u8,
    stream: Stream,
}

impl OpenFrame {
    /// The one that is being written under `locked`.
    ///
    /// `None` if there is none, or if it is not the lock of `stream`.
    pub(crate) fn of(locked: &mut OwnedLocked, stream: &Stream) -> Option<Self> {
        let data = locked.as_mut_ptr().filter(|_| locked.is_of(stream))?;
        Some(Self { data, stream: stream.clone() })
    }
}

/// A frame that is being written as a writable array.
///
/// # Errors
/// As [`array_over_pooled`].
pub(crate) fn array_over_open_frame<'py>(
    descr: &Bound<'py, PyArrayDescr>,
    shape: &[usize],
    frame: OpenFrame,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let OpenFrame { data, stream } = frame;
    check_bytes(descr, shape, stream.frame_bytes())?;
    let base = Bound::new(descr.py(), MappedSlot { _stream: stream })?.into_any();
    // SAFETY: the slot has the bytes of a frame, starts on a multiple of 128, and stays mapped
    // writable as long as `base` holds the stream.
    unsafe { array_over(descr, shape, data, true, base) }
}

fn check_bytes(descr: &Bound<'_, PyArrayDescr>, shape: &[usize], bytes: usize) -> PyResult<()> {
    let needed =
        shape.iter().try_fold(descr.itemsize(), |product, &size| product.checked_mul(size));
    if needed == Some(bytes) {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("{bytes} bytes are no array of {descr} and {shape:?}")))
}

/// A C-contiguous array over the memory at `data`, which `base` keeps.
///
/// # Safety
/// At `data` lie as many bytes as `shape` and `descr` say, aligned for the element type, readable
/// and, if the array is to be `writable`, writable, for as long as `base` lives.
unsafe fn array_over<'py>(
    descr: &Bound<'py, PyArrayDescr>,
    shape: &[usize],
    data: *mut u8,
    writable: bool,
    base: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let flags = if writable { NPY_ARRAY_WRITEABLE } else { 0 };
    // SAFETY: the caller's promise.
    let array = unsafe { make(descr, shape, data, flags) }?;
    let py = array.py();
    // SAFETY: a fresh array without base; the call takes over the reference that `into_ptr` gives
    // up, also when it fails (S4).
    let outcome =
        unsafe { PY_ARRAY_API.PyArray_SetBaseObject(py, array.as_array_ptr(), base.into_ptr()) };
    if outcome < 0 { Err(PyErr::fetch(py)) } else { Ok(array) }
}

/// # Safety
/// `data` is null, or as for [`array_over`].
unsafe fn make<'py>(
    descr: &Bound<'py, PyArrayDescr>,
    shape: &[usize],
    data: *mut u8,
    flags: c_int,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = descr.py();
    // At most 19, each below 2^63: checked when the stream was opened.
    let mut dimensions: Vec<npy_intp> = shape.iter().map(|&size| size.cast_signed()).collect();
    // SAFETY: NumPy was imported for `descr`.
    let kind = unsafe { get_type_object(py, NpyTypes::PyArray_Type) };
    // SAFETY: the type object is NumPy's own; the reference to the descriptor is given up to the
    // call; `dimensions` has as many entries as said; without strides NumPy computes those of a
    // C-contiguous array; the data is the caller's promise.
    let array = unsafe {
        PY_ARRAY_API.PyArray_NewFromDescr(
            py,
            kind,
            descr.clone().into_dtype_ptr(),
            c_int::try_from(dimensions.len()).unwrap_or(c_int::MAX),
            dimensions.as_mut_ptr(),
            ptr::null_mut(),
            data.cast(),
            flags,
            ptr::null_mut(),
        )
    };
    // SAFETY: a new reference, or null with an exception set.
    let array = unsafe { Bound::from_owned_ptr_or_err(py, array) }?;
    // SAFETY: `PyArray_NewFromDescr` with NumPy's own array type makes nothing else.
    Ok(unsafe { array.cast_into_unchecked() })
}

/// A descriptor that Python named. If it is not open, every call with it says so.
pub(crate) fn borrow_fd(fd: RawFd) -> BorrowedFd<'static> {
    assert!(fd >= 0, "a descriptor is not negative");
    // SAFETY: borrowed for the call that follows, like every descriptor that is passed by number: that
    // the caller does not close it meanwhile is the caller's affair.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// A descriptor that Python shall close.
pub(crate) fn into_raw(fd: OwnedFd) -> RawFd {
    fd.into_raw_fd()
}

/// Lets the C library return the pages of freed memory to the system, wherever in its heaps they lie.
///
/// Does nothing where the C library has no such call.
pub(crate) fn give_back_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks, and touches nothing but what was freed.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Work that is handed through an interface that asks for `Send`, and runs on the thread it is from.
pub(crate) struct OnThisThread<'a>(&'a mut dyn FnMut());

// SAFETY: `Python::detach` runs what it is given on the thread that calls it; nothing else gets one.
unsafe impl Send for OnThisThread<'_> {}

impl<'a> OnThisThread<'a> {
    pub(crate) fn new(work: &'a mut dyn FnMut()) -> Self {
        Self(work)
    }

    pub(crate) fn call(self) {
        (self.0)();
    }
}

/// The stream that torch knows by this number.
pub(crate) fn stream_of_torch(handle: usize) -> shared_tensor::service::cuda::Stream {
    // SAFETY: S6.
    unsafe { shared_tensor::service::cuda::Stream::from_raw(handle) }
}

/// A stream of another library that is used during a call only, in which the library has named it.
pub(crate) fn stream_of_a_call(handle: usize) -> shared_tensor::service::cuda::Stream {
    // SAFETY: S6: the library has it while it calls, or while its object is an argument.
    unsafe { shared_tensor::service::cuda::Stream::lent(handle) }
}
