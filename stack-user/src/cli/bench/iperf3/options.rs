//! The options of `xstack bench client`, by iperf3's names.

use std::time::Duration;

use clap::Args;

use super::{
    control::Broken,
    parameters::{
        DEFAULT_TCP_BLOCK, DEFAULT_UDP_BLOCK, Direction, End, MAX_BLOCK, MAX_OMIT, MAX_SECONDS, MAX_STREAMS,
        MAX_UDP_BLOCK, MIN_UDP_BLOCK, Protocol, Test,
    },
    units,
};
use crate::cli::{
    bench::{Common, server::PORT},
    error::Failure,
};

/// What iperf3 sends by UDP if nobody says otherwise: what no network is harmed by.
const DEFAULT_UDP_RATE: u64 = 1024 * 1024;

/// Seconds, if nobody says when it ends.
const DEFAULT_SECONDS: u64 = 10;

/// Between two reports: shorter, and reporting is what is measured; longer, and nobody can be waiting for it.
const INTERVAL: std::ops::RangeInclusive<f64> = 0.1..=60.0;

/// What `xstack bench client` can be told.
#[derive(Args, Clone, Debug)]
pub struct ClientOptions {
    /// The server: `xstack bench server`, or `iperf3 -s`
    #[arg(value_name = "HOST")]
    pub host: String,

    /// The server's port
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = PORT,
          value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,

    /// Send by UDP, not by TCP
    #[arg(short = 'u', long)]
    pub udp: bool,

    /// Send for so many seconds [default: 10]
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=MAX_SECONDS),
          conflicts_with_all = ["bytes", "blockcount"])]
    pub time: Option<u64>,

    /// Send so many bytes, all streams together, and then end
    #[arg(short = 'n', long, value_name = "N[KMG]", value_parser = units::size, conflicts_with = "blockcount")]
    pub bytes: Option<u64>,

    /// Send so many writes or datagrams, all streams together, and then end
    #[arg(short = 'k', long, value_name = "N[KMG]", value_parser = units::size)]
    pub blockcount: Option<u64>,

    /// So many streams at once, in each direction
    #[arg(short = 'P', long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_STREAMS)))]
    pub parallel: u32,

    /// The server sends
    #[arg(short = 'R', long, conflicts_with = "bidir")]
    pub reverse: bool,

    /// Both ends send
    #[arg(long)]
    pub bidir: bool,

    /// At most so many bits per second for each stream, and so many writes in one go; 0 for no limit [default: 0, with -u 1M]
    #[arg(short = 'b', long, value_name = "N[KMG][/BURST]", value_parser = units::bitrate)]
    pub bitrate: Option<(u64, u32)>,

    /// Bytes of a write or a datagram [default: 128K, with -u what fits into a segment of TCP]
    #[arg(short = 'l', long, value_name = "N[KMG]", value_parser = units::size)]
    pub length: Option<u64>,

    /// Report every so many seconds; 0 for at the end only
    #[arg(short = 'i', long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: Duration,

    /// Leave out the first seconds, when TCP has yet to find out how fast it may send
    #[arg(short = 'O', long, value_name = "SECONDS", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=MAX_OMIT))]
    pub omit: u64,

    /// Report as iperf3's JSON, at the end
    #[arg(short = 'J', long)]
    pub json: bool,

    /// Number datagrams in 64 bits, for servers that are told to expect that
    #[arg(long)]
    pub udp_counters_64bit: bool,

    /// What all benchmarks have.
    #[command(flatten)]
    pub common: Common,
}

impl ClientOptions {
    /// The test, where `mss` is what a segment of TCP to the server takes, if that is known.
    ///
    /// # Errors
    /// What can't be sent.
    pub(super) fn test(&self, mss: Option<usize>) -> Result<Test, Failure> {
        let protocol = if self.udp { Protocol::Udp } else { Protocol::Tcp };
        let fits = mss.filter(|mss| (MIN_UDP_BLOCK..=MAX_UDP_BLOCK).contains(mss));
        let block = match (self.length, protocol) {
            (Some(length), _) => usize::try_from(length).unwrap_or(usize::MAX),
            (None, Protocol::Tcp) => DEFAULT_TCP_BLOCK,
            (None, Protocol::Udp) => fits.unwrap_or(DEFAULT_UDP_BLOCK),
        };
        let bounds = match protocol {
            Protocol::Tcp => 1..=MAX_BLOCK,
            Protocol::Udp => MIN_UDP_BLOCK..=MAX_UDP_BLOCK,
        };
        if !bounds.contains(&block) {
            let (least, most) = bounds.into_inner();
            return Err(Failure::Usage(format!(
                "-l {block}: from {least} to {most} bytes can be sent at once"
            )));
        }
        let none = if self.udp { DEFAULT_UDP_RATE } else { 0 };
        let (rate, burst) = self.bitrate.unwrap_or((none, 0));
        Ok(Test {
            protocol,
            direction: match (self.reverse, self.bidir) {
                (true, _) => Direction::Reverse,
                (_, true) => Direction::Both,
                _ => Direction::Forward,
            },
            streams: self.parallel,
            end: match (self.time, self.bytes.unwrap_or(0), self.blockcount.unwrap_or(0)) {
                (Some(0), ..) => End::Never,
                (Some(seconds), ..) => End::Seconds(seconds),
                (None, 0, 0) => End::Seconds(DEFAULT_SECONDS),
                (None, 0, blocks) => End::Blocks(blocks),
                (None, bytes, _) => End::Bytes(bytes),
            },
            omit: self.omit,
            block,
            rate,
            burst,
            wide_counters: self.udp_counters_64bit,
        })
    }
}

/// Seconds between two reports.
pub(in crate::cli::bench) fn interval(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number")?;
    if seconds == 0.0 || INTERVAL.contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(format!("0, or from {} to {} seconds", INTERVAL.start(), INTERVAL.end()))
    }
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Output(source) => Self::Write { destination: "standard output".into(), source },
            broken => Self::Bench(broken.to_string()),
        }
    }
}
