//! A limit on how often something happens, which lets short bursts pass.

use crate::{
    rng::Rng,
    time::{Duration, Instant},
};

/// Fills with time, empties with use.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    interval: Duration,
    burst: u32,
    tokens: u32,
    /// When the last token that is counted in `tokens` came.
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket of `burst` tokens, which gets one every `interval`.
    pub const fn new(interval: Duration, burst: u32) -> Self {
        Self { interval, burst, tokens: burst, filled: Instant::ZERO }
    }

    /// Takes `n` tokens, or none and returns `false` if there are fewer.
    pub fn take(&mut self, now: Instant, n: u32) -> bool {
        self.fill(now);
        match self.tokens.checked_sub(n) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, now: Instant) {
        let interval = self.interval.as_nanos().max(1);
        let came = u32::try_from((now - self.filled).as_nanos() / interval).unwrap_or(u32::MAX);
        if came >= self.burst - self.tokens {
            // Full: the time that overflowed counts for nothing.
            self.tokens = self.burst;
            self.filled = now;
        } else {
            self.tokens += came;
            self.filled += self.interval * came;
        }
    }
}

/// A limit that nobody can count on: what is let pass takes a random number of tokens.
///
/// With a fixed price, whoever counts the answers that he gets learns how many others got, whose answers he can't see, and so
/// what became of the frames that he forged.
#[derive(Debug)]
pub struct UncertainLimit {
    bucket: TokenBucket,
    /// What the next one takes.
    price: u32,
    max_price: u32,
    rng: Rng,
}

impl UncertainLimit {
    /// Each takes from one to `max_price` tokens of the bucket.
    pub fn new(bucket: TokenBucket, max_price: u32, rng: Rng) -> Self {
        Self { bucket, price: 1, max_price, rng }
    }

    /// Whether one more may pass; if so it is paid.
    pub fn take(&mut self, now: Instant) -> bool {
        let taken = self.bucket.take(now, self.price);
        if taken {
            // Drawn only once the last was paid: else a flood would just wait for the cheap ones.
            self.price = 1 + self.rng.below(self.max_price.into()) as u32;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = TokenBucket::new(Duration::from_millis(10), 5);
        let taken = |bucket: &mut TokenBucket, from: u64, to: u64| {
            (from..to).filter(|&ms| bucket.take(Instant::from_millis(ms), 1)).count()
        };
        assert_eq!(taken(&mut bucket, 1_000, 1_001) + taken(&mut bucket, 1_001, 1_004), 4);
        assert_eq!(taken(&mut bucket, 1_004, 2_004), 1 + 100);
        assert_eq!(taken(&mut bucket, 60_000, 60_009), 5, "it holds no more than the burst");
    }

    #[test]
    fn too_many_at_once_take_none() {
        let mut bucket = TokenBucket::new(Duration::from_millis(10), 5);
        assert!(!bucket.take(Instant::ZERO, 6));
        assert!(bucket.take(Instant::ZERO, 5));
        assert!(!bucket.take(Instant::ZERO, 1));
        assert!(bucket.take(Instant::from_millis(10), 1));
    }
}
