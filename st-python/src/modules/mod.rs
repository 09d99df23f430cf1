//! Modules without pickle: writing manifests, and opening them by a plan that is made once.

mod builder;
pub(crate) mod keep;
pub(crate) mod memory;
pub(crate) mod plan;

use pyo3::prelude::*;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<builder::ManifestBuilder>()?;
    module.add_class::<memory::Memory>()?;
    module.add_class::<plan::Plan>()?;
    module.add_class::<plan::tensors::Torch>()?;
    module.add_function(wrap_pyfunction!(plan::manifest_origin, module)?)?;
    module.add_function(wrap_pyfunction!(memory::create_region, module)?)?;
    module.add_function(wrap_pyfunction!(memory::give_back_free_memory, module)?)?;
    module.add_function(wrap_pyfunction!(memory::seal_region, module)?)
}
