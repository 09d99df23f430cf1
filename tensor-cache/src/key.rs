//! What values are found by.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

/// A key of the cache.
///
/// Hashing, comparing, cloning, grouping and dropping a key happen under the cache's lock: they must
/// be quick, must not panic, and must not use the cache.
///
/// Numbers, characters and strings, owned, shared or `'static`, are keys of one common group. Of two
/// or three things that can be shown, the first is the group, which suits "endpoint, arguments". Any
/// other type is a key as [`Plain`], or by an `impl` of these two methods:
///
/// ```
/// use tensor_cache::Key;
///
/// #[derive(Clone, PartialEq, Eq, Hash)]
/// struct Shard { model: String, number: u32 }
///
/// impl Key for Shard {
///     type Group = String;
///
///     fn group(&self) -> String {
///         self.model.clone()
///     }
///
///     fn name(&self) -> String {
///         format!("{} ({})", self.model, self.number)
///     }
/// }
/// ```
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

plain!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, bool, char);
plain!(String, &'static str, Box<str>, Arc<str>, Cow<'static, str>);

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

impl<G, M, N> Key for (G, M, N)
where
    G: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    M: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
    N: Clone + Eq + Hash + fmt::Display + Send + Sync + 'static,
{
    type Group = G;

    fn group(&self) -> G {
        self.0.clone()
    }

    fn name(&self) -> String {
        format!("{}/{}/{}", self.0, self.1, self.2)
    }
}

/// Anything that can be told apart and shown to a programmer, as a key of one common group.
///
/// ```
/// use std::path::PathBuf;
/// use tensor_cache::{Built, Cache, Options, Plain, Request};
///
/// #[derive(Clone, Debug, PartialEq, Eq, Hash)]
/// enum Precision { Half, Full }
///
/// let cache: Cache<Plain<(PathBuf, Precision)>, Vec<u8>> = Cache::new(&Options::new())?;
/// let key = Plain((PathBuf::from("model.bin"), Precision::Half));
/// let model = cache.open_session().get_or_build(&Request::new(key), |_| Ok(Built::new(vec![7])))?;
/// assert_eq!(model[0], 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Plain<T>(pub T);

impl<T: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static> Key for Plain<T> {
    type Group = ();

    fn group(&self) {}

    fn name(&self) -> String {
        format!("{:?}", self.0)
    }
}

impl<T> From<T> for Plain<T> {
    fn from(key: T) -> Self {
        Self(key)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_and_grouped() {
        assert_eq!((-3_i64).name(), "-3");
        assert_eq!(Arc::<str>::from("shared").name(), "shared");
        assert_eq!(Cow::Borrowed("either").name(), "either");
        let three = ("endpoint", 7_u8, "half".to_owned());
        assert_eq!((three.group(), three.name()), ("endpoint", "endpoint/7/half".to_owned()));
        assert_eq!(Plain((Some(1), "a")).name(), "(Some(1), \"a\")");
    }
}
