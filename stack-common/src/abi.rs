//! The maps between the XDP program and user space: their names, sizes, and what their bytes mean.
//!
//! Keys and values are arrays of 32-bit words, so neither side's compiler has a say in the layout, there is no
//! padding that could hold garbage, and neither side needs `unsafe` to read the other's. Words rather than bytes,
//! since the XDP program may not assume unaligned access, and would copy bytes one by one.

use core::net::{IpAddr, Ipv6Addr};

use crate::steer::Verdict;

/// Changes whenever a map changes its meaning, so that a program somebody pinned is not misread.
///
/// It travels as `max_entries` of the map [`ABI`]: that number is in the object itself, whoever loads it, and
/// can be read back from the pinned map.
pub const ABI_VERSION: u32 = 3;

/// The map whose only content is its size: [`ABI_VERSION`].
pub const ABI: &str = "XSTACK_ABI";

/// The name of the XDP program in the object, and what `ip link` and `bpftool` show.
pub const PROGRAM: &str = "xstack";

/// Where the program runs among others in a dispatcher of libxdp's: lower is earlier.
///
/// After filters (`xdp-filter` has 10), so that what an operator drops never reaches us. Before programs that take all
/// frames of a queue (libxdp's own for AF_XDP sockets has 20) and those that don't say (50): what is not claimed goes on to
/// them.
pub const RUN_PRIORITY: usize = 15;

/// The AF_XDP sockets: receive queue → socket.
pub const XSKS: &str = "XSKS";

/// Receive queues that can have a socket.
///
/// Fewer, and the upper queues of a large NIC can't be used (some drivers offer 128, and place AF_XDP queues
/// in the upper half of the ids); more costs eight bytes each and helps nobody known.
pub const XSKS_MAX: usize = 1024;

/// The addresses that are ours: [`ClaimKey`] → [`Claim`].
pub const CLAIMS: &str = "CLAIMS";

/// Addresses that can be claimed at a time.
///
/// One per running stack is usual; a load generator wants hundreds. The kernel allocates all entries up front,
/// at about 120 bytes each, so a much larger number would be felt on small machines.
pub const CLAIMS_MAX: usize = 1024;

/// The index over the claims: [`ClaimKey::place`] → [`Slot`](crate::index::Slot).
pub const INDEX: &str = "INDEX";

/// What became of the frames: counter's index → frames, one set of counters per CPU.
pub const COUNTERS: &str = "COUNTERS";

/// How many counters there are: one for each [`Verdict`], and [`NO_SOCKET`].
pub const COUNTERS_LEN: usize = Verdict::ALL.len() + 1;

/// The counter of frames that were ours, but whose queue had no socket, so that the kernel got them.
pub const NO_SOCKET: u32 = Verdict::ALL.len() as u32;

/// The name of a counter, as shown to people.
#[must_use]
pub fn counter_name(index: u32) -> Option<&'static str> {
    match Verdict::ALL.get(index as usize) {
        Some(verdict) => Some(verdict.name()),
        None if index == NO_SOCKET => Some("no-socket"),
        None => None,
    }
}

/// An address in a VLAN: what a claim is about.
///
/// IPv4 addresses are kept IPv4-mapped (RFC 4291 §2.5.5.2), so both families fit in one map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct ClaimKey([u32; Self::WORDS]);

impl ClaimKey {
    /// Words of a key: four that hold the address's 16 bytes in their order, one with the VLAN id.
    pub const WORDS: usize = 5;

    /// The key for an address. VLAN 0 means untagged.
    #[must_use]
    pub fn new(address: IpAddr, vlan: u16) -> Self {
        match address {
            IpAddr::V4(v4) => Self::v4(v4.octets(), vlan),
            IpAddr::V6(v6) => {
                let mut words = [0; Self::WORDS];
                for (word, bytes) in words.iter_mut().zip(v6.octets().as_chunks().0) {
                    *word = u32::from_ne_bytes(*bytes);
                }
                words[4] = vlan.into();
                Self(words)
            }
        }
    }

