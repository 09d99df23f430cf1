//! What a Python function can be called with: known without its interpreter, so that calls that are
//! answered from the cache are looked at too.

use std::collections::HashMap;

use pyo3::prelude::*;
use shared_tensor::service::{Arguments, Code, Failure};

use super::local;

/// The parameters of a function, as its signature says.
#[derive(Debug, Default)]
pub(super) struct Signature {
    /// What the function is called in errors.
    function: String,
    /// Of those that can be given by place, in their order.
    by_place: Vec<Parameter>,
    /// Of those that can be given by name only.
    by_name: Vec<Parameter>,
    takes_more_by_place: bool,
    takes_more_by_name: bool,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    is_required: bool,
    /// Whether it can be given by name.
    is_named: bool,
}

impl Signature {
    /// From the function's name, and name, kind and whether it may be left out of each parameter, as
    /// `shared_tensor._service.keys.signature_of` gives them.
    pub(super) fn new(told: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (function, parameters): (String, Vec<(String, String, bool)>) = told.extract()?;
        let mut signature = Self { function, ..Self::default() };
        for (name, kind, is_optional) in parameters {
            let is_named = kind != "POSITIONAL_ONLY";
            let parameter = Parameter { name, is_required: !is_optional, is_named };
            match kind.as_str() {
                "VAR_POSITIONAL" => signature.takes_more_by_place = true,
                "VAR_KEYWORD" => signature.takes_more_by_name = true,
                "KEYWORD_ONLY" => signature.by_name.push(parameter),
                _ => signature.by_place.push(parameter),
            }
        }
        Ok(signature)
    }

    /// Refuses what the function could not be called with.
    pub(super) fn check(&self, arguments: &Arguments) -> Result<(), Failure> {
        if local::is_from_within(arguments) {
            return Ok(());
        }
        let names = arguments.named.iter().map(|(name, _)| name.as_str());
        let Err(found) = self.fits(arguments.positional.len(), names) else { return Ok(()) };
        let text = format!("the arguments do not fit {}: {found}", self.function);
        let failure = Failure::other("SharedTensorConfigurationError", text);
        Err(Failure { code: Code::Configuration, ..failure })
    }

    fn fits<'a>(&self, count: usize, names: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let mut given: HashMap<&str, bool> = names.map(|name| (name, false)).collect();
        if count > self.by_place.len() && !self.takes_more_by_place {
            return Err("too many positional arguments".to_owned());
        }
        for (place, parameter) in self.by_place.iter().enumerate() {
            let name = parameter.name.as_str();
            let by_name = given.get_mut(name).filter(|_| parameter.is_named);
            match (place < count, by_name) {
                (true, Some(_)) => return Err(format!("multiple values for argument '{name}'")),
                (false, Some(is_known)) => *is_known = true,
                (false, None) if parameter.is_required => return Err(missing(name)),
                _ => {}
            }
        }
        for parameter in &self.by_name {
            match given.get_mut(parameter.name.as_str()) {
                Some(is_known) => *is_known = true,
                None if parameter.is_required => return Err(missing(&parameter.name)),
                None => {}
            }
        }
        let surplus = given.iter().filter(|(_, is_known)| !**is_known).map(|(name, _)| *name);
        match surplus.min() {
            Some(name) if !self.takes_more_by_name => {
                Err(format!("got an unexpected keyword argument '{name}'"))
            }
            _ => Ok(()),
        }
    }
}

fn missing(name: &str) -> String {
    format!("missing a required argument: '{name}'")
}
