//! From a manifest to a plan: every name resolved, every constant made.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBytes, PyComplex, PyDict, PyFloat, PyFrozenSet, PyList, PySet, PyString, PyTuple, PyType,
};
use shared_tensor::manifest::{
    Action, Manifest, MappingKind, Object, SequenceKind, TensorClass, TorchKind, Value, ValueId,
};

use super::recipe::{Pair, Recipe, RecipeId};
use super::tensors::{TensorPlan, Torch};
use super::{ObjectPlan, Plan, StepPlan, TemplatePlan};
use crate::sys::instances::Maker;

pub(super) fn compile(
    manifest: Manifest,
    resolver: &Bound<'_, PyAny>,
    torch: Py<Torch>,
) -> PyResult<Plan> {
    let py = resolver.py();
    let mut compiler = Compiler { py, manifest: &manifest, resolver, recipes: Vec::new() };
    compiler.recipes.reserve(manifest.values().len());
    for value in manifest.values() {
        let recipe = compiler.recipe(value)?;
        compiler.recipes.push(recipe);
    }
    let templates = compiler.templates()?;
    let objects = compiler.objects(&templates)?;
    let steps = compiler.steps()?;
    let tensors = TensorPlan::all(&manifest, |class| compiler.tensor_class(class))?;
    let recipes = compiler.recipes;
    Ok(Plan {
        torch,
        recipes,
        templates,
        objects,
        tensors,
        steps,
        maker: Maker::new(py)?,
        ordered: py.import("collections")?.getattr("OrderedDict")?.unbind(),
        manifest,
    })
}

struct Compiler<'a, 'py> {
    py: Python<'py>,
    manifest: &'a Manifest,
    resolver: &'a Bound<'py, PyAny>,
    /// One for each value so far.
    recipes: Vec<Recipe>,
}

