//! Why a manifest is not accepted.

use thiserror::Error;

use super::model::FORMAT;

/// What is wrong with a manifest. Nothing was built of it.
///
/// A manifest that was encoded by this library and arrived whole never causes one of these, except
/// [`Limit`](Self::Limit) and [`Format`](Self::Format).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It does not begin as one.
    #[error("these bytes are no manifest: they do not begin with its mark")]
    Mark,
    /// A version of the format that this release does not know.
    #[error(
        "the manifest has format {found}, and shared-tensor {version} reads formats up to {FORMAT}: \
         use one release of shared-tensor on both ends",
        version = env!("CARGO_PKG_VERSION")
    )]
    Format {
        /// The version that was found.
        found: u16,
    },
    /// Not what postcard decodes.
    #[error("the manifest is damaged: {reason}")]
    Damaged {
        /// What did not decode.
        reason: &'static str,
    },
    /// More than is allowed.
    #[error(
        "the manifest holds {found} {what}, at most {max} are allowed: raise the limit if it is meant"
    )]
    Limit {
        /// What is counted.
        what: &'static str,
        /// How many there are, at least.
        found: u64,
        /// How many there may be.
        max: u64,
    },
    /// A reference that leads nowhere.
    #[error("the manifest is damaged: {from} refers to {what} {index}, and there are {len}")]
    Dangling {
        /// Which table the reference stands in.
        from: &'static str,
        /// Which table it leads to.
        what: &'static str,
        /// Where to.
        index: u32,
        /// How many entries that table has.
        len: usize,
    },
    /// A value that is made of itself, or of one that is not made yet.
    #[error("the manifest is damaged: {what} {index} refers to what comes after it")]
    Order {
        /// Which table.
        what: &'static str,
        /// Which entry.
        index: usize,
    },
    /// An entry that makes no sense where it stands.
    #[error("the manifest is damaged: {what} {index} {fault}")]
    Entry {
        /// Which table.
        what: &'static str,
        /// Which entry.
        index: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A tensor that does not lie in its storage.
    #[error("the manifest is damaged: tensor {index} {fault}")]
    Tensor {
        /// Which.
        index: usize,
        /// What is wrong with it.
        fault: TensorFault,
    },
    /// A weak reference to what would be gone as soon as it was made.
    #[error(
        "found a weak reference to what nothing else in the object holds; hold it too, or do without"
    )]
    Weak,
    /// Memory that does not fit the storages.
    #[error("{what}: the manifest and the memory that came with it do not belong together")]
    Memory {
        /// What differs.
        what: String,
    },
}

/// What is wrong with the numbers of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TensorFault {
    /// As many strides as sizes are needed.
    #[error("has {sizes} sizes and {strides} strides")]
    Rank {
        /// Number of sizes.
        sizes: usize,
        /// Number of strides.
        strides: usize,
    },
    /// More dimensions than PyTorch can index.
    #[error("has {0} dimensions, at most 64 are allowed")]
    Dimensions(usize),
    /// Its size does not fit 63 bits.
    #[error("has sizes or strides beyond 63 bits")]
    Overflow,
    /// It ends after its storage.
    #[error("needs {needed} bytes of a storage of {bytes}")]
    Outside {
        /// Bytes from the start of the storage to the end of the last element.
        needed: u64,
        /// Bytes of the storage.
        bytes: u64,
    },
}
