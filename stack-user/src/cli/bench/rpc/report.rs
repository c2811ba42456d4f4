//! What is told: a line for each interval, a summary in words, or JSON.

use std::time::Duration;

use serde::Serialize;

use super::{
    conns::{self, ConnsOptions},
    course::Outcome,
    crr::CrrOptions,
    faults::Faults,
    histogram::{Latencies, Summary, told},
    mix::{MixOptions, Results},
    options::{Sizes, Telling},
    rr::RrOptions,
};
use crate::cli::{console::Output, error::Failure};

/// Tells on standard output: all of it is data.
pub(super) struct Teller {
    output: Output,
    telling: Telling,
}

/// The result of `rr`, and of `crr` with how many failed.
#[derive(Serialize)]
struct Transactions {
    benchmark: &'static str,
    transactions: u64,
    seconds: f64,
    per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<Faults>,
    latency_ns: Summary,
}

impl Transactions {
    fn new(benchmark: &'static str, outcome: &Outcome) -> Self {
        Self {
            benchmark,
            transactions: outcome.latencies.count(),
            seconds: outcome.took.as_secs_f64(),
            per_second: outcome.per_second(),
            failed: None,
            failures: None,
            latency_ns: outcome.latencies.summary(),
        }
    }
}

/// The result of `conns`.
#[derive(Serialize)]
pub(super) struct Held {
    benchmark: &'static str,
    connections: usize,
    /// Until all were open.
    seconds: f64,
    per_second: f64,
    /// What the process has grown by, for each.
    bytes_each: i64,
    /// What the kernel's small memory has grown by, for each, if the sockets are its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_bytes_each: Option<i64>,
    /// Of a request on each.
    latency_ns: Summary,
    #[serde(skip)]
    held: Duration,
}

impl Held {
    pub(super) fn new(options: &ConnsOptions, outcome: &conns::Outcome) -> Self {
        let seconds = outcome.took.as_secs_f64();
        Self {
            benchmark: "conns",
            connections: outcome.connections,
            seconds,
            per_second: outcome.connections as f64 / seconds.max(f64::MIN_POSITIVE),
            bytes_each: outcome.bytes_each.round() as i64,
            kernel_bytes_each: outcome.kernel_bytes_each.map(|bytes| bytes.round() as i64),
            latency_ns: outcome.touches.summary(),
            held: options.hold,
        }
    }
}

/// The result of `mix`: of both at once, of each alone, and how they compare.
#[derive(Serialize)]
pub(super) struct Mixed {
    benchmark: &'static str,
    bulk_bits_per_second: f64,
    rr: Transactions,
    alone: Alone,
    ratios: Ratios,
}

#[derive(Serialize)]
struct Alone {
    bulk_bits_per_second: f64,
    rr: Transactions,
}

/// Both at once, divided by alone.
#[derive(Serialize)]
struct Ratios {
    bulk: f64,
    p50: f64,
    p99: f64,
    p999: f64,
}

impl Mixed {
    pub(super) fn new(results: &Results) -> Self {
        let Results { requests_alone, bulk_alone, requests_beside, bulk_beside } = results;
        let (beside, alone) = (requests_beside.latencies.summary(), requests_alone.latencies.summary());
        let ratio = |beside: u64, alone: u64| beside as f64 / (alone.max(1)) as f64;
        Self {
            benchmark: "mix",
            bulk_bits_per_second: *bulk_beside,
            rr: Transactions::new("rr", requests_beside),
            alone: Alone { bulk_bits_per_second: *bulk_alone, rr: Transactions::new("rr", requests_alone) },
            ratios: Ratios {
                bulk: bulk_beside / bulk_alone,
                p50: ratio(beside.p50, alone.p50),
                p99: ratio(beside.p99, alone.p99),
                p999: ratio(beside.p999, alone.p999),
            },
        }
    }
}

impl Teller {
    /// One that tells as the options say.
    pub(super) fn new(output: Output, telling: Telling) -> Self {
        Self { output, telling }
    }

    /// One that tells the result only.
    pub(super) fn quiet(output: Output, json: bool) -> Self {
        Self::new(output, Telling { interval: Duration::ZERO, json })
    }

    /// How often it wants to tell how it goes.
    pub(super) fn interval(&self) -> Option<Duration> {
        let Telling { interval, json } = self.telling;
        (!json && !interval.is_zero()).then_some(interval)
    }

    /// What happened between two times of the run.
    pub(super) async fn tell_interval(
        &mut self,
        from: Duration,
        to: Duration,
        latencies: &Latencies,
    ) -> Result<(), Failure> {
        let per_second = latencies.count() as f64 / (to - from).as_secs_f64().max(f64::MIN_POSITIVE);
        let Summary { p50, p99, max, .. } = latencies.summary();
        let (from, to) = (from.as_secs_f64(), to.as_secs_f64());
        self.line(&format!(
            "{from:7.2}-{to:<7.2} s {per_second:>11.0}/s   p50 {:>8}   p99 {:>8}   max {:>8}",
            told(p50),
            told(p99),
            told(max)
        ))
        .await
    }

