//! Rust as text: what is code, what is a comment, what is a literal. No parser: enough to count, search and cite.

/// What a piece of a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Everything else.
    Code,
    /// From its `//` or `/*` on.
    Comment,
    /// A string or a character, with its quotes.
    Literal,
}

/// The text with all pieces but those of the kinds to keep replaced by spaces. Lines stay lines.
pub(crate) fn keep(text: &str, kinds: &[Piece]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut before = None;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = literal_or_comment(rest, before);
        let kind = match &rest[..length] {
            "" => Piece::Code,
            piece if piece.starts_with("//") || piece.starts_with("/*") => Piece::Comment,
            _ => Piece::Literal,
        };
        let (piece, after) = rest.split_at(length.max(first.len_utf8()));
        if kinds.contains(&kind) {
            out.push_str(piece);
        } else {
            out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        before = (kind == Piece::Code).then_some(first);
        rest = after;
    }
    out
}

/// How many bytes of comment or literal `rest` begins with.
fn literal_or_comment(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if let Some(inside) = rest.strip_prefix('"') {
        return 1 + quoted(inside, '"');
    }
    let inside_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if !inside_word && let Some(raw) = rest.strip_prefix('r').or_else(|| rest.strip_prefix("br")) {
        let hashes = raw.bytes().take_while(|&byte| byte == b'#').count();
        if raw[hashes..].starts_with('"') {
            let start = rest.len() - raw.len() + hashes + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            return rest[start..].find(&close).map_or(rest.len(), |at| start + at + close.len());
        }
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        return character(inside);
    }
    0
}

/// Rust's block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length up to and with the closing quote.
fn quoted(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        if !escaped && c == quote {
            return at + c.len_utf8();
        }
        escaped = !escaped && c == '\\';
    }
    inside.len()
}

/// A character literal, but not a lifetime.
fn character(inside: &str) -> usize {
    let mut chars = inside.chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => 1 + quoted(inside, '\''),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_is_not() {
        for (text, code) in [
            ("a // unsafe\nb", "a          \nb"),
            ("a /* x /* y */ z */ b", "a                   b"),
            (r#"f("a \" // b") + c"#, r#"f(           ) + c"#),
            ("r#\"a \" b\"# + c", "           + c"),
            ("'\\'' + '\"' + c", "     +     + c"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ] {
            assert_eq!(keep(text, &[Piece::Code]), code);
        }
    }

    #[test]
    fn comments_are_kept_where_they_are() {
        let text = "let a = \"// no\"; // yes\n/* too */ b";
        let kept = keep(text, &[Piece::Comment]);
        assert_eq!(kept.trim_start(), "// yes\n/* too */  ");
        assert_eq!(kept.len(), text.len());
    }
}
