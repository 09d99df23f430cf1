//! Python objects as values.

use std::collections::VecDeque;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use shared_tensor::service::{Arguments, BigInt, DEPTH_MAX, Rights, Value};

use super::addresses;
use super::codec::Codec;
use super::failures::{refused, unserialisable};

/// What may be in a value.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each holds or not, whatever the others do")]
pub(super) struct Rules {
    pub(super) is_result: bool,
    /// Whether a result may consist of plain values, or contain them.
    pub(super) is_plain: bool,
    /// Whether those who get it may write to its memory.
    pub(super) is_writable: bool,
    /// Whether memory of `cudaMalloc` is moved to where others can hold it, and not lent where it is.
    pub(super) copies: bool,
    /// The process that gets it, if it is one and known.
    pub(super) process: Option<u32>,
}

impl Rules {
    pub(super) const PLAIN: Self =
        Self { is_result: false, is_plain: true, is_writable: false, copies: true, process: None };

    /// Those of arguments for a process, if it is known.
    pub(super) fn arguments(process: Option<u32>) -> Self {
        Self { process, ..Self::PLAIN }
    }
}

/// The arguments of a call of that process, if it is known.
pub(super) fn arguments(
    codec: &Codec,
    process: Option<u32>,
    args: &Bound<'_, PyTuple>,
    kwargs: &Bound<'_, PyDict>,
) -> PyResult<Arguments> {
    let py = args.py();
    let mut walk = Walk::new(py, codec, Rules::arguments(process));
    for item in args.iter() {
        walk.find(&item, 1)?;
    }
    for (_, item) in kwargs.iter() {
        walk.find(&item, 1)?;
    }
    walk.lend().map_err(|error| {
        let told = codec
            .bind(py)
            .call_method1(intern!(py, "refused_arguments"), (error.value(py), args, kwargs));
        told.map_or_else(|error| error, PyErr::from_value)
    })?;
    let positional = args.iter().map(|it| walk.take(&it)).collect::<PyResult<Vec<Value>>>()?;
    let named = kwargs.iter().map(|(name, it)| Ok((text(&name)?, walk.take(&it)?)));
    Ok(Arguments { positional, named: named.collect::<PyResult<_>>()? })
}

/// What an endpoint returned.
pub(super) fn result(
    codec: &Codec,
    endpoint: &str,
    value: &Bound<'_, PyAny>,
    rules: Rules,
) -> PyResult<Value> {
    if value.is_none() {
        return Ok(Value::None);
    }
    let py = value.py();
    let mut walk = Walk::new(py, codec, rules);
    walk.find(value, 0)?;
    walk.lend().map_err(|error| {
        let told = codec
            .bind(py)
            .call_method1(intern!(py, "refused_result"), (error.value(py), endpoint, value));
        told.map_or_else(|error| error, PyErr::from_value)
    })?;
    walk.take(value)
}

/// Two walks over the same value: one finds what is to be lent, so that it is lent together and ties
/// between tensors survive; the other makes the value.
struct Walk<'a, 'py> {
    py: Python<'py>,
    codec: &'a Codec,
    rules: Rules,
    leaves: Vec<Bound<'py, PyAny>>,
    lent: VecDeque<Value>,
}

impl<'a, 'py> Walk<'a, 'py> {
    fn new(py: Python<'py>, codec: &'a Codec, rules: Rules) -> Self {
        Self { py, codec, rules, leaves: Vec::new(), lent: VecDeque::new() }
    }

    fn find(&mut self, value: &Bound<'py, PyAny>, depth: usize) -> PyResult<()> {
        if depth > DEPTH_MAX {
            let found = "a value that contains itself, or is nested too deeply";
            return Err(refused(self.py, self.codec, found));
        }
        if let Ok(items) = value.cast::<PyTuple>() {
            return items.iter().try_for_each(|it| self.find(&it, depth + 1));
        }
        if let Ok(items) = value.cast::<PyList>() {
            return items.iter().try_for_each(|it| self.find(&it, depth + 1));
        }
        if let Ok(pairs) = value.cast::<PyDict>() {
            for (key, item) in pairs.iter() {
                self.key(&key, depth)?;
                self.find(&item, depth + 1)?;
            }
            return Ok(());
        }
        let is_plain = is_plain(value);
        if !is_plain || !self.rules.is_plain {
            // What a result may not be is refused with the rest that cannot be lent.
            self.leaves.push(value.clone());
        }
        Ok(())
    }

