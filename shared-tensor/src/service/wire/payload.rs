//! Values as bytes.
//!
//! A payload is a table of storages, each a range of a region that the message around it names by
//! its place in a list, and after it the values; one on a GPU is followed by how many regions it goes
//! on into, their numbers, and the region, index and value of the word that says when it is there, or
//! 0. It holds no bytes of tensors. Codes are only ever
//! added; an unknown one is an error.
//!
//! | code | value | followed by |
//! |---:|---|---|
//! | 0 | none | |
//! | 1, 2 | false, true | |
//! | 3 | a number | zigzag |
//! | 4 | a large number | its digits |
//! | 5 | a float | 8 bytes, little-endian |
//! | 6, 7 | text, bytes | length, bytes |
//! | 8, 9 | list, tuple | count, values |
//! | 10 | dict | count, pairs |
//! | 11 | tensor | storage, code of the type, flags, rank, sizes, strides, offset |
//! | 12 | object | kind, manifest, count, storages |
//! | 13, 14 | text, bytes | a storage that holds just them |

use std::collections::HashMap;

use tensor_cache::Charges;
use thiserror::Error;

use super::bytes::{Reader, Writer};
use super::messages::VOLATILE_ENTRY_BYTES;
use super::{DecodeError, PayloadKind};
use crate::service::region::{Id, Place, Region, RegionError};
use crate::service::value::{
    BigInt, Keeper, Layout, Object, Ready, Storage, Tensor, Value, may_follow,
};
use crate::tensor::DType;

/// How deep values may be nested.
pub const DEPTH_MAX: usize = 64;
/// How many storages and how many regions one message may name. A message carries a descriptor per
/// region that the other side does not have yet.
pub const STORAGES_MAX: usize = 65_536;
/// See [`STORAGES_MAX`].
pub const REGIONS_MAX: usize = 250;
/// How many values one message may hold, those within others included: each takes far more memory
/// than bytes on the wire.
pub const VALUES_MAX: usize = 1 << 20;
/// Texts and byte strings that are longer travel in a region.
const INLINE_BYTES_MAX: usize = 64 * 1024;

const REQUIRES_GRAD: u8 = 1;

/// Why a value cannot be sent. Nothing of it was.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PackError {
    /// Nested too deep, or in a circle.
    #[error("the value is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Too many values.
    #[error("there are more than {VALUES_MAX} values: put numbers into a tensor")]
    TooManyValues,
    /// A key that is none.
    #[error("a dict has a key that is neither a scalar nor a tuple of such")]
    Key,
    /// Too many storages.
    #[error("the value has more than {STORAGES_MAX} storages")]
    TooManyStorages,
    /// Too many regions.
    #[error(
        "the value lies in {found} regions, and a message carries {REGIONS_MAX}: allocate its \
         storages together, they share a region then"
    )]
    TooManyRegions {
        /// How many regions it lies in.
        found: usize,
    },
    /// More bytes than a message may have.
    #[error(
        "the value takes {bytes} bytes besides its tensors, and a message carries {limit}: put \
         large things into tensors or byte strings"
    )]
    TooLarge {
        /// How many bytes it takes.
        bytes: usize,
        /// How many a message carries.
        limit: usize,
    },
    /// There is no memory to carry a long text, or memory cannot be lent.
    #[error(transparent)]
    Region(#[from] RegionError),
}

/// Values as bytes, and the regions that these name by number.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) regions: Vec<Region>,
    /// Bytes of all storages, by where they are.
    pub(crate) charges: Charges,
}

/// Makes a [`Packed`].
#[derive(Debug, Default)]
pub(crate) struct Packer {
    tree: Writer,
    table: Writer,
    storages: HashMap<(Option<usize>, u64, u64), u64>,
    regions: Vec<Region>,
    /// Of those that are volatile, which are as many as there are storages, the place in `regions`.
    volatile: HashMap<Id, usize>,
    charges: Charges,
    values: usize,
    has_long_texts: bool,
}

