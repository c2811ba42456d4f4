//! `cargo xtask tidy`: the house's rules that no compiler checks.

mod layers;
mod links;
mod rules;
pub(crate) mod source;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use self::source::Source;
use crate::paths;

/// Checks the workspace; exit code 1 if anything is out of order.
pub fn run() -> Result<ExitCode> {
    let findings = check(paths::workspace())?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} to tidy up", findings.len());
    Ok(ExitCode::FAILURE)
}

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Relative to the root.
    pub path: PathBuf,
    /// Counted from 1; 0 for the file as a whole.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.path.display(), self.message),
        }
    }
}

/// Checks all that lies below a root.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for path in source::files(root)? {
        let relative = path.strip_prefix(root).unwrap_or(&path);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        rules::check_text(relative, &text, &mut findings);
        match relative.extension().and_then(|extension| extension.to_str()) {
            Some("rs") if source::is_fuzz_target(relative) || !source::is_test_file(root, relative) => {
                let source = Source::parse(relative, &text);
                layers::check(&source, &mut findings);
                rules::check_rust(&source, &mut findings);
            }
            // Made of the sources; whether it is up to date is a question of its own.
            Some("md") if relative == Path::new(crate::conformance::OUTPUT) => {}
            Some("md") => links::check(root, relative, &text, &mut findings),
            _ => {}
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The findings in a tree with one file.
    fn findings(path: &str, text: &str) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
        check(root.path()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn breaks(path: &str, text: &str, expected: &str) {
        let found = findings(path, text);
        assert!(found.len() == 1 && found[0].contains(expected), "{path}: {found:?}");
    }

    #[track_caller]
    fn is_fine(path: &str, text: &str) {
        assert_eq!(findings(path, text), Vec::<String>::new(), "{path}");
    }

    #[test]
    fn imports_point_down() {
        breaks("stack-user/src/tcp/output.rs", "use crate::stack::Stack;\n", "tcp may not import stack");
        breaks("stack-user/src/wire/tcp.rs", "fn f() { crate::api::g(); }\n", "wire may not import api");
        breaks("stack-user/src/tcp/mod.rs", "use super::stack::Stack;\n", "tcp may not import stack");
        breaks("stack-user/src/tcp/a/b.rs", "use super::super::super::{time, api};\n", "may not import api");
        is_fine("stack-user/src/tcp/input/mod.rs", "use super::stack;\n");
        is_fine("stack-user/src/stack/mod.rs", "use crate::tcp::Connection;\nuse crate::wire::arp;\n");
        is_fine("stack-user/src/wire/arp.rs", "use crate::telemetry::DropReason;\n");
    }

    #[test]
    fn neighbours_in_one_layer_do_not_import_each_other() {
        breaks("stack-user/src/tcp/mod.rs", "use crate::net::route;\n", "tcp may not import net");
        breaks(
            "stack-user/src/net/mod.rs",
            "use crate::{device::Umem, wire::arp};\n",
            "net may not import device",
        );
    }

    #[test]
    fn tests_and_comments_may_mention_what_is_above() {
        is_fine("stack-user/src/tcp/mod.rs", "// See crate::stack for the rest.\n");
        is_fine("stack-user/src/tcp/mod.rs", "#[cfg(test)]\nmod tests {\n    use crate::device::pair;\n}\n");
    }

    #[test]
    fn a_module_that_is_only_for_tests_is_a_test() {
        let root = tempfile::tempdir().unwrap();
        let tcp = root.path().join("stack-user/src/tcp");
        fs::create_dir_all(&tcp).unwrap();
        fs::write(tcp.join("testing.rs"), "use crate::device::pair;\n").unwrap();
        fs::write(tcp.join("mod.rs"), "mod testing;\n").unwrap();
        assert_eq!(check(root.path()).unwrap().len(), 1);
        fs::write(tcp.join("mod.rs"), "#[cfg(test)]\nmod other;\n#[cfg(test)]\npub(crate) mod testing;\n")
            .unwrap();
        assert_eq!(check(root.path()).unwrap(), []);
    }

    #[test]
    fn files_stay_short_before_their_tests() {
        let long = "fn f() {}\n".repeat(601);
        breaks("stack-user/src/net/route.rs", &long, "601 lines before its tests");
        let tests = format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "\n".repeat(599), "// a\n".repeat(500));
        is_fine("stack-user/src/net/route.rs", &tests);
    }

    #[test]
    fn fuzz_targets_and_what_runs_them_are_read_as_well() {
        let long = "fn f() {}\n".repeat(601);
        for path in
            ["stack-user/fuzz/src/a.rs", "stack-user/fuzz/fuzz_targets/a.rs", "xtask/src/fuzz/campaign.rs"]
        {
            breaks(path, &long, "601 lines before its tests");
            breaks(path, "fn f() { unsafe { g() } }\n", "unsafe");
        }
        is_fine("stack-user/fuzz/src/a.rs", "fn f() { x.unwrap(); }\n");
        is_fine("stack-user/tests/script/a.rs", &long);
    }

    #[test]
    fn unsafe_has_its_places() {
        let code = "fn f() { unsafe { g() } }\n";
        breaks("stack-user/src/tcp/mod.rs", code, "unsafe");
        is_fine("stack-user/src/device/ring.rs", code);
        is_fine("stack-ebpf/src/main.rs", code);
        is_fine("stack-user/src/lib.rs", "#![deny(unsafe_code)] // no \"unsafe\" here\n");
    }

    #[test]
    fn nothing_is_left_for_later() {
        for word in [concat!("to", "do!()"), concat!("unimpl", "emented!()")] {
            breaks("stack-user/src/api/mod.rs", &format!("fn f() {{ {word} }}\n"), "finish it");
        }
        breaks("README.md", concat!("FIX", "ME: explain\n"), "finish it");
    }

    #[test]
    fn protocol_code_does_not_unwrap() {
        let code = "fn f() { x.unwrap(); }\n";
        for path in ["stack-user/src/tcp/a.rs", "stack-user/src/net/a.rs", "stack-user/src/wire/a.rs"] {
            breaks(path, code, "unwrap");
        }
        breaks("stack-user/src/net/a.rs", "fn f() { x.expect(\"\"); }\n", "expect");
        is_fine("stack-user/src/tcp/a.rs", "fn f() { x.unwrap_or(1); }\n");
        is_fine("stack-user/src/tcp/a.rs", "#[cfg(test)]\nmod tests {\n    fn f() { x.unwrap(); }\n}\n");
    }

    #[test]
    fn somebodys_own_paths_stay_out() {
        breaks("docs/a.md", concat!("see /ho", "me/me/xstack\n"), "path");
        breaks(".ci/run", concat!("cd /ro", "ot/xstack\n"), "path");
    }

    #[test]
    fn links_in_documents_lead_somewhere() {
        breaks("ARCHITECTURE.md", "[the loop](stack-user/src/runtime/mod.rs)\n", "leads nowhere");
        is_fine("ARCHITECTURE.md", "[a](https://example.com/), [b](#glossary), [c](ARCHITECTURE.md#b)\n");
    }

    #[test]
    fn this_workspace_is_tidy() {
        let findings = check(paths::workspace()).unwrap();
        assert!(findings.is_empty(), "{findings:#?}");
    }
}
