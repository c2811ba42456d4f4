//! What is kept in the repository: few inputs that reach much, and every input that once was a finding.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::capture;

/// Inputs that are kept for each target, those that stay by their names apart. More make every clone larger and every test run longer,
/// for features that a minute of fuzzing finds again.
const KEPT: usize = 24;

/// Inputs with such names stay: what was a finding, and what somebody wrote, as it would take long to be found by chance.
const STAYING: [&str; 2] = ["regression-", "written-"];

/// Replaces a target's kept inputs by those of the growing corpus that reach most.
pub(super) fn minimize(target: &str, binary: &Path) -> Result<()> {
    let kept = super::home().join("corpus").join(target);
    let growing = super::work().join("corpus").join(target);
    let nowhere = super::work().join("merged").join(target);
    let _ = fs::remove_dir_all(&nowhere);
    fs::create_dir_all(&nowhere)?;
    fs::create_dir_all(&kept)?;
    let control = super::work().join(format!("merge-{target}.txt"));
    let _ = fs::remove_file(&control);
    capture(
        Command::new(binary)
            .arg("-merge=1")
            .arg(format!("-merge_control_file={}", control.display()))
            .args([&nowhere, &growing, &kept]),
    )?;
    let record =
        fs::read_to_string(&control).with_context(|| format!("cannot read {}", control.display()))?;
    let chosen: Vec<_> = choose(&parse(&record))
        .into_iter()
        .map(|path| Ok((path.file_name().unwrap_or_default().to_owned(), fs::read(path)?)))
        .collect::<Result<_>>()?;
    for entry in fs::read_dir(&kept)? {
        let entry = entry?;
        if !stays(&entry.file_name()) {
            fs::remove_file(entry.path())?;
        }
    }
    for (name, bytes) in &chosen {
        fs::write(kept.join(name), bytes)?;
    }
    eprintln!("xtask: {target}: {} inputs are kept", chosen.len());
    Ok(())
}

fn stays(name: &OsStr) -> bool {
    STAYING.iter().any(|prefix| name.to_string_lossy().starts_with(prefix))
}

/// An input, and what it reaches: edges, each with how often, as libFuzzer numbers them.
struct Reaches {
    path: PathBuf,
    features: Vec<u64>,
}

/// Reads the record that libFuzzer keeps of a merge: how many files there are, how many of them are of the first corpus,
/// their names, and then what each of them reaches.
fn parse(record: &str) -> Vec<Reaches> {
    let mut lines = record.lines();
    let count: usize = lines.next().and_then(|line| line.parse().ok()).unwrap_or(0);
    let mut inputs: Vec<_> = lines
        .by_ref()
        .skip(1)
        .take(count)
        .map(|path| Reaches { path: path.into(), features: Vec::new() })
        .collect();
    for line in lines {
        let mut words = line.strip_prefix("FT ").unwrap_or_default().split(' ');
        let index: Option<usize> = words.next().and_then(|word| word.parse().ok());
        if let Some(input) = index.and_then(|index| inputs.get_mut(index)) {
            input.features = words.filter_map(|word| word.parse().ok()).collect();
        }
    }
    inputs
}

/// The inputs that reach most together, taken one after the other by what they add. Some are kept anyway.
fn choose(inputs: &[Reaches]) -> Vec<&Path> {
    let is_kept = |input: &&Reaches| input.path.file_name().is_some_and(stays);
    let mut reached: HashSet<u64> =
        inputs.iter().filter(is_kept).flat_map(|input| input.features.iter().copied()).collect();
    let mut chosen = Vec::new();
    while chosen.len() < KEPT {
        let adds = |input: &&Reaches| input.features.iter().filter(|f| !reached.contains(f)).count();
        let Some(best) = inputs.iter().max_by_key(adds).filter(|input| adds(input) > 0) else { break };
        reached.extend(best.features.iter().copied());
        chosen.push(best.path.as_path());
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_inputs_that_reach_all_are_chosen_and_those_that_stay_count() {
        let record = "5\n0\nc/a\nc/b\nc/regression-x\nc/d\nc/written-y\nSTARTED 0 5\nFT 0 1 2 3\nCOV 0 1\nSTARTED 1 9\n\
                      FT 1 1 2\nSTARTED 2 1\nFT 2 7\nSTARTED 3 1\nFT 3 7 8 9\nSTARTED 4 1\nFT 4 9\n";
        let inputs = parse(record);
        assert_eq!(choose(&inputs), [Path::new("c/a"), Path::new("c/d")]);
    }
}
