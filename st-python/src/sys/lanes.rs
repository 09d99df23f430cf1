//! A second, quicker entry to methods that take less time than it takes to pass them their arguments.
//!
//! The bindings have arguments passed as a tuple and a dictionary, which are made for the call: their
//! way to take them from the interpreter's stack, `METH_FASTCALL`, is in the stable interface from Python
//! 3.10 on, and the wheel is for 3.9 too. Interpreters have had it since 3.7, and unchanged. A lane takes
//! the arguments that calls mostly have; whatever else comes, a mistake for one, goes to the method that
//! the bindings made, which stays the one that defines what is right.

use std::ffi::{CStr, CString, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyTypeInfo};

/// As in CPython's `methodobject.h`, where it has had this value since Python 3.7.
const METH_FASTCALL: c_int = 0x0080;

type FastCall = unsafe extern "C" fn(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject;

/// A lane of a method.
pub(crate) trait Lane {
    /// Whose method it is.
    type Of: PyTypeInfo;
    /// What the method is called.
    const NAME: &'static CStr;
    /// Its parameters, in order.
    const PARAMETERS: &'static [&'static str];

    /// Where the method is kept that the bindings made.
    fn method() -> &'static PyOnceLock<Method>;

    /// Does what the method does; `None`, before anything was done, leaves it to that.
    fn call<'py>(
        this: &Bound<'py, Self::Of>,
        given: &Given<'_, 'py>,
    ) -> Option<PyResult<Bound<'py, PyAny>>>;
}

/// Gives a lane a place of its own for its method: no static can depend on a type parameter.
macro_rules! keeps_method {
    () => {
        fn method() -> &'static pyo3::sync::PyOnceLock<$crate::sys::lanes::Method> {
            static METHOD: pyo3::sync::PyOnceLock<$crate::sys::lanes::Method> =
                pyo3::sync::PyOnceLock::new();
            &METHOD
        }
    };
}
pub(crate) use keeps_method;

/// A method as the bindings made it, and the names of its parameters as calls have them.
pub(crate) struct Method {
    made: Py<PyAny>,
    names: Vec<Py<PyString>>,
}

/// The arguments of a call.
pub(crate) struct Given<'a, 'py> {
    py: Python<'py>,
    /// Positional ones, then those with names.
    values: &'a [*mut ffi::PyObject],
    positional: usize,
    /// The names of the others, interned.
    names: &'a [Py<PyString>],
    keywords: *mut ffi::PyObject,
}

impl<'a, 'py> Given<'a, 'py> {
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The argument for each parameter; `None` if they do not fit.
    #[inline]
    pub(crate) fn each<const N: usize>(&self) -> Option<[Option<Borrowed<'a, 'py, PyAny>>; N]> {
        let mut each = [None; N];
        let (positional, named) = self.values.split_at(self.positional);
        if positional.len() > N {
            return None;
        }
        for (place, value) in each.iter_mut().zip(positional) {
            *place = Some(self.borrowed(*value));
        }
        for (index, value) in named.iter().enumerate() {
            let name = self.keyword(index);
            let at = self.names.iter().position(|known| ptr::eq(known.as_ptr(), name))?;
            let place = each.get_mut(at).filter(|place| place.is_none())?;
            *place = Some(self.borrowed(*value));
        }
        Some(each)
    }

    fn borrowed(&self, value: *mut ffi::PyObject) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: the interpreter holds the arguments during the call, which `'a` does not outlast (S7).
        unsafe { Borrowed::from_ptr(self.py, value) }
    }

    fn keyword(&self, index: usize) -> *mut ffi::PyObject {
        // SAFETY: a tuple with a name for each value behind the positional ones (S7).
        unsafe { ffi::PyTuple_GetItem(self.keywords, index.cast_signed()) }
    }

    /// The call as it came, made to the method of the bindings.
    #[cold]
    fn pass_on(&self, this: &Bound<'py, PyAny>, method: &Method) -> PyResult<Bound<'py, PyAny>> {
        let (positional, named) = self.values.split_at(self.positional);
        let mut all = Vec::with_capacity(1 + positional.len());
        all.push(this.clone());
        all.extend(positional.iter().map(|value| self.borrowed(*value).to_owned()));
        let keywords = PyDict::new(self.py);
        for (index, value) in named.iter().enumerate() {
            // SAFETY: a borrowed item of a tuple that the interpreter holds during the call (S7).
            let name = unsafe { Borrowed::from_ptr(self.py, self.keyword(index)) };
            keywords.set_item(name, self.borrowed(*value))?;
        }
        method.made.bind(self.py).call(PyTuple::new(self.py, all)?, Some(&keywords))
    }
}

/// An argument, unless it is None or was left out.
#[inline]
pub(crate) fn unless_none<'a, 'py>(
    given: Option<Borrowed<'a, 'py, PyAny>>,
) -> Option<Borrowed<'a, 'py, PyAny>> {
    given.filter(|it| !it.is_none())
}

