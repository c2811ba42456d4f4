//! When to look at which connection again: a hierarchical timing wheel.
//!
//! A connection keeps a table of its own timers and arms one entry here, for the earliest. Arming, moving and
//! cancelling an entry is O(1), and so is finding what is due, however many connections sleep.
//!
//! ```text
//! level 0   64 slots of one tick (about 1 ms)     ← an entry is here in the tick that it is due in
//! level 1   64 slots of 64 ticks (about 67 ms)    ← when its slot comes up, it moves to level 0
//! level 2   64 slots of 4096 ticks (about 4 s)      …
//! ```
//!
//! An entry that is due later than the last level reaches waits in that level's last slot and is looked at again.

use crate::time::Instant;

/// Nanoseconds in a tick, as a shift: 2^20 ns. Finer, and a timer costs more moves between levels; coarser,
/// and a delayed ACK (40 ms) or a minimum RTO (200 ms) is late by more than a few percent.
const TICK_SHIFT: u32 = 20;

const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;

/// Five levels reach 2^30 ticks, about 13 days: longer than any TCP timer, keep-alive included.
const LEVELS: usize = 5;

/// The end of a list.
const NIL: u32 = u32::MAX;

/// Marks an entry that is not armed.
const UNARMED: u16 = u16::MAX;

/// Deadlines by key. Keys are small numbers (indices of a slab): memory is proportional to the largest.
#[derive(Debug)]
pub(super) struct TimerWheel {
    /// The tick up to which everything has been handed out.
    now: u64,
    /// Heads of the slots' lists, level by level.
    heads: Box<[u32; LEVELS * SLOTS]>,
    /// A bit for each slot of a level that has entries.
    occupied: [u64; LEVELS],
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: u64,
    next: u32,
    previous: u32,
    slot: u16,
}

