//! A result, ready to be delivered any number of times.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tensor_cache::Charges;

use crate::service::endpoint::{Endpoint, Native, Output};
use crate::service::failure::{Code, Failure};
use crate::service::place::Device;
use crate::service::region::{Id, Place, Region, RegionError, Rights};
use crate::service::value::{Storage, Value};
use crate::service::wire::payload::{PackError, Packed, Packer};

/// A value, encoded once; what differs between clients is put in front of it.
pub(crate) struct Kept {
    pub(crate) value: Value,
    pub(crate) native: Option<Native>,
    pub(crate) packed: Packed,
    pub(crate) grants: Rights,
    /// What clients know it by, if it is managed.
    pub(crate) object: Option<Id>,
    pub(crate) endpoint: String,
    pub(crate) cache_key: Option<String>,
    pub(crate) created_at: f64,
    /// Bits of a float.
    accessed_at: AtomicU64,
    pub(crate) on_drop: Option<Box<dyn Fn(Id) + Send + Sync>>,
}

impl Kept {
    /// Encodes a result, and sees to it that it can be delivered: what cannot is neither kept nor
    /// registered.
    pub(crate) fn new(
        endpoint: &Endpoint,
        output: Output,
        cache_key: Option<String>,
        bytes_max: usize,
    ) -> Result<Self, Failure> {
        let grants = endpoint.grants();
        let Output { value, native } = output;
        let mut packer = Packer::default();
        packer.value(&value).map_err(refused)?;
        let payload = packer.finish(bytes_max).map_err(refused)?;
        for region in &payload.regions {
            if !region.may_go_to(Some(std::process::id())) {
                return Err(refused(RegionError::Astray.into()));
            }
            let granted = region.lend(region.granting(grants));
            granted.map_err(|error| refused(error.into()))?;
        }
        let is_object = endpoint.is_managed && value != Value::None;
        let now = now();
        Ok(Self {
            value,
            native,
            packed: payload,
            grants,
            object: is_object.then(Id::random),
            endpoint: endpoint.name().to_owned(),
            cache_key,
            created_at: now,
            accessed_at: AtomicU64::new(now.to_bits()),
            on_drop: None,
        })
    }

    /// Refuses tensors in memory of the host.
    pub(crate) fn must_lie_on(&self, gpu: &Device) -> Result<(), Failure> {
        if !has_host_memory(&self.value) {
            return Ok(());
        }
        Err(Failure::new(
            Code::Capability,
            format!(
                "the result cannot be delivered: it has a tensor in memory of the host, and this server \
                 is for {gpu}; allocate it there, or say host_memory_for_gpu(true)"
            ),
        ))
    }

    /// Whether those who get it hold it: its memory or its name is of use to them later.
    pub(crate) fn is_leased(&self) -> bool {
        self.object.is_some() || !self.packed.regions.is_empty()
    }

    /// Whether it has to stay here for as long as anybody has it.
    pub(crate) fn is_borrowed(&self) -> bool {
        self.packed.regions.iter().any(Region::is_borrowed)
    }

    pub(crate) fn charges(&self) -> Charges {
        self.packed.charges.clone()
    }

    pub(crate) fn touch(&self) {
        self.accessed_at.store(now().to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn accessed_at(&self) -> f64 {
        f64::from_bits(self.accessed_at.load(Ordering::Relaxed))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let (Some(object), Some(on_drop)) = (self.object, &self.on_drop) {
            on_drop(object);
        }
    }
}

/// Whether tensors of a value, which was packed and so is not nested too deep, lie on the host.
fn has_host_memory(value: &Value) -> bool {
    let is_there = |storage: &Storage| storage.region().is_some() && storage.place() == Place::Cpu;
    match value {
        Value::Tensor(tensor) => is_there(tensor.storage()),
        Value::Object(object) => object.storages.iter().any(is_there),
        Value::List(items) | Value::Tuple(items) => items.iter().any(has_host_memory),
        Value::Dict(pairs) => pairs.iter().any(|(_, item)| has_host_memory(item)),
        _ => false,
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
pub(crate) fn refused(error: PackError) -> Failure {
    let code = match &error {
        PackError::Region(_) => Code::Capability,
        _ => Code::Serialization,
    };
    Failure::new(code, format!("the result cannot be delivered: {error}"))
}
