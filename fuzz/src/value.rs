//! Messages of the service: what clients and servers say to each other, with memory beside it.
//!
//! | bytes of the input | |
//! |---|---|
//! | 1 | the lower four bits: the tag; the upper: a request, reply, failure or push |
//! | 1 | how many descriptors come, and for each two bits that say what of |
//! | the rest | the message |
//!
//! Tensors that came out are read where their layout says, and objects have their manifests opened, as
//! a client does.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use shared_tensor::DType;
use shared_tensor::manifest::Sharing;
use shared_tensor::service::probe::{self, Samples};
use shared_tensor::service::{
    BigInt, Layout, Object, Place, Region, Rights, Storage, Tensor, Value,
};

use crate::{heap, manifest};

const PLAN_BYTES: usize = 2;
const REQUEST: u8 = 0;
const REPLY: u8 = 1;
const FAILURE: u8 = 2;
const PUSH: u8 = 3;

/// How long short memory is.
const BYTES: u64 = 4096;
/// How long memory is that texts travel in, which are too long for a message.
const LONG_BYTES: u64 = 100 << 10;

/// Which [`memory`].
const SHORT: u8 = 0;
const LONG: u8 = 1;
const HOLLOW: u8 = 2;

/// Memory that a peer may send: short and writable, long and read-only, long and mostly holes, and such
/// as must be refused.
fn memory() -> &'static [OwnedFd; 4] {
    static MEMORY: OnceLock<[OwnedFd; 4]> = OnceLock::new();
    MEMORY.get_or_init(|| {
        let keeps_length = SealFlags::SHRINK | SealFlags::GROW;
        [
            made(BYTES, BYTES, keeps_length),
            made(LONG_BYTES, LONG_BYTES, keeps_length | SealFlags::FUTURE_WRITE),
            made(LONG_BYTES, 1, keeps_length),
            made(BYTES, BYTES, SealFlags::empty()),
        ]
    })
}

/// `bytes` of memory whose first `there` bytes are written to.
fn made(bytes: u64, there: u64, seals: SealFlags) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("st-fuzz", flags).expect("a descriptor");
    ftruncate(&fd, bytes).expect("memory");
    let text: Vec<u8> = (0..there).map(|at| b'a' + (at % 26) as u8).collect();
    assert_eq!(rustix::io::pwrite(&fd, &text, 0), Ok(text.len()));
    if !seals.is_empty() {
        fcntl_add_seals(&fd, seals).expect("a memfd that takes seals");
    }
    fd
}

/// Reads the message as its receiver would.
pub fn run(input: &[u8]) {
    let Some((&[what, plan], body)) = input.split_first_chunk::<PLAN_BYTES>() else { return };
    let memory = memory();
    heap::bounded(input.len(), || {
        let which = (0..plan & 3).map(|number| usize::from(plan >> (2 + 2 * number) & 3));
        let descriptors: Vec<OwnedFd> =
            which.map(|which| memory[which].try_clone().expect("a descriptor")).collect();
        let tag = u16::from(what & 0xf);
        match what >> 4 & 3 {
            REQUEST => probe::request(tag, body, descriptors).iter().for_each(looked_at),
            REPLY => probe::reply(tag, body, descriptors).iter().for_each(looked_at),
            FAILURE => probe::failure(body),
            _ => probe::push(body),
        }
    });
}

fn looked_at(value: &Value) {
    match value {
        Value::List(items) | Value::Tuple(items) => items.iter().for_each(looked_at),
        Value::Dict(pairs) => {
            for (key, value) in pairs {
                assert!(key.is_key());
                looked_at(value);
            }
        }
        Value::BigInt(number) => assert_eq!(BigInt::parse(number.as_str()).as_ref(), Some(number)),
        Value::Tensor(tensor) => read(tensor),
        Value::Object(object) => opened(object),
        _ => {}
    }
}

/// Reads the elements at both ends, which lie in the storage.
fn read(tensor: &Tensor) {
    let layout = tensor.layout();
    let storage = tensor.storage();
    let item = layout.dtype.bytes();
    assert_eq!(storage.offset() % item as u64, 0);
    let (mut low, mut high) = (i128::from(layout.offset), i128::from(layout.offset));
    if tensor.elements() == 0 {
        assert!(high * item as i128 <= i128::from(storage.bytes()));
        return;
    }
    for (&size, &stride) in layout.shape.iter().zip(&layout.strides) {
        let span = i128::from(size - 1) * i128::from(stride);
        let end = if span < 0 { &mut low } else { &mut high };
        *end += span;
    }
    assert!(low >= 0 && (high + 1) * item as i128 <= i128::from(storage.bytes()));
    if storage.place() != Place::Cpu {
        // There is no GPU here to look at it.
        return;
    }
    let view = storage.view().expect("memory that can be mapped");
    let bytes = view.bytes().expect("a tensor with elements has bytes");
    for at in [low, high] {
        let at = usize::try_from(at).expect("it lies in memory") * item;
        bytes.read_into(at, &mut vec![0; item]).expect("it lies in the storage");
    }
}

