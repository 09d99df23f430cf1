//! Who can play: this very program every role, and Python, where it is there, most of them.

use std::path::PathBuf;
use std::process::Command;

use super::Stop;
use super::credit::{Credit, Language};
use super::reader::Manner;

/// The roles in Python, part of the clone that this program was built from.
const PYTHON_ROLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/demo");

/// What a writer is called.
pub(super) const WRITER: &str = "writer";

/// The languages that are there.
#[derive(Debug)]
pub(super) struct Company {
    /// An interpreter with the wheel and what `tests/demo/requirements.txt` lists.
    python: Option<PathBuf>,
}

impl Company {
    pub(super) fn new(python: Option<PathBuf>) -> Self {
        Self { python }
    }

    pub(super) fn writer(&self) -> Credit {
        Credit { role: WRITER, language: self.foreign() }
    }

    /// One reader stays in Rust, so that both languages are on the stream: the one that has to keep
    /// up with every frame.
    pub(super) fn reader(&self, manner: Manner) -> Credit {
        let language = match manner {
            Manner::Next => Language::Rust,
            Manner::Latest | Manner::Lease => self.foreign(),
        };
        Credit { role: manner.name(), language }
    }

    fn foreign(&self) -> Language {
        if self.python.is_some() { Language::Python } else { Language::Rust }
    }

    /// The program that plays a role, not started yet.
    pub(super) fn program(&self, credit: Credit) -> Result<Command, Stop> {
        let mut command = match (credit.language, &self.python) {
            (Language::Python, Some(python)) => {
                let mut command = Command::new(python);
                // Nothing of the person's own Python, and no bytecode left beside the sources.
                command.args(["-I", "-B", PYTHON_ROLES]);
                command
            }
            _ => Command::new(std::env::current_exe()?),
        };
        command.args(["--role", credit.role]);
        Ok(command)
    }
}

#[cfg(test)]
mod tests {
    use super::{Company, Language, Manner};

    fn languages(company: &Company) -> Vec<Language> {
        let readers = Manner::ALL.into_iter().map(|manner| company.reader(manner));
        readers.chain([company.writer()]).map(|credit| credit.language).collect()
    }

    #[test]
    fn with_python_all_but_one_are_python() {
        let languages = languages(&Company::new(Some("python3".into())));
        let rust = languages.iter().filter(|language| **language == Language::Rust);
        assert_eq!(rust.count(), 1, "{languages:?}");
    }

    #[test]
    fn without_python_all_are_rust() {
        let company = Company::new(None);
        assert_eq!(languages(&company), [Language::Rust; 4]);
        let this = std::env::current_exe().unwrap();
        assert_eq!(company.program(company.writer()).unwrap().get_program(), this);
    }

    #[test]
    fn each_language_starts_its_own_program() {
        let company = Company::new(Some("python3".into()));
        let program = company.program(company.reader(Manner::Lease)).unwrap();
        assert_eq!(program.get_program(), "python3");
        assert_eq!(program.get_args().last().unwrap(), "lease");
        let program = company.program(company.reader(Manner::Next)).unwrap();
        assert_eq!(program.get_program(), std::env::current_exe().unwrap());
    }
}