impl Packer {
    /// One that puts texts among the values however long they are: for nobody to be sent to.
    pub(crate) fn with_long_texts() -> Self {
        Self { has_long_texts: true, ..Self::default() }
    }

    pub(crate) fn value(&mut self, value: &Value) -> Result<&mut Self, PackError> {
        self.nested(value, 0)?;
        Ok(self)
    }

    /// Values in the order of a call.
    pub(crate) fn values(&mut self, values: &[Value]) -> Result<&mut Self, PackError> {
        self.tree.number(values.len() as u64);
        for value in values {
            self.nested(value, 0)?;
        }
        Ok(self)
    }

    /// Values by name.
    pub(crate) fn named(&mut self, values: &[(String, Value)]) -> Result<&mut Self, PackError> {
        self.tree.number(values.len() as u64);
        for (name, value) in values {
            self.tree.bytes(name.as_bytes());
            self.nested(value, 0)?;
        }
        Ok(self)
    }

    /// # Errors
    /// [`PackError::TooLarge`] and [`PackError::TooManyRegions`].
    pub(crate) fn finish(self, bytes_max: usize) -> Result<Packed, PackError> {
        if self.storages.len() > STORAGES_MAX {
            return Err(PackError::TooManyStorages);
        }
        // What is volatile takes no descriptor, and room for which a message's head is not made.
        let volatile = self.regions.iter().filter(|region| region.is_volatile()).count();
        let found = self.regions.len() - volatile;
        if found > REGIONS_MAX {
            return Err(PackError::TooManyRegions { found });
        }
        let mut all = Writer::default();
        all.number(self.storages.len() as u64);
        all.0.extend_from_slice(&self.table.0);
        all.0.extend_from_slice(&self.tree.0);
        let bytes = all.0.len() + volatile * VOLATILE_ENTRY_BYTES;
        if bytes > bytes_max {
            return Err(PackError::TooLarge { bytes, limit: bytes_max });
        }
        let Self { regions, charges, .. } = self;
        Ok(Packed { bytes: all.0, regions, charges })
    }

