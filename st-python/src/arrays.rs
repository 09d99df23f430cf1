//! NumPy arrays in and out. NumPy is imported when the first array is asked for.

use std::fmt::Display;
use std::mem::MaybeUninit;
use std::sync::Arc;

use numpy::{PyArrayDescr, PyArrayDescrMethods as _, PyUntypedArray, PyUntypedArrayMethods as _};
use pyo3::exceptions::{PyImportError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyInt};
use shared_tensor::DType;
use shared_tensor::stream::{Lease, Stream};

use crate::options;
use crate::pool::{self, Pool};
use crate::sys::{self, OpenFrame};
use crate::torch_frames;

/// What the arrays of one stream are like.
pub(crate) struct Frames {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: usize,
    casting: String,
    /// Named where an argument does not fit.
    creator: u32,
    descr: PyOnceLock<Py<PyArrayDescr>>,
    pool: Arc<Pool>,
}

/// An argument as an array that can be copied from.
pub(crate) struct Input<'py>(Bound<'py, PyUntypedArray>);

impl Input<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        // Made contiguous on the way here.
        sys::bytes_of(&self.0).unwrap_or_default()
    }
}

/// An array to be filled with a frame.
pub(crate) struct Output<'py>(Bound<'py, PyUntypedArray>);

impl<'py> Output<'py> {
    pub(crate) fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        // Checked on the way here.
        sys::bytes_to_fill(&mut self.0).unwrap_or_default()
    }

    pub(crate) fn into_any(self) -> Bound<'py, PyAny> {
        self.0.into_any()
    }
}

impl Frames {
    pub(crate) fn new(stream: &Stream, casting: String) -> Self {
        Self {
            name: stream.name().to_owned(),
            dtype: stream.dtype(),
            shape: dimensions(stream),
            bytes: stream.frame_bytes(),
            casting,
            creator: stream.creator().pid,
            descr: PyOnceLock::new(),
            pool: Arc::default(),
        }
    }

