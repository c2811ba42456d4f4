//! What a proxy may do, and for whom.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use ipnet::IpNet;
use serde::Deserialize;

use crate::cli::relay::options::{self, HANDSHAKE_TIMEOUT};
use crate::cli::relay::{Endpoint, Listen, Side};

/// The port that proxies of this kind have.
const DEFAULT_LISTEN: &str = "kernel:127.0.0.1:1080";

/// One proxy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Config {
    /// Where clients come in, all on one side; what they ask for is connected to through the other one.
    pub listen: Vec<Listen>,
    /// What is spoken.
    pub protocol: Protocol,
    /// Who may use it; anybody, if this is empty.
    pub users: Vec<User>,
    /// From where it may be used; from anywhere, if this is empty.
    pub allow: Vec<Network>,
    /// Whether clients that came in on our side may have the host's own loopback connected to.
    pub allow_loopback: bool,
    /// How long a client may take to say what it wants.
    pub handshake_timeout: Duration,
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Either, as the client's first byte tells
    #[default]
    Auto,
    /// SOCKS version 5 only
    Socks5,
    /// HTTP only
    Http,
}

/// A name and its password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct User {
    name: String,
    password: String,
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Nothing is quoted: it may be a password.
        let (name, password) = text.split_once(':').ok_or("a user is NAME:PASSWORD")?;
        // RFC 1929 §2: both have 1 to 255 bytes.
        if [name, password].iter().any(|part| part.is_empty() || part.len() > 255) {
            return Err("a user is NAME:PASSWORD, each of 1 to 255 bytes".to_owned());
        }
        Ok(Self { name: name.to_owned(), password: password.to_owned() })
    }
}

impl TryFrom<String> for User {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Passwords are in no log.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("User").field(&self.name).finish()
    }
}

impl User {
    /// Whether it is this one. How long that takes does not tell where they differ.
    fn is(&self, name: &[u8], password: &[u8]) -> bool {
        let differ = |ours: &[u8], theirs: &[u8]| {
            let bits = ours.iter().zip(theirs).fold(0, |bits, (a, b)| bits | (a ^ b));
            ours.len() != theirs.len() || bits != 0
        };
        !(differ(self.name.as_bytes(), name) | differ(self.password.as_bytes(), password))
    }
}

/// Addresses that clients may have: a network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| format!("'{text}' is no network: ADDR/PREFIX, or ADDR"))
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// As it stands in a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Written {
    listen: Vec<String>,
    protocol: Protocol,
    users: Vec<User>,
    allow: Vec<Network>,
    allow_loopback: bool,
    #[serde(deserialize_with = "options::some_seconds")]
    handshake_timeout: Duration,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            protocol: Protocol::Auto,
            users: Vec::new(),
            allow: Vec::new(),
            allow_loopback: false,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

impl TryFrom<Written> for Config {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { listen, protocol, users, allow, allow_loopback, handshake_timeout } = written;
        let listen = Self::places(&listen)?;
        Self { listen, protocol, users, allow, allow_loopback, handshake_timeout }.checked()
    }
}

impl Config {
    /// The places to listen on, on the kernel's side unless they say otherwise.
    pub(super) fn places(written: &[String]) -> Result<Vec<Listen>, String> {
        let place = |text: &str| Listen::new(text.parse::<Endpoint>()?, Side::Kernel);
        match written {
            [] => Ok(vec![place(DEFAULT_LISTEN)?]),
            written => written.iter().map(|text| place(text)).collect(),
        }
    }

    /// The same, if it makes sense and is no proxy for everybody.
    pub(super) fn checked(self) -> Result<Self, String> {
        if let Some(other) = self.listen.iter().find(|listen| listen.side() != self.side()) {
            let first = &self.listen[0];
            return Err(format!(
                "{first} and {other} are on different sides, and one proxy leads to one side: start two"
            ));
        }
        let open = self.listen.iter().find(|listen| !listen.is_private());
        if let Some(open) = open.filter(|_| self.users.is_empty() && self.allow.is_empty()) {
            return Err(format!(
                "{open} can be reached by others, who could hide behind this host: name who may use it by --user-password \
                 NAME:PASSWORD or --allow CIDR, or listen on loopback or on a socket file"
            ));
        }
        Ok(self)
    }