    fn nested(&mut self, value: &Value, depth: usize) -> Result<(), PackError> {
        if depth > DEPTH_MAX {
            return Err(PackError::TooDeep);
        }
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(PackError::TooManyValues);
        }
        match value {
            Value::None => self.tree.byte(0),
            Value::Bool(is_true) => self.tree.byte(1 + u8::from(*is_true)),
            Value::Int(number) => {
                self.tree.byte(3);
                self.tree.signed(*number);
            }
            Value::BigInt(number) => {
                self.tree.byte(4);
                self.tree.bytes(number.as_str().as_bytes());
            }
            Value::Float(number) => {
                self.tree.byte(5);
                self.tree.0.extend_from_slice(&number.to_le_bytes());
            }
            Value::Str(text) => self.long(text.as_bytes(), 6)?,
            Value::Bytes(bytes) => self.long(bytes, 7)?,
            Value::List(items) => self.items(items, 8, depth)?,
            Value::Tuple(items) => self.items(items, 9, depth)?,
            Value::Dict(pairs) => {
                self.tree.byte(10);
                self.tree.number(pairs.len() as u64);
                for (key, value) in pairs {
                    if !key.is_key() {
                        return Err(PackError::Key);
                    }
                    self.nested(key, depth + 1)?;
                    self.nested(value, depth + 1)?;
                }
            }
            Value::Tensor(tensor) => self.tensor(tensor),
            Value::Object(object) => {
                self.tree.byte(12);
                self.tree.bytes(object.kind.as_bytes());
                self.tree.bytes(&object.manifest);
                self.tree.number(object.storages.len() as u64);
                for storage in &object.storages {
                    let number = self.storage(storage);
                    self.tree.number(number);
                }
            }
        }
        Ok(())
    }

    fn items(&mut self, items: &[Value], code: u8, depth: usize) -> Result<(), PackError> {
        self.tree.byte(code);
        self.tree.number(items.len() as u64);
        items.iter().try_for_each(|item| self.nested(item, depth + 1))
    }

    fn long(&mut self, bytes: &[u8], code: u8) -> Result<(), PackError> {
        if bytes.len() <= INLINE_BYTES_MAX || self.has_long_texts {
            self.tree.byte(code);
            self.tree.bytes(bytes);
            return Ok(());
        }
        let region = Region::allocate(bytes.len() as u64)?;
        let storage = Storage::of(region, 0, bytes.len() as u64);
        if let Some(target) = storage.view()?.bytes() {
            target.write_from(0, bytes).expect("as many bytes as were allocated");
        }
        self.tree.byte(code + 7);
        let number = self.storage(&storage);
        self.tree.number(number);
        Ok(())
    }

    fn tensor(&mut self, tensor: &Tensor) {
        self.tree.byte(11);
        let number = self.storage(tensor.storage());
        self.tree.number(number);
        let layout = tensor.layout();
        self.tree.number(layout.dtype.code().into());
        self.tree.byte(if tensor.requires_grad() { REQUIRES_GRAD } else { 0 });
        self.tree.number(layout.shape.len() as u64);
        layout.shape.iter().for_each(|size| self.tree.number(*size));
        layout.strides.iter().for_each(|stride| self.tree.signed(*stride));
        self.tree.number(layout.offset);
    }

    fn storage(&mut self, storage: &Storage) -> u64 {
        let region = storage.region().map(|region| self.region(region));
        let place = (region, storage.offset(), storage.bytes());
        let next = self.storages.len() as u64;
        if let Some(known) = self.storages.get(&place) {
            return *known;
        }
        self.storages.insert(place, next);
        let charges = std::mem::take(&mut self.charges);
        self.charges = charges.and(storage.place().budget(), storage.bytes());
        self.table.number(region.map_or(0, |index| index as u64 + 1));
        self.table.number(storage.offset());
        self.table.number(storage.bytes());
        if storage.place() != Place::Cpu {
            self.on_device(storage);
        }
        next
    }

    /// What else there is to say of a storage on a GPU.
    fn on_device(&mut self, storage: &Storage) {
        let further = storage.regions().get(1..).unwrap_or(&[]);
        self.table.number(further.len() as u64);
        for region in further {
            let index = self.region(region);
            self.table.number(index as u64 + 1);
        }
        let Some(ready) = storage.ready() else {
            self.table.number(0);
            return;
        };
        let index = self.region(ready.words());
        self.table.number(index as u64 + 1);
        self.table.number(ready.index());
        self.table.number(ready.value());
    }

    fn region(&mut self, region: &Region) -> usize {
        if region.is_volatile() {
            let next = self.regions.len();
            let index = *self.volatile.entry(region.id()).or_insert(next);
            if index == next {
                self.regions.push(region.clone());
            }
            return index;
        }
        let Some(index) = self.regions.iter().position(|known| known == region) else {
            self.regions.push(region.clone());
            return self.regions.len() - 1;
        };
        // The same memory with more rights is lent with them.
        if region.rights() > self.regions[index].rights() {
            self.regions[index] = region.clone();
        }
        index
    }
}

/// Reads a payload. Everything in it is checked before it is used.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    reader: Reader<'a>,
    storages: Vec<Storage>,
    values: usize,
    /// How many bytes of texts and byte strings may still be copied out of regions; found out when
    /// the first is.
    left: Option<u64>,
}

