//! The compiled half of the Python package `shared_tensor`.
//!
//! Public names come from the Python files beside it. Nothing here loads NumPy or torch before the
//! first array is asked for. One class does the work, `handle::Handle`: an open stream. All
//! protocol is in the crate `shared_tensor`; what is added here is what Python needs: arrays that
//! own their memory, waits that let other threads run and can be interrupted, locks owned by
//! threads, and one thread that waits for all coroutines.

#![expect(clippy::doc_markdown, reason = "docstrings of Python, in the form of numpydoc")]

mod arrays;
mod collector;
mod errors;
mod gpu;
mod handle;
mod lending;
mod locking;
mod modules;
mod names;
mod options;
mod ownership;
mod patience;
mod pool;
mod reading;
mod report;
mod service;
#[expect(unsafe_code, reason = "the only module with unsafe code: arrays over memory of ours")]
mod sys;
mod torch_frames;
mod watcher;
mod writing;

use pyo3::prelude::*;

/// The compiled half of `shared_tensor`. Its names are re-exported by the package.
#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    collector::register(module)?;
    errors::register(module)?;
    modules::register(module)?;
    names::register(module)?;
    service::register(module)?;
    module.add_class::<handle::Handle>()?;
    module.add_class::<gpu::FrameOnGpu>()?;
    module.add_class::<gpu::LentOnGpu>()?;
    module.add_function(wrap_pyfunction!(gpu::gpu_ordinal, module)?)?;
    module.add_class::<locking::LockScope>()?;
    module.add_class::<locking::ManyScope>()?;
    module.add_class::<writing::WriteScope>()?;
    module.add_class::<watcher::Watcher>()?;
    locking::open_lanes(module.py())?;
    reading::open_lanes(module.py())?;
    writing::open_lanes(module.py())
}
