//! The table of verbs: what `cargo xtask <verb>` can be.

use crate::{Failure, Flags, Workspace};
use crate::{bench, ci, crash, demo, fuzz, gpu, help, loom, soak, test, tidy, wheel};

/// One verb of the command line.
#[derive(Debug)]
pub(crate) struct Verb {
    pub(crate) name: &'static str,
    /// Its options, as `help` shows them.
    pub(crate) usage: &'static str,
    pub(crate) summary: &'static str,
    /// Whether the programs it runs are in this tree: a verb without them is not offered.
    pub(crate) exists: fn(&Workspace) -> bool,
    pub(crate) run: fn(&Workspace, Flags) -> Result<(), Failure>,
}

pub(crate) const VERBS: &[Verb] = &[
    demo::VERB,
    test::VERB,
    ci::VERB,
    tidy::VERB,
    wheel::VERB,
    bench::VERB,
    loom::VERB,
    crash::VERB,
    soak::VERB,
    fuzz::VERB,
    gpu::VERB,
    gpu::bundle::VERB,
    help::VERB,
];

pub(crate) fn always(_: &Workspace) -> bool {
    true
}
