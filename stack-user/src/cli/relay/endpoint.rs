//! Where connections come in and go to, as a user writes it: `[ours:|kernel:]HOST:PORT` or `unix:PATH`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use url::Host;

/// Ports of one range: each costs a listener, and beyond a thousand it is a mistake more likely than a wish.
const PORTS_MAX: u16 = 1024;

/// Whose sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Our own stack's: an address that we have claimed.
    Ours,
    /// The kernel's.
    Kernel,
}

impl Side {
    /// The one opposite.
    pub const fn other(self) -> Self {
        match self {
            Self::Ours => Self::Kernel,
            Self::Kernel => Self::Ours,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Kernel => "kernel",
        }
    }
}

/// One port, or several that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// Just this one.
    pub const fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// The first of them.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// How many there are, one at least.
    pub const fn count(self) -> u16 {
        self.last - self.first + 1
    }

    /// The one that is so many after the first; if there is just one, it is that.
    pub const fn nth(self, index: u16) -> u16 {
        if self.count() == 1 { self.first } else { self.first + index }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>()
                .ok()
                .filter(|_| digits)
                .ok_or_else(|| format!("'{text}' is not a port: 0 to 65535"))
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if last < first || (first == 0 && last > 0) {
            return Err(format!(
                "the range of ports {text} has its ends the wrong way round, or begins with 0"
            ));
        }
        if last - first >= PORTS_MAX {
            return Err(format!("the range of ports {text} has more than {PORTS_MAX} ports"));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            1 => write!(f, "{}", self.first),
            _ => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

/// An endpoint as it was written. Which side it is on may follow from where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    side: Option<Side>,
    place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// An address or a name, or none.
    Tcp(Option<Host>, Ports),
    Unix(PathBuf),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            // The kernel's limit, with the zero that ends it: a longer one fails later, and less clearly.
            return match path.len() {
                0 => Err("unix: needs the path of a socket, unix:PATH".to_owned()),
                1..108 if !path.contains('\0') => Ok(Self { side: None, place: Place::Unix(path.into()) }),
                _ => Err(format!("the path of a socket may have 107 bytes, and '{path}' is longer")),
            };
        }
        let (side, rest) = match text.split_once(':') {
            Some(("ours", rest)) => (Some(Side::Ours), rest),
            Some(("kernel", rest)) => (Some(Side::Kernel), rest),
            _ => (None, text),
        };
        let (host, ports) = rest.rsplit_once(':').unwrap_or(("", rest));
        let host = match host {
            "" | "*" => None,
            host if host.contains(':') && !host.starts_with('[') => {
                return Err(format!("'{text}': write the address of IPv6 in brackets, [{host}]:PORT"));
            }
            host => Some(Host::parse(host).map_err(|error| format!("'{host}' is no host: {error}"))?),
        };
        Ok(Self { side, place: Place::Tcp(host, ports.parse()?) })
    }
}

/// Where connections come in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Listen {
    /// On an address and its ports; on every address of that side, if it is unspecified.
    Tcp(Side, IpAddr, Ports),
    /// On a socket file.
    Unix(PathBuf),
}

impl Listen {
    /// What was written, `side` being the one that is meant when none is named.
    ///
    /// # Errors
    /// When it names a host: nobody listens on a name.
    pub fn new(endpoint: Endpoint, side: Side) -> Result<Self, String> {
        let side = endpoint.side.unwrap_or(side);
        match endpoint.place {
            Place::Unix(path) => Ok(Self::Unix(path)),
            Place::Tcp(host, ports) => match host {
                None => Ok(Self::Tcp(side, Ipv4Addr::UNSPECIFIED.into(), ports)),
                Some(Host::Ipv4(ip)) => Ok(Self::Tcp(side, ip.into(), ports)),
                Some(Host::Ipv6(_)) if side == Side::Ours => {
                    Err("our stack does not speak IPv6 yet: listen on an address of IPv4".to_owned())
                }
                Some(Host::Ipv6(ip)) => Ok(Self::Tcp(side, ip.into(), ports)),
                Some(Host::Domain(name)) if name == "localhost" && side == Side::Kernel => {
                    Ok(Self::Tcp(side, Ipv4Addr::LOCALHOST.into(), ports))
                }
                Some(Host::Domain(name)) => {
                    Err(format!("'{name}' is a name: give the address to listen on, or none for all"))
                }
            },
        }
    }

    /// The side that clients are on; a socket file is the kernel's.
    pub fn side(&self) -> Side {
        match self {
            Self::Tcp(side, ..) => *side,
            Self::Unix(_) => Side::Kernel,
        }
    }

    /// Whether programs of this host alone can reach whoever listens there.
    pub(crate) fn is_private(&self) -> bool {
        match self {
            Self::Tcp(Side::Kernel, ip, _) => ip.is_loopback(),
            Self::Tcp(Side::Ours, ..) => false,
            Self::Unix(_) => true,
        }
    }

    /// Whether both can't be listened on at once.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Tcp(one_side, one, a), Self::Tcp(other_side, other, b)) => {
                let same_address = one == other || one.is_unspecified() || other.is_unspecified();
                // Port 0 is another one each time.
                let same_port = a.first <= b.last && b.first <= a.last && a.first != 0 && b.first != 0;
                one_side == other_side && same_address && same_port
            }
            _ => false,
        }
    }

    /// The addresses and ports to listen on.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Tcp(_, ip, ports) => {
                (0..ports.count()).map(|index| SocketAddr::new(*ip, ports.nth(index))).collect()
            }
            Self::Unix(_) => Vec::new(),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(side, IpAddr::V6(ip), ports) => write!(f, "{}:[{ip}]:{ports}", side.name()),
            Self::Tcp(side, ip, ports) => write!(f, "{}:{ip}:{ports}", side.name()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where connections go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a host, through the sockets of a side.
    Tcp(Side, Host, Ports),
    /// To whoever listens on a socket file.
    Unix(PathBuf),
}

