//! `ManifestBuilder`: what the walk over an object finds, piece by piece.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyBytes, PyComplex, PyDict, PyEllipsis, PyFloat, PyInt, PyString, PyType,
};
use shared_tensor::manifest::{
    Action, Builder, Limits, MappingKind, ObjectId, Package, Requirement, Scalar, SequenceKind,
    Sharing, Source, Storage, StorageId, StringId, Tensor, TensorClass, TensorId, TorchKind, Value,
    ValueId,
};

/// Collects values, tensors and objects; equal values have one number.
///
/// All methods that take or give numbers mean those of this builder. A number that it never gave is
/// found when it is finished.
#[pyclass(frozen, module = "shared_tensor._native")]
#[derive(Debug, Default)]
pub(crate) struct ManifestBuilder {
    inner: Mutex<shared_tensor::manifest::ManifestBuilder>,
}

/// Names, values as far as they are known, positions of the others.
type Attributes<'py> = (Vec<Bound<'py, PyAny>>, Vec<Option<u32>>, Vec<usize>);

impl ManifestBuilder {
    fn inner(&self) -> MutexGuard<'_, shared_tensor::manifest::ManifestBuilder> {
        // Each call leaves the builder whole, also one that panics.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn value(&self, value: Value) -> u32 {
        self.inner().value(value).0
    }
}

#[pymethods]
impl ManifestBuilder {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Add None, an ellipsis, or a number, text or bytes of exactly the built-in type.
    ///
    /// Raises
    /// ------
    /// TypeError
    ///     For anything else.
    fn atom(&self, atom: &Bound<'_, PyAny>) -> PyResult<u32> {
        let value = if let Ok(text) = atom.cast_exact::<PyString>() {
            let text = text.to_cow()?;
            let mut inner = self.inner();
            let text = inner.string(&text);
            return Ok(inner.value(Value::Text(text)).0);
        } else if atom.is_none() {
            Value::None
        } else if let Ok(truth) = atom.cast_exact::<PyBool>() {
            Value::Bool(truth.is_true())
        } else if let Ok(number) = atom.cast_exact::<PyInt>() {
            integer(number)?
        } else if let Ok(number) = atom.cast_exact::<PyFloat>() {
            Value::Float(number.value().to_bits())
        } else if let Ok(bytes) = atom.cast_exact::<PyBytes>() {
            Value::Bytes(bytes.as_bytes().to_vec())
        } else if let Ok(number) = atom.cast_exact::<PyComplex>() {
            let part = |name| PyResult::Ok(number.getattr(name)?.extract::<f64>()?.to_bits());
            Value::Complex(part("real")?, part("imag")?)
        } else if atom.cast_exact::<PyEllipsis>().is_ok() {
            Value::Ellipsis
        } else {
            return Err(PyTypeError::new_err("not an atom"));
        };
        Ok(self.value(value))
    }

    /// Add a named constant of torch: a dtype, layout, memory_format or qscheme.
    fn torch(&self, kind: &str, name: &str) -> PyResult<u32> {
        let kind = match kind {
            "dtype" => TorchKind::Dtype,
            "layout" => TorchKind::Layout,
            "memory_format" => TorchKind::MemoryFormat,
            "qscheme" => TorchKind::QScheme,
            _ => return Err(unknown("kind of constant", kind)),
        };
        let mut inner = self.inner();
        let name = inner.string(name);
        Ok(inner.value(Value::Torch(kind, name)).0)
    }

    /// Add a device.
    #[pyo3(signature = (kind, index))]
    fn device(&self, kind: &str, index: Option<u32>) -> u32 {
        let mut inner = self.inner();
        let kind = inner.string(kind);
        inner.value(Value::Device(kind, index)).0
    }

    /// Add a class by its path.
    fn class_(&self, module: &str, qualname: &str) -> u32 {
        let mut inner = self.inner();
        let path = inner.path(module, qualname);
        inner.value(Value::Class(path)).0
    }

    /// Add a function by its path.
    fn function(&self, module: &str, qualname: &str) -> u32 {
        let mut inner = self.inner();
        let path = inner.path(module, qualname);
        inner.value(Value::Function(path)).0
    }

    /// Add a tuple, list, set, frozenset or size without identity.
    fn sequence(&self, kind: &str, items: Vec<u32>) -> PyResult<u32> {
        Ok(self.value(Value::Sequence(sequence(kind)?, ids(items))))
    }

