//! The arguments after a verb.

use std::str::FromStr;

use crate::Failure;

/// Arguments not yet understood; a verb takes out what it knows and [`Flags::finish`] refuses the
/// rest.
#[derive(Debug)]
pub(crate) struct Flags(Vec<String>);

impl Flags {
    pub(crate) fn new(arguments: impl IntoIterator<Item = String>) -> Self {
        Self(arguments.into_iter().collect())
    }

    /// Takes out `--name`, and tells whether it was there.
    pub(crate) fn switch(&mut self, name: &str) -> bool {
        let found = self.0.iter().position(|argument| argument == name);
        found.map(|at| self.0.remove(at)).is_some()
    }

    /// Takes out `--name VALUE`.
    pub(crate) fn value<T: FromStr>(&mut self, name: &str) -> Result<Option<T>, Failure> {
        let Some(at) = self.0.iter().position(|argument| argument == name) else {
            return Ok(None);
        };
        self.0.remove(at);
        if at == self.0.len() {
            return Err(Failure::new(format!("{name} needs a value")));
        }
        let text = self.0.remove(at);
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Failure::new(format!("`{text}` is no value for {name}"))),
        }
    }

    /// Takes the next plain word, if it is not an option.
    pub(crate) fn word(&mut self) -> Option<String> {
        let plain = self.0.first().is_some_and(|first| !first.starts_with('-'));
        plain.then(|| self.0.remove(0))
    }

    /// Hands on whatever is left, for a program that has its own options.
    pub(crate) fn rest(self) -> Vec<String> {
        self.0
    }

    /// Refuses what nobody took.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self.0.first() {
            None => Ok(()),
            Some(first) => Err(Failure::new(format!(
                "`{first}` is not understood; `cargo xtask help` shows what is"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Flags;

    fn flags(line: &str) -> Flags {
        Flags::new(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn switches_and_values_are_taken_out() {
        let mut given = flags("--seed 7 --mutants");
        assert!(given.switch("--mutants"));
        assert!(!given.switch("--mutants"));
        assert_eq!(given.value::<u64>("--seed").unwrap(), Some(7));
        assert!(given.finish().is_ok());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(flags("--sede 7").finish().is_err());
        assert!(flags("--seed seven").value::<u64>("--seed").is_err());
        assert!(flags("--seed").value::<u64>("--seed").is_err());
    }

    #[test]
    fn a_word_is_not_an_option() {
        let mut given = flags("streams --quick");
        assert_eq!(given.word().as_deref(), Some("streams"));
        assert_eq!(given.word(), None);
        assert_eq!(given.rest(), ["--quick"]);
    }
}
