//! Which function, type or file cites what, and whether it is code or a test.
//!
//! A comment before an item is about the item, one inside is about it too, and `//!` is about the file. The scanner
//! knows lines, braces and the words that begin an item; it is no parser, and Rust that rustfmt has laid out needs none.

use std::collections::BTreeSet;

use super::citation::{self, Citation};
use crate::rust_text::{self, Piece};

/// What an item is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It implements.
    Code,
    /// It shows: a function marked as a test.
    Test,
    /// It lies among the tests and shows nothing by itself.
    Support,
}

/// A function, a type, a constant, or the file itself.
#[derive(Debug)]
pub(super) struct Item {
    /// With the type or module around it: `Acks::on_data`. Empty for the file.
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) citations: BTreeSet<Citation>,
}

/// Scans a file. In one that holds `only_tests`, everything lies among the tests.
pub(super) fn items(text: &str, only_tests: bool) -> Vec<Item> {
    let code = rust_text::keep(text, &[Piece::Code]);
    let comments = rust_text::keep(text, &[Piece::Comment]);
    let literals = rust_text::keep(text, &[Piece::Literal]);
    let mut scanner = Scanner::new(only_tests);
    for ((code, comment), literal) in code.lines().zip(comments.lines()).zip(literals.lines()) {
        scanner.line(code.trim(), comment.trim(), literal.trim());
    }
    scanner.finish()
}

/// An item whose body is being read.
struct Open {
    item: usize,
    kind: Kind,
    /// How deep its opening brace is.
    depth: usize,
    among_tests: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Holds items, whose comments are their own.
    Container,
    /// Holds what belongs to itself.
    Leaf,
}

/// An item that has been named and not yet been opened or ended.
struct Header {
    item: usize,
    kind: Kind,
    among_tests: bool,
    /// Open parentheses and brackets, in which a `;` ends nothing.
    nesting: usize,
}

struct Scanner {
    items: Vec<Item>,
    only_tests: bool,
    open: Vec<Open>,
    header: Option<Header>,
    depth: usize,
    /// The comment lines that wait for the item that they stand before.
    pending: String,
    marked_test: bool,
    marked_cfg_test: bool,
    /// The comment that is being read, line by line, and whose it is.
    block: (usize, String),
}

impl Scanner {
    fn new(only_tests: bool) -> Self {
        let role = if only_tests { Role::Support } else { Role::Code };
        Self {
            items: vec![Item { name: String::new(), role, citations: BTreeSet::new() }],
            only_tests,
            open: Vec::new(),
            header: None,
            depth: 0,
            pending: String::new(),
            marked_test: false,
            marked_cfg_test: false,
            block: (0, String::new()),
        }
    }

    fn line(&mut self, code: &str, comment: &str, literal: &str) {
        if code.is_empty() && literal.is_empty() {
            match comment {
                "" => self.end_block(),
                comment if comment.starts_with("//!") => self.add_to_block(self.innermost(), comment),
                comment if self.comments_wait() => {
                    self.pending.push_str(words(comment));
                    self.pending.push(' ');
                }
                comment => self.add_to_block(self.innermost(), comment),
            }
            return;
        }
        self.end_block();
        let before = self.innermost();
        let declared = self.code(code);
        let item = declared.unwrap_or(if self.innermost() == 0 { before } else { self.innermost() });
        if !comment.is_empty() {
            self.add_to_block(item, comment);
            self.end_block();
        }
        if self.items[item].role == Role::Test && !literal.is_empty() {
            self.cite(item, literal);
        }
    }

    /// Between items a comment waits for the next one; inside a leaf it is the leaf's.
    fn comments_wait(&self) -> bool {
        self.header.is_none() && self.open.last().is_none_or(|open| open.kind == Kind::Container)
    }

    fn innermost(&self) -> usize {
        let opened = self.open.last().map_or(0, |open| open.item);
        self.header.as_ref().map_or(opened, |header| header.item)
    }

