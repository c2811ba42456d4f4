//! The document.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::link::{Linked, Links, Status};
use super::requirement::{Document, Excuse, Requirement};

const HEAD: &str = "\
# Conformance

What the RFCs ask of a host, in our words; the code that does it; the test that shows it. `cargo xtask conformance` writes
this page: the rules are in [conformance/](conformance), and the links come from the citations in the sources, such as
`RFC 8985 §6.2` or `MUST-36` in a comment, or `…_must_36` at the end of a test's name.

- **done**: there is code, and a test.
- **exception**: we do otherwise, or not, on purpose; the reason is given.
- **n/a**: it is about something that we are not or have not; the reason is given.
- **OPEN**: something is missing. `cargo xtask conformance --check` fails if the rule binds.

*algorithm* marks what an RFC prescribes by describing it, without a capital word.

";

pub(super) fn document(documents: &[Document], linked: &Linked) -> String {
    let mut out = String::from(HEAD);
    totals(&mut out, documents, linked);
    for (document, links) in documents.iter().zip(&linked.requirements) {
        section(&mut out, document, links);
    }
    out
}

fn totals(out: &mut String, documents: &[Document], linked: &Linked) {
    out.push_str("| RFC | | rules | done | exception | n/a | open |\n|---|---|--:|--:|--:|--:|--:|\n");
    let mut sum = [0; 5];
    for (document, links) in documents.iter().zip(&linked.requirements) {
        let row = count(document, links);
        let Document { rfc, title, .. } = document;
        let _ =
            writeln!(out, "| [{rfc}](#rfc-{rfc}) | {title} | {} |", row.map(|n| n.to_string()).join(" | "));
        sum.iter_mut().zip(row).for_each(|(sum, n)| *sum += n);
    }
    let _ = writeln!(out, "| | all | {} |", sum.map(|n| n.to_string()).join(" | "));
}

/// Rules, and how many of them are done, excepted, not applicable and open.
fn count(document: &Document, links: &[Links]) -> [usize; 5] {
    let mut row = [document.requirements.len(), 0, 0, 0, 0];
    for (requirement, links) in document.requirements.iter().zip(links) {
        let column = match links.status(requirement) {
            Status::Done => 1,
            Status::Excused(Excuse::Exception) => 2,
            Status::Excused(Excuse::NotApplicable) => 3,
            Status::Open(_) => 4,
        };
        row[column] += 1;
    }
    row
}

fn section(out: &mut String, document: &Document, links: &[Links]) {
    let Document { rfc, title, note, requirements } = document;
    let _ = write!(out, "\n## RFC {rfc}\n\n{title}.");
    if let Some(note) = note {
        let _ = write!(out, " {}", note.trim());
    }
    out.push_str("\n\n| id | level | rule | code | tests | status |\n|---|---|---|---|---|---|\n");
    for (requirement, links) in requirements.iter().zip(links) {
        row(out, requirement, links);
    }
}

fn row(out: &mut String, requirement: &Requirement, links: &Links) {
    let Requirement { id, level, text, section, reason, .. } = requirement;
    let place = section.as_ref().map(|section| format!(" ({section})")).unwrap_or_default();
    let reason = reason.as_deref().unwrap_or_default();
    let status = match links.status(requirement) {
        Status::Done => "done".to_owned(),
        Status::Excused(Excuse::Exception) => format!("exception: {}", cell(reason)),
        Status::Excused(Excuse::NotApplicable) => format!("n/a: {}", cell(reason)),
        Status::Open(missing) => format!("**OPEN**: {missing}"),
    };
    let (level, text) = (level.name(), cell(text));
    let (code, tests) = (items(&links.code), items(&links.tests));
    let _ = writeln!(out, "| {id}{place} | {level} | {text} | {code} | {tests} | {status} |");
}

/// Items by file, each file with a link.
fn items(by_file: &BTreeMap<String, BTreeSet<String>>) -> String {
    let files = by_file.iter().map(|(path, names)| {
        let names: Vec<_> =
            names.iter().filter(|name| !name.is_empty()).map(|name| format!("`{name}`")).collect();
        let colon = if names.is_empty() { "" } else { ": " };
        format!("[{}](../{path}){colon}{}", short(path), names.join(", "))
    });
    files.collect::<Vec<_>>().join("; ")
}

/// `tcp/ack` for `stack-user/src/tcp/ack.rs`.
fn short(path: &str) -> &str {
    let inside = ["stack-user/src/", "stack-user/"].iter().find_map(|root| path.strip_prefix(root));
    let inside = inside.unwrap_or(path).trim_end_matches(".rs");
    inside.strip_suffix("/mod").unwrap_or(inside)
}

/// Text that can stand in a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::super::{CitedFile, link, requirement, scan};
    use super::*;

    #[test]
    fn a_rule_has_a_row_with_its_links() {
        let list = "rfc = 9293\ntitle = 'TCP'\n[[requirement]]\nid = 'MUST-40'\nsection = '§3.8.6.3'\n\
                    level = 'MUST'\ntext = '''at most\n  0.5 s | soon'''\n\
                    [[requirement]]\nid = 'SHLD-20'\nlevel = 'SHOULD'\ntext = 'x'\n";
        let documents = [requirement::parse(list).unwrap()];
        let code =
            "/// MUST-40\nfn f() {}\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn t_must_40() {}\n}\n";
        let path = "stack-user/src/tcp/ack.rs".to_owned();
        let files = [CitedFile { path, items: scan::items(code, false) }];
        let text = document(&documents, &link::link(&documents, &files));
        let row = "| MUST-40 (§3.8.6.3) | MUST | at most 0.5 s \\| soon | [tcp/ack](../stack-user/src/tcp/ack.rs): `f` | \
                   [tcp/ack](../stack-user/src/tcp/ack.rs): `t_must_40` | done |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("| **OPEN**: neither code nor test |"), "{text}");
        assert!(text.contains("| [9293](#rfc-9293) | TCP | 2 | 1 | 0 | 0 | 1 |"), "{text}");
    }
}
