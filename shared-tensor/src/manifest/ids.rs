//! Positions in the tables of a manifest: one type per table, so that none is used in another.

use serde::{Deserialize, Serialize};

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in its table.
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl TryFrom<usize> for $name {
            type Error = std::num::TryFromIntError;

            fn try_from(index: usize) -> Result<Self, Self::Error> {
                u32::try_from(index).map(Self)
            }
        }
    )*};
}

ids! {
    /// A text.
    StringId;
    /// A class or function, by where it is imported from.
    PathId;
    /// A run of bytes that tensors lie in.
    StorageId;
    /// A tensor.
    TensorId;
    /// A value without identity.
    ValueId;
    /// What objects of one class have in common.
    TemplateId;
    /// An object with identity.
    ObjectId;
}
