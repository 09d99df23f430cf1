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

    /// A dict of [`Endpoint::describe`] by name.
    pub fn describe(&self) -> Value {
        let endpoints = self.read();
        Value::dict(endpoints.iter().map(|(name, it)| (name.to_string(), it.describe())))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Arc<str>, Arc<Endpoint>>> {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("endpoints", &self.names()).finish()
    }
}
