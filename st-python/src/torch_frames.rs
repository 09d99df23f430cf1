//! Tensors of torch as frames, where NumPy does not take them as they are. Torch is not imported for
//! that: who has a tensor has imported it.

use numpy::PyUntypedArray;
use pyo3::prelude::*;
use shared_tensor::DType;

/// Whether a stream of this type has elements that NumPy lacks.
pub(crate) fn is_beyond_numpy(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F8E4M3 | DType::F8E5M2)
}

/// The bits of a tensor as elements of `dtype`, which NumPy lacks, in signed integers of that size.
///
/// `None` if it is no tensor, or if `casting` does not let it be converted.
pub(crate) fn bits<'py>(
    value: &Bound<'py, PyAny>,
    dtype: DType,
    casting: &str,
) -> PyResult<Option<Bound<'py, PyUntypedArray>>> {
    if !is_tensor(value)? {
        return Ok(None);
    }
    let torch = value.py().import("torch")?;
    let own = value.getattr("dtype")?;
    let wanted = torch.getattr(dtype.name())?;
    let mut tensor = plain(value)?;
    if !own.eq(&wanted)? {
        // Torch's rule is NumPy's 'same_kind'.
        let is_allowed = match casting {
            "unsafe" => true,
            "same_kind" => torch.call_method1("can_cast", (&own, &wanted))?.is_truthy()?,
            _ => false,
        };
        if !is_allowed {
            return Ok(None);
        }
        tensor = tensor.call_method1("to", (wanted,))?;
    }
    let integers = torch.getattr(format!("int{}", 8 * dtype.bytes()))?;
    let array = tensor
        .call_method0("contiguous")?
        .call_method1("view", (integers,))?
        .call_method0("numpy")?;
    Ok(Some(array.cast_into::<PyUntypedArray>()?))
}

/// `value` as NumPy takes it: of a tensor its numbers, without its history and in the host's memory, of
/// other things themselves. Floats of which NumPy has no type become float32, which holds them all; not
/// so by a rule, `casting`, that allows no change of type.
pub(crate) fn for_numpy<'py>(
    value: &Bound<'py, PyAny>,
    casting: &str,
) -> PyResult<Bound<'py, PyAny>> {
    if !is_tensor(value)? {
        return Ok(value.clone());
    }
    let tensor = plain(value)?;
    let kind = tensor.getattr("dtype")?.str()?.to_string();
    let is_beyond = kind.starts_with("torch.bfloat") || kind.starts_with("torch.float8");
    if is_beyond && !matches!(casting, "no" | "equiv") {
        tensor.call_method0("float")
    } else {
        Ok(tensor)
    }
}

fn is_tensor(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    value.hasattr("untyped_storage")
}

fn plain<'py>(tensor: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let detached = tensor.call_method0("detach")?.call_method0("cpu")?;
    // Conjugates and negatives are kept as a mark on the tensor, which NumPy knows nothing of.
    detached.call_method0("resolve_conj")?.call_method0("resolve_neg")
}
