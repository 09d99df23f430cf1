//! Tensors of one message: all their storages are opened at once, and those over one storage share it.

use std::collections::HashMap;
use std::sync::Arc;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyList;
use shared_tensor::manifest::Scalar;
use shared_tensor::service::{Id, Region, Storage, Tensor, Value};

use super::storage::ServiceStorage;
use crate::modules::memory::Memory;
use crate::modules::plan::tensors::Torch;
use crate::sys::dlpack::Numbers;
use crate::sys::place::Place;

/// What is the same bytes.
type Key = (Option<Id>, u64, u64);

/// A storage, and what was made over it.
struct Known<'py> {
    place: Place,
    /// How many tensors of the message lie in it.
    tensors: usize,
    whole: Option<Bound<'py, PyAny>>,
}

/// The storages of a message.
pub(super) struct Tensors<'py> {
    torch: Bound<'py, Torch>,
    known: HashMap<Key, Known<'py>>,
}

impl<'py> Tensors<'py> {
    /// Opens the storages of all tensors in `values`; `None` if there are none.
    pub(super) fn of<'a>(
        codec: &Bound<'py, PyAny>,
        values: impl Iterator<Item = &'a Value>,
    ) -> PyResult<Option<Self>> {
        let py = codec.py();
        let mut storages = Vec::new();
        let mut indices: HashMap<Key, (usize, usize)> = HashMap::new();
        for value in values {
            each_tensor(value, &mut |tensor| {
                let next = storages.len();
                let found = indices.entry(key(tensor.storage())).or_insert((next, 0));
                found.1 += 1;
                if found.0 == next {
                    storages.push(ServiceStorage { storage: tensor.storage().clone() });
                }
            });
        }
        if storages.is_empty() {
            return Ok(None);
        }
        let opened = codec.call_method1(intern!(py, "memory"), (PyList::new(py, storages)?,))?;
        let (torch, memory): (Bound<'py, Torch>, Vec<Bound<'py, Memory>>) = opened.extract()?;
        let known = indices.into_iter().map(|(key, (index, tensors))| {
            let place = memory[index].get().place(py);
            (key, Known { place, tensors, whole: None })
        });
        Ok(Some(Self { torch, known: known.collect() }))
    }

    pub(super) fn make(&mut self, tensor: &Tensor) -> PyResult<Option<Bound<'py, PyAny>>> {
        let (py, torch) = (self.torch.py(), self.torch.get());
        let Some(known) = self.known.get_mut(&key(tensor.storage())) else { return Ok(None) };
        let layout = tensor.layout();
        let strides: Vec<u64> = layout.strides.iter().map(|it| it.cast_unsigned()).collect();
        let numbers = Arc::new(Numbers::new(&layout.shape, &strides));
        let bytes = tensor.storage().bytes();
        let item = layout.dtype.bytes();
        let fills = bytes > 0
            && known.tensors == 1
            && layout.offset == 0
            && numbers.needed_bytes(item).map(|it| it as u64) == Some(bytes);
        let direct = Scalar::from_name(layout.dtype.name()).filter(|it| fills && torch.takes(*it));
        let made = if let Some(scalar) = direct {
            torch.tensor(py, &known.place, scalar, &numbers, 0)?
        } else {
            let whole = match &known.whole {
                Some(whole) => whole.clone(),
                None => known.whole.insert(torch.bytes(py, &known.place, bytes)?).clone(),
            };
            torch.view(&whole, layout.dtype.name(), &numbers, layout.offset)?
        };
        if tensor.requires_grad() {
            made.setattr(intern!(py, "requires_grad"), true)?;
        }
        Ok(Some(made))
    }
}

fn key(storage: &Storage) -> Key {
    (storage.region().map(Region::id), storage.offset(), storage.bytes())
}

/// Shows every tensor in a value.
fn each_tensor(value: &Value, see: &mut impl FnMut(&Tensor)) {
    match value {
        Value::Tensor(tensor) => see(tensor),
        Value::List(items) | Value::Tuple(items) => {
            for item in items {
                each_tensor(item, see);
            }
        }
        Value::Dict(pairs) => {
            for (key, item) in pairs {
                each_tensor(key, see);
                each_tensor(item, see);
            }
        }
        _ => {}
    }
}
