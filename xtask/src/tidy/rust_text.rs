//! Rust source with its comments and literals blanked out, so that words can be looked for.

/// Returns `source` with every comment, string and character literal replaced by blanks. Lines
/// stay where they are.
pub(crate) fn code_only(source: &str) -> String {
    let mut rest = source;
    let mut code = String::with_capacity(source.len());
    let mut after_word = false;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => 1 + string(&rest[1..]),
            '\'' => character(rest),
            'r' | 'b' | 'c' if !after_word => prefixed_string(rest),
            _ => 0,
        };
        after_word = taken == 0 && (first.is_alphanumeric() || first == '_');
        if taken == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let blank = |it: char| if it == '\n' { '\n' } else { ' ' };
            code.extend(rest[..taken].chars().map(blank));
            rest = &rest[taken..];
        }
    }
    code
}

/// Splits code into words: identifiers, keywords and numbers.
pub(crate) fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|it: char| !it.is_alphanumeric() && it != '_').filter(|word| !word.is_empty())
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let here = &text[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of the rest of an ordinary string, its closing quote included.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, it) in text.char_indices() {
        match it {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal, or 0 where the quote begins a lifetime.
fn character(text: &str) -> usize {
    let mut rest = text.char_indices().skip(1);
    match rest.next() {
        Some((_, '\\')) => {
            // The escaped character may itself be a quote.
            rest.next();
            rest.find(|(_, it)| *it == '\'').map_or(0, |(at, _)| at + 1)
        }
        Some(_) => match rest.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// The length of `r"..."`, `r#"..."#`, `b"..."`, `br"..."`, `c"..."`, or 0 where a word begins.
fn prefixed_string(text: &str) -> usize {
    let prefix = text.find(|it: char| !matches!(it, 'r' | 'b' | 'c')).unwrap_or(text.len());
    let (prefix, rest) = text.split_at(prefix);
    if !["r", "b", "c", "br", "cr"].contains(&prefix) {
        return 0;
    }
    let hashes = rest.chars().take_while(|it| *it == '#').count();
    let body = &rest[hashes..];
    if !body.starts_with('"') || (hashes > 0 && !prefix.contains('r')) {
        return 0;
    }
    let start = prefix.len() + hashes + 1;
    if !prefix.contains('r') {
        return start + string(&body[1..]);
    }
    let end = format!("\"{}", "#".repeat(hashes));
    body[1..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::{code_only, words};

    fn seen(source: &str) -> Vec<String> {
        words(&code_only(source)).map(str::to_owned).collect()
    }

    #[test]
    fn comments_are_blank() {
        assert_eq!(seen("one // unsafe\n/* unsafe /* deep */ unsafe */ two"), ["one", "two"]);
    }

    #[test]
    fn literals_are_blank() {
        assert_eq!(seen(r#"a "unsafe \" unsafe" b"#), ["a", "b"]);
        assert_eq!(seen("a r#\"unsafe \" unsafe\"# b"), ["a", "b"]);
        assert_eq!(seen("a b\"unsafe\" c\"unsafe\" d"), ["a", "d"]);
        assert_eq!(seen(r"a '\'' b '\u{41}' c 'x' d"), ["a", "b", "c", "d"]);
    }

    #[test]
    fn lifetimes_and_words_stay() {
        assert_eq!(seen("fn f<'a>(x: &'a str) {}"), ["fn", "f", "a", "x", "a", "str"]);
        assert_eq!(seen("r#type bar crab"), ["r", "type", "bar", "crab"]);
    }

    #[test]
    fn lines_stay_where_they_are() {
        let source = "a\n\"two\nlines\"\nb /* c\n */ d";
        assert_eq!(code_only(source).lines().count(), source.lines().count());
    }
}
