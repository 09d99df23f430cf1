//! The endpoints of a program, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use thiserror::Error;

use super::endpoint::Endpoint;
use super::failure::Code;
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
    /// [`RegisterError::Taken`] if there is one of that name; [`RegisterError::KeyIgnores`] if it
    /// would keep one result for all values of the [parameters](Endpoint::parameters) that it has;
    /// [`RegisterError::Name`] and [`RegisterError::Parameter`] if it, or a parameter, has a name that is
    /// empty, is longer than [`ENDPOINT_NAME_BYTES_MAX`] or has a control character in it, or a
    /// parameter has the name of another one.
    pub fn register(&self, endpoint: Endpoint) -> Result<(), RegisterError> {
        let name = Arc::clone(&endpoint.name);
        if let Some(problem) = problem_of(&name) {
            let shown = shown(&name);
            return Err(RegisterError::Name { name: shown, problem });
        }
        let parameters = endpoint.parameters.as_deref().unwrap_or_default();
        for (place, parameter) in parameters.iter().enumerate() {
            let is_twice = parameters[..place].contains(parameter);
            let problem = is_twice.then_some("is there twice").or_else(|| problem_of(parameter));
            if let Some(problem) = problem {
                let parameter = shown(parameter);
                return Err(RegisterError::Parameter { name, place, parameter, problem });
            }
        }
        if let Some(parameters) = endpoint.ignored_by_key() {
            return Err(RegisterError::KeyIgnores { name, parameters: parameters.to_vec() });
        }
        let mut endpoints = self.endpoints.write().unwrap_or_else(PoisonError::into_inner);
        if endpoints.contains_key(&name) {
            return Err(RegisterError::Taken { name });
        }
        endpoints.insert(name, Arc::new(endpoint));
        Ok(())
    }

    /// Adds an endpoint; for setting up several in a row.
    ///
    /// # Panics
    /// If there is one of that name, and wherever else [`register`](Self::register) fails.
    #[must_use]
    pub fn with(self, endpoint: Endpoint) -> Self {
        if let Err(error) = self.register(endpoint) {
            panic!("{error}");
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

/// How long the name of an endpoint or of a parameter may be, in bytes.
pub const ENDPOINT_NAME_BYTES_MAX: usize = 1024;

/// What is wrong with a name.
fn problem_of(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("is empty")
    } else if name.len() > ENDPOINT_NAME_BYTES_MAX {
        Some("is longer than 1024 bytes")
    } else if name.chars().any(char::is_control) {
        Some("has a control character in it")
    } else {
        None
    }
}

/// As much of a name as helps.
fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(60).collect();
    if shown.len() < name.len() {
        shown.push_str("...");
    }
    shown
}

/// Why an endpoint was not registered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// There is one of that name.
    #[error("Endpoint '{name}' is already registered")]
    Taken {
        /// The name.
        name: Arc<str>,
    },
    /// It cannot be called by its name.
    #[error("the endpoint name '{}' {problem}: give it another one", .name.escape_debug())]
    Name {
        /// The name, or its beginning.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A parameter cannot be told from others, or not be named.
    #[error(
        "Endpoint '{name}', parameter {place}: the name '{}' {problem}: give it another one",
        .parameter.escape_debug()
    )]
    Parameter {
        /// The endpoint.
        name: Arc<str>,
        /// Which of its parameters, from 0 on.
        place: usize,
        /// The name of the parameter, or its beginning.
        parameter: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It has parameters, and one result is kept that answers every call.
    #[error(
        "Endpoint '{name}' has the parameters {parameters:?}, and its one cached result would answer \
         every call, whatever they are: give it a key (KeyRule::Arguments), or cache(false)"
    )]
    KeyIgnores {
        /// The name.
        name: Arc<str>,
        /// What it is called with.
        parameters: Vec<String>,
    },
}

