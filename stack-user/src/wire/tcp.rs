//! The TCP header (RFC 9293 §3.1): its fixed 20 bytes. Options are a matter of `tcp::options`.

use core::fmt;

use crate::telemetry::DropReason;

/// The fixed part of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Sequence number of the first byte, or of SYN.
    pub seq: u32,
    /// The next sequence number that the sender expects, if [`Flags::ACK`] is set.
    pub ack: u32,
    /// Control bits.
    pub flags: Flags,
    /// The receive window, as it stands in the header (not scaled).
    pub window: u16,
    /// The urgent pointer, meaningful if [`Flags::URG`] is set.
    pub urgent: u16,
}

impl Header {
    /// Bytes of the fixed part.
    pub const LEN: usize = 20;

    /// Bytes of the longest header: the data offset counts up to 15 words.
    pub const MAX_LEN: usize = 60;

    /// Splits a segment into its header, the bytes of its options, and the offset of its payload. The checksum
    /// is not looked at.
    ///
    /// # Errors
    /// [`DropReason::TcpMalformed`] when the segment is shorter than its header, or the data offset is too small.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8], usize), DropReason> {
        let fixed: &[u8; Self::LEN] = bytes.first_chunk().ok_or(DropReason::TcpMalformed)?;
        let half = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let payload = usize::from(fixed[12] >> 4) * 4;
        let options = bytes.get(Self::LEN..payload).ok_or(DropReason::TcpMalformed)?;
        let header = Self {
            source: half(0),
            destination: half(2),
            seq: word(4),
            ack: word(8),
            flags: Flags(fixed[13]),
            window: half(14),
            urgent: half(18),
        };
        Ok((header, options, payload))
    }

    /// Writes the header in front of `options_len` bytes of options, with a checksum of zero.
    ///
    /// `options_len` is a multiple of four; `bytes` holds at least [`LEN`](Self::LEN) bytes.
    pub fn emit(&self, options_len: usize, bytes: &mut [u8]) {
        let Some(fixed) = bytes.first_chunk_mut::<{ Self::LEN }>() else { return };
        debug_assert!(options_len.is_multiple_of(4) && options_len <= Self::MAX_LEN - Self::LEN);
        fixed[0..2].copy_from_slice(&self.source.to_be_bytes());
        fixed[2..4].copy_from_slice(&self.destination.to_be_bytes());
        fixed[4..8].copy_from_slice(&self.seq.to_be_bytes());
        fixed[8..12].copy_from_slice(&self.ack.to_be_bytes());
        fixed[12] = ((Self::LEN + options_len) as u8 / 4) << 4;
        fixed[13] = self.flags.0;
        fixed[14..16].copy_from_slice(&self.window.to_be_bytes());
        fixed[16..18].copy_from_slice(&[0, 0]);
        fixed[18..20].copy_from_slice(&self.urgent.to_be_bytes());
    }

    /// The control bits of a header that [`emit`](Self::emit) wrote.
    pub fn flags(bytes: &[u8]) -> Flags {
        bytes.get(13).map_or_else(Flags::default, |&bits| Flags(bits))
    }

    /// Puts another sequence number, and the checksum that goes with it, into a header that [`emit`](Self::emit) wrote.
    #[inline]
    pub fn renumber(bytes: &mut [u8], seq: u32, checksum: u16) {
        if let Some(fixed) = bytes.first_chunk_mut::<{ Self::LEN }>() {
            fixed[4..8].copy_from_slice(&seq.to_be_bytes());
            fixed[16..18].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    /// Puts the checksum into a header that [`emit`](Self::emit) wrote.
    #[inline]
    pub fn set_checksum(bytes: &mut [u8], checksum: u16) {
        if let Some(field) = bytes.get_mut(16..18) {
            field.copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

/// The control bits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Hand the data to the application now.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// ECN-Echo (RFC 3168 §6.1): the path of what was received is congested.
    pub const ECE: Self = Self(0x40);
    /// Congestion window reduced (RFC 3168 §6.1): the echo was heard.
    pub const CWR: Self = Self(0x80);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These bits and those of `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];
        let set =
            names.iter().enumerate().filter(|&(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| *name);
        f.write_str(&set.collect::<Vec<_>>().join("|"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Header = Header {
        source: 40_000,
        destination: 80,
        seq: 0x0102_0304,
        ack: 0xfffe_fdfc,
        flags: Flags(0x12),
        window: 65_535,
        urgent: 7,
    };

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = [0xaa; 29];
        HEADER.emit(4, &mut bytes);
        assert_eq!(Header::parse(&bytes), Ok((HEADER, &[0xaa; 4][..], 24)));
        assert_eq!(format!("{:?}", HEADER.flags), "SYN|ACK");
    }

    #[test]
    fn a_data_offset_outside_the_segment_is_refused() {
        let mut bytes = [0; 24];
        HEADER.emit(8, &mut bytes);
        assert_eq!(Header::parse(&bytes), Err(DropReason::TcpMalformed), "options are cut off");
        bytes[12] = 4 << 4;
        assert_eq!(Header::parse(&bytes), Err(DropReason::TcpMalformed), "offset below 5 words");
        assert_eq!(Header::parse(&bytes[..19]), Err(DropReason::TcpMalformed), "cut off");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok((_, options, payload)) = Header::parse(&bytes) {
                prop_assert!(payload <= bytes.len() && options.len() + Header::LEN == payload);
            }
        }
    }
}
