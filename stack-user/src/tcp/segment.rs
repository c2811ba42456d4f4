//! A segment: its header and options, parsed once, or made to be sent.

use std::net::IpAddr;

use super::{options::Options, seq::SeqNumber};
use crate::{
    telemetry::DropReason,
    wire::{
        checksum::Sum,
        protocol,
        tcp::{Flags, Header},
    },
};

/// All of a segment except for its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// SEG.SEQ.
    pub seq: SeqNumber,
    /// SEG.ACK, meaningful if the ACK bit is set.
    pub ack: SeqNumber,
    /// The control bits.
    pub flags: Flags,
    /// SEG.WND as it stands in the header (not scaled).
    pub window: u16,
    /// SEG.UP, meaningful if the URG bit is set.
    pub urgent: u16,
    /// The options.
    pub options: Options,
    /// A router on the way has marked the packet: CE (RFC 3168 §5). The IP header says so, not this one; whoever has
    /// parsed that sets it.
    pub ce: bool,
}

impl Segment {
    /// Parses a segment, from its header's first byte to its payload's last, and checks its checksum (RFC 9293
    /// §3.1, MUST-3). Returns it with the offset of the payload in `bytes`.
    ///
    /// # Errors
    /// [`DropReason::TcpMalformed`] or [`DropReason::TcpBadChecksum`].
    pub fn parse(source: IpAddr, destination: IpAddr, bytes: &[u8]) -> Result<(Self, usize), DropReason> {
        let (header, options, payload) = Header::parse(bytes)?;
        if Sum::pseudo_header(source, destination, protocol::TCP, bytes.len()).bytes(bytes).finish() != 0 {
            return Err(DropReason::TcpBadChecksum);
        }
        Ok((Self::of(&header, options), payload))
    }

    /// The same of a segment that lies in several pieces, of `len` bytes; the first has the header and its options.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_pieces<'a>(
        source: IpAddr,
        destination: IpAddr,
        len: usize,
        pieces: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<(Self, usize), DropReason> {
        let (header, options, payload) = Header::parse(pieces.clone().next().unwrap_or_default())?;
        if Sum::pseudo_header(source, destination, protocol::TCP, len).pieces(pieces).finish() != 0 {
            return Err(DropReason::TcpBadChecksum);
        }
        Ok((Self::of(&header, options), payload))
    }

    fn of(header: &Header, options: &[u8]) -> Self {
        Self {
            source_port: header.source,
            destination_port: header.destination,
            seq: SeqNumber(header.seq),
            ack: SeqNumber(header.ack),
            flags: header.flags,
            window: header.window,
            urgent: header.urgent,
            options: Options::parse(options),
            ce: false,
        }
    }

    /// Bytes of the header with its options.
    pub fn header_len(&self) -> usize {
        Header::LEN + self.options.len()
    }

    /// Writes header and options in front of `payload_len` bytes of payload that are in `bytes` already, right
    /// behind the room for the header, and computes the checksum of all of it (RFC 9293 §3.1, MUST-2). Returns the
    /// segment's length.
    pub fn emit(&self, source: IpAddr, destination: IpAddr, payload_len: usize, bytes: &mut [u8]) -> usize {
        let len = self.emit_unsummed(payload_len, bytes);
        let segment = bytes.get(..len).unwrap_or_default();
        let checksum = Sum::pseudo_header(source, destination, protocol::TCP, len).bytes(segment).finish();
        Header::set_checksum(bytes, checksum);
        len
    }

    /// Writes header and options, with a checksum of zero. Returns the length of the segment with so much payload.
    pub(super) fn emit_unsummed(&self, payload_len: usize, bytes: &mut [u8]) -> usize {
        let header = Header {
            source: self.source_port,
            destination: self.destination_port,
            seq: self.seq.0,
            ack: self.ack.0,
            flags: self.flags,
            window: self.window,
            urgent: self.urgent,
        };
        let options_len = self.options.len();
        header.emit(options_len, bytes);
        if let Some(room) = bytes.get_mut(Header::LEN..) {
            self.options.emit(room);
        }
        Header::LEN + options_len + payload_len
    }

    /// Whether SYN is set.
    pub fn syn(&self) -> bool {
        self.flags.contains(Flags::SYN)
    }

    /// Whether FIN is set.
    pub fn fin(&self) -> bool {
        self.flags.contains(Flags::FIN)
    }

    /// Whether RST is set.
    pub fn rst(&self) -> bool {
        self.flags.contains(Flags::RST)
    }

    /// SEG.ACK, if the ACK bit is set.
    pub fn acknowledges(&self) -> Option<SeqNumber> {
        self.flags.contains(Flags::ACK).then_some(self.ack)
    }

    /// SEG.LEN: the sequence numbers that the segment takes, SYN and FIN included.
    pub fn sequence_len(&self, payload_len: usize) -> usize {
        payload_len + usize::from(self.syn()) + usize::from(self.fin())
    }
}

/// The RST that answers a segment for which there is no connection (RFC 9293 §3.5.2 and §3.10.7.1), if one is due: an RST is
/// never answered.
pub fn reset_for(segment: &Segment, payload_len: usize) -> Option<Segment> {
    if segment.rst() {
        return None;
    }
    let (seq, ack, flags) = match segment.acknowledges() {
        Some(ack) => (ack, SeqNumber(0), Flags::RST),
        None => (SeqNumber(0), segment.seq + segment.sequence_len(payload_len), Flags::RST.with(Flags::ACK)),
    };
    Some(Segment {
        source_port: segment.destination_port,
        destination_port: segment.source_port,
        seq,
        ack,
        flags,
        window: 0,
        urgent: 0,
        options: Options::default(),
        ce: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));

    fn segment(flags: Flags) -> Segment {
        Segment {
            source_port: 1000,
            destination_port: 80,
            seq: SeqNumber(100),
            ack: SeqNumber(300),
            flags,
            window: 5000,
            urgent: 0,
            options: Options { mss: Some(1460), ..Options::default() },
            ce: false,
        }
    }

    #[test]
    fn what_is_written_is_read_and_its_checksum_is_checked_must_2_must_3() {
        let segment = segment(Flags::SYN);
        let mut bytes = [0; 64];
        bytes[24..29].copy_from_slice(b"hello");
        let len = segment.emit(A, B, 5, &mut bytes);
        assert_eq!(len, 29);
        assert_eq!(Segment::parse(A, B, &bytes[..len]), Ok((segment, 24)));
        assert_eq!(&bytes[24..29], b"hello");
        for at in 0..len {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert!(Segment::parse(A, B, &damaged[..len]).is_err(), "byte {at}");
        }
        assert_eq!(Segment::parse(A, A, &bytes[..len]), Err(DropReason::TcpBadChecksum));
    }

    #[test]
    fn a_reset_answers_by_what_the_segment_has_rfc9293_3_10_7_1() {
        let reset = reset_for(&segment(Flags::ACK), 10).expect("an answer");
        assert_eq!((reset.seq, reset.flags), (SeqNumber(300), Flags::RST));
        assert_eq!((reset.source_port, reset.destination_port), (80, 1000));
        let reset = reset_for(&segment(Flags::SYN.with(Flags::FIN)), 10).expect("an answer");
        assert_eq!((reset.seq, reset.ack), (SeqNumber(0), SeqNumber(112)));
        assert_eq!(reset.flags, Flags::RST.with(Flags::ACK));
        assert_eq!(reset_for(&segment(Flags::RST.with(Flags::ACK)), 0), None);
    }
}
