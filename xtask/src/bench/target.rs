//! Targets: what a figure is compared with, and what the ratio should be. A bench reports; it does not fail for one.

use serde::{Deserialize, Serialize};

use super::metric::{Metric, Unit, digits};
use super::results::Rows;
use super::statistics::{Series, Summary};

/// A target of a case, as the table on the page has it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) what: String,
    pub(super) ours: At,
    /// What is beside it, where it is not judged by itself.
    pub(super) beside: Option<At>,
    pub(super) goal: Goal,
}

/// Where a figure is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) row: String,
    pub(super) metric: Metric,
}

impl At {
    pub(super) fn new(row: impl Into<String>, metric: Metric) -> Self {
        Self { row: row.into(), metric }
    }
}

/// What should be so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// At least so many times what is beside it.
    LeastTimes(f64),
    /// At most so many times what is beside it.
    MostTimes(f64),
    /// At most so much more than what is beside it, in the metric's unit.
    MostBeyond(f64),
    /// At most so much, in the metric's unit.
    Most(f64),
}

impl Goal {
    fn told(self, unit: Unit) -> String {
        match self {
            Self::LeastTimes(times) => format!("≥ {} ×", digits(times)),
            Self::MostTimes(times) => format!("≤ {} ×", digits(times)),
            Self::MostBeyond(most) => format!("≤ {} more", unit.show(most)),
            Self::Most(most) => format!("≤ {}", unit.show(most)),
        }
    }
}

/// What became of a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Verdict {
    pub(super) what: String,
    pub(super) metric: String,
    pub(super) unit: Unit,
    /// The median of ours, and of what is beside it with its name.
    pub(super) ours: Option<f64>,
    pub(super) beside: Option<f64>,
    pub(super) beside_name: Option<String>,
    /// The ratio of the medians, or the difference, for a target that is about it.
    pub(super) outcome: Option<f64>,
    /// The smallest and the largest ratio of a round.
    pub(super) spread: Option<(f64, f64)>,
    /// The target in words.
    pub(super) goal: String,
    /// None if it could not be measured.
    pub(super) reached: Option<bool>,
}

impl Target {
    /// A target that is about a ratio.
    pub(super) fn ratio(what: impl Into<String>, ours: At, beside: At, goal: Goal) -> Self {
        Self { what: what.into(), ours, beside: Some(beside), goal }
    }

    /// A target that is about a figure by itself.
    pub(super) fn absolute(what: impl Into<String>, ours: At, most: f64) -> Self {
        Self { what: what.into(), ours, beside: None, goal: Goal::Most(most) }
    }

    /// Judges what was measured.
    pub(super) fn judge(&self, rows: &Rows) -> Verdict {
        let ours = rows.series(&self.ours);
        let beside = self.beside.as_ref().and_then(|at| rows.series(at));
        let median = |series: Option<&Series>| Some(series?.summary?.median);
        let (our_median, beside_median) = (median(ours), median(beside));
        let ratio = || Some(our_median? / beside_median.filter(|beside| *beside != 0.0)?);
        let (outcome, reached) = match self.goal {
            Goal::LeastTimes(least) => (ratio(), ratio().map(|ratio| ratio >= least)),
            Goal::MostTimes(most) => (ratio(), ratio().map(|ratio| ratio <= most)),
            Goal::MostBeyond(most) => {
                let beyond = our_median.zip(beside_median).map(|(ours, beside)| ours - beside);
                (beyond, beyond.map(|beyond| beyond <= most))
            }
            Goal::Most(most) => (None, our_median.map(|ours| ours <= most)),
        };
        let ratios = match self.goal {
            Goal::LeastTimes(_) | Goal::MostTimes(_) => {
                ours.zip(beside).and_then(|(ours, beside)| ours.ratios(beside))
            }
            Goal::MostBeyond(_) | Goal::Most(_) => None,
        };
        Verdict {
            what: self.what.clone(),
            metric: self.ours.metric.name.to_owned(),
            unit: self.ours.metric.unit,
            ours: our_median,
            beside: beside_median,
            beside_name: self.beside.as_ref().map(|at| at.row.clone()),
            outcome,
            spread: ratios.map(|Summary { min, max, .. }| (min, max)),
            goal: self.goal.told(self.ours.metric.unit),
            reached,
        }
    }
}

