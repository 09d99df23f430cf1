//! What Python programs catch.

use std::error::Error as _;
use std::io;

use pyo3::exceptions::{
    PyFileExistsError, PyFileNotFoundError, PyMemoryError, PyOSError, PyPermissionError,
    PyRuntimeError, PyTimeoutError, PyValueError,
};
use pyo3::prelude::*;
use shared_tensor::{Error, ErrorKind};

pyo3::create_exception!(
    shared_tensor,
    StreamError,
    PyRuntimeError,
    "Base of the errors that only streams have."
);
pyo3::create_exception!(
    shared_tensor,
    InconsistentStreamError,
    StreamError,
    "The last write was given up, or its writer exited: there is no frame to trust."
);
pyo3::create_exception!(
    shared_tensor,
    StaleStreamError,
    StreamError,
    "The name leads to another stream than the one that was meant, usually a newer generation."
);
pyo3::create_exception!(
    shared_tensor,
    UnlinkedStreamError,
    StreamError,
    "The stream was unlinked, and holds nothing that this handle has not seen."
);
pyo3::create_exception!(shared_tensor, EmptyStreamError, StreamError, "Nothing was published yet.");
pyo3::create_exception!(
    shared_tensor,
    FencedWriteError,
    StreamError,
    "This process was declared dead while it wrote, or is a forked child: the frame was dropped."
);

/// `ENOSPC`, which Python maps to no class of its own.
const NO_SPACE: i32 = 28;

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("StreamError", py.get_type::<StreamError>())?;
    module.add("InconsistentStreamError", py.get_type::<InconsistentStreamError>())?;
    module.add("StaleStreamError", py.get_type::<StaleStreamError>())?;
    module.add("UnlinkedStreamError", py.get_type::<UnlinkedStreamError>())?;
    module.add("EmptyStreamError", py.get_type::<EmptyStreamError>())?;
    module.add("FencedWriteError", py.get_type::<FencedWriteError>())
}

/// The Python exception for an error of the engine.
pub(crate) fn raised(error: &Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::Corrupt | ErrorKind::Version => {
            PyValueError::new_err(text)
        }
        ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
        ErrorKind::AlreadyExists => PyFileExistsError::new_err(text),
        ErrorKind::PermissionDenied => PyPermissionError::new_err(text),
        ErrorKind::NoSpace => PyOSError::new_err((NO_SPACE, text)),
        ErrorKind::OutOfMemory => PyMemoryError::new_err(text),
        ErrorKind::Timeout => PyTimeoutError::new_err(text),
        ErrorKind::Unlinked => UnlinkedStreamError::new_err(text),
        ErrorKind::Changed => StaleStreamError::new_err(text),
        ErrorKind::Empty => EmptyStreamError::new_err(text),
        ErrorKind::Inconsistent => InconsistentStreamError::new_err(text),
        ErrorKind::Fenced => FencedWriteError::new_err(text),
        ErrorKind::NoHolder => StreamError::new_err(text),
        ErrorKind::Device | ErrorKind::Interrupted => PyRuntimeError::new_err(text),
        _ => of_the_system(error, text),
    }
}

/// What the system refused, with its number and its own words, which come last in the chain.
#[cold]
fn of_the_system(error: &Error, mut text: String) -> PyErr {
    let mut number = None;
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        number = number.or_else(|| cause.downcast_ref::<io::Error>()?.raw_os_error());
        source = cause.source();
    }
    match number {
        Some(number) => PyOSError::new_err((number, text)),
        None => PyOSError::new_err(text),
    }
}

/// A handle that was closed cannot do what was asked.
#[cold]
pub(crate) fn closed(name: &str) -> PyErr {
    PyRuntimeError::new_err(format!(
        "stream '{name}': this is a closed shared memory handle; open the stream again"
    ))
}
