//! Duplicate SACK (RFC 2883): the peer tells what came twice.

use core::ops::Range;

/// The range that came twice, if the blocks of an ACK tell one: the first block if it lies below the ACK, or inside the
/// second one (RFC 2883 §4, §5). All are stream offsets.
pub fn find(ack: u64, first: Range<u64>, second: Option<Range<u64>>) -> Option<Range<u64>> {
    let below = first.end <= ack;
    let inside = second.is_some_and(|outer| outer.start <= first.start && first.end <= outer.end);
    (first.start < first.end && (below || inside)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 2883 §5.
    #[test]
    fn below_the_ack_or_inside_the_second_block_rfc2883_4() {
        assert_eq!(find(1000, 500..1000, None), Some(500..1000));
        assert_eq!(find(1000, 500..1001, None), None, "reaches beyond the ACK");
        assert_eq!(find(1000, 3000..3500, Some(3000..4000)), Some(3000..3500));
        assert_eq!(find(1000, 3000..4000, Some(3000..4000)), Some(3000..4000));
        assert_eq!(find(1000, 3000..4500, Some(3000..4000)), None);
        assert_eq!(find(1000, 3000..4000, Some(5000..6000)), None);
        assert_eq!(find(1000, 900..900, None), None);
    }
}
