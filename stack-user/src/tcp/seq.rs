//! Sequence numbers: 32 bits that wrap (RFC 9293 §3.4).

use core::{
    fmt,
    ops::{Add, AddAssign, Sub},
};

/// A sequence number. Two of them compare by which comes first on the circle, which is only meaningful within
/// half of it: the window never is that large (RFC 7323 §2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNumber(pub u32);

impl SeqNumber {
    /// The signed distance from `other` to here.
    pub const fn distance(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }

    /// Whether this number comes before `other`.
    pub const fn before(self, other: Self) -> bool {
        self.distance(other) < 0
    }

    /// Whether this number comes after `other`.
    pub const fn after(self, other: Self) -> bool {
        self.distance(other) > 0
    }

    /// Whether this number is `other` or comes before it.
    pub const fn at_or_before(self, other: Self) -> bool {
        self.distance(other) <= 0
    }

    /// Whether this number is `other` or comes after it.
    pub const fn at_or_after(self, other: Self) -> bool {
        self.distance(other) >= 0
    }

    /// The later of two.
    #[must_use]
    pub const fn max(self, other: Self) -> Self {
        if self.after(other) { self } else { other }
    }
}

impl Add<usize> for SeqNumber {
    type Output = Self;

    fn add(self, n: usize) -> Self {
        Self(self.0.wrapping_add(n as u32))
    }
}

impl AddAssign<usize> for SeqNumber {
    fn add_assign(&mut self, n: usize) {
        *self = *self + n;
    }
}

impl Sub<usize> for SeqNumber {
    type Output = Self;

    fn sub(self, n: usize) -> Self {
        Self(self.0.wrapping_sub(n as u32))
    }
}

impl Sub for SeqNumber {
    type Output = usize;

    /// Bytes from `earlier` to here; zero when `earlier` comes later.
    fn sub(self, earlier: Self) -> usize {
        usize::try_from(self.distance(earlier)).unwrap_or(0)
    }
}

impl fmt::Debug for SeqNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_survives_the_wrap() {
        let (a, b) = (SeqNumber(u32::MAX - 1), SeqNumber(3));
        assert!(a.before(b) && b.after(a) && !b.before(a));
        assert_eq!(b - a, 5);
        assert_eq!(a - b, 0, "a later number is no distance away");
        assert_eq!(a + 5, b);
        assert_eq!(b - 5usize, a);
        assert_eq!(a.max(b), b);
        assert!(a.at_or_before(a) && a.at_or_after(a));
    }
}
