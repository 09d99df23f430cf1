//! Checks of single files: names, white space, length, traces.

use std::collections::BTreeMap;

use super::rust_text::{code_only, words};
use super::tree::{File, Tree};

/// A name that says nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["common", "helpers", "manager", "misc", "util", "utils"];
const EMPTY_ENDINGS: &[&str] = &["Helper", "Helpers", "Manager", "Util", "Utils"];

const LINES_MAX: usize = 900;

/// Made of pieces, so that this file does not hold what it looks for.
const TRACES: &[(&str, &str)] = &[
    (concat!("/", "root/"), "the path of one machine"),
    (concat!("/", "home/"), "the path of one machine"),
    (concat!("/", "work/"), "the path of one machine"),
    (concat!("/", "Users/"), "the path of one machine"),
    (concat!("/tmp/", "target"), "the path of one machine"),
    (concat!("crates", ".io"), "the host of a package registry"),
    (concat!("py", "pi.org"), "the host of a package registry"),
    (concat!("python", "hosted.org"), "the host of a package registry"),
];

pub(crate) fn check(tree: &Tree, findings: &mut Vec<String>) {
    for file in &tree.files {
        let name = file.path.as_str();
        // Written by cargo, which names the registry.
        if name.ends_with("Cargo.lock") {
            continue;
        }
        names(file, findings);
        lines(file, findings);
        for (trace, what) in TRACES {
            if file.text.contains(trace) {
                findings.push(format!("{name}: holds `{trace}`, {what}"));
            }
        }
        if file.is_rust() && code_only(&file.text).contains("#[ignore") {
            findings.push(format!("{name}: an ignored test; make it run, or skip it in the open"));
        }
    }
    labels(tree, findings);
}

/// Modules that programs written for another library import by this name.
const NAMES_OF_CONTRACTS: &[&str] = &["st-python/python/shared_tensor/utils.py"];

fn names(file: &File, findings: &mut Vec<String>) {
    let name = &file.path;
    if !file.has_ending(&["rs", "py", "pyi"]) {
        return;
    }
    let is_given = NAMES_OF_CONTRACTS.contains(&name.as_str());
    if !is_given && name.split(['/', '.']).any(|part| EMPTY_NAMES.contains(&part)) {
        findings.push(format!("{name}: a name that does not say what is inside"));
    }
    if !file.is_rust() {
        return;
    }
    let code = code_only(&file.text);
    let mut previous = "";
    for word in words(&code) {
        let defines = matches!(previous, "struct" | "enum" | "trait" | "type" | "union");
        if defines && EMPTY_ENDINGS.iter().any(|ending| word.ends_with(ending)) {
            findings.push(format!("{name}: `{word}` does not say what it is"));
        }
        previous = word;
    }
}

fn lines(file: &File, findings: &mut Vec<String>) {
    let name = &file.path;
    let todo = concat!("TO", "DO");
    for (index, line) in file.text.lines().enumerate() {
        let at = index + 1;
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(format!("{name}:{at}: white space at the end"));
        }
        if line.contains('\t') {
            findings.push(format!("{name}:{at}: a tab"));
        }
        let unowned = line.match_indices(todo).any(|(found, _)| {
            let after = line[found + todo.len()..].strip_prefix('(');
            !after.is_some_and(|it| it.starts_with(|first: char| first.is_alphabetic()))
        });
        if unowned {
            findings.push(format!("{name}:{at}: a {todo} that nobody owns; write `{todo}(name):`"));
        }
    }
    let count = file.text.lines().count();
    // Stubs are as long as the module that they describe.
    if file.has_ending(&["rs", "py", "md"]) && count > LINES_MAX {
        findings.push(format!("{name}: {count} lines, more than {LINES_MAX}; split it by idea"));
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        findings.push(format!("{name}: no newline at the end"));
    }
}

/// Both sides of an acquire/release pair carry the same label, so each appears at least twice.
fn labels(tree: &Tree, findings: &mut Vec<String>) {
    let mark = concat!("SY", "NC: ");
    let mut seen: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
    for file in tree.files.iter().filter(|file| file.is_rust()) {
        for (at, _) in file.text.match_indices(mark) {
            let rest = &file.text[at + mark.len()..];
            let end = rest.find(|it: char| !it.is_alphanumeric() && it != '-' && it != '_');
            let label = &rest[..end.unwrap_or(rest.len())];
            if label.is_empty() {
                continue;
            }
            let entry = seen.entry(label).or_insert((0, file.path.as_str()));
            entry.0 += 1;
        }
    }
    for (label, (count, path)) in seen {
        if count < 2 {
            findings.push(format!("{path}: the label `{label}` has no other side"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LINES_MAX, Tree, check};

    fn found(path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Tree::of(&[(path, text)]), &mut findings);
        findings
    }

    #[test]
    fn a_clean_file_passes() {
        assert_eq!(found("a/src/frame.rs", "struct Frame;\n"), [""; 0]);
    }

    #[test]
    fn empty_names_are_found() {
        assert_eq!(found("a/src/utils.rs", "").len(), 1);
        assert_eq!(found("a/src/common/frame.rs", "").len(), 1);
        assert_eq!(found("a/src/frame.rs", "struct FrameManager;\n").len(), 1);
        assert_eq!(found("a/src/frame.rs", "// struct FrameManager\n"), [""; 0]);
    }

    #[test]
    fn white_space_is_found() {
        assert_eq!(found("a.md", "one \n").len(), 1);
        assert_eq!(found("a.md", "one\ttwo\n").len(), 1);
        assert_eq!(found("a.md", "one\r\n").len(), 0);
        assert_eq!(found("a.md", "one").len(), 1);
    }

    #[test]
    fn long_files_are_found() {
        assert_eq!(found("a.rs", &"\n".repeat(LINES_MAX)), [""; 0]);
        assert_eq!(found("a.rs", &"\n".repeat(LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn what_is_left_to_do_has_an_owner() {
        assert_eq!(found("a.rs", concat!("// TO", "DO: later\n")).len(), 1);
        assert_eq!(found("a.rs", concat!("// TO", "DO(ann): later\n")), [""; 0]);
    }

    #[test]
    fn traces_and_ignored_tests_are_found() {
        assert_eq!(found("a.md", concat!("see /ro", "ot/x\n")).len(), 1);
        assert_eq!(found("a.md", concat!("from py", "pi.org\n")).len(), 1);
        assert_eq!(found("a.rs", "#[test]\n#[ignore]\nfn f() {}\n").len(), 1);
        assert_eq!(found("Cargo.lock", concat!("crates", ".io\n")), [""; 0]);
    }

    #[test]
    fn labels_come_in_pairs() {
        let one = concat!("// SY", "NC: publish\n");
        assert_eq!(found("a.rs", one).len(), 1);
        assert_eq!(found("a.rs", &one.repeat(2)), [""; 0]);
    }
}