impl Verdict {
    /// Ratio or difference, as a table has it.
    pub(super) fn outcome_told(&self) -> String {
        match (self.outcome, self.goal.ends_with('×')) {
            (Some(ratio), true) => digits(ratio),
            (Some(difference), false) => format!("{} more", self.unit.show(difference)),
            (None, _) => "–".to_owned(),
        }
    }

    /// One word.
    pub(super) fn reached_told(&self) -> &'static str {
        match self.reached {
            Some(true) => "yes",
            Some(false) => "no",
            None => "not measured",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::metric::{COST, GOODPUT, P99};

    fn rows(figures: &[(&str, Metric, &[f64])]) -> Rows {
        let mut rows = Rows::default();
        for &(row, metric, values) in figures {
            for (round, &value) in values.iter().enumerate() {
                rows.put(row, metric, round, value);
            }
        }
        rows.finish(3);
        rows
    }

    fn judged(goal: Goal, metric: Metric, ours: &[f64], beside: &[f64]) -> Verdict {
        let target = Target::ratio("it", At::new("ours", metric), At::new("theirs", metric), goal);
        target.judge(&rows(&[("ours", metric, ours), ("theirs", metric, beside)]))
    }

    #[test]
    fn a_ratio_that_is_just_so_is_reached_and_one_below_is_not() {
        let verdict = judged(Goal::LeastTimes(0.95), GOODPUT, &[9.5, 9.4, 9.6], &[10.0, 10.0, 10.0]);
        assert_eq!((verdict.reached, verdict.outcome), (Some(true), Some(0.95)));
        assert_eq!(
            (&*verdict.goal, &*verdict.outcome_told(), verdict.reached_told()),
            ("≥ 0.95 ×", "0.95", "yes")
        );
        let verdict = judged(Goal::LeastTimes(0.95), GOODPUT, &[9.4; 3], &[10.0; 3]);
        assert_eq!(verdict.reached, Some(false));
    }

    #[test]
    fn less_is_better_where_the_target_says_so() {
        assert_eq!(judged(Goal::MostTimes(1.5), P99, &[15.0; 3], &[10.0; 3]).reached, Some(true));
        assert_eq!(judged(Goal::MostTimes(1.5), P99, &[15.1; 3], &[10.0; 3]).reached, Some(false));
        let beyond = judged(Goal::MostBeyond(30.0), COST, &[52.0; 3], &[20.0; 3]);
        assert_eq!(
            (beyond.reached, &*beyond.outcome_told(), &*beyond.goal),
            (Some(false), "32.0 ns more", "≤ 30.0 ns more")
        );
    }

    #[test]
    fn what_stands_for_itself_is_compared_with_nothing() {
        let target = Target::absolute("it", At::new("ours", COST), 500.0);
        let verdict = target.judge(&rows(&[("ours", COST, &[400.0, 500.0, 900.0])]));
        assert_eq!((verdict.reached, verdict.outcome, &*verdict.outcome_told()), (Some(true), None, "–"));
    }

    #[test]
    fn what_was_not_measured_is_neither_reached_nor_missed() {
        let verdict = judged(Goal::LeastTimes(1.0), GOODPUT, &[1.0], &[]);
        assert_eq!((verdict.reached, verdict.outcome, verdict.reached_told()), (None, None, "not measured"));
        assert_eq!(judged(Goal::MostTimes(1.0), GOODPUT, &[1.0], &[0.0]).reached, None);
    }
}
