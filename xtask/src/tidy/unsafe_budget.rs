//! How much `unsafe` each crate may hold, and where.
//!
//! The budget is a file, so that every growth shows up in a change and is read by somebody.

use std::collections::BTreeMap;

use super::rust_text::{code_only, words};
use super::tree::{File, Tree};

const BUDGET: &str = "xtask/unsafe-budget.txt";

/// Counts the word `unsafe` in code, per area that has any.
pub(crate) fn counts(tree: &Tree) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        let count = count(file);
        if count > 0 {
            *counts.entry(area(file)).or_default() += count;
        }
    }
    counts
}

pub(crate) fn check(tree: &Tree, findings: &mut Vec<String>) {
    let budget = tree.file(BUDGET).map_or("", |file| file.text.as_str());
    let budget: BTreeMap<&str, usize> = budget
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, count)| Some((name, count.trim().parse().ok()?)))
        .collect();
    for (name, count) in counts(tree) {
        let allowed = budget.get(name).copied().unwrap_or(0);
        if count > allowed {
            findings.push(format!(
                "{name} holds {count} unsafe, its budget is {allowed}: do without, or write `{name} {count}` into {BUDGET}"
            ));
        }
    }
    let mut openings: BTreeMap<&str, usize> = BTreeMap::new();
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        if count(file) > 0 && !is_sys(file) {
            findings.push(format!("{}: unsafe outside a module named sys", file.path));
        }
        let opened = code_only(&file.text).matches("(unsafe_code").count();
        if opened > 0 && file.path.contains("/src/") {
            *openings.entry(area(file)).or_default() += opened;
        }
    }
    for (name, count) in openings.into_iter().filter(|(_, count)| *count > 1) {
        findings.push(format!("{name} admits unsafe_code in {count} places, one is enough"));
    }
}

fn count(file: &File) -> usize {
    words(&code_only(&file.text)).filter(|word| *word == "unsafe").count()
}

/// The crate, by its folder, for what it ships; the folder in it for tests, benches and examples.
fn area(file: &File) -> &str {
    let path = file.path.as_str();
    let mut slashes = path.match_indices('/').map(|(at, _)| at);
    match (slashes.next(), slashes.next()) {
        (Some(first), Some(second)) if &path[first + 1..second] != "src" => &path[..second],
        (Some(first), _) => &path[..first],
        (None, _) => path,
    }
}

fn is_sys(file: &File) -> bool {
    file.stem() == "sys" || file.path.split('/').any(|part| part == "sys")
}

#[cfg(test)]
mod tests {
    use super::{Tree, check, counts};

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Tree::of(files), &mut findings);
        findings
    }

    const BLOCK: &str = "fn f() { unsafe { g() } } // unsafe\n";

    #[test]
    fn only_code_counts() {
        let tree = Tree::of(&[("shm-core/src/sys.rs", BLOCK)]);
        assert_eq!(counts(&tree).into_iter().collect::<Vec<_>>(), [("shm-core", 1)]);
    }

    #[test]
    fn what_is_shipped_counts_apart() {
        let tree = Tree::of(&[
            ("shm-core/src/sys/map.rs", BLOCK),
            ("shm-core/tests/it/sys.rs", BLOCK),
            ("tests/src/sys.rs", BLOCK),
        ]);
        let areas: Vec<_> = counts(&tree).into_iter().collect();
        assert_eq!(areas, [("shm-core", 1), ("shm-core/tests", 1), ("tests", 1)]);
    }

    #[test]
    fn growth_is_found_with_the_line_to_write() {
        let sys = ("shm-core/src/sys.rs", BLOCK);
        assert!(found(&[sys])[0].contains("write `shm-core 1` into"));
        assert_eq!(found(&[sys, ("xtask/unsafe-budget.txt", "# why\nshm-core 1\n")]), [""; 0]);
    }

    #[test]
    fn unsafe_belongs_in_sys() {
        let budget = ("xtask/unsafe-budget.txt", "shm-core 1\n");
        let found_outside = found(&[("shm-core/src/view.rs", BLOCK), budget]);
        assert_eq!(found_outside, ["shm-core/src/view.rs: unsafe outside a module named sys"]);
        assert_eq!(found(&[("shm-core/src/sys/map.rs", BLOCK), budget]), [""; 0]);
    }

    #[test]
    fn one_admission_is_enough() {
        let admit = "#[expect(unsafe_code, reason = \"\")]\nmod sys;\n";
        let one = ("shm-core/src/lib.rs", admit);
        assert_eq!(found(&[one]), [""; 0]);
        assert_eq!(found(&[one, ("shm-core/src/b.rs", admit)]).len(), 1);
    }
}
