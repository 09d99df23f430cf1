//! Everything that is verified about a manifest before anything is built of it.
//!
//! Building trusts what is checked here: that references lead somewhere, that values are made in
//! order and nest no deeper than allowed, what opening costs, and that every tensor lies in its
//! storage. The import of a tensor checks none of its numbers.

use super::error::{ManifestError, TensorFault};
use super::ids::{ObjectId, PathId, StorageId, StringId, TemplateId, TensorId, ValueId};
use super::limits::{
    DIMENSIONS_MAX, Limits, OBJECTS_FREE, OBJECTS_PER_REFERENCE, PATTERN_BYTES_MAX,
    PATTERN_CLASSES_MAX,
};
use super::model::{
    Builder, MappingKind, Object, SequenceKind, Sharing, Tables, Tensor, TensorClass, Value,
};

/// The first fault of the tables, if they have one.
pub(crate) fn check(tables: &Tables, limits: &Limits) -> Result<(), ManifestError> {
    let check = Check { tables };
    check.counts(limits)?;
    check.storages(limits)?;
    check.names()?;
    let costs = check.values(limits)?;
    check.patterns()?;
    check.tensors()?;
    check.templates()?;
    check.objects()?;
    check.steps()?;
    check.value("the root", tables.root)?;
    check.cost(&costs, limits)
}

struct Check<'a> {
    tables: &'a Tables,
}

/// What a value costs and where it may stand.
struct Costs {
    /// How many objects are made where the value stands.
    objects: Vec<u64>,
}

