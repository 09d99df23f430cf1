//! The manifest of an object, as whoever opens one gets it.
//!
//! What decodes is looked at as an opening does, but by checks of its own: every reference leads to
//! something that is made before it, and every tensor lies in its storage.

use shared_tensor::manifest::{
    Action, Builder, Limits, Manifest, ManifestBuilder, MappingKind, Object, Package, Requirement,
    Scalar, SequenceKind, Sharing, Source, Storage, Tensor, TensorClass, TorchKind, Value, ValueId,
};

use crate::heap;

/// Decodes the input, and verifies what came out.
pub fn run(input: &[u8]) {
    heap::bounded(input.len(), || drop(opened(input)));
}

/// The manifest, if it is one, verified.
pub(crate) fn opened(bytes: &[u8]) -> Option<Manifest> {
    let limits = Limits::default();
    let manifest = match Manifest::decode(bytes, &limits) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return None;
        }
    };
    let once = manifest.encode();
    assert!(once.len() <= bytes.len(), "a number has a shorter form");
    let again = Manifest::decode(&once, &limits).expect("what was encoded is decoded");
    assert_eq!(again, manifest);
    assert_eq!(again.encode(), once);
    values(&manifest);
    objects(&manifest);
    tensors(&manifest);
    memory(&manifest);
    Some(manifest)
}

fn values(manifest: &Manifest) {
    let mut depths = Vec::with_capacity(manifest.values().len());
    for (index, value) in manifest.values().iter().enumerate() {
        let mut depth = 1;
        for child in value.children() {
            assert!(child.index() < index, "what a value is made of stands before it");
            depth = depth.max(depths[child.index()] + 1);
        }
        assert!(depth <= Limits::default().depth_max);
        depths.push(depth);
        match value {
            Value::Text(text) | Value::Torch(_, text) | Value::Device(text, _) => {
                let _ = manifest.text(*text);
            }
            Value::Class(path) | Value::Function(path) => {
                let _ = manifest.path(*path);
            }
            Value::Tensor(tensor) => assert!(tensor.index() < manifest.tensors().len()),
            Value::Object(object) => assert!(object.index() < manifest.objects().len()),
            _ => {}
        }
    }
    let _ = manifest.value(manifest.root());
    for path in manifest.paths() {
        let _ = (manifest.text(path.module), manifest.text(path.qualname));
    }
}

fn objects(manifest: &Manifest) {
    for template in manifest.templates() {
        let _ = manifest.path(template.class);
        for (name, value) in &template.attributes {
            let _ = (manifest.text(*name), value.map(|value| manifest.value(value)));
        }
    }
    for object in manifest.objects() {
        for value in object.values() {
            let _ = manifest.value(value);
        }
        if let Object::Instance(template, own) | Object::Extended { template, own, .. } = object {
            let attributes = &manifest.templates()[template.index()].attributes;
            assert_eq!(attributes.iter().filter(|(_, value)| value.is_none()).count(), own.len());
        }
        if let Object::Extended { slots, .. } = object {
            assert!(slots.iter().all(|(name, _)| manifest.text(*name).len() < usize::MAX));
        }
    }
    for step in manifest.steps() {
        let _ = (&manifest.objects()[step.target.index()], manifest.value(step.argument));
    }
}

fn tensors(manifest: &Manifest) {
    for tensor in manifest.tensors() {
        let storage = manifest.storages()[tensor.storage.index()];
        assert_eq!(tensor.shape.len(), tensor.strides.len());
        let mut end = u128::from(tensor.offset);
        if !tensor.shape.contains(&0) {
            for (&size, &stride) in tensor.shape.iter().zip(&tensor.strides) {
                end += u128::from(size - 1) * u128::from(stride);
            }
            end += 1;
        }
        assert!(end * u128::from(tensor.scalar.bytes()) <= u128::from(storage.bytes));
        if let TensorClass::Other(path) = tensor.class {
            let _ = manifest.path(path);
        }
        if let Some(attributes) = tensor.attributes {
            assert!(matches!(manifest.value(attributes), Value::Mapping(MappingKind::Dict, _)));
        }
    }
}

/// Memory that fits is taken, and less of it is not.
fn memory(manifest: &Manifest) {
    let alignments = manifest.alignments();
    let address = |alignment: u64| 4096 * alignment as usize;
    let fitting = manifest.storages().iter().zip(&alignments);
    let mut fitting: Vec<(u64, usize)> =
        fitting.map(|(storage, alignment)| (storage.bytes, address(*alignment))).collect();
    assert_eq!(manifest.validate_against(&fitting), Ok(()));
    for (index, storage) in manifest.storages().iter().enumerate().take(8) {
        if storage.bytes == 0 || storage.sharing == Sharing::Absent {
            continue;
        }
        let good = fitting[index];
        fitting[index].0 -= 1;
        assert!(manifest.validate_against(&fitting).is_err());
        fitting[index] = (good.0, good.1 + 1);
        assert_eq!(manifest.validate_against(&fitting).is_ok(), alignments[index] == 1);
        fitting[index] = good;
    }
    fitting.push((0, 0));
    assert!(manifest.validate_against(&fitting).is_err());
}

/// Objects of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        finished(|builder| builder.value(Value::None)),
        finished(constants),
        finished(containers),
        finished(cycle),
        finished(builders),
        module(),
    ]
}

