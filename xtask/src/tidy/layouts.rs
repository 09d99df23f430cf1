//! docs/LAYOUT.md against the offsets that the code asserts.

use std::collections::BTreeSet;

use super::rust_text::code_only;
use super::tree::Tree;

const PAGE: &str = "docs/LAYOUT.md";

/// A field and where it stands.
type Place = (String, u64);

pub(crate) fn check(tree: &Tree, findings: &mut Vec<String>) {
    let page = tree.file(PAGE).map_or("", |page| page.text.as_str());
    let shown: BTreeSet<Place> = page.lines().filter_map(row).collect();
    let mut asserted_anywhere = BTreeSet::new();
    for file in tree.files.iter().filter(|file| file.is_rust() && file.path.contains("/src/")) {
        let asserted = asserted(&code_only(&file.text));
        let hidden: Vec<&Place> = asserted.difference(&shown).collect();
        if !hidden.is_empty() {
            let path = &file.path;
            findings.push(format!("{path} asserts what {PAGE} does not show: {}", list(&hidden)));
        }
        asserted_anywhere.extend(asserted);
    }
    let loose: Vec<&Place> = shown
        .difference(&asserted_anywhere)
        // Room that is kept has no use whose place could be wrong.
        .filter(|(field, _)| !field.starts_with("reserved"))
        .collect();
    if !loose.is_empty() {
        findings.push(format!("{PAGE} shows what no code asserts: {}", list(&loose)));
    }
}

/// Reads a row such as `| 16 | 8 | total_bytes | ... |`.
fn row(line: &str) -> Option<Place> {
    let mut cells =
        line.trim().strip_prefix('|')?.split('|').map(|cell| cell.trim().trim_matches('`'));
    let offset = cells.next()?.parse().ok()?;
    let _bytes: u64 = cells.next()?.parse().ok()?;
    let field = cells.next()?;
    let is_name = field.chars().all(|it| it.is_alphanumeric() || it == '_') && !field.is_empty();
    is_name.then(|| (field.to_owned(), offset))
}

/// Finds assertions such as `offset_of!(Layout, total_bytes) == 16`.
fn asserted(code: &str) -> BTreeSet<Place> {
    let place = |(at, mark): (usize, &str)| {
        let (inside, after) = code[at + mark.len()..].split_once(')')?;
        let (_, field) = inside.split_once(',')?;
        let digits = after.trim_start().strip_prefix("==")?.trim_start();
        let end = digits.find(|it: char| !it.is_ascii_digit() && it != '_').unwrap_or(digits.len());
        let offset = digits[..end].replace('_', "").parse().ok()?;
        Some((field.trim().to_owned(), offset))
    };
    code.match_indices("offset_of!(").filter_map(place).collect()
}

fn list(places: &[&Place]) -> String {
    let texts = places.iter().map(|(field, offset)| format!("{field} at {offset}"));
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Tree, check};

    const CODE: &str = "assert!(offset_of!(Header, magic) == 0);\n\
                        assert!(offset_of!(Header, total_bytes) == 1_024);\n";
    const PAGE: &str = "| offset | bytes | field |\n|---|---|---|\n| 0 | 8 | magic |\n\
                        | 1024 | 8 | `total_bytes` | size |\n| 1032 | 8 | reserved | 0 |\n";

    fn found(code: &str, page: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Tree::of(&[("a/src/header.rs", code), ("docs/LAYOUT.md", page)]), &mut findings);
        findings
    }

    #[test]
    fn a_page_that_agrees_passes() {
        assert_eq!(found(CODE, PAGE), [""; 0]);
    }

    #[test]
    fn what_the_page_does_not_show_is_found() {
        let page = PAGE.replace("| 1024 |", "| 1016 |");
        assert_eq!(
            found(CODE, &page),
            [
                "a/src/header.rs asserts what docs/LAYOUT.md does not show: total_bytes at 1024",
                "docs/LAYOUT.md shows what no code asserts: total_bytes at 1016",
            ]
        );
    }
}
