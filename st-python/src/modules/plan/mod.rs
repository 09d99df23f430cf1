//! `Plan`: a manifest whose names are resolved, ready to be opened any number of times.

mod compile;
mod opening;
mod recipe;
pub(crate) mod tensors;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};
use shared_tensor::manifest::{Limits, Manifest};

use super::memory::Memory;
use crate::collector;
use crate::sys::instances::Maker;
use opening::Opening;
use recipe::{Recipe, RecipeId};
use tensors::{TensorPlan, Torch};

/// A private mapping costs as much as copying some pages, so that a mapping is for more than this.
const COPY_BYTES_MAX: usize = 1 << 20;

/// A manifest, verified and with every name in it resolved.
///
/// Parameters
/// ----------
/// manifest : bytes
///     As an encoder made it.
/// resolver : object
///     Turns names into classes, functions and constants, or refuses.
/// torch : Torch
///     The way into torch.
///
/// Raises
/// ------
/// ValueError
///     If the manifest is damaged, too large, or of another format.
#[pyclass(frozen, module = "shared_tensor._native")]
#[derive(Debug)]
pub(crate) struct Plan {
    manifest: Manifest,
    torch: Py<Torch>,
    recipes: Vec<Recipe>,
    templates: Vec<TemplatePlan>,
    objects: Vec<ObjectPlan>,
    tensors: Vec<TensorPlan>,
    steps: Vec<StepPlan>,
    maker: Maker,
    /// The class `collections.OrderedDict`.
    ordered: Py<PyAny>,
}

/// What objects of one class have in common.
#[derive(Debug)]
struct TemplatePlan {
    class: Py<PyType>,
    /// Makes an empty instance of a class that is a container too; `None`: `object.__new__`.
    make: Option<Py<PyAny>>,
    /// Every attribute, with its value if that is constant.
    attributes: Py<PyDict>,
    /// Attributes that are made anew for each object.
    fresh: Vec<(Py<PyString>, RecipeId)>,
    /// Attributes of which each object has its own.
    own: Vec<Py<PyString>>,
    /// Called with each object of this class when all is done.
    finish: Option<Py<PyAny>>,
}

/// How an object is made.
#[derive(Debug)]
enum ObjectPlan {
    /// A new list, set or dictionary with this content.
    List(Vec<RecipeId>),
    Set(Vec<Py<PyAny>>),
    Dict(Vec<recipe::Pair>),
    Ordered(Vec<recipe::Pair>),
    /// An instance with the values of its own.
    Instance(usize, Vec<RecipeId>),
    /// An instance with slots, by their descriptors, or with content, put in by the container's class.
    Extended {
        template: usize,
        own: Vec<RecipeId>,
        slots: Vec<(Py<PyAny>, RecipeId)>,
        /// `(object, content)`
        contents: Option<(Py<PyAny>, RecipeId)>,
    },
    Built(RecipeId),
}

#[derive(Debug)]
struct StepPlan {
    action: Py<PyAny>,
    target: usize,
    argument: RecipeId,
}

#[pymethods]
impl Plan {
    #[new]
    #[pyo3(signature = (manifest, resolver, torch))]
    fn new(manifest: &[u8], resolver: &Bound<'_, PyAny>, torch: Py<Torch>) -> PyResult<Self> {
        let py = resolver.py();
        let manifest = decode(manifest)?;
        collector::paused(py, || compile::compile(manifest, resolver, torch))
    }

    /// Build the object.
    ///
    /// Parameters
    /// ----------
    /// memory : sequence of Memory
    ///     One for each storage, in the manifest's order.
    /// private : callable, optional
    ///     Gives a new private mapping of the storage of this number, for one that is too large to be
    ///     copied. Without it, private storages are copied, however large.
    /// isolate : bool
    ///     Whether every storage is private to this object.
    /// copy_max : int, optional
    ///     Private storages up to this many bytes are copied rather than mapped; 1 MiB by default.
    ///
    /// Raises
    /// ------
    /// ValueError
    ///     If the memory does not fit the manifest.
    #[pyo3(signature = (memory, *, private = None, isolate = false, copy_max = None))]
    #[expect(clippy::needless_pass_by_value, reason = "lists of Python arrive as vectors")]
    fn open<'py>(
        &self,
        py: Python<'py>,
        memory: Vec<Bound<'py, Memory>>,
        private: Option<&Bound<'py, PyAny>>,
        isolate: bool,
        copy_max: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        collector::paused(py, || {
            let copy_max = copy_max.unwrap_or(COPY_BYTES_MAX);
            let wanted = opening::Wanted { private, isolate, copy_max };
            let places = opening::places(&self.manifest, &memory, &wanted)?;
            Opening::new(py, self, places).run()
        })
    }

    /// Bytes of each storage, in order.
    #[getter]
    fn storage_bytes(&self) -> Vec<u64> {
        self.manifest.storages().iter().map(|storage| storage.bytes).collect()
    }

    /// How many tensors, objects and templates there are.
    #[getter]
    fn counts(&self) -> (usize, usize, usize) {
        (self.tensors.len(), self.objects.len(), self.templates.len())
    }
}

/// What a manifest says about where it is from.
///
/// Returns
/// -------
/// tuple
///     Packages and versions; modules, files and hashes of sources; registries and names; paths.
///
/// Raises
/// ------
/// ValueError
///     As for `Plan`.
#[pyfunction]
#[expect(clippy::type_complexity, reason = "what Python takes apart at once")]
pub(crate) fn manifest_origin(
    manifest: &[u8],
) -> PyResult<(
    Vec<(String, String)>,
    Vec<(String, String, Vec<u8>)>,
    Vec<(String, String)>,
    Vec<(String, String)>,
)> {
    let manifest = decode(manifest)?;
    let packages = manifest.packages().iter().map(|it| (it.name.clone(), it.version.clone()));
    let sources = manifest
        .sources()
        .iter()
        .map(|it| (it.module.clone(), it.file.clone(), it.sha256.to_vec()));
    let requirements =
        manifest.requirements().iter().map(|it| (it.registry.clone(), it.name.clone()));
    let paths = manifest.paths().iter().map(|path| {
        (manifest.text(path.module).to_owned(), manifest.text(path.qualname).to_owned())
    });
    Ok((packages.collect(), sources.collect(), requirements.collect(), paths.collect()))
}

fn decode(manifest: &[u8]) -> PyResult<Manifest> {
    Manifest::decode(manifest, &Limits::default())
        .map_err(|error| PyValueError::new_err(error.to_string()))
}