    /// The result of `rr`.
    pub(super) async fn tell_rr(&mut self, options: &RrOptions, outcome: &Outcome) -> Result<(), Failure> {
        if self.telling.json {
            return self.json(&Transactions::new("rr", outcome)).await;
        }
        let over = match options.connections {
            1 => "one connection".to_owned(),
            many => format!("{many} connections"),
        };
        let how = match options.rate {
            Some(rate) => format!("{rate} a second were due, and times count from then"),
            None => "each was sent when the one before it was answered".to_owned(),
        };
        self.line(&format!(
            "\n{} over {over} in {:.2} s, {:.0} a second; {how}.",
            transactions(outcome, options.sizes),
            outcome.took.as_secs_f64(),
            outcome.per_second()
        ))
        .await?;
        self.latencies(outcome.latencies.summary()).await
    }

    /// The result of `crr`.
    pub(super) async fn tell_crr(&mut self, options: &CrrOptions, outcome: &Outcome) -> Result<(), Failure> {
        let failed = outcome.faults.total();
        if self.telling.json {
            let failures = (failed > 0).then_some(outcome.faults);
            let told = Transactions { failed: Some(failed), failures, ..Transactions::new("crr", outcome) };
            return self.json(&told).await;
        }
        let end = if options.reset { "reset" } else { "closed" };
        let failed = if failed == 0 { String::new() } else { format!(" Failed: {}.", outcome.faults.told()) };
        self.line(&format!(
            "\n{}, each over a connection of its own that was then {end}, {} at once, in {:.2} s: {:.0} a second.{failed}",
            transactions(outcome, options.sizes),
            options.concurrency,
            outcome.took.as_secs_f64(),
            outcome.per_second()
        ))
        .await?;
        self.latencies(outcome.latencies.summary()).await
    }

    /// The result of `conns`.
    pub(super) async fn tell_conns(&mut self, held: &Held) -> Result<(), Failure> {
        if self.telling.json {
            return self.json(held).await;
        }
        let Held { connections, seconds, per_second, bytes_each, kernel_bytes_each, .. } = held;
        let whose = match kernel_bytes_each {
            Some(bytes) => {
                format!(", and {bytes} bytes of the kernel's, as far as nothing else has changed it")
            }
            None => String::new(),
        };
        self.line(&format!(
            "{connections} connections were opened in {seconds:.2} s, {per_second:.0} a second. After {:.1} s in which nothing \
             happened, each had {bytes_each} bytes of this process's memory{whose}. A request on each then took:",
            held.held.as_secs_f64()
        ))
        .await?;
        self.latencies(held.latency_ns).await
    }

    /// The result of `mix`.
    pub(super) async fn tell_mix(&mut self, options: &MixOptions, mixed: &Mixed) -> Result<(), Failure> {
        if self.telling.json {
            return self.json(mixed).await;
        }
        let Mixed { alone, ratios, .. } = mixed;
        let way = if options.reverse { "from the server" } else { "to the server" };
        self.line(&format!("{} requests a second alone, from when each was due:", options.rate)).await?;
        self.latencies(alone.rr.latency_ns).await?;
        self.line(&format!(
            "Bulk {way} alone: {}. Both at once: {}, and the requests:",
            bits(alone.bulk_bits_per_second),
            bits(mixed.bulk_bits_per_second)
        ))
        .await?;
        self.latencies(mixed.rr.latency_ns).await?;
        self.line(&format!(
            "At once, bulk has {:.2} of what it has alone, and requests take {:.1} times as long at p50, {:.1} at p99, {:.1} at \
             p99.9.",
            ratios.bulk, ratios.p50, ratios.p99, ratios.p999
        ))
        .await
    }

    async fn latencies(&mut self, summary: Summary) -> Result<(), Failure> {
        let Summary { min, p50, p90, p99, p999, max, mean } = summary;
        self.line(&format!(
            "min {}   p50 {}   p90 {}   p99 {}   p99.9 {}   max {}   mean {}",
            told(min),
            told(p50),
            told(p90),
            told(p99),
            told(p999),
            told(max),
            told(mean as u64)
        ))
        .await
    }

    pub(super) async fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(std::io::Error::from);
        match text {
            Ok(text) => self.line(&text).await,
            Err(source) => Err(failed(source)),
        }
    }

    pub(super) async fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.output.write_all(format!("{text}\n").as_bytes()).await.map_err(failed)?;
        self.output.flush().await.map_err(failed)
    }
}

/// Bits a second as a reader wants them.
fn bits(per_second: f64) -> String {
    match per_second {
        1e9.. => format!("{:.2} Gbit/s", per_second / 1e9),
        1e6.. => format!("{:.1} Mbit/s", per_second / 1e6),
        _ => format!("{:.1} kbit/s", per_second / 1e3),
    }
}

fn failed(source: std::io::Error) -> Failure {
    Failure::Write { destination: "standard output".to_owned(), source }
}

/// How many there were, and of which lengths.
fn transactions(outcome: &Outcome, sizes: Sizes) -> String {
    let Sizes { request, response } = sizes;
    let lengths = if request == response {
        format!("{request} bytes each way")
    } else {
        format!("{request} bytes there and {response} back")
    };
    format!("{} transactions of {lengths}", outcome.latencies.count())
}
