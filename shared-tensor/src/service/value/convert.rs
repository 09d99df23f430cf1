//! Values from what Rust has, and back.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};

use thiserror::Error;

use super::{BigInt, Object, Tensor, Value};

/// A value that is not what was wanted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{wanted} is wanted, and {found} is there")]
pub struct ValueError {
    /// What was wanted, with its article.
    pub wanted: &'static str,
    /// What is there, with its article.
    pub found: String,
}

impl ValueError {
    fn new(wanted: &'static str, value: &Value) -> Self {
        let found = match value {
            Value::None => "nothing".to_owned(),
            Value::Int(number) => format!("the number {number}"),
            Value::Float(number) => format!("the number {number:?}"),
            Value::BigInt(number) if number.as_str().len() <= 40 => {
                format!("the number {}", number.as_str())
            }
            Value::BigInt(_) | Value::Object(_) => format!("an {}", value.kind()),
            Value::Tensor(tensor) => {
                format!("a tensor of {} with the shape {:?}", tensor.dtype(), tensor.shape())
            }
            Value::Bytes(_) => "bytes".to_owned(),
            value => format!("a {}", value.kind()),
        };
        Self { wanted, found }
    }
}

macro_rules! plain {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Value {
            fn from(it: $from) -> Self {
                Self::$variant(it.into())
            }
        }
    )*};
}

plain! {
    bool => Bool, i8 => Int, i16 => Int, i32 => Int, i64 => Int, u16 => Int, u32 => Int,
    f32 => Float, f64 => Float, &str => Str, String => Str, Vec<u8> => Bytes, &[u8] => Bytes,
    Tensor => Tensor, Object => Object, BigInt => BigInt,
}

macro_rules! wide {
    ($($from:ty),*) => {$(
        impl From<$from> for Value {
            fn from(it: $from) -> Self {
                let large = || BigInt::parse(&it.to_string()).expect("more than 64 bits hold");
                i64::try_from(it).map_or_else(|_| Self::BigInt(large()), Self::Int)
            }
        }
    )*};
}

wide!(u64, u128, i128, usize, isize);

impl From<()> for Value {
    fn from((): ()) -> Self {
        Self::None
    }
}

