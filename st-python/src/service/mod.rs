//! The service in Python: servers and clients, and how values travel.
//!
//! No protocol is here. What is added to `shared_tensor::service` is what Python needs: values to and
//! from Python objects, endpoints that are Python functions, waits that let other threads run and can
//! be interrupted, and Python objects that are let go of on a thread of their own.

mod addresses;
mod client;
mod codec;
mod decode;
mod encode;
mod failures;
mod gpu;
pub(crate) mod janitor;
mod local;
mod question;
mod running;
mod server;
mod signature;
mod started;
mod storage;
mod tasks;
mod tensors;
pub(crate) mod torch_pool;

use pyo3::prelude::*;
use shared_tensor::DType;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let names: Vec<&str> = DType::ALL.iter().map(|dtype| dtype.name()).collect();
    module.add("SERVICE_DTYPES", pyo3::types::PyFrozenSet::new(py, names)?)?;
    module.add_class::<storage::ServiceStorage>()?;
    module.add_class::<storage::ServiceValue>()?;
    module.add_class::<gpu::ServiceGpu>()?;
    module.add_class::<gpu::ServiceBacking>()?;
    module.add_function(wrap_pyfunction!(gpu::gpu_uuid, module)?)?;
    module.add_function(wrap_pyfunction!(gpu::service_memory, module)?)?;
    module.add_function(wrap_pyfunction!(torch_pool::gpu_pool_aside, module)?)?;
    module.add_function(wrap_pyfunction!(torch_pool::gpu_pool_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(torch_pool::gpu_pool_reach, module)?)?;
    module.add_function(wrap_pyfunction!(torch_pool::gpu_pool_stream, module)?)?;
    module.add_function(wrap_pyfunction!(torch_pool::gpu_pool_take_back, module)?)?;
    module.add_function(wrap_pyfunction!(gpu::gpus, module)?)?;
    module.add_function(wrap_pyfunction!(gpu::gpu_fault, module)?)?;
    module.add_function(wrap_pyfunction!(gpu::driver_calls, module)?)?;
    module.add_class::<client::ServiceClient>()?;
    module.add_class::<client::ServiceLease>()?;
    module.add_class::<question::ServiceQuestion>()?;
    module.add_class::<started::ServiceStarted>()?;
    module.add_class::<server::ServiceServer>()?;
    module.add_function(wrap_pyfunction!(service_directory, module)?)?;
    module.add_function(wrap_pyfunction!(janitor::service_close_janitor, module)?)?;
    module.add_function(wrap_pyfunction!(running::service_progress, module)?)?;
    module.add_function(wrap_pyfunction!(running::service_cancelled, module)?)
}

/// Where the sockets of this user's servers are; made if it is not there.
///
/// Raises
/// ------
/// OSError
///     If there is no directory that only this user may enter.
#[pyfunction]
fn service_directory() -> PyResult<String> {
    let directory = shared_tensor::service::runtime_directory();
    let directory =
        directory.map_err(|error| pyo3::exceptions::PyOSError::new_err(error.to_string()))?;
    Ok(directory.path().display().to_string())
}
