//! A Rust file as the rules read it: comments and the insides of strings blanked out, tests apart.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::rust_text::{self, Piece};

/// Directories that hold nothing of ours.
const SKIPPED: &[&str] = &["target", ".git", "corpus"];

pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    /// The lines before the file's tests, with comments and strings blanked out.
    pub(super) code: Vec<String>,
}

impl<'a> Source<'a> {
    pub(super) fn parse(path: &'a Path, text: &str) -> Self {
        let blanked = rust_text::keep(text, &[Piece::Code]);
        let lines: Vec<&str> = blanked.lines().collect();
        let tests = lines
            .windows(2)
            .position(|pair| pair[0].trim() == "#[cfg(test)]" && is_inline_module(pair[1]))
            .unwrap_or(lines.len());
        Self { path, code: lines[..tests].iter().map(|&line| line.to_owned()).collect() }
    }

    /// The module of `stack-user` that the file belongs to: `tcp` for `stack-user/src/tcp/output.rs`.
    pub(super) fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("stack-user/src").ok()?;
        let first = inside.components().next()?.as_os_str().to_str()?;
        Some(first.strip_suffix(".rs").unwrap_or(first))
    }

    /// How deep below the crate's root the file's module is: 1 for `tcp/mod.rs`, 2 for `tcp/output.rs`.
    pub(super) fn module_depth(&self) -> usize {
        let inside = self.path.strip_prefix("stack-user/src").unwrap_or(self.path);
        let is_directory = inside.file_stem().is_some_and(|stem| stem == "mod");
        inside.components().count() - usize::from(is_directory)
    }
}

/// The fuzz targets: tests, but programs of their own at the same time.
const FUZZ_TARGETS: &str = "stack-user/fuzz";

/// Whether a file holds nothing but tests: by where it is, or since its parent says `#[cfg(test)] mod NAME;`.
pub(crate) fn is_test_file(root: &Path, path: &Path) -> bool {
    is_fuzz_target(path) || is_test_module(root, path)
}

/// Whether a file is a fuzz target's or a part of one.
pub(super) fn is_fuzz_target(path: &Path) -> bool {
    path.starts_with(FUZZ_TARGETS)
}

fn is_test_module(root: &Path, path: &Path) -> bool {
    let by_place = |word: &OsStr| matches!(word.to_str(), Some("tests" | "tests.rs" | "benches"));
    // The file itself, or any directory above it, can be the module that is for tests only.
    path.iter().any(by_place) || path.ancestors().any(|module| is_declared_for_tests(root, module))
}

fn is_declared_for_tests(root: &Path, module: &Path) -> bool {
    let (Some(name), Some(directory)) = (module.file_stem().and_then(OsStr::to_str), module.parent()) else {
        return false;
    };
    let declaration = format!("mod {name};");
    let parents = [directory.with_extension("rs"), directory.join("mod.rs"), directory.join("lib.rs")];
    parents.iter().filter_map(|parent| fs::read_to_string(root.join(parent)).ok()).any(|text| {
        let mut lines = text.lines().map(str::trim);
        std::iter::from_fn(|| lines.find(|line| *line == "#[cfg(test)]").and_then(|_| lines.next()))
            .any(|next| next.ends_with(&declaration))
    })
}

fn is_inline_module(line: &str) -> bool {
    let line = line.trim_start();
    (line.starts_with("mod ") || line.starts_with("pub(crate) mod ")) && line.ends_with('{')
}

/// All files below a directory that are ours.
pub(crate) fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(directory) = pending.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED.contains(&name.to_string_lossy().as_ref()) {
                pending.push(entry.path());
            } else if kind.is_file() && name != "Cargo.lock" {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_ends_where_the_tests_begin() {
        let text = "fn f() {}\n\n#[cfg(test)]\nuse x;\n\n#[cfg(test)]\nmod tests {\n}\n";
        let source = Source::parse(Path::new("stack-user/src/tcp/a.rs"), text);
        assert_eq!(source.code.len(), 5);
        assert_eq!(source.module(), Some("tcp"));
    }
}
