//! Tensors of torch over memory of ours, by DLPack.
//!
//! Invariants, besides those of the module above:
//! - **D1, numbers**: sizes, strides and offset of what is handed over were found to lie in the memory
//!   (`shared_tensor::manifest`); the import verifies nothing.
//! - **D2, keeping**: the context of a handed-over tensor owns a share of the memory's keeper and of
//!   its numbers, and is dropped by the deleter, once, on any thread.
//! - **D3, layout**: the structures are those of DLPack 1.x (`dlpack.h`), whose layout is frozen per
//!   major version; another major version is not used.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;

use crate::modules::keep::Keep;

const MAJOR: u32 = 1;
const CPU: i32 = 1;
const CUDA: i32 = 2;

/// `DLDataType`
#[derive(Clone, Copy, Debug)]
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

#[repr(C)]
struct Device {
    kind: i32,
    id: i32,
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

fn direct<'py>(
    py: Python<'py>,
    table: NonNull<ExchangeTable>,
    view: View,
    numbers: &Arc<Numbers>,
    keep: &Keep,
) -> PyResult<Bound<'py, PyAny>> {
    let managed = Versioned {
        version: Version { major: MAJOR, minor: 0 },
        context: ptr::null_mut(),
        deleter: Some(release_versioned),
        flags: 0,
        view,
    };
    let handed =
        Box::into_raw(Box::new(Handed { managed, _numbers: numbers.clone(), _keep: keep.clone() }));
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
    const NAME: &CStr = c"dltensor";
    let managed = Legacy { view, context: ptr::null_mut(), deleter: Some(release_legacy) };
    let handed =
        Box::into_raw(Box::new(Handed { managed, _numbers: numbers.clone(), _keep: keep.clone() }));
    // SAFETY: the name is static; the pointer stays valid until the deleter is called.
    let capsule = unsafe { ffi::PyCapsule_New(handed.cast(), NAME.as_ptr(), Some(unused)) };
    // SAFETY: a new reference, or null with an exception set.
    let capsule = unsafe { Bound::from_owned_ptr_or_err(py, capsule) };
    let capsule = capsule.inspect_err(|_| {
        // SAFETY: nobody else has it.
        drop(unsafe { Box::from_raw(handed) });
    })?;
    import.bind(py).call1((capsule,))
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

unsafe extern "C" fn release_versioned(managed: *mut Versioned) {
    // SAFETY: made by `direct`, released once (D2).
    drop(unsafe { Box::from_raw(managed.cast::<Handed<Versioned>>()) });
}

unsafe extern "C" fn release_legacy(managed: *mut Legacy) {
    // SAFETY: made by `by_capsule`, released once (D2).
    drop(unsafe { Box::from_raw(managed.cast::<Handed<Legacy>>()) });
}
