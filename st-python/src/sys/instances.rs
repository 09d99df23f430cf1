//! Objects of Python classes without their constructors.
//!
//! - **I1, plain layout**: only classes whose instances `object.__new__` may make get here; CPython
//!   itself refuses others (`object_new` compares allocators only through `tp_new`, so the caller
//!   verifies that no base but `object` is a C type).

use std::ffi::c_int;
use std::mem;
use std::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};

/// Makes empty instances.
#[derive(Debug)]
pub(crate) struct Maker {
    /// `object.__new__` in C, where it can be asked for: from CPython 3.10 on.
    new: Option<ffi::newfunc>,
    /// The same for Python.
    call: Py<PyAny>,
    nothing: Py<PyTuple>,
}

impl Maker {
    pub(crate) fn new(py: Python<'_>) -> PyResult<Self> {
        let object = py.import("builtins")?.getattr("object")?.cast_into::<PyType>()?;
        let is_late = py.version_info() >= (3, 10);
        let slot = if is_late {
            // SAFETY: `object` is a type object.
            unsafe { ffi::PyType_GetSlot(object.as_type_ptr(), ffi::Py_tp_new) }
        } else {
            // Older ones know no slots of types that were not made at run time.
            ptr::null_mut()
        };
        // SAFETY: what the slot `Py_tp_new` holds is a `newfunc`, or null.
        let new = unsafe { mem::transmute::<*mut std::ffi::c_void, Option<ffi::newfunc>>(slot) };
        Ok(Self {
            new,
            call: object.getattr("__new__")?.unbind(),
            nothing: PyTuple::empty(py).unbind(),
        })
    }

    /// A new instance of `class` with nothing in it. No code of the class runs.
    pub(crate) fn make<'py>(&self, class: &Bound<'py, PyType>) -> PyResult<Bound<'py, PyAny>> {
        let py = class.py();
        let Some(new) = self.new else { return self.call.bind(py).call1((class,)) };
        // SAFETY: a type object, an empty tuple and no keywords, as for `object.__new__(class)` (I1).
        let made = unsafe { new(class.as_type_ptr(), self.nothing.as_ptr(), ptr::null_mut()) };
        // SAFETY: a new reference, or null with an exception set.
        unsafe { Bound::from_owned_ptr_or_err(py, made) }
    }
}

/// Makes `attributes` the `__dict__` of the object. No descriptor and no `__setattr__` runs.
pub(crate) fn set_dict(object: &Bound<'_, PyAny>, attributes: &Bound<'_, PyDict>) -> PyResult<()> {
    // SAFETY: valid objects; an object without `__dict__` is an error.
    let outcome: c_int = unsafe {
        ffi::PyObject_GenericSetDict(object.as_ptr(), attributes.as_ptr(), ptr::null_mut())
    };
    if outcome < 0 { Err(PyErr::fetch(object.py())) } else { Ok(()) }
}
