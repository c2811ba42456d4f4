//! The most of lately.

/// The largest value of this period and the last one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RecentMax {
    present: u64,
    last: u64,
}

impl RecentMax {
    pub(super) fn update(&mut self, value: u64) {
        self.present = self.present.max(value);
    }

    /// A period begins, and what was before the last one is forgotten.
    pub(super) fn advance(&mut self) {
        self.last = core::mem::take(&mut self.present);
    }

    pub(super) fn get(self) -> u64 {
        self.present.max(self.last)
    }
}
