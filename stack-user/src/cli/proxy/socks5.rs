//! The messages of SOCKS version 5 (RFC 1928) and of its user names and passwords (RFC 1929), as bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::Host;

/// The first byte of a client of version 5, and of version 4.
pub(super) const VERSION: u8 = 5;
pub(super) const VERSION_4: u8 = 4;
/// The version of the sub-negotiation (RFC 1929 §2).
const PASSWORD_VERSION: u8 = 1;

/// Ways to say who one is (RFC 1928 §3).
pub(super) const NO_AUTHENTICATION: u8 = 0x00;
pub(super) const USERNAME_PASSWORD: u8 = 0x02;
pub(super) const NO_ACCEPTABLE_METHODS: u8 = 0xff;

const CONNECT: u8 = 0x01;

/// The longest message: a name and a password, of 255 bytes each. What a client sends beyond it waits.
pub(super) const MESSAGE_MAX: usize = 513;

/// What the client is answered (RFC 1928 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Reply {
    Succeeded = 0x00,
    GeneralFailure = 0x01,
    NotAllowed = 0x02,
    HostUnreachable = 0x04,
    ConnectionRefused = 0x05,
    TtlExpired = 0x06,
    CommandNotSupported = 0x07,
    AddressTypeNotSupported = 0x08,
}

/// These bytes are not the message that belongs here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// A message and its length, or None as long as some of it is missing.
pub(super) type Parsed<T> = Result<Option<(T, usize)>, Malformed>;

/// Takes what is there, in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    /// A byte that says how many follow, and these.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        let (bytes, rest) = self.0.split_at_checked(length.into())?;
        self.0 = rest;
        Some(bytes)
    }
}

/// Which methods the client offers (RFC 1928 §3).
pub(super) fn greeting(bytes: &[u8]) -> Parsed<Vec<u8>> {
    parse(bytes, VERSION, |fields| fields.counted().map(<[u8]>::to_vec).map(Ok))
}

/// Who the client says it is (RFC 1929 §2).
pub(super) fn credentials(bytes: &[u8]) -> Parsed<(Vec<u8>, Vec<u8>)> {
    parse(bytes, PASSWORD_VERSION, |fields| {
        let (name, password) = (fields.counted()?.to_vec(), fields.counted()?.to_vec());
        Some(Ok((name, password)))
    })
}

/// What the client wants (RFC 1928 §4): a host and a port to connect to, or the answer that it gets instead.
pub(super) fn request(bytes: &[u8]) -> Parsed<Result<(Host, u16), Reply>> {
    parse(bytes, VERSION, |fields| {
        let [command, _reserved, kind] = fields.array()?;
        let host = match kind {
            1 => Ok(Host::Ipv4(Ipv4Addr::from(fields.array::<4>()?))),
            3 => name(fields.counted()?),
            4 => Ok(Host::Ipv6(Ipv6Addr::from(fields.array::<16>()?))),
            // How long such an address is, nobody knows.
            _ => return Some(Ok(Err(Reply::AddressTypeNotSupported))),
        };
        let port = u16::from_be_bytes(fields.array()?);
        Some(Ok(match (command, host) {
            (CONNECT, Ok(_)) if port == 0 => Err(Reply::GeneralFailure),
            (CONNECT, host) => host.map(|host| (host, port)),
            _ => Err(Reply::CommandNotSupported),
        }))
    })
}

fn parse<'a, T>(
    bytes: &'a [u8],
    version: u8,
    message: impl FnOnce(&mut Fields<'a>) -> Option<Result<T, Malformed>>,
) -> Parsed<T> {
    let mut fields = Fields(bytes);
    match fields.byte() {
        None => return Ok(None),
        Some(byte) if byte != version => return Err(Malformed),
        Some(_) => {}
    }
    match message(&mut fields) {
        None => Ok(None),
        Some(Ok(message)) => Ok(Some((message, bytes.len() - fields.0.len()))),
        Some(Err(malformed)) => Err(malformed),
    }
}

/// A name as clients send it: an address in letters, too, and a name that is not in its ASCII form yet.
fn name(bytes: &[u8]) -> Result<Host, Reply> {
    let name = std::str::from_utf8(bytes).map_err(|_| Reply::HostUnreachable)?;
    if let Ok(ip) = name.parse::<Ipv6Addr>() {
        return Ok(Host::Ipv6(ip));
    }
    Host::parse(name).map_err(|_| Reply::HostUnreachable)
}

/// The answer to a request; `bound` is our end of the connection that was made (RFC 1928 §6).
pub(super) fn reply(reply: Reply, bound: Option<SocketAddr>) -> Vec<u8> {
    let bound = bound.unwrap_or((Ipv4Addr::UNSPECIFIED, 0).into());
    let mut message = vec![VERSION, reply as u8, 0];
    match bound.ip() {
        IpAddr::V4(ip) => {
            message.push(1);
            message.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            message.push(4);
            message.extend(ip.octets());
        }
    }
    message.extend(bound.port().to_be_bytes());
    message
}

