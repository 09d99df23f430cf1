//! All that is done with the bytes of a stranger before anybody acts on them, for fuzzers.
//!
//! Each function decodes as clients and servers do, looks at what came out, and encodes it again. It
//! panics if a promise is broken: what was decoded can be encoded, and that comes back the same.

use std::os::fd::OwnedFd;
use std::sync::Weak;

use super::messages::{
    CallHead, Custody, CustodyAt, Delivery, FailureEntry, HandleEntry, Invalidated, LeaseEntry,
    ObjectInfo, Progress, RegionEntry, Released, TaskAsk, TaskInfo, TaskStatus, Told, ask, decode,
    decode_all, encode,
};
use super::payload::{PackError, Packed, Packer, Unpacker};
use crate::service::custody::Table;
use crate::service::failure::{Code, Failure};
use crate::service::region::{Id, Region, Rights};
use crate::service::server::adopted;
use crate::service::value::Value;

const LEASE: LeaseEntry = LeaseEntry { object: 8, serial: 9 };

/// Whether `$bytes` are a `$kind`, which then comes back from its own encoding.
macro_rules! comes_back {
    ($kind:ty, $bytes:expr) => {
        if let Ok(message) = decode_all::<$kind>($bytes) {
            let once = encode(&message);
            let again = decode_all::<$kind>(&once).expect("what was encoded is decoded");
            assert_eq!(encode(&again), once);
        }
    };
}

