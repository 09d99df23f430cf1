//! The vocabulary of tensors: element types and shapes.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// Most dimensions that a tensor can have.
pub const DIMENSIONS_MAX: usize = 19;

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $bytes:literal;)*) => {
        /// The type of one element, native-endian.
        ///
        /// The codes are part of the shared layout: they are only ever added to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        #[repr(u32)]
        pub enum DType {
            $($(#[$doc])* $name = $code,)*
        }

        impl DType {
            /// Every element type, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number that stands for this type in shared memory.
            pub const fn code(self) -> u32 {
                self as u32
            }

            /// The type with this code, if this build knows it.
            pub const fn from_code(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Bytes of one element.
            pub const fn bytes(self) -> usize {
                match self {
                    $(Self::$name => $bytes,)*
                }
            }

            /// The name that NumPy and PyTorch users know, such as `float32`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

dtypes! {
    /// One byte, zero or one.
    Bool = 1, "bool", 1;
    /// Unsigned, 8 bits.
    U8 = 2, "uint8", 1;
    /// Unsigned, 16 bits.
    U16 = 3, "uint16", 2;
    /// Unsigned, 32 bits.
    U32 = 4, "uint32", 4;
    /// Unsigned, 64 bits.
    U64 = 5, "uint64", 8;
    /// Signed, 8 bits.
    I8 = 6, "int8", 1;
    /// Signed, 16 bits.
    I16 = 7, "int16", 2;
    /// Signed, 32 bits.
    I32 = 8, "int32", 4;
    /// Signed, 64 bits.
    I64 = 9, "int64", 8;
    /// IEEE 754 half precision.
    F16 = 10, "float16", 2;
    /// IEEE 754 single precision.
    F32 = 11, "float32", 4;
    /// IEEE 754 double precision.
    F64 = 12, "float64", 8;
    /// Two single-precision floats.
    C64 = 13, "complex64", 8;
    /// Two double-precision floats.
    C128 = 14, "complex128", 16;
    /// The upper half of a single-precision float.
    BF16 = 15, "bfloat16", 2;
    /// 8-bit float with 4 exponent bits, finite values only.
    F8E4M3 = 16, "float8_e4m3fn", 1;
    /// 8-bit float with 5 exponent bits.
    F8E5M2 = 17, "float8_e5m2", 1;
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = Error;

    /// Parses a name such as `float32` or `bfloat16`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`], naming the types that exist.
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.iter().copied().find(|dtype| dtype.name() == text).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|dtype| dtype.name()).collect();
            Error::new(
                ErrorKind::InvalidArgument,
                format!("unsupported dtype `{text}`: use one of {}", known.join(", ")),
            )
        })
    }
}

/// The sizes of a tensor along its 1 to 19 dimensions, each at least 1, row-major.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Shape(Vec<u64>);

impl Shape {
    /// Checks the dimensions.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for no or more than [`DIMENSIONS_MAX`] dimensions, for a
    /// dimension of 0, and when the number of elements does not fit 64 bits.
    pub fn new(dimensions: impl Into<Vec<u64>>) -> Result<Self, Error> {
        let dimensions = dimensions.into();
        let invalid = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what));
        if dimensions.is_empty() || dimensions.len() > DIMENSIONS_MAX {
            return invalid(format!(
                "shape {dimensions:?} has {} dimensions: use 1 to {DIMENSIONS_MAX}",
                dimensions.len()
            ));
        }
        if let Some(axis) = dimensions.iter().position(|&size| size == 0) {
            return invalid(format!(
                "shape {dimensions:?} has size 0 on axis {axis}: every dimension must be positive"
            ));
        }
        if dimensions.iter().try_fold(1_u64, |product, &size| product.checked_mul(size)).is_none() {
            return invalid(format!(
                "shape {dimensions:?} has more elements than 64 bits can count"
            ));
        }
        Ok(Self(dimensions))
    }

    /// The size along each dimension.
    pub fn dimensions(&self) -> &[u64] {
        &self.0
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        self.0.iter().product()
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (axis, size) in self.0.iter().enumerate() {
            let separator = if axis == 0 { "" } else { ", " };
            write!(f, "{separator}{size}")?;
        }
        f.write_str("]")
    }
}

/// Rust element types that have a [`DType`] of the same bytes.
///
/// Sealed: the set of element types is part of the shared layout.
pub trait Element:
    sealed::Sealed + zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy
{
    /// The type's name in shared memory.
    const DTYPE: DType;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident,)*) => {
        $(
            impl sealed::Sealed for $rust {}
            impl Element for $rust {
                const DTYPE: DType = DType::$dtype;
            }
        )*
    };
}

elements! {
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    f32 => F32, f64 => F64,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_round_trip() {
        for &dtype in DType::ALL {
            assert_eq!(DType::from_code(dtype.code()), Some(dtype));
            assert_eq!(dtype.name().parse::<DType>().unwrap(), dtype);
        }
        assert_eq!(DType::from_code(0), None, "zeroed memory is no type");
        let message = "float128".parse::<DType>().unwrap_err().to_string();
        assert!(message.contains("`float128`") && message.contains("bfloat16"), "{message}");
    }

    #[test]
    fn shapes_are_checked_once() {
        assert_eq!(Shape::new([480, 640, 3]).unwrap().elements(), 921_600);
        for bad in [vec![], vec![1; 20], vec![3, 0], vec![u64::MAX, 2]] {
            assert!(Shape::new(bad.clone()).is_err(), "{bad:?}");
        }
        assert_eq!(Shape::new([2, 3]).unwrap().to_string(), "[2, 3]");
    }
}
