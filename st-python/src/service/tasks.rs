//! What there is to know of tasks and objects, as dicts.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use shared_tensor::service::{ObjectInfo, TaskInfo};

/// The fields of `shared_tensor.TaskInfo`.
pub(super) fn task<'py>(py: Python<'py>, info: &TaskInfo) -> PyResult<Bound<'py, PyDict>> {
    let metadata = PyDict::new(py);
    if info.status == shared_tensor::service::TaskStatus::Completed {
        metadata.set_item("object_id", info.object.map(|id| id.to_string()))?;
    }
    if let Some(progress) = &info.progress {
        let told = PyDict::new(py);
        told.set_item("done", progress.done)?;
        told.set_item("total", progress.total)?;
        told.set_item("note", &progress.note)?;
        metadata.set_item("progress", told)?;
    }
    let dict = PyDict::new(py);
    dict.set_item("task_id", info.id.hyphenated())?;
    dict.set_item("endpoint", &info.endpoint)?;
    dict.set_item("status", info.status.name())?;
    dict.set_item("created_at", info.created_at)?;
    dict.set_item("started_at", info.started_at)?;
    dict.set_item("completed_at", info.completed_at)?;
    dict.set_item("error_type", info.error_type.as_deref())?;
    dict.set_item("error_message", info.error_message.as_deref())?;
    dict.set_item("metadata", metadata)?;
    Ok(dict)
}

/// The fields that `get_object_info` tells.
pub(super) fn object<'py>(py: Python<'py>, info: &ObjectInfo) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("object_id", info.object.to_string())?;
    dict.set_item("endpoint", &info.endpoint)?;
    dict.set_item("cache_key", info.cache_key.as_deref())?;
    dict.set_item("refcount", info.refcount)?;
    dict.set_item("created_at", info.created_at)?;
    dict.set_item("last_accessed_at", info.last_accessed_at)?;
    dict.set_item("server_id", info.server.to_string())?;
    Ok(dict)
}
