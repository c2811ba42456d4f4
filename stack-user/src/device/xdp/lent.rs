//! Which chunks the kernel has to receive into, so that it can't hand over others.
//!
//! The rings are shared memory, and what stands in them is a driver's word. One that processes a descriptor of the card's
//! ring twice (igb does in zero-copy, Linux 6.14 to 7.3, when the fill ring ran dry at the card ring's end) hands over a
//! chunk that has long been somebody else's. Believed, it would have two owners: data that waits to be read would be
//! received over, after its checksum was checked.

/// A bit for each chunk.
#[derive(Debug)]
pub(super) struct Lent(Box<[u64]>);

impl Lent {
    pub(super) fn new(chunks: usize) -> Self {
        Self(vec![0; chunks.div_ceil(64)].into_boxed_slice())
    }

    /// The kernel gets a chunk.
    pub(super) fn lend(&mut self, chunk: u32) {
        if let Some((word, bit)) = self.bit(chunk) {
            *word |= bit;
        }
    }

    /// The kernel gives a chunk back. False if it did not have that.
    #[must_use]
    pub(super) fn take_back(&mut self, chunk: u32) -> bool {
        self.bit(chunk).is_some_and(|(word, bit)| {
            let was_lent = *word & bit != 0;
            *word &= !bit;
            was_lent
        })
    }

    fn bit(&mut self, chunk: u32) -> Option<(&mut u64, u64)> {
        self.0.get_mut(chunk as usize / 64).map(|word| (word, 1 << (chunk % 64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_comes_back_once_and_only_if_it_was_lent() {
        let mut lent = Lent::new(100);
        for chunk in [0, 63, 64, 99] {
            assert!(!lent.take_back(chunk));
            lent.lend(chunk);
            assert!(!lent.take_back(chunk ^ 1), "another one");
            assert!(lent.take_back(chunk));
            assert!(!lent.take_back(chunk), "twice");
        }
        assert!(!lent.take_back(u32::MAX), "there is none");
    }
}
