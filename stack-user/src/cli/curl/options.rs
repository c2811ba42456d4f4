//! The options of `xstack curl`, named and abbreviated as curl's.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::in_order::{DataOptions, OutputOptions};
use super::target::Origin;
use crate::cli::control::choice::DaemonOptions;
use crate::cli::error::Failure;

/// Transfer URLs over HTTP/1.1, with this stack instead of the kernel's.
#[derive(Args, Debug)]
pub struct CurlOptions {
    /// What to fetch; `http://` may be left out
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,

    /// Where the bodies go.
    #[command(flatten)]
    pub outputs: OutputOptions,

    /// What to send.
    #[command(flatten)]
    pub data: DataOptions,

    /// Whose network is used.
    #[command(flatten)]
    pub daemon: DaemonOptions,

    /// Use this request method
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    pub method: Option<String>,

    /// Ask for the response's head only, and print it
    #[arg(short = 'I', long)]
    pub head: bool,

    /// Print the response's head in front of the body
    #[arg(short = 'i', long)]
    pub include: bool,

    /// Tell what happens, on stderr: `*` the stack, `>` what we send, `<` what the server sends
    #[arg(short = 'v', long)]
    pub verbose: bool,

    /// No progress bar and no error messages
    #[arg(short = 's', long)]
    pub silent: bool,

    /// Print error messages even with --silent
    #[arg(short = 'S', long)]
    pub show_error: bool,

    /// Fail with exit code 22 if the status is 400 or above, without printing the body
    #[arg(short = 'f', long)]
    pub fail: bool,

    /// Send this header; `NAME:` leaves one of ours out, `NAME;` sends an empty one
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", allow_hyphen_values = true)]
    pub headers: Vec<String>,

    /// Call ourselves this
    #[arg(short = 'A', long, value_name = "NAME", allow_hyphen_values = true)]
    pub user_agent: Option<String>,

    /// Log in with this name and password (Basic)
    #[arg(short = 'u', long, value_name = "NAME:PASSWORD", allow_hyphen_values = true)]
    pub user: Option<String>,

    /// Follow redirects
    #[arg(short = 'L', long)]
    pub location: bool,

    /// Follow at most this many redirects; -1 for any number
    #[arg(long, value_name = "N", default_value_t = 50, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1..=i64::from(u32::MAX)))]
    pub max_redirs: i64,

    /// Give up on a URL after this long
    #[arg(short = 'm', long, value_name = "SECONDS", value_parser = seconds)]
    pub max_time: Option<Duration>,

    /// Give up on connecting, name resolution included, after this long [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub connect_timeout: Option<Duration>,

    /// Use these addresses for the host and port; `*` stands for any host
    #[arg(long, value_name = "HOST:PORT:ADDR[,ADDR]...", action = ArgAction::Append)]
    pub resolve: Vec<String>,
}

impl CurlOptions {
    /// The limit on redirects, if there is one.
    pub(super) fn redirect_limit(&self) -> Option<u32> {
        u32::try_from(self.max_redirs).ok()
    }

    /// Whether failures are told on stderr.
    pub(super) fn shows_errors(&self) -> bool {
        !self.silent || self.show_error
    }
}

/// A number of seconds, with a fraction if need be; 0 means no limit, as with curl.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|_| "expected a number of seconds, not negative".to_owned())
}

/// One `--resolve`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Override {
    host: String,
    port: u16,
    /// The addresses to use instead of asking.
    pub(super) addresses: Vec<IpAddr>,
}

impl Override {
    /// Parses `HOST:PORT:ADDR[,ADDR]...`; a `+` in front, which curl uses for time-outs, changes nothing here.
    pub(super) fn parse(entry: &str) -> Result<Self, Failure> {
        Self::parts(entry.strip_prefix('+').unwrap_or(entry))
            .ok_or_else(|| Failure::BadResolveEntry { entry: entry.to_owned() })
    }

    fn parts(entry: &str) -> Option<Self> {
        let (host, rest) = entry.split_once(':')?;
        let (port, addresses) = rest.split_once(':')?;
        let addresses = addresses
            .split(',')
            .map(|address| address.trim_start_matches('[').trim_end_matches(']').parse().ok())
            .collect::<Option<Vec<IpAddr>>>()?;
        let port = port.parse().ok()?;
        (!host.is_empty()).then(|| Self { host: host.to_ascii_lowercase(), port, addresses })
    }

    /// Whether this is about `origin`.
    pub(super) fn matches(&self, origin: &Origin) -> bool {
        self.port == origin.port && (self.host == "*" || self.host == origin.host)
    }
}

/// A file given as `@FILE`, or `-` for standard input.
pub(super) fn read_file(name: &str) -> Result<Vec<u8>, Failure> {
    let path = PathBuf::from(name);
    let read = match name {
        "-" => {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes).map(|_| bytes)
        }
        _ => std::fs::read(&path),
    };
    read.map_err(|source| Failure::ReadFile { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolve_entry_is_bound_to_host_and_port() {
        let entry = Override::parse("Example.com:80:10.0.0.1,[::1]").expect("parses");
        assert_eq!(entry.addresses.len(), 2);
        let origin = |host: &str, port| Origin { host: host.into(), port };
        assert!(entry.matches(&origin("example.com", 80)));
        assert!(!entry.matches(&origin("example.com", 81)));
        assert!(!entry.matches(&origin("example.org", 80)));
        assert!(Override::parse("*:80:10.0.0.1").expect("parses").matches(&origin("any", 80)));
        for bad in ["", "foo", "h:80", "h:80:", "h:x:10.0.0.1", ":80:10.0.0.1", "h:80:host"] {
            assert_eq!(Override::parse(bad).map_err(|f| f.exit().code()), Err(49), "{bad}");
        }
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["", "x", "-1", "NaN", "inf", "1e300"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
