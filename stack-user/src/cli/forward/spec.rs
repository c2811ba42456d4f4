//! What is forwarded: from where to where, and what the target is told about the client.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::Deserialize;

use crate::cli::relay::{Endpoint, Listen, Side, Target};

/// One forward.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Spec {
    /// Where connections come in.
    pub from: Listen,
    /// Where they go to.
    pub to: Target,
    /// How the target is told where they came from, if at all.
    pub proxy_protocol: Option<ProxyProtocol>,
}

/// The versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// A line of text
    V1,
    /// A binary header
    V2,
}

/// As it stands in a configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Written {
    from: String,
    to: String,
    proxy_protocol: Option<ProxyProtocol>,
}

impl TryFrom<Written> for Spec {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let spec = Self::new(&written.from, &written.to)?;
        Ok(Self { proxy_protocol: written.proxy_protocol, ..spec })
    }
}

impl Spec {
    /// A forward as the command line has it. It comes in on our side unless `from` says otherwise, and goes on to the other
    /// side unless `to` does.
    ///
    /// # Errors
    /// What is wrong with which of the two.
    pub fn new(from: &str, to: &str) -> Result<Self, String> {
        let parse = |text: &str| text.parse::<Endpoint>();
        let from = parse(from).and_then(|from| Listen::new(from, Side::Ours));
        let from = from.map_err(|error| {
            format!("FROM is where to listen, [ours:|kernel:]ADDR:PORT or unix:PATH: {error}")
        })?;
        let to = parse(to).and_then(|to| Target::new(to, from.side().other()));
        let to =
            to.map_err(|error| format!("TO is the target, [ours:|kernel:]HOST:PORT or unix:PATH: {error}"))?;
        if from.side() == Side::Kernel && to.side() == Side::Kernel {
            return Err(format!("neither {from} nor {to} is on our stack: socat does that without us"));
        }
        let ports = match &from {
            Listen::Tcp(_, _, ports) => ports.count(),
            Listen::Unix(_) => 1,
        };
        if to.ports() != 1 && to.ports() != ports {
            return Err(format!(
                "{from} has {ports} ports and {to} has {}: give as many, or one",
                to.ports()
            ));
        }
        Ok(Self { from, to, proxy_protocol: None })
    }
}

impl FromStr for Spec {
    type Err = String;

    /// `FROM TO`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.trim().split_once(' ').ok_or("a forward is FROM TO")?;
        Self::new(from, to.trim_start())
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_side_is_meant_when_none_is_named() {
        for (text, means) in [
            ("80 8080", "ours:0.0.0.0:80 -> kernel:127.0.0.1:8080"),
            ("80-81 unix:/run/app", "ours:0.0.0.0:80-81 -> unix:/run/app"),
            ("kernel:127.0.0.1:22 host.example:22", "kernel:127.0.0.1:22 -> ours:host.example:22"),
            ("unix:/run/db  10.0.0.9:5432", "unix:/run/db -> ours:10.0.0.9:5432"),
            ("80 ours:10.0.0.9:80", "ours:0.0.0.0:80 -> ours:10.0.0.9:80"),
            ("80-82 9080-9082", "ours:0.0.0.0:80-82 -> kernel:127.0.0.1:9080-9082"),
        ] {
            assert_eq!(text.parse::<Spec>().map(|spec| spec.to_string()).as_deref(), Ok(means), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_reason() {
        for (text, says) in [
            ("80", "FROM TO"),
            ("80 x", "TO is"),
            ("x 80", "FROM is"),
            ("kernel:80 kernel:81", "neither"),
            ("unix:/a unix:/b", "neither"),
            ("80-82 80-81", "3 ports"),
            ("80 80-81", "1 ports"),
        ] {
            let error = text.parse::<Spec>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_configuration_has_the_same_words() {
        let spec: Spec = toml::from_str("from = '80'\nto = 'app:80'\nproxy-protocol = 'v2'").expect("parses");
        let expected =
            Spec { proxy_protocol: Some(ProxyProtocol::V2), ..Spec::new("80", "app:80").expect("ok") };
        assert_eq!(spec, expected);
        for wrong in ["from = '80'", "from = '80'\nto = '80'\nvia = 'x'", "from = 'x'\nto = '80'"] {
            toml::from_str::<Spec>(wrong).expect_err(wrong);
        }
    }
}
