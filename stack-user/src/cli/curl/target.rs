//! What to fetch: a URL as curl reads it, which is more lenient than a browser's in some places and less in others.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use url::{Host, ParseError, Url};

use crate::cli::error::Failure;

/// An `http://` URL.
#[derive(Clone, Debug)]
pub(super) struct Target {
    url: Url,
}

/// A host and a port: what a connection goes to, and what secrets are bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The name (in its ASCII form) or address.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
}

/// The name and password of `http://name:password@host/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    /// May be empty.
    pub(super) name: Vec<u8>,
    /// May be empty.
    pub(super) password: Vec<u8>,
}

impl Target {
    /// Reads what the user wrote; without a scheme it is `http`.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        if let Some(bad) = text.chars().find(|c| c.is_ascii_control() || *c == ' ') {
            return Err(Failure::BadUrl {
                reason: format!("{bad:?} is not allowed, write it as %{:02X}", bad as u32),
            });
        }
        let url = match scheme(text) {
            Some(_) => Url::parse(text),
            None => Url::parse(&format!("http://{text}")),
        };
        match url {
            Ok(url) => Self::from_url(url),
            // The scheme decides first: whatever follows `ftpx:` is none of our business.
            Err(error) => match scheme(text) {
                Some(other) if !is_http(other) => Err(unsupported(other)),
                _ => Err(Failure::BadUrl { reason: explain(error) }),
            },
        }
    }

    /// Where a `Location:` on this target leads.
    pub(super) fn join(&self, location: &str) -> Result<Self, Failure> {
        let url = self.url.join(location).map_err(|error| Failure::BadRedirect { reason: explain(error) })?;
        Self::from_url(url)
    }

    fn from_url(url: Url) -> Result<Self, Failure> {
        match url.scheme() {
            "http" => Ok(Self { url }),
            other => Err(unsupported(other)),
        }
    }

    /// Where to connect to.
    pub(super) fn origin(&self) -> Origin {
        let host = match self.url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(address)) => address.to_string(),
            Some(Host::Ipv6(address)) => address.to_string(),
            None => String::new(), // An http URL has a host: the parser sees to it.
        };
        Origin { host, port: self.url.port_or_known_default().unwrap_or(80) }
    }

    /// The `Host:` header: without the port if it is the scheme's own (RFC 9110 §7.2).
    pub(super) fn authority(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// The request's target in origin form (RFC 9112 §3.2.1).
    pub(super) fn path_and_query(&self) -> String {
        match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        }
    }

    /// The credentials in the URL.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        if self.url.username().is_empty() && self.url.password().is_none() {
            return None;
        }
        Some(Credentials {
            name: percent_decode_str(self.url.username()).collect(),
            password: percent_decode_str(self.url.password().unwrap_or_default()).collect(),
        })
    }

    /// What `-O` calls the file: the path's last part. It cannot lead out of the directory, since it has no
    /// slash and the parser has resolved `.` and `..`.
    pub(super) fn file_name(&self) -> Option<&str> {
        self.url.path_segments()?.next_back().filter(|name| !name.is_empty())
    }
}

impl Origin {
    /// The host, if it is an address.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// What stands before `://`. A mere colon does not make a scheme: `example.com:8080/` has none.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    valid.then_some(scheme)
}

fn is_http(scheme: &str) -> bool {
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

fn unsupported(scheme: &str) -> Failure {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("https") => Failure::TlsNotBuiltIn,
        other => Failure::UnsupportedProtocol { scheme: other.to_owned() },
    }
}

fn explain(error: ParseError) -> String {
    match error {
        ParseError::EmptyHost => "No host part in the URL".to_owned(),
        ParseError::InvalidPort => "Port number was not a decimal number between 0 and 65535".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(text: &str) -> Target {
        Target::parse(text).unwrap_or_else(|failure| panic!("{text}: {failure}"))
    }

    #[test]
    fn the_scheme_and_the_path_may_be_missing() {
        for text in [
            "example.com",
            "http://example.com",
            "HTTP://EXAMPLE.com/",
            "http:///example.com/",
            "example.com:80",
        ] {
            let target = target(text);
            assert_eq!(target.origin(), Origin { host: "example.com".into(), port: 80 });
            assert_eq!((target.authority().as_str(), target.path_and_query().as_str()), ("example.com", "/"));
        }
    }

    #[test]
    fn the_host_header_names_a_port_that_is_not_the_default() {
        let target = target("localhost:8080/a/b?c=http://d#fragment");
        assert_eq!(target.authority(), "localhost:8080");
        assert_eq!(target.path_and_query(), "/a/b?c=http://d");
        assert_eq!(target.file_name(), Some("b"));
    }

    #[test]
    fn international_names_travel_as_punycode() {
        assert_eq!(target("http://bücher.example/").origin().host, "xn--bcher-kva.example");
    }

    #[test]
    fn an_ipv6_literal_is_an_address() {
        let target = target("http://[::1]:8080/");
        assert_eq!(target.origin().address(), Some("::1".parse().expect("address")));
        assert_eq!(target.authority(), "[::1]:8080");
    }

    #[test]
    fn credentials_are_decoded() {
        let expected = Credentials { name: b"a@b".to_vec(), password: b"c:d".to_vec() };
        assert_eq!(target("http://a%40b:c%3Ad@h/").credentials(), Some(expected));
        assert_eq!(target("http://h/").credentials(), None);
    }

    #[test]
    fn each_kind_of_bad_url_has_its_exit_code() {
        let code = |text: &str| Target::parse(text).map(|_| ()).map_err(|failure| failure.exit().code());
        for text in
            ["", "http://", "http://a b/", "http://h:99999/", "http://[::1/", "http://h/\u{7}", "http://h:x/"]
        {
            assert_eq!(code(text), Err(3), "{text:?}");
        }
        for text in ["https://h/", "ftp://h/", "ftpx://h", "file:///etc/passwd", "HTTPS://h"] {
            assert_eq!(code(text), Err(1), "{text:?}");
        }
    }

    #[test]
    fn a_redirect_may_be_relative_but_stays_http() {
        let base = target("http://h/a/b?q");
        assert_eq!(base.join("../c").expect("relative").path_and_query(), "/c");
        assert_eq!(base.join("//other/x").expect("scheme-relative").origin().host, "other");
        assert_eq!(base.join("http://").map(|_| ()).map_err(|f| f.exit().code()), Err(3));
        assert_eq!(base.join("https://h/").map(|_| ()).map_err(|f| f.exit().code()), Err(1));
    }

    #[test]
    fn a_remote_name_stays_in_the_directory() {
        assert_eq!(target("http://h/a/..").file_name(), None);
        assert_eq!(target("http://h/a/%2e%2e").file_name(), None);
        assert_eq!(target("http://h").file_name(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_a_url_or_an_error(text in any::<String>(), location in any::<String>()) {
            if let Ok(target) = Target::parse(&text) {
                prop_assert!(target.path_and_query().starts_with('/'));
                prop_assert!(!target.origin().host.is_empty());
                prop_assert!(target.file_name().is_none_or(|name| !name.contains('/') && name != ".."));
                let _ = target.join(&location);
            }
        }
    }
}
