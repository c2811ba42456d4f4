//! Results as a person reads them, on a terminal and in Markdown.

use super::results::{Outcome, Row};
use super::statistics::{Series, Summary};
use super::target::Verdict;

/// A table of words.
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|word| (*word).to_owned()).collect(), rows: Vec::new() }
    }

    /// In columns, two blanks apart.
    pub(super) fn plain(&self) -> String {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let mut text = String::new();
        for line in lines() {
            let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            text.push_str("  ");
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        let rule = vec!["---".to_owned(); self.head.len()];
        for line in [&self.head, &rule].into_iter().chain(&self.rows) {
            let cells = line.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>();
            text.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
        text
    }
}

/// All figures of a case: a row for each way, a column for each metric.
pub(super) fn figures(outcome: &Outcome) -> Table {
    let metrics = outcome.rows.metrics();
    let mut table = Table::new(&[&[""], &metrics[..]].concat());
    for row in &outcome.rows.0 {
        let cells = metrics.iter().map(|metric| row.get(metric).map_or_else(|| "–".to_owned(), cell));
        table.rows.push(std::iter::once(row.name.clone()).chain(cells).collect());
    }
    table
}

/// The median, and the spread around it.
fn cell(series: &Series) -> String {
    let Some(Summary { median, min, max }) = series.summary else { return "–".to_owned() };
    let show = |value| series.unit.show(value);
    if min == max { show(median) } else { format!("{} ({} to {})", show(median), show(min), show(max)) }
}

/// The targets of some cases: what | ours | beside | ratio | target | reached.
pub(super) fn targets<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Table {
    let mut table = Table::new(&["what", "ours", "beside", "ratio", "target", "reached"]);
    for verdict in outcomes.into_iter().flat_map(|outcome| &outcome.verdicts) {
        table.rows.push(target(verdict));
    }
    table
}

fn target(verdict: &Verdict) -> Vec<String> {
    let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| verdict.unit.show(value));
    let beside = match &verdict.beside_name {
        Some(name) => format!("{} {}", name, show(verdict.beside)),
        None => "–".to_owned(),
    };
    let spread = match verdict.spread {
        Some((min, max)) if min != max => {
            format!(" ({} to {})", super::metric::digits(min), super::metric::digits(max))
        }
        _ => String::new(),
    };
    vec![
        format!("{}: {}", verdict.what, verdict.metric),
        show(verdict.ours),
        beside,
        verdict.outcome_told() + &spread,
        verdict.goal.clone(),
        verdict.reached_told().to_owned(),
    ]
}

/// A case on the terminal.
pub(super) fn tell(outcome: &Outcome) -> String {
    let mut text = format!("\n{}: {}\n{}", outcome.case, outcome.about, figures(outcome).plain());
    for (entry, reasons) in &outcome.failures {
        for reason in reasons {
            text.push_str(&format!("  failed: {entry}: {reason}\n"));
        }
    }
    if !outcome.verdicts.is_empty() {
        text.push_str(&targets([outcome]).plain());
    }
    text
}

/// The rows that have the metric of the plot, for whoever draws it.
pub(super) fn plotted(outcome: &Outcome) -> impl Iterator<Item = (&Row, &Series, Summary)> {
    outcome.rows.0.iter().filter_map(|row| {
        let series = row.get(&outcome.plotted)?;
        Some((row, series, series.summary?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::outcome;

    #[test]
    fn figures_are_told_with_their_spread_and_gaps_with_a_dash() {
        let text = figures(&outcome("x")).plain();
        let cells = |line: &str| {
            line.split("  ").map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
        };
        let lines: Vec<Vec<String>> = text.lines().map(cells).collect();
        assert_eq!(lines[0], ["goodput", "p50"]);
        assert_eq!(lines[1], ["ours ↔ ours", "13.0 Gbit/s (12.0 Gbit/s to 14.0 Gbit/s)", "–"]);
        assert_eq!(lines[2][0], "kernel ↔ kernel <&>");
        assert!(lines[2].contains(&"90.0 µs".to_owned()), "{text}");
    }

    #[test]
    fn targets_are_told_as_the_page_has_them() {
        let text = targets([&outcome("x")]).markdown();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "| what | ours | beside | ratio | target | reached |");
        assert_eq!(lines[1], "| --- | --- | --- | --- | --- | --- |");
        assert_eq!(
            lines[2],
            "| bulk: goodput | 13.0 Gbit/s | kernel ↔ kernel <&> 10.0 Gbit/s | 1.30 | ≥ 1.10 × | yes |"
        );
        assert_eq!(lines[3], "| unknown: rate | – | – | – | ≤ 1.00 /s | not measured |");
    }

    #[test]
    fn a_bar_in_a_cell_does_not_end_it() {
        let mut table = Table::new(&["a|b"]);
        table.rows.push(vec!["c".into()]);
        assert_eq!(table.markdown(), "| a\\|b |\n| --- |\n| c |\n");
    }

    #[test]
    fn the_terminal_gets_failures_too() {
        let text = tell(&outcome("bulk-1500"));
        assert!(
            text.contains("bulk-1500: Two rows.") && text.contains("failed: kernel ↔ kernel <&>: it broke"),
            "{text}"
        );
        assert_eq!(plotted(&outcome("x")).count(), 2);
    }
}
