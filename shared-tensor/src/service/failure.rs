//! What an endpoint fails with.

use std::fmt;

/// What kind of failure it is, as the service's contract numbers them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// What was sent is not a request.
    Protocol,
    /// There is no such endpoint, or it cannot do that.
    Provider,
    /// A value cannot be written or read.
    Serialization,
    /// A value is of a kind that may not be passed.
    Capability,
    /// A task failed, was cancelled, is not there, or has no result yet.
    Task,
    /// Something is set up wrongly.
    Configuration,
    /// Anything else: the endpoint's own errors.
    #[default]
    Other,
    /// The object that a handle stands for is gone.
    StaleHandle,
}

impl Code {
    /// Its number, 1 to 8.
    pub const fn number(self) -> u8 {
        match self {
            Self::Protocol => 1,
            Self::Provider => 2,
            Self::Serialization => 3,
            Self::Capability => 4,
            Self::Task => 5,
            Self::Configuration => 6,
            Self::Other => 7,
            Self::StaleHandle => 8,
        }
    }

    /// The code with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Protocol,
            2 => Self::Provider,
            3 => Self::Serialization,
            4 => Self::Capability,
            5 => Self::Task,
            6 => Self::Configuration,
            7 => Self::Other,
            8 => Self::StaleHandle,
            _ => return None,
        })
    }

    /// The name of the error that it stands for in the contract.
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Protocol => "SharedTensorProtocolError",
            Self::Provider => "SharedTensorProviderError",
            Self::Serialization => "SharedTensorSerializationError",
            Self::Capability => "SharedTensorCapabilityError",
            Self::Task => "SharedTensorTaskError",
            Self::Configuration => "SharedTensorConfigurationError",
            Self::Other => "Exception",
            Self::StaleHandle => "SharedTensorStaleHandleError",
        }
    }
}

/// Why a call has no value: raised by an endpoint, or by the server on its way there and back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind.
    pub code: Code,
    /// The name of the error's type where it was raised.
    pub type_name: String,
    /// What it said.
    pub message: String,
    /// Where it was raised, in the words of the endpoint's language.
    pub traceback: Option<String>,
    /// Anything else that the endpoint tells.
    pub data: Option<String>,
}

impl Failure {
    /// A failure of a kind that the service itself knows.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self::of_type(code, code.type_name(), message)
    }

    /// An endpoint's own error, by the name of its type.
    pub fn other(type_name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::of_type(Code::Other, type_name, message)
    }

    fn of_type(code: Code, type_name: impl Into<String>, message: impl Into<String>) -> Self {
        let (type_name, message) = (type_name.into(), message.into());
        Self { code, type_name, message, traceback: None, data: None }
    }

    /// Says where it was raised.
    #[must_use]
    pub fn with_traceback(self, traceback: impl Into<String>) -> Self {
        Self { traceback: Some(traceback.into()), ..self }
    }

    pub(crate) fn of_cancelling(message: impl Into<String>) -> Self {
        Self::of_type(Code::Task, "CancelledError", message)
    }

    /// The same as the failure of a task, which keeps the name of the type.
    pub(crate) fn of_task(&self) -> Self {
        Self { code: Code::Task, ..self.clone() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote error [{}]: {}", self.code.number(), self.message)?;
        match &self.data {
            Some(data) => write!(f, " ({data})"),
            None => Ok(()),
        }
    }
}

impl<T: std::error::Error> From<T> for Failure {
    /// Any error of an endpoint, with what caused it. A failure is itself no error, so that this can
    /// be: a client's error that brings one is.
    fn from(error: T) -> Self {
        let name = std::any::type_name::<T>();
        let name = name.rsplit("::").next().unwrap_or(name).to_owned();
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        Self::other(name, message)
    }
}