impl<'py> Compiler<'_, 'py> {
    fn recipe(&self, value: &Value) -> PyResult<Recipe> {
        let py = self.py;
        Ok(Recipe::Constant(match value {
            Value::None => py.None(),
            Value::Ellipsis => py.Ellipsis(),
            Value::Bool(truth) => truth.into_pyobject(py)?.to_owned().into_any().unbind(),
            Value::Int(number) => number.into_pyobject(py)?.into_any().unbind(),
            Value::BigInt(bytes) => self.big_int(bytes)?,
            Value::Float(bits) => PyFloat::new(py, f64::from_bits(*bits)).into_any().unbind(),
            Value::Complex(real, imaginary) => {
                let (real, imaginary) = (f64::from_bits(*real), f64::from_bits(*imaginary));
                PyComplex::from_doubles(py, real, imaginary).into_any().unbind()
            }
            Value::Text(id) => PyString::new(py, self.manifest.text(*id)).into_any().unbind(),
            Value::Bytes(bytes) => PyBytes::new(py, bytes).into_any().unbind(),
            Value::Torch(kind, name) => {
                self.ask("torch", (kind_name(*kind)?, self.manifest.text(*name)))?
            }
            Value::Device(kind, index) => {
                self.ask("device", (self.manifest.text(*kind), *index))?
            }
            Value::Class(path) => self.ask("class_", self.manifest.path(*path))?,
            Value::Function(path) => self.ask("function", self.manifest.path(*path))?,
            Value::Sequence(kind, items) => return self.sequence(*kind, items),
            Value::Mapping(kind, pairs) => return self.mapping(*kind, pairs),
            Value::Built(builder, arguments) => {
                let function = self.ask("builder", (builder.name(),))?;
                let constants = self.constants(arguments);
                if let (true, Some(constants)) = (builder.is_constant(), constants) {
                    function.bind(py).call1(PyTuple::new(py, constants)?)?.unbind()
                } else {
                    return Ok(Recipe::Build(function, indices(arguments)));
                }
            }
            Value::Tensor(id) => return Ok(Recipe::Tensor(id.index())),
            Value::Object(id) => return Ok(Recipe::Object(id.index())),
            _ => return Err(newer()),
        }))
    }

    fn ask(&self, what: &str, arguments: impl pyo3::call::PyCallArgs<'py>) -> PyResult<Py<PyAny>> {
        Ok(self.resolver.call_method1(what, arguments)?.unbind())
    }

    fn big_int(&self, bytes: &[u8]) -> PyResult<Py<PyAny>> {
        let keywords = PyDict::new(self.py);
        keywords.set_item("signed", true)?;
        let int = self.py.import("builtins")?.getattr("int")?;
        let bytes = PyBytes::new(self.py, bytes);
        Ok(int.call_method("from_bytes", (bytes, "little"), Some(&keywords))?.unbind())
    }

    /// The values, if all of them are immutable.
    fn constants(&self, ids: &[ValueId]) -> Option<Vec<Bound<'py, PyAny>>> {
        let constant =
            |id: &ValueId| Some(self.recipes[id.index()].constant()?.bind(self.py).clone());
        ids.iter().map(constant).collect()
    }

    fn constant(&self, id: ValueId) -> PyResult<&Py<PyAny>> {
        self.recipes[id.index()]
            .constant()
            .ok_or_else(|| PyValueError::new_err("the manifest has a key that is no constant"))
    }

    fn sequence(&self, kind: SequenceKind, ids: &[ValueId]) -> PyResult<Recipe> {
        let py = self.py;
        let constants = self.constants(ids);
        Ok(match (kind, constants) {
            (SequenceKind::Tuple, Some(items)) => {
                Recipe::Constant(PyTuple::new(py, items)?.into_any().unbind())
            }
            (SequenceKind::Tuple, None) => Recipe::Tuple(indices(ids)),
            (SequenceKind::List, Some(items)) => Recipe::CopyList(PyList::new(py, items)?.unbind()),
            (SequenceKind::List, None) => Recipe::List(indices(ids)),
            (SequenceKind::Set, Some(items)) => Recipe::CopySet(PySet::new(py, items)?.unbind()),
            (SequenceKind::FrozenSet, Some(items)) => {
                Recipe::Constant(PyFrozenSet::new(py, items)?.into_any().unbind())
            }
            (SequenceKind::Size, Some(items)) => {
                Recipe::Constant(self.ask("size", (PyTuple::new(py, items)?,))?)
            }
            _ => return Err(newer()),
        })
    }

    fn pairs(&self, pairs: &[(ValueId, ValueId)]) -> PyResult<Vec<Pair>> {
        let pair = |&(key, value): &(ValueId, ValueId)| {
            Ok((self.constant(key)?.clone_ref(self.py), value.index()))
        };
        pairs.iter().map(pair).collect()
    }

    fn mapping(&self, kind: MappingKind, ids: &[(ValueId, ValueId)]) -> PyResult<Recipe> {
        let pairs = self.pairs(ids)?;
        Ok(match kind {
            MappingKind::Ordered => Recipe::Ordered(pairs),
            MappingKind::Dict => {
                let dict = PyDict::new(self.py);
                for (key, value) in &pairs {
                    let Some(constant) = self.recipes[*value].constant() else {
                        return Ok(Recipe::Dict(pairs));
                    };
                    dict.set_item(key, constant)?;
                }
                Recipe::CopyDict(dict.unbind())
            }
            _ => return Err(newer()),
        })
    }

    fn templates(&self) -> PyResult<Vec<TemplatePlan>> {
        let py = self.py;
        self.manifest
            .templates()
            .iter()
            .map(|template| {
                let answer =
                    self.resolver.call_method1("instance", self.manifest.path(template.class))?;
                let (class, make, finish): (
                    Bound<'py, PyType>,
                    Option<Py<PyAny>>,
                    Option<Py<PyAny>>,
                ) = answer.extract()?;
                let attributes = PyDict::new(py);
                let (mut fresh, mut own) = (Vec::new(), Vec::new());
                for &(key, value) in &template.attributes {
                    let key = PyString::intern(py, self.manifest.text(key));
                    match value.map(|value| (value.index(), &self.recipes[value.index()])) {
                        Some((_, Recipe::Constant(constant))) => {
                            attributes.set_item(&key, constant)?;
                        }
                        // A key with nothing yet keeps its place in the order.
                        Some((recipe, _)) => {
                            attributes.set_item(&key, py.None())?;
                            fresh.push((key.unbind(), recipe));
                        }
                        None => {
                            attributes.set_item(&key, py.None())?;
                            own.push(key.unbind());
                        }
                    }
                }
                let attributes = attributes.unbind();
                Ok(TemplatePlan { class: class.unbind(), make, attributes, fresh, own, finish })
            })
            .collect()
    }

    fn objects(&self, templates: &[TemplatePlan]) -> PyResult<Vec<ObjectPlan>> {
        let py = self.py;
        let plan = |object: &Object| {
            Ok(match object {
                Object::List(items) => ObjectPlan::List(indices(items)),
                Object::Set(items) => {
                    let member = |&id: &ValueId| Ok(self.constant(id)?.clone_ref(py));
                    ObjectPlan::Set(items.iter().map(member).collect::<PyResult<_>>()?)
                }
                Object::Mapping(MappingKind::Ordered, pairs) => {
                    ObjectPlan::Ordered(self.pairs(pairs)?)
                }
                Object::Mapping(_, pairs) => ObjectPlan::Dict(self.pairs(pairs)?),
                Object::Instance(template, own) => {
                    ObjectPlan::Instance(template.index(), indices(own))
                }
                Object::Extended { template, own, slots, contents } => {
                    let class = templates[template.index()].class.bind(py);
                    let slot = |&(name, value): &(_, ValueId)| {
                        let name = self.manifest.text(name);
                        Ok((self.ask("slot", (class, name))?, value.index()))
                    };
                    let fill = |value: ValueId| {
                        PyResult::Ok((self.ask("contents", (class,))?, value.index()))
                    };
                    ObjectPlan::Extended {
                        template: template.index(),
                        own: indices(own),
                        slots: slots.iter().map(slot).collect::<PyResult<_>>()?,
                        contents: contents.map(fill).transpose()?,
                    }
                }
                Object::Built(value) => ObjectPlan::Built(value.index()),
                _ => return Err(newer()),
            })
        };
        self.manifest.objects().iter().map(plan).collect()
    }

    fn steps(&self) -> PyResult<Vec<StepPlan>> {
        let mut functions: Vec<(Action, Py<PyAny>)> = Vec::new();
        let steps = self.manifest.steps().iter().map(|step| {
            let known = functions.iter().position(|(action, _)| *action == step.action);
            if known.is_none() {
                functions.push((step.action, self.ask("action", (step.action.name(),))?));
            }
            let known = known.unwrap_or(functions.len() - 1);
            Ok(StepPlan {
                action: functions[known].1.clone_ref(self.py),
                target: step.target.index(),
                argument: step.argument.index(),
            })
        });
        steps.collect()
    }

    fn tensor_class(&self, class: TensorClass) -> PyResult<Option<Py<PyType>>> {
        let answer = match class {
            TensorClass::Plain => return Ok(None),
            TensorClass::Parameter => self.resolver.call_method0("parameter")?,
            TensorClass::Other(path) => {
                self.resolver.call_method1("tensor_class", self.manifest.path(path))?
            }
            _ => return Err(newer()),
        };
        Ok(Some(answer.cast_into::<PyType>()?.unbind()))
    }
}

fn kind_name(kind: TorchKind) -> PyResult<&'static str> {
    match kind {
        TorchKind::Dtype => Ok("dtype"),
        TorchKind::Layout => Ok("layout"),
        TorchKind::MemoryFormat => Ok("memory_format"),
        TorchKind::QScheme => Ok("qscheme"),
        _ => Err(newer()),
    }
}

fn indices(ids: &[ValueId]) -> Vec<RecipeId> {
    ids.iter().map(|id| id.index()).collect()
}

/// Entries that this release cannot know, as the format forbids them.
fn newer() -> PyErr {
    PyValueError::new_err("the manifest holds an entry that this release does not know")
}