impl Check<'_> {
    fn counts(&self, limits: &Limits) -> Result<(), ManifestError> {
        let tables = self.tables;
        let counts = [
            ("packages", tables.packages.len()),
            ("sources", tables.sources.len()),
            ("requirements", tables.requirements.len()),
            ("texts", tables.strings.len()),
            ("paths", tables.paths.len()),
            ("storages", tables.storages.len()),
            ("tensors", tables.tensors.len()),
            ("values", tables.values.len()),
            ("templates", tables.templates.len()),
            ("objects", tables.objects.len()),
            ("steps", tables.steps.len()),
        ];
        for (what, count) in counts {
            limit(what, count as u64, limits.entries_max as u64)?;
        }
        Ok(())
    }

    fn storages(&self, limits: &Limits) -> Result<(), ManifestError> {
        let sizes = self.tables.storages.iter().map(|storage| storage.bytes);
        limit("bytes of storages", sizes.fold(0, u64::saturating_add), limits.storage_bytes_max)
    }

    fn names(&self) -> Result<(), ManifestError> {
        for path in &self.tables.paths {
            self.string("a path", path.module)?;
            self.string("a path", path.qualname)?;
        }
        Ok(())
    }

    fn tensors(&self) -> Result<(), ManifestError> {
        for (index, tensor) in self.tables.tensors.iter().enumerate() {
            self.storage(tensor.storage)?;
            let storage = &self.tables.storages[tensor.storage.index()];
            fits(tensor, storage.bytes).map_err(|fault| ManifestError::Tensor { index, fault })?;
            if let TensorClass::Other(path) = tensor.class {
                self.path("a tensor", path)?;
            }
            if let Some(attributes) = tensor.attributes {
                self.value("a tensor", attributes)?;
                if !self.is_namespace(attributes) {
                    let fault = "has attributes that are no dictionary of names";
                    return Err(ManifestError::Entry { what: "tensor", index, fault });
                }
            }
        }
        Ok(())
    }

    /// A new dictionary whose keys are texts.
    fn is_namespace(&self, id: ValueId) -> bool {
        let text = |id: &ValueId| matches!(self.tables.values[id.index()], Value::Text(_));
        match &self.tables.values[id.index()] {
            Value::Mapping(MappingKind::Dict, pairs) => pairs.iter().all(|(key, _)| text(key)),
            _ => false,
        }
    }

    fn values(&self, limits: &Limits) -> Result<Costs, ManifestError> {
        let values = &self.tables.values;
        let mut depths: Vec<u32> = Vec::with_capacity(values.len());
        let mut objects: Vec<u64> = Vec::with_capacity(values.len());
        let mut keys: Vec<bool> = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let (mut depth, mut cost) = (1, 1_u64);
            for child in value.children() {
                if child.index() >= index {
                    self.value("a value", child)?;
                    return Err(ManifestError::Order { what: "value", index });
                }
                depth = depth.max(depths[child.index()] + 1);
                cost = cost.saturating_add(objects[child.index()]);
            }
            limit("levels of nesting", u64::from(depth), u64::from(limits.depth_max))?;
            self.references(value)?;
            let entry = |fault| ManifestError::Entry { what: "value", index, fault };
            match value {
                Value::Mapping(_, pairs) if !pairs.iter().all(|(key, _)| keys[key.index()]) => {
                    return Err(entry("has a key that is no constant"));
                }
                Value::Sequence(SequenceKind::Set | SequenceKind::FrozenSet, items)
                    if !items.iter().all(|item| keys[item.index()]) =>
                {
                    return Err(entry("is a set with a member that is no constant"));
                }
                Value::Sequence(SequenceKind::Size, items)
                    if !items.iter().all(|item| matches!(values[item.index()], Value::Int(_))) =>
                {
                    return Err(entry("is a size of something else than integers"));
                }
                _ => {}
            }
            keys.push(is_key(value, &keys));
            depths.push(depth);
            objects.push(cost);
        }
        Ok(Costs { objects })
    }

    /// What compiling regular expressions takes grows with them, classes of characters before all.
    fn patterns(&self) -> Result<(), ManifestError> {
        let (mut classes, mut bytes) = (0_u64, 0_u64);
        for value in &self.tables.values {
            let Value::Built(Builder::Pattern, items) = value else { continue };
            let text = match items.first().map(|item| &self.tables.values[item.index()]) {
                Some(Value::Text(id)) => self.tables.strings[id.index()].as_bytes(),
                Some(Value::Bytes(bytes)) => bytes,
                _ => continue,
            };
            bytes += text.len() as u64;
            classes += text.split(|byte| *byte == b'[').skip(1).count() as u64;
        }
        limit("bytes of patterns", bytes, PATTERN_BYTES_MAX)?;
        limit("classes of characters in patterns", classes, PATTERN_CLASSES_MAX)
    }

    fn references(&self, value: &Value) -> Result<(), ManifestError> {
        match *value {
            Value::Text(string) | Value::Torch(_, string) | Value::Device(string, _) => {
                self.string("a value", string)
            }
            Value::Class(path) | Value::Function(path) => self.path("a value", path),
            Value::Tensor(TensorId(index)) => {
                inside("a value", "tensor", index, self.tables.tensors.len())
            }
            Value::Object(object) => self.object("a value", object),
            _ => Ok(()),
        }
    }

    fn templates(&self) -> Result<(), ManifestError> {
        for (index, template) in self.tables.templates.iter().enumerate() {
            self.path("a template", template.class)?;
            let mut keys: Vec<StringId> = template.attributes.iter().map(|&(key, _)| key).collect();
            keys.sort_unstable();
            if keys.windows(2).any(|pair| pair[0] == pair[1]) {
                let fault = "names an attribute twice";
                return Err(ManifestError::Entry { what: "template", index, fault });
            }
            for &(key, value) in &template.attributes {
                self.string("a template", key)?;
                value.map_or(Ok(()), |value| self.value("a template", value))?;
            }
        }
        Ok(())
    }

    fn objects(&self) -> Result<(), ManifestError> {
        let latest = self.latest_built();
        let keys = self.keys();
        for (index, object) in self.tables.objects.iter().enumerate() {
            let entry = |fault| ManifestError::Entry { what: "object", index, fault };
            for value in object.values() {
                self.value("an object", value)?;
            }
            match object {
                Object::List(_) => {}
                Object::Set(members) => {
                    if !members.iter().all(|member| keys[member.index()]) {
                        return Err(entry("is a set with a member that is no constant"));
                    }
                }
                Object::Mapping(_, pairs) => {
                    if !pairs.iter().all(|(key, _)| keys[key.index()]) {
                        return Err(entry("has a key that is no constant"));
                    }
                }
                Object::Instance(template, own) => self.own(index, *template, own)?,
                Object::Extended { template, own, slots, contents } => {
                    self.own(index, *template, own)?;
                    for &(slot, _) in slots {
                        self.string("an object", slot)?;
                    }
                    let is_contents = |id: ValueId| {
                        let value = &self.tables.values[id.index()];
                        matches!(value, Value::Sequence(..) | Value::Mapping(..))
                    };
                    if !contents.is_none_or(is_contents) {
                        return Err(entry("holds what is no sequence and no mapping"));
                    }
                }
                Object::Built(value) => {
                    let is_made = matches!(
                        self.tables.values[value.index()],
                        Value::Built(..) | Value::Sequence(SequenceKind::Tuple, _)
                    );
                    if !is_made {
                        return Err(entry("is built of something that is there already"));
                    }
                    if latest[value.index()].is_some_and(|latest| latest.index() >= index) {
                        return Err(ManifestError::Order { what: "object", index });
                    }
                }
            }
        }
        Ok(())
    }

    /// For each value, the last built object that it refers to, through no other object.
    fn latest_built(&self) -> Vec<Option<ObjectId>> {
        let mut latest: Vec<Option<ObjectId>> = Vec::with_capacity(self.tables.values.len());
        for value in &self.tables.values {
            let own = match value {
                Value::Object(id) => Some(*id)
                    .filter(|id| matches!(self.tables.objects[id.index()], Object::Built(_))),
                _ => None,
            };
            let deeper = value.children().filter_map(|child| latest[child.index()]).max();
            latest.push(own.max(deeper));
        }
        latest
    }

    fn keys(&self) -> Vec<bool> {
        let mut keys = Vec::with_capacity(self.tables.values.len());
        for value in &self.tables.values {
            let key = is_key(value, &keys);
            keys.push(key);
        }
        keys
    }

    fn own(
        &self,
        index: usize,
        template: TemplateId,
        own: &[ValueId],
    ) -> Result<(), ManifestError> {
        inside("an object", "template", template.0, self.tables.templates.len())?;
        let attributes = &self.tables.templates[template.index()].attributes;
        if attributes.iter().filter(|(_, value)| value.is_none()).count() == own.len() {
            return Ok(());
        }
        let fault = "has not the attributes that its template leaves to it";
        Err(ManifestError::Entry { what: "object", index, fault })
    }

    fn steps(&self) -> Result<(), ManifestError> {
        for step in &self.tables.steps {
            self.object("a step", step.target)?;
            self.value("a step", step.argument)?;
        }
        Ok(())
    }

    fn cost(&self, costs: &Costs, limits: &Limits) -> Result<(), ManifestError> {
        let of = |value: ValueId| costs.objects[value.index()];
        let tables = self.tables;
        let templates: Vec<u64> = tables
            .templates
            .iter()
            .map(|template| {
                let values = template.attributes.iter().filter_map(|&(_, value)| value);
                values.map(of).fold(1, u64::saturating_add)
            })
            .collect();
        let mut sum = of(tables.root);
        let mut add = |cost: u64| sum = sum.saturating_add(cost);
        for object in &tables.objects {
            object.values().map(of).for_each(&mut add);
            if let Object::Instance(template, _) | Object::Extended { template, .. } = object {
                add(templates[template.index()]);
            }
        }
        tables.tensors.iter().for_each(|tensor| add(tensor.attributes.map_or(1, of)));
        tables.steps.iter().for_each(|step| add(of(step.argument)));
        limit("objects", sum, limits.objects_max.min(self.objects_for_length()))
    }

    /// How many objects a manifest of this length may reasonably describe.
    fn objects_for_length(&self) -> u64 {
        let values = self.tables.values.iter().map(|value| 1 + value.children().count());
        let objects = self.tables.objects.iter().map(|object| 1 + object.values().count());
        let references: usize = values.chain(objects).sum();
        OBJECTS_PER_REFERENCE.saturating_mul(references as u64).saturating_add(OBJECTS_FREE)
    }

    fn value(&self, from: &'static str, id: ValueId) -> Result<(), ManifestError> {
        inside(from, "value", id.0, self.tables.values.len())
    }

    fn string(&self, from: &'static str, id: StringId) -> Result<(), ManifestError> {
        inside(from, "text", id.0, self.tables.strings.len())
    }

    fn path(&self, from: &'static str, id: PathId) -> Result<(), ManifestError> {
        inside(from, "path", id.0, self.tables.paths.len())
    }

    fn object(&self, from: &'static str, id: ObjectId) -> Result<(), ManifestError> {
        inside(from, "object", id.0, self.tables.objects.len())
    }

    fn storage(&self, id: StorageId) -> Result<(), ManifestError> {
        inside("a tensor", "storage", id.0, self.tables.storages.len())
    }
}