    fn among_tests(&self) -> bool {
        self.only_tests || self.open.last().is_some_and(|open| open.among_tests)
    }

    /// Reads a line of code. Returns the item that it declares.
    fn code(&mut self, code: &str) -> Option<usize> {
        if code.starts_with("#[") {
            self.marked_test |= ["#[test]", "#[tokio::test"].iter().any(|mark| code.starts_with(mark));
            self.marked_cfg_test |= code.starts_with("#[cfg(test)]");
        }
        let declared = declaration(code).and_then(|(kind, name)| self.declare(kind, name));
        if declared.is_none() && !code.starts_with("#[") && !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            self.cite(self.innermost(), &pending);
        }
        code.chars().for_each(|c| self.punctuation(c));
        declared
    }

    fn declare(&mut self, kind: Kind, name: &str) -> Option<usize> {
        // In the body of a function, only another function is an item of its own.
        let is_local = self.open.last().is_some_and(|open| open.kind == Kind::Leaf);
        if self.header.is_some() || is_local && !self.marked_test {
            return None;
        }
        let among_tests = self.among_tests() || self.marked_cfg_test;
        let role = match (among_tests, self.marked_test) {
            (_, true) => Role::Test,
            (true, false) => Role::Support,
            (false, false) => Role::Code,
        };
        let around = self.open.last().map_or("", |open| self.items[open.item].name.as_str());
        let name = match around {
            "" | "tests" => name.to_owned(),
            around => format!("{around}::{name}"),
        };
        let citations = match role {
            Role::Test => citation::in_name(&name).into_iter().collect(),
            Role::Code | Role::Support => BTreeSet::new(),
        };
        let item = self.items.len();
        self.items.push(Item { name, role, citations });
        self.header = Some(Header { item, kind, among_tests, nesting: 0 });
        let pending = std::mem::take(&mut self.pending);
        self.cite(item, &pending);
        (self.marked_test, self.marked_cfg_test) = (false, false);
        Some(item)
    }

    fn punctuation(&mut self, c: char) {
        match (c, &mut self.header) {
            ('(' | '[', Some(header)) => header.nesting += 1,
            (')' | ']', Some(header)) => header.nesting = header.nesting.saturating_sub(1),
            (';', Some(header)) if header.nesting == 0 => self.header = None,
            ('{', header) => {
                if let Some(Header { item, kind, among_tests, .. }) = header.take() {
                    self.open.push(Open { item, kind, depth: self.depth, among_tests });
                }
                self.depth += 1;
            }
            ('}', _) => {
                self.depth = self.depth.saturating_sub(1);
                self.open.pop_if(|open| open.depth == self.depth);
            }
            _ => {}
        }
    }

    fn add_to_block(&mut self, item: usize, comment: &str) {
        if self.block.0 != item {
            self.end_block();
            self.block.0 = item;
        }
        self.block.1.push_str(words(comment));
        self.block.1.push(' ');
    }

    fn end_block(&mut self) {
        let (item, text) = (self.block.0, std::mem::take(&mut self.block.1));
        self.cite(item, &text);
    }

    fn cite(&mut self, item: usize, text: &str) {
        self.items[item].citations.extend(citation::in_text(text, None));
    }

    fn finish(mut self) -> Vec<Item> {
        self.end_block();
        self.items
    }
}

/// A comment's line without its marks.
fn words(comment: &str) -> &str {
    comment.trim_start_matches(['/', '!', '*']).trim_end_matches("*/").trim()
}

/// The item that a line of code begins.
fn declaration(code: &str) -> Option<(Kind, &str)> {
    let mut rest = code;
    loop {
        let (word, after) = next_word(rest);
        match word {
            "pub" | "async" | "unsafe" | "extern" | "default" => rest = visibility(after),
            "const" if after.trim_start().starts_with("fn ") => rest = after,
            "fn" | "struct" | "enum" | "union" | "const" | "static" | "type" => {
                let name = next_word(after.trim_start().trim_start_matches("mut ")).0;
                return (!name.is_empty()).then_some((Kind::Leaf, name));
            }
            "mod" | "trait" => return Some((Kind::Container, next_word(after).0)),
            "impl" => return Some((Kind::Container, implemented(after))),
            "macro_rules" => return Some((Kind::Leaf, next_word(after.trim_start_matches(['!', ' '])).0)),
            _ => return None,
        }
    }
}

