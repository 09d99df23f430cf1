//! `cargo xtask help`: the verbs of this tree.

use crate::verb::{VERBS, Verb, always};
use crate::{Failure, Flags, Workspace, screen};

pub(crate) const VERB: Verb =
    Verb { name: "help", usage: "", summary: "list the verbs", exists: always, run };

fn run(workspace: &Workspace, flags: Flags) -> Result<(), Failure> {
    flags.finish()?;
    screen::line("cargo xtask <verb>");
    let known = VERBS.iter().filter(|verb| (verb.exists)(workspace));
    let rows =
        known.map(|verb| vec![format!("{} {}", verb.name, verb.usage), verb.summary.to_owned()]);
    screen::table(&rows.collect::<Vec<_>>());
    Ok(())
}
