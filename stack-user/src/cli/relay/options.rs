//! What relays have in common on the command line and in a configuration: their limits.

use std::{num::NonZeroUsize, time::Duration};

use clap::Args;
use serde::{Deserialize, Deserializer};

use crate::{stack::MAX_BACKLOG, tcp::KeepAlive};

/// Probes without an answer after which a peer is taken for gone, and the time between them: with the default of a minute
/// before the first, it is noticed within two.
const KEEPALIVE_PROBES: u32 = 4;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A minute: what routers in between forget connections after is longer, even where it is short.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Long enough for a repeated SYN or three, short enough for a client to still be there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Long enough for a person at a terminal, and short enough that those who say nothing keep no place for long.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// As many as have a descriptor each way under the limits that systems come with. More idle clients than these wait
/// to be accepted; fewer would make a busy service wait.
const MAX_CONNECTIONS: usize = 10_000;

/// As everywhere. Fewer, and a burst of clients has to send its last ACK twice; more, and clients wait for a target that can't
/// keep up.
const BACKLOG: usize = 1024;

/// What a relay may take, and for how long.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Limits {
    /// Give up on connecting to a target, name resolution included, after this long
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    #[serde(deserialize_with = "some_seconds")]
    pub connect_timeout: Duration,

    /// Reset connections on which nothing was sent for this long [default: they may be idle for ever]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    #[serde(deserialize_with = "optional_seconds")]
    pub idle_timeout: Option<Duration>,

    /// Ask a peer that was silent for this long whether it is still there; 0 not to
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    #[serde(deserialize_with = "some_seconds")]
    pub keepalive: Duration,

    /// Serve this many connections at once; more wait until one ends
    #[arg(long, value_name = "N", default_value_t = MAX_CONNECTIONS, value_parser = at_least_one)]
    #[serde(deserialize_with = "some_connections")]
    pub max_connections: usize,

    /// Let this many connections that are established wait to be accepted, for each listener and queue, 4096 at most
    #[arg(long, value_name = "N", default_value_t = BACKLOG, value_parser = backlog)]
    #[serde(deserialize_with = "some_backlog")]
    pub backlog: usize,

    /// Who may connect to a socket file, as chmod takes it
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = file_mode)]
    #[serde(deserialize_with = "octal")]
    pub socket_mode: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: None,
            keepalive: KEEPALIVE,
            max_connections: MAX_CONNECTIONS,
            backlog: BACKLOG,
            socket_mode: 0o600,
        }
    }
}

impl Limits {
    /// How both ends are asked, if they are.
    pub(crate) fn probes(&self) -> Option<KeepAlive> {
        (!self.keepalive.is_zero()).then_some(KeepAlive {
            idle: self.keepalive,
            interval: KEEPALIVE_INTERVAL.min(self.keepalive),
            probes: KEEPALIVE_PROBES,
        })
    }

    /// After how long an idle connection is reset, if ever.
    pub(crate) fn idle(&self) -> Option<Duration> {
        self.idle_timeout.filter(|timeout| !timeout.is_zero())
    }
}

/// What the commands that relay have in common.
#[derive(Args, Clone, Copy, Debug)]
pub struct RelayOptions {
    /// Limits of each.
    #[command(flatten)]
    pub limits: Limits,

    /// When told to stop, let connections go on for this long before they are reset
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub grace: Duration,

    /// Print what listens, and at the end what was carried, as JSON, a line each
    #[arg(long)]
    pub json: bool,

    /// Tell of each connection, on stderr
    #[arg(short, long)]
    pub verbose: bool,
}

/// Reads seconds, with a fraction or without.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let told = || format!("'{text}' is no number of seconds");
    let number = text.parse::<f64>().map_err(|_| told())?;
    in_range(number).ok_or_else(told)
}

/// A year is as good as for ever, and what more there could be overflows clocks.
fn in_range(seconds: f64) -> Option<Duration> {
    (0.0..=31_536_000.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| format!("'{text}' is not 1 or more"))
}

fn backlog(text: &str) -> Result<usize, String> {
    let number = text.parse().map_err(|_| format!("'{text}' is no number"))?;
    backlog_in_range(number)
}

fn backlog_in_range(number: usize) -> Result<usize, String> {
    match number {
        1..=MAX_BACKLOG => Ok(number),
        _ => Err(format!("{number} is not within 1 to {MAX_BACKLOG}")),
    }
}

fn file_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("'{text}' is no mode of a file: three octal digits, such as 660"))
}

pub(crate) fn some_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let number = f64::deserialize(deserializer)?;
    in_range(number).ok_or_else(|| serde::de::Error::custom(format!("{number} is no number of seconds")))
}

fn optional_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    some_seconds(deserializer).map(Some)
}

fn some_connections<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    Ok(NonZeroUsize::deserialize(deserializer)?.get())
}

fn some_backlog<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    backlog_in_range(usize::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Modes of files are written as strings, since numbers would be decimal.
fn octal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    file_mode(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_same_wherever_they_are_not_given() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            limits: Limits,
        }
        let line = <Line as clap::Parser>::parse_from(["line"]);
        assert_eq!(line.limits, Limits::default());
        assert_eq!(toml::from_str::<Limits>("").expect("an empty table"), Limits::default());
    }

    #[test]
    fn a_configuration_is_read_and_its_mistakes_are_told() {
        let limits: Limits = toml::from_str(
            "connect-timeout = 2\nidle-timeout = 1.5\nkeepalive = 0\nsocket-mode = '660'\nmax-connections = 7\n\
             backlog = 4096",
        )
        .expect("parses");
        assert_eq!(limits.connect_timeout, Duration::from_secs(2));
        assert_eq!(limits.idle(), Some(Duration::from_millis(1500)));
        assert_eq!((limits.probes(), limits.socket_mode, limits.max_connections), (None, 0o660, 7));
        assert_eq!(limits.backlog, 4096);
        for (wrong, says) in [
            ("connect-timeout = -1", "seconds"),
            ("idle-timeout = 1e300", "seconds"),
            ("socket-mode = '999'", "octal"),
            ("keep-alive = 1", "unknown field"),
            ("backlog = 0", "0 is not within 1 to 4096"),
            ("backlog = 4097", "4097 is not within 1 to 4096"),
        ] {
            let error = toml::from_str::<Limits>(wrong).expect_err(wrong).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