    pub(crate) fn dtype(&self) -> DType {
        self.dtype
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Looks the element type up now, see [`prepare`].
    pub(crate) fn prepare(&self, py: Python<'_>) {
        let _ = self.descr(py);
    }

    /// NumPy's descriptor of the element type.
    fn descr<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyArrayDescr>> {
        let descr = self.descr.get_or_try_init(py, || {
            check_numpy(py)?;
            match PyArrayDescr::new(py, self.dtype.name()) {
                Ok(descr) => Ok(descr.unbind()),
                Err(_) => extended(py, self.dtype).map(Bound::unbind),
            }
        })?;
        Ok(descr.bind(py))
    }

    /// `value` as an array of exactly this shape and element type, converted as the handle's casting
    /// rule allows.
    pub(crate) fn input<'py>(&self, value: &Bound<'py, PyAny>) -> PyResult<Input<'py>> {
        let py = value.py();
        if torch_frames::is_beyond_numpy(self.dtype)
            && let Some(bits) = torch_frames::bits(value, self.dtype, &self.casting)?
        {
            self.check_shape(&bits)?;
            return Ok(Input(bits));
        }
        let descr = self.descr(py)?;
        let array = match value.cast::<PyUntypedArray>() {
            Ok(array) if is_ready(array, descr) => array.clone(),
            _ => self.converted(value, descr)?,
        };
        self.check_shape(&array)?;
        Ok(Input(array))
    }

    #[cold]
    fn converted<'py>(
        &self,
        value: &Bound<'py, PyAny>,
        descr: &Bound<'py, PyArrayDescr>,
    ) -> PyResult<Bound<'py, PyUntypedArray>> {
        let py = value.py();
        let numpy = py.import("numpy")?;
        let value = &torch_frames::for_numpy(value, &self.casting)?;
        if self.casting == "unsafe" {
            let keywords = PyDict::new(py);
            keywords.set_item("dtype", descr)?;
            let array = numpy.call_method("asarray", (value,), Some(&keywords))?;
            self.check_shape_of(value, array.cast::<PyUntypedArray>()?)?;
            return contiguous(&array);
        }
        // NumPy says first what came: told the element type it would cut lists of floats and parse
        // texts.
        let mut given = numpy.call_method1("asarray", (value,))?;
        let kind = given.getattr("dtype")?;
        if value.hasattr("dtype")? {
            let allowed = numpy.call_method1("can_cast", (&kind, descr, &self.casting))?;
            if !allowed.is_truthy()? {
                return Err(self.refused_cast(&kind.str()?.to_string()));
            }
        } else {
            self.check_shape_of(value, given.cast::<PyUntypedArray>()?)?;
            given = self.numbers(value, given, &kind)?;
        }
        let keywords = PyDict::new(py);
        keywords.set_item("copy", false)?;
        let array = given.call_method("astype", (descr,), Some(&keywords))?;
        // Before it is made contiguous, which turns scalars into arrays of one element.
        self.check_shape_of(value, array.cast::<PyUntypedArray>()?)?;
        contiguous(&array)
    }

    /// The numbers of a list or the like, unless the element type cannot hold them. They have a kind
    /// but no width: integers are judged by their values, others by their kind alone, whatever the
    /// casting rule (but 'unsafe') says of widths.
    fn numbers<'py>(
        &self,
        value: &Bound<'py, PyAny>,
        given: Bound<'py, PyAny>,
        kind: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let numpy = value.py().import("numpy")?;
        let letter: String = kind.getattr("kind")?.extract()?;
        if let Some((least, most)) = bounds(self.dtype)
            && let Some(integers) = integers(value, &given, &letter)?
        {
            let smallest = integers.call_method0("min")?.call_method0("__int__")?;
            let largest = integers.call_method0("max")?.call_method0("__int__")?;
            let misfit = if smallest.lt(least)? { smallest } else { largest };
            if misfit.lt(least)? || misfit.gt(most)? {
                return Err(PyOverflowError::new_err(format!(
                    "stream '{}', created by process {}, has elements of {} ({least} to {most}), got \
                     {misfit}: clip the values, or use a stream of a wider type",
                    self.name, self.creator, self.dtype
                )));
            }
            return Ok(integers);
        }
        // Types that NumPy lacks are no kind to it.
        let is_beyond = torch_frames::is_beyond_numpy(self.dtype);
        let target = if is_beyond { "float32" } else { self.dtype.name() };
        let rule = "same_kind";
        if matches!(letter.as_str(), "b" | "i" | "u" | "f" | "c")
            && numpy.call_method1("can_cast", (kind, target, rule))?.is_truthy()?
        {
            return Ok(given);
        }
        Err(self.refused_cast(&format!("a {} of {kind}", value.get_type().name()?)))
    }

    /// What a write may convert.
    pub(crate) fn casting(&self) -> &str {
        &self.casting
    }

    /// The error of a tensor that is no frame of this stream.
    #[cold]
    pub(crate) fn wrong_shape_of(&self, shape: &[i64], dtype: &str) -> PyErr {
        PyValueError::new_err(format!(
            "stream '{}', created by process {}: expected shape {} of {}, got {} of {dtype}",
            self.name,
            self.creator,
            tuple(&self.shape),
            self.dtype,
            tuple(shape)
        ))
    }

    #[cold]
    pub(crate) fn refused_cast(&self, given: &str) -> PyErr {
        PyTypeError::new_err(format!(
            "stream '{}', created by process {}, has elements of {}, got {given}: convert them, or \
             open the stream with casting='unsafe'",
            self.name, self.creator, self.dtype
        ))
    }

    #[inline]
    fn check_shape(&self, array: &Bound<'_, PyUntypedArray>) -> PyResult<()> {
        if array.shape() == self.shape {
            return Ok(());
        }
        Err(self.wrong_shape(array, ""))
    }

    /// As [`check_shape`](Self::check_shape), for an array that was made of `value`.
    fn check_shape_of(
        &self,
        value: &Bound<'_, PyAny>,
        array: &Bound<'_, PyUntypedArray>,
    ) -> PyResult<()> {
        if array.shape() == self.shape {
            return Ok(());
        }
        // An array's shape says enough; for a number or None it would puzzle.
        if value.hasattr("shape")? {
            return Err(self.wrong_shape(array, ""));
        }
        let what = format!(" made of a value of type {}", value.get_type().name()?);
        Err(self.wrong_shape(array, &what))
    }

    #[cold]
    fn wrong_shape(&self, array: &Bound<'_, PyUntypedArray>, made_of: &str) -> PyErr {
        PyValueError::new_err(format!(
            "stream '{}', created by process {}: expected shape {} of {}, got {} of {}{made_of}",
            self.name,
            self.creator,
            tuple(&self.shape),
            self.dtype,
            tuple(array.shape()),
            array.dtype()
        ))
    }

    /// The caller's array, if a frame can be put into it as it is.
    pub(crate) fn output<'py>(&self, out: &Bound<'py, PyAny>) -> PyResult<Output<'py>> {
        let py = out.py();
        let descr = self.descr(py)?;
        let array = out.cast::<PyUntypedArray>().map_err(|_| {
            options::not_a(&format!("stream '{}': out", self.name), "a NumPy array", out)
        })?;
        if array.shape() != self.shape || !array.dtype().is_equiv_to(descr) {
            return Err(PyValueError::new_err(format!(
                "stream '{}': out must be {} of shape {}, got {} of shape {}",
                self.name,
                self.dtype,
                tuple(&self.shape),
                array.dtype(),
                tuple(array.shape())
            )));
        }
        let mut array = array.clone();
        if sys::bytes_to_fill(&mut array).is_none() {
            return Err(self.not_to_be_filled(&array));
        }
        Ok(Output(array))
    }

    #[cold]
    fn not_to_be_filled(&self, array: &Bound<'_, PyUntypedArray>) -> PyErr {
        let mut failed = Vec::new();
        if !array.is_c_contiguous() {
            failed.push("C-contiguous");
        }
        if !array.is_aligned() {
            failed.push("aligned");
        }
        let flags = array.getattr("flags").and_then(|flags| flags.get_item("WRITEABLE"));
        if !flags.and_then(|flag| flag.is_truthy()).unwrap_or(false) {
            failed.push("writable");
        }
        PyValueError::new_err(format!(
            "stream '{}': out must be C-contiguous, aligned and writable, and is not {}; \
             numpy.empty makes one that is",
            self.name,
            failed.join(" and not ")
        ))
    }

    /// A new array for a frame.
    pub(crate) fn fresh<'py>(&self, py: Python<'py>) -> PyResult<Output<'py>> {
        let descr = self.descr(py)?;
        if self.bytes < pool::BYTES_MIN {
            return Ok(Output(sys::empty_array(descr, &self.shape)?));
        }
        let memory = self.pool.take(self.bytes)?;
        Ok(Output(sys::array_over_pooled(descr, &self.shape, memory, &self.pool)?))
    }

    /// A new array for a frame's bits, in unsigned integers of the element type's size.
    pub(crate) fn fresh_bits<'py>(&self, py: Python<'py>) -> PyResult<Output<'py>> {
        Ok(Output(sys::empty_array(&self.bits(py)?, &self.shape)?))
    }

    /// NumPy's descriptor of unsigned integers of the element type's size.
    fn bits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArrayDescr>> {
        check_numpy(py)?;
        PyArrayDescr::new(py, format!("uint{}", 8 * self.dtype.bytes()))
    }

    /// A leased frame as a read-only array, which holds the lease.
    pub(crate) fn lent<'py>(&self, py: Python<'py>, lease: Lease) -> PyResult<Bound<'py, PyAny>> {
        Ok(sys::array_over_lease(self.descr(py)?, &self.shape, lease)?.into_any())
    }

    /// The bits of a leased frame, as [`lent`](Self::lent).
    pub(crate) fn lent_bits<'py>(
        &self,
        py: Python<'py>,
        lease: Lease,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(sys::array_over_lease(&self.bits(py)?, &self.shape, lease)?.into_any())
    }

    /// The frame that is being written, as a writable array.
    pub(crate) fn being_written<'py>(
        &self,
        py: Python<'py>,
        frame: OpenFrame,
    ) -> PyResult<Bound<'py, PyAny>> {
        Ok(sys::array_over_open_frame(self.descr(py)?, &self.shape, frame)?.into_any())
    }
}