    /// Add a dict or ordered dictionary without identity; keys and values in turn.
    fn mapping(&self, kind: &str, items: Vec<u32>) -> PyResult<u32> {
        Ok(self.value(Value::Mapping(mapping(kind)?, pairs(items)?)))
    }

    /// Add what a function of the opening side makes.
    fn built(&self, builder: &str, arguments: Vec<u32>) -> PyResult<u32> {
        let builder = Builder::from_name(builder).ok_or_else(|| unknown("builder", builder))?;
        Ok(self.value(Value::Built(builder, ids(arguments))))
    }

    /// Add a storage; its size and sharing follow.
    fn storage(&self) -> u32 {
        self.inner().storage(Storage { bytes: 0, sharing: Sharing::Shared }).0
    }

    /// Say how large a storage is, and whether its bytes are shared, private or absent.
    fn fill_storage(&self, storage: u32, bytes: u64, sharing: &str) -> PyResult<()> {
        let sharing = match sharing {
            "shared" => Sharing::Shared,
            "private" => Sharing::Private,
            "absent" => Sharing::Absent,
            _ => return Err(unknown("sharing", sharing)),
        };
        self.inner().set_storage(StorageId(storage), Storage { bytes, sharing });
        Ok(())
    }

    /// Add a tensor, which is described later: its number, and that of a value that refers to it.
    fn reserve_tensor(&self) -> (u32, u32) {
        let mut inner = self.inner();
        let tensor = inner.reserve_tensor();
        (tensor.0, inner.value(Value::Tensor(tensor)).0)
    }

    /// Describe a tensor. `class_`: None for Tensor, "parameter", or module and name of another.
    #[expect(clippy::too_many_arguments, reason = "a tensor is that many things")]
    fn fill_tensor(
        &self,
        tensor: u32,
        storage: u32,
        dtype: &str,
        shape: Vec<u64>,
        strides: Vec<u64>,
        offset: u64,
        requires_grad: bool,
        class_: Option<Bound<'_, PyAny>>,
        attributes: Option<u32>,
    ) -> PyResult<()> {
        let scalar = Scalar::from_name(dtype).ok_or_else(|| unknown("dtype", dtype))?;
        let mut inner = self.inner();
        let class = match class_ {
            None => TensorClass::Plain,
            Some(class) => match class.extract::<(String, String)>() {
                Ok((module, qualname)) => TensorClass::Other(inner.path(&module, &qualname)),
                Err(_) => TensorClass::Parameter,
            },
        };
        let storage = StorageId(storage);
        let attributes = attributes.map(ValueId);
        let tensor_id = TensorId(tensor);
        inner.fill_tensor(
            tensor_id,
            Tensor { storage, scalar, shape, strides, offset, requires_grad, class, attributes },
        );
        Ok(())
    }

    /// Add an object, which is filled later: its number, and that of a value that refers to it.
    fn reserve_object(&self) -> (u32, u32) {
        let mut inner = self.inner();
        let object = inner.reserve_object();
        (object.0, inner.value(Value::Object(object)).0)
    }

    /// Add a tuple: its value, and whether it is immutable through and through.
    fn tuple_of(&self, items: Vec<u32>) -> (u32, bool) {
        let mut inner = self.inner();
        let value = inner.value(Value::Sequence(SequenceKind::Tuple, ids(items)));
        (value.0, inner.is_constant(value))
    }

    /// Give a built value or a tuple identity: the value that refers to it.
    fn once(&self, value: u32) -> u32 {
        let mut inner = self.inner();
        let object = inner.reserve_object();
        inner.fill_built(object, ValueId(value));
        inner.value(Value::Object(object)).0
    }

