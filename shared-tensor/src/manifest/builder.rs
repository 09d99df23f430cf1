//! Making a manifest: parts in any order first, then one canonical form.

use std::collections::HashMap;
use std::hash::Hash;

use super::Manifest;
use super::error::ManifestError;
use super::ids::{ObjectId, PathId, StorageId, StringId, TemplateId, TensorId, ValueId};
use super::limits::Limits;
use super::model::{
    Action, Builder, MappingKind, Object, Package, Path, Requirement, SequenceKind, Source, Step,
    Storage, Tables, Template, Tensor, TensorClass, Value,
};

/// Containers are not moved into the one place that refers to them beyond this depth.
const INLINE_DEPTH_MAX: u32 = 32;

/// Collects what an object consists of.
///
/// Ids are good for the builder that gave them, and are renumbered by [`finish`](Self::finish), which
/// also drops what the root does not lead to. Two walks in the same order over equal objects give equal
/// manifests, whatever else was added to the builder.
#[derive(Debug, Default)]
pub struct ManifestBuilder {
    strings: Interned<String>,
    paths: Interned<Path>,
    values: Interned<Value>,
    /// Of each value, whether it is immutable through and through.
    constants: Vec<bool>,
    storages: Vec<Storage>,
    tensors: Vec<Option<Tensor>>,
    objects: Vec<Option<Draft>>,
    /// In the order in which they were filled: what an object is made of before the object.
    filled: Vec<ObjectId>,
    steps: Vec<Step>,
    packages: Vec<Package>,
    sources: Vec<Source>,
    requirements: Vec<Requirement>,
}

/// An object before templates are known.
#[derive(Debug)]
enum Draft {
    Sequence(SequenceKind, Vec<ValueId>),
    Mapping(MappingKind, Vec<(ValueId, ValueId)>),
    Built(ValueId),
    Instance {
        class: PathId,
        attributes: Vec<(StringId, ValueId)>,
        slots: Vec<(StringId, ValueId)>,
        contents: Option<ValueId>,
    },
}

/// A canonical manifest, and which storages it has.
#[derive(Debug)]
pub struct Finished {
    /// The manifest.
    pub manifest: Manifest,
    /// Its storages in order, by the ids that the builder gave them.
    pub storages: Vec<StorageId>,
}

impl ManifestBuilder {
    /// With nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// A text.
    pub fn string(&mut self, text: &str) -> StringId {
        match self.strings.ids.get(text) {
            Some(&id) => StringId(id),
            None => StringId(self.strings.add(text.to_owned())),
        }
    }

    /// Where something is imported from.
    pub fn path(&mut self, module: &str, qualname: &str) -> PathId {
        let path = Path { module: self.string(module), qualname: self.string(qualname) };
        PathId(self.paths.id(path))
    }

    /// A value; equal ones have one id.
    pub fn value(&mut self, value: Value) -> ValueId {
        let is_constant = self.would_be_constant(&value);
        let id = ValueId(self.values.id(value));
        if id.index() == self.constants.len() {
            self.constants.push(is_constant);
        }
        id
    }

    /// Whether a value is immutable through and through, so that nobody can tell two of it apart but by
    /// their addresses. Not so for an id of another builder.
    pub fn is_constant(&self, id: ValueId) -> bool {
        self.constants.get(id.index()).copied().unwrap_or_default()
    }

    fn would_be_constant(&self, value: &Value) -> bool {
        match value {
            Value::Tensor(_)
            | Value::Object(_)
            | Value::Mapping(..)
            | Value::Sequence(SequenceKind::List | SequenceKind::Set, _) => false,
            Value::Built(builder, _) if !builder.is_constant() => false,
            _ => value.children().all(|child| self.is_constant(child)),
        }
    }

    /// A value that was added.
    ///
    /// `None` if there is none with that id.
    pub fn get(&self, id: ValueId) -> Option<&Value> {
        self.values.entries.get(id.index())
    }