/// Imports NumPy now. Importing takes long and lets other threads run, and a daemon thread that is in
/// the middle of it when the interpreter ends would take the process down: until Python 3.14 such
/// threads are unwound, and code that is not Python cannot be. What goes wrong here goes wrong again,
/// with an error, when the first array is asked for.
pub(crate) fn prepare(py: Python<'_>) {
    let _ = check_numpy(py);
}

/// Finds NumPy, or says what is wrong: the bindings would panic without it, and with another module of
/// its name, such as a program's own file.
fn check_numpy(py: Python<'_>) -> PyResult<()> {
    let module = py
        .import("numpy")
        .map_err(|error| PyImportError::new_err(format!("NumPy is needed for arrays: {error}")))?;
    let found = numpy::get_array_module(py).and_then(|core| core.getattr("_ARRAY_API"));
    found.map(drop).map_err(|error| {
        let file = module.filename().map_or_else(|_| "no file".to_owned(), |name| name.to_string());
        PyImportError::new_err(format!(
            "NumPy is needed for arrays, and the module `numpy` of {file} is another one: {error}"
        ))
    })
}

/// Whether an array can be copied from as it is.
fn is_ready(array: &Bound<'_, PyUntypedArray>, descr: &Bound<'_, PyArrayDescr>) -> bool {
    let own = array.dtype();
    (own.is(descr) || own.is_equiv_to(descr)) && array.is_c_contiguous()
}