impl Target {
    /// What was written, `side` being the one that is meant when none is named.
    ///
    /// # Errors
    /// When it does not say which host, or which port.
    pub fn new(endpoint: Endpoint, side: Side) -> Result<Self, String> {
        let side = endpoint.side.unwrap_or(side);
        match endpoint.place {
            Place::Unix(path) => Ok(Self::Unix(path)),
            Place::Tcp(_, ports) if ports.first == 0 => Err("nobody can be reached at port 0".to_owned()),
            Place::Tcp(Some(host), ports) => Ok(Self::Tcp(side, host, ports)),
            Place::Tcp(None, ports) if side == Side::Kernel => {
                Ok(Self::Tcp(side, Host::Ipv4(Ipv4Addr::LOCALHOST), ports))
            }
            Place::Tcp(None, ports) => Err(format!("which host? write HOST:{ports}")),
        }
    }

    /// How many ports it has.
    pub fn ports(&self) -> u16 {
        match self {
            Self::Tcp(_, _, ports) => ports.count(),
            Self::Unix(_) => 1,
        }
    }

    /// The side through which it is reached; a socket file is the kernel's.
    pub fn side(&self) -> Side {
        match self {
            Self::Tcp(side, ..) => *side,
            Self::Unix(_) => Side::Kernel,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(side, host, ports) => write!(f, "{}:{host}:{ports}", side.name()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Two that want the same place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{first} and {second} overlap: only one can listen there")]
pub struct Overlap {
    /// The one that comes first.
    pub first: Listen,
    /// The one that is in its way.
    pub second: Listen,
}

/// Makes sure that no two of them listen in the same place.
///
/// # Errors
/// The first two that do.
pub fn check_disjoint<'a>(all: impl IntoIterator<Item = &'a Listen>) -> Result<(), Overlap> {
    let all: Vec<_> = all.into_iter().collect();
    for (index, first) in all.iter().enumerate() {
        if let Some(second) = all[index + 1..].iter().find(|second| first.overlaps(second)) {
            return Err(Overlap { first: (*first).clone(), second: (*second).clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(text: &str) -> Result<String, String> {
        Listen::new(text.parse()?, Side::Ours).map(|listen| listen.to_string())
    }

    fn target(text: &str) -> Result<String, String> {
        Target::new(text.parse()?, Side::Kernel).map(|target| target.to_string())
    }

    #[test]
    fn what_is_left_out_has_the_obvious_meaning() {
        for (text, means) in [
            ("80", "ours:0.0.0.0:80"),
            (":80", "ours:0.0.0.0:80"),
            ("*:80-82", "ours:0.0.0.0:80-82"),
            ("10.0.0.7:80", "ours:10.0.0.7:80"),
            ("kernel:80", "kernel:0.0.0.0:80"),
            ("kernel:localhost:80", "kernel:127.0.0.1:80"),
            ("kernel:[::1]:0", "kernel:[::1]:0"),
            ("unix:/run/x", "unix:/run/x"),
        ] {
            assert_eq!(listen(text).as_deref(), Ok(means), "{text}");
        }
        for (text, means) in [
            ("80", "kernel:127.0.0.1:80"),
            ("host.example:80", "kernel:host.example:80"),
            ("ours:Grüße.example:80", "ours:xn--gre-6ka8l.example:80"),
            ("[::1]:80-81", "kernel:[::1]:80-81"),
            ("unix:x", "unix:x"),
        ] {
            assert_eq!(target(text).as_deref(), Ok(means), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (text, says) in [
            ("", "not a port"),
            ("x", "not a port"),
            ("10.0.0.7:", "not a port"),
            ("10.0.0.7:65536", "not a port"),
            ("10.0.0.7:+8", "not a port"),
            ("10.0.0.7:9-8", "wrong way round"),
            ("10.0.0.7:0-8", "begins with 0"),
            ("10.0.0.7:1-2000", "1024"),
            ("::1:80", "brackets"),
            ("[::1]:80", "IPv6"),
            ("a b:80", "no host"),
            ("example.com:80", "is a name"),
            ("unix:", "path"),
        ] {
            let error = listen(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
        assert!(listen(&format!("unix:/{}", "x".repeat(107))).is_err());
        assert!(target("host:0").is_err());
        assert!(target("ours:80").is_err_and(|error| error.contains("which host")));
    }

    #[test]
    fn two_in_one_place_are_found() {
        let listen = |text: &str| Listen::new(text.parse().expect("parses"), Side::Ours).expect("listens");
        let overlap = |a, b| check_disjoint(&[listen("7"), listen(a), listen(b)]).is_err();
        assert!(overlap("10.0.0.7:80", "10.0.0.7:80"));
        assert!(overlap("10.0.0.7:80", "80"), "an unspecified address is each of them");
        assert!(overlap("10.0.0.7:80-90", "10.0.0.7:90-99"));
        assert!(overlap("unix:/x", "unix:/x"));
        assert!(!overlap("10.0.0.7:80", "10.0.0.8:80"));
        assert!(!overlap("10.0.0.7:80", "kernel:10.0.0.7:80"), "they are different stacks");
        assert!(!overlap("10.0.0.7:80-89", "10.0.0.7:90"));
        assert!(!overlap("0", "0"), "a free port is another one each time");
        assert!(!overlap("unix:/x", "unix:/y"));
    }
}
