//! Values as Python objects.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};
use shared_tensor::service::{Object, Tensor, Value};

use super::codec::Codec;
use super::storage::ServiceStorage;

/// Opens the values of one message: tensors over the same storage share it.
pub(super) struct Opening<'a, 'py> {
    py: Python<'py>,
    codec: Option<&'a Codec>,
    /// What was made over each storage.
    known: Option<Bound<'py, PyDict>>,
}

impl<'a, 'py> Opening<'a, 'py> {
    pub(super) fn new(py: Python<'py>, codec: &'a Codec) -> Self {
        Self { py, codec: Some(codec), known: None }
    }

    /// For values without tensors, such as what a server tells about itself.
    pub(super) fn plain(py: Python<'py>) -> Self {
        Self { py, codec: None, known: None }
    }

    pub(super) fn open(&mut self, value: &Value) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        Ok(match value {
            Value::None => py.None().into_bound(py),
            Value::Bool(truth) => truth.into_pyobject(py)?.to_owned().into_any(),
            Value::Int(number) => number.into_pyobject(py)?.into_any(),
            Value::BigInt(number) => py.get_type::<PyInt>().call1((number.as_str(),))?,
            Value::Float(number) => number.into_pyobject(py)?.into_any(),
            Value::Str(text) => PyString::new(py, text).into_any(),
            Value::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
            Value::List(items) => {
                let list = PyList::empty(py);
                for item in items {
                    list.append(self.open(item)?)?;
                }
                list.into_any()
            }
            Value::Tuple(items) => self.tuple(items)?.into_any(),
            Value::Dict(pairs) => {
                let dict = PyDict::new(py);
                for (key, item) in pairs {
                    dict.set_item(self.open(key)?, self.open(item)?)?;
                }
                dict.into_any()
            }
            Value::Tensor(tensor) => self.tensor(tensor)?,
            Value::Object(object) => self.object(object)?,
            _ => {
                return Err(pyo3::exceptions::PyTypeError::new_err(
                    "a value came of a kind that this release does not know",
                ));
            }
        })
    }

    pub(super) fn tuple(&mut self, items: &[Value]) -> PyResult<Bound<'py, PyTuple>> {
        let items = items.iter().map(|it| self.open(it)).collect::<PyResult<Vec<_>>>()?;
        PyTuple::new(self.py, items)
    }

    fn codec(&self) -> PyResult<Bound<'py, PyAny>> {
        let unexpected = "a tensor came where none can be";
        let codec = self.codec.ok_or_else(|| pyo3::exceptions::PyTypeError::new_err(unexpected))?;
        Ok(codec.bind(self.py))
    }

    fn tensor(&mut self, tensor: &Tensor) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let known = self.known.get_or_insert_with(|| PyDict::new(py)).clone();
        let layout = tensor.layout();
        let storage = ServiceStorage { storage: tensor.storage().clone() };
        let arguments = (
            known,
            Bound::new(py, storage)?,
            layout.dtype.name(),
            layout.shape.clone(),
            layout.strides.clone(),
            layout.offset,
            tensor.requires_grad(),
        );
        self.codec()?.call_method1(intern!(py, "tensor"), arguments)
    }

    fn object(&mut self, object: &Object) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let storages =
            object.storages.iter().map(|it| Bound::new(py, ServiceStorage { storage: it.clone() }));
        let storages = PyList::new(py, storages.collect::<PyResult<Vec<_>>>()?)?;
        let manifest = PyBytes::new(py, &object.manifest);
        self.codec()?
            .call_method1(intern!(py, "module"), (object.kind.as_str(), manifest, storages))
    }
}
