//! The header by which the target learns where a connection came from: HAProxy's PROXY protocol, versions 1 and 2.

use std::net::{IpAddr, SocketAddr};

use super::spec::ProxyProtocol;

/// How version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and a connection that is carried for someone else; or one of our own.
const PROXY: u8 = 0x21;
const LOCAL: u8 = 0x20;
/// TCP over IPv4, and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for a connection from `client` to `local`, if it has these addresses: on a socket file it has none.
pub(super) fn header(
    version: ProxyProtocol,
    client: Option<SocketAddr>,
    local: Option<SocketAddr>,
) -> Vec<u8> {
    let ends = client.zip(local).and_then(|(client, local)| {
        let (from, to) = (client.ip().to_canonical(), local.ip().to_canonical());
        (from.is_ipv4() == to.is_ipv4())
            .then(|| (SocketAddr::new(from, client.port()), SocketAddr::new(to, local.port())))
    });
    match version {
        ProxyProtocol::V1 => text(ends),
        ProxyProtocol::V2 => binary(ends),
    }
}

fn text(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let line = match ends {
        Some((client, local)) => {
            let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (client.ip(), local.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), local.port())
        }
        None => "PROXY UNKNOWN\r\n".to_owned(),
    };
    line.into_bytes()
}

fn binary(ends: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let Some((client, local)) = ends else {
        header.extend([LOCAL, 0, 0, 0]);
        return header;
    };
    let mut addresses = Vec::new();
    for ip in [client.ip(), local.ip()] {
        match ip {
            IpAddr::V4(ip) => addresses.extend(ip.octets()),
            IpAddr::V6(ip) => addresses.extend(ip.octets()),
        }
    }
    for port in [client.port(), local.port()] {
        addresses.extend(port.to_be_bytes());
    }
    let family = if client.is_ipv4() { TCP4 } else { TCP6 };
    // 12 bytes or 36.
    header.extend([PROXY, family, 0, addresses.len() as u8]);
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<SocketAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn version_1_is_a_line() {
        let v1 = |client, local| String::from_utf8(header(ProxyProtocol::V1, client, local)).expect("text");
        assert_eq!(v1(at("10.0.0.9:5000"), at("10.0.0.7:80")), "PROXY TCP4 10.0.0.9 10.0.0.7 5000 80\r\n");
        assert_eq!(v1(at("[::ffff:10.0.0.9]:1"), at("10.0.0.7:2")), "PROXY TCP4 10.0.0.9 10.0.0.7 1 2\r\n");
        assert_eq!(v1(at("[::9]:1"), at("[::7]:2")), "PROXY TCP6 ::9 ::7 1 2\r\n");
        assert_eq!(v1(None, at("10.0.0.7:80")), "PROXY UNKNOWN\r\n");
        assert_eq!(v1(at("[::9]:1"), at("10.0.0.7:80")), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_binary() {
        let v2 = |client, local| header(ProxyProtocol::V2, client, local);
        let known = v2(at("10.0.0.9:5000"), at("10.0.0.7:80"));
        let start = b"\x0D\x0A\x0D\x0A\x00\x0D\x0A\x51\x55\x49\x54\x0A".as_slice();
        let rest = [0x21, 0x11, 0, 12, 10, 0, 0, 9, 10, 0, 0, 7, 0x13, 0x88, 0, 80];
        assert_eq!(known, [start, &rest].concat());
        let six = v2(at("[::9]:1"), at("[::7]:2"));
        assert_eq!((six.len(), &six[12..16]), (16 + 36, &[0x21, 0x21, 0, 36][..]));
        assert_eq!(v2(None, None), [start, &[0x20, 0, 0, 0]].concat());
    }
}