/// Whether the value may be a key or the member of a set: what Python hashes by code of its own.
fn is_key(value: &Value, keys: &[bool]) -> bool {
    match value {
        Value::Sequence(
            SequenceKind::Tuple | SequenceKind::FrozenSet | SequenceKind::Size,
            items,
        )
        | Value::Built(Builder::Enum | Builder::NamedTuple | Builder::Range, items) => {
            items.iter().all(|item| keys[item.index()])
        }
        Value::Sequence(..)
        | Value::Mapping(..)
        | Value::Built(..)
        | Value::Tensor(_)
        | Value::Object(_) => false,
        _ => true,
    }
}

/// Whether all elements lie in a storage of `bytes` bytes.
pub(crate) fn fits(tensor: &Tensor, bytes: u64) -> Result<(), TensorFault> {
    let (shape, strides) = (&tensor.shape, &tensor.strides);
    if shape.len() != strides.len() {
        return Err(TensorFault::Rank { sizes: shape.len(), strides: strides.len() });
    }
    if shape.len() > DIMENSIONS_MAX {
        return Err(TensorFault::Dimensions(shape.len()));
    }
    let needed = needed_bytes(tensor).ok_or(TensorFault::Overflow)?;
    if needed > bytes { Err(TensorFault::Outside { needed, bytes }) } else { Ok(()) }
}

