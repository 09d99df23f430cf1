//! Values as Python objects.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};
use shared_tensor::service::{Object, Value};

use super::codec::Codec;
use super::storage::ServiceStorage;
use super::tensors::Tensors;

/// Opens the values of one message.
pub(super) struct Opening<'a, 'py> {
    py: Python<'py>,
    codec: Option<&'a Codec>,
    tensors: Option<Tensors<'py>>,
}

impl<'a, 'py> Opening<'a, 'py> {
    /// For `values` and what lies in them, all of one message.
    pub(super) fn new<'b>(
        py: Python<'py>,
        codec: &'a Codec,
        values: impl Iterator<Item = &'b Value>,
    ) -> PyResult<Self> {
        let tensors = Tensors::of(&codec.bind(py), values)?;
        Ok(Self { py, codec: Some(codec), tensors })
    }

    /// For values without tensors, such as what a server tells about itself.
    pub(super) fn plain(py: Python<'py>) -> Self {
        Self { py, codec: None, tensors: None }
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
            Value::Tensor(tensor) => {
                let made = self.tensors.as_mut().map(|them| them.make(tensor)).transpose()?;
                made.flatten().ok_or_else(unexpected)?
            }
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

    fn object(&self, object: &Object) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let storages =
            object.storages.iter().map(|it| Bound::new(py, ServiceStorage { storage: it.clone() }));
        let storages = PyList::new(py, storages.collect::<PyResult<Vec<_>>>()?)?;
        let manifest = PyBytes::new(py, &object.manifest);
        let codec = self.codec.ok_or_else(unexpected)?.bind(py);
        codec.call_method1(intern!(py, "module"), (object.kind.as_str(), manifest, storages))
    }
}

fn unexpected() -> PyErr {
    pyo3::exceptions::PyTypeError::new_err("a tensor or an object came where none can be")
}