impl<'a> Unpacker<'a> {
    /// Reads the table of storages. Each hangs on `keeper`; what they wait for is written by the process
    /// `writer`.
    pub(crate) fn open(
        bytes: &'a [u8],
        regions: &[Region],
        keeper: Option<&Keeper>,
        writer: Option<u32>,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let count = reader.count(3)?;
        if count > STORAGES_MAX {
            return Err(DecodeError::Count { what: "storages", found: count });
        }
        let mut storages = Vec::with_capacity(count);
        for _ in 0..count {
            let first = region(&mut reader, regions)?;
            let (offset, length) = (reader.number()?, reader.number()?);
            let is_on_device = first.as_ref().is_some_and(|it| it.place() != Place::Cpu);
            let mut all: Vec<Region> = first.into_iter().collect();
            let mut ready = None;
            if is_on_device {
                for _ in 0..reader.count(1)? {
                    all.extend(region(&mut reader, regions)?);
                }
                ready = ready_of(&mut reader, regions, writer)?;
            }
            if !may_follow(&all) {
                return Err(DecodeError::Span);
            }
            let storage = Storage::kept(all, offset, length, keeper.cloned());
            let storage = storage.map_err(DecodeError::Storage)?;
            if let Some(ready) = ready {
                storage.set_ready(ready);
            }
            storages.push(storage);
        }
        Ok(Self { reader, storages, values: 0, left: None })
    }

    pub(crate) fn value(&mut self) -> Result<Value, DecodeError> {
        self.nested(0)
    }

    pub(crate) fn values(&mut self) -> Result<Vec<Value>, DecodeError> {
        let count = self.reader.count(1)?;
        (0..count).map(|_| self.nested(0)).collect()
    }