/// Bytes from the start of the storage to the end of the last element; `None` if the numbers, the
/// size of a dense copy among them, go beyond 63 bits.
fn needed_bytes(tensor: &Tensor) -> Option<u64> {
    let signed = |number: u64| i64::try_from(number).is_ok().then_some(number);
    let mut elements = 1_u64;
    let mut empty = false;
    for &size in &tensor.shape {
        signed(size)?;
        empty |= size == 0;
        // The framework multiplies sizes in any order, also those beside a zero.
        elements = signed(elements.checked_mul(size.max(1))?)?;
    }
    signed(elements.checked_mul(tensor.scalar.bytes())?)?;
    let mut last = signed(tensor.offset)?;
    for (&size, &stride) in tensor.shape.iter().zip(&tensor.strides) {
        signed(stride)?;
        let step = signed(size.saturating_sub(1).checked_mul(stride)?)?;
        last = signed(last.checked_add(step)?)?;
    }
    let end = if empty { tensor.offset } else { last.checked_add(1)? };
    signed(end.checked_mul(tensor.scalar.bytes())?)
}

fn limit(what: &'static str, found: u64, max: u64) -> Result<(), ManifestError> {
    if found <= max { Ok(()) } else { Err(ManifestError::Limit { what, found, max }) }
}

fn inside(
    from: &'static str,
    what: &'static str,
    index: u32,
    len: usize,
) -> Result<(), ManifestError> {
    if (index as usize) < len {
        return Ok(());
    }
    Err(ManifestError::Dangling { from, what, index, len })
}

/// Whether tensors of this storage have bytes to lie in.
pub(crate) fn has_bytes(sharing: Sharing) -> bool {
    sharing != Sharing::Absent
}
