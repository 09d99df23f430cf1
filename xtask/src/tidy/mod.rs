//! `cargo xtask tidy`: what compilers and linters do not check. Also runs as a test of xtask.
//!
//! Every check looks at the tree as text and adds what it finds; nothing is changed.

mod boundaries;
mod documents;
mod layouts;
mod rust_text;
mod sources;
mod tree;
mod unsafe_budget;

use crate::verb::{Verb, always};
use crate::{Failure, Flags, Workspace, screen};

use tree::Tree;

pub(crate) const VERB: Verb = Verb {
    name: "tidy",
    usage: "",
    summary: "crate boundaries, unsafe budget, naming, documents, traces of machines",
    exists: always,
    run,
};

fn run(workspace: &Workspace, flags: Flags) -> Result<(), Failure> {
    flags.finish()?;
    screen::step("Tidy");
    all(workspace)
}

pub(crate) fn all(workspace: &Workspace) -> Result<(), Failure> {
    let tree = Tree::read(&workspace.root)?;
    for (name, count) in unsafe_budget::counts(&tree) {
        screen::line(&format!("  unsafe in {name}: {count}"));
    }
    let findings = findings(workspace, &tree);
    for finding in &findings {
        screen::line(&format!("  {finding}"));
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} findings"))),
    }
}

fn findings(workspace: &Workspace, tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    boundaries::check(&workspace.root, &workspace.packages, &mut findings);
    unsafe_budget::check(tree, &mut findings);
    sources::check(tree, &mut findings);
    documents::check(tree, &workspace.packages, &mut findings);
    layouts::check(tree, &mut findings);
    findings
}

#[cfg(test)]
mod tests {
    use super::{Tree, Workspace, findings};

    #[test]
    fn the_tree_is_tidy() {
        let workspace = Workspace::find().unwrap();
        let tree = Tree::read(&workspace.root).unwrap();
        let findings = findings(&workspace, &tree);
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }
}
