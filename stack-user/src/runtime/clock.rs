//! The only real clock.

use crate::time::Instant;

/// The machine's monotonic clock, counted from when it was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn new() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// A time of this clock as tokio's timers want it.
    pub fn to_tokio(self, instant: Instant) -> tokio::time::Instant {
        let origin = tokio::time::Instant::from_std(self.origin);
        let duration = std::time::Duration::from_nanos(instant.as_nanos());
        // A time too far off to be represented is as good as a day away.
        origin.checked_add(duration).unwrap_or_else(|| origin + std::time::Duration::from_secs(86_400))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