impl TimerWheel {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            now: now.as_nanos() >> TICK_SHIFT,
            heads: Box::new([NIL; LEVELS * SLOTS]),
            occupied: [0; LEVELS],
            entries: Vec::new(),
        }
    }

    /// Makes `key` due at `deadline`, instead of when it was due before. Never fires early; late by a tick at most.
    pub(super) fn arm(&mut self, key: usize, deadline: Instant) {
        let tick = deadline.as_nanos().div_ceil(1 << TICK_SHIFT);
        if key >= self.entries.len() {
            self.entries.resize(key + 1, Entry { deadline: 0, next: NIL, previous: NIL, slot: UNARMED });
        }
        if self.entries[key].slot != UNARMED {
            if self.entries[key].deadline == tick {
                return;
            }
            self.unlink(key as u32);
        }
        self.entries[key].deadline = tick;
        self.link(key as u32);
    }

    /// Makes `key` due at `deadline` at the latest: if it is due before, it stays so, and whoever looks then finds that it was too
    /// early.
    pub(super) fn arm_by(&mut self, key: usize, deadline: Instant) {
        let tick = deadline.as_nanos().div_ceil(1 << TICK_SHIFT);
        let is_soon_enough = |entry: &Entry| entry.slot != UNARMED && entry.deadline <= tick;
        if !self.entries.get(key).is_some_and(is_soon_enough) {
            self.arm(key, deadline);
        }
    }

    /// Has the CPU fetch what is known of `key`.
    pub(super) fn touch(&self, key: usize) {
        std::hint::black_box(self.entries.get(key).map_or(0, |entry| entry.deadline));
    }

    /// Forgets `key`'s deadline.
    pub(super) fn cancel(&mut self, key: usize) {
        if self.entries.get(key).is_some_and(|entry| entry.slot != UNARMED) {
            self.unlink(key as u32);
        }
    }

    /// Makes `key` due at `deadline`, or never.
    pub(super) fn set(&mut self, key: usize, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => self.arm(key, deadline),
            None => self.cancel(key),
        }
    }

    /// Takes out a key that is due at `now`, if there is one.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<usize> {
        let target = now.as_nanos() >> TICK_SHIFT;
        loop {
            // What is due in the current tick, or was due before it when it was armed.
            let head = self.heads[(self.now % SLOTS as u64) as usize];
            if head != NIL {
                self.unlink(head);
                return Some(head as usize);
            }
            let next = self.next_tick()?;
            if next > target {
                // Nothing happens before: entries armed from now on find their slots from here.
                self.now = self.now.max(target);
                return None;
            }
            self.now = next;
            self.cascade();
        }
    }

    /// When to call [`pop_due`](Self::pop_due) next. At that time a key is due, or moves closer to being due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let tick =
            if self.heads[(self.now % SLOTS as u64) as usize] != NIL { self.now } else { self.next_tick()? };
        Some(Instant::from_nanos(tick << TICK_SHIFT))
    }

    /// The next tick after `now` in which a slot that has entries comes up.
    fn next_tick(&self) -> Option<u64> {
        (0..LEVELS).filter_map(|level| self.next_tick_of(level)).min()
    }

    fn next_tick_of(&self, level: usize) -> Option<u64> {
        let shift = SLOT_BITS * level as u32;
        let current = self.now >> shift;
        // Bit 0 of the rotated set is the slot after the current one.
        let after = self.occupied[level].rotate_right((current % SLOTS as u64) as u32 + 1);
        (after != 0).then(|| (current + 1 + u64::from(after.trailing_zeros())) << shift)
    }

    /// Moves the entries of the higher levels' slots that have just come up to where they belong now.
    fn cascade(&mut self) {
        for level in 1..LEVELS {
            let shift = SLOT_BITS * level as u32;
            if self.now & ((1 << shift) - 1) != 0 {
                break;
            }
            let slot = level * SLOTS + ((self.now >> shift) % SLOTS as u64) as usize;
            let mut key = std::mem::replace(&mut self.heads[slot], NIL);
            self.occupied[level] &= !(1 << (slot % SLOTS));
            while key != NIL {
                let next = self.entries[key as usize].next;
                self.link(key);
                key = next;
            }
        }
    }

    /// The slot for a deadline: the lowest level whose reach, from the current slot on, includes it.
    fn slot_for(&self, deadline: u64) -> usize {
        let deadline = deadline.max(self.now);
        for level in 0..LEVELS {
            let shift = SLOT_BITS * level as u32;
            let ahead = (deadline >> shift) - (self.now >> shift);
            if ahead < SLOTS as u64 {
                return level * SLOTS + ((deadline >> shift) % SLOTS as u64) as usize;
            }
        }
        let shift = SLOT_BITS * (LEVELS as u32 - 1);
        let last = (self.now >> shift) + SLOTS as u64 - 1;
        (LEVELS - 1) * SLOTS + (last % SLOTS as u64) as usize
    }

    fn link(&mut self, key: u32) {
        let slot = self.slot_for(self.entries[key as usize].deadline);
        let head = std::mem::replace(&mut self.heads[slot], key);
        let entry = &mut self.entries[key as usize];
        (entry.slot, entry.previous, entry.next) = (slot as u16, NIL, head);
        if head != NIL {
            self.entries[head as usize].previous = key;
        }
        self.occupied[slot / SLOTS] |= 1 << (slot % SLOTS);
    }

    fn unlink(&mut self, key: u32) {
        let Entry { next, previous, slot, .. } = self.entries[key as usize];
        let slot = usize::from(slot);
        if next != NIL {
            self.entries[next as usize].previous = previous;
        }
        if previous != NIL {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[slot] = next;
            if next == NIL {
                self.occupied[slot / SLOTS] &= !(1 << (slot % SLOTS));
            }
        }
        self.entries[key as usize].slot = UNARMED;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::time::Duration;

    fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn fires_in_order_and_not_early() {
        let mut wheel = TimerWheel::new(ms(5));
        for (key, millis) in [(0, 40), (1, 200), (2, 5_000), (3, 7_200_000), (4, 6)] {
            wheel.arm(key, ms(millis));
        }
        let mut now = ms(5);
        let mut fired = Vec::new();
        while let Some(next) = wheel.poll_timeout() {
            now = now.max(next);
            while let Some(key) = wheel.pop_due(now) {
                fired.push((key, now.as_millis()));
            }
        }
        assert_eq!(fired.iter().map(|f| f.0).collect::<Vec<_>>(), [4, 0, 1, 2, 3]);
        for ((_, at), due) in fired.iter().zip([6, 40, 200, 5_000, 7_200_000]) {
            assert!((due..=due + 2).contains(at), "due at {due}, fired at {at}");
        }
    }

    #[test]
    fn a_key_has_one_deadline() {
        let mut wheel = TimerWheel::new(ms(0));
        wheel.arm(7, ms(1_000));
        wheel.arm(7, ms(10));
        assert_eq!(wheel.pop_due(ms(20)), Some(7));
        assert_eq!(wheel.pop_due(ms(2_000)), None);
        wheel.arm(7, ms(3_000));
        wheel.cancel(7);
        assert_eq!(wheel.poll_timeout(), None);
        wheel.cancel(8);
    }

    #[test]
    fn what_may_be_too_early_is_not_put_off() {
        let mut wheel = TimerWheel::new(ms(0));
        wheel.arm_by(3, ms(100));
        wheel.arm_by(3, ms(500));
        assert_eq!(wheel.pop_due(ms(102)), Some(3));
        wheel.arm_by(3, ms(500));
        wheel.arm_by(3, ms(300));
        assert_eq!(wheel.pop_due(ms(302)), Some(3));
        assert_eq!(wheel.poll_timeout(), None);
    }

    #[test]
    fn what_is_overdue_fires_at_once() {
        let mut wheel = TimerWheel::new(ms(100));
        wheel.arm(0, ms(3));
        assert_eq!(wheel.pop_due(ms(100)), Some(0));
    }

    #[test]
    fn a_deadline_beyond_the_last_level_is_not_lost() {
        let mut wheel = TimerWheel::new(ms(0));
        let far = ms(1_000 * 3600 * 24 * 40);
        wheel.arm(0, far);
        assert_eq!(wheel.pop_due(far + Duration::from_millis(2)), Some(0));
    }

    proptest! {
        /// Against a sorted map: the same keys come out, none early, none late by more than a tick.
        #[test]
        fn agrees_with_a_sorted_map(
            steps in proptest::collection::vec((0usize..20, 0u64..400_000, any::<bool>(), 0u64..100_000), 1..200),
        ) {
            let mut wheel = TimerWheel::new(Instant::ZERO);
            let mut model: BTreeMap<usize, u64> = BTreeMap::new();
            let mut now = 0;
            let tick = 1 << TICK_SHIFT;
            for (key, delay, cancel, step) in steps {
                if cancel {
                    wheel.cancel(key);
                    model.remove(&key);
                } else {
                    wheel.arm(key, Instant::from_micros(now + delay));
                    model.insert(key, now + delay);
                }
                now += step;
                while let Some(key) = wheel.pop_due(Instant::from_micros(now)) {
                    let due = model.remove(&key);
                    prop_assert!(due.is_some_and(|due| due <= now), "{key} fired at {now}, due {due:?}");
                }
                for (&key, &due) in &model {
                    prop_assert!(due * 1_000 + tick > now * 1_000, "{key} was due at {due}, now {now}");
                }
                let next = wheel.poll_timeout();
                prop_assert_eq!(next.is_none(), model.is_empty());
            }
        }
    }
}