/// Opens the manifest over the storages that came with it.
fn opened(object: &Object) {
    if object.storages.iter().any(|storage| storage.place() != Place::Cpu) {
        return;
    }
    let views = object.storages.iter().map(|storage| storage.view().expect("memory"));
    let views: Vec<_> = views.collect();
    let Some(manifest) = manifest::opened(&object.manifest) else { return };
    let given: Vec<(u64, usize)> =
        views.iter().map(|view| (view.storage().bytes(), view.as_ptr().addr())).collect();
    if manifest.validate_against(&given).is_err() {
        return;
    }
    for tensor in manifest.tensors() {
        let Some(bytes) = views[tensor.storage.index()].bytes() else { continue };
        let last = tensor.shape.iter().zip(&tensor.strides);
        let last: u64 = last.map(|(size, stride)| size.saturating_sub(1) * stride).sum();
        let item = tensor.scalar.bytes() as usize;
        let sharing = manifest.storages()[tensor.storage.index()].sharing;
        if !tensor.shape.contains(&0) && sharing != Sharing::Absent {
            let at = (tensor.offset + last) as usize * item;
            bytes.read_into(at, &mut vec![0; item]).expect("it lies in the storage");
        }
    }
}

/// Every kind of message, and values of every kind in calls and deliveries.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut samples = Samples::without_values();
    for value in plain() {
        samples.carry(&value, Rights::Read);
    }
    add(&mut seeds, &samples, &[]);
    let short = Region::allocate(BYTES).expect("memory");
    let long = Region::allocate(LONG_BYTES).expect("memory");
    for (region, rights, memory) in [(&short, Rights::Write, SHORT), (&long, Rights::Read, LONG)] {
        let mut samples = Samples::default();
        samples.carry(&Value::List(views(region)), rights);
        samples.carry(&object(region).into(), rights);
        add(&mut seeds, &samples, &[memory]);
    }
    let mut samples = Samples::default();
    samples.carry(&Value::Tuple([views(&short), views(&long)].concat()), Rights::Read);
    add(&mut seeds, &samples, &[SHORT, HOLLOW]);
    let mut samples = Samples::default();
    samples.carry(&Value::Tuple(views(&probe::volatile(BYTES))), Rights::Write);
    add(&mut seeds, &samples, &[]);
    // A call carries them twice.
    let text = "a".repeat(LONG_BYTES as usize);
    for value in [Value::Bytes(text.clone().into_bytes()), Value::Str(text)] {
        let mut samples = Samples::default();
        samples.carry(&value, Rights::Read);
        for memory in [&[LONG][..], &[LONG, LONG], &[HOLLOW]] {
            add(&mut seeds, &samples, memory);
        }
    }
    seeds
}

fn add(seeds: &mut Vec<Vec<u8>>, samples: &Samples, memory: &[u8]) {
    let kinds = memory.iter().enumerate();
    let plan = kinds.fold(memory.len() as u8, |plan, (at, kind)| plan | kind << (2 + 2 * at));
    let seed =
        |what: u8, tag: u16, body: &[u8]| [&[what << 4 | tag as u8, plan][..], body].concat();
    seeds.extend(samples.requests.iter().map(|(tag, body)| seed(REQUEST, *tag, body)));
    seeds.extend(samples.replies.iter().map(|(tag, body)| seed(REPLY, *tag, body)));
    seeds.extend(samples.failures.iter().map(|body| seed(FAILURE, 0, body)));
    seeds.extend(samples.pushes.iter().map(|body| seed(PUSH, 0, body)));
}

fn plain() -> Vec<Value> {
    let large = BigInt::parse("-9223372036854775809").expect("a large number");
    vec![
        Value::None,
        Value::List(vec![false.into(), true.into(), (-3).into(), large.into(), 1.5.into()]),
        Value::Tuple(vec!["é".into(), Value::Bytes(vec![0, 255]), f64::NAN.into()]),
        Value::dict([("key", Value::None), ("list", Value::List(vec![300.into()]))]),
        Value::Dict(vec![(Value::Tuple(vec![1.into(), "a".into()]), Value::None)]),
    ]
}

fn views(region: &Region) -> Vec<Value> {
    let layouts = [
        Layout::contiguous(DType::F32, [2, 3]),
        Layout { dtype: DType::I16, shape: vec![3, 2], strides: vec![1, 3], offset: 1 },
        Layout { dtype: DType::U8, shape: vec![4], strides: vec![-1], offset: 3 },
        Layout::contiguous(DType::F64, [0_u64; 0]),
        Layout::contiguous(DType::F64, [0, 5]),
    ];
    let storage = |offset, bytes| Storage::new(region.clone(), offset, bytes).expect("inside");
    let storages = [storage(64, 64), storage(0, region.bytes())];
    let places = storages.iter().flat_map(|storage| layouts.iter().map(move |it| (storage, it)));
    let tensor = |(storage, layout): (&Storage, &Layout)| {
        Tensor::new(storage.clone(), layout.clone()).expect("inside").with_requires_grad(true)
    };
    places.map(|place| tensor(place).into()).collect()
}

fn object(region: &Region) -> Object {
    let storage = |offset, bytes| Storage::new(region.clone(), offset, bytes).expect("inside");
    let storages = vec![storage(0, 96), storage(128, 8)];
    Object { kind: "module".to_owned(), manifest: manifest::module().into(), storages }
}
