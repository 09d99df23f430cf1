//! What an endpoint fails with.

use std::error::Error as StdError;
use std::fmt;

use super::client::Error;

/// What kind of failure it is.
///
/// Codes 1 to 8 are those of shared-tensor 0.2, whose clients and whose Python take all others for 7,
/// [`Other`](Self::Other): there the name of the type tells them apart.
///
/// | code | number | type |
/// |---|---|---|
/// | `Protocol` to `Configuration` | 1 to 6 | `SharedTensorProtocolError` and so on |
/// | `Other` | 7 | of the endpoint's own error |
/// | `StaleHandle` | 8 | `SharedTensorStaleHandleError` |
/// | `Arguments` | 9 | `TypeError` |
/// | `OverBudget` | 10 | `OverBudget` |
/// | `Panic` | 11 | `Panic` |
/// | `Deadlock` | 12 | `WouldDeadlock` |
///
/// What a task failed with has the code `Task` and keeps the name of its type.
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
    /// The endpoint cannot be called with these arguments.
    Arguments,
    /// There is no room for the result.
    OverBudget,
    /// The endpoint panicked.
    Panic,
    /// The call would wait for itself.
    Deadlock,
}

impl Code {
    /// Its number. Numbers are only ever added.
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
            Self::Arguments => 9,
            Self::OverBudget => 10,
            Self::Panic => 11,
            Self::Deadlock => 12,
        }
    }

    /// The number that shared-tensor 0.2 has for it, 1 to 8.
    pub const fn contract_number(self) -> u8 {
        match self {
            Self::Arguments | Self::OverBudget | Self::Panic | Self::Deadlock => {
                Self::Other.number()
            }
            code => code.number(),
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
            9 => Self::Arguments,
            10 => Self::OverBudget,
            11 => Self::Panic,
            12 => Self::Deadlock,
            _ => return None,
        })
    }

    /// The name of the type of its failures, but for those that an endpoint names itself.
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
            Self::Arguments => "TypeError",
            Self::OverBudget => "OverBudget",
            Self::Panic => "Panic",
            Self::Deadlock => "WouldDeadlock",
        }
    }
}

/// Why a call has no value: raised by an endpoint, or by the server on its way there and back.
///
/// Within an endpoint `?` makes one of any error, and [`of`](Self::of) of one that is boxed. Elsewhere `?` makes an error of it, an
/// [`Error::Failed`], for functions that return that or a box:
///
/// ```
/// use shared_tensor::service::{Arguments, Call, Client, Error, Failure};
///
/// fn lines(call: &Call) -> Result<i64, Failure> {
///     let path: &str = call.get(0, "path")?;
///     let text = std::fs::read_to_string(path)?; // an io::Error, by its name and text
///     Ok(i64::try_from(text.lines().count())?)
/// }
///
/// fn ask(client: &Client) -> Result<i64, Error> {
///     let answer = client.call("lines", ["/etc/hosts"], ())?;
///     Ok(i64::try_from(&answer.value).map_err(Failure::from)?)
/// }
/// ```
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

    /// Any error, with what caused it, for who has it without its type.
    pub fn of(error: &(dyn StdError + 'static)) -> Self {
        Self::caused(Code::Other.type_name(), error)
    }

    fn caused(type_name: &str, error: &(dyn StdError + 'static)) -> Self {
        if let Some(Error::Failed(failure)) = error.downcast_ref() {
            // A circle, and a lack of room, are those of all calls on the way.
            let code = match failure.code {
                code @ (Code::Deadlock | Code::OverBudget) => code,
                _ => Code::Other,
            };
            return Self { code, ..failure.clone() };
        }
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !message.contains(&more) {
                message = format!("{message}: {more}");
            }
            cause = error.source();
        }
        Self::other(type_name, message)
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
        f.write_str(&self.message)?;
        match &self.data {
            Some(data) => write!(f, " ({data})"),
            None => Ok(()),
        }
    }
}

