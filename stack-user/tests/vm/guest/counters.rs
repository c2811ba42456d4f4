//! Counters: the driver's, and what xstack says of its own.

use std::collections::BTreeMap;

use super::{Guest, NIC};

/// Counters by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counters(BTreeMap<String, u64>);

impl Counters {
    /// The one of that name; none is zero.
    pub(crate) fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// The sum of all whose names are so.
    pub(crate) fn sum(&self, is_meant: impl Fn(&str) -> bool) -> u64 {
        self.0.iter().filter(|(name, _)| is_meant(name)).map(|(_, count)| count).sum()
    }

    /// What was counted since.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let differences = self.0.iter().map(|(name, count)| (name.clone(), count - earlier.get(name)));
        Self(differences.collect())
    }
}

impl Guest {
    /// What `ethtool -S` has of the card under test.
    #[track_caller]
    pub(crate) fn driver_counters(&self) -> Counters {
        let printed = self.ethtool(&format!("-S {NIC}"));
        let counters = printed.lines().filter_map(|line| {
            let (name, count) = line.trim().rsplit_once(": ")?;
            Some((name.to_owned(), count.trim().parse().ok()?))
        });
        Counters(counters.collect())
    }
}

/// What `-v` says at the end of each queue: `* device: rx_frames 7, tx_frames 9`.
pub(crate) fn of_queues(stderr: &str) -> Vec<Counters> {
    let lines = stderr.lines().filter_map(|line| line.strip_prefix("* device: "));
    let of_queue = |line: &str| {
        let counters = line.split(", ").filter_map(|counter| {
            let (name, count) = counter.rsplit_once(' ')?;
            Some((name.to_owned(), count.parse().ok()?))
        });
        Counters(counters.collect())
    };
    lines.map(of_queue).collect()
}