    /// A run of bytes.
    pub fn storage(&mut self, storage: Storage) -> StorageId {
        self.storages.push(storage);
        StorageId(last(self.storages.len()))
    }

    /// Changes what is known of a run of bytes.
    ///
    /// # Panics
    /// If the id is of another builder.
    pub fn set_storage(&mut self, id: StorageId, storage: Storage) {
        self.storages[id.index()] = storage;
    }

    /// A tensor whose description follows, so that its attributes can refer to it.
    pub fn reserve_tensor(&mut self) -> TensorId {
        self.tensors.push(None);
        TensorId(last(self.tensors.len()))
    }

    /// The description of a tensor.
    ///
    /// # Panics
    /// If the id is of another builder.
    pub fn fill_tensor(&mut self, id: TensorId, tensor: Tensor) {
        self.tensors[id.index()] = Some(tensor);
    }

    /// The description that was given.
    pub fn tensor_mut(&mut self, id: TensorId) -> Option<&mut Tensor> {
        self.tensors.get_mut(id.index())?.as_mut()
    }

    /// An object that is filled later, so that what is in it can refer to it.
    pub fn reserve_object(&mut self) -> ObjectId {
        self.objects.push(None);
        ObjectId(last(self.objects.len()))
    }

    /// The object is a new list or set.
    ///
    /// # Panics
    /// If the id is of another builder.
    pub fn fill_sequence(&mut self, id: ObjectId, kind: SequenceKind, items: Vec<ValueId>) {
        self.fill(id, Draft::Sequence(kind, items));
    }

    /// The object is a new dictionary.
    ///
    /// # Panics
    /// If the id is of another builder.
    pub fn fill_mapping(
        &mut self,
        id: ObjectId,
        kind: MappingKind,
        items: Vec<(ValueId, ValueId)>,
    ) {
        self.fill(id, Draft::Mapping(kind, items));
    }

    /// The object is built.
    ///
    /// # Panics
    /// If the id is of another builder.
    pub fn fill_built(&mut self, id: ObjectId, value: ValueId) {
        self.fill(id, Draft::Built(value));
    }

    /// The object is an instance of a Python class, with its `__dict__`, its slots, and what it holds
    /// if it is a container.
    ///
    /// # Panics
    /// If the id is of another builder.
    pub fn fill_instance(
        &mut self,
        id: ObjectId,
        class: PathId,
        attributes: Vec<(StringId, ValueId)>,
        slots: Vec<(StringId, ValueId)>,
        contents: Option<ValueId>,
    ) {
        self.fill(id, Draft::Instance { class, attributes, slots, contents });
    }

    fn fill(&mut self, id: ObjectId, draft: Draft) {
        self.objects[id.index()] = Some(draft);
        self.filled.push(id);
    }

    /// Something to do when all objects are filled, after what was added before.
    pub fn step(&mut self, action: Action, target: ObjectId, argument: ValueId) {
        self.steps.push(Step { action, target, argument });
    }

    /// A package and its version.
    pub fn package(&mut self, package: Package) {
        self.packages.push(package);
    }

    /// A source file.
    pub fn source(&mut self, source: Source) {
        self.sources.push(source);
    }

    /// A name that must be registered where the manifest is opened.
    pub fn requirement(&mut self, requirement: Requirement) {
        self.requirements.push(requirement);
    }

    /// Puts everything that `root` leads to into its canonical form, and verifies it.
    ///
    /// # Errors
    /// [`ManifestError`] for what nobody could open: more than the limits allow, tensors outside of
    /// their storages, objects that were reserved and never filled.
    pub fn finish(mut self, root: ValueId, limits: &Limits) -> Result<Finished, ManifestError> {
        sort(&mut self.packages);
        sort(&mut self.sources);
        sort(&mut self.requirements);
        let reached = Reached::from(&self, root, limits)?;
        reached.check_weak(&self, root)?;
        let uses = uses(&self, &reached, root);
        Emission::new(self, &reached, uses).finish(root, limits)
    }
}

