//! Manifests from nobody in particular: whatever decodes is sound, and nothing panics.

use proptest::prelude::*;

use super::check::fits;
use super::model::Tables;
use super::*;

/// A manifest that has something in every table.
fn sample() -> Manifest {
    let mut builder = ManifestBuilder::new();
    let storage = builder.storage(Storage { bytes: 96, sharing: Sharing::Shared });
    let buffer = builder.storage(Storage { bytes: 8, sharing: Sharing::Private });
    let tensors: Vec<ValueId> = [(storage, vec![4, 6], vec![6, 1]), (buffer, vec![2], vec![1])]
        .into_iter()
        .map(|(storage, shape, strides)| {
            let id = builder.reserve_tensor();
            let key = builder.string("_is_buffer");
            let key = builder.value(Value::Text(key));
            let yes = builder.value(Value::Bool(true));
            let attributes = builder.value(Value::Mapping(MappingKind::Dict, vec![(key, yes)]));
            builder.fill_tensor(
                id,
                Tensor {
                    storage,
                    scalar: Scalar::F32,
                    shape,
                    strides,
                    offset: 0,
                    requires_grad: storage == StorageId(0),
                    class: TensorClass::Parameter,
                    attributes: Some(attributes),
                },
            );
            builder.value(Value::Tensor(id))
        })
        .collect();
    let linear = builder.path("torch.nn.modules.linear", "Linear");
    let gelu = builder.path("torch.nn.functional", "gelu");
    let modules: Vec<ValueId> = (0..3)
        .map(|index| {
            let object = builder.reserve_object();
            let own = builder.value(Value::Object(object));
            let weight = builder.string("weight");
            let weight = builder.value(Value::Text(weight));
            let pairs = vec![(weight, tensors[index % 2])];
            let parameters = builder.value(Value::Mapping(MappingKind::Dict, pairs));
            let size = builder.value(Value::Int(index.try_into().unwrap()));
            let function = builder.value(Value::Function(gelu));
            let hooks = builder.reserve_object();
            builder.fill_mapping(hooks, MappingKind::Ordered, vec![]);
            let hooks = builder.value(Value::Object(hooks));
            let back = builder.value(Value::Built(Builder::WeakReference, vec![own]));
            let names = ["_parameters", "size", "act", "_hooks", "back"];
            let names = names.map(|name| builder.string(name));
            let values = [parameters, size, function, hooks, back];
            let attributes = names.into_iter().zip(values).collect();
            builder.fill_instance(object, linear, attributes, vec![], None);
            own
        })
        .collect();
    let step = builder.value(modules_names());
    builder.step(Action::Parametrize, ObjectId(0), step);
    let shared = builder.reserve_object();
    builder.fill_sequence(shared, SequenceKind::List, modules.clone());
    let shared = builder.value(Value::Object(shared));
    let root =
        builder.value(Value::Sequence(SequenceKind::Tuple, vec![shared, modules[0], shared]));
    builder.package(Package { name: "torch".into(), version: "2.15".into() });
    builder.source(Source { module: "mine".into(), file: "mine.py".into(), sha256: [7; 32] });
    builder.requirement(Requirement { registry: "attention".into(), name: "sdpa".into() });
    builder.finish(root, &Limits::default()).unwrap().manifest
}

fn modules_names() -> Value {
    Value::None
}

fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    Manifest::decode(bytes, &Limits::default())
}

#[test]
fn a_manifest_survives_its_encoding() {
    let manifest = sample();
    let bytes = manifest.encode();
    assert_eq!(decode(&bytes).unwrap(), manifest);
    assert_eq!(manifest.templates().len(), 1, "three modules of one kind have one template");
    assert_eq!(manifest.objects().len(), 4, "the hooks moved into their modules, the list stays");
    assert_eq!(sample().encode(), bytes, "equal objects, equal bytes");
}

