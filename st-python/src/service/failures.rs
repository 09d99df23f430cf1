//! Errors: Python's as failures, and failures as Python's. Their classes are defined in Python.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use shared_tensor::service::{Address, Code, Error, Failure, ServeError};

use super::codec::{Codec, in_terms_of_user};

/// What an endpoint raised.
pub(super) fn of_python(py: Python<'_>, codec: &Codec, error: &PyErr) -> Failure {
    let value = error.value(py);
    if let Some(traceback) = error.traceback(py) {
        // Old interpreters keep it apart. Without it the error is told all the same.
        let _ = value.setattr(intern!(py, "__traceback__"), traceback);
    }
    let told = codec
        .bind(py)
        .call_method1(intern!(py, "described"), (value,))
        .and_then(|told| told.extract::<(u8, String, String, String)>());
    let Ok((code, type_name, message, traceback)) = told else {
        // An error that cannot be shown.
        let name = error.get_type(py).name();
        let name = name.map_or_else(|_| "Exception".to_owned(), |name| name.to_string());
        return Failure::other(name, "the error has no text: its __str__ failed");
    };
    Failure {
        code: Code::from_number(code).unwrap_or_default(),
        ..Failure::other(type_name, message).with_traceback(traceback)
    }
}

/// The error to raise for a failure that a server told.
pub(super) fn remote(py: Python<'_>, codec: &Codec, failure: &Failure) -> PyErr {
    let arguments = (
        failure.code.contract_number(),
        failure.type_name.as_str(),
        failure.message.as_str(),
        failure.traceback.as_deref(),
        failure.data.as_deref(),
    );
    made(codec.bind(py).call_method1(intern!(py, "remote"), arguments))
}

/// The error to raise for what went wrong on this side of a call.
pub(super) fn of_client(py: Python<'_>, codec: &Codec, error: &Error) -> PyErr {
    let kind = match error {
        Error::Failed(failure) => return remote(py, codec, failure),
        Error::Arguments(_) => "serialization",
        Error::Answer(_) => "protocol",
        Error::Place(_) => "configuration",
        Error::TimedOut { .. } => "timeout",
        _ => "client",
    };
    raised(py, codec, kind, &codec.in_terms_of_user(with_causes(error)))
}

pub(super) fn of_serving(
    py: Python<'_>,
    codec: &Codec,
    place: &Address,
    error: &ServeError,
) -> PyErr {
    raised(py, codec, "configuration", &in_terms_of_user(with_causes(error), place))
}

/// The text of an error, and of those that led to it as far as it does not say them itself.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The error for what may not be passed.
pub(super) fn refused(py: Python<'_>, codec: &Codec, found: &str) -> PyErr {
    raised(py, codec, "capability", found)
}

/// The error for a plain value that cannot be written down.
pub(super) fn unserialisable(py: Python<'_>, found: &str) -> PyErr {
    let kind = py
        .import(intern!(py, "shared_tensor.errors"))
        .and_then(|errors| errors.getattr(intern!(py, "SharedTensorSerializationError")));
    made(kind.and_then(|kind| kind.call1((format!("{found} cannot be passed"),))))
}

fn raised(py: Python<'_>, codec: &Codec, kind: &str, text: &str) -> PyErr {
    let arguments = (kind, PyString::new(py, text));
    made(codec.bind(py).call_method1(intern!(py, "raised"), arguments))
}

fn made(error: PyResult<Bound<'_, PyAny>>) -> PyErr {
    match error {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}
