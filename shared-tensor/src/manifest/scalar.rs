//! The element types of tensors in modules.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! scalars {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $bytes:literal, $code:literal;)*) => {
        /// The type of one element of a tensor.
        ///
        /// More than the [`DType`](crate::DType)s that streams have: a module may hold whatever its
        /// framework can store, also what no camera delivers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Scalar {
            $($(#[$doc])* $name,)*
        }

        impl Scalar {
            /// Every element type, in the order of their encoding.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Bytes of one element, which is also its alignment.
            pub const fn bytes(self) -> u64 {
                match self {
                    $(Self::$name => $bytes,)*
                }
            }

            /// The name that PyTorch users know, such as `float32`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The code of `DLDataTypeCode` in DLPack 1.3.
            pub const fn dlpack_code(self) -> u8 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The type of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|scalar| scalar.name() == name)
            }
        }
    };
}

scalars! {
    /// One byte, zero or one.
    Bool = "bool", 1, 6;
    /// Unsigned, 8 bits.
    U8 = "uint8", 1, 1;
    /// Unsigned, 16 bits.
    U16 = "uint16", 2, 1;
    /// Unsigned, 32 bits.
    U32 = "uint32", 4, 1;
    /// Unsigned, 64 bits.
    U64 = "uint64", 8, 1;
    /// Signed, 8 bits.
    I8 = "int8", 1, 0;
    /// Signed, 16 bits.
    I16 = "int16", 2, 0;
    /// Signed, 32 bits.
    I32 = "int32", 4, 0;
    /// Signed, 64 bits.
    I64 = "int64", 8, 0;
    /// IEEE 754 half precision.
    F16 = "float16", 2, 2;
    /// The upper half of a single-precision float.
    BF16 = "bfloat16", 2, 4;
    /// IEEE 754 single precision.
    F32 = "float32", 4, 2;
    /// IEEE 754 double precision.
    F64 = "float64", 8, 2;
    /// Two half-precision floats.
    C32 = "complex32", 4, 5;
    /// Two single-precision floats.
    C64 = "complex64", 8, 5;
    /// Two double-precision floats.
    C128 = "complex128", 16, 5;
    /// 8-bit float with 4 exponent bits, finite values only.
    F8E4M3Fn = "float8_e4m3fn", 1, 10;
    /// 8-bit float with 4 exponent bits, finite values only, one zero.
    F8E4M3FnUz = "float8_e4m3fnuz", 1, 11;
    /// 8-bit float with 5 exponent bits.
    F8E5M2 = "float8_e5m2", 1, 12;
    /// 8-bit float with 5 exponent bits, finite values only, one zero.
    F8E5M2FnUz = "float8_e5m2fnuz", 1, 13;
    /// A power of two in 8 bits, for scales.
    F8E8M0Fnu = "float8_e8m0fnu", 1, 14;
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
