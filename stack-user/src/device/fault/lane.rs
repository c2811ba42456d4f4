//! One direction of a bad network: what is decided for a frame, and the frames that it holds back.

use std::collections::VecDeque;

use super::{DEFAULT_QUEUE, Faults};
use crate::{
    rng::Rng,
    time::{Duration, Instant},
};

/// Frames that pass one that is held back, at most.
///
/// Lower than 3, and no receiver takes a reordering for a loss (RFC 5681 §3.2); higher, and most reorderings end by
/// [`HOLD_MAX`] instead.
const PASSED_BY_MAX: u64 = 8;

/// How long a frame is held back if none passes it.
///
/// Lower, and frames of a slow sender are never reordered; higher, and the last frame of a transfer looks lost: the
/// least RTO of common stacks is 200 ms.
const HOLD_MAX: Duration = Duration::from_millis(10);

/// How often each fault happened.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counters {
    pub(super) lost: u64,
    pub(super) corrupted: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
    pub(super) delayed: u64,
    pub(super) crowded_out: u64,
    pub(super) queue_full: u64,
}

/// One direction. A frame that is not lost goes through the delay, then past those that are held back, then waits in
/// `ready`.
#[derive(Debug)]
pub(super) struct Lane<F> {
    faults: Faults,
    rng: Rng,
    /// Draws for what a delay lets through. With one source, the time that a delay ends at would decide which draw is
    /// whose, and the same frames would meet another fate on a faster machine.
    order_rng: Rng,
    /// On their way, the one that arrives first in front: all take equally long.
    delayed: VecDeque<(Instant, F)>,
    held_back: VecDeque<HeldBack<F>>,
    /// When the link will have sent what it was given.
    link_free_at: Instant,
    /// The last frame was lost in a burst that may go on.
    in_burst: bool,
    /// Through with it all.
    pub(super) ready: VecDeque<F>,
    pub(super) counters: Counters,
}

#[derive(Debug)]
struct HeldBack<F> {
    frame: F,
    /// Frames that have yet to pass it.
    to_pass: u64,
    until: Instant,
}

impl<F> Lane<F> {
    pub(super) fn new(faults: Faults, mut rng: Rng) -> Self {
        Self {
            faults,
            order_rng: rng.fork(),
            rng,
            delayed: VecDeque::new(),
            held_back: VecDeque::new(),
            link_free_at: Instant::ZERO,
            in_burst: false,
            ready: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Frames in the lane.
    pub(super) fn len(&self) -> usize {
        self.delayed.len() + self.held_back.len() + self.ready.len()
    }

    /// Whether the next frame is lost.
    pub(super) fn is_lost(&mut self) -> bool {
        let Faults { loss, burst, .. } = self.faults;
        let is_lost = if burst <= 1.0 || loss >= 1.0 {
            self.rng.chance(loss)
        } else {
            // Two states, good and bad (E. N. Gilbert, 1960). They change so that a burst has `burst` frames on average,
            // and `loss` of all frames fall into one.
            let leave = 1.0 / burst;
            let enter = leave * loss / (1.0 - loss);
            self.in_burst = self.rng.chance(if self.in_burst { 1.0 - leave } else { enter });
            self.in_burst
        };
        self.counters.lost += u64::from(is_lost);
        is_lost
    }

    /// Whether the lane holds `max` frames already, so that the next one is lost for want of room.
    pub(super) fn is_crowded(&mut self, max: usize) -> bool {
        let is_crowded = self.len() >= max;
        self.counters.crowded_out += u64::from(is_crowded);
        is_crowded
    }

    /// The bit to flip in a frame of `len` bytes, of which the first `spared` are left alone.
    pub(super) fn damaged_bit(&mut self, spared: usize, len: usize) -> Option<usize> {
        if !self.rng.chance(self.faults.corrupt) || len <= spared {
            return None;
        }
        self.counters.corrupted += 1;
        Some(8 * spared + self.rng.below(8 * (len - spared) as u64) as usize)
    }

    /// Whether the next frame comes twice, if there is a chunk for the second.
    pub(super) fn is_doubled(&mut self) -> bool {
        self.rng.chance(self.faults.dup)
    }

    /// There was.
    pub(super) fn count_double(&mut self) {
        self.counters.duplicated += 1;
    }

    /// Puts a frame of `len` bytes in, or gives it back if the link's queue is full: then it is lost.
    pub(super) fn push(&mut self, now: Instant, len: usize, frame: F) -> Result<(), F> {
        let Some(sent_at) = self.send_over_link(now, len) else {
            self.counters.queue_full += 1;
            return Err(frame);
        };
        let due = sent_at + self.faults.delay;
        if due <= now {
            self.pass(now, frame);
        } else {
            self.counters.delayed += 1;
            self.delayed.push_back((due, frame));
        }
        Ok(())
    }

    /// When the last bit of a frame of `len` bytes is on the link, or `None` if its queue has no room.
    fn send_over_link(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let Faults { rate, queue, .. } = self.faults;
        if rate == 0 {
            return Some(now);
        }
        let queue = if queue == 0 { DEFAULT_QUEUE } else { queue };
        let time_of = |bytes: u64| {
            let nanos = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate);
            Duration::from_nanos(nanos.try_into().unwrap_or(u64::MAX))
        };
        let starts = self.link_free_at.max(now);
        if starts.since(now) + time_of(len as u64) > time_of(queue) {
            return None;
        }
        self.link_free_at = starts + time_of(len as u64);
        Some(self.link_free_at)
    }

    /// Moves to `ready` what has waited long enough.
    pub(super) fn release(&mut self, now: Instant) {
        while let Some((_, frame)) = self.delayed.pop_front_if(|(due, _)| *due <= now) {
            self.pass(now, frame);
        }
        self.release_held_back(|held| held.until <= now);
    }

    /// When there will be something to release.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let arrives = self.delayed.front().map(|(due, _)| *due);
        let comes_late = self.held_back.iter().map(|held| held.until).min();
        arrives.into_iter().chain(comes_late).min()
    }

    fn pass(&mut self, now: Instant, frame: F) {
        if self.order_rng.chance(self.faults.reorder) {
            self.counters.reordered += 1;
            let to_pass = 1 + self.order_rng.below(PASSED_BY_MAX);
            self.held_back.push_back(HeldBack { frame, to_pass, until: now + HOLD_MAX });
            return;
        }
        self.ready.push_back(frame);
        self.held_back.iter_mut().for_each(|held| held.to_pass -= 1);
        self.release_held_back(|held| held.to_pass == 0);
    }

    fn release_held_back(&mut self, may_go: impl Fn(&HeldBack<F>) -> bool) {
        for _ in 0..self.held_back.len() {
            match self.held_back.pop_front() {
                Some(held) if may_go(&held) => self.ready.push_back(held.frame),
                Some(held) => self.held_back.push_back(held),
                None => return,
            }
        }
    }
}
