//! What is measured is built beforehand, by whoever called: measuring itself builds nothing.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::case::Case;
use super::engine::Tools;
use crate::build::{self, Profile, cargo};
use crate::process::describe;

/// Builds xstack, and the bench targets that cases want.
pub(super) fn build(cases: &[Case]) -> Result<Tools> {
    let xstack = build::xstack(Profile::Release)?;
    let mut wanted: Vec<_> =
        cases.iter().flat_map(|case| &case.entries).flat_map(|entry| entry.recipe.benches()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let benches = if wanted.is_empty() { BTreeMap::new() } else { build_benches(&wanted)? };
    Ok(Tools { xstack, benches })
}

/// Builds bench targets and says where they are. Cargo knows: their file names have a hash in them.
fn build_benches(names: &[&str]) -> Result<BTreeMap<String, std::path::PathBuf>> {
    let mut command = cargo();
    command.args([
        "bench",
        "--no-run",
        "--package",
        "stack-user",
        "--message-format=json-render-diagnostics",
    ]);
    command.args(names.iter().flat_map(|name| ["--bench", name]));
    let output = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`{}` failed ({})", describe(&command), output.status);
    }
    let benches = executables(&String::from_utf8_lossy(&output.stdout));
    match names.iter().find(|name| !benches.contains_key(**name)) {
        Some(missing) => bail!("cargo has not built the bench {missing}"),
        None => Ok(benches),
    }
}

/// Bench targets and their files, out of cargo's messages.
fn executables(messages: &str) -> BTreeMap<String, std::path::PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let benches =
        messages.filter(|message| message.pointer("/target/kind/0").is_some_and(|kind| kind == "bench"));
    let named = benches.filter_map(|message| {
        let text = |pointer| message.pointer(pointer)?.as_str().map(str::to_owned);
        Some((text("/target/name")?, text("/executable")?.into()))
    });
    named.collect()
}

/// The bench targets that there are: those can be run alone.
pub(super) fn benches() -> Result<Vec<String>> {
    let directory = crate::paths::workspace().join("stack-user/benches");
    let entries =
        std::fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let names = entries.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(".rs").map(str::to_owned)
    });
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_says_where_a_bench_is() {
        let messages = r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"stack_user"},"executable":null}
{"reason":"compiler-artifact","target":{"kind":["bench"],"name":"wan"},"executable":"/t/release/deps/wan-1f"}
   Compiling something
{"reason":"build-finished","success":true}
"#;
        let found = executables(messages);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("wan".to_owned(), "/t/release/deps/wan-1f".into())]
        );
    }

    #[test]
    fn every_bench_that_a_case_wants_is_there() {
        let plan = super::super::Plan { rounds: 1, seconds: 1, warm_up: 1, quick: false };
        let known = benches().unwrap();
        for case in super::super::cases::all(&plan) {
            for name in case.entries.iter().flat_map(|entry| entry.recipe.benches()) {
                assert!(known.iter().any(|known| known == name), "{}: {name}", case.name);
            }
        }
    }
}