#[test]
fn what_the_root_does_not_lead_to_is_dropped() {
    let mut builder = ManifestBuilder::new();
    let lost = builder.string("lost");
    builder.value(Value::Text(lost));
    builder.reserve_object();
    builder.storage(Storage { bytes: 1, sharing: Sharing::Shared });
    let root = builder.value(Value::None);
    let kept = builder.finish(root, &Limits::default()).unwrap().manifest.encode();
    let mut builder = ManifestBuilder::new();
    let root = builder.value(Value::None);
    assert_eq!(builder.finish(root, &Limits::default()).unwrap().manifest.encode(), kept);
}

#[test]
fn deep_containers_stay_objects() {
    let mut builder = ManifestBuilder::new();
    let mut inner = builder.value(Value::None);
    for _ in 0..500 {
        let object = builder.reserve_object();
        builder.fill_sequence(object, SequenceKind::List, vec![inner]);
        inner = builder.value(Value::Object(object));
    }
    let manifest = builder.finish(inner, &Limits::default()).unwrap().manifest;
    assert!(manifest.objects().len() >= 500 / 64, "cut into pieces that are not too deep");
}

#[test]
fn cycles_are_kept() {
    let mut builder = ManifestBuilder::new();
    let object = builder.reserve_object();
    let own = builder.value(Value::Object(object));
    builder.fill_sequence(object, SequenceKind::List, vec![own]);
    let manifest = builder.finish(own, &Limits::default()).unwrap().manifest;
    assert_eq!(manifest.objects(), [Object::List(vec![manifest.root()])]);
}

/// Tables with one thing wrong, and a word that the error says.
#[test]
fn each_fault_has_a_name() {
    type Fault = fn(&mut Tables);
    let faults: &[(&str, Fault)] = &[
        ("tensor 0 needs", |it| it.tensors[0].offset = 1),
        ("63 bits", |it| it.tensors[0].shape[0] = u64::MAX),
        ("63 bits", |it| {
            it.tensors[0].shape = vec![3; 60];
            it.tensors[0].strides = vec![0; 60];
        }),
        ("at most 64", |it| {
            it.tensors[0].shape = vec![1; 65];
            it.tensors[0].strides = vec![1; 65];
        }),
        ("strides", |it| it.tensors[0].strides.push(1)),
        ("refers to storage", |it| it.tensors[0].storage = StorageId(9)),
        ("attributes", |it| {
            it.tensors[0].attributes = it.tensors[1].attributes.map(|_| ValueId(0));
        }),
        ("comes after it", |it| {
            it.values[0] = Value::Sequence(SequenceKind::List, vec![ValueId(0)]);
        }),
        ("refers to object", |it| it.values[0] = Value::Object(ObjectId(99))),
        ("refers to tensor", |it| it.values[0] = Value::Tensor(TensorId(99))),
        ("refers to text", |it| it.values[0] = Value::Text(StringId(999))),
        ("refers to path", |it| it.values[0] = Value::Class(PathId(999))),
        ("refers to path", |it| it.templates[0].class = PathId(999)),
        ("refers to text", |it| it.paths[0].module = StringId(999)),
        ("twice", |it| {
            let first = it.templates[0].attributes[0];
            it.templates[0].attributes[1] = first;
        }),
        ("leaves to it", |it| match &mut it.objects[0] {
            Object::Instance(_, own) => own.clear(),
            _ => unreachable!(),
        }),
        ("refers to template", |it| it.objects[0] = Object::Instance(TemplateId(4), vec![])),
        ("is there already", |it| it.objects[0] = Object::Built(ValueId(0))),
        ("the root refers", |it| it.root = ValueId(9999)),
        ("a step refers", |it| it.steps[0].target = ObjectId(9999)),
        ("no constant", |it| {
            let last = it.values.len();
            it.values.push(Value::Tensor(TensorId(0)));
            let tensor = ValueId(u32::try_from(last).unwrap());
            it.values.push(Value::Mapping(MappingKind::Dict, vec![(tensor, tensor)]));
        }),
        ("no constant", |it| {
            let last = it.values.len();
            it.values.push(Value::Object(ObjectId(0)));
            let object = ValueId(u32::try_from(last).unwrap());
            it.objects.push(Object::Set(vec![object]));
        }),
        ("comes after it", |it| {
            let last = u32::try_from(it.objects.len()).unwrap();
            let value = u32::try_from(it.values.len()).unwrap();
            it.values.push(Value::Object(ObjectId(last)));
            it.values.push(Value::Built(Builder::Partial, vec![ValueId(value)]));
            it.objects.push(Object::Built(ValueId(value + 1)));
        }),
        ("levels of nesting", |it| {
            for _ in 0..70 {
                let last = ValueId(u32::try_from(it.values.len() - 1).unwrap());
                it.values.push(Value::Sequence(SequenceKind::List, vec![last]));
            }
        }),
        // Forty lists, each twice in the next: 2^40 lists.
        ("objects, at most", |it| {
            for _ in 0..40 {
                let last = ValueId(u32::try_from(it.values.len() - 1).unwrap());
                it.values.push(Value::Sequence(SequenceKind::List, vec![last, last]));
            }
            it.root = ValueId(u32::try_from(it.values.len() - 1).unwrap());
        }),
        ("bytes of storages", |it| it.storages[0].bytes = u64::MAX),
    ];
    for (word, spoil) in faults {
        let mut tables = sample().tables;
        spoil(&mut tables);
        let bytes = Manifest { tables }.encode();
        let message = decode(&bytes).unwrap_err().to_string();
        assert!(message.contains(word), "`{word}` is not in `{message}`");
    }
}

