//! One opening: everything exists before anything is filled, so that cycles need no order.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet};
use shared_tensor::manifest::{Manifest, Sharing};

use super::recipe::{Pair, RecipeId};
use super::tensors::Storages;
use super::{ObjectPlan, Plan, TemplatePlan};
use crate::modules::memory::Memory;
use crate::sys::instances::set_dict;
use crate::sys::place::Place;

/// What the caller wants of private storages.
pub(super) struct Wanted<'a, 'py> {
    pub(super) private: Option<&'a Bound<'py, PyAny>>,
    pub(super) isolate: bool,
    pub(super) copy_max: usize,
}

/// Bytes that one opening copies at most: more is mapped, however small its parts. A manifest may name
/// the same memory any number of times.
const COPIED_MAX: usize = 64 << 20;

/// Where each storage lies for this opening.
pub(super) fn places(
    manifest: &Manifest,
    memory: &[Bound<'_, Memory>],
    wanted: &Wanted<'_, '_>,
) -> PyResult<Vec<Place>> {
    let given: Vec<Place> = memory.iter().map(|memory| memory.get().place(memory.py())).collect();
    verify(manifest, given.iter())?;
    let mut places = Vec::with_capacity(memory.len());
    let (mut has_changed, mut copied) = (false, 0_usize);
    for (index, (storage, place)) in manifest.storages().iter().zip(given).enumerate() {
        let is_private = storage.sharing == Sharing::Private
            || wanted.isolate && storage.sharing == Sharing::Shared;
        let bytes = usize::try_from(storage.bytes).unwrap_or(usize::MAX);
        if !is_private || bytes == 0 {
            places.push(place);
            continue;
        }
        match wanted.private {
            Some(private)
                if bytes > wanted.copy_max
                    || copied.saturating_add(bytes) > COPIED_MAX
                    || place.is_on_device() =>
            {
                let mapped = private.call1((index,))?.cast_into::<Memory>()?;
                has_changed = true;
                places.push(mapped.get().place(mapped.py()));
            }
            _ if place.is_on_device() => {
                return Err(PyValueError::new_err(
                    "what is private on a GPU is copied by torch: pass private=",
                ));
            }
            _ => {
                copied = copied.saturating_add(bytes);
                places.push(place.copy(bytes));
            }
        }
    }
    if has_changed {
        verify(manifest, places.iter())?;
    }
    Ok(places)
}

fn verify<'a>(manifest: &Manifest, places: impl Iterator<Item = &'a Place>) -> PyResult<()> {
    let facts: Vec<(u64, usize)> =
        places.map(|place| (place.bytes() as u64, place.address())).collect();
    manifest.validate_against(&facts).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// What exists so far.
pub(super) struct Opening<'a, 'py> {
    pub(super) py: Python<'py>,
    pub(super) plan: &'a Plan,
    pub(super) tensors: Vec<Bound<'py, PyAny>>,
    /// Built ones when they are first asked for.
    objects: Vec<Option<Bound<'py, PyAny>>>,
    /// Built objects before this one exist.
    next_built: usize,
    storages: Storages<'a, 'py>,
}

impl<'a, 'py> Opening<'a, 'py> {
    pub(super) fn new(py: Python<'py>, plan: &'a Plan, places: Vec<Place>) -> Self {
        let storages = Storages::new(&plan.manifest, places);
        let tensors = Vec::with_capacity(plan.tensors.len());
        let objects = Vec::with_capacity(plan.objects.len());
        Self { py, plan, tensors, objects, next_built: 0, storages }
    }

    pub(super) fn run(mut self) -> PyResult<Bound<'py, PyAny>> {
        let plan = self.plan;
        let torch = plan.torch.get();
        for tensor in &plan.tensors {
            let tensor = tensor.make(self.py, torch, &mut self.storages)?;
            self.tensors.push(tensor);
        }
        for object in &plan.objects {
            let shell = self.shell(object)?;
            self.objects.push(shell);
        }
        for index in 0..plan.objects.len() {
            self.fill(index)?;
        }
        self.attributes()?;
        for step in &plan.steps {
            let target = self.object(step.target)?;
            let argument = self.make(step.argument)?;
            step.action.bind(self.py).call1((target, argument))?;
        }
        let root = self.make(plan.manifest.root().index())?;
        self.finish()?;
        Ok(root)
    }

    /// Makes the value of a recipe.
    pub(super) fn make(&mut self, id: RecipeId) -> PyResult<Bound<'py, PyAny>> {
        let plan = self.plan;
        plan.recipes[id].make(self)
    }

    /// An object, perhaps not filled yet.
    pub(super) fn object(&mut self, index: usize) -> PyResult<Bound<'py, PyAny>> {
        if self.objects[index].is_none() {
            // Built ones only need built ones before them, so that going through them in order needs
            // no stack, however long a chain of them is.
            while self.next_built <= index {
                let next = self.next_built;
                if let ObjectPlan::Built(recipe) = &self.plan.objects[next] {
                    self.objects[next] = Some(self.make(*recipe)?);
                }
                self.next_built += 1;
            }
        }
        self.objects[index]
            .clone()
            .ok_or_else(|| PyValueError::new_err("the manifest refers to an object too early"))
    }

    fn shell(&self, object: &ObjectPlan) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = self.py;
        Ok(Some(match object {
            ObjectPlan::List(_) => PyList::empty(py).into_any(),
            ObjectPlan::Set(_) => PySet::empty(py)?.into_any(),
            ObjectPlan::Dict(_) => PyDict::new(py).into_any(),
            ObjectPlan::Ordered(_) => self.plan.ordered.bind(py).call0()?,
            ObjectPlan::Instance(template, _) | ObjectPlan::Extended { template, .. } => {
                let template = &self.plan.templates[*template];
                let class = template.class.bind(py);
                match &template.make {
                    Some(make) => make.bind(py).call1((class,))?,
                    None => self.plan.maker.make(class)?,
                }
            }
            ObjectPlan::Built(_) => return Ok(None),
        }))
    }

    fn fill(&mut self, index: usize) -> PyResult<()> {
        let plan = self.plan;
        let object = self.object(index)?;
        match &plan.objects[index] {
            ObjectPlan::List(items) => {
                let list = object.cast::<PyList>()?;
                for &item in items {
                    list.append(self.make(item)?)?;
                }
            }
            ObjectPlan::Set(items) => {
                let set = object.cast::<PySet>()?;
                items.iter().try_for_each(|item| set.add(item))?;
            }
            ObjectPlan::Dict(pairs) | ObjectPlan::Ordered(pairs) => self.pairs(&object, pairs)?,
            ObjectPlan::Instance(template, own) => {
                self.namespace(&object, &plan.templates[*template], own)?;
            }
            ObjectPlan::Extended { template, own, slots, contents } => {
                let template = &plan.templates[*template];
                if !template.attributes.bind(self.py).is_empty() {
                    self.namespace(&object, template, own)?;
                }
                for (set, value) in slots {
                    let value = self.make(*value)?;
                    set.bind(self.py).call1((&object, value))?;
                }
                if let Some((put, contents)) = contents {
                    let contents = self.make(*contents)?;
                    put.bind(self.py).call1((&object, contents))?;
                }
            }
            ObjectPlan::Built(_) => {}
        }
        Ok(())
    }

    fn pairs(&mut self, dict: &Bound<'py, PyAny>, pairs: &[Pair]) -> PyResult<()> {
        for (key, value) in pairs {
            dict.set_item(key, self.make(*value)?)?;
        }
        Ok(())
    }

    /// Gives the object a `__dict__` of its own.
    fn namespace(
        &mut self,
        object: &Bound<'py, PyAny>,
        template: &TemplatePlan,
        own: &[RecipeId],
    ) -> PyResult<()> {
        let dict = template.attributes.bind(self.py).copy()?;
        for (key, value) in &template.fresh {
            dict.set_item(key, self.make(*value)?)?;
        }
        for (key, value) in template.own.iter().zip(own) {
            dict.set_item(key, self.make(*value)?)?;
        }
        set_dict(object, &dict)
    }

    /// Gives the tensors their Python attributes.
    fn attributes(&mut self) -> PyResult<()> {
        let plan = self.plan;
        for (index, tensor) in plan.manifest.tensors().iter().enumerate() {
            let Some(attributes) = tensor.attributes else { continue };
            let attributes = self.make(attributes.index())?.cast_into::<PyDict>()?;
            set_dict(&self.tensors[index], &attributes)?;
        }
        Ok(())
    }

    fn finish(&self) -> PyResult<()> {
        for (object, plan) in self.objects.iter().zip(&self.plan.objects) {
            let (
                ObjectPlan::Instance(template, _) | ObjectPlan::Extended { template, .. },
                Some(object),
            ) = (plan, object)
            else {
                continue;
            };
            if let Some(finish) = &self.plan.templates[*template].finish {
                finish.bind(self.py).call1((object,))?;
            }
        }
        Ok(())
    }
}