/// What is behind the `(crate)` of `pub(crate)`.
fn visibility(text: &str) -> &str {
    match text.strip_prefix('(').and_then(|inside| inside.split_once(')')) {
        Some((_, after)) => after,
        None => text,
    }
}

fn next_word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.split_at(end)
}

/// The type of `impl<T> Trait for path::Type<T> {`.
fn implemented(text: &str) -> &str {
    let header = text.split('{').next().unwrap_or_default();
    let header = header.split(" where ").next().unwrap_or_default();
    let name = match header.rsplit_once(" for ") {
        Some((_, name)) => name,
        None if header.starts_with('<') => header.split_once("> ").map_or("", |(_, name)| name),
        None => header,
    };
    let path = name.trim().trim_start_matches(['&', '*']).split('<').next().unwrap_or_default();
    path.rsplit("::").next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every item that cites, as `role name: citations`.
    fn cited(text: &str, only_tests: bool) -> Vec<String> {
        let with_citations = items(text, only_tests).into_iter().filter(|item| !item.citations.is_empty());
        with_citations
            .map(|Item { name, role, citations }| {
                let citations: Vec<_> = citations.iter().map(ToString::to_string).collect();
                format!("{role:?} {name}: {}", citations.join(", "))
            })
            .collect()
    }

    const CODE: &str = r#"
//! Acknowledging (RFC 9293
//! §3.8.6.3).

/// The delay (MUST-40).
const DELAY: [u8; 2] = [1, 2]; // RFC 1122 §4.2.3.2

impl<T: Clone> fmt::Display for super::Acks<T> {
    /// On data (SHLD-19).
    pub(crate) fn on_data(&mut self, at: [u8; 4])
    where
        T: Copy,
    {
        let text = "MUST-1 is no citation here";
        match at {
            // RFC 5681 §4.2: at once.
            _ => {}
        }
    }

    fn other(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A helper (MUST-2).
    fn helper() {}

    #[test]
    fn waits_must_40() {
        assert_eq!(1, 1, "SHLD-18");
        // MUST-58
    }
}
"#;

    #[test]
    fn code_and_its_tests_are_told_apart() {
        assert_eq!(
            cited(CODE, false),
            [
                "Code : RFC 9293 §3.8.6.3",
                "Code DELAY: MUST-40, RFC 1122 §4.2.3.2",
                "Code Acks::on_data: SHLD-19, RFC 5681 §4.2",
                "Support helper: MUST-2",
                "Test waits_must_40: MUST-40, MUST-58, SHLD-18",
            ]
        );
    }

    #[test]
    fn tests_inside_macros_and_async_ones_are_tests() {
        let text = "proptest! {\n    /// RFC 2018 §4\n    #[test]\n    fn any(x in 0..3) {\n    }\n}\n\
                    #[tokio::test(flavor = \"x\")]\nasync fn waits_rfc1122_4_2() {\n}\nfn helper_must_1() {}\n";
        assert_eq!(cited(text, true), ["Test any: RFC 2018 §4", "Test waits_rfc1122_4_2: RFC 1122 §4.2"]);
    }

    #[test]
    fn what_comes_after_a_function_is_not_its_own() {
        let text = "fn a() {\n    if x {\n    }\n}\n\n/// MUST-1\nfn b();\n\n/// MUST-2\nstruct C {\n    \
                    /// MUST-3\n    d: u8,\n}\n";
        assert_eq!(cited(text, false), ["Code b: MUST-1", "Code C: MUST-2, MUST-3"]);
    }
}
