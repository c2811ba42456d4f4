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

/// What `-v` tells.
#[derive(Debug)]
pub(crate) struct Story(pub(crate) String);

impl Story {
    /// The counters of each queue's device, as it stops: `* device: rx_frames 7, tx_frames 9`.
    pub(crate) fn devices(&self) -> Vec<Counters> {
        let lines = self.0.lines().filter_map(|line| line.strip_prefix("* device: "));
        let of_queue = |line: &str| {
            let counters = line.split(", ").filter_map(|counter| {
                let (name, count) = counter.rsplit_once(' ')?;
                Some((name.to_owned(), count.parse().ok()?))
            });
            Counters(counters.collect())
        };
        lines.map(of_queue).collect()
    }

    /// How its sockets are bound, as the kernel says: `zero-copy, queues 0,1`.
    #[track_caller]
    pub(crate) fn bound(&self) -> &str {
        let start = format!("* AF_XDP sockets bound to {NIC}: ");
        let bound = self.0.lines().find_map(|line| line.strip_prefix(&start));
        bound.unwrap_or_else(|| panic!("it does not tell how it is bound: {}", self.0))
    }

    /// Fails unless every chunk is free or with the device at the end, and the kernel found every descriptor in order.
    #[track_caller]
    pub(crate) fn assert_frames_conserved(&self) {
        let lines: Vec<_> = self.0.lines().filter(|line| line.starts_with("* frames: ")).collect();
        assert!(!lines.is_empty(), "it does not tell where its frames are: {}", self.0);
        for line in lines {
            assert!(line.ends_with(", 0 in use"), "frames are lost, or counted twice: {line}; {}", self.0);
        }
        for device in self.devices() {
            for name in ["rx_invalid_descs", "tx_invalid_descs"] {
                assert_eq!(device.get(name), 0, "{name}: {device:?}");
            }
        }
    }
}
