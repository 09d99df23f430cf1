//! The compiled half of the Python package `shared_tensor`: registration only.
//!
//! Public names come from the Python files beside it. Nothing here, or imported from here, loads
//! NumPy or torch.

use pyo3::prelude::*;

/// The compiled half of `shared_tensor`. Its names are re-exported by the package.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