    /// The key for the IPv4 address that a packet carries.
    #[inline(always)]
    pub(crate) fn v4(address: [u8; 4], vlan: u16) -> Self {
        Self([0, 0, u32::from_ne_bytes([0, 0, 0xff, 0xff]), u32::from_ne_bytes(address), vlan as u32])
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        let mut bytes = [0; 16];
        for (bytes, word) in bytes.as_chunks_mut().0.iter_mut().zip(&self.0) {
            *bytes = word.to_ne_bytes();
        }
        Ipv6Addr::from(bytes).to_canonical()
    }

    /// The VLAN, 0 meaning untagged.
    #[must_use]
    pub fn vlan(&self) -> u16 {
        self.0[4] as u16
    }

    /// The key as it lies in the map.
    #[must_use]
    pub fn to_words(self) -> [u32; Self::WORDS] {
        self.0
    }

    /// The key that lies in the map so.
    #[must_use]
    pub const fn from_words(words: [u32; Self::WORDS]) -> Self {
        Self(words)
    }

    #[inline(always)]
    pub(crate) fn words(&self) -> [u32; Self::WORDS] {
        self.0
    }

    /// Whether it is the same key. Word by word, since the XDP program has no call that compares memory.
    #[inline(always)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        let ([a, b, c, d, e], [v, w, x, y, z]) = (self.0, other.0);
        a == v && b == w && c == x && d == y && e == z
    }
}

/// What of an address is ours: all of it, or ranges of its TCP and UDP ports; and who says so.
///
/// The program does not look at the owner. Programs that share pinned maps number themselves, each holding a lock on its
/// number for as long as it lives, so that a claim whose owner was killed is known as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Claim([u32; Self::WORDS]);

impl Claim {
    /// Port ranges that one claim can have.
    ///
    /// The program tries them one after the other for every frame to the address, so this bounds its run time;
    /// a range of ephemeral ports and a handful of services fit.
    pub const RANGES_MAX: usize = 8;

    /// Words of a claim: the number of ranges, then for each range its first port in the upper and its last port
    /// in the lower half, then the owner.
    pub const WORDS: usize = 2 + Self::RANGES_MAX;

    /// Which word is the owner's.
    const OWNER: usize = 1 + Self::RANGES_MAX;

    /// The whole address, all protocols, ARP included.
    pub const WHOLE: Self = Self([0; Self::WORDS]);

    /// Ports `first..=last` of each pair, on an address that is the host's in all else. `None` if there are no
    /// ranges (that would be the whole address) or more than [`Self::RANGES_MAX`], or if one is empty.
    #[must_use]
    pub fn ports(ranges: &[(u16, u16)]) -> Option<Self> {
        if ranges.is_empty() || ranges.len() > Self::RANGES_MAX {
            return None;
        }
        let mut words = [0; Self::WORDS];
        words[0] = ranges.len() as u32;
        for (word, (first, last)) in words[1..Self::OWNER].iter_mut().zip(ranges) {
            if first > last {
                return None;
            }
            *word = u32::from(*first) << 16 | u32::from(*last);
        }
        Some(Self(words))
    }

    /// The same claim, as that of an owner.
    #[must_use]
    pub fn of(mut self, owner: u32) -> Self {
        self.0[Self::OWNER] = owner;
        self
    }

