//! The fuzz targets as ordinary tests: every kept input, and some that are drawn from seeds. `cargo xtask fuzz` runs the
//! same bodies for longer, and with an eye for what an input reaches.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "public for the fuzz targets, which are a crate of their own")]
mod targets;

use std::{fs, panic, path::Path};

use stack_user::rng::Rng;

/// Inputs drawn for each target. Fewer than a fuzzer runs in a second; enough to meet what is grossly wrong.
const DRAWN: u64 = 300;

/// The longest that is drawn.
const MAX_INPUT: u64 = 600;

#[test]
fn every_kept_input_passes() {
    for (name, body) in targets::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let entries =
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut inputs: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has no input; run cargo xtask fuzz {name} --minimize");
        for path in inputs {
            let input = fs::read(&path).expect("a readable file");
            run(body, &input, &format!("{}", path.display()));
        }
    }
}

#[test]
fn drawn_inputs_pass() {
    for (name, body) in targets::TARGETS {
        for seed in 0..DRAWN {
            let mut rng = Rng::from_seed(seed);
            let mut input = vec![0; rng.below(MAX_INPUT) as usize];
            rng.fill(&mut input);
            run(body, &input, &format!("{name}, seed {seed}"));
        }
    }
}

/// Runs a body and names the input if it panics.
fn run(body: fn(&[u8]), input: &[u8], which: &str) {
    if let Err(panic) = panic::catch_unwind(|| body(input)) {
        eprintln!("the input was {which}");
        panic::resume_unwind(panic);
    }
}
