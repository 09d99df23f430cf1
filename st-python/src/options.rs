//! What a handle is asked for, in words that Python programs use.

use std::borrow::Cow;
use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use pyo3::Borrowed;
use pyo3::exceptions::{PyAttributeError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString};
use shared_tensor::shm::Namespace;
use shared_tensor::stream::{OnAbort, OnEmpty, OnWriting, ReaderOptions, Spin, StreamOptions};
use shared_tensor::{DIMENSIONS_MAX, DType};

use crate::errors;

/// Where names lead: by default to `/dev/shm/st.`.
pub(crate) fn namespace(directory: Option<&str>, prefix: Option<&str>) -> PyResult<Namespace> {
    let default = Namespace::default();
    if directory.is_none() && prefix.is_none() {
        return Ok(default);
    }
    let directory = directory.map_or_else(|| default.directory(), Path::new);
    Namespace::new(directory, prefix.unwrap_or_else(|| default.prefix()))
        .map_err(|error| PyValueError::new_err(error.to_string()))
}

/// How reads behave.
pub(crate) fn reading(
    on_abort: &str,
    on_writing: &str,
    on_empty: &str,
    reattach: bool,
    spin: Option<f64>,
) -> PyResult<ReaderOptions> {
    let on_abort = match on_abort {
        "serve" => OnAbort::Serve,
        "raise" => OnAbort::Raise,
        other => return Err(unknown("on_abort", other, "'serve' or 'raise'")),
    };
    let on_writing = match on_writing {
        "serve" => OnWriting::Serve,
        "wait" => OnWriting::Wait,
        other => return Err(unknown("on_writing", other, "'serve' or 'wait'")),
    };
    let on_empty = match on_empty {
        "raise" => OnEmpty::Raise,
        "zeros" => OnEmpty::Zeros,
        other => return Err(unknown("on_empty", other, "'raise' or 'zeros'")),
    };
    let spin = match spin {
        None => Spin::Adaptive,
        Some(0.0) => Spin::Never,
        Some(seconds) => Spin::For(Duration::try_from_secs_f64(seconds).map_err(|_| {
            PyValueError::new_err(format!(
                "spin must be None or seconds that are not negative, got {seconds:?}"
            ))
        })?),
    };
    Ok(ReaderOptions::new()
        .on_abort(on_abort)
        .on_writing(on_writing)
        .on_empty(on_empty)
        .reattach(reattach)
        .spin(spin))
}

fn unknown(keyword: &str, given: &str, known: &str) -> PyErr {
    PyValueError::new_err(format!("{keyword} must be {known}, got '{given}'"))
}

/// What a new stream is like.
pub(crate) struct Creation<'a, 'py> {
    pub(crate) shape: Option<&'a Bound<'py, PyAny>>,
    pub(crate) dtype: Option<&'a Bound<'py, PyAny>>,
    pub(crate) slots: Option<usize>,
    pub(crate) mode: u32,
    pub(crate) group: Option<u32>,
    pub(crate) lock_memory: bool,
    pub(crate) tag: u32,
    pub(crate) mirror: bool,
}

impl Creation<'_, '_> {
    pub(crate) fn options(&self, namespace: Namespace) -> PyResult<StreamOptions> {
        let shape = self.shape.ok_or_else(|| PyTypeError::new_err("a new stream needs a shape"))?;
        let dtype = match self.dtype {
            Some(dtype) => element_type(dtype)?,
            None => DType::F32,
        };
        let mut options = StreamOptions::new(dtype, sizes(shape)?)
            .namespace(namespace)
            .mode(self.mode)
            .lock_memory(self.lock_memory)
            .mirror(self.mirror)
            .tag(self.tag);
        if let Some(slots) = self.slots {
            options = options.slots(slots);
        }
        if let Some(group) = self.group {
            options = options.group(group);
        }
        Ok(options)
    }
}

/// What a write may convert, in NumPy's words.
pub(crate) fn casting(rule: &str) -> PyResult<&str> {
    match rule {
        "no" | "equiv" | "safe" | "same_kind" | "unsafe" => Ok(rule),
        other => Err(unknown("casting", other, "'no', 'equiv', 'safe', 'same_kind' or 'unsafe'")),
    }
}

