//! The endpoints of a program, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use super::endpoint::Endpoint;
use super::failure::{Code, Failure};
use super::value::Value;

/// A set of endpoints. Clones are the same set; servers see what is registered later.
#[derive(Clone, Default)]
pub struct Provider {
    endpoints: Arc<RwLock<BTreeMap<Arc<str>, Arc<Endpoint>>>>,
}

impl Provider {
    /// Without endpoints.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an endpoint.
    ///
    /// # Errors
    /// A [`Failure`] of [`Code::Provider`] if there is one of that name.
    pub fn register(&self, endpoint: Endpoint) -> Result<(), Failure> {
        let mut endpoints = self.endpoints.write().unwrap_or_else(PoisonError::into_inner);
        let name = Arc::clone(&endpoint.name);
        if endpoints.contains_key(&name) {
            let what = format!("Endpoint '{name}' is already registered");
            return Err(Failure::new(Code::Provider, what));
        }
        endpoints.insert(name, Arc::new(endpoint));
        Ok(())
    }

    /// Adds an endpoint; for setting up several in a row.
    ///
    /// # Panics
    /// If there is one of that name.
    #[must_use]
    pub fn with(self, endpoint: Endpoint) -> Self {
        if let Err(failure) = self.register(endpoint) {
            panic!("{failure}");
        }
        self
    }

    /// The endpoint of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Endpoint>> {
        self.read().get(name).cloned()
    }

    /// The names, in their order.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.read().keys().cloned().collect()
    }

    /// The name that is most like another one, if one is like it.
    pub(crate) fn nearest(&self, name: &str) -> Option<Arc<str>> {
        let names = self.names().into_iter().map(|known| (distance(name, &known), known));
        let (steps, known) = names.min()?;
        (steps <= known.chars().count() / 3).then_some(known)
    }

    /// A dict of [`Endpoint::describe`] by name.
    pub fn describe(&self) -> Value {
        let endpoints = self.read();
        Value::dict(endpoints.iter().map(|(name, it)| (name.to_string(), it.describe())))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Arc<str>, Arc<Endpoint>>> {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many characters are to be put in, taken out or replaced to get from one to the other.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (line, own) in from.chars().enumerate() {
        let mut corner = row[0];
        row[0] = line + 1;
        for (at, other) in to.chars().enumerate() {
            let replaced = corner + usize::from(own != other);
            corner = row[at + 1];
            row[at + 1] = replaced.min(corner + 1).min(row[at] + 1);
        }
    }
    row[to.chars().count()]
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("endpoints", &self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted() {
        for (from, to, steps) in [("", "abc", 3), ("load", "load", 0), ("laod", "load", 2)] {
            assert_eq!((distance(from, to), distance(to, from)), (steps, steps));
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn a_name_that_is_like_another_is_found() {
        let endpoint = |name| Endpoint::new(name, |_: &_| Ok(1_i64));
        let provider = Provider::new().with(endpoint("load_model")).with(endpoint("echo"));
        assert_eq!(provider.nearest("load_modle").as_deref(), Some("load_model"));
        assert_eq!(provider.nearest("nothing"), None);
    }
}
