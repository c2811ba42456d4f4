//! An input read as a sequence of choices.

use std::sync::OnceLock;

/// What is left of an input. Reading beyond its end gives zeros, so a target stops when it [is empty](Self::is_empty).
///
/// Choices take whole bytes from the front, in order: what a mutation changes stays near to where it was made, and a
/// kept input means the same as long as its target's choices do.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    /// A number in `0..bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let number = if bound <= 1 << 8 { usize::from(self.byte()) } else { usize::from(self.u16()) };
        number % bound.max(1)
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// Up to `n` bytes as they are.
    pub(crate) fn bytes(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Bytes that differ from place to place in a stream, so that one that got lost or moved is seen.
pub(crate) fn pattern(offset: u32, len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|i| (u64::from(offset.wrapping_add(i)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect()
}

/// Says what the input does next, if somebody wants to know.
pub(crate) fn tell(what: impl FnOnce() -> String) {
    static WANTED: OnceLock<bool> = OnceLock::new();
    if *WANTED.get_or_init(|| std::env::var_os("XSTACK_FUZZ_TELL").is_some()) {
        eprintln!("{}", what());
    }
}
