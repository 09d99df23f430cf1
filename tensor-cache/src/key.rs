//! What values are found by.

use std::fmt;
use std::hash::Hash;

/// A key of the cache.
///
/// Hashing, comparing, cloning, grouping and dropping a key happen under the cache's lock: they must
/// be quick, must not panic, and must not use the cache.
///
/// Numbers and strings are keys of one common group. A pair is a key whose first half is its group,
/// which suits "endpoint, arguments".
pub trait Key: Clone + Eq + Hash + Send + Sync + 'static {
    /// What [`Cache::invalidate_group`](crate::Cache::invalidate_group) names.
    type Group: Eq;

    /// The group that this key belongs to, always the same one.
    fn group(&self) -> Self::Group;

    /// The key as messages name it.
    fn name(&self) -> String;
}

macro_rules! plain {
    ($($key:ty),*) => {$(
        impl Key for $key {
            type Group = ();

            fn group(&self) {}

            fn name(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

plain!(u8, u16, u32, u64, u128, usize, String, &'static str);

impl<G, N> Key for (G, N)
where
    G: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    N: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
{
    type Group = G;

    fn group(&self) -> G {
        self.0.clone()
    }

    fn name(&self) -> String {
        format!("{}/{}", self.0, self.1)
    }
}