fn finished(make: impl FnOnce(&mut ManifestBuilder) -> ValueId) -> Vec<u8> {
    let mut builder = ManifestBuilder::new();
    let root = make(&mut builder);
    builder.finish(root, &Limits::default()).expect("a sound object").manifest.encode()
}

fn text(builder: &mut ManifestBuilder, text: &str) -> ValueId {
    let text = builder.string(text);
    builder.value(Value::Text(text))
}

fn constants(builder: &mut ManifestBuilder) -> ValueId {
    let (float32, cpu) = (builder.string("float32"), builder.string("cpu"));
    let path = builder.path("torch.nn.functional", "gelu");
    let constants = [
        Value::Ellipsis,
        Value::Bool(true),
        Value::Int(-3),
        Value::BigInt(vec![0, 0, 0, 0, 0, 0, 0, 0, 1]),
        Value::Float(1.5_f64.to_bits()),
        Value::Complex(0, 1.0_f64.to_bits()),
        Value::Bytes(vec![0, 255]),
        Value::Torch(TorchKind::Dtype, float32),
        Value::Device(cpu, Some(1)),
        Value::Class(path),
        Value::Function(path),
    ];
    let constants = constants.map(|constant| builder.value(constant)).to_vec();
    builder.value(Value::Sequence(SequenceKind::Tuple, constants))
}

fn containers(builder: &mut ManifestBuilder) -> ValueId {
    let key = text(builder, "key");
    let sizes = [2, 3].map(|size| builder.value(Value::Int(size))).to_vec();
    let size = builder.value(Value::Sequence(SequenceKind::Size, sizes.clone()));
    let members = builder.value(Value::Sequence(SequenceKind::FrozenSet, sizes.clone()));
    let set = builder.reserve_object();
    builder.fill_sequence(set, SequenceKind::Set, sizes);
    let set = builder.value(Value::Object(set));
    let ordered = builder.reserve_object();
    builder.fill_mapping(ordered, MappingKind::Ordered, vec![(key, size), (size, members)]);
    let ordered = builder.value(Value::Object(ordered));
    // Each twice, so that they stay objects.
    builder.value(Value::Sequence(SequenceKind::List, vec![set, ordered, set, ordered]))
}

fn cycle(builder: &mut ManifestBuilder) -> ValueId {
    let list = builder.reserve_object();
    let own = builder.value(Value::Object(list));
    let reference = builder.value(Value::Built(Builder::WeakReference, vec![own]));
    builder.fill_sequence(list, SequenceKind::List, vec![own, reference]);
    own
}

fn builders(builder: &mut ManifestBuilder) -> ValueId {
    let number = builder.value(Value::Int(7));
    let made =
        Builder::ALL.iter().map(|kind| builder.value(Value::Built(*kind, vec![number, number])));
    let mut made: Vec<ValueId> = made.collect();
    let object = builder.reserve_object();
    builder.fill_built(object, made[0]);
    let object = builder.value(Value::Object(object));
    made.extend([object, object]);
    builder.value(Value::Sequence(SequenceKind::Tuple, made))
}

/// A small module: parameters, a tied one, a buffer, attributes of tensors, slots and a step.
pub(crate) fn module() -> Vec<u8> {
    finished(|builder| {
        let weights = builder.storage(Storage { bytes: 96, sharing: Sharing::Shared });
        let buffer = builder.storage(Storage { bytes: 8, sharing: Sharing::Private });
        let name = text(builder, "_is_buffer");
        let yes = builder.value(Value::Bool(true));
        let attributes = Value::Mapping(MappingKind::Dict, vec![(name, yes)]);
        let attributes = builder.value(attributes);
        let subclass = builder.path("mine", "Outer.Subclass");
        let mut tensor = |storage, shape: &[u64], strides: &[u64], class, attributes| {
            let id = builder.reserve_tensor();
            let (shape, strides) = (shape.to_vec(), strides.to_vec());
            let (scalar, offset, requires_grad) = (Scalar::F32, 0, false);
            let tensor = Tensor {
                storage,
                scalar,
                shape,
                strides,
                offset,
                requires_grad,
                class,
                attributes,
            };
            builder.fill_tensor(id, tensor);
            builder.value(Value::Tensor(id))
        };
        let tensors = [
            tensor(weights, &[4, 6], &[6, 1], TensorClass::Parameter, None),
            tensor(weights, &[6, 4], &[1, 6], TensorClass::Plain, Some(attributes)),
            tensor(buffer, &[2], &[1], TensorClass::Other(subclass), None),
        ];
        let class = builder.path("torch.nn.modules.linear", "Linear");
        let training = builder.string("training");
        let weight = builder.string("weight");
        let modules: Vec<ValueId> = (0..3)
            .map(|index| {
                let object = builder.reserve_object();
                let own = vec![(training, yes), (weight, tensors[index % 3])];
                let slots = if index == 2 { vec![(weight, tensors[2])] } else { Vec::new() };
                builder.fill_instance(object, class, own, slots, None);
                if index == 0 {
                    builder.step(Action::Parametrize, object, name);
                }
                builder.value(Value::Object(object))
            })
            .collect();
        builder.package(Package { name: "torch".into(), version: "2.9".into() });
        builder.source(Source { module: "mine".into(), file: "mine.py".into(), sha256: [7; 32] });
        builder.requirement(Requirement { registry: "attention".into(), name: "sdpa".into() });
        let twice = modules.iter().chain(&modules).copied().collect();
        builder.value(Value::Sequence(SequenceKind::List, twice))
    })
}