#[test]
fn foreign_bytes_are_told_from_other_releases() {
    let bytes = sample().encode();
    assert_eq!(decode(b"PK\x03\x04").unwrap_err(), ManifestError::Mark);
    let mut other = bytes.clone();
    other[4] = 9;
    assert_eq!(decode(&other).unwrap_err(), ManifestError::Format { found: 9 });
    assert!(decode(&[&bytes[..], &[0]].concat()).is_err(), "leftovers");
    for end in 0..bytes.len() {
        assert!(decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    let limits = Limits { bytes_max: 10, ..Limits::default() };
    assert!(Manifest::decode(&bytes, &limits).is_err());
}

#[test]
fn what_is_too_new_for_a_reader_says_so() {
    let of = |made: &[Value]| {
        let mut builder = ManifestBuilder::new();
        let values = made.iter().map(|it| builder.value(it.clone())).collect();
        let root = builder.value(Value::Sequence(SequenceKind::Tuple, values));
        builder.finish(root, &Limits::default()).unwrap().manifest.encode()
    };
    let old = of(&[Value::Int(1), Value::Built(Builder::Lock, Vec::new())]);
    assert_eq!(old[4..6], [1, 0], "the first readers can read it, and are to");
    let mut new = of(&[Value::Built(Builder::NumpyScalar, Vec::new())]);
    assert_eq!(new[4..6], [2, 0], "the first readers refuse it for its format");
    assert_eq!((decode(&old).unwrap().format(), decode(&new).unwrap().format()), (1, 2));
    new[4] = 1;
    assert!(decode(&new).unwrap_err().to_string().contains("another format"));
    new[4] = 3;
    let message = decode(&new).unwrap_err().to_string();
    let version = env!("CARGO_PKG_VERSION");
    let expected = format!("has format 3, and shared-tensor {version} reads formats up to 2");
    assert!(message.contains(&expected), "{message}");
    new[4] = 0;
    assert_eq!(decode(&new).unwrap_err(), ManifestError::Format { found: 0 });
    // What is added to these lists is of a format of its own.
    let first = Builder::ALL.iter().filter(|it| it.since() == 1).count();
    assert_eq!((first, Builder::ALL.len(), Action::ALL.len()), (29, 30, 2));
}

#[test]
fn a_short_manifest_describes_no_millions_of_objects() {
    let doubled = |times: u32| {
        let mut builder = ManifestBuilder::new();
        let mut value = builder.value(Value::Mapping(MappingKind::Ordered, Vec::new()));
        for _ in 0..times {
            value = builder.value(Value::Sequence(SequenceKind::List, vec![value, value]));
        }
        builder.finish(value, &Limits::default())
    };
    doubled(15).unwrap();
    let message = doubled(23).unwrap_err().to_string();
    assert!(message.contains("objects, at most"), "{message}");
}

#[test]
fn patterns_take_no_minutes_to_compile() {
    let of = |times: usize, pattern: &str| {
        let mut builder = ManifestBuilder::new();
        let flags = builder.value(Value::Int(0.into()));
        let patterns = (0..times).map(|number| {
            let text = builder.string(&format!("{pattern}{number}"));
            let text = builder.value(Value::Text(text));
            builder.value(Value::Built(Builder::Pattern, vec![text, flags]))
        });
        let patterns = patterns.collect();
        let root = builder.value(Value::Sequence(SequenceKind::Tuple, patterns));
        builder.finish(root, &Limits::default()).map(drop)
    };
    of(256, "[\0-\u{ffff}]").unwrap();
    let message = of(257, "[\0-\u{ffff}]").unwrap_err().to_string();
    assert!(message.contains("classes of characters in patterns, at most 256"), "{message}");
    let message = of(2, &"a".repeat(128 << 10)).unwrap_err().to_string();
    assert!(message.contains("bytes of patterns, at most"), "{message}");
}

#[test]
fn memory_is_compared_with_the_storages() {
    let manifest = sample();
    manifest.validate_against(&[(96, 4096), (8, 64)]).unwrap();
    for (wrong, word) in [
        (vec![(96, 4096)], "memory for 1"),
        (vec![(95, 4096), (8, 64)], "has 95"),
        (vec![(96, 4097), (8, 64)], "aligned to 4"),
    ] {
        let message = manifest.validate_against(&wrong).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}

/// The elements of a tensor, one by one.
fn brute_force(tensor: &Tensor) -> u64 {
    let mut end = 0;
    let count: u64 = tensor.shape.iter().product();
    for number in 0..count {
        let mut rest = number;
        let mut at = tensor.offset;
        for (&size, &stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
            at += rest % size * stride;
            rest /= size;
        }
        end = end.max((at + 1) * tensor.scalar.bytes());
    }
    end
}

proptest! {
    #[test]
    fn a_tensor_fits_as_its_elements_do(
        dimensions in prop::collection::vec((0_u64..5, 0_u64..9), 0..4),
        offset in 0_u64..20,
        scalar in prop::sample::select(Scalar::ALL),
        bytes in 0_u64..600,
    ) {
        let (shape, strides): (Vec<_>, Vec<_>) = dimensions.into_iter().unzip();
        let tensor = Tensor {
            storage: StorageId(0), scalar, shape, strides, offset,
            requires_grad: false, class: TensorClass::Plain, attributes: None,
        };
        let needed = match brute_force(&tensor) {
            // An empty tensor still points somewhere.
            0 => tensor.offset * scalar.bytes(),
            end => end,
        };
        prop_assert_eq!(fits(&tensor, bytes).is_ok(), needed <= bytes);
    }

    #[test]
    fn spoilt_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = sample().encode();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(manifest) = decode(&bytes) {
            prop_assert_eq!(decode(&manifest.encode()).unwrap(), manifest);
        }
    }

    #[test]
    fn bytes_out_of_nowhere_never_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = sample().encode();
        bytes.truncate(6);
        bytes.extend(tail);
        if let Ok(manifest) = decode(&bytes) {
            prop_assert_eq!(decode(&manifest.encode()).unwrap(), manifest);
        }
    }

    #[test]
    fn bytes_taken_out_or_put_in_never_panic(
        at in any::<prop::sample::Index>(),
        taken in 0_usize..8,
        put in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let mut bytes = sample().encode();
        let at = 6 + at.index(bytes.len() - 6);
        let end = (at + taken).min(bytes.len());
        bytes.splice(at..end, put);
        let _ = decode(&bytes);
    }
}
