//! An index over the claims: what the XDP program looks at first, and mostly last.
//!
//! Looking something up in a hash map is a call of the kernel's, which takes more than all the rest of the program;
//! looking up a place in an array is a few instructions. So each claim has a place in an array, by a hash of its
//! address, and a copy of it lies there if it has the place for itself. Places that several claims share, or that are
//! being changed, say that the map is to be asked. The map is what counts: user space changes it, and then makes the
//! place say the same.

use crate::abi::{Claim, ClaimKey};

/// How many bits of its hash say which place a claim has.
const BITS: u32 = 11;

/// Places of the index.
///
/// Twice as many as there can be claims, at 64 bytes each. Fewer, and more claims share one, whose frames take a
/// look-up in the map each; more is memory that every interface pays for and that few have a use for.
pub const INDEX_LEN: usize = 1 << BITS;

impl ClaimKey {
    /// The place of a key: below [`INDEX_LEN`].
    ///
    /// Multiplicative hashing (Knuth, by 2³² over the golden ratio). Up to 256 addresses that follow each other have
    /// places of their own, since they differ in one byte of a word, and the factor is odd. Who sends frames may
    /// choose addresses that meet at one place; it costs a comparison, or a look-up in the map, as every frame did
    /// without an index.
    #[inline(always)]
    #[must_use]
    pub fn place(&self) -> u32 {
        let [a, b, c, d, vlan] = self.words();
        (a ^ b ^ c ^ d ^ vlan).wrapping_mul(0x9e37_79b1) >> (u32::BITS - BITS)
    }
}

/// What a place says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    state: u32,
    key: ClaimKey,
    claim: Claim,
}

/// What a place says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// Nobody has claimed it.
    Nothing,
    /// This is the claim.
    Claim(&'a Claim),
    /// The map knows.
    Ask,
}

/// States of a place. What is zeroed, as a new map is, says that nothing is claimed.
const NOTHING: u32 = 0;
const ONE: u32 = 1;
const ASK: u32 = 2;

impl Slot {
    /// Words of a slot as it lies in the map.
    pub const WORDS: usize = 1 + ClaimKey::WORDS + Claim::WORDS;

    /// No address of this place is claimed.
    pub const NOTHING: Self =
        Self { state: NOTHING, key: ClaimKey::from_words([0; ClaimKey::WORDS]), claim: Claim::WHOLE };

    /// What the place says with one claim more.
    #[must_use]
    pub fn with(self, key: ClaimKey, claim: Claim) -> Self {
        if self.state == NOTHING || self.state == ONE && self.key == key {
            Self { state: ONE, key, claim }
        } else {
            Self { state: ASK, ..Self::NOTHING }
        }
    }

    /// The same bytes, but that the map is to be asked. While a place says so, its other words can be changed, and no
    /// frame is judged by half of them.
    #[must_use]
    pub fn asking(self) -> Self {
        Self { state: ASK, ..self }
    }

    /// What is known of an address whose place this is.
    #[inline(always)]
    #[must_use]
    pub fn find(&self, key: &ClaimKey) -> Answer<'_> {
        match self.state {
            NOTHING => Answer::Nothing,
            ONE if self.key.is(key) => Answer::Claim(&self.claim),
            ONE => Answer::Nothing,
            _ => Answer::Ask,
        }
    }

    /// The slot as it lies in the map.
    #[must_use]
    pub fn to_words(self) -> [u32; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        let claim = 1 + ClaimKey::WORDS;
        words[0] = self.state;
        words[1..claim].copy_from_slice(&self.key.to_words());
        words[claim..].copy_from_slice(&self.claim.to_words());
        words
    }

    /// The slot that lies in the map so.
    #[must_use]
    pub fn from_words(words: [u32; Self::WORDS]) -> Self {
        let key = core::array::from_fn(|at| words[1 + at]);
        let claim = core::array::from_fn(|at| words[1 + ClaimKey::WORDS + at]);
        Self { state: words[0], key: ClaimKey::from_words(key), claim: Claim::from_words(claim) }
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn key(address: u32, vlan: u16) -> ClaimKey {
        ClaimKey::new(Ipv4Addr::from(address).into(), vlan)
    }

    #[test]
    fn addresses_that_follow_each_other_have_places_of_their_own() {
        for (first, vlan) in [(0xc000_0200, 0), (0x0a01_0200, 5), (0, 4095)] {
            let mut taken = [false; INDEX_LEN];
            for n in 0..256 {
                let place = key(first + n, vlan).place() as usize;
                assert!(!core::mem::replace(&mut taken[place], true), "{first:x} + {n}");
            }
        }
    }

    #[test]
    fn every_key_has_a_place() {
        for n in 0..1 << 16 {
            assert!((key(n * 65_521, n as u16).place() as usize) < INDEX_LEN);
        }
        let v6: IpAddr = "2001:db8::7".parse().expect("an address");
        assert!((ClaimKey::new(v6, 5).place() as usize) < INDEX_LEN);
    }

    #[test]
    fn a_place_tells_the_one_claim_that_it_has_and_else_refers_to_the_map() {
        let (ours, other) = (key(1, 0), key(2, 0));
        let ports = Claim::ports(&[(80, 80)]).expect("a range").of(3);
        assert_eq!(Slot::NOTHING.find(&ours), Answer::Nothing);
        let one = Slot::NOTHING.with(ours, ports);
        assert_eq!(one.find(&ours), Answer::Claim(&ports));
        assert_eq!(one.find(&other), Answer::Nothing);
        assert_eq!(one.find(&key(1, 1)), Answer::Nothing, "in another VLAN");
        assert_eq!(one.with(ours, Claim::WHOLE).find(&ours), Answer::Claim(&Claim::WHOLE), "claimed again");
        let several = one.with(other, Claim::WHOLE);
        for key in [ours, other, key(3, 0)] {
            assert_eq!(several.find(&key), Answer::Ask);
            assert_eq!(several.with(ours, ports).find(&key), Answer::Ask);
            assert_eq!(one.asking().find(&key), Answer::Ask);
        }
    }

    #[test]
    fn slots_can_be_read_back() {
        let ports = Claim::ports(&[(80, 80), (1000, 2000)]).expect("two ranges").of(7);
        let one = Slot::NOTHING.with(key(0xc000_0207, 5), ports);
        for slot in [Slot::NOTHING, one, one.asking(), one.with(key(1, 0), Claim::WHOLE)] {
            assert_eq!(Slot::from_words(slot.to_words()), slot);
        }
        assert_eq!(Slot::NOTHING.to_words(), [0; Slot::WORDS], "what a new map has");
        assert_eq!(size_of::<Slot>(), size_of::<[u32; Slot::WORDS]>());
    }
}
