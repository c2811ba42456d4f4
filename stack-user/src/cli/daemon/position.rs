//! Where in a file something is wrong, for people: line, column, and what was perhaps meant.

use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// How many letters a key may be away from the one that is suggested. More, and the suggestion is a guess.
const MAX_TYPOS: usize = 2;

/// A configuration file and what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its text.
    pub text: &'a str,
}

/// What is wrong with a configuration: `FILE:LINE:COLUMN: reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: PathBuf,
    place: Option<(usize, usize)>,
    reason: String,
}

impl ConfigError {
    /// About the file as a whole.
    pub fn whole(path: &Path, reason: String) -> Self {
        Self { path: path.to_owned(), place: None, reason }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, place, reason } = self;
        match place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {reason}", path.display()),
            None => write!(f, "{}: {reason}", path.display()),
        }
    }
}

impl Source<'_> {
    /// What is wrong at a place.
    pub fn at(&self, span: Range<usize>, reason: String) -> ConfigError {
        ConfigError { path: self.path.to_owned(), place: Some(self.place(span.start)), reason }
    }

    /// What the parser found.
    pub fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let mut reason = error.message().trim().replace('\n', ", ");
        if let Some(meant) = suggestion(&reason) {
            reason.push_str(&format!("; did you mean `{meant}`?"));
        }
        match error.span() {
            Some(span) => self.at(span, reason),
            None => ConfigError::whole(self.path, reason),
        }
    }

    /// The line that something is in, the first being 1.
    pub fn line(&self, span: Range<usize>) -> usize {
        self.place(span.start).0
    }

    /// Line and column, in characters.
    fn place(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

/// The key that was perhaps meant: serde names the unknown one first, then those that there are.
fn suggestion(message: &str) -> Option<&str> {
    let names = message.strip_prefix("unknown field ")?;
    let mut names = names.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    let nearest = names.map(|name| (typos(unknown, name), name)).min()?;
    (nearest.0 <= MAX_TYPOS).then_some(nearest.1)
}

/// How many letters have to be put in, left out or replaced to make one of the other.
fn typos(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_miss_is_suggested_and_a_far_one_is_not() {
        assert_eq!((typos("interfaces", "interface"), typos("", "abc"), typos("grace", "trace")), (1, 3, 1));
        let message = "unknown field `gatway`, expected one of `interface`, `gateway`, `dns`";
        assert_eq!(suggestion(message), Some("gateway"));
        assert_eq!(suggestion("unknown field `colour`, expected `interface` or `dns`"), None);
        assert_eq!(suggestion("invalid type: `x`"), None);
    }

    #[test]
    fn places_are_counted_in_characters_from_one() {
        let source = Source { path: Path::new("f"), text: "é = 1\nü = 2" };
        assert_eq!(source.place(0), (1, 1));
        assert_eq!(source.place(source.text.len() - 1), (2, 5));
        assert_eq!(source.place(1_000), (2, 6));
        assert_eq!(source.at(7..8, "no".into()).to_string(), "f:2:1: no");
    }
}
