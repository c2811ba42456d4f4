//! How long transactions took: a histogram, and what is told of it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is told from longer ones: an hour. A run in which a transaction takes longer shows an hour.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Digits that are kept of a time: a part in a thousand. Each more costs ten times the memory, and with it the cache.
const DIGITS: u8 = 3;

/// Times of transactions.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

/// What is told of them, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) min: u64,
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
    pub(super) max: u64,
    pub(super) mean: f64,
}

impl Latencies {
    /// None yet.
    pub(super) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS);
        // The bounds are constants, and such that they make sense.
        Self(histogram.unwrap_or_else(|error| unreachable!("{error}")))
    }

    /// One more.
    pub(super) fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// All of the other's, too, which then has none.
    pub(super) fn take(&mut self, other: &mut Self) {
        // Both have the same bounds.
        if let Err(error) = self.0.add(&other.0) {
            unreachable!("{error}");
        }
        other.0.reset();
    }

    /// How many.
    pub(super) fn count(&self) -> u64 {
        self.0.len()
    }

    /// All zero if there are none.
    pub(super) fn summary(&self) -> Summary {
        let at = |quantile| if self.0.is_empty() { 0 } else { self.0.value_at_quantile(quantile) };
        Summary {
            min: self.0.min(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max(),
            mean: self.0.mean().round(),
        }
    }
}

/// A time as a reader wants it: three digits and a unit.
pub(super) fn told(nanoseconds: u64) -> String {
    let (value, unit) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds} ns"),
        1_000..1_000_000 => (nanoseconds as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanoseconds as f64 / 1e6, "ms"),
        _ => (nanoseconds as f64 / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded_within_a_part_in_a_thousand() {
        let mut latencies = Latencies::new();
        (1..=10_000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        let Summary { min, p50, p90, p99, p999, max, mean } = latencies.summary();
        let expected =
            [1_000, 5_000_000, 9_000_000, 9_900_000, 9_990_000, 10_000_000, 5_000_500].map(|ns| ns as f64);
        let got = [min, p50, p90, p99, p999, max, mean as u64].map(|ns| ns as f64);
        for (got, expected) in got.iter().zip(expected) {
            assert!((got / expected - 1.0).abs() < 0.001, "{got} is not {expected}");
        }
        assert_eq!(latencies.count(), 10_000);
    }

    #[test]
    fn nothing_is_all_zero_and_a_year_is_an_hour() {
        let mut latencies = Latencies::new();
        let Summary { p50, p999, max, mean, .. } = latencies.summary();
        assert_eq!((p50, p999, max, mean), (0, 0, 0, 0.0));
        latencies.record(Duration::from_secs(365 * 24 * 3_600));
        let shown = latencies.summary().max as f64 / LONGEST.as_nanos() as f64;
        assert!((shown - 1.0).abs() < 0.001, "{shown}");
    }

    #[test]
    fn what_is_taken_is_there_once() {
        let (mut all, mut some) = (Latencies::new(), Latencies::new());
        for _ in 0..3 {
            some.record(Duration::from_micros(7));
            all.take(&mut some);
        }
        assert_eq!((all.count(), some.count()), (3, 0));
    }

    #[test]
    fn times_have_three_digits_and_a_unit() {
        for (nanoseconds, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (3_415, "3.42 µs"),
            (34_150, "34.1 µs"),
            (341_500, "342 µs"),
            (12_000_000, "12.0 ms"),
            (1_500_000_000, "1.50 s"),
        ] {
            assert_eq!(told(nanoseconds), text);
        }
    }
}