/// Puts a lane before a method of a class. Once per process: a program that imports the module a second time,
/// having forgotten the first, gets the same classes, and they have their lanes.
pub(crate) fn open<L: Lane>(py: Python<'_>) -> PyResult<()> {
    if L::method().get(py).is_some() {
        return Ok(());
    }
    let class = py.get_type::<L::Of>();
    let name = L::NAME.to_string_lossy();
    let name = &*name;
    let names = L::PARAMETERS.iter().map(|name| PyString::intern(py, name).unbind()).collect();
    let made = class.getattr(name)?;
    let documentation = documentation(name, &made)?;
    let entry: FastCall = entry::<L>;
    let lane = method_descriptor(&class, L::NAME, documentation, entry)?;
    // Before anybody can call the lane.
    if L::method().set(py, Method { made: made.unbind(), names }).is_err() {
        return Err(PyRuntimeError::new_err(format!("{name} was given two lanes at once")));
    }
    class.setattr(name, lane)
}

/// The documentation of a method in the form in which methods of C have it.
fn documentation(name: &str, made: &Bound<'_, PyAny>) -> PyResult<CString> {
    let signature: Option<String> = made.getattr("__text_signature__")?.extract()?;
    let text: Option<String> = made.getattr("__doc__")?.extract()?;
    let text = text.unwrap_or_default();
    let whole = signature.map_or(text.clone(), |it| format!("{name}{it}\n--\n\n{text}"));
    Ok(CString::new(whole)?)
}

fn method_descriptor<'py>(
    class: &Bound<'py, PyType>,
    name: &'static CStr,
    documentation: CString,
    entry: FastCall,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a pointer to a function for another; it is called as the flags below say (S7).
    let entry = unsafe { std::mem::transmute::<FastCall, ffi::PyCFunctionWithKeywords>(entry) };
    let definition = ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionWithKeywords: entry },
        ml_flags: METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: documentation.into_raw(),
    };
    // The class refers to it for good, and lives as long as the process.
    let definition = Box::leak(Box::new(definition));
    // SAFETY: a class and a definition that lives for ever, whose flags are those of its function (S7).
    let made = unsafe { ffi::PyDescr_NewMethod(class.as_type_ptr(), definition) };
    // SAFETY: a new reference, or null with an exception set.
    unsafe { Bound::from_owned_ptr_or_err(class.py(), made) }
}

/// What the interpreter calls.
///
/// # Safety
/// As `METH_FASTCALL | METH_KEYWORDS` says: called by an attached thread, `this` of the class whose method it
/// is, `arguments` as many as `positional` and the tuple `keywords` say.
unsafe extern "C" fn entry<L: Lane>(
    this: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    positional: ffi::Py_ssize_t,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls, so this thread is attached (S7).
    let py = unsafe { Python::assume_attached() };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let positional = positional.cast_unsigned();
        let named = if keywords.is_null() {
            0
        } else {
            // SAFETY: a tuple (S7).
            unsafe { ffi::PyTuple_Size(keywords) }.cast_unsigned()
        };
        let values = match positional + named {
            0 => &[],
            // SAFETY: as many as that (S7), which nobody changes during the call.
            all => unsafe { std::slice::from_raw_parts(arguments, all) },
        };
        let Some(method) = L::method().get(py) else {
            return Err(PyRuntimeError::new_err("called before the module was complete"));
        };
        let given = Given { py, values, positional, names: &method.names, keywords };
        // SAFETY: the object whose method was called, which the interpreter holds (S7).
        let this = unsafe { Borrowed::from_ptr(py, this) };
        // SAFETY: descriptors of methods see to the class of what they are called on (S7).
        let typed = unsafe { this.cast_unchecked::<L::Of>() };
        match L::call(&typed, &given) {
            Some(outcome) => outcome,
            None => given.pass_on(&this, method),
        }
    }));
    let error = match outcome {
        Ok(Ok(value)) => return value.into_ptr(),
        Ok(Err(error)) => error,
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().copied();
            let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            let said = said.unwrap_or("a panic without words").to_owned();
            pyo3::panic::PanicException::new_err((said,))
        }
    };
    raise(py, error);
    ptr::null_mut()
}

/// Raises an error, and lets go of what making it has left.
///
/// The bindings do not know of this call. What is dropped where they believe the thread detached they keep
/// until they are entered next, which a program that only calls lanes never does: errors that it
/// catches would pile up, with all that they refer to. Lanes that succeed drop nothing of the kind again and
/// again.
#[cold]
fn raise(py: Python<'_>, error: PyErr) {
    let mut error = Some(error);
    // To be entered is to drop what was kept; an interpreter that is ending may refuse it.
    let _ = Python::try_attach(|py| error.take().map(|error| error.restore(py)));
    if let Some(error) = error {
        error.restore(py);
    }
}
