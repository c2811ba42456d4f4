//! What several runs come to. On a machine that is shared, one run in five is an accident: the median is what is told, and the
//! smallest and the largest value beside it.

use serde::{Deserialize, Serialize};

use super::metric::Unit;

/// One metric of one row, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) unit: Unit,
    /// By round; none for a run that failed.
    pub(super) values: Vec<Option<f64>>,
    /// None if no run succeeded.
    pub(super) summary: Option<Summary>,
}

/// A series in three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Summary {
    pub(super) median: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Series {
    pub(super) fn new(unit: Unit, values: Vec<Option<f64>>) -> Self {
        let summary = Summary::of(values.iter().copied().flatten());
        Self { unit, values, summary }
    }

    /// `self` over `other`, round by round. What disturbs the machine for a while disturbs both of a round, so that these differ
    /// less than the series themselves.
    pub(super) fn ratios(&self, other: &Self) -> Option<Summary> {
        let both = self.values.iter().zip(&other.values);
        Summary::of(both.filter_map(|(&one, &other)| Some(one? / other.filter(|other| *other != 0.0)?)))
    }
}

impl Summary {
    /// None of nothing. What is no number is left out.
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<_> = values.filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (upper, lower) = (values.len() / 2, (values.len() - 1) / 2);
        Some(Self { median: (values[lower] + values[upper]) / 2.0, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(values: &[f64]) -> (f64, f64, f64) {
        let Summary { median, min, max } = Summary::of(values.iter().copied()).unwrap();
        (median, min, max)
    }

    #[test]
    fn the_median_is_the_middle_one_or_between_the_middle_two() {
        assert_eq!(summary(&[7.0]), (7.0, 7.0, 7.0));
        assert_eq!(summary(&[9.0, 1.0, 5.0]), (5.0, 1.0, 9.0));
        assert_eq!(summary(&[4.0, 1.0, 2.0, 100.0]), (3.0, 1.0, 100.0));
    }

    #[test]
    fn nothing_has_no_median_and_what_is_no_number_is_no_value() {
        assert_eq!(Summary::of([].into_iter()), None);
        assert_eq!(Summary::of([f64::NAN].into_iter()), None);
        assert_eq!(summary(&[f64::INFINITY, 2.0]), (2.0, 2.0, 2.0));
    }

    #[test]
    fn rounds_are_compared_with_themselves_and_failed_ones_with_nothing() {
        let series = |values: &[Option<f64>]| Series::new(Unit::PerSecond, values.to_vec());
        let ours = series(&[Some(2.0), None, Some(30.0), Some(8.0)]);
        let beside = series(&[Some(1.0), Some(5.0), Some(10.0), Some(0.0)]);
        assert_eq!(ours.ratios(&beside), Some(Summary { median: 2.5, min: 2.0, max: 3.0 }));
        assert_eq!(series(&[None]).ratios(&beside), None);
        assert_eq!(ours.summary.unwrap().median, 8.0);
    }
}
