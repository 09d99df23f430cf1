//! Tensors of torch over memory of ours, and memory of other libraries' tensors, by DLPack.
//!
//! Invariants, besides those of the module above:
//! - **D1, numbers**: sizes, strides and offset of what is handed over were found to lie in the memory
//!   (`shared_tensor::manifest`); the import verifies nothing.
//! - **D2, keeping**: the context of a handed-over tensor owns a share of the memory's keeper and of
//!   its numbers, and is dropped by the deleter, once, on any thread.
//! - **D3, layout**: the structures are those of DLPack 1.x (`dlpack.h`), whose layout is frozen per
//!   major version; another major version is not used.
//! - **D4, looking**: what a tensor or a capsule tells of itself is copied out before anything else may run,
//!   so that nothing of theirs is pointed to later. The address is good for as long as callers keep the
//!   object, as libraries promise.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use pyo3::exceptions::{PyBufferError, PyRuntimeError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::modules::keep::Keep;

const MAJOR: u32 = 1;
const CPU: i32 = 1;
pub(crate) const CUDA: i32 = 2;
/// `DLPACK_FLAG_BITMASK_READ_ONLY`
const READ_ONLY: u64 = 1;
/// More dimensions than any library has.
const DIMENSIONS_MAX: i32 = 64;

/// `DLDataType`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct DataType {
    pub(crate) code: u8,
    pub(crate) bits: u8,
    pub(crate) lanes: u16,
}

