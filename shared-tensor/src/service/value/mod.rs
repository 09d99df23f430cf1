//! What endpoints take and return.

mod storage;
mod tensor;

use std::sync::Arc;

pub use storage::{OutsideRegion, Storage, StorageView};
pub use tensor::{Layout, RANK_MAX, Tensor, TensorError};

pub(crate) use storage::Keeper;

use super::region::{Arena, RegionError};

/// A value that can be passed to an endpoint or returned by one.
///
/// All of it but the bytes of tensors and objects travels in the message; those stay where they are.
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

    /// The tensor, if it is one.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        if let Self::Tensor(tensor) = self { Some(tensor) } else { None }
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

macro_rules! from {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(it: $from) -> Self {
                Self::$variant(it.into())
            }
        }
    )*};
}

from! {
    bool => Bool, i64 => Int, i32 => Int, u32 => Int, f64 => Float, &str => Str, String => Str,
    Tensor => Tensor, Object => Object, BigInt => BigInt,
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(it: Option<T>) -> Self {
        it.map_or(Self::None, Into::into)
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