    /// Add those attributes of a module that need no rule: constants, and empty ordered dictionaries
    /// without attributes, which are entered in `memo`. Of each attribute its name and its value, None for others; and the
    /// positions of these.
    fn attributes<'py>(
        &self,
        attributes: &Bound<'py, PyDict>,
        memo: &Bound<'py, PyDict>,
    ) -> PyResult<Attributes<'py>> {
        static ORDERED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
        let py = attributes.py();
        let ordered = ORDERED.import(py, "collections", "OrderedDict")?;
        let compiled = intern!(py, "_compiled_call_impl");
        let captured = intern!(py, "_output_capturing_hooks_installed");
        let lengths = (compiled.len()?, captured.len()?);
        let (mut names, mut values, mut others) = (Vec::new(), Vec::new(), Vec::new());
        // Nobody changes a copy meanwhile.
        for (name, item) in attributes.copy()? {
            let Ok(text) = name.cast_exact::<PyString>() else {
                let found =
                    format!("found an attribute named {}; use texts as names", name.repr()?);
                return Err(PyValueError::new_err(found));
            };
            // They only mean something where they were made. Names are compared by length first: there are
            // thirty of them for each module.
            let length = text.len()?;
            let is_either = (length == lengths.0 && name.eq(compiled)?)
                || (length == lengths.1 && name.eq(captured)?);
            if is_either {
                continue;
            }
            let value = if item.get_type().is(ordered) {
                let is_bare = item.len()? == 0 && is_bare(text, &item)?;
                is_bare.then(|| self.empty_ordered(&item, memo)).transpose()?
            } else if is_scalar(&item) {
                Some(self.atom(&item)?)
            } else {
                None
            };
            if value.is_none() {
                others.push(names.len());
            }
            names.push(name);
            values.push(value);
        }
        Ok((names, values, others))
    }

    /// Add an empty list, set, dict or ordered dictionary that has identity: the value that refers to it.
    fn empty(&self, kind: &str) -> PyResult<u32> {
        let mut inner = self.inner();
        let object = inner.reserve_object();
        match kind {
            "dict" => inner.fill_mapping(object, MappingKind::Dict, Vec::new()),
            "ordered" => inner.fill_mapping(object, MappingKind::Ordered, Vec::new()),
            _ => inner.fill_sequence(object, sequence(kind)?, Vec::new()),
        }
        Ok(inner.value(Value::Object(object)).0)
    }

    /// Fill an object that is a list or set.
    fn fill_sequence(&self, object: u32, kind: &str, items: Vec<u32>) -> PyResult<()> {
        let kind = sequence(kind)?;
        self.inner().fill_sequence(ObjectId(object), kind, ids(items));
        Ok(())
    }

    /// Fill an object that is a dictionary; keys and values in turn.
    fn fill_mapping(&self, object: u32, kind: &str, items: Vec<u32>) -> PyResult<()> {
        let kind = mapping(kind)?;
        let items = pairs(items)?;
        self.inner().fill_mapping(ObjectId(object), kind, items);
        Ok(())
    }

    /// Fill an object that a function of the opening side makes.
    fn fill_built(&self, object: u32, value: u32) {
        self.inner().fill_built(ObjectId(object), ValueId(value));
    }

    /// Fill an object that is an instance of a class: its attributes, slots, and content if it is a
    /// container.
    #[expect(clippy::too_many_arguments, reason = "an instance is that many things")]
    #[pyo3(signature = (object, module, qualname, names, values, slots = None, slot_values = None, contents = None))]
    fn fill_instance(
        &self,
        object: u32,
        module: &str,
        qualname: &str,
        names: Vec<Bound<'_, PyString>>,
        values: Vec<u32>,
        slots: Option<Vec<Bound<'_, PyString>>>,
        slot_values: Option<Vec<u32>>,
        contents: Option<u32>,
    ) -> PyResult<()> {
        let mut inner = self.inner();
        let class = inner.path(module, qualname);
        let mut together = |names: Vec<Bound<'_, PyString>>, values: Vec<u32>| {
            if names.len() != values.len() {
                return Err(PyValueError::new_err("as many values as names are needed"));
            }
            let name = |name: Bound<'_, PyString>| PyResult::Ok(inner.string(&name.to_cow()?));
            let names: PyResult<Vec<StringId>> = names.into_iter().map(name).collect();
            Ok(names?.into_iter().zip(ids(values)).collect::<Vec<_>>())
        };
        let attributes = together(names, values)?;
        let slots = together(slots.unwrap_or_default(), slot_values.unwrap_or_default())?;
        let contents = contents.map(ValueId);
        inner.fill_instance(ObjectId(object), class, attributes, slots, contents);
        Ok(())
    }

    /// Add something to do at the end with an object.
    fn step(&self, action: &str, object: u32, argument: u32) -> PyResult<()> {
        let action = Action::from_name(action).ok_or_else(|| unknown("action", action))?;
        self.inner().step(action, ObjectId(object), ValueId(argument));
        Ok(())
    }

    /// Say which version of a package is meant.
    fn package(&self, name: String, version: String) {
        self.inner().package(Package { name, version });
    }

    /// Say which source a module is loaded from, with the SHA-256 of its bytes.
    fn source(&self, module: String, file: String, sha256: [u8; 32]) {
        self.inner().source(Source { module, file, sha256 });
    }

    /// Say which name must be registered where the manifest is opened.
    fn requirement(&self, registry: String, name: String) {
        self.inner().requirement(Requirement { registry, name });
    }

    /// Give the manifest, and the numbers of its storages in order. The builder is empty afterwards.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     For what nobody could open.
    fn finish<'py>(&self, py: Python<'py>, root: u32) -> PyResult<(Bound<'py, PyBytes>, Vec<u32>)> {
        let builder = std::mem::take(&mut *self.inner());
        let finished = builder
            .finish(ValueId(root), &Limits::default())
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        let storages = finished.storages.iter().map(|id| id.0).collect();
        Ok((PyBytes::new(py, &finished.manifest.encode()), storages))
    }
}

