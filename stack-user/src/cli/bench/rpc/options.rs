//! What the clients have in common on their command lines.

use std::time::Duration;

use clap::{Args, value_parser};

use super::{
    course::Extent,
    protocol::{LENGTHS, Lengths},
};
use crate::cli::{
    bench::{Common, server::PORT},
    relay::options::seconds,
};

/// How long a run is if nothing else is said: long enough for the tail of a distribution, and iperf3's own.
const TIME: Duration = Duration::from_secs(10);

/// The other end, and over which stack.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Where `xstack bench server` runs: a name or an address
    pub host: String,

    /// The port on which it listens
    #[arg(short = 'p', long, value_name = "PORT", default_value_t = PORT, value_parser = value_parser!(u16).range(1..))]
    pub port: u16,

    /// What all benchmarks have.
    #[command(flatten)]
    pub common: Common,
}

/// How much is sent each way.
#[derive(Args, Clone, Copy, Debug)]
pub struct Sizes {
    /// Length of each request in bytes, up to 1048576
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = length())]
    pub request: u32,

    /// Length of each response in bytes, up to 1048576
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = length())]
    pub response: u32,
}

impl From<Sizes> for Lengths {
    fn from(Sizes { request, response }: Sizes) -> Self {
        Self { request, response }
    }
}

/// How long it takes.
#[derive(Args, Clone, Copy, Debug)]
pub struct Length {
    /// Measure for so many seconds [default: 10]
    #[arg(short = 't', long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "transactions")]
    pub time: Option<Duration>,

    /// Measure so many transactions
    #[arg(short = 'n', long, value_name = "N", value_parser = value_parser!(u64).range(1..))]
    pub transactions: Option<u64>,

    /// Leave the first seconds out: caches are cold then, and windows small
    #[arg(short = 'O', long, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub omit: Duration,
}

/// What is told.
#[derive(Args, Clone, Copy, Debug)]
pub struct Telling {
    /// Tell how it goes every so many seconds; 0 is never
    #[arg(short = 'i', long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,

    /// Print the result as JSON, and nothing else
    #[arg(short = 'J', long)]
    pub json: bool,
}

impl Length {
    /// As a run wants it.
    pub(super) fn extent(&self) -> Extent {
        let time = match self.transactions {
            Some(_) => None,
            None => Some(self.time.unwrap_or(TIME)),
        };
        Extent { omit: self.omit, time, transactions: self.transactions }
    }
}

fn length() -> clap::builder::RangedI64ValueParser<u32> {
    value_parser!(u32).range(i64::from(*LENGTHS.start())..=i64::from(*LENGTHS.end()))
}
