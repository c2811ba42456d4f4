//! How many descriptors the rings have: `--ring-size`.

use std::{fmt, str::FromStr};

/// Descriptors in each ring of a queue: a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSize(u32);

impl RingSize {
    /// The smallest. Lower, and a ring holds less than the burst that is taken from it at once.
    pub const MIN: Self = Self(64);

    /// The largest. Higher, and a queue's memory could not fill the ring and still have as much left to send from.
    pub const MAX: Self = Self(2048);

    /// The ring of so many descriptors.
    ///
    /// # Errors
    /// When it is no power of two, or out of range.
    pub fn new(descriptors: u32) -> Result<Self, RingSizeError> {
        let is_one = descriptors.is_power_of_two() && (Self::MIN.0..=Self::MAX.0).contains(&descriptors);
        is_one.then_some(Self(descriptors)).ok_or_else(|| RingSizeError(descriptors.to_string()))
    }

    /// How many descriptors.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl Default for RingSize {
    fn default() -> Self {
        Self(super::RING_SIZE)
    }
}

impl fmt::Display for RingSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RingSize {
    type Err = RingSizeError;

    fn from_str(text: &str) -> Result<Self, RingSizeError> {
        text.parse().map_err(|_| RingSizeError(text.to_owned())).and_then(Self::new)
    }
}

/// No ring has this size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a ring can't have {0} descriptors: use a power of two from {min} to {max}", min = RingSize::MIN, max = RingSize::MAX
)]
pub struct RingSizeError(String);

#[cfg(test)]
mod tests {
    use super::super::{CHUNKS_PER_QUEUE, RING_SIZE};
    use super::*;
    use crate::device::BURST;

    #[test]
    fn powers_of_two_that_the_memory_is_enough_for_are_ring_sizes() {
        for good in ["64", "128", "1024", "2048"] {
            assert_eq!(good.parse::<RingSize>().expect("a size").to_string(), good);
        }
        for bad in ["", "0", "-64", "32", "63", "100", "4096", "64k", "99999999999"] {
            let error = bad.parse::<RingSize>().expect_err(bad).to_string();
            assert!(error.contains("from 64 to 2048") && error.contains(bad), "{error}");
        }
        assert_eq!(RingSize::default().get(), RING_SIZE);
        assert!(RingSize::MIN.get() as usize >= BURST && RingSize::MAX.get() * 2 <= CHUNKS_PER_QUEUE);
    }
}