impl<T: StdError + 'static> From<T> for Failure {
    /// Any error of an endpoint, with what caused it. The failure that a client's [`Error`] brings,
    /// where one endpoint calls another, goes on as it is, as an error of this endpoint.
    ///
    /// A failure is itself no error, so that this can be: as one it is an [`Error::Failed`].
    fn from(error: T) -> Self {
        Self::caused(&plain_name(std::any::type_name::<T>()), &error)
    }
}

/// The name of a type without the modules that it and what it is made of lie in.
fn plain_name(name: &str) -> String {
    let is_of_path = |it: char| it.is_alphanumeric() || matches!(it, '_' | ':' | '{' | '}' | '#');
    let mut plain = String::new();
    for part in name.split_inclusive(|it: char| !is_of_path(it)) {
        plain.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    plain
}

impl From<Failure> for Box<dyn StdError + Send + Sync> {
    /// An [`Error::Failed`].
    fn from(failure: Failure) -> Self {
        Box::new(Error::Failed(failure))
    }
}

impl From<Failure> for Box<dyn StdError> {
    /// An [`Error::Failed`].
    fn from(failure: Failure) -> Self {
        Box::new(Error::Failed(failure))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("row {0} is bad")]
    struct BadRow(u32, #[source] io::Error);

    #[test]
    fn errors_of_endpoints_keep_their_names_and_causes() {
        let endpoint = || -> Result<(), Failure> {
            Err(BadRow(3, io::Error::other("cut short")))?;
            Ok(())
        };
        let failure = endpoint().unwrap_err();
        assert_eq!((failure.code, &*failure.type_name), (Code::Other, "BadRow"));
        assert_eq!(failure.to_string(), "row 3 is bad: cut short");
        let boxed: Box<dyn StdError> = Box::new(BadRow(4, io::Error::other("cut short")));
        assert_eq!(Failure::of(&*boxed).to_string(), "row 4 is bad: cut short");
    }

    #[test]
    fn names_of_types_are_without_their_modules() {
        #[derive(Debug, thiserror::Error)]
        #[error("it is")]
        struct Of<T: fmt::Debug>(T);

        let failure = Failure::from(Of((io::ErrorKind::Other, Some("text"))));
        assert_eq!(failure.type_name, "Of<(ErrorKind, Option<&str>)>");
        assert_eq!(Failure::from(Of([1_u8; 2])).type_name, "Of<[u8; 2]>");
        assert_eq!(Failure::from(io::Error::other("it")).type_name, "Error");
    }

    #[test]
    fn every_code_has_a_number_of_its_own() {
        let codes: Vec<Code> = (0..=u8::MAX).filter_map(Code::from_number).collect();
        let numbers: Vec<u8> = codes.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, (1..=12).collect::<Vec<_>>());
        let contract: Vec<u8> = codes.iter().map(|code| code.contract_number()).collect();
        assert_eq!(contract, [1, 2, 3, 4, 5, 6, 7, 8, 7, 7, 7, 7]);
    }

    #[test]
    fn a_failure_of_another_endpoint_goes_on_as_it_is() {
        let mut inner = Failure::new(Code::StaleHandle, "it is gone").with_traceback("line 1");
        inner.data = Some("7".to_owned());
        let outer = Failure::from(Error::Failed(inner.clone()));
        assert_eq!(outer, Failure { code: Code::Other, ..inner });
        let shown = Error::Failed(outer).to_string();
        assert_eq!(shown, "Remote error [7]: it is gone (7)");
    }

    #[test]
    fn a_failure_is_an_error_where_one_is_wanted() {
        fn fails() -> Result<(), Failure> {
            Err(Failure::new(Code::Task, "no such task"))
        }
        fn boxed() -> Result<(), Box<dyn StdError + Send + Sync>> {
            Ok(fails()?)
        }
        fn plain() -> Result<(), Box<dyn StdError>> {
            Ok(fails()?)
        }
        fn typed() -> Result<(), Error> {
            Ok(fails()?)
        }
        let error = boxed().unwrap_err();
        assert_eq!(error.downcast_ref::<Error>().and_then(Error::code), Some(Code::Task));
        assert_eq!(plain().unwrap_err().to_string(), "Remote error [5]: no such task");
        assert_eq!(typed().unwrap_err().failure().map(|it| it.code), Some(Code::Task));
    }
}
