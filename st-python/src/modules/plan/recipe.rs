//! How a value is made, each time anew unless it is immutable.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet, PyTuple};

use super::opening::Opening;

/// A recipe by its place in the plan, which is that of the value in the manifest.
pub(super) type RecipeId = usize;

/// A key, and how its value is made.
pub(super) type Pair = (Py<PyAny>, RecipeId);

/// How to make one value.
#[derive(Debug)]
pub(super) enum Recipe {
    /// Immutable: made when the plan was, shared by all openings.
    Constant(Py<PyAny>),
    /// A copy of a dictionary of constants.
    CopyDict(Py<PyDict>),
    /// A copy of a list of constants.
    CopyList(Py<PyList>),
    /// A copy of a set of constants.
    CopySet(Py<PySet>),
    /// A new `OrderedDict`, usually an empty one: every module has about ten.
    Ordered(Vec<Pair>),
    /// A new dictionary.
    Dict(Vec<Pair>),
    /// A new list.
    List(Vec<RecipeId>),
    /// A tuple of something that is not constant.
    Tuple(Vec<RecipeId>),
    /// What a function makes of the arguments.
    Build(Py<PyAny>, Vec<RecipeId>),
    /// A tensor of this opening.
    Tensor(usize),
    /// An object of this opening.
    Object(usize),
}

impl Recipe {
    /// Makes the value. Nests as deep as the manifest was allowed to.
    pub(super) fn make<'py>(&self, opening: &mut Opening<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
        let py = opening.py;
        Ok(match self {
            Self::Constant(constant) => constant.bind(py).clone(),
            Self::CopyDict(dict) => dict.bind(py).copy()?.into_any(),
            Self::CopyList(list) => {
                let list = list.bind(py);
                list.get_slice(0, list.len()).into_any()
            }
            Self::CopySet(set) if set.bind(py).is_empty() => PySet::empty(py)?.into_any(),
            Self::CopySet(set) => PySet::new(py, set.bind(py))?.into_any(),
            Self::Ordered(pairs) => {
                let dict = opening.plan.ordered.bind(py).call0()?;
                for (key, value) in pairs {
                    dict.set_item(key, opening.make(*value)?)?;
                }
                dict
            }
            Self::Dict(pairs) => {
                let dict = PyDict::new(py);
                for (key, value) in pairs {
                    dict.set_item(key, opening.make(*value)?)?;
                }
                dict.into_any()
            }
            Self::List(items) => PyList::new(py, all(items, opening)?)?.into_any(),
            Self::Tuple(items) => PyTuple::new(py, all(items, opening)?)?.into_any(),
            Self::Build(function, items) => {
                let arguments = PyTuple::new(py, all(items, opening)?)?;
                function.bind(py).call1(arguments)?
            }
            Self::Tensor(index) => opening.tensors[*index].clone(),
            Self::Object(index) => opening.object(*index)?,
        })
    }

    /// The value, if it is immutable.
    pub(super) fn constant(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Constant(constant) => Some(constant),
            _ => None,
        }
    }
}

fn all<'py>(
    items: &[RecipeId],
    opening: &mut Opening<'_, 'py>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    items.iter().map(|&item| opening.make(item)).collect()
}