fn sort<T: Ord>(table: &mut Vec<T>) {
    table.sort();
    table.dedup();
}

fn last(len: usize) -> u32 {
    u32::try_from(len - 1).expect("fewer entries than 32 bits can count fit into memory")
}

impl Draft {
    fn values(&self) -> Vec<ValueId> {
        match self {
            Self::Sequence(_, items) => items.clone(),
            Self::Mapping(_, items) => {
                items.iter().flat_map(|&(key, value)| [key, value]).collect()
            }
            Self::Built(value) => vec![*value],
            Self::Instance { attributes, slots, contents, .. } => {
                let named = attributes.iter().chain(slots);
                named.map(|&(_, value)| value).chain(*contents).collect()
            }
        }
    }
}

/// What the root leads to.
struct Reached {
    values: Vec<bool>,
    tensors: Vec<bool>,
    objects: Vec<bool>,
    steps: Vec<bool>,
}

impl Reached {
    fn from(
        builder: &ManifestBuilder,
        root: ValueId,
        limits: &Limits,
    ) -> Result<Self, ManifestError> {
        let values = &builder.values.entries;
        let mut depths = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let mut deepest = value.children().map(|child| depths.get(child.index()).copied());
            let Some(deepest) = deepest.try_fold(0_u32, |deepest, depth| Some(deepest.max(depth?)))
            else {
                return Err(ManifestError::Order { what: "value", index });
            };
            if deepest >= limits.depth_max {
                let (found, max) = (u64::from(deepest) + 1, u64::from(limits.depth_max));
                return Err(ManifestError::Limit { what: "levels of nesting", found, max });
            }
            depths.push(deepest + 1);
        }
        Self::new(builder, root, true)
    }

    /// Follows everything, or all but weak references.
    fn new(
        builder: &ManifestBuilder,
        root: ValueId,
        is_weak_too: bool,
    ) -> Result<Self, ManifestError> {
        let mut reached = Self {
            values: vec![false; builder.values.entries.len()],
            tensors: vec![false; builder.tensors.len()],
            objects: vec![false; builder.objects.len()],
            steps: vec![false; builder.steps.len()],
        };
        reached.follow(builder, vec![root], is_weak_too)?;
        loop {
            let news: Vec<ValueId> = builder
                .steps
                .iter()
                .zip(&mut reached.steps)
                .filter(|(step, seen)| !**seen && reached.objects[step.target.index()])
                .map(|(step, seen)| {
                    *seen = true;
                    step.argument
                })
                .collect();
            if news.is_empty() {
                return Ok(reached);
            }
            reached.follow(builder, news, is_weak_too)?;
        }
    }

    fn follow(
        &mut self,
        builder: &ManifestBuilder,
        mut todo: Vec<ValueId>,
        is_weak_too: bool,
    ) -> Result<(), ManifestError> {
        let len = builder.values.entries.len();
        while let Some(id) = todo.pop() {
            let Some(seen) = self.values.get_mut(id.index()) else {
                return Err(ManifestError::Dangling {
                    from: "a part",
                    what: "value",
                    index: id.0,
                    len,
                });
            };
            if std::mem::replace(seen, true) {
                continue;
            }
            let value = &builder.values.entries[id.index()];
            if is_weak_too || !matches!(value, Value::Built(Builder::WeakReference, _)) {
                todo.extend(value.children());
            }
            let unfilled = |what, index| {
                let fault = "was reserved and never filled";
                ManifestError::Entry { what, index, fault }
            };
            match *value {
                Value::Tensor(tensor) => {
                    let index = tensor.index();
                    let described = builder.tensors.get(index).and_then(Option::as_ref);
                    let described = described.ok_or_else(|| unfilled("tensor", index))?;
                    self.tensors[index] = true;
                    todo.extend(described.attributes);
                }
                Value::Object(object) => {
                    let index = object.index();
                    let draft = builder.objects.get(index).and_then(Option::as_ref);
                    let draft = draft.ok_or_else(|| unfilled("object", index))?;
                    if !std::mem::replace(&mut self.objects[index], true) {
                        todo.extend(draft.values());
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Reached {
    /// That a weak reference leads to something that lives: what nothing else holds would be gone as soon
    /// as it was made. Dictionaries may: those of hooks outlive what the hooks were put in.
    fn check_weak(&self, builder: &ManifestBuilder, root: ValueId) -> Result<(), ManifestError> {
        let values = &builder.values.entries;
        let targets = || {
            let reached = values.iter().zip(&self.values).filter(|(_, reached)| **reached);
            reached.filter_map(|(value, _)| match value {
                Value::Built(Builder::WeakReference, target) => target.first(),
                _ => None,
            })
        };
        if targets().next().is_none() {
            return Ok(());
        }
        let held = Self::new(builder, root, false)?;
        for target in targets() {
            let is_held = match values[target.index()] {
                Value::Tensor(id) => held.tensors[id.index()],
                Value::Object(id) => {
                    let draft = &builder.objects[id.index()];
                    held.objects[id.index()] || matches!(draft, Some(Draft::Mapping(..)))
                }
                _ => true,
            };
            if !is_held {
                return Err(ManifestError::Weak);
            }
        }
        Ok(())
    }
}

/// How often each value is met when everything is made, 2 for more: once for each object that refers
/// to it, through values without identity as often as these are met.
fn uses(builder: &ManifestBuilder, reached: &Reached, root: ValueId) -> Vec<u8> {
    let mut uses = vec![0_u8; builder.values.entries.len()];
    let mut met = |id: ValueId, times: u8| {
        uses[id.index()] = uses[id.index()].saturating_add(times).min(2);
    };
    met(root, 1);
    for (draft, _) in builder.objects.iter().zip(&reached.objects).filter(|(_, reached)| **reached)
    {
        draft.iter().flat_map(Draft::values).for_each(|value| met(value, 1));
    }
    for (tensor, _) in builder.tensors.iter().zip(&reached.tensors).filter(|(_, reached)| **reached)
    {
        tensor.iter().filter_map(|tensor| tensor.attributes).for_each(|value| met(value, 1));
    }
    for (step, _) in builder.steps.iter().zip(&reached.steps).filter(|(_, reached)| **reached) {
        met(step.argument, 1);
        // The target stays an object.
        for (index, value) in builder.values.entries.iter().enumerate() {
            if *value == Value::Object(step.target) {
                met(ValueId(index.try_into().unwrap_or(u32::MAX)), 2);
            }
        }
    }
    for index in (0..builder.values.entries.len()).rev() {
        let times = uses[index];
        if times > 0 && reached.values[index] {
            for child in builder.values.entries[index].children() {
                uses[child.index()] = uses[child.index()].saturating_add(times).min(2);
            }
        }
    }
    uses
}

/// The tables while they are written.
struct Emission {
    from: ManifestBuilder,
    uses: Vec<u8>,
    strings: Interned<String>,
    paths: Interned<Path>,
    values: Interned<Value>,
    /// The new ids of values that were written.
    written: Vec<Option<ValueId>>,
    tensors: Vec<Option<TensorId>>,
    objects: Vec<Option<ObjectId>>,
    order: Vec<ObjectId>,
}

impl Emission {
    fn new(from: ManifestBuilder, reached: &Reached, uses: Vec<u8>) -> Self {
        let mut kept = 0..;
        let number = |&reached: &bool| reached.then(|| kept.next().map(TensorId)).flatten();
        let tensors = reached.tensors.iter().map(number).collect();
        let mut emission = Self {
            written: vec![None; from.values.entries.len()],
            objects: vec![None; from.objects.len()],
            order: Vec::new(),
            strings: Interned::default(),
            paths: Interned::default(),
            values: Interned::default(),
            tensors,
            from,
            uses,
        };
        emission.keep_objects(reached);
        emission
    }

    /// Numbers the objects that stay objects: all but containers and built values that are met once.
    fn keep_objects(&mut self, reached: &Reached) {
        let mut once = vec![false; self.from.objects.len()];
        for (value, &uses) in self.from.values.entries.iter().zip(&self.uses) {
            if let Value::Object(object) = value {
                once[object.index()] = uses <= 1;
            }
        }
        let mut depths: Vec<u32> = vec![0; self.from.values.entries.len()];
        let mut object_depths: Vec<u32> = vec![0; self.from.objects.len()];
        let mut leading: Vec<Option<bool>> = vec![None; self.from.values.entries.len()];
        let mut objects_leading: Vec<bool> = vec![false; self.from.objects.len()];
        let filled = std::mem::take(&mut self.from.filled);
        for &id in &filled {
            let index = id.index();
            let Some(draft) = &self.from.objects[index] else { continue };
            if !reached.objects[index] || self.objects[index].is_some() {
                continue;
            }
            let deepest = draft
                .values()
                .into_iter()
                .map(|value| self.depth(value, &mut depths, &object_depths))
                .max()
                .unwrap_or(0);
            let leads = draft
                .values()
                .into_iter()
                .fold(false, |leads, id| leads | self.leads(id, &mut leading, &objects_leading));
            // In the place of a container could be what is built before what the container holds: a
            // tuple in a list of its own.
            let may_move = match draft {
                Draft::Built(_) => true,
                Draft::Sequence(..) | Draft::Mapping(..) => !leads,
                Draft::Instance { .. } => false,
            };
            if may_move && once[index] && deepest < INLINE_DEPTH_MAX {
                object_depths[index] = deepest + 1;
                objects_leading[index] = leads;
            } else {
                objects_leading[index] = matches!(draft, Draft::Built(_));
                self.order.push(id);
                self.objects[index] = Some(ObjectId(last(self.order.len())));
            }
        }
        self.from.filled = filled;
    }

    /// How deep a value will nest. Those that it is made of come before it, so that each is looked at
    /// once.
    fn depth(&self, id: ValueId, depths: &mut [u32], objects: &[u32]) -> u32 {
        if depths[id.index()] > 0 {
            return depths[id.index()];
        }
        let value = &self.from.values.entries[id.index()];
        let depth = if let Value::Object(object) = value {
            objects[object.index()].max(1)
        } else {
            let deepest = value.children().map(|child| self.depth(child, depths, objects)).max();
            deepest.unwrap_or(0) + 1
        };
        depths[id.index()] = depth;
        depth
    }

    /// Whether a value refers to an object that is built, through no other object that stays one.
    fn leads(&self, id: ValueId, known: &mut [Option<bool>], objects: &[bool]) -> bool {
        if let Some(leads) = known[id.index()] {
            return leads;
        }
        let value = &self.from.values.entries[id.index()];
        let leads = match value {
            Value::Object(object) => objects[object.index()],
            _ => value.children().fold(false, |any, child| any | self.leads(child, known, objects)),
        };
        known[id.index()] = Some(leads);
        leads
    }

    fn finish(mut self, root: ValueId, limits: &Limits) -> Result<Finished, ManifestError> {
        let mut objects = Vec::with_capacity(self.order.len());
        for id in self.order.clone() {
            let draft = self.from.objects[id.index()].take();
            let draft = draft.expect("a kept object is filled");
            objects.push(self.draft(draft));
        }
        let steps: Vec<Step> = std::mem::take(&mut self.from.steps)
            .into_iter()
            .filter_map(|step| {
                let target = self.objects[step.target.index()]?;
                Some(Step { target, argument: self.value(step.argument), ..step })
            })
            .collect();
        let (tensors, storages) = self.tensors();
        let root = self.value(root);
        let (templates, objects) = templates(objects);
        let tables = Tables {
            packages: self.from.packages,
            sources: self.from.sources,
            requirements: self.from.requirements,
            strings: self.strings.entries,
            paths: self.paths.entries,
            storages: storages.iter().map(|id| self.from.storages[id.index()]).collect(),
            tensors,
            values: self.values.entries,
            templates,
            objects,
            steps,
            root,
        };
        Ok(Finished { manifest: Manifest::new(tables, limits)?, storages })
    }

    fn draft(&mut self, draft: Draft) -> Draft {
        match draft {
            Draft::Sequence(kind, items) => Draft::Sequence(kind, self.items(items)),
            Draft::Mapping(kind, pairs) => Draft::Mapping(kind, self.pairs(pairs)),
            Draft::Built(value) => Draft::Built(self.value(value)),
            Draft::Instance { class, attributes, slots, contents } => Draft::Instance {
                class: self.path(class),
                attributes: self.named(attributes),
                slots: self.named(slots),
                contents: contents.map(|value| self.value(value)),
            },
        }
    }

    fn tensors(&mut self) -> (Vec<Tensor>, Vec<StorageId>) {
        let mut storages: Vec<StorageId> = Vec::new();
        let mut numbers: HashMap<StorageId, StorageId> = HashMap::new();
        let mut tensors = Vec::new();
        for (index, tensor) in std::mem::take(&mut self.from.tensors).into_iter().enumerate() {
            let (Some(mut tensor), Some(_)) = (tensor, self.tensors[index]) else { continue };
            tensor.storage = *numbers.entry(tensor.storage).or_insert_with(|| {
                storages.push(tensor.storage);
                StorageId(last(storages.len()))
            });
            if let TensorClass::Other(path) = tensor.class {
                tensor.class = TensorClass::Other(self.path(path));
            }
            tensor.attributes = tensor.attributes.map(|value| self.value(value));
            tensors.push(tensor);
        }
        (tensors, storages)
    }

    fn named(&mut self, pairs: Vec<(StringId, ValueId)>) -> Vec<(StringId, ValueId)> {
        pairs.into_iter().map(|(name, value)| (self.string(name), self.value(value))).collect()
    }

    fn items(&mut self, items: Vec<ValueId>) -> Vec<ValueId> {
        items.into_iter().map(|value| self.value(value)).collect()
    }

    fn pairs(&mut self, pairs: Vec<(ValueId, ValueId)>) -> Vec<(ValueId, ValueId)> {
        pairs.into_iter().map(|(key, value)| (self.value(key), self.value(value))).collect()
    }

    fn string(&mut self, id: StringId) -> StringId {
        let text = &self.from.strings.entries[id.index()];
        match self.strings.ids.get(text) {
            Some(&id) => StringId(id),
            None => StringId(self.strings.add(text.clone())),
        }
    }

    fn path(&mut self, id: PathId) -> PathId {
        let Path { module, qualname } = self.from.paths.entries[id.index()];
        let path = Path { module: self.string(module), qualname: self.string(qualname) };
        PathId(self.paths.id(path))
    }

    /// Writes a value, and before it what it is made of. Nests as deep as the values do.
    fn value(&mut self, id: ValueId) -> ValueId {
        if let Some(done) = self.written[id.index()] {
            return done;
        }
        let value = match self.from.values.entries[id.index()].clone() {
            Value::Text(string) => Value::Text(self.string(string)),
            Value::Torch(kind, string) => Value::Torch(kind, self.string(string)),
            Value::Device(string, index) => Value::Device(self.string(string), index),
            Value::Class(path) => Value::Class(self.path(path)),
            Value::Function(path) => Value::Function(self.path(path)),
            Value::Sequence(kind, items) => Value::Sequence(kind, self.items(items)),
            Value::Mapping(kind, pairs) => Value::Mapping(kind, self.pairs(pairs)),
            Value::Built(builder, items) => Value::Built(builder, self.items(items)),
            Value::Tensor(tensor) => Value::Tensor(self.tensors[tensor.index()].unwrap_or(tensor)),
            Value::Object(object) => match self.objects[object.index()] {
                Some(kept) => Value::Object(kept),
                None => return self.moved(id, object),
            },
            other => other,
        };
        let written = ValueId(self.values.id(value));
        self.written[id.index()] = Some(written);
        written
    }

    /// Writes an object in the one place that refers to it.
    fn moved(&mut self, id: ValueId, object: ObjectId) -> ValueId {
        let draft = self.from.objects[object.index()].take();
        let written = match draft {
            Some(Draft::Sequence(kind, items)) => {
                let items = self.items(items);
                ValueId(self.values.id(Value::Sequence(kind, items)))
            }
            Some(Draft::Mapping(kind, pairs)) => {
                let pairs = self.pairs(pairs);
                ValueId(self.values.id(Value::Mapping(kind, pairs)))
            }
            Some(Draft::Built(value)) => self.value(value),
            Some(Draft::Instance { .. }) | None => {
                unreachable!("only such objects are moved, once")
            }
        };
        self.written[id.index()] = Some(written);
        written
    }
}

/// Finds what objects with the same class and attributes have in common.
fn templates(drafts: Vec<Draft>) -> (Vec<Template>, Vec<Object>) {
    let mut templates: Vec<Template> = Vec::new();
    let mut known: HashMap<(PathId, Vec<StringId>), usize> = HashMap::new();
    let mut placed: Vec<Option<usize>> = Vec::with_capacity(drafts.len());
    for draft in &drafts {
        let Draft::Instance { class, attributes, .. } = draft else {
            placed.push(None);
            continue;
        };
        let keys: Vec<StringId> = attributes.iter().map(|&(key, _)| key).collect();
        let index = *known.entry((*class, keys)).or_insert_with(|| {
            let attributes = attributes.iter().map(|&(key, value)| (key, Some(value))).collect();
            templates.push(Template { class: *class, attributes });
            templates.len() - 1
        });
        for (common, &(_, value)) in templates[index].attributes.iter_mut().zip(attributes) {
            if common.1 != Some(value) {
                common.1 = None;
            }
        }
        placed.push(Some(index));
    }
    let objects = drafts
        .into_iter()
        .zip(placed)
        .map(|(draft, index)| object(draft, index.unwrap_or(0), &templates))
        .collect();
    (templates, objects)
}

fn object(draft: Draft, index: usize, templates: &[Template]) -> Object {
    match draft {
        Draft::Sequence(SequenceKind::Set, items) => Object::Set(items),
        Draft::Sequence(_, items) => Object::List(items),
        Draft::Mapping(kind, pairs) => Object::Mapping(kind, pairs),
        Draft::Built(value) => Object::Built(value),
        Draft::Instance { attributes, slots, contents, .. } => {
            let common = &templates[index].attributes;
            let own = attributes
                .into_iter()
                .zip(common)
                .filter(|(_, (_, common))| common.is_none())
                .map(|((_, value), _)| value)
                .collect();
            let template = TemplateId(u32::try_from(index).unwrap_or(u32::MAX));
            if slots.is_empty() && contents.is_none() {
                Object::Instance(template, own)
            } else {
                Object::Extended { template, own, slots, contents }
            }
        }
    }
}

/// A table in which equal entries have one place.
#[derive(Debug)]
struct Interned<T> {
    entries: Vec<T>,
    ids: HashMap<T, u32>,
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), ids: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Interned<T> {
    fn id(&mut self, entry: T) -> u32 {
        match self.ids.get(&entry) {
            Some(&id) => id,
            None => self.add(entry),
        }
    }

    fn add(&mut self, entry: T) -> u32 {
        self.entries.push(entry.clone());
        let id = last(self.entries.len());
        self.ids.insert(entry, id);
        id
    }
}