impl RegisterError {
    /// What kind of failure it is for the service's contract.
    pub fn code(&self) -> Code {
        match self {
            Self::Taken { .. } => Code::Provider,
            Self::KeyIgnores { .. } | Self::Name { .. } | Self::Parameter { .. } => {
                Code::Configuration
            }
        }
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
    use crate::service::KeyRule;

    #[test]
    fn steps_are_counted() {
        for (from, to, steps) in [("", "abc", 3), ("load", "load", 0), ("laod", "load", 2)] {
            assert_eq!((distance(from, to), distance(to, from)), (steps, steps));
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn what_cannot_be_registered_is_told_by_type() {
        let endpoint = || Endpoint::new("sum", |_: &_| Ok(1_i64));
        let provider = Provider::new().with(endpoint());
        let taken = provider.register(endpoint()).unwrap_err();
        assert_eq!(
            (taken.code(), taken),
            (Code::Provider, RegisterError::Taken { name: "sum".into() })
        );
        let keyless = Endpoint::new("row", |_: &_| Ok(1_i64)).parameters(["table", "number"]);
        let ignores = provider.register(keyless).unwrap_err();
        assert_eq!(ignores.code(), Code::Configuration);
        let said = ignores.to_string();
        assert!(said.contains("'row'") && said.contains(r#"["table", "number"]"#), "{said}");
        for kept in [
            Endpoint::new("a", |_: &_| Ok(1_i64)).parameters(["n"]).cache(false),
            Endpoint::new("b", |_: &_| Ok(1_i64)).parameters(["n"]).key(KeyRule::Arguments),
            Endpoint::new("c", |_: &_| Ok(1_i64)).parameters([""; 0]),
        ] {
            provider.register(kept).unwrap();
        }
    }

    #[test]
    fn names_that_nobody_can_use_are_refused() {
        let provider = Provider::new();
        let refused = |name: &str, parameters: &[&str]| {
            let endpoint = Endpoint::new(name, |_: &_| Ok(1_i64)).key(KeyRule::Arguments);
            let refused = provider.register(endpoint.parameters(parameters.to_vec())).unwrap_err();
            assert_eq!(refused.code(), Code::Configuration);
            refused.to_string()
        };
        let long = "é".repeat(600);
        let told = |name: &str, problem| {
            format!("the endpoint name '{name}' {problem}: give it another one")
        };
        assert_eq!(refused("", &[]), told("", "is empty"));
        assert_eq!(refused("a\0b", &[]), told("a\\0b", "has a control character in it"));
        let beginning = format!("{}...", "é".repeat(60));
        assert_eq!(refused(&long, &[]), told(&beginning, "is longer than 1024 bytes"));
        let told = |place, name: &str, problem| {
            let what = format!("the name '{name}' {problem}: give it another one");
            format!("Endpoint 'sum', parameter {place}: {what}")
        };
        assert_eq!(refused("sum", &["a", ""]), told(1, "", "is empty"));
        assert_eq!(refused("sum", &["a", "b", "a"]), told(2, "a", "is there twice"));
        let control = "has a control character in it";
        assert_eq!(refused("sum", &["a\n"]), told(0, "a\\n", control));
        assert!(refused("sum", &[&*long]).contains("is longer than 1024 bytes"));
        assert_eq!(provider.names().len(), 0);
        let longest = "n".repeat(ENDPOINT_NAME_BYTES_MAX);
        for name in ["<lambda>", "größe", &*longest] {
            provider.register(Endpoint::new(name, |_: &_| Ok(1_i64))).unwrap();
        }
    }

    #[test]
    fn a_name_that_is_like_another_is_found() {
        let endpoint = |name| Endpoint::new(name, |_: &_| Ok(1_i64));
        let provider = Provider::new().with(endpoint("load_model")).with(endpoint("echo"));
        assert_eq!(provider.nearest("load_modle").as_deref(), Some("load_model"));
        assert_eq!(provider.nearest("nothing"), None);
    }
}