    /// The side that clients come in on.
    pub fn side(&self) -> Side {
        self.listen.first().map_or(Side::Kernel, Listen::side)
    }

    /// Whether a client with this address may use it. One on a socket file has none: the file's mode decides.
    pub(super) fn allows(&self, peer: Option<SocketAddr>) -> bool {
        let allows =
            |peer: SocketAddr| self.allow.iter().any(|network| network.0.contains(&peer.ip().to_canonical()));
        self.allow.is_empty() || peer.is_none_or(allows)
    }

    /// Whether a client must say who it is.
    pub(super) fn asks(&self) -> bool {
        !self.users.is_empty()
    }

    /// Whether this is one of the users.
    pub(super) fn knows(&self, name: &[u8], password: &[u8]) -> bool {
        // All are looked at, so that the time does not tell which name there is.
        self.users.iter().fold(false, |known, user| known | user.is(name, password))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_at_all_is_a_proxy_on_loopback() {
        let config: Config = toml::from_str("").expect("an empty table");
        assert_eq!(config.listen[0].to_string(), "kernel:127.0.0.1:1080");
        assert!(config.allows(Some(([10, 0, 0, 9], 1).into())) && !config.asks());
    }

    #[test]
    fn a_proxy_that_others_reach_needs_users_or_networks() {
        for open in
            ["listen = ['kernel:1080']", "listen = ['ours:1080']", "listen = ['unix:/x', '10.0.0.7:1']"]
        {
            let error = toml::from_str::<Config>(open).expect_err(open).to_string();
            assert!(error.contains("--user-password") && error.contains("--allow"), "{error}");
            for closes in ["users = ['me:secret']", "allow = ['10.0.0.0/8']"] {
                toml::from_str::<Config>(&format!("{open}\n{closes}")).expect(closes);
            }
        }
        toml::from_str::<Config>("listen = ['unix:/x', 'kernel:[::1]:1', 'localhost:2']")
            .expect("are private");
    }

    #[test]
    fn mistakes_are_told_and_passwords_are_not() {
        for (wrong, says) in [
            ("listen = ['1080', 'ours:1080']\nallow = ['10.0.0.0/8']", "different sides"),
            ("allow = ['10.0.0.0/33']", "no network"),
            ("users = ['secret']", "NAME:PASSWORD"),
            ("users = [':secret']", "1 to 255"),
            ("protocol = 'socks4'", "unknown variant"),
            ("open = true", "unknown field"),
        ] {
            let error = toml::from_str::<Config>(wrong).map_err(|error| error.message().to_owned());
            let error = error.expect_err(wrong);
            assert!(error.contains(says) && !error.contains("secret"), "{error}");
        }
        let user: User = "me:secret".parse().expect("a user");
        assert_eq!(format!("{user:?}"), "User(\"me\")");
    }

    #[test]
    fn only_those_named_may_use_it() {
        let config: Config =
            toml::from_str("users = ['me:a:b', 'you:c']\nallow = ['10.0.0.0/8', '192.0.2.7']")
                .expect("parses");
        let from = |ip: &str| config.allows(Some(SocketAddr::new(ip.parse().expect("an address"), 1)));
        assert!(from("10.9.9.9") && from("192.0.2.7") && from("::ffff:10.0.0.1") && config.allows(None));
        assert!(!from("192.0.2.8") && !from("::1"));
        assert!(config.knows(b"me", b"a:b") && config.knows(b"you", b"c"));
        assert!(!config.knows(b"me", b"c") && !config.knows(b"me", b"") && !config.knows(b"me", b"a:b "));
    }
}
