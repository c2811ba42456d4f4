//! A rate that is kept on average: whoever is behind sends until they are not, and then sleeps.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Says when the next block may go. As iperf3's, it goes by what has been sent since the start, so that a timer which is late
/// costs nothing in the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    start: Instant,
    /// Never 0.
    bits_per_second: u64,
}

impl Pace {
    /// None if there is no limit.
    pub(super) fn new(start: Instant, bits_per_second: u64) -> Option<Self> {
        (bits_per_second > 0).then_some(Self { start, bits_per_second })
    }

    /// Returns when the average is not above the rate, with `sent` bytes sent so far.
    pub(super) async fn ready(&self, sent: u64) {
        let due = self.due(sent);
        if due > Instant::now() {
            sleep_until(due).await;
        }
    }

    fn due(&self, sent: u64) -> Instant {
        let nanos = u128::from(sent) * 8 * 1_000_000_000 / u128::from(self.bits_per_second);
        // Whoever has a bit per second may have to wait for longer than time can be told: a century is as good.
        let after = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).min(CENTURY);
        self.start + after
    }
}

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_on_average_though_a_timer_is_late() {
        let start = Instant::now();
        let pace = Pace::new(start, 8_000_000).expect("a rate");
        let mut sent = 0;
        while sent < 1_000_000 {
            pace.ready(sent).await;
            sent += 10_000;
            if sent == 500_000 {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        }
        assert_eq!(start.elapsed().as_millis(), 990);
    }

    #[tokio::test(start_paused = true)]
    async fn no_rate_is_no_limit_and_any_rate_has_a_time() {
        let start = Instant::now();
        assert!(Pace::new(start, 0).is_none());
        let slow = Pace::new(start, 1).expect("a rate");
        assert_eq!(slow.due(u64::MAX), start + CENTURY);
        assert_eq!(slow.due(1), start + Duration::from_secs(8));
    }
}
