//! The structures of requests, replies and pushes.

use std::fmt;
use std::time::Duration;

use cuda_ipc::LegacyHandle;
use serde::{Deserialize, Serialize};

use super::{DecodeError, PayloadKind};
use crate::service::failure::Failure;
use crate::service::region::{Id, Place, Region, Rights};

/// What is said here beyond the first version, if both sides offer it.
pub(crate) const FEATURES: u64 = VOLATILE;
/// Memory that is lent without a descriptor, by a handle of the driver.
pub(crate) const VOLATILE: u64 = 1;

/// What a request asks.
pub(crate) mod ask {
    pub(crate) const CALL: u16 = 1;
    pub(crate) const SUBMIT: u16 = 2;
    pub(crate) const INFO: u16 = 3;
    pub(crate) const ENDPOINTS: u16 = 4;
    pub(crate) const RELEASE: u16 = 5;
    pub(crate) const RELEASE_LEASES: u16 = 6;
    pub(crate) const OBJECT: u16 = 7;
    pub(crate) const INVALIDATE_CALL: u16 = 8;
    pub(crate) const INVALIDATE_ENDPOINT: u16 = 9;
    pub(crate) const TASK_STATUS: u16 = 10;
    pub(crate) const TASK_RESULT: u16 = 11;
    pub(crate) const TASK_WAIT: u16 = 12;
    pub(crate) const TASK_CANCEL: u16 = 13;
    pub(crate) const TASK_LIST: u16 = 14;
    pub(crate) const FORGET: u16 = 15;

    /// All of them, for those who try each.
    #[cfg(test)]
    pub(crate) const ALL: std::ops::RangeInclusive<u16> = CALL..=FORGET;
}

/// What a reply brings.
pub(crate) mod answer {
    pub(crate) const DONE: u16 = 0;
    pub(crate) const FAILED: u16 = 1;
}

/// What a push is about.
pub(crate) mod push {
    pub(crate) const PROGRESS: u16 = 1;
}

/// A region, as a message names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RegionEntry {
    pub(crate) id: Id,
    pub(crate) bytes: u64,
    place: PlaceEntry,
    flags: u8,
}

/// Where a region is. Codes are only ever added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum PlaceEntry {
    Cpu,
    /// A GPU, by its identity.
    Cuda([u8; 16]),
    /// The same, for memory without a descriptor: it is named anew each time, with a handle in its form
    /// for messages, in parts of a length that serde knows.
    Volatile([u8; 16], [[u8; 20]; 4]),
}

/// How long the entry of a volatile region is at most.
pub(crate) const VOLATILE_ENTRY_BYTES: usize = 16 + 10 + 1 + 16 + LegacyHandle::BYTES + 1;

const ATTACHED: u8 = 1;
const WRITABLE: u8 = 2;

impl RegionEntry {
    pub(crate) fn new(region: &Region, rights: Rights, is_attached: bool) -> Self {
        let flags = if is_attached { ATTACHED } else { 0 }
            | if rights == Rights::Write { WRITABLE } else { 0 };
        let place = match (region.place(), region.handle()) {
            (Place::Cpu, _) => PlaceEntry::Cpu,
            (Place::Cuda(device), None) => PlaceEntry::Cuda(device.to_bytes()),
            (Place::Cuda(device), Some(handle)) => {
                let form = handle.encode();
                let part = |at: usize| std::array::from_fn(|byte| form[at * 20 + byte]);
                PlaceEntry::Volatile(device.to_bytes(), std::array::from_fn(part))
            }
        };
        Self { id: region.id(), bytes: region.bytes(), place, flags }
    }

    /// # Errors
    /// [`DecodeError::Code`] for what this build does not know.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        if self.flags & !(ATTACHED | WRITABLE) != 0 {
            let found = self.flags.into();
            return Err(DecodeError::Code { what: PayloadKind::RegionFlags, found });
        }
        let Some(handle) = self.handle() else { return Ok(()) };
        if handle.bytes() != self.bytes {
            return Err(DecodeError::Region("its handle is of another length".to_owned()));
        }
        if self.flags != ATTACHED | WRITABLE {
            let what = "memory without a descriptor that is not for writing".to_owned();
            return Err(DecodeError::Region(what));
        }
        Ok(())
    }

    /// What volatile memory is opened by.
    pub(crate) fn handle(&self) -> Option<LegacyHandle> {
        let PlaceEntry::Volatile(_, parts) = &self.place else { return None };
        let form = std::array::from_fn(|byte| parts[byte / 20][byte % 20]);
        Some(LegacyHandle::decode(&form))
    }

    /// The region, if it is volatile: this process's own if it lends it, as far as it knows.
    pub(crate) fn volatile(&self) -> Option<Region> {
        let handle = self.handle()?;
        let Place::Cuda(device) = self.place() else { return None };
        let own = Region::own_volatile(self.id);
        Some(own.unwrap_or_else(|| Region::their_volatile(device, self.id, handle)))
    }

    pub(crate) fn place(&self) -> Place {
        match self.place {
            PlaceEntry::Cpu => Place::Cpu,
            PlaceEntry::Cuda(device) | PlaceEntry::Volatile(device, _) => {
                Place::Cuda(cuda_ipc::Uuid::from_bytes(device))
            }
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.flags & ATTACHED != 0
    }

    pub(crate) fn rights(&self) -> Rights {
        if self.flags & WRITABLE != 0 { Rights::Write } else { Rights::Read }
    }

    pub(crate) fn custody(&self) -> Custody {
        Custody { id: self.id, is_writable: self.rights() == Rights::Write }
    }
}

