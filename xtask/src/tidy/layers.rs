//! Imports only point down. This table is the design's, and the only place where it is written as code.

use super::Finding;
use super::source::Source;

/// A module of `stack-user` and its layer.
const LAYERS: &[(&str, u8)] = &[
    ("cli", 6),
    ("api", 5),
    ("runtime", 4),
    ("stack", 3),
    ("tcp", 2),
    ("net", 2),
    ("device", 2),
    ("wire", 1),
    ("frame", 1),
    ("time", 1),
    ("rng", 1),
    ("telemetry", 1),
];

/// Modules of this layer are vocabulary and may use each other.
const VOCABULARY: u8 = 1;

pub(super) fn check(source: &Source<'_>, findings: &mut Vec<Finding>) {
    let Some(from) = source.module().filter(|module| !matches!(*module, "lib" | "main")) else { return };
    let finding = |line, message| Finding { path: source.path.to_path_buf(), line, message };
    let Some(layer) = layer_of(from) else {
        findings
            .push(finding(0, format!("module {from} has no layer; give it one in xtask/src/tidy/layers.rs")));
        return;
    };
    // Joined, because a `use crate::{…}` may span lines.
    let code = source.code.join("\n");
    // So many steps up from this file's module lead to the crate's root, too.
    let to_root = "super::".repeat(source.module_depth());
    for (at, target) in paths_from(&code, "crate::").chain(paths_from(&code, &to_root)) {
        let Some(target_layer) = layer_of(target) else { continue };
        let points_down = target_layer < layer;
        let among_vocabulary = target_layer == layer && layer == VOCABULARY;
        if target != from && !points_down && !among_vocabulary {
            let line = code[..at].matches('\n').count() + 1;
            findings.push(finding(line, format!("{from} may not import {target}: imports only point down")));
        }
    }
}

fn layer_of(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

/// Every first segment behind a way to the root (`crate::`), with where it is. A group yields each of its members.
fn paths_from<'a>(code: &'a str, root: &str) -> impl Iterator<Item = (usize, &'a str)> + use<'a> {
    let mut found = Vec::new();
    for (at, matched) in code.match_indices(root) {
        let start = at + matched.len();
        // `super::` before it would lead higher, any other segment elsewhere.
        let is_word_before =
            code[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$' | ':'));
        if is_word_before {
            continue;
        }
        match code[start..].strip_prefix('{') {
            Some(group) => {
                found.extend(members(group).into_iter().map(|(offset, name)| (start + 1 + offset, name)))
            }
            None => found.extend(identifier(&code[start..]).map(|name| (at, name))),
        }
    }
    found.into_iter()
}

/// The first identifiers of a group's members, at the group's own depth.
fn members(group: &str) -> Vec<(usize, &str)> {
    let mut depth = 0_u32;
    let mut expecting = true;
    let mut found = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expecting = true,
            _ if expecting && depth == 0 && !c.is_whitespace() => {
                found.extend(identifier(&group[at..]).map(|name| (at, name)));
                expecting = false;
            }
            _ => {}
        }
    }
    found
}

fn identifier(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_yield_their_members() {
        let code = "use crate::{\n    net::{self, route},\n    wire,\n};\ncrate::time::now()";
        let names: Vec<_> = paths_from(code, "crate::").map(|(_, name)| name).collect();
        assert_eq!(names, ["net", "wire", "time"]);
        let names: Vec<_> = paths_from("use super::super::{net, wire};", "super::super::").collect();
        assert_eq!(names.len(), 2);
        assert_eq!(paths_from("use super::super::block;", "super::").count(), 1);
    }

    #[test]
    fn other_crates_are_not_ours() {
        assert_eq!(paths_from("use my_crate::net; $crate::net", "crate::").count(), 0);
    }
}
