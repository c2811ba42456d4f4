//! Ethernet II headers, with at most one 802.1Q tag.

pub use stack_common::numbers::{ETHERNET_LEN as LEN, VLAN_TAG_LEN as VLAN_LEN, ethertype};

use super::{MacAddr, read_u16};
use crate::telemetry::DropReason;

/// The part of a tag that is the VLAN's identifier; above it are priority and drop eligibility.
const VLAN_ID_MASK: u16 = 0x0fff;

/// An Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The station, or group, that the frame is for.
    pub destination: MacAddr,
    /// The station that sent it.
    pub source: MacAddr,
    /// The VLAN of a tagged frame, 1 to 4094. A tag that carries only a priority (VLAN 0) belongs to no VLAN.
    pub vlan: Option<u16>,
    /// What the frame carries; see [`ethertype`].
    pub ethertype: u16,
}

impl Header {
    /// The header of a frame, and where its payload starts.
    ///
    /// # Errors
    /// [`DropReason::EthernetTruncated`] when the header or its tag is cut off.
    pub fn parse(frame: &[u8]) -> Result<(Self, usize), DropReason> {
        let truncated = DropReason::EthernetTruncated;
        let &addresses = frame.first_chunk::<12>().ok_or(truncated)?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = addresses;
        let mut ethertype = read_u16(frame, 12).ok_or(truncated)?;
        let mut payload = LEN;
        let mut vlan = None;
        if ethertype == ethertype::VLAN {
            let tag = read_u16(frame, 14).ok_or(truncated)?;
            ethertype = read_u16(frame, 16).ok_or(truncated)?;
            payload += VLAN_LEN;
            vlan = Some(tag & VLAN_ID_MASK).filter(|&id| id != 0);
        }
        let destination = MacAddr([d0, d1, d2, d3, d4, d5]);
        let source = MacAddr([s0, s1, s2, s3, s4, s5]);
        Ok((Self { destination, source, vlan, ethertype }, payload))
    }

    /// Bytes that [`emit`](Self::emit) writes.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> usize {
        if self.vlan.is_some() { LEN + VLAN_LEN } else { LEN }
    }

    /// Writes the header.
    ///
    /// # Panics
    /// When `out` is shorter than [`len`](Self::len).
    pub fn emit(&self, out: &mut [u8]) {
        out[..6].copy_from_slice(&self.destination.0);
        out[6..12].copy_from_slice(&self.source.0);
        let mut at = 12;
        if let Some(vlan) = self.vlan {
            out[12..14].copy_from_slice(&ethertype::VLAN.to_be_bytes());
            out[14..16].copy_from_slice(&(vlan & VLAN_ID_MASK).to_be_bytes());
            at += VLAN_LEN;
        }
        out[at..at + 2].copy_from_slice(&self.ethertype.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_priority_tag_is_skipped_and_names_no_vlan() {
        let mut frame = [0; 20];
        frame[12..18].copy_from_slice(&[0x81, 0x00, 0xe0, 0x00, 0x08, 0x06]);
        let (header, payload) = Header::parse(&frame).expect("it is whole");
        assert_eq!((header.vlan, header.ethertype, payload), (None, ethertype::ARP, 18));
    }

    #[test]
    fn cut_off_at_every_byte() {
        let frame = [&[0; 12][..], &[0x81, 0x00, 0x00, 0x07, 0x08, 0x00]].concat();
        for len in 0..frame.len() {
            assert_eq!(Header::parse(&frame[..len]), Err(DropReason::EthernetTruncated), "{len} bytes");
        }
        assert_eq!(Header::parse(&frame).map(|(header, _)| header.vlan), Ok(Some(7)));
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((_, payload)) = Header::parse(&bytes) {
                prop_assert!(payload <= bytes.len());
            }
        }

        #[test]
        fn what_is_written_is_read_back(
            destination in any::<[u8; 6]>(),
            source in any::<[u8; 6]>(),
            vlan in proptest::option::of(1u16..4095),
            ethertype in any::<u16>().prop_filter("a tag", |&number| number != ethertype::VLAN),
        ) {
            let header = Header { destination: MacAddr(destination), source: MacAddr(source), vlan, ethertype };
            let mut bytes = [0; LEN + VLAN_LEN];
            header.emit(&mut bytes);
            prop_assert_eq!(Header::parse(&bytes), Ok((header, header.len())));
        }
    }
}
