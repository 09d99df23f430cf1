//! The bytes on the wire, and what becomes of others.

use std::fmt::Write;

use proptest::prelude::*;

use super::messages::{
    CallHead, Custody, CustodyAt, Delivery, FailureEntry, HandleEntry, Invalidated, LeaseEntry,
    ObjectInfo, Progress, RegionEntry, Released, TaskAsk, TaskInfo, TaskStatus, Told, ask,
    decode_all, encode,
};
use super::payload::{Packer, Unpacker};
use super::{DecodeError, PayloadKind, probe};
use crate::service::failure::{Code, Failure};
use crate::service::region::{Arena, Id, Region, Rights};
use crate::service::value::{BigInt, Layout, Object, Storage, Tensor, Value};
use crate::tensor::DType;

/// A payload with something of every kind, and the regions it names.
fn everything() -> (Value, Vec<u8>, Vec<Region>) {
    let arena = Arena::new();
    let base = Tensor::from_slice(&arena, [2, 3], &[0_i16, 1, 2, 3, 4, 5]).unwrap();
    let layout = Layout { dtype: DType::I16, shape: vec![3, 2], strides: vec![1, 3], offset: 0 };
    let view = Tensor::new(base.storage().clone(), layout).unwrap().with_requires_grad(true);
    let storages = vec![base.storage().clone(), Storage::empty()];
    let object = Object { kind: "module".to_owned(), manifest: vec![9, 8].into(), storages };
    let value = Value::List(vec![
        Value::None,
        false.into(),
        true.into(),
        (-3).into(),
        Value::BigInt(BigInt::parse("-9223372036854775809").unwrap()),
        1.5.into(),
        "é".into(),
        Value::Bytes(vec![0, 255]),
        Value::Tuple(vec![300.into()]),
        Value::dict([("key", Value::None)]),
        base.into(),
        view.into(),
        object.into(),
    ]);
    let mut packer = Packer::default();
    packer.value(&value).unwrap();
    let payload = packer.finish(usize::MAX).unwrap();
    (value, payload.bytes, payload.regions)
}

fn read(bytes: &[u8], regions: &[Region]) -> Result<Value, DecodeError> {
    let mut unpacker = Unpacker::open(bytes, regions, None, None)?;
    let value = unpacker.value()?;
    unpacker.finish()?;
    Ok(value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("there is memory");
        text
    })
}

#[test]
fn payloads_are_those_of_the_golden_file() {
    let (value, bytes, regions) = everything();
    assert_eq!(read(&bytes, &regions), Ok(value));
    let golden = include_str!("golden/payload-v1.txt");
    assert_eq!(hex(&bytes), golden.trim_end(), "what is on the wire is only ever added to");
}

#[test]
fn messages_are_those_of_the_golden_file() {
    let id = |byte| Id::from_bytes([byte; 16]);
    let region = Region::allocate(4096).unwrap();
    let entry = RegionEntry::new(&region, Rights::Write, true);
    // Its name is drawn by chance: the rest of it is looked at.
    assert_eq!(hex(&encode(&entry)[16..]), "80200003");
    let confirmed =
        vec![CustodyAt { custody: Custody { id: id(1), is_writable: true }, serial: 300 }];
    let call =
        CallHead { endpoint: "echo", ticket: 5, parent: 1 << 40, regions: vec![], confirmed };
    let delivery = Delivery {
        serial: 7,
        lease: Some(LeaseEntry { object: 8, serial: 9 }),
        handle: Some(HandleEntry { object: id(2), server: id(3) }),
        regions: vec![],
    };
    let info = TaskInfo {
        id: id(4),
        endpoint: "slow".to_owned(),
        status: TaskStatus::Failed,
        created_at: 1.0,
        started_at: Some(2.0),
        completed_at: None,
        error_type: Some("E".to_owned()),
        error_message: None,
        object: Some(id(5)),
        progress: Some(Progress { done: 1, total: 2, note: "n".to_owned() }),
    };
    let object = ObjectInfo {
        object: id(6),
        endpoint: "m".to_owned(),
        cache_key: None,
        refcount: 3,
        created_at: 1.0,
        last_accessed_at: 2.0,
        server: id(7),
    };
    let failure = Failure {
        data: Some("more".to_owned()),
        ..Failure::new(Code::StaleHandle, "gone").with_traceback("line 1")
    };
    let told = Told { ticket: 1, progress: info.progress.clone().unwrap() };
    let asked = TaskAsk { task: id(8), ticket: 2, is_cooperative: true };
    let said = [
        ("call", encode(&call)),
        ("delivery", encode(&delivery)),
        ("task", encode(&info)),
        ("object", encode(&object)),
        ("failure", encode(&FailureEntry::from(&failure))),
        ("told", encode(&told)),
        ("asked", encode(&asked)),
        ("released", encode(&Released { refcount: 1, destroyed: false })),
        ("invalidated", encode(&Invalidated { entries: 1, builds: 2 })),
    ];
    let mut text = String::new();
    for (name, bytes) in said {
        writeln!(text, "{name} {}", hex(&bytes)).expect("there is memory");
    }
    assert_eq!(text, include_str!("golden/messages-v1.txt"), "only ever added to");
    let back: Failure =
        decode_all::<FailureEntry>(&encode(&FailureEntry::from(&failure))).unwrap().into();
    assert_eq!(back, failure);
}

