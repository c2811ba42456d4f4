//! The path of a request: from what stands in the URL to names below the root, and back.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

/// What a name needs escaped to be a segment of a path (RFC 3986 §3.3), and to stand in HTML and in a header.
const SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// What a path as people write it needs escaped to be read as a URL's.
const LITERAL: &AsciiSet = &CONTROLS.add(b'%');

/// Not a path: an escape that is none, a NUL, or more `..` than there are directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadPath;

/// Names from the root down, without `.`, `..` or empty ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RequestPath {
    relative: PathBuf,
    /// It ends in a slash, or is the root.
    pub(super) is_directory: bool,
}

impl RequestPath {
    /// Decodes the path of a URL, once.
    pub(super) fn parse(path: &str) -> Result<Self, BadPath> {
        let decoded = decode(path)?;
        let mut names: Vec<&[u8]> = Vec::new();
        let mut is_directory = true;
        for name in decoded.split(|&byte| byte == b'/') {
            is_directory = matches!(name, b"" | b"." | b"..");
            match name {
                b"" | b"." => {}
                b".." => {
                    names.pop().ok_or(BadPath)?;
                }
                name => names.push(name),
            }
        }
        let relative = names.into_iter().map(OsStr::from_bytes).collect();
        Ok(Self { relative, is_directory })
    }

    /// What stands here as it is, not in a URL. `None` if that is not below the root.
    pub(super) fn literal(name: &str) -> Option<Self> {
        let escaped: String = percent_encode(name.as_bytes(), LITERAL).to_string();
        Self::parse(&escaped).ok()
    }

    /// Whether it is the root.
    pub(super) fn is_root(&self) -> bool {
        self.relative.as_os_str().is_empty()
    }

    /// Below the root; empty for the root itself.
    pub(super) fn relative(&self) -> &Path {
        &self.relative
    }

    /// Whether a name begins with a dot. `.well-known` is there to be found (RFC 8615).
    pub(super) fn is_hidden(&self) -> bool {
        self.relative.iter().any(is_hidden)
    }

    /// The same as a URL's path, with a slash at its end. It begins with one slash only: two would name another host.
    pub(super) fn as_directory(&self) -> String {
        let mut path = String::from("/");
        for name in &self.relative {
            path.push_str(&encode(name));
            path.push('/');
        }
        path
    }
}

/// Whether a name is one that is not shown.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") && name != ".well-known"
}

/// A name as a segment of a URL's path.
pub(super) fn encode(name: &OsStr) -> String {
    percent_encode(name.as_bytes(), SEGMENT).to_string()
}

fn decode(path: &str) -> Result<Vec<u8>, BadPath> {
    let mut after_percent = path.split('%').skip(1);
    let is_escape = |rest: &str| rest.bytes().take_while(u8::is_ascii_hexdigit).take(2).count() == 2;
    if !after_percent.all(is_escape) {
        return Err(BadPath);
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    if decoded.contains(&0) { Err(BadPath) } else { Ok(decoded) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once_and_stay_below_the_root() {
        for (path, relative, is_directory) in [
            ("/", "", true),
            ("", "", true),
            ("/a", "a", false),
            ("/a/", "a", true),
            ("//a//b", "a/b", false),
            ("/./a/.", "a", true),
            ("/a/../b", "b", false),
            ("/a/..", "", true),
            ("/%61%2fb", "a/b", false),
            ("/%2561", "%61", false),
            ("/a%20b+c", "a b+c", false),
            ("/..a/b..", "..a/b..", false),
            ("/a\\..\\b", "a\\..\\b", false),
        ] {
            let expected = RequestPath { relative: relative.into(), is_directory };
            assert_eq!(RequestPath::parse(path), Ok(expected), "{path}");
        }
        let bytes = RequestPath::parse("/%ff").expect("names need not be UTF-8");
        assert_eq!(bytes.relative().as_os_str().as_bytes(), b"\xff");
    }

    #[test]
    fn what_leaves_the_root_or_is_no_path_is_refused() {
        for path in [
            "/..",
            "/../a",
            "/a/../../b",
            "/%2e%2e/a",
            "/%2e%2e%2fa",
            "/..%2f..%2fetc/passwd",
            "/.%2e/a",
            "/a%00b",
            "/%",
            "/%4",
            "/%zz",
            "/a%+1",
        ] {
            assert_eq!(RequestPath::parse(path), Err(BadPath), "{path}");
        }
    }

    #[test]
    fn hidden_names_are_told() {
        for (path, hidden) in [
            ("/.git/config", true),
            ("/a/.b", true),
            ("/%2egit", true),
            ("/.well-known/x", false),
            ("/a.b", false),
        ] {
            assert_eq!(RequestPath::parse(path).map(|path| path.is_hidden()), Ok(hidden), "{path}");
        }
    }

    #[test]
    fn names_go_into_urls_and_come_back() {
        let name: Vec<u8> = (1..=255).filter(|&byte| byte != b'/').collect();
        let encoded = encode(OsStr::from_bytes(&name));
        assert!(encoded.is_ascii() && !encoded.contains(['"', '<', '&', ' ', '\n', '\'']), "{encoded}");
        let back = RequestPath::parse(&encoded).expect("a path");
        assert_eq!(back.relative().as_os_str().as_bytes(), name);
        let path = RequestPath::parse("//evil.test//x y").expect("a path");
        assert_eq!(path.as_directory(), "/evil.test/x%20y/");
    }
}