/// The least and the most that integers of this type can be; `None` for other types.
fn bounds(dtype: DType) -> Option<(i128, i128)> {
    let bits = 8 * dtype.bytes();
    match dtype {
        DType::Bool => Some((0, 1)),
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => Some((0, (1 << bits) - 1)),
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => {
            Some((-(1 << (bits - 1)), (1 << (bits - 1)) - 1))
        }
        _ => None,
    }
}

/// `given`, which NumPy made of `value`, if it consists of integers. NumPy makes floats or objects of
/// lists with integers beyond 63 bits: of those, an array of the integers themselves.
fn integers<'py>(
    value: &Bound<'py, PyAny>,
    given: &Bound<'py, PyAny>,
    letter: &str,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    match letter {
        "b" | "i" | "u" => return Ok(Some(given.clone())),
        "f" | "O" => {}
        _ => return Ok(None),
    }
    let numpy = value.py().import("numpy")?;
    let objects = numpy.call_method1("asarray", (value, "O"))?;
    for object in objects.call_method0("ravel")?.try_iter()? {
        if !object?.is_instance_of::<PyInt>() {
            return Ok(None);
        }
    }
    Ok(Some(objects))
}

fn contiguous<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let numpy = array.py().import("numpy")?;
    Ok(numpy.call_method1("ascontiguousarray", (array,))?.cast_into::<PyUntypedArray>()?)
}

/// A type that NumPy learns from the package `ml_dtypes`.
fn extended(py: Python<'_>, dtype: DType) -> PyResult<Bound<'_, PyArrayDescr>> {
    let explain = || {
        PyTypeError::new_err(format!(
            "NumPy has no {dtype}: install `ml_dtypes`, or write tensors of torch and read them with \
             torch(); latest_bits() reads the bits"
        ))
    };
    let package = py.import("ml_dtypes").map_err(|_| explain())?;
    let kind = package.getattr(dtype.name()).map_err(|_| explain())?;
    PyArrayDescr::new(py, kind)
}

/// The sizes of a stream's dimensions.
fn dimensions(stream: &Stream) -> Vec<usize> {
    // What fits a mapping fits a `usize`.
    let sizes = stream.shape().dimensions().iter();
    sizes.map(|&size| usize::try_from(size).unwrap_or(usize::MAX)).collect()
}

/// A shape as Python writes it.
pub(crate) fn tuple<T: Display>(shape: &[T]) -> String {
    match shape {
        [only] => format!("({only},)"),
        sizes => {
            let sizes: Vec<String> = sizes.iter().map(ToString::to_string).collect();
            format!("({})", sizes.join(", "))
        }
    }
}
