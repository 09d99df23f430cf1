//! What endpoints take and return.

mod convert;
mod elements;
mod layout;
mod ready;
mod storage;
mod tensor;

use std::sync::Arc;

pub use convert::ValueError;
pub use elements::{Elements, TensorView};
pub use layout::{Layout, RANK_MAX};
pub use ready::Ready;
pub use storage::{OutsideRegion, Storage, StorageView};
pub use tensor::{Tensor, TensorError};

pub(crate) use storage::{Keeper, may_follow};

use super::region::{Arena, RegionError};

/// A value that can be passed to an endpoint or returned by one.
///
/// All of it but the bytes of tensors and objects travels in the message; those stay where they are.
///
/// | Rust | value |
/// |---|---|
/// | `()`, `Option` | [`None`](Self::None), or what is in it |
/// | `bool` | [`Bool`](Self::Bool) |
/// | `i8` to `i128`, `u16` to `u128`, `isize`, `usize` | [`Int`](Self::Int), or [`BigInt`](Self::BigInt) if 64 bits do not hold it |
/// | `f32`, `f64` | [`Float`](Self::Float) |
/// | `&str`, `String` | [`Str`](Self::Str) |
/// | `Vec<u8>`, `&[u8]` | [`Bytes`](Self::Bytes) |
/// | `Vec` of anything else here | [`List`](Self::List) |
/// | `HashMap`, `BTreeMap` | [`Dict`](Self::Dict) |
/// | [`Tensor`], [`Object`], [`BigInt`] | themselves |
///
/// `From` leads there, `TryFrom`, of a value or a reference to one, leads back; a [`ValueError`] says
/// what was there instead. Numbers come back as every type that holds them, a float from a whole
/// number as well, and a list from a tuple. A `u8` alone has no `From`, so that many of them are bytes:
/// use a wider type.
///
/// ```
/// use std::collections::BTreeMap;
/// use shared_tensor::service::Value;
///
/// let value = Value::from(BTreeMap::from([("rows", vec![1_u32, 2, 3])]));
/// assert_eq!(value.get("rows").map(Vec::<u8>::try_from).transpose()?, Some(vec![1, 2, 3]));
/// let wrong = f64::try_from(&value).unwrap_err();
/// assert_eq!(wrong.to_string(), "a float is wanted, and a dict is there");
/// # Ok::<(), shared_tensor::service::ValueError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Nothing.
    None,
    /// True or false.
    Bool(bool),
    /// A number that fits 64 bits.
    Int(i64),
    /// One that does not.
    BigInt(BigInt),
    /// A 64-bit float.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A sequence that its owner may change.
    List(Vec<Value>),
    /// A sequence of a fixed form.
    Tuple(Vec<Value>),
    /// Pairs in the order of their making. Keys are scalars, or tuples of such.
    Dict(Vec<(Value, Value)>),
    /// Elements in shared memory.
    Tensor(Tensor),
    /// Something that a layer above this one knows how to open.
    Object(Object),
}

impl Value {
    /// What stands under `key`, a text, in a dict.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Self::Dict(pairs) = self else { return None };
        pairs.iter().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value)
    }

    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Str(text) = self { Some(text) } else { None }
    }

    /// The number, if it is one that fits.
    pub fn as_int(&self) -> Option<i64> {
        if let Self::Int(number) = self { Some(*number) } else { None }
    }

    /// The truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(truth) = self { Some(*truth) } else { None }
    }

    /// The float, if it is one.
    pub fn as_float(&self) -> Option<f64> {
        if let Self::Float(number) = self { Some(*number) } else { None }
    }

    /// The bytes, if it is bytes.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }

    /// The items, if it is a list or a tuple.
    pub fn as_items(&self) -> Option<&[Value]> {
        if let Self::List(items) | Self::Tuple(items) = self { Some(items) } else { None }
    }

    /// The pairs, if it is a dict.
    pub fn as_pairs(&self) -> Option<&[(Value, Value)]> {
        if let Self::Dict(pairs) = self { Some(pairs) } else { None }
    }

    /// Whether it is nothing.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The word for what it is, as messages have it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::BigInt(_) => "int of more than 64 bits",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Tensor(_) => "tensor",
            Self::Object(_) => "object",
        }
    }

    /// The tensor, if it is one.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        if let Self::Tensor(tensor) = self { Some(tensor) } else { None }
    }

    /// The object, if it is one.
    pub fn as_object(&self) -> Option<&Object> {
        if let Self::Object(object) = self { Some(object) } else { None }
    }

    /// Whether it may stand before the colon of a dict.
    pub fn is_key(&self) -> bool {
        match self {
            Self::None
            | Self::Bool(_)
            | Self::Int(_)
            | Self::BigInt(_)
            | Self::Float(_)
            | Self::Str(_)
            | Self::Bytes(_) => true,
            Self::Tuple(items) => items.iter().all(Self::is_key),
            _ => false,
        }
    }

    /// A dict with texts as keys.
    pub fn dict<K: Into<String>>(pairs: impl IntoIterator<Item = (K, Value)>) -> Self {
        let pairs = pairs.into_iter().map(|(key, value)| (Self::Str(key.into()), value));
        Self::Dict(pairs.collect())
    }
}

/// A whole number that 64 bits do not hold, as decimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BigInt(String);

impl BigInt {
    /// How many digits there may be: beyond that, Python refuses to read them as well.
    pub const DIGITS_MAX: usize = 4300;

    /// The number with these digits: a minus or nothing, no leading zero, too large for an `i64`.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_number = digits.len() <= Self::DIGITS_MAX
            && digits.bytes().all(|it| it.is_ascii_digit())
            && !digits.starts_with('0')
            && !digits.is_empty();
        (is_number && text.parse::<i64>().is_err()).then(|| Self(text.to_owned()))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An opaque thing over storages.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Who knows how to open it.
    pub kind: String,
    /// What it needs for that; storages are addressed by their place in `storages`.
    pub manifest: Arc<[u8]>,
    /// The bytes that it is made of.
    pub storages: Vec<Storage>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        assert!(BigInt::parse("9223372036854775808").is_some());
        assert!(BigInt::parse("-9223372036854775809").is_some());
        for text in ["", "-", "9223372036854775807", "012345678901234567890123", "1e30", "+9", "٣"]
        {
            assert_eq!(BigInt::parse(text), None, "{text}");
        }
        assert_eq!(BigInt::parse(&"9".repeat(4301)), None);
    }

    #[test]
    fn keys_are_scalars_and_tuples_of_such() {
        assert!(Value::Tuple(vec![1.into(), "a".into(), Value::Tuple(vec![])]).is_key());
        assert!(!Value::Tuple(vec![Value::List(vec![])]).is_key());
        let dict = Value::dict([("a", 1.into()), ("b", Value::None)]);
        assert!(!dict.is_key());
        assert_eq!((dict.get("a"), dict.get("c")), (Some(&Value::Int(1)), None));
    }
}