/// The answer to name and password (RFC 1929 §2): 0 is success, and all else is not.
pub(super) const fn password_reply(accepted: bool) -> [u8; 2] {
    [PASSWORD_VERSION, if accepted { 0 } else { 1 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a message says when it is whole, having checked that each part of it asks for more.
    fn whole<T: std::fmt::Debug + PartialEq>(parse: impl Fn(&[u8]) -> Parsed<T>, bytes: &[u8]) -> T {
        for part in 0..bytes.len() {
            assert_eq!(parse(&bytes[..part]), Ok(None), "{part} bytes are not enough");
        }
        let followed = [bytes, b"what follows"].concat();
        let (message, length) = parse(&followed).expect("well formed").expect("whole");
        assert_eq!(length, bytes.len());
        message
    }

    // RFC 1928 §3: version, number of methods, methods.
    #[test]
    fn a_greeting_offers_methods() {
        assert_eq!(whole(greeting, &[5, 2, 0, 2]), [0, 2]);
        assert_eq!(whole(greeting, &[5, 0]), Vec::<u8>::new());
        assert_eq!(whole(greeting, &[&[5, 255][..], &[7; 255]].concat()), [7; 255]);
        assert_eq!(greeting(&[4, 1, 0]), Err(Malformed));
    }

    // RFC 1929 §2: version 1, and two strings that have their lengths in front.
    #[test]
    fn credentials_are_a_name_and_a_password() {
        assert_eq!(whole(credentials, b"\x01\x02me\x03abc"), (b"me".to_vec(), b"abc".to_vec()));
        let longest = [&[1, 255][..], &[b'n'; 255], &[255], &[b'p'; 255]].concat();
        assert_eq!(longest.len(), MESSAGE_MAX);
        assert_eq!(whole(credentials, &longest).1.len(), 255);
        assert_eq!(credentials(b"\x05\x02me\x03abc"), Err(Malformed));
    }

    // RFC 1928 §4 and §5: the three types of address.
    #[test]
    fn a_request_names_a_host() {
        let v4 = whole(request, &[5, 1, 0, 1, 192, 0, 2, 7, 0, 80]);
        assert_eq!(v4, Ok((Host::Ipv4([192, 0, 2, 7].into()), 80)));
        let v6 = whole(request, &[&[5, 1, 0, 4][..], &Ipv6Addr::LOCALHOST.octets(), &[1, 187]].concat());
        assert_eq!(v6, Ok((Host::Ipv6(Ipv6Addr::LOCALHOST), 443)));
        for (name, host) in [
            ("example.com", "example.com"),
            ("EXAMPLE.com", "example.com"),
            ("Grüße.example", "xn--gre-6ka8l.example"),
            ("192.0.2.7", "192.0.2.7"),
            // What the C library takes for an address is one here, too, before anybody checks it.
            ("0x7f.1", "127.0.0.1"),
            ("::1", "[::1]"),
        ] {
            let bytes = [&[5, 1, 0, 3, name.len() as u8][..], name.as_bytes(), &[0, 80]].concat();
            let (parsed, port) = whole(request, &bytes).expect(name);
            assert_eq!((parsed.to_string().as_str(), port), (host, 80), "{name}");
        }
    }

    // RFC 1928 §6: what is not supported has its own answers.
    #[test]
    fn what_can_not_be_done_is_answered_with_the_reason() {
        let v4 = |command, port: u8| [5, command, 0, 1, 192, 0, 2, 7, 0, port];
        assert_eq!(whole(request, &v4(2, 80)), Err(Reply::CommandNotSupported), "BIND");
        assert_eq!(whole(request, &v4(3, 80)), Err(Reply::CommandNotSupported), "UDP ASSOCIATE");
        assert_eq!(whole(request, &v4(9, 80)), Err(Reply::CommandNotSupported));
        assert_eq!(whole(request, &v4(1, 0)), Err(Reply::GeneralFailure), "port 0");
        assert_eq!(whole(request, &[5, 1, 0, 2]), Err(Reply::AddressTypeNotSupported));
        for name in [&b""[..], b"a b", b"\xff\xfe", b"a\0b", b"."] {
            let bytes = [&[5, 1, 0, 3, name.len() as u8][..], name, &[0, 80]].concat();
            let answer = whole(request, &bytes);
            assert!(matches!(answer, Err(Reply::HostUnreachable)) || name == b".", "{name:?}: {answer:?}");
        }
        assert_eq!(request(&[4, 1, 0, 80]), Err(Malformed));
    }

    // RFC 1928 §6: the address that was bound, in either family.
    #[test]
    fn a_reply_tells_our_end() {
        assert_eq!(reply(Reply::Succeeded, None), [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let bound = Some(([10, 0, 0, 7], 258).into());
        assert_eq!(reply(Reply::Succeeded, bound), [5, 0, 0, 1, 10, 0, 0, 7, 1, 2]);
        let bound = Some((Ipv6Addr::LOCALHOST, 258).into());
        assert_eq!(reply(Reply::NotAllowed, bound).len(), 22);
        assert_eq!((password_reply(true), password_reply(false)), ([1, 0], [1, 1]));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_wait_for_more_than_the_longest_message(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)
        ) {
            let enough = bytes.len() >= MESSAGE_MAX;
            proptest::prop_assert!(!enough || !matches!(greeting(&bytes), Ok(None)));
            proptest::prop_assert!(!enough || !matches!(credentials(&bytes), Ok(None)));
            proptest::prop_assert!(!enough || !matches!(request(&bytes), Ok(None)));
        }
    }
}