#[repr(C)]
struct Version {
    major: u32,
    minor: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Device {
    pub(crate) kind: i32,
    pub(crate) id: i32,
}

/// `DLTensor`
#[repr(C)]
struct View {
    data: *mut c_void,
    device: Device,
    dimensions: i32,
    data_type: DataType,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensorVersioned`
#[repr(C)]
struct Versioned {
    version: Version,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    view: View,
}

/// `DLManagedTensor`
#[repr(C)]
struct Legacy {
    view: View,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Legacy)>,
}

/// `DLPackExchangeAPI`
#[repr(C)]
struct ExchangeApi {
    version: Version,
    previous: *const c_void,
    allocate: *const c_void,
    from_object: *const c_void,
    to_object: unsafe extern "C" fn(*mut Versioned, *mut *mut c_void) -> c_int,
    look: Option<unsafe extern "C" fn(*mut c_void, *mut View) -> c_int>,
    current_stream: Option<unsafe extern "C" fn(i32, i32, *mut *mut c_void) -> c_int>,
}

/// What a tensor was like when it was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) address: u64,
    pub(crate) device: Device,
    pub(crate) data_type: DataType,
    pub(crate) shape: SmallVec<[i64; 6]>,
    /// Empty for dense tensors of libraries that then say nothing.
    pub(crate) strides: SmallVec<[i64; 6]>,
    pub(crate) is_read_only: bool,
}

impl Seen {
    /// # Safety
    /// As D4: sizes and strides are there, as many as `view` says.
    unsafe fn of(view: &View, is_read_only: bool) -> PyResult<Self> {
        let Some(dimensions) = usize::try_from(view.dimensions).ok() else {
            return Err(PyBufferError::new_err("a tensor with a negative number of dimensions"));
        };
        if view.dimensions > DIMENSIONS_MAX {
            return Err(PyBufferError::new_err(format!("a tensor of {dimensions} dimensions")));
        }
        let numbers = |from: *mut i64| {
            if from.is_null() || dimensions == 0 {
                return SmallVec::new();
            }
            // SAFETY: the caller's promise.
            SmallVec::from_slice(unsafe { std::slice::from_raw_parts(from, dimensions) })
        };
        Ok(Self {
            address: (view.data as u64).wrapping_add(view.byte_offset),
            device: view.device,
            data_type: view.data_type,
            shape: numbers(view.shape),
            strides: numbers(view.strides),
            is_read_only,
        })
    }

    /// Whether its elements lie side by side in the order of C.
    pub(crate) fn is_dense(&self) -> bool {
        if self.strides.is_empty() {
            return true;
        }
        let mut expected = 1_i64;
        for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if size != 1 && stride != expected {
                return false;
            }
            expected = expected.wrapping_mul(size);
        }
        true
    }
}

/// What a handed-over tensor holds on to (D2). The structure that torch knows comes first.
#[repr(C)]
struct Handed<T> {
    managed: T,
    _numbers: Arc<Numbers>,
    _keep: Keep,
}

/// Sizes and strides of a tensor, in elements.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// The sizes, then the strides.
    both: Box<[i64]>,
}

impl Numbers {
    pub(crate) fn new(shape: &[u64], strides: &[u64]) -> Self {
        let both = shape.iter().chain(strides).map(|number| number.cast_signed()).collect();
        Self { both }
    }

    fn dimensions(&self) -> usize {
        self.both.len() / 2
    }

    pub(crate) fn shape(&self) -> &[i64] {
        &self.both[..self.dimensions()]
    }

    pub(crate) fn strides(&self) -> &[i64] {
        &self.both[self.dimensions()..]
    }

    /// Bytes up to the end of the last element of `item` bytes; `None` for numbers out of range, that of
    /// all elements among them, and their bytes.
    pub(crate) fn needed_bytes(&self, item: usize) -> Option<usize> {
        let mut last = 0_usize;
        let mut elements = 1_usize;
        let mut is_empty = false;
        for (&size, &stride) in self.shape().iter().zip(self.strides()) {
            let (size, stride) = (usize::try_from(size).ok()?, usize::try_from(stride).ok()?);
            is_empty |= size == 0;
            // Torch multiplies sizes in any order, also those beside a zero.
            elements = elements.checked_mul(size.max(1))?;
            last = last.checked_add(size.saturating_sub(1).checked_mul(stride)?)?;
        }
        isize::try_from(elements.checked_mul(item)?).ok()?;
        if is_empty { Some(0) } else { last.checked_add(1)?.checked_mul(item) }
    }
}

/// How tensors are handed to torch.
#[derive(Debug)]
pub(crate) enum Exchange {
    /// By torch's own function, without a capsule between.
    Direct(NonNull<ExchangeTable>),
    /// By a capsule and this function, in releases before 2.10.
    Capsule(Py<PyAny>),
}

/// An opaque name for torch's table of functions.
#[derive(Debug)]
pub(crate) struct ExchangeTable(());

// SAFETY: the table is constant and lives as long as torch, which is never unloaded.
unsafe impl Send for Exchange {}
// SAFETY: as for `Send`.
unsafe impl Sync for Exchange {}

impl Exchange {
    /// What a tensor is like; `None` if torch has no function for that. For objects of torch's own classes
    /// only.
    pub(crate) fn look(&self, tensor: &Bound<'_, PyAny>) -> PyResult<Option<Seen>> {
        let Self::Direct(table) = self else { return Ok(None) };
        // SAFETY: the table was verified when the exchange was made (D3).
        let Some(look) = (unsafe { (*table.cast::<ExchangeApi>().as_ptr()).look }) else {
            return Ok(None);
        };
        let mut view = View::none();
        // SAFETY: the interpreter is attached; a valid object, and room for what is told.
        let outcome = unsafe { look(tensor.as_ptr().cast(), &raw mut view) };
        if outcome != 0 {
            return Err(failure(tensor.py(), "torch did not say where a tensor is"));
        }
        // SAFETY: nothing has run since (D4).
        unsafe { Seen::of(&view, false) }.map(Some)
    }

    /// The handle of torch's current stream of a GPU; `None` if torch has no function for that.
    pub(crate) fn current_stream(&self, py: Python<'_>, gpu: i32) -> PyResult<Option<usize>> {
        let Self::Direct(table) = self else { return Ok(None) };
        // SAFETY: the table was verified when the exchange was made (D3).
        let current = unsafe { (*table.cast::<ExchangeApi>().as_ptr()).current_stream };
        let Some(current) = current else { return Ok(None) };
        let mut stream: *mut c_void = ptr::null_mut();
        // SAFETY: the interpreter is attached; room for what is told.
        let outcome = unsafe { current(CUDA, gpu, &raw mut stream) };
        if outcome != 0 {
            return Err(failure(py, "torch did not say which stream is current"));
        }
        Ok(Some(stream as usize))
    }

    /// Through the table in `capsule`, or through `import`, a function that takes a capsule.
    pub(crate) fn new(
        capsule: Option<&Bound<'_, PyAny>>,
        import: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        const NAME: &CStr = c"dlpack_exchange_api";
        if let Some(capsule) = capsule {
            // SAFETY: a valid object; anything that is no such capsule is an error.
            let table = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), NAME.as_ptr()) };
            let Some(table) = NonNull::new(table) else {
                return Err(PyErr::fetch(capsule.py()));
            };
            let table = table.cast::<ExchangeApi>();
            // SAFETY: a capsule of this name holds such a table; the version stands first in all of
            // them (D3).
            let major = unsafe { (*table.as_ptr()).version.major };
            if major == MAJOR {
                return Ok(Self::Direct(table.cast()));
            }
        }
        Ok(Self::Capsule(import.clone().unbind()))
    }

    /// A tensor over the memory at `data`, of the GPU with this number or of the host.
    ///
    /// # Safety
    /// For as long as `keep` lives, all elements that `numbers` and `data_type` describe from `data`
    /// on lie in memory that is readable and may be written there, and `data` is aligned for them (D1).
    pub(crate) unsafe fn tensor<'py>(
        &self,
        py: Python<'py>,
        data: *mut u8,
        gpu: Option<i32>,
        data_type: DataType,
        numbers: &Arc<Numbers>,
        keep: &Keep,
    ) -> PyResult<Bound<'py, PyAny>> {
        let view = View {
            data: data.cast(),
            device: gpu.map_or(Device { kind: CPU, id: 0 }, |id| Device { kind: CUDA, id }),
            dimensions: i32::try_from(numbers.dimensions()).unwrap_or(i32::MAX),
            data_type,
            // The numbers are only read, and live as long as the context (D2).
            shape: numbers.shape().as_ptr().cast_mut(),
            strides: numbers.strides().as_ptr().cast_mut(),
            byte_offset: 0,
        };
        match self {
            Self::Direct(table) => direct(py, *table, view, numbers, keep),
            Self::Capsule(import) => by_capsule(py, import, view, numbers, keep),
        }
    }
}

impl View {
    fn none() -> Self {
        Self {
            data: ptr::null_mut(),
            device: Device { kind: 0, id: 0 },
            dimensions: 0,
            data_type: DataType { code: 0, bits: 0, lanes: 0 },
            shape: ptr::null_mut(),
            strides: ptr::null_mut(),
            byte_offset: 0,
        }
    }
}

#[cold]
fn failure(py: Python<'_>, otherwise: &'static str) -> PyErr {
    PyErr::take(py).unwrap_or_else(|| PyRuntimeError::new_err(otherwise))
}

/// What the tensor in a capsule of another library is like. The capsule keeps it, and stays as it is: it
/// lets go of the tensor when it is dropped itself.
pub(crate) fn look_into(capsule: &Bound<'_, PyAny>) -> PyResult<Seen> {
    const LEGACY: &CStr = c"dltensor";
    const VERSIONED: &CStr = c"dltensor_versioned";
    // SAFETY: a valid object; anything that is no such capsule is told from it.
    if unsafe { ffi::PyCapsule_IsValid(capsule.as_ptr(), VERSIONED.as_ptr()) } != 0 {
        // SAFETY: valid, as was just found.
        let found = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), VERSIONED.as_ptr()) };
        let found = found.cast::<Versioned>();
        // SAFETY: the version stands first whatever it is, and the structure is that of ours (D3).
        let major = unsafe { (*found).version.major };
        if major != MAJOR {
            return Err(PyBufferError::new_err(format!("DLPack {major} is not known here")));
        }
        // SAFETY: as above; the capsule keeps it.
        let found = unsafe { &*found };
        // SAFETY: as the capsule's library says (D4).
        return unsafe { Seen::of(&found.view, found.flags & READ_ONLY != 0) };
    }
    // SAFETY: as above.
    if unsafe { ffi::PyCapsule_IsValid(capsule.as_ptr(), LEGACY.as_ptr()) } != 0 {
        // SAFETY: valid, as was just found.
        let found = unsafe { ffi::PyCapsule_GetPointer(capsule.as_ptr(), LEGACY.as_ptr()) };
        // SAFETY: the capsule keeps it (D3).
        let found = unsafe { &*found.cast::<Legacy>() };
        // SAFETY: as the capsule's library says (D4).
        return unsafe { Seen::of(&found.view, false) };
    }
    Err(PyTypeError::new_err(format!(
        "__dlpack__() gave a value of type {}, which is no capsule with a tensor",
        capsule.get_type().name()?
    )))
}

/// A capsule over memory of a GPU, for whoever imports it; versioned ones can say that it is to be read only.
///
/// # Safety
/// As [`Exchange::tensor`].
pub(crate) unsafe fn capsule_over<'py>(
    py: Python<'py>,
    data: *mut u8,
    gpu: i32,
    data_type: DataType,
    numbers: &Arc<Numbers>,
    keep: &Keep,
    is_versioned: bool,
) -> PyResult<Bound<'py, PyAny>> {
    const NAME: &CStr = c"dltensor_versioned";
    let view = View {
        data: data.cast(),
        device: Device { kind: CUDA, id: gpu },
        dimensions: i32::try_from(numbers.dimensions()).unwrap_or(i32::MAX),
        data_type,
        // The numbers are only read, and live as long as the context (D2).
        shape: numbers.shape().as_ptr().cast_mut(),
        strides: numbers.strides().as_ptr().cast_mut(),
        byte_offset: 0,
    };
    if !is_versioned {
        return legacy_capsule(py, view, numbers, keep);
    }
    let handed = Box::into_raw(Box::new(versioned(view, numbers, keep)));
    // SAFETY: the name is static; the pointer stays valid until the deleter is called.
    let capsule =
        unsafe { ffi::PyCapsule_New(handed.cast(), NAME.as_ptr(), Some(unused_versioned)) };
    // SAFETY: a new reference, or null with an exception set.
    let capsule = unsafe { Bound::from_owned_ptr_or_err(py, capsule) };
    capsule.inspect_err(|_| {
        // SAFETY: nobody else has it.
        drop(unsafe { Box::from_raw(handed) });
    })
}

fn versioned(view: View, numbers: &Arc<Numbers>, keep: &Keep) -> Handed<Versioned> {
    let managed = Versioned {
        version: Version { major: MAJOR, minor: 0 },
        context: ptr::null_mut(),
        deleter: Some(release_versioned),
        flags: 0,
        view,
    };
    Handed { managed, _numbers: numbers.clone(), _keep: keep.clone() }
}

fn direct<'py>(
    py: Python<'py>,
    table: NonNull<ExchangeTable>,
    view: View,
    numbers: &Arc<Numbers>,
    keep: &Keep,
) -> PyResult<Bound<'py, PyAny>> {
    let handed = Box::into_raw(Box::new(versioned(view, numbers, keep)));
    // SAFETY: the table was verified when the exchange was made (D3).
    let to_object = unsafe { (*table.cast::<ExchangeApi>().as_ptr()).to_object };
    let mut object: *mut c_void = ptr::null_mut();
    // SAFETY: the interpreter is attached; ownership of the tensor goes over (D2), whose structure
    // stands first.
    let outcome = unsafe { to_object(handed.cast(), &raw mut object) };
    if outcome != 0 || object.is_null() {
        // Whether torch took the tensor over is not known: a leak is better than a second release.
        return Err(PyErr::take(py)
            .unwrap_or_else(|| PyRuntimeError::new_err("torch did not take a tensor over")));
    }
    // SAFETY: a new reference to a tensor.
    Ok(unsafe { Bound::from_owned_ptr(py, object.cast()) })
}

fn by_capsule<'py>(
    py: Python<'py>,
    import: &Py<PyAny>,
    view: View,
    numbers: &Arc<Numbers>,
    keep: &Keep,
) -> PyResult<Bound<'py, PyAny>> {
    import.bind(py).call1((legacy_capsule(py, view, numbers, keep)?,))
}

fn legacy_capsule<'py>(
    py: Python<'py>,
    view: View,
    numbers: &Arc<Numbers>,
    keep: &Keep,
) -> PyResult<Bound<'py, PyAny>> {
    const NAME: &CStr = c"dltensor";
    let managed = Legacy { view, context: ptr::null_mut(), deleter: Some(release_legacy) };
    let handed =
        Box::into_raw(Box::new(Handed { managed, _numbers: numbers.clone(), _keep: keep.clone() }));
    // SAFETY: the name is static; the pointer stays valid until the deleter is called.
    let capsule = unsafe { ffi::PyCapsule_New(handed.cast(), NAME.as_ptr(), Some(unused)) };
    // SAFETY: a new reference, or null with an exception set.
    let capsule = unsafe { Bound::from_owned_ptr_or_err(py, capsule) };
    capsule.inspect_err(|_| {
        // SAFETY: nobody else has it.
        drop(unsafe { Box::from_raw(handed) });
    })
}

/// The destructor of a capsule that nobody took the tensor from: torch renames those that it takes.
unsafe extern "C" fn unused(capsule: *mut ffi::PyObject) {
    // SAFETY: called by Python with the capsule.
    let taken = unsafe { ffi::PyCapsule_IsValid(capsule, c"dltensor".as_ptr()) } == 0;
    if taken {
        return;
    }
    // SAFETY: valid, as was just found.
    let handed = unsafe { ffi::PyCapsule_GetPointer(capsule, c"dltensor".as_ptr()) };
    // SAFETY: made by `by_capsule` and not taken over by anybody (D2).
    drop(unsafe { Box::from_raw(handed.cast::<Handed<Legacy>>()) });
}

/// As [`unused`], of versioned capsules.
unsafe extern "C" fn unused_versioned(capsule: *mut ffi::PyObject) {
    const NAME: &CStr = c"dltensor_versioned";
    // SAFETY: called by Python with the capsule.
    if unsafe { ffi::PyCapsule_IsValid(capsule, NAME.as_ptr()) } == 0 {
        return;
    }
    // SAFETY: valid, as was just found.
    let handed = unsafe { ffi::PyCapsule_GetPointer(capsule, NAME.as_ptr()) };
    // SAFETY: made by `capsule_over` and not taken over by anybody (D2).
    drop(unsafe { Box::from_raw(handed.cast::<Handed<Versioned>>()) });
}

unsafe extern "C" fn release_versioned(managed: *mut Versioned) {
    // SAFETY: made by `direct`, released once (D2).
    drop(unsafe { Box::from_raw(managed.cast::<Handed<Versioned>>()) });
}

unsafe extern "C" fn release_legacy(managed: *mut Legacy) {
    // SAFETY: made by `by_capsule`, released once (D2).
    drop(unsafe { Box::from_raw(managed.cast::<Handed<Legacy>>()) });
}
