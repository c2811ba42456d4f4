//! ICMP messages for IPv4 (RFC 792, RFC 1191).

use std::net::Ipv4Addr;

pub use stack_common::numbers::ICMP_LEN as LEN;

use super::{checksum::checksum, ipv4};
use crate::telemetry::DropReason;

/// Codes of [`Message::DestinationUnreachable`] (RFC 792, RFC 1122 §3.2.2.1, RFC 1812 §5.2.7.1).
pub mod unreachable {
    /// No route to the network.
    pub const NET: u8 = 0;
    /// The last router can't reach the host.
    pub const HOST: u8 = 1;
    /// The host does not speak the protocol.
    pub const PROTOCOL: u8 = 2;
    /// Nobody listens on the port.
    pub const PORT: u8 = 3;
    /// The datagram is too long for the next link and must not be fragmented.
    pub const FRAGMENTATION_NEEDED: u8 = 4;
    /// A source route failed.
    pub const SOURCE_ROUTE_FAILED: u8 = 5;
    /// A firewall refuses the network.
    pub const NET_PROHIBITED: u8 = 9;
    /// A firewall refuses the host.
    pub const HOST_PROHIBITED: u8 = 10;
    /// A firewall refuses the packet.
    pub const PROHIBITED: u8 = 13;
}

/// Codes of [`Message::TimeExceeded`].
pub mod time_exceeded {
    /// The TTL ran out on the way.
    pub const IN_TRANSIT: u8 = 0;
    /// Some fragments did not come in time.
    pub const REASSEMBLY: u8 = 1;
}

/// A message without its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody pings us.
    EchoRequest {
        /// Whose ping it is.
        identifier: u16,
        /// Which of their pings it is.
        sequence: u16,
    },
    /// The answer to a ping.
    EchoReply {
        /// As in the request.
        identifier: u16,
        /// As in the request.
        sequence: u16,
    },
    /// A datagram could not be delivered.
    DestinationUnreachable {
        /// Why; see [`unreachable`](mod@unreachable).
        code: u8,
        /// What the next link can take, when the code is "fragmentation needed"; 0 from routers older than
        /// RFC 1191.
        next_hop_mtu: u16,
    },
    /// A datagram was too long on its way.
    TimeExceeded {
        /// See [`time_exceeded`](mod@time_exceeded).
        code: u8,
    },
    /// A header makes no sense to somebody.
    ParameterProblem {
        /// 0: the pointer tells which byte. 1: an option is missing.
        code: u8,
        /// The byte of the header that is wrong.
        pointer: u8,
    },
    /// Something that this stack neither asks nor answers.
    Other {
        /// The message's type.
        kind: u8,
        /// The message's code.
        code: u8,
        /// The four bytes after the checksum.
        rest: [u8; 4],
    },
}

impl Message {
    /// The message in an IPv4 payload; its body is what comes after [`LEN`] bytes.
    ///
    /// # Errors
    /// [`DropReason::IcmpMalformed`] when it is cut off or its checksum is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, DropReason> {
        let &[kind, code, _, _, a, b, c, d] = bytes.first_chunk::<LEN>().ok_or(DropReason::IcmpMalformed)?;
        if checksum(bytes) != 0 {
            return Err(DropReason::IcmpMalformed);
        }
        let (first, second) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        Ok(match (kind, code) {
            (0, 0) => Self::EchoReply { identifier: first, sequence: second },
            (3, code) => Self::DestinationUnreachable { code, next_hop_mtu: second },
            (8, 0) => Self::EchoRequest { identifier: first, sequence: second },
            (11, code) => Self::TimeExceeded { code },
            (12, code) => Self::ParameterProblem { code, pointer: a },
            (kind, code) => Self::Other { kind, code, rest: [a, b, c, d] },
        })
    }

    /// Writes the message at the front of `out`, whose other bytes already are the body, with the checksum over
    /// both.
    ///
    /// # Panics
    /// When `out` is shorter than [`LEN`].
    pub fn emit(&self, out: &mut [u8]) {
        let ((kind, code), rest) = self.fields();
        out[..4].copy_from_slice(&[kind, code, 0, 0]);
        out[4..LEN].copy_from_slice(&rest);
        let sum = checksum(out);
        out[2..4].copy_from_slice(&sum.to_be_bytes());
    }

    /// Whether the message reports an error, so that no error may answer it (RFC 1122 §3.2.2). A type that we
    /// do not know may be one.
    pub fn is_error(&self) -> bool {
        !matches!(self, Self::EchoRequest { .. } | Self::EchoReply { .. })
    }

    fn fields(&self) -> ((u8, u8), [u8; 4]) {
        let pair = |first: u16, second: u16| {
            let ([a, b], [c, d]) = (first.to_be_bytes(), second.to_be_bytes());
            [a, b, c, d]
        };
        match *self {
            Self::EchoReply { identifier, sequence } => ((0, 0), pair(identifier, sequence)),
            Self::DestinationUnreachable { code, next_hop_mtu } => ((3, code), pair(0, next_hop_mtu)),
            Self::EchoRequest { identifier, sequence } => ((8, 0), pair(identifier, sequence)),
            Self::TimeExceeded { code } => ((11, code), [0; 4]),
            Self::ParameterProblem { code, pointer } => ((12, code), [pointer, 0, 0, 0]),
            Self::Other { kind, code, rest } => ((kind, code), rest),
        }
    }
}

