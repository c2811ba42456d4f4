//! Numbers from a seed, in the distributions that scenarios are drawn from.

use stack_user::{rng::Rng, time::Duration};

/// What a scenario draws.
pub(crate) trait Draw {
    /// A number in `low..=high`.
    fn between(&mut self, low: u64, high: u64) -> u64;

    /// A number in `low..=high` whose order of magnitude is uniform: small ones are as likely as large ones.
    fn magnitude(&mut self, low: u64, high: u64) -> u64;

    /// A probability in `low..=high`, likewise.
    fn rate(&mut self, low: f64, high: f64) -> f64;

    /// A time in `low..=high` milliseconds, likewise.
    fn millis(&mut self, low: u64, high: u64) -> Duration;

    /// One of them.
    fn pick<T: Copy>(&mut self, of: &[T]) -> T;
}

impl Draw for Rng {
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    fn magnitude(&mut self, low: u64, high: u64) -> u64 {
        // By bits and not by logarithm, which could differ from machine to machine in its last digit.
        let (from, to) = (u64::BITS - low.leading_zeros(), u64::BITS - high.leading_zeros());
        let bits = self.between(from.into(), to.into()) as u32;
        let least = if bits == 0 { 0 } else { 1 << (bits - 1) };
        let most = if bits == 0 { 0 } else { least * 2 - 1 };
        self.between(low.max(least), high.min(most))
    }

    fn rate(&mut self, low: f64, high: f64) -> f64 {
        const PARTS: f64 = 1e6;
        self.magnitude((low * PARTS) as u64, (high * PARTS) as u64) as f64 / PARTS
    }

    fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.magnitude(low * 1_000, high * 1_000))
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// A hash of what happened, to compare two runs by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(u64);

impl Digest {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29);
    }

    pub(crate) fn add_bytes(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            self.add(u64::from_le_bytes(padded));
        }
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

/// Fills `out` with the bytes that a stream has at `offset`: every stream has its own, and every place.
pub(crate) fn stream_bytes(key: u64, offset: u64, out: &mut [u8]) {
    let mut done = 0;
    while done < out.len() {
        let at = offset + done as u64;
        let word = mix(key ^ (at / 8)).to_le_bytes();
        let from = (at % 8) as usize;
        let n = (8 - from).min(out.len() - done);
        out[done..done + n].copy_from_slice(&word[from..from + n]);
        done += n;
    }
}

/// A permutation of the 64-bit words that looks like chance (the finaliser of MurmurHash3).
pub(crate) fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let word = (word ^ (word >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}