/// What a peer holds: a region, in one of the two ways to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Custody {
    pub(crate) id: Id,
    pub(crate) is_writable: bool,
}

/// With a serial number: of the last message that named the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CustodyAt {
    pub(crate) custody: Custody,
    pub(crate) serial: u64,
}

/// The head of CALL, SUBMIT and `INVALIDATE_CALL`; the payload follows: positional arguments, then
/// named ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallHead<'a> {
    pub(crate) endpoint: &'a str,
    /// Progress is pushed under this number; 0 for none.
    pub(crate) ticket: u64,
    /// The call of this server in which this one is made, and waited for; 0 for none.
    pub(crate) parent: u64,
    pub(crate) regions: Vec<RegionEntry>,
    pub(crate) confirmed: Vec<CustodyAt>,
}

/// The answer to CALL and `TASK_RESULT`; the payload follows: one value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery {
    /// Counts those of one connection that name regions.
    pub(crate) serial: u64,
    pub(crate) lease: Option<LeaseEntry>,
    pub(crate) handle: Option<HandleEntry>,
    pub(crate) regions: Vec<RegionEntry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct LeaseEntry {
    pub(crate) object: u64,
    pub(crate) serial: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandleEntry {
    pub(crate) object: Id,
    pub(crate) server: Id,
}

/// RELEASE is answered with one for each object asked for; `None` where there was no lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// How many leases are left on the object, all clients together.
    pub refcount: u64,
    /// Whether the object is gone.
    pub destroyed: bool,
}

/// What there is to know of a managed object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectInfo {
    /// The object.
    pub object: Id,
    /// The endpoint that made it.
    pub endpoint: String,
    /// What it is found by, if it is cached.
    pub cache_key: Option<String>,
    /// How many leases there are on it, all clients together.
    pub refcount: u64,
    /// When it was made, in seconds since 1970.
    pub created_at: f64,
    /// When it was last delivered, in seconds since 1970.
    pub last_accessed_at: f64,
    /// The server that has it.
    pub server: Id,
}

/// Where a task is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskStatus {
    /// It waits for a worker.
    Pending,
    /// It runs.
    Running,
    /// It has ended with a value.
    Completed,
    /// It has ended with a failure.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl TaskStatus {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What there is to know of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskInfo {
    /// The task.
    pub id: Id,
    /// The endpoint that it runs.
    pub endpoint: String,
    /// Where it is in its life.
    pub status: TaskStatus,
    /// When it was submitted, in seconds since 1970.
    pub created_at: f64,
    /// When it began to run, in seconds since 1970.
    pub started_at: Option<f64>,
    /// When it ended, in seconds since 1970.
    pub completed_at: Option<f64>,
    /// The name of the type of its error, where it was raised.
    pub error_type: Option<String>,
    /// What its error said.
    pub error_message: Option<String>,
    /// The managed object that it made.
    pub object: Option<Id>,
    /// The latest that it told.
    pub progress: Option<Progress>,
}

/// How far a call or task is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// How much is done, in a unit of the endpoint's choice.
    pub done: u64,
    /// How much there is to do, in the same unit; 0 if that is not known.
    pub total: u64,
    /// A few words for people.
    pub note: String,
}

/// The push of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) ticket: u64,
    pub(crate) progress: Progress,
}

/// `TASK_STATUS`, `TASK_RESULT`, `TASK_WAIT`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskAsk {
    pub(crate) task: Id,
    pub(crate) ticket: u64,
    /// Whether a running one is told to stop.
    pub(crate) is_cooperative: bool,
}

/// What an invalidation hit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalidated {
    /// Values that will not be found again.
    pub entries: u64,
    /// Builds in progress whose value will not be kept.
    pub builds: u64,
}

/// A failure on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FailureEntry {
    code: u8,
    type_name: String,
    message: String,
    traceback: Option<String>,
    data: Option<String>,
}

/// Where texts are cut, in bytes.
const TEXT_BYTES_MAX: usize = 64 * 1024;

impl From<&Failure> for FailureEntry {
    fn from(it: &Failure) -> Self {
        let text = |text: &str| cut(text).to_owned();
        Self {
            code: it.code.number(),
            type_name: text(&it.type_name),
            message: text(&it.message),
            traceback: it.traceback.as_deref().map(text),
            data: it.data.as_deref().map(text),
        }
    }
}

impl From<FailureEntry> for Failure {
    fn from(it: FailureEntry) -> Self {
        let FailureEntry { code, type_name, message, traceback, data } = it;
        // A code of a later release is somebody's own, as far as this one knows.
        let code = super::super::failure::Code::from_number(code).unwrap_or_default();
        Self { code, type_name, message, traceback, data }
    }
}

fn cut(text: &str) -> &str {
    let mut end = TEXT_BYTES_MAX.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A length of time that a server tells.
pub(crate) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Encoding into memory fails only for types that refuse to be encoded.
    postcard::to_allocvec(message).unwrap_or_default()
}

/// The message and what follows it.
pub(crate) fn decode<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), DecodeError> {
    postcard::take_from_bytes(bytes).map_err(|_| DecodeError::Head)
}

/// The message, and nothing else.
pub(crate) fn decode_all<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, DecodeError> {
    match decode(bytes)? {
        (message, []) => Ok(message),
        _ => Err(DecodeError::Surplus),
    }
}
