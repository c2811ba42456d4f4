//! Rules for single files.

use std::path::Path;

use super::Finding;
use super::source::Source;

/// A file that is longer holds more than one idea.
const LONGEST_FILE: usize = 600;

/// Words that mean that something is not finished. Spelled in halves, so that this file does not find itself.
const UNFINISHED: &[&str] =
    &[concat!("FIX", "ME"), concat!("XX", "X:"), concat!("to", "do!("), concat!("unimpl", "emented!(")];

/// Paths of one person's machine.
const OWN_PATHS: &[&str] = &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

/// Rules for every text file.
pub(super) fn check_text(path: &Path, text: &str, findings: &mut Vec<Finding>) {
    for (number, line) in text.lines().enumerate() {
        for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
            findings.push(finding(path, number + 1, format!("{word} is in here: finish it")));
        }
        for own in OWN_PATHS.iter().filter(|own| line.contains(**own)) {
            findings.push(finding(
                path,
                number + 1,
                format!("a path of one machine ({own}…) means nothing elsewhere"),
            ));
        }
    }
}

/// Rules for Rust, tests excepted.
pub(super) fn check_rust(source: &Source<'_>, findings: &mut Vec<Finding>) {
    let path = source.path;
    if source.code.len() > LONGEST_FILE {
        let length = source.code.len();
        findings.push(finding(
            path,
            0,
            format!("{length} lines before its tests; {LONGEST_FILE} are enough for one idea"),
        ));
    }
    let may_be_unsafe = path.starts_with("stack-user/src/device") || path.starts_with("stack-ebpf");
    let is_protocol = source.module().is_some_and(|module| matches!(module, "tcp" | "net" | "wire"));
    for (number, line) in source.code.iter().enumerate() {
        if !may_be_unsafe && has_word(line, "unsafe") {
            findings.push(finding(path, number + 1, "unsafe belongs in device/ and stack-ebpf only".into()));
        }
        for call in [".unwrap()", ".expect("] {
            if is_protocol && line.contains(call) {
                let message = format!("{call} in protocol code: a peer could make it panic");
                findings.push(finding(path, number + 1, message));
            }
        }
    }
}

fn has_word(line: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(in_word) && !line[at + word.len()..].starts_with(in_word))
}

fn finding(path: &Path, line: usize, message: String) -> Finding {
    Finding { path: path.to_path_buf(), line, message }
}