/// The packet that an error is about, as far as the error quotes it: its header and at least eight bytes more
/// (RFC 792).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Who sent it: we, if the error is honest.
    pub source: Ipv4Addr,
    /// Whom it was for.
    pub destination: Ipv4Addr,
    /// What it carried.
    pub protocol: u8,
    /// Where the fragment belonged in its datagram; only at 0 are the bytes below a transport header.
    pub fragment_offset: u16,
    /// The first bytes of what it carried: both ports, and with TCP the sequence number.
    pub transport: [u8; 8],
}

impl Quoted {
    /// The packet quoted in the body of an error.
    ///
    /// Its checksum and total length are not looked at: routers change the TTL, and some the length's byte
    /// order, before they quote.
    ///
    /// # Errors
    /// [`DropReason::IcmpMalformed`] when less than RFC 792 asks for is quoted, or something else than IPv4.
    pub fn parse(body: &[u8]) -> Result<Self, DropReason> {
        let malformed = DropReason::IcmpMalformed;
        let fixed = body.first_chunk::<{ ipv4::LEN }>().ok_or(malformed)?;
        let header_len = ipv4::header_len(fixed[0]).ok_or(malformed)?;
        let &transport = body.get(header_len..).and_then(<[u8]>::first_chunk).ok_or(malformed)?;
        let header = ipv4::Header::from_fixed(fixed, 0);
        Ok(Self {
            source: header.source,
            destination: header.destination,
            protocol: header.protocol,
            fragment_offset: header.fragment_offset,
            transport,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_message() -> impl Strategy<Value = Message> {
        prop_oneof![
            any::<(u16, u16)>()
                .prop_map(|(identifier, sequence)| Message::EchoRequest { identifier, sequence }),
            any::<(u16, u16)>()
                .prop_map(|(identifier, sequence)| Message::EchoReply { identifier, sequence }),
            any::<(u8, u16)>()
                .prop_map(|(code, next_hop_mtu)| Message::DestinationUnreachable { code, next_hop_mtu }),
            any::<u8>().prop_map(|code| Message::TimeExceeded { code }),
            any::<(u8, u8)>().prop_map(|(code, pointer)| Message::ParameterProblem { code, pointer }),
            (13u8.., any::<u8>(), any::<[u8; 4]>()).prop_map(|(kind, code, rest)| Message::Other {
                kind,
                code,
                rest
            }),
        ]
    }

    #[test]
    fn a_quote_needs_the_header_and_eight_bytes() {
        let header = ipv4::Header::new([10, 0, 0, 1].into(), [192, 0, 2, 1].into(), 6, 1000);
        let mut body = [0; 28];
        header.emit(&mut body);
        body[20..].copy_from_slice(&[0xc0, 0x01, 0, 80, 1, 2, 3, 4]);
        let quoted = Quoted::parse(&body).expect("RFC 792's minimum");
        assert_eq!((quoted.source, quoted.destination), (header.source, header.destination));
        assert_eq!((quoted.protocol, quoted.transport), (6, [0xc0, 0x01, 0, 80, 1, 2, 3, 4]));
        for len in 0..28 {
            assert_eq!(Quoted::parse(&body[..len]), Err(DropReason::IcmpMalformed), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = Message::parse(&bytes);
            let _ = Quoted::parse(&bytes);
        }

        #[test]
        fn what_is_written_is_read_back(
            message in any_message(),
            body in proptest::collection::vec(any::<u8>(), 0..64),
            at in 0usize..8,
        ) {
            let mut bytes = [&[0xee; LEN][..], &body].concat();
            message.emit(&mut bytes);
            prop_assert_eq!(Message::parse(&bytes), Ok(message));
            prop_assert_eq!(&bytes[LEN..], &body[..]);
            bytes[at] ^= 0x10;
            prop_assert_eq!(Message::parse(&bytes), Err(DropReason::IcmpMalformed));
        }
    }
}
