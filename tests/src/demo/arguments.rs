//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::company::WRITER;
use super::reader::Manner;

const USAGE: &str = "usage: st-demo [--seconds N] [--python PROGRAM] PHOTOGRAPH...";

/// Under a minute with a margin, and long enough to watch.
const SECONDS: u32 = 24;

/// What this process is to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// The one that a person starts: it runs for about that long, most roles in Python if there is
    /// an interpreter for them.
    Stage { seconds: Duration, python: Option<PathBuf>, photographs: Vec<PathBuf> },
    /// Started by the stage.
    Writer { number: u32, photographs: Vec<PathBuf> },
    /// Started by the stage.
    Reader(Manner),
}

impl Arguments {
    pub(super) fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let (mut seconds, mut python, mut role, mut number) = (SECONDS, None, None, 0);
        let mut photographs = Vec::new();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut given = || {
                let value = arguments.next();
                value.ok_or_else(|| format!("{} needs a value; {USAGE}", argument.display()))
            };
            let mut value = || {
                let text = given()?.into_string();
                text.map_err(|value| format!("`{}` is not text; {USAGE}", value.display()))
            };
            match argument.to_str() {
                Some("--seconds") => seconds = count(&value()?)?,
                Some("--python") => python = Some(PathBuf::from(given()?)),
                Some("--role") => role = Some(value()?),
                Some("--number") => number = count(&value()?)?,
                Some(option) if option.starts_with('-') => {
                    return Err(format!("`{option}` is not understood; {USAGE}"));
                }
                _ => photographs.push(PathBuf::from(argument)),
            }
        }
        match role.as_deref() {
            None if photographs.is_empty() => Err(format!("no photograph was named; {USAGE}")),
            None => {
                let seconds = Duration::from_secs(seconds.into());
                Ok(Self::Stage { seconds, python, photographs })
            }
            Some(WRITER) => Ok(Self::Writer { number, photographs }),
            Some(name) => match Manner::ALL.into_iter().find(|manner| manner.name() == name) {
                Some(manner) => Ok(Self::Reader(manner)),
                None => Err(format!("`{name}` is no role")),
            },
        }
    }
}

fn count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("`{text}` is not a number of at least 1; {USAGE}")),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::time::Duration;

    use super::{Arguments, Manner};

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn a_person_names_photographs_and_a_time() {
        let parsed = parse("a.png --seconds 3 b.jpg").unwrap();
        let seconds = Duration::from_secs(3);
        let photographs = vec!["a.png".into(), "b.jpg".into()];
        assert_eq!(parsed, Arguments::Stage { seconds, python: None, photographs });
    }

    #[test]
    fn a_person_may_name_a_python() {
        let Arguments::Stage { python, .. } = parse("--python /usr/bin/python3 a.png").unwrap()
        else {
            panic!("this is the stage");
        };
        assert_eq!(python, Some("/usr/bin/python3".into()));
    }

    #[test]
    fn the_stage_names_roles() {
        assert_eq!(parse("--role lease").unwrap(), Arguments::Reader(Manner::Lease));
        let writer = parse("--role writer --number 2 a.png").unwrap();
        assert_eq!(writer, Arguments::Writer { number: 2, photographs: vec!["a.png".into()] });
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "",
            "--seconds",
            "--seconds 0 a",
            "--seconds x a",
            "a --python",
            "--fast a",
            "--role king",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
