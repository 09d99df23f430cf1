//! Who plays: a role, and the language in which it is written.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Rust,
    Python,
}

/// A role and its language, as the person at the terminal sees them: `latest (Python)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Credit {
    pub(super) role: &'static str,
    pub(super) language: Language,
}

impl fmt::Display for Credit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let language = match self.language {
            Language::Rust => "Rust",
            Language::Python => "Python",
        };
        out.pad(&format!("{} ({language})", self.role))
    }
}

#[cfg(test)]
mod tests {
    use super::{Credit, Language};

    #[test]
    fn credits_stand_in_columns() {
        let credit = Credit { role: "next", language: Language::Rust };
        assert_eq!(format!("{credit:<14}|"), "next (Rust)   |");
    }
}
