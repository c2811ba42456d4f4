//! The options of `xstack serve`, in the words of nginx and curl.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{ArgAction, Args};

use crate::cli::error::Failure;

/// Serve the files of a directory over HTTP/1.1, with this stack instead of the kernel's.
#[derive(Args, Debug)]
pub struct ServeOptions {
    /// The directory to serve
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,

    /// Listen here; repeat for several [default: 80, or 443 with TLS]
    #[arg(short = 'l', long, value_name = "[ADDR:]PORT", action = ArgAction::Append, value_parser = listen)]
    pub listen: Vec<SocketAddr>,

    /// Speak TLS, with a certificate made up for this run unless --tls-cert gives one
    #[arg(long)]
    pub tls: bool,

    /// Speak TLS with this certificate, or chain of them, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM form
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Do not list directories that have no index.html
    #[arg(long)]
    pub no_listing: bool,

    /// Serve names that begin with a dot, too; .well-known always is
    #[arg(long)]
    pub hidden: bool,

    /// Follow symbolic links out of DIR
    #[arg(long)]
    pub follow_symlinks: bool,

    /// Do not compress, and do not serve FILE.gz in place of FILE
    #[arg(long)]
    pub no_gzip: bool,

    /// Answer with this file of DIR, and status 404, where there is nothing
    #[arg(long, value_name = "FILE", default_value = "404.html")]
    pub error_page: String,

    /// Write a line for each request here, in the Combined Log Format; - for stdout [default: -]
    #[arg(long, value_name = "FILE|-")]
    pub access_log: Option<PathBuf>,

    /// Write those lines as JSON
    #[arg(long)]
    pub json: bool,

    /// No access log unless --access-log says where, and no word about where it serves
    #[arg(short = 'q', long)]
    pub quiet: bool,

    /// Tell what happens, on stderr
    #[arg(short = 'v', long)]
    pub verbose: bool,

    /// Serve at most so many connections at once; others wait until one has gone
    #[arg(long, value_name = "N", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// How long a client may take for the head of a request, the TLS handshake included
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub header_timeout: Duration,

    /// How long a connection may stay open without a request
    #[arg(long, visible_alias = "idle-timeout", value_name = "SECONDS", default_value = "75", value_parser = seconds)]
    pub keepalive_timeout: Duration,

    /// How long a client may take none of what is sent to it
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub send_timeout: Duration,

    /// When stopped, how long requests under way may take to finish
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub grace: Duration,
}

impl ServeOptions {
    /// Whether TLS is spoken.
    pub(super) fn speaks_tls(&self) -> bool {
        self.tls || self.tls_cert.is_some()
    }

    /// Where to listen.
    ///
    /// # Errors
    /// When one is named twice.
    pub(super) fn listeners(&self) -> Result<Vec<SocketAddr>, Failure> {
        let mut listeners = self.listen.clone();
        if listeners.is_empty() {
            let port = if self.speaks_tls() { 443 } else { 80 };
            listeners.push((Ipv4Addr::UNSPECIFIED, port).into());
        }
        for (index, local) in listeners.iter().enumerate() {
            if local.port() != 0 && listeners[..index].contains(local) {
                return Err(Failure::Usage(format!("--listen {local} is given twice")));
            }
        }
        Ok(listeners)
    }
}

/// `PORT`, `ADDR:PORT` or `[ADDR]:PORT`.
fn listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok((Ipv4Addr::UNSPECIFIED, port).into());
    }
    let local: SocketAddr = text
        .parse()
        .map_err(|_| "expected PORT or ADDR:PORT, for example 8080 or 192.0.2.7:80".to_owned())?;
    match local.ip() {
        IpAddr::V4(_) => Ok(local),
        IpAddr::V6(_) => Err("IPv6 is not supported yet".to_owned()),
    }
}

/// A number of seconds, more than none, with a fraction if need be.
fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if duration <= MAX_TIME => Ok(duration),
        _ => Err(format!("expected a number of seconds from 0 to {}", MAX_TIME.as_secs())),
    }
}

/// A year, which is for ever. Sums of longer times and the clock could leave what the clock can tell.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        options: ServeOptions,
    }

    fn options(words: &[&str]) -> Result<ServeOptions, clap::Error> {
        Line::try_parse_from(["x", "dir"].iter().chain(words)).map(|line| line.options)
    }

    fn listeners(words: &[&str]) -> Vec<String> {
        let options = options(words).expect("parses");
        options.listeners().expect("are sensible").iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn where_to_listen_follows_from_what_is_spoken() {
        assert_eq!(listeners(&[]), ["0.0.0.0:80"]);
        assert_eq!(listeners(&["--tls"]), ["0.0.0.0:443"]);
        assert_eq!(listeners(&["--tls-cert", "a", "--tls-key", "b"]), ["0.0.0.0:443"]);
        assert_eq!(listeners(&["-l", "8080", "--listen", "192.0.2.7:81"]), ["0.0.0.0:8080", "192.0.2.7:81"]);
        assert!(options(&["-l", "1", "-l", "1"]).expect("parses").listeners().is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for words in [
            &["--listen", "65536"][..],
            &["--listen", "[::1]:80"],
            &["--listen", "host:80"],
            &["--listen", "192.0.2.7"],
            &["--max-connections", "0"],
            &["--grace", "-1"],
            &["--grace", "1e30"],
            &["--header-timeout", "soon"],
            &["--tls-cert", "a"],
            &["--tls-key", "a"],
            &["another"],
        ] {
            assert!(options(words).is_err(), "{words:?}");
        }
    }
}