    /// Whose it is.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.0[Self::OWNER]
    }

    /// The port ranges, first to last of each. None means the whole address.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> {
        let count = (self.0[0] as usize).min(Self::RANGES_MAX);
        self.0[1..=count].iter().map(|range| ((range >> 16) as u16, *range as u16))
    }

    /// The claim as it lies in the map.
    #[must_use]
    pub fn to_words(self) -> [u32; Self::WORDS] {
        self.0
    }

    /// The claim that lies in the map so.
    #[must_use]
    pub fn from_words(words: [u32; Self::WORDS]) -> Self {
        Self(words)
    }

    /// Whether all of the address is ours.
    #[inline(always)]
    pub(crate) fn is_whole(&self) -> bool {
        self.0[0] == 0
    }

    /// Whether a port is in one of the ranges.
    ///
    /// The loop has a constant end, so that the verifier sees one, and so that no index needs a check.
    #[inline(always)]
    pub(crate) fn has_port(&self, port: u16) -> bool {
        let [count, ranges @ .., _owner] = &self.0;
        let mut i = 0;
        while i < Self::RANGES_MAX {
            let (first, last) = ((ranges[i] >> 16) as u16, ranges[i] as u16);
            if (i as u32) < *count && first <= port && port <= last {
                return true;
            }
            i += 1;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_ipv4_key_is_the_mapped_ipv6_key() {
        let v4 = Ipv4Addr::new(192, 0, 2, 7);
        assert_eq!(ClaimKey::new(v4.into(), 5), ClaimKey::new(v4.to_ipv6_mapped().into(), 5));
        assert_ne!(ClaimKey::new(v4.into(), 5), ClaimKey::new(v4.into(), 6));
        assert_ne!(ClaimKey::new(v4.into(), 0), ClaimKey::new(Ipv6Addr::LOCALHOST.into(), 0));
    }

    #[test]
    fn ranges_include_both_ends() {
        let claim = Claim::ports(&[(80, 80), (1000, 2000)]).expect("two ranges");
        for (port, inside) in [
            (79, false),
            (80, true),
            (81, false),
            (999, false),
            (1000, true),
            (2000, true),
            (2001, false),
            (0, false),
        ] {
            assert_eq!(claim.has_port(port), inside, "port {port}");
        }
        assert!(!claim.is_whole());
        assert!(Claim::WHOLE.is_whole());
    }

    #[test]
    fn keys_and_claims_can_be_read_back() {
        for address in [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), "2001:db8::7".parse().expect("an address")] {
            let key = ClaimKey::from_words(ClaimKey::new(address, 5).to_words());
            assert_eq!((key.address(), key.vlan()), (address, 5));
        }
        let claim = Claim::ports(&[(80, 80), (1000, 2000)]).expect("two ranges").of(7);
        let read = Claim::from_words(claim.to_words());
        assert_eq!(read.owner(), 7);
        assert!(read.ranges().eq([(80, 80), (1000, 2000)]));
        assert!(Claim::WHOLE.of(3).is_whole() && Claim::WHOLE.ranges().next().is_none());
    }

    /// The owner is a word like a range, and must not be read as one.
    #[test]
    fn an_owner_is_no_range() {
        let full = Claim::ports(&[(1, 1); Claim::RANGES_MAX]).expect("as many as fit").of(80 << 16 | 80);
        assert!(full.has_port(1) && !full.has_port(80));
    }

    #[test]
    fn all_ranges_are_looked_at() {
        let ranges: [(u16, u16); Claim::RANGES_MAX] =
            core::array::from_fn(|i| (i as u16 * 10, i as u16 * 10 + 1));
        let claim = Claim::ports(&ranges).expect("as many as fit");
        for (first, last) in ranges {
            assert!(claim.has_port(first) && claim.has_port(last) && !claim.has_port(last + 1));
        }
    }

    #[test]
    fn senseless_ranges_are_refused() {
        assert_eq!(Claim::ports(&[]), None);
        assert_eq!(Claim::ports(&[(2, 1)]), None);
        assert_eq!(Claim::ports(&[(1, 1); Claim::RANGES_MAX + 1]), None);
    }

    #[test]
    fn every_counter_has_its_own_name() {
        for a in 0..COUNTERS_LEN as u32 {
            assert!(counter_name(a).is_some());
            assert!((0..a).all(|b| counter_name(a) != counter_name(b)));
        }
        assert_eq!(counter_name(COUNTERS_LEN as u32), None);
    }
}