#[test]
fn every_stump_and_surplus_is_refused() {
    let (_, bytes, regions) = everything();
    for end in 0..bytes.len() {
        assert!(read(&bytes[..end], &regions).is_err(), "cut at {end}");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(read(&longer, &regions), Err(DecodeError::Surplus));
}

#[test]
fn what_names_nothing_is_refused() {
    let (_, bytes, _) = everything();
    let region = |what| Err(DecodeError::Reference { what, number: 1 });
    assert_eq!(read(&bytes, &[]), region("region"));
    let short = Region::allocate(8).unwrap();
    assert!(matches!(read(&bytes, &[short]), Err(DecodeError::Storage(_))));
    assert_eq!(read(&[0, 99], &[]), Err(DecodeError::Code { what: PayloadKind::Value, found: 99 }));
    let deep: Vec<u8> = [0].into_iter().chain([8, 1].repeat(70)).chain([0]).collect();
    assert_eq!(read(&deep, &[]), Err(DecodeError::Depth));
    let announced = [0, 8, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(read(&announced, &[]), Err(DecodeError::Cut), "before anything is set aside");
    let list_as_key = [0, 10, 1, 8, 0, 0];
    assert_eq!(read(&list_as_key, &[]), Err(DecodeError::Key));
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<f64>().prop_filter("equal to itself", |it| !it.is_nan()).prop_map(Value::Float),
        ".{0,12}".prop_map(Value::Str),
        proptest::collection::vec(any::<u8>(), 0..12).prop_map(Value::Bytes),
    ];
    leaf.prop_recursive(5, 64, 6, |inner| {
        let many = proptest::collection::vec(inner.clone(), 0..6);
        let pairs = proptest::collection::vec((".{0,4}".prop_map(Value::Str), inner), 0..4);
        prop_oneof![
            many.clone().prop_map(Value::List),
            many.prop_map(Value::Tuple),
            pairs.prop_map(Value::Dict),
        ]
    })
}

proptest! {
    #[test]
    fn values_come_back(value in value()) {
        let mut packer = Packer::default();
        packer.value(&value).unwrap();
        let payload = packer.finish(usize::MAX).unwrap();
        prop_assert_eq!(read(&payload.bytes, &payload.regions), Ok(value));
    }

    #[test]
    fn mutations_are_an_error_or_a_value_that_lies_inside(
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
    ) {
        let (_, mut bytes, regions) = everything();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(Value::List(items)) = read(&bytes, &regions) {
            for tensor in items.iter().filter_map(Value::as_tensor) {
                let storage = tensor.storage();
                let layout = tensor.layout();
                prop_assert!(layout.check(storage.offset(), storage.bytes()).is_ok());
                if tensor.dtype() == DType::I16 && tensor.elements() < 1000 {
                    tensor.to_vec::<i16>().unwrap();
                }
            }
        }
    }

    #[test]
    fn noise_is_an_error_or_a_message(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        tag in ask::ALL,
    ) {
        probe::request(tag, &bytes, Vec::new());
        probe::reply(tag, &bytes, Vec::new());
        probe::failure(&bytes);
        probe::push(&bytes);
    }
}