/// A request with this tag: the arguments, if it is a call that can be read.
pub fn request(tag: u16, body: &[u8], descriptors: Vec<OwnedFd>) -> Vec<Value> {
    match tag {
        ask::CALL | ask::SUBMIT | ask::INVALIDATE_CALL => {
            let Ok((head, payload)) = decode::<CallHead<'_>>(body) else { return Vec::new() };
            comes_back!(CallHead<'_>, &encode(&head));
            let Ok(regions) = adopted(&head.regions, descriptors) else { return Vec::new() };
            return arguments(payload, &regions).unwrap_or_default();
        }
        ask::RELEASE => comes_back!(Vec<Id>, body),
        ask::RELEASE_LEASES => comes_back!(Vec<LeaseEntry>, body),
        ask::OBJECT => comes_back!(Id, body),
        ask::INVALIDATE_ENDPOINT => comes_back!(&str, body),
        ask::TASK_LIST => comes_back!(Option<TaskStatus>, body),
        ask::FORGET => comes_back!(Vec<CustodyAt>, body),
        _ => comes_back!(TaskAsk, body),
    }
    Vec::new()
}

/// A reply to a request with this tag: the value, if it is one that can be read.
pub fn reply(tag: u16, body: &[u8], descriptors: Vec<OwnedFd>) -> Option<Value> {
    match tag {
        ask::CALL | ask::TASK_RESULT => {
            let (delivery, payload) = decode::<Delivery>(body).ok()?;
            comes_back!(Delivery, &encode(&delivery));
            let table = Table::default();
            let regions =
                table.receive(&Weak::new(), delivery.serial, &delivery.regions, descriptors);
            return value(payload, &regions.ok()?);
        }
        ask::INFO | ask::ENDPOINTS => return value(body, &[]),
        ask::RELEASE => comes_back!(Vec<Option<Released>>, body),
        ask::RELEASE_LEASES | ask::FORGET => comes_back!(Vec<bool>, body),
        ask::OBJECT => comes_back!(Option<ObjectInfo>, body),
        ask::INVALIDATE_CALL | ask::INVALIDATE_ENDPOINT => comes_back!(Invalidated, body),
        ask::SUBMIT => comes_back!(Id, body),
        ask::TASK_STATUS | ask::TASK_WAIT => comes_back!(TaskInfo, body),
        ask::TASK_LIST => comes_back!(Vec<TaskInfo>, body),
        _ => comes_back!(bool, body),
    }
    None
}

/// A reply that says what went wrong.
pub fn failure(body: &[u8]) {
    comes_back!(FailureEntry, body);
    if let Ok(entry) = decode_all::<FailureEntry>(body) {
        let failure: Failure = entry.into();
        assert!(!format!("{failure}{failure:?}").is_empty());
    }
}

/// What a server says unasked.
pub fn push(body: &[u8]) {
    comes_back!(Told, body);
}

fn arguments(payload: &[u8], regions: &[Region]) -> Option<Vec<Value>> {
    let read = |bytes: &[u8], regions: &[Region]| {
        let mut unpacker = Unpacker::open(bytes, regions, None, None)?;
        let arguments = (unpacker.values()?, unpacker.named()?);
        unpacker.finish().map(|()| arguments)
    };
    let (mut positional, named) = read(payload, regions).ok()?;
    let once = pack(&positional, &named).expect("what was decoded can be encoded");
    let again = read(&once.bytes, &once.regions).expect("what was encoded is decoded");
    let twice = pack(&again.0, &again.1).expect("what was decoded can be encoded");
    assert_eq!(twice.bytes, once.bytes);
    positional.extend(named.into_iter().map(|(_, value)| value));
    Some(positional)
}

fn pack(positional: &[Value], named: &[(String, Value)]) -> Result<Packed, PackError> {
    let mut packer = Packer::default();
    packer.values(positional)?.named(named)?;
    packer.finish(usize::MAX)
}

fn value(payload: &[u8], regions: &[Region]) -> Option<Value> {
    let read = |bytes: &[u8], regions: &[Region]| {
        let mut unpacker = Unpacker::open(bytes, regions, None, None)?;
        let value = unpacker.value()?;
        unpacker.finish().map(|()| value)
    };
    let value = read(payload, regions).ok()?;
    let once = packed(&value);
    let again = read(&once.bytes, &once.regions).expect("what was encoded is decoded");
    assert_eq!(packed(&again).bytes, once.bytes);
    Some(value)
}

fn packed(value: &Value) -> Packed {
    let mut packer = Packer::default();
    packer.value(value).expect("what was decoded can be encoded");
    packer.finish(usize::MAX).expect("what was decoded can be encoded")
}

/// Memory that is said to be lent where another process has it.
pub fn volatile(bytes: u64) -> Region {
    let mut form = [7; cuda_ipc::LegacyHandle::BYTES];
    form[64..72].copy_from_slice(&512_u64.to_le_bytes());
    form[72..].copy_from_slice(&bytes.to_le_bytes());
    let (device, id) = (cuda_ipc::Uuid::from_bytes([9; 16]), Id::from_bytes([8; 16]));
    Region::their_volatile(device, id, cuda_ipc::LegacyHandle::decode(&form))
}

/// Messages to begin with: what they answer or ask, by tag, and their bytes.
#[derive(Debug, Default)]
pub struct Samples {
    /// For [`request`].
    pub requests: Vec<(u16, Vec<u8>)>,
    /// For [`reply`].
    pub replies: Vec<(u16, Vec<u8>)>,
    /// For [`failure`].
    pub failures: Vec<Vec<u8>>,
    /// For [`push`].
    pub pushes: Vec<Vec<u8>>,
}

impl Samples {
    /// One of every kind that carries no values.
    pub fn without_values() -> Self {
        let id = |byte| Id::from_bytes([byte; 16]);
        let told = Progress { done: 1, total: 2, note: "half".to_owned() };
        let task = TaskInfo {
            id: id(1),
            endpoint: "slow".to_owned(),
            status: TaskStatus::Failed,
            created_at: 1.0,
            started_at: Some(2.0),
            completed_at: None,
            error_type: Some("ValueError".to_owned()),
            error_message: None,
            object: Some(id(2)),
            progress: Some(told.clone()),
        };
        let object = ObjectInfo {
            object: id(2),
            endpoint: "model".to_owned(),
            cache_key: Some("model:7".to_owned()),
            refcount: 3,
            created_at: 1.0,
            last_accessed_at: 2.0,
            server: id(3),
        };
        let custody = Custody { id: id(4), is_writable: true };
        let asked = TaskAsk { task: id(1), ticket: 2, is_cooperative: true };
        let released = Released { refcount: 1, destroyed: false };
        let failure =
            Failure { data: Some("more".to_owned()), ..Failure::new(Code::StaleHandle, "gone") };
        let failure = FailureEntry::from(&failure.with_traceback("line 1"));
        Self {
            requests: vec![
                (ask::RELEASE, encode(&vec![id(2), id(5)])),
                (ask::RELEASE_LEASES, encode(&vec![LEASE])),
                (ask::OBJECT, encode(&id(2))),
                (ask::INVALIDATE_ENDPOINT, encode(&"model")),
                (ask::TASK_STATUS, encode(&asked)),
                (ask::TASK_LIST, encode(&Some(TaskStatus::Running))),
                (ask::FORGET, encode(&vec![CustodyAt { custody, serial: 300 }])),
            ],
            replies: vec![
                (ask::RELEASE, encode(&vec![Some(released), None])),
                (ask::FORGET, encode(&vec![true, false])),
                (ask::OBJECT, encode(&Some(object))),
                (ask::INVALIDATE_CALL, encode(&Invalidated { entries: 1, builds: 2 })),
                (ask::SUBMIT, encode(&id(1))),
                (ask::TASK_STATUS, encode(&task)),
                (ask::TASK_LIST, encode(&vec![task])),
                (ask::TASK_CANCEL, encode(&true)),
            ],
            failures: vec![encode(&failure)],
            pushes: vec![encode(&Told { ticket: 1, progress: told })],
        }
    }

    /// Adds a call with `value` as an argument, and a delivery of it. They name its regions in the
    /// order in which it does, each with `rights` and a descriptor.
    ///
    /// # Panics
    /// If the value cannot be encoded.
    pub fn carry(&mut self, value: &Value, rights: Rights) {
        let entries = |packed: &Packed| -> Vec<RegionEntry> {
            let entry = |region| RegionEntry::new(region, rights, true);
            packed.regions.iter().map(entry).collect()
        };
        let given = std::slice::from_ref(value);
        let arguments = pack(given, &[("name".to_owned(), value.clone())]);
        let arguments = arguments.expect("a value that can be encoded");
        let regions = entries(&arguments);
        let custody = regions.iter().map(RegionEntry::custody);
        let confirmed = custody.map(|custody| CustodyAt { custody, serial: 3 }).collect();
        let parent = 1 << 40;
        let head = CallHead { endpoint: "echo", ticket: 5, parent, regions, confirmed };
        self.requests.push((ask::CALL, [encode(&head), arguments.bytes].concat()));
        let result = packed(value);
        let regions = entries(&result);
        if regions.is_empty() {
            self.replies.push((ask::INFO, result.bytes.clone()));
        }
        let handle =
            HandleEntry { object: Id::from_bytes([2; 16]), server: Id::from_bytes([3; 16]) };
        let delivery = Delivery { serial: 7, lease: Some(LEASE), handle: Some(handle), regions };
        self.replies.push((ask::CALL, [encode(&delivery), result.bytes].concat()));
    }
}
