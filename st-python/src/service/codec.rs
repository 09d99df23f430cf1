//! The Python object that knows tensors, modules and errors: `shared_tensor._service.payload.Codec`.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use shared_tensor::service::Address;

use super::encode::Rules;
use super::storage::ServiceValue;

/// Clones are the same object; they are let go of by the janitor.
#[derive(Debug)]
pub(crate) struct Codec {
    object: Option<Py<PyAny>>,
    /// Where a client looks for its server.
    places: Vec<Address>,
}

impl Codec {
    pub(super) fn new(object: Py<PyAny>) -> Self {
        Self { object: Some(object), places: Vec::new() }
    }

    pub(super) fn at(mut self, places: Vec<Address>) -> Self {
        self.places = places;
        self
    }

    /// A text with the paths that the user knows.
    pub(super) fn in_terms_of_user(&self, text: String) -> String {
        self.places.iter().fold(text, in_terms_of_user)
    }

    pub(super) fn bind<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.object.as_ref().expect("there until it is dropped").bind(py).clone()
    }

    /// Puts what is no plain value where others can map it.
    pub(super) fn lend<'py>(
        &self,
        leaves: &Bound<'py, PyList>,
        rules: Rules,
    ) -> PyResult<Vec<Bound<'py, ServiceValue>>> {
        let py = leaves.py();
        let options = PyDict::new(py);
        options.set_item(intern!(py, "writable"), rules.is_writable)?;
        options.set_item(intern!(py, "is_result"), rules.is_result)?;
        options.set_item(intern!(py, "copies"), rules.copies)?;
        options.set_item(intern!(py, "process"), rules.process)?;
        self.bind(py).call_method(intern!(py, "lend"), (leaves,), Some(&options))?.extract()
    }
}

/// A text with the path that was given in place of that of the socket behind it.
pub(super) fn in_terms_of_user(text: String, place: &Address) -> String {
    let (Some(link), Ok(socket)) = (place.signpost(), place.socket()) else { return text };
    let (link, socket) = (link.display().to_string(), socket.display().to_string());
    // What lies beside the socket does not lie beside its link.
    if text.contains(&format!("{socket}.")) { text } else { text.replace(&socket, &link) }
}

impl Drop for Codec {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            super::janitor::let_go(object);
        }
    }
}