impl ManifestBuilder {
    /// The value of an empty ordered dictionary that is in `memo` from then on.
    fn empty_ordered(&self, item: &Bound<'_, PyAny>, memo: &Bound<'_, PyDict>) -> PyResult<u32> {
        let id = item.as_ptr().addr();
        if let Some(known) = memo.get_item(id)? {
            return known.extract();
        }
        let value = self.empty("ordered")?;
        memo.set_item(id, value)?;
        Ok(value)
    }
}

/// Whether an ordered dictionary has no attributes. Those of hooks are not asked: asking each would make
/// a dictionary for it, and a module has about ten.
fn is_bare(name: &Bound<'_, PyString>, item: &Bound<'_, PyAny>) -> PyResult<bool> {
    let name = name.to_cow()?;
    let is_torchs =
        name.contains("_hooks") || ["_modules", "_parameters", "_buffers"].contains(&&*name);
    Ok(is_torchs || item.getattr(intern!(item.py(), "__dict__"))?.is_empty()?)
}

fn is_scalar(item: &Bound<'_, PyAny>) -> bool {
    item.is_none()
        || item.is_exact_instance_of::<PyBool>()
        || item.is_exact_instance_of::<PyInt>()
        || item.is_exact_instance_of::<PyString>()
        || item.is_exact_instance_of::<PyFloat>()
}

fn integer(number: &Bound<'_, PyInt>) -> PyResult<Value> {
    if let Ok(number) = number.extract::<i64>() {
        return Ok(Value::Int(number));
    }
    let bits: usize = number.call_method0("bit_length")?.extract()?;
    let keywords = PyDict::new(number.py());
    keywords.set_item("signed", true)?;
    let bytes = number.call_method("to_bytes", (bits / 8 + 1, "little"), Some(&keywords))?;
    Ok(Value::BigInt(bytes.extract()?))
}

fn sequence(kind: &str) -> PyResult<SequenceKind> {
    Ok(match kind {
        "tuple" => SequenceKind::Tuple,
        "list" => SequenceKind::List,
        "set" => SequenceKind::Set,
        "frozenset" => SequenceKind::FrozenSet,
        "size" => SequenceKind::Size,
        _ => return Err(unknown("sequence", kind)),
    })
}

fn mapping(kind: &str) -> PyResult<MappingKind> {
    match kind {
        "dict" => Ok(MappingKind::Dict),
        "ordered" => Ok(MappingKind::Ordered),
        _ => Err(unknown("mapping", kind)),
    }
}

fn ids(numbers: Vec<u32>) -> Vec<ValueId> {
    numbers.into_iter().map(ValueId).collect()
}

fn pairs(numbers: Vec<u32>) -> PyResult<Vec<(ValueId, ValueId)>> {
    if !numbers.len().is_multiple_of(2) {
        return Err(PyValueError::new_err("a key has no value"));
    }
    let mut numbers = numbers.into_iter().map(ValueId);
    Ok(std::iter::from_fn(|| Some((numbers.next()?, numbers.next()?))).collect())
}

fn unknown(what: &str, name: &str) -> PyErr {
    PyValueError::new_err(format!("unknown {what} `{name}`"))
}