/// The name of a stream.
pub(crate) fn name<'a>(given: &'a Bound<'_, PyAny>) -> PyResult<Cow<'a, str>> {
    let text = given.cast::<PyString>().map_err(|_| not_a("name", "a str", given))?;
    text.to_cow()
}

/// An integer argument of a type of ours, for which Python's own message would speak of conversions.
#[derive(Clone, Copy)]
pub(crate) struct Whole<T>(pub(crate) T);

impl<'py, T> FromPyObject<'_, 'py> for Whole<T>
where
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr> + Bounded,
{
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        given.extract::<T>().map(Self).map_err(|error| {
            // What its own code raises is passed on.
            if !error.is_instance_of::<PyOverflowError>(given.py())
                || !given.is_exact_instance_of::<PyInt>()
            {
                return error;
            }
            PyValueError::new_err(format!(
                "expected an integer from 0 to {}, got {}",
                T::MOST,
                &*given
            ))
        })
    }
}

/// An unsigned type with its greatest value.
pub(crate) trait Bounded {
    const MOST: u64;
}

impl Bounded for u32 {
    const MOST: u64 = u32::MAX as u64;
}

impl Bounded for u64 {
    const MOST: u64 = Self::MAX;
}

impl Bounded for usize {
    const MOST: u64 = Self::MAX as u64;
}

/// An argument of a type that does not do.
#[cold]
pub(crate) fn not_a(parameter: &str, expected: &str, given: &Bound<'_, PyAny>) -> PyErr {
    let kind = given.get_type();
    let kind = kind.name().map_or_else(|_| "something else".to_owned(), |name| name.to_string());
    PyTypeError::new_err(format!("{parameter} must be {expected}, got a value of type {kind}"))
}

/// What an object gives as an index. What its own code raises is passed on; `otherwise` is raised if
/// it is no integer.
pub(crate) fn index<'py>(
    given: &Bound<'py, PyAny>,
    otherwise: impl FnOnce() -> PyErr,
) -> PyResult<Bound<'py, PyAny>> {
    let py = given.py();
    given.call_method0("__index__").map_err(|error| {
        let is_none = error.is_instance_of::<PyAttributeError>(py);
        if is_none || error.is_instance_of::<PyTypeError>(py) { otherwise() } else { error }
    })
}

/// A shape: any iterable of integers, as NumPy takes them.
fn sizes(shape: &Bound<'_, PyAny>) -> PyResult<Vec<u64>> {
    let mut sizes = Vec::new();
    let each = shape.try_iter().map_err(|_| {
        let example =
            if shape.is_instance_of::<PyInt>() { shape.to_string() } else { "4".to_owned() };
        not_a("shape", &format!("a tuple such as ({example},)"), shape)
    })?;
    for size in each {
        let size = size?;
        if sizes.len() == DIMENSIONS_MAX {
            return Err(PyValueError::new_err(format!(
                "a stream may have {DIMENSIONS_MAX} dimensions, and shape has more"
            )));
        }
        let index = index(&size, || {
            PyValueError::new_err(format!("shape must be made of integers, got {size}"))
        })?;
        sizes.push(index.extract::<u64>().map_err(|_| {
            PyValueError::new_err(format!("every dimension must be positive, got {size}"))
        })?);
    }
    Ok(sizes)
}

/// An element type by name, by a NumPy or torch type, or by anything that NumPy makes one of.
pub(crate) fn element_type(given: &Bound<'_, PyAny>) -> PyResult<DType> {
    let text = given.str()?.to_string();
    if let Ok(dtype) = DType::from_str(text.strip_prefix("torch.").unwrap_or(&text)) {
        return Ok(dtype);
    }
    let dtype = given.py().import("numpy")?.call_method1("dtype", (given,))?;
    let name: String = dtype.getattr("name")?.extract()?;
    if !dtype.getattr("isnative")?.extract::<bool>()? {
        return Err(PyValueError::new_err(format!(
            "unsupported dtype {dtype}: only the byte order of this machine can be shared, convert \
             with astype('{name}')"
        )));
    }
    DType::from_str(&name).map_err(|error| errors::raised(&error))
}
