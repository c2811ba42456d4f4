//! The only real clock.

use crate::time::{Duration, Instant};

/// The machine's monotonic clock, counted from when it was made, or from where an [earlier life](super::Life) left it.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
    at_origin: Duration,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn new() -> Self {
        Self::starting_at(Instant::ZERO)
    }

    /// A clock that shows `time` now.
    pub fn starting_at(time: Instant) -> Self {
        Self { origin: std::time::Instant::now(), at_origin: time - Instant::ZERO }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.at_origin + self.origin.elapsed()
    }

    /// A time of this clock as tokio's timers want it.
    pub fn to_tokio(self, instant: Instant) -> tokio::time::Instant {
        let origin = tokio::time::Instant::from_std(self.origin);
        let duration = (instant - Instant::ZERO).saturating_sub(self.at_origin);
        // A time too far off to be represented is as good as a day away.
        origin.checked_add(duration).unwrap_or_else(|| origin + Duration::from_secs(86_400))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