    /// Keys are texts at the top of a result, and plain values elsewhere.
    fn key(&self, key: &Bound<'py, PyAny>, depth: usize) -> PyResult<()> {
        let is_fine = if self.rules.is_result && !self.rules.is_plain {
            depth == 0 && key.is_instance_of::<PyString>()
        } else {
            is_plain(key)
        };
        if is_fine {
            return Ok(());
        }
        let kind = key.get_type().name()?;
        let found = if is_plain(key) {
            format!("{kind} keys of a dict within a result; share the endpoint with plain=True")
        } else {
            format!("Unsupported payload type: {kind} as the key of a dict")
        };
        Err(refused(self.py, self.codec, &found))
    }

    fn lend(&mut self) -> PyResult<()> {
        if self.leaves.is_empty() {
            return Ok(());
        }
        let leaves = PyList::new(self.py, std::mem::take(&mut self.leaves))?;
        let Rules { is_writable, is_result, .. } = self.rules;
        let lent = self.codec.lend(&leaves, self.rules)?;
        // What comes with a call may be written to by whoever is called.
        let rights = if is_result && !is_writable { Rights::Read } else { Rights::Write };
        for value in &lent {
            addresses::note_lent(&value.get().value, rights);
        }
        self.lent = lent.iter().map(|it| it.get().value.clone()).collect();
        Ok(())
    }

    fn take(&mut self, value: &Bound<'py, PyAny>) -> PyResult<Value> {
        if let Ok(items) = value.cast::<PyTuple>() {
            let items = items.iter().map(|it| self.take(&it));
            return Ok(Value::Tuple(items.collect::<PyResult<_>>()?));
        }
        if let Ok(items) = value.cast::<PyList>() {
            let items = items.iter().map(|it| self.take(&it));
            return Ok(Value::List(items.collect::<PyResult<_>>()?));
        }
        if let Ok(pairs) = value.cast::<PyDict>() {
            let pairs = pairs.iter().map(|(key, it)| Ok((plain(&key)?, self.take(&it)?)));
            return Ok(Value::Dict(pairs.collect::<PyResult<_>>()?));
        }
        if is_plain(value) && self.rules.is_plain {
            return plain(value);
        }
        self.lent.pop_front().ok_or_else(|| {
            refused(self.py, self.codec, "a container that another thread changed meanwhile")
        })
    }
}

fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_none()
        || value.is_instance_of::<PyString>()
        || value.is_instance_of::<PyInt>()
        || value.is_instance_of::<PyFloat>()
        || value.is_instance_of::<PyBytes>()
}

fn plain(value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if value.is_none() {
        return Ok(Value::None);
    }
    // Before the numbers, of which it is one.
    if let Ok(truth) = value.cast::<PyBool>() {
        return Ok(Value::Bool(truth.is_true()));
    }
    if value.is_instance_of::<PyString>() {
        return Ok(Value::Str(text(value)?));
    }
    if value.is_instance_of::<PyInt>() {
        if let Ok(number) = value.extract::<i64>() {
            return Ok(Value::Int(number));
        }
        let py = value.py();
        // Of a subclass, the number and not how it is shown.
        let digits = py.get_type::<PyInt>().call_method1(intern!(py, "__repr__"), (value,))?;
        let digits: String = digits.extract()?;
        return BigInt::parse(&digits).map(Value::BigInt).ok_or_else(|| {
            unserialisable(py, "an integer of more digits than Python itself reads")
        });
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(Value::Float(number.value()));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Value::Bytes(bytes.as_bytes().to_vec()));
    }
    let kind = value.get_type().name()?;
    Err(unserialisable(value.py(), &format!("a {kind}")))
}

fn text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let text = value.cast::<PyString>()?;
    text.to_cow().map(std::borrow::Cow::into_owned).map_err(|_| {
        unserialisable(value.py(), "a str that is no Unicode text (it has lone surrogates)")
    })
}
