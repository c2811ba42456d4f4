//! What is measured, in which unit, and how a person reads it.

use serde::{Deserialize, Serialize};

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Unit {
    BitsPerSecond,
    PerSecond,
    Nanoseconds,
    Bytes,
    /// Instructions, connections: what has no unit of its own.
    Count,
}

impl Unit {
    /// A value with its unit, in three digits.
    pub(super) fn show(self, value: f64) -> String {
        // From which value on, in how much, called what.
        type Scale = (f64, f64, &'static str);
        let (scales, unit): (&[Scale], _) = match self {
            Self::BitsPerSecond => {
                (&[(1e9, 1e9, "Gbit/s"), (1e6, 1e6, "Mbit/s"), (1e3, 1e3, "kbit/s")], "bit/s")
            }
            Self::PerSecond => (&[(1e6, 1e6, "M/s"), (1e3, 1e3, "k/s")], "/s"),
            Self::Nanoseconds => (&[(1e9, 1e9, "s"), (1e6, 1e6, "ms"), (1e3, 1e3, "µs")], "ns"),
            // Some thousands are told one by one: a connection takes as many.
            Self::Bytes => (&[(1e9, 1e9, "GB"), (1e6, 1e6, "MB"), (1e4, 1e3, "kB")], "B"),
            Self::Count => (&[], ""),
        };
        let scale = scales.iter().find(|(from, ..)| value.abs() >= *from);
        let (factor, unit) = scale.map_or((1.0, unit), |&(_, factor, unit)| (factor, unit));
        format!("{} {unit}", digits(value / factor)).trim_end().to_owned()
    }
}

/// A number in three significant digits, or all of them before the point.
pub(super) fn digits(value: f64) -> String {
    // What rounds up to the next power of ten is told as that.
    match value.abs() {
        small if small == 0.0 || small >= 99.95 => format!("{value:.0}"),
        middle if middle >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One thing that a run tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) unit: Unit,
}

impl Metric {
    const fn new(name: &'static str, unit: Unit) -> Self {
        Self { name, unit }
    }
}

/// Payload of TCP, or of what stands for it, that came to the receiver.
pub(super) const GOODPUT: Metric = Metric::new("goodput", Unit::BitsPerSecond);
/// Requests that were answered.
pub(super) const RATE: Metric = Metric::new("rate", Unit::PerSecond);
/// The time that half of the answers took at most.
pub(super) const P50: Metric = Metric::new("p50", Unit::Nanoseconds);
/// The time that 99 of a hundred answers took at most.
pub(super) const P99: Metric = Metric::new("p99", Unit::Nanoseconds);
/// The time of one, be it a segment or a frame.
pub(super) const COST: Metric = Metric::new("cost", Unit::Nanoseconds);
/// From the start of a program to the first byte that it prints.
pub(super) const FIRST_BYTE: Metric = Metric::new("first byte", Unit::Nanoseconds);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_in_three_digits_and_a_fitting_unit() {
        for (unit, value, expected) in [
            (Unit::BitsPerSecond, 12_840_000_000.0, "12.8 Gbit/s"),
            (Unit::BitsPerSecond, 97_350_000.0, "97.3 Mbit/s"),
            (Unit::PerSecond, 129_400.0, "129 k/s"),
            (Unit::Nanoseconds, 3_412.0, "3.41 µs"),
            (Unit::Nanoseconds, 21.0, "21.0 ns"),
            (Unit::Nanoseconds, 481_000_000.0, "481 ms"),
            (Unit::Bytes, 509.0, "509 B"),
            (Unit::Bytes, 4_300.0, "4300 B"),
            (Unit::Bytes, 43_000.0, "43.0 kB"),
            (Unit::Count, 1_987.0, "1987"),
            (Unit::Nanoseconds, 0.0, "0 ns"),
        ] {
            assert_eq!(unit.show(value), expected);
        }
    }

    #[test]
    fn what_rounds_up_gets_no_digit_more() {
        assert_eq!(digits(9.996), "10.0");
        assert_eq!(digits(99.96), "100");
        assert_eq!(digits(0.949), "0.95");
    }
}
