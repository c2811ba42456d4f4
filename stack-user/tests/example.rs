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
    let tests = fs::read_to_string(package.join("tests/e2e/examples.rs")).expect("the end-to-end tests");
    let mut examples = 0;
    for file in fs::read_dir(package.join("examples")).expect("the examples") {
        let path = file.expect("a file").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let is_run =
            ["example(", "example_server("].iter().any(|call| tests.contains(&format!("{call}\"{name}\"")));
        assert!(
            is_run || name == "back_to_back",
            "nothing runs {name}: give it a test in tests/e2e/examples.rs"
        );
        examples += 1;
    }
    assert!(examples > 1);
}
