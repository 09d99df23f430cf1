//! Automation of this repository: `cargo xtask help` lists the verbs.
//!
//! One file per verb; what they share stands in `flags`, `python`, `screen`, `tally`, `task` and
//! `workspace`. The only dependency reads cargo's JSON, so that the first command in a fresh clone
//! starts within seconds.

mod bench;
mod ci;
mod consumers;
mod crash;
mod demo;
mod failure;
mod flags;
mod fuzz;
mod gpu;
mod help;
mod loom;
mod python;
mod screen;
mod soak;
mod tally;
mod task;
mod test;
mod tidy;
mod verb;
mod wheel;
mod workspace;

use std::process::ExitCode;

use failure::Failure;
use flags::Flags;
use workspace::Workspace;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().filter(|name| !asks_for_help(name));
    let name = name.unwrap_or_else(|| "help".to_owned());
    match run(&name, arguments.collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen::error(&format!("cargo xtask {name}: {failure}"));
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, arguments: Vec<String>) -> Result<(), Failure> {
    let workspace = Workspace::find()?;
    let verb = verb::VERBS
        .iter()
        .find(|verb| verb.name == name && (verb.exists)(&workspace))
        .ok_or_else(|| Failure::new("no such verb; `cargo xtask help` lists them"))?;
    // First only: what comes after a name may be for the program of that name.
    if arguments.first().is_some_and(|first| asks_for_help(first)) {
        screen::line(format!("cargo xtask {} {}", verb.name, verb.usage).trim_end());
        screen::line(&format!("  {}", verb.summary));
        return Ok(());
    }
    (verb.run)(&workspace, Flags::new(arguments))
}

fn asks_for_help(argument: &str) -> bool {
    matches!(argument, "--help" | "-h")
}
