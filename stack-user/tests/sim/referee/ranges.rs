//! A set of places in a stream, as ranges that neither overlap nor touch.

use std::ops::Range;

/// Ranges in ascending order.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(Vec<Range<i64>>);

impl Ranges {
    /// Adds a range; one without anything in it changes nothing.
    pub(super) fn insert(&mut self, range: Range<i64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|held| held.end < range.start);
        let last = self.0.partition_point(|held| held.start <= range.end);
        let start = self.0[first..last].first().map_or(range.start, |held| held.start.min(range.start));
        let end = self.0[first..last].last().map_or(range.end, |held| held.end.max(range.end));
        self.0.splice(first..last, std::iter::once(start..end));
    }

    /// Whether all of a range is in the set.
    pub(super) fn covers(&self, range: &Range<i64>) -> bool {
        let at = self.0.partition_point(|held| held.start <= range.start);
        range.is_empty() || at > 0 && range.end <= self.0[at - 1].end
    }

    /// What of a range is in the set.
    pub(super) fn within(&self, range: Range<i64>) -> impl Iterator<Item = Range<i64>> + '_ {
        let first = self.0.partition_point(|held| held.end <= range.start);
        let touched = self.0[first..].iter().take_while(move |held| held.start < range.end);
        touched.map(move |held| held.start.max(range.start)..held.end.min(range.end))
    }

    /// Where the gap begins that is the first at or after `at`.
    pub(super) fn gap_after(&self, at: i64) -> i64 {
        let behind = self.0.partition_point(|held| held.start <= at);
        self.0[..behind].last().map_or(at, |held| held.end.max(at))
    }

    /// Whether there is anything at or behind `at`.
    pub(super) fn reaches_beyond(&self, at: i64) -> bool {
        self.0.last().is_some_and(|held| held.end > at)
    }
}
