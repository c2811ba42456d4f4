//! What was measured: kept case by case in target/bench/, so that a case can be measured again without the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::case::Plan;
use super::machine::Machine;
use super::metric::Metric;
use super::statistics::Series;
use super::target::{At, Verdict};
use crate::paths;

/// A case that has been run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) case: String,
    pub(super) about: String,
    /// The metric of the plot.
    pub(super) plotted: String,
    /// When it was begun, in seconds since 1970.
    pub(super) began: u64,
    pub(super) took_seconds: f64,
    /// Of how many cores others had use, on average over the minute before it began.
    pub(super) load_before: f64,
    pub(super) plan: Plan,
    pub(super) machine: Machine,
    pub(super) rows: Rows,
    /// By entry: what ran.
    pub(super) commands: BTreeMap<String, Vec<String>>,
    /// By entry: why runs of it failed.
    pub(super) failures: BTreeMap<String, Vec<String>>,
    pub(super) verdicts: Vec<Verdict>,
}

/// Figures by row and metric, in the order in which they came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Rows(pub(super) Vec<Row>);

/// A line of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) series: Vec<(String, Series)>,
}

impl Rows {
    /// Takes a figure of a round.
    pub(super) fn put(&mut self, row: &str, metric: Metric, round: usize, value: f64) {
        let at = self.0.iter().position(|known| known.name == row).unwrap_or_else(|| {
            self.0.push(Row { name: row.to_owned(), series: Vec::new() });
            self.0.len() - 1
        });
        let row = &mut self.0[at];
        let at = row.series.iter().position(|(name, _)| name == metric.name).unwrap_or_else(|| {
            row.series.push((metric.name.to_owned(), Series::new(metric.unit, Vec::new())));
            row.series.len() - 1
        });
        let values = &mut row.series[at].1.values;
        values.resize(values.len().max(round + 1), None);
        values[round] = Some(value);
    }

    /// Summarises what has come in so many rounds.
    pub(super) fn finish(&mut self, rounds: usize) {
        for (_, series) in self.0.iter_mut().flat_map(|row| &mut row.series) {
            series.values.resize(rounds, None);
            *series = Series::new(series.unit, std::mem::take(&mut series.values));
        }
    }

    /// The figures of a row and metric.
    pub(super) fn series(&self, at: &At) -> Option<&Series> {
        self.0.iter().find(|row| row.name == at.row)?.get(at.metric.name)
    }

    /// All metrics that any row has, in the order of their first.
    pub(super) fn metrics(&self) -> Vec<&str> {
        let mut metrics: Vec<&str> = Vec::new();
        for (name, _) in self.0.iter().flat_map(|row| &row.series) {
            if !metrics.contains(&name.as_str()) {
                metrics.push(name);
            }
        }
        metrics
    }
}

impl Row {
    pub(super) fn get(&self, metric: &str) -> Option<&Series> {
        self.series.iter().find(|(name, _)| name == metric).map(|(_, series)| series)
    }
}

/// Where results are kept.
pub(super) fn directory() -> PathBuf {
    paths::target().join("bench")
}

/// Keeps the outcome of a case, in place of an earlier one.
pub(super) fn save(directory: &Path, outcome: &Outcome) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(format!("{}.json", outcome.case));
    let text = serde_json::to_string_pretty(outcome)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The kept outcomes of these cases, in their order; those that there are.
pub(super) fn load<'a>(directory: &Path, cases: impl Iterator<Item = &'a str>) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for case in cases {
        let path = directory.join(format!("{case}.json"));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let outcome = serde_json::from_slice(&bytes).with_context(|| {
            format!("{} is from another version of this: measure {case} again", path.display())
        })?;
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::bench::metric::{GOODPUT, P50, RATE};
    use crate::bench::target::{Goal, Target};

    /// Two rows in two rounds, of which one run failed.
    pub(in crate::bench) fn outcome(case: &str) -> Outcome {
        let mut rows = Rows::default();
        rows.put("ours ↔ ours", GOODPUT, 0, 12e9);
        rows.put("ours ↔ ours", GOODPUT, 1, 14e9);
        rows.put("kernel ↔ kernel <&>", GOODPUT, 0, 10e9);
        rows.put("kernel ↔ kernel <&>", P50, 0, 90e3);
        rows.finish(2);
        let targets = [
            Target::ratio(
                "bulk",
                At::new("ours ↔ ours", GOODPUT),
                At::new("kernel ↔ kernel <&>", GOODPUT),
                Goal::LeastTimes(1.1),
            ),
            Target::absolute("unknown", At::new("nobody", RATE), 1.0),
        ];
        Outcome {
            case: case.to_owned(),
            about: "Two rows.".to_owned(),
            plotted: GOODPUT.name.to_owned(),
            began: 1_800_000_000,
            took_seconds: 7.0,
            load_before: 0.25,
            plan: Plan { rounds: 2, seconds: 3, warm_up: 1, quick: false },
            machine: Machine::here(),
            verdicts: targets.iter().map(|target| target.judge(&rows)).collect(),
            rows,
            commands: BTreeMap::new(),
            failures: BTreeMap::from([("kernel ↔ kernel <&>".to_owned(), vec!["it broke".to_owned()])]),
        }
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        save(directory.path(), &outcome("bulk-1500")).unwrap();
        let read = load(directory.path(), ["bulk-9000", "bulk-1500"].into_iter()).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].verdicts, outcome("bulk-1500").verdicts);
        assert_eq!(read[0].rows.metrics(), ["goodput", "p50"]);
        fs::write(directory.path().join("rr.json"), "{}").unwrap();
        let error = load(directory.path(), ["rr"].into_iter()).unwrap_err();
        assert!(format!("{error:#}").contains("measure rr again"), "{error:#}");
    }

    #[test]
    fn a_round_without_a_figure_leaves_a_gap() {
        let outcome = outcome("x");
        let series = outcome.rows.series(&At::new("kernel ↔ kernel <&>", GOODPUT)).unwrap();
        assert_eq!(series.values, [Some(10e9), None]);
        assert_eq!(series.summary.unwrap().median, 10e9);
    }
}