impl From<&Tensor> for Value {
    fn from(tensor: &Tensor) -> Self {
        Self::Tensor(tensor.clone())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(it: Option<T>) -> Self {
        it.map_or(Self::None, Into::into)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::List(items.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<Value>, V: Into<Value>, S: BuildHasher> From<HashMap<K, V, S>> for Value {
    /// Only for keys that can be keys: see [`Value::is_key`].
    fn from(pairs: HashMap<K, V, S>) -> Self {
        Self::Dict(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl<K: Into<Value>, V: Into<Value>> From<BTreeMap<K, V>> for Value {
    /// Only for keys that can be keys: see [`Value::is_key`].
    fn from(pairs: BTreeMap<K, V>) -> Self {
        Self::Dict(pairs.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

/// Both ways to a type that owns what it has, from the one by reference.
macro_rules! owned {
    ($($to:ty),* $(,)?) => {$(
        impl TryFrom<Value> for $to {
            type Error = ValueError;

            fn try_from(value: Value) -> Result<Self, ValueError> {
                Self::try_from(&value)
            }
        }
    )*};
}

macro_rules! numbers {
    ($($to:ty => $wanted:literal),* $(,)?) => {$(
        impl TryFrom<&Value> for $to {
            type Error = ValueError;

            fn try_from(value: &Value) -> Result<Self, ValueError> {
                let number = match value {
                    Value::Int(number) => <$to>::try_from(*number).ok(),
                    Value::BigInt(digits) => digits.as_str().parse().ok(),
                    _ => None,
                };
                number.ok_or_else(|| ValueError::new($wanted, value))
            }
        }

        owned!($to);
    )*};
}

numbers! {
    i8 => "an int of 8 bits", i16 => "an int of 16 bits", i32 => "an int of 32 bits",
    i64 => "an int of 64 bits", i128 => "an int of 128 bits", isize => "an int of 64 bits",
    u8 => "an int of 0 to 255", u16 => "an int of 0 to 65535", u32 => "an int of 0 to 2^32 - 1",
    u64 => "an int of 0 to 2^64 - 1", u128 => "an int of 0 to 2^128 - 1",
    usize => "an int of 0 to 2^64 - 1",
}

impl TryFrom<&Value> for f64 {
    type Error = ValueError;

    fn try_from(value: &Value) -> Result<Self, ValueError> {
        match value {
            Value::Float(number) => Ok(*number),
            // As every other language has it: the nearest float.
            Value::Int(number) => Ok(nearest(*number)),
            _ => Err(ValueError::new("a float", value)),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "the nearest float is wanted")]
fn nearest(number: i64) -> f64 {
    number as f64
}

impl TryFrom<&Value> for f32 {
    type Error = ValueError;

    /// The nearest one. A number beyond all of them is refused; infinities and NaN stay what they are.
    fn try_from(value: &Value) -> Result<Self, ValueError> {
        let wide = f64::try_from(value)?;
        let narrow = wide as Self;
        if narrow.is_infinite() && wide.is_finite() {
            return Err(ValueError::new("a float of 32 bits", value));
        }
        Ok(narrow)
    }
}

macro_rules! borrowed {
    ($($to:ty, $value:ident, $wanted:literal => $found:expr;)*) => {$(
        impl<'a> TryFrom<&'a Value> for $to {
            type Error = ValueError;

            fn try_from($value: &'a Value) -> Result<Self, ValueError> {
                $found.ok_or_else(|| ValueError::new($wanted, $value))
            }
        }
    )*};
}

borrowed! {
    bool, value, "a bool" => value.as_bool();
    &'a str, value, "a str" => value.as_str();
    String, value, "a str" => value.as_str().map(str::to_owned);
    &'a [u8], value, "a value of bytes" => value.as_bytes();
    &'a [Value], value, "a list or tuple" => value.as_items();
    &'a Tensor, value, "a tensor" => value.as_tensor();
    Tensor, value, "a tensor" => value.as_tensor().cloned();
    &'a Object, value, "an object" => value.as_object();
    Object, value, "an object" => value.as_object().cloned();
}

owned!(bool, f32, f64, String, Tensor, Object);

impl<'a, T: TryFrom<&'a Value, Error = ValueError>> TryFrom<&'a Value> for Vec<T> {
    type Error = ValueError;

    /// The items of a list or a tuple. Bytes are `&[u8]`.
    fn try_from(value: &'a Value) -> Result<Self, ValueError> {
        let items = value.as_items().ok_or_else(|| ValueError::new("a list or tuple", value))?;
        items.iter().map(T::try_from).collect()
    }
}

impl<'a, K, V> TryFrom<&'a Value> for BTreeMap<K, V>
where
    K: TryFrom<&'a Value, Error = ValueError> + Ord,
    V: TryFrom<&'a Value, Error = ValueError>,
{
    type Error = ValueError;

    fn try_from(value: &'a Value) -> Result<Self, ValueError> {
        pairs(value)
    }
}

impl<'a, K, V, S> TryFrom<&'a Value> for HashMap<K, V, S>
where
    K: TryFrom<&'a Value, Error = ValueError> + Eq + Hash,
    V: TryFrom<&'a Value, Error = ValueError>,
    S: BuildHasher + Default,
{
    type Error = ValueError;

    fn try_from(value: &'a Value) -> Result<Self, ValueError> {
        pairs(value)
    }
}

fn pairs<'a, K, V, M>(value: &'a Value) -> Result<M, ValueError>
where
    K: TryFrom<&'a Value, Error = ValueError>,
    V: TryFrom<&'a Value, Error = ValueError>,
    M: FromIterator<(K, V)>,
{
    let pairs = value.as_pairs().ok_or_else(|| ValueError::new("a dict", value))?;
    pairs.iter().map(|(key, value)| Ok((K::try_from(key)?, V::try_from(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::region::Arena;

    #[test]
    fn numbers_come_back_as_every_type_that_holds_them() {
        for value in [Value::from(200_i64), Value::from(200_u16), Value::from(200_usize)] {
            assert_eq!(value, Value::Int(200));
            assert_eq!(u8::try_from(&value), Ok(200));
            assert_eq!(u128::try_from(value.clone()), Ok(200));
            assert_eq!(f32::try_from(&value), Ok(200.0));
            let narrow = i8::try_from(&value).unwrap_err().to_string();
            assert_eq!(narrow, "an int of 8 bits is wanted, and the number 200 is there");
        }
        let large = Value::from(u64::MAX);
        assert_eq!(large.kind(), "int of more than 64 bits");
        assert_eq!(u64::try_from(&large), Ok(u64::MAX));
        assert!(i64::try_from(&large).is_err());
        assert_eq!(i128::try_from(&Value::from(i128::MIN)), Ok(i128::MIN));
        assert_eq!(f64::try_from(Value::from(0.5_f32)), Ok(0.5));
        assert!(i64::try_from(&Value::from(1.0)).is_err(), "no rounding by the way");
        let beyond = f32::try_from(&Value::from(1e300)).unwrap_err().to_string();
        assert_eq!(beyond, "a float of 32 bits is wanted, and the number 1e300 is there");
        assert!(f32::try_from(&Value::from(-1e39)).is_err());
        assert_eq!(f32::try_from(&Value::from(f64::from(f32::MAX))), Ok(f32::MAX));
        assert_eq!(f32::try_from(&Value::from(f64::NEG_INFINITY)), Ok(f32::NEG_INFINITY));
        assert_eq!(f32::try_from(&Value::from(1e-300)), Ok(0.0), "the nearest one");
        assert!(i64::try_from(&Value::from(true)).is_err());
    }

    #[test]
    fn what_holds_others_is_converted_all_through() {
        let value = Value::from(vec![vec!["a", "b"], vec![]]);
        assert_eq!(Vec::<Vec<&str>>::try_from(&value), Ok(vec![vec!["a", "b"], vec![]]));
        assert_eq!(Vec::<i64>::try_from(&Value::Tuple(vec![1.into(), 2.into()])), Ok(vec![1, 2]));
        let map = HashMap::from([(1_i64, 0.5), (2, 1.5)]);
        assert_eq!(HashMap::<i64, f64>::try_from(&Value::from(map.clone())), Ok(map));
        let sorted = BTreeMap::from([("b", None), ("a", Some(true))]);
        let value = Value::from(sorted);
        assert_eq!(value, Value::dict([("a", true.into()), ("b", Value::None)]));
        let wrong = BTreeMap::<String, bool>::try_from(&value).unwrap_err().to_string();
        assert_eq!(wrong, "a bool is wanted, and nothing is there");
    }

    #[test]
    fn texts_bytes_and_tensors_are_borrowed_or_cloned() {
        let (text, bytes) = (Value::from("text"), Value::from(vec![1_u8, 2]));
        assert_eq!(
            (<&str>::try_from(&text), String::try_from(&text)),
            (Ok("text"), Ok("text".into()))
        );
        assert_eq!(<&[u8]>::try_from(&bytes), Ok(&[1, 2][..]));
        assert_eq!(Value::from(&[1_u8, 2][..]), bytes);
        let tensor = Tensor::from_slice(&Arena::new(), [2], &[1.0_f32, 2.0]).unwrap();
        let value = Value::from(&tensor);
        assert_eq!(<&Tensor>::try_from(&value), Ok(&tensor));
        let wrong = bool::try_from(&value).unwrap_err().to_string();
        assert_eq!(wrong, "a bool is wanted, and a tensor of float32 with the shape [2] is there");
        assert_eq!(Value::from(()), Value::from(None::<i64>));
    }
}
