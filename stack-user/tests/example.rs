//! The example of the documentation does what it says, and no example is left out.

use std::{fs, path::Path};

#[path = "../examples/back_to_back.rs"]
#[allow(dead_code, reason = "its entry is called below")]
mod back_to_back;

#[test]
fn two_stacks_back_to_back() {
    back_to_back::main();
}

/// The end-to-end tests run the others, each by its name, against real peers.
#[test]
fn every_example_program_is_run() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |directory: &str| {
        let entries = fs::read_dir(package.join(directory)).expect("a directory");
        entries.map(|entry| entry.expect("a file").path()).filter(|path| path.is_file()).collect::<Vec<_>>()
    };
    let tests: String =
        files("tests/e2e").iter().map(|path| fs::read_to_string(path).expect("a test")).collect();
    let examples = files("examples");
    assert!(examples.len() > 1);
    for path in examples {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let calls = ["example(", "example_server(", "program("];
        let is_run = calls.iter().any(|call| tests.contains(&format!("{call}\"{name}\"")));
        assert!(is_run || name == "back_to_back", "nothing runs {name}: give it a test in tests/e2e/");
    }
}
