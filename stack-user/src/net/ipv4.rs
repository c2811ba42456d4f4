//! IPv4 input: which datagrams are for us, and may be what they claim (RFC 1122 §3.2.1).

use std::{net::IpAddr, ops::Range};

use super::{route, routes::Routes};
use crate::{telemetry::DropReason, wire::ipv4::Header};

/// To how many a datagram was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cast {
    /// To an address of ours.
    Unicast,
    /// To everybody on the link.
    Broadcast,
}

/// A datagram, or a fragment of one (see [`Header::is_fragment`]), that is for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its header.
    pub header: Header,
    /// Where its payload lies in the bytes that were parsed.
    pub payload: Range<usize>,
    /// To how many it was sent.
    pub cast: Cast,
}

/// Parses and checks the payload of an Ethernet frame. `link_group` tells whether the frame was sent to a group
/// of stations rather than to ours.
///
/// # Errors
/// Why the datagram is to be dropped, silently in each case: `Ipv4Malformed`, `Ipv4BadChecksum`,
/// `Ipv4Truncated`, `Ipv4SourceRoute`, `Ipv4NotForUs`, `Ipv4BadSource`.
pub fn receive(bytes: &[u8], routes: &Routes, link_group: bool) -> Result<Datagram, DropReason> {
    receive_front(bytes, bytes.len(), routes, link_group)
}

/// The same of a payload that begins with `bytes` and has `len` in all.
///
/// # Errors
/// As [`receive`].
pub fn receive_front(
    bytes: &[u8],
    len: usize,
    routes: &Routes,
    link_group: bool,
) -> Result<Datagram, DropReason> {
    let (header, payload) = Header::parse_front(bytes, len)?;
    let destination = IpAddr::V4(header.destination);
    let cast = if routes.is_ours(destination) {
        Cast::Unicast
    } else if routes.is_broadcast(destination) {
        Cast::Broadcast
    } else {
        // We are in no multicast group. RFC 1122 §3.2.1.3: a host drops what is not for it.
        return Err(DropReason::Ipv4NotForUs);
    };
    // RFC 1122 §3.3.6: a datagram for one host in a frame for many is somebody's mistake.
    if link_group && cast == Cast::Unicast {
        return Err(DropReason::Ipv4NotForUs);
    }
    let source = IpAddr::V4(header.source);
    // RFC 1122 §3.2.1.3, RFC 9293 §3.9.2.3 (MUST-63): a source is always one host; and we are not the one that sends to us.
    if !route::is_unicast(source) || routes.is_broadcast(source) || routes.is_ours(source) {
        return Err(DropReason::Ipv4BadSource);
    }
    Ok(Datagram { header, payload, cast })
}

#[cfg(test)]
mod tests {
    use super::{super::route::Route, *};
    use crate::wire::ipv4;

    fn check(source: &str, destination: &str, link_group: bool) -> Result<Cast, DropReason> {
        let ours = "10.0.0.9".parse().expect("an address");
        let route =
            |ours| Route::new(ours, "10.0.0.0/24".parse().expect("a prefix"), None, 1500).expect("valid");
        let routes = Routes::new([ours, IpAddr::from([10, 0, 0, 10])].map(|ours| (route(ours), true)));
        let v4 = |text: &str| text.parse().expect("an address");
        let mut bytes = [0; 60];
        Header::new(v4(source), v4(destination), 17, 8).emit(&mut bytes);
        let datagram = receive(&bytes, &routes, link_group)?;
        assert_eq!(datagram.payload, ipv4::LEN..ipv4::LEN + 8, "padding is trimmed");
        Ok(datagram.cast)
    }

    #[test]
    fn ours_and_everybodys_are_received() {
        assert_eq!(check("10.0.0.1", "10.0.0.9", false), Ok(Cast::Unicast));
        assert_eq!(check("192.0.2.1", "10.0.0.9", false), Ok(Cast::Unicast));
        assert_eq!(check("10.0.0.1", "10.0.0.10", false), Ok(Cast::Unicast));
        assert_eq!(check("10.0.0.1", "10.0.0.255", true), Ok(Cast::Broadcast));
        assert_eq!(check("10.0.0.1", "255.255.255.255", true), Ok(Cast::Broadcast));
    }

    #[test]
    fn rfc1122_3_2_1_3_what_is_not_for_us_is_dropped() {
        for destination in ["10.0.0.8", "10.0.1.255", "224.0.0.1", "127.0.0.1", "0.0.0.0"] {
            assert_eq!(check("10.0.0.1", destination, false), Err(DropReason::Ipv4NotForUs), "{destination}");
        }
    }

    #[test]
    fn rfc1122_3_2_1_3_a_source_that_is_no_single_host_is_dropped() {
        for source in
            ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "10.0.0.255", "10.0.0.9", "10.0.0.10"]
        {
            assert_eq!(check(source, "10.0.0.9", false), Err(DropReason::Ipv4BadSource), "{source}");
        }
    }

    #[test]
    fn rfc1122_3_3_6_unicast_in_a_broadcast_frame_is_dropped() {
        assert_eq!(check("10.0.0.1", "10.0.0.9", true), Err(DropReason::Ipv4NotForUs));
    }
}
