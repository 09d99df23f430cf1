//! Checks of the documents against the tree.

use super::tree::{File, Tree};
use crate::verb::VERBS;
use crate::workspace::Package;

const MAP: &str = "docs/ARCHITECTURE.md";
const FRONT: &str = "README.md";

/// The fences that rustdoc leaves out.
const NOT_COMPILED: &[&str] = &["ignore", "compile_fail"];

pub(crate) fn check(tree: &Tree, packages: &[Package], findings: &mut Vec<String>) {
    let text = |path: &str| tree.file(path).map_or("", |file| file.text.as_str());
    for path in ["LICENSE-MIT", "LICENSE-APACHE", MAP, FRONT, "CHANGELOG.md", "SECURITY.md"] {
        if text(path).trim().is_empty() {
            findings.push(format!("{path} is missing"));
        }
    }
    for package in packages {
        if !text(MAP).contains(&format!("`{}`", package.name)) {
            findings.push(format!("{MAP} does not name `{}`", package.name));
        }
        // The crate's front page for whoever finds it alone.
        let folder = package.folder.file_name().unwrap_or_default().to_string_lossy();
        if package.is_published && text(&format!("{folder}/README.md")).is_empty() {
            findings.push(format!("{folder}/README.md is missing"));
        }
    }
    let compiled: Vec<String> = tree.files.iter().flat_map(included).collect();
    for page in tree.files.iter().filter(|file| file.has_ending(&["md"])) {
        linked(page, &[text(FRONT), text(MAP)], findings);
        targets(tree, page, findings);
        commands(page, findings);
        snippets(page, &compiled, findings);
    }
}

/// A page in docs/ that nothing leads to is not read.
fn linked(page: &File, from: &[&str], findings: &mut Vec<String>) {
    let Some(name) = page.path.strip_prefix("docs/") else { return };
    if page.path != MAP && !from.iter().any(|text| text.contains(&format!("{name})"))) {
        findings.push(format!("{} is linked from neither {FRONT} nor {MAP}", page.path));
    }
}

/// Links to files lead to files.
fn targets(tree: &Tree, page: &File, findings: &mut Vec<String>) {
    let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for (at, _) in page.text.match_indices("](") {
        let rest = &page.text[at + 2..];
        let target = rest.split([')', '#', ' ']).next().unwrap_or(rest);
        if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let path = join(folder, target);
        let leads = |file: &File| file.path == path || file.path.starts_with(&format!("{path}/"));
        if !tree.files.iter().any(leads) {
            findings.push(format!("{}: the link `{target}` leads nowhere", page.path));
        }
    }
}

fn join(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Commands that a page gives are verbs that exist.
fn commands(page: &File, findings: &mut Vec<String>) {
    let prefix = "cargo xtask ";
    for (at, _) in page.text.match_indices(prefix) {
        let rest = &page.text[at + prefix.len()..];
        let verb = rest.split(|it: char| !it.is_alphanumeric() && it != '-').next().unwrap_or("");
        if !verb.is_empty() && VERBS.iter().all(|known| known.name != verb) {
            findings.push(format!("{}: there is no verb `{verb}`", page.path));
        }
    }
}

/// Rust in a page is compiled by the documentation tests.
fn snippets(page: &File, compiled: &[String], findings: &mut Vec<String>) {
    let mut has_rust = false;
    for fence in page.text.lines().filter_map(|line| line.trim_start().strip_prefix("```rust")) {
        has_rust = true;
        if NOT_COMPILED.iter().any(|word| fence.contains(word)) {
            findings.push(format!("{}: a Rust snippet that is not compiled", page.path));
        }
    }
    if has_rust && !compiled.contains(&page.path) {
        findings
            .push(format!("{}: no `include_str!` makes rustdoc compile its snippets", page.path));
    }
}

/// The pages that a source file pulls into its documentation.
fn included(source: &File) -> Vec<String> {
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mark = "include_str!(\"";
    let found = source.text.match_indices(mark).filter(|_| source.is_rust());
    found
        .filter_map(|(at, _)| source.text[at + mark.len()..].split('"').next())
        .map(|target| join(folder, target))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Tree, check};

    const GOOD: &[(&str, &str)] = &[
        ("LICENSE-MIT", "x"),
        ("LICENSE-APACHE", "x"),
        ("CHANGELOG.md", "x"),
        ("SECURITY.md", "x"),
        ("docs/ARCHITECTURE.md", "[d](DESIGN.md)"),
        ("docs/DESIGN.md", "x"),
        ("README.md", "[a](docs/ARCHITECTURE.md) `cargo xtask test`\n```rust,no_run\n```\n"),
        ("tests/src/pages.rs", "include_str!(\"../../README.md\")"),
    ];

    fn found(changed: &[(&str, &str)]) -> Vec<String> {
        let mut files: Vec<(&str, &str)> = GOOD.to_vec();
        for (path, text) in changed {
            files.retain(|(known, _)| known != path);
            files.push((path, text));
        }
        let mut findings = Vec::new();
        check(&Tree::of(&files), &[], &mut findings);
        findings
    }

    #[test]
    fn a_good_tree_passes() {
        assert_eq!(found(&[]), [""; 0]);
    }

    #[test]
    fn what_is_missing_is_found() {
        assert_eq!(found(&[("LICENSE-MIT", "")]), ["LICENSE-MIT is missing"]);
        assert_eq!(found(&[("docs/ARCHITECTURE.md", "no link")]).len(), 1);
    }

    #[test]
    fn links_and_commands_lead_somewhere() {
        assert_eq!(found(&[("SECURITY.md", "[x](docs/NOWHERE.md)")]).len(), 1);
        assert_eq!(found(&[("SECURITY.md", "[x](https://example.org)")]), [""; 0]);
        assert_eq!(found(&[("SECURITY.md", "cargo xtask dance")]).len(), 1);
        assert_eq!(found(&[("docs/DESIGN.md", "[x](../tests/src)")]), [""; 0]);
    }

    #[test]
    fn snippets_are_compiled() {
        assert_eq!(found(&[("SECURITY.md", "```rust\n```\n")]).len(), 1);
        let ignored = "[a](docs/ARCHITECTURE.md)\n```rust,ignore\n```\n";
        assert_eq!(found(&[("README.md", ignored)]).len(), 1);
    }
}
