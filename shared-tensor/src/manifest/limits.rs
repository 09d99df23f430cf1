//! Every maximum that a manifest from somebody else is held to.

/// Most dimensions that PyTorch can index.
pub(crate) const DIMENSIONS_MAX: usize = 64;

/// How many objects any manifest may cost, however short.
pub(crate) const OBJECTS_FREE: u64 = 4 << 20;

/// How many more objects for each value and reference in it: templates say once what many objects
/// have, some forty attributes each.
pub(crate) const OBJECTS_PER_REFERENCE: u64 = 64;

/// Classes of characters in all regular expressions together: compiling `[\0-\uffff]` takes Python some
/// ten milliseconds.
pub(crate) const PATTERN_CLASSES_MAX: u64 = 256;

/// Bytes of all regular expressions together; each takes some microseconds to compile.
pub(crate) const PATTERN_BYTES_MAX: u64 = 256 << 10;

/// What a manifest may cost at most.
///
/// The defaults let a model of a hundred thousand modules pass, and keep what a hostile peer can make
/// its reader spend to some hundred megabytes and a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the encoded manifest.
    pub bytes_max: usize,
    /// Entries in each table.
    pub entries_max: usize,
    /// How deep values without identity nest in each other.
    pub depth_max: u32,
    /// How many Python objects opening makes, tensors included. A short manifest can describe many:
    /// one list may stand in another as often as it likes. A short one is held to less than this:
    /// to four million, and 64 more for each of its values and references.
    pub objects_max: u64,
    /// Bytes of all storages together.
    pub storage_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 16 << 20,
            entries_max: 4 << 20,
            depth_max: 64,
            objects_max: 32 << 20,
            storage_bytes_max: 1 << 50,
        }
    }
}