    pub(crate) fn named(&mut self) -> Result<Vec<(String, Value)>, DecodeError> {
        let count = self.reader.count(2)?;
        let mut named: Vec<(String, Value)> = Vec::new();
        for _ in 0..count {
            let name = self.reader.text()?.to_owned();
            named.push((name, self.nested(0)?));
        }
        Ok(named)
    }

    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.reader.is_at_end() { Ok(()) } else { Err(DecodeError::Surplus) }
    }

    fn nested(&mut self, depth: usize) -> Result<Value, DecodeError> {
        if depth > DEPTH_MAX {
            return Err(DecodeError::Depth);
        }
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err(DecodeError::Count { what: "values", found: self.values });
        }
        Ok(match self.reader.byte()? {
            0 => Value::None,
            1 => Value::Bool(false),
            2 => Value::Bool(true),
            3 => Value::Int(self.reader.signed()?),
            4 => Value::BigInt(BigInt::parse(self.reader.text()?).ok_or(DecodeError::Number)?),
            5 => {
                let bytes = self.reader.take(8)?;
                let bytes = bytes.try_into().expect("eight bytes were taken");
                Value::Float(f64::from_le_bytes(bytes))
            }
            6 => Value::Str(self.reader.text()?.to_owned()),
            7 => Value::Bytes(self.reader.bytes()?.to_vec()),
            8 => Value::List(self.items(depth)?),
            9 => Value::Tuple(self.items(depth)?),
            10 => self.dict(depth)?,
            11 => Value::Tensor(self.tensor()?),
            12 => self.object()?,
            13 => {
                let bytes = self.long()?;
                Value::Str(String::from_utf8(bytes).map_err(|_| DecodeError::Text)?)
            }
            14 => Value::Bytes(self.long()?),
            found => {
                return Err(DecodeError::Code { what: PayloadKind::Value, found: found.into() });
            }
        })
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Value>, DecodeError> {
        let count = self.reader.count(1)?;
        // A value is larger than its bytes: room is made as they come.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(self.nested(depth + 1)?);
        }
        Ok(items)
    }

    fn dict(&mut self, depth: usize) -> Result<Value, DecodeError> {
        let count = self.reader.count(2)?;
        let mut pairs = Vec::new();
        for _ in 0..count {
            let key = self.nested(depth + 1)?;
            if !key.is_key() {
                return Err(DecodeError::Key);
            }
            pairs.push((key, self.nested(depth + 1)?));
        }
        Ok(Value::Dict(pairs))
    }

    fn storage(&mut self) -> Result<Storage, DecodeError> {
        let number = self.reader.number()?;
        let index = usize::try_from(number).ok();
        let storage = index.and_then(|index| self.storages.get(index));
        Ok(storage.ok_or(DecodeError::Reference { what: "storage", number })?.clone())
    }

    /// What the sender has memory for: a region that is mostly holes, or one that is named again and
    /// again, must not cost the receiver more than it cost the sender.
    fn bytes_there(&self) -> Result<u64, RegionError> {
        let mut seen: Vec<&Region> = Vec::new();
        let mut bytes = 0_u64;
        for region in self.storages.iter().filter_map(Storage::region) {
            if region.place() == Place::Cpu && !seen.contains(&region) {
                bytes = bytes.saturating_add(region.bytes_there()?);
                seen.push(region);
            }
        }
        Ok(bytes)
    }

    fn long(&mut self) -> Result<Vec<u8>, DecodeError> {
        let storage = self.storage()?;
        let refused = |error: RegionError| DecodeError::Region(error.to_string());
        let left = match self.left {
            Some(left) => left,
            None => self.bytes_there().map_err(refused)?,
        };
        let bytes = storage.bytes();
        self.left = Some(left.checked_sub(bytes).ok_or(DecodeError::Hollow { bytes })?);
        let view = storage.view_as(crate::service::Access::ReadOnly).map_err(refused)?;
        let mut bytes = Vec::new();
        let length = usize::try_from(storage.bytes()).unwrap_or(usize::MAX);
        bytes
            .try_reserve_exact(length)
            .map_err(|_| DecodeError::Region("there is no memory for a long text".to_owned()))?;
        bytes.resize(length, 0);
        if let Some(source) = view.bytes() {
            source.read_into(0, &mut bytes).expect("as long as the storage");
        }
        Ok(bytes)
    }

    fn tensor(&mut self) -> Result<Tensor, DecodeError> {
        let storage = self.storage()?;
        let code = self.reader.number()?;
        let dtype = u32::try_from(code).ok().and_then(DType::from_code);
        let dtype = dtype.ok_or(DecodeError::Code { what: PayloadKind::DType, found: code })?;
        let flags = self.reader.byte()?;
        if flags & !REQUIRES_GRAD != 0 {
            let found = flags.into();
            return Err(DecodeError::Code { what: PayloadKind::TensorFlags, found });
        }
        let rank = self.reader.count(2)?;
        if rank > super::super::value::RANK_MAX {
            return Err(DecodeError::Count { what: "dimensions", found: rank });
        }
        let shape = (0..rank).map(|_| self.reader.number()).collect::<Result<_, _>>()?;
        let strides = (0..rank).map(|_| self.reader.signed()).collect::<Result<_, _>>()?;
        let layout = Layout { dtype, shape, strides, offset: self.reader.number()? };
        let tensor = Tensor::new(storage, layout);
        let tensor = tensor.map_err(|error| DecodeError::Tensor(error.to_string()))?;
        Ok(tensor.with_requires_grad(flags & REQUIRES_GRAD != 0))
    }

    fn object(&mut self) -> Result<Value, DecodeError> {
        let kind = self.reader.text()?.to_owned();
        let manifest = self.reader.bytes()?.into();
        let count = self.reader.count(1)?;
        let storages = (0..count).map(|_| self.storage()).collect::<Result<_, _>>()?;
        Ok(Value::Object(Object { kind, manifest, storages }))
    }
}

/// A region by its number, from 1; 0 is none.
fn region(reader: &mut Reader<'_>, regions: &[Region]) -> Result<Option<Region>, DecodeError> {
    let number = reader.number()?;
    let Some(index) = number.checked_sub(1) else { return Ok(None) };
    let region = usize::try_from(index).ok().and_then(|index| regions.get(index));
    Ok(Some(region.ok_or(DecodeError::Reference { what: "region", number })?.clone()))
}

fn ready_of(
    reader: &mut Reader<'_>,
    regions: &[Region],
    writer: Option<u32>,
) -> Result<Option<Ready>, DecodeError> {
    let Some(words) = region(reader, regions)? else { return Ok(None) };
    let (index, value) = (reader.number()?, reader.number()?);
    Ready::received(&words, index, value, writer).map(Some).ok_or(DecodeError::Ready)
}
