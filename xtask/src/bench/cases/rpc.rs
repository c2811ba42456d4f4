//! Small requests: on one connection, on a connection each, beside a bulk transfer, and on very many connections.
//!
//! `xstack bench` is the program at both ends, whosever the sockets are, so that what differs is the stack. Beside it stands
//! sockperf, which does with the kernel's sockets what is quickest: it blocks in `recv`, or looks for its answer without ever
//! sleeping, where `xstack bench --kernel` asks epoll first.

use anyhow::{Context, Result};

use super::bulk::SERVED;
use super::{Mode, link, ours_to_kernel, xstack_left, xstack_right};
use crate::bench::case::{Case, Entry, Link, Plan, Process, Program, Read, Reading, Ready, Scene, Teller};
use crate::bench::metric::{GOODPUT, Metric, P50, P99, RATE, Unit};
use crate::bench::network::address;
use crate::bench::target::{At, Goal, Target};

/// The port of sockperf.
const SOCKPERF_PORT: u16 = 11111;

const KERNEL_BLOCKING: &str = "kernel ↔ kernel, blocking";
const KERNEL_POLLED: &str = "kernel ↔ kernel, by epoll";
const KERNEL_SPINNING: &str = "kernel ↔ kernel, the client spins";
const OURS_TO_KERNEL: &str = "ours → kernel, spinning";
const KERNEL: &str = "kernel ↔ kernel";
const OURS: &str = "ours ↔ ours, spinning";
const NO_STACK: &str = "no stack, the cores alone";

/// Requests of `mix` in a second.
const BESIDE_BULK: u32 = 1000;

const BULK: Metric = Metric { name: "bulk beside it", ..GOODPUT };
const BULK_ALONE: Metric = Metric { name: "bulk alone", ..GOODPUT };
const P99_ALONE: Metric = Metric { name: "p99 alone", ..P99 };
const MEMORY: Metric = Metric { name: "memory of the process", unit: Unit::Bytes };
const KERNEL_MEMORY: Metric = Metric { name: "memory of the kernel", unit: Unit::Bytes };

pub(super) fn cases(plan: &Plan) -> Vec<Case> {
    vec![
        round_trips(plan),
        short_connections(plan, "crr-1", 1),
        short_connections(plan, "crr-32", 32),
        beside_bulk(plan),
        held(plan),
    ]
}

/// Whose sockets the two ends have.
#[derive(Clone, Copy)]
enum Ends {
    Ours(Mode),
    OursToKernel(Mode),
    Kernel,
}

impl Ends {
    fn link(self) -> Link {
        match self {
            Self::OursToKernel(_) => ours_to_kernel(1500),
            Self::Ours(_) | Self::Kernel => link(1500),
        }
    }

    fn server(self) -> Process {
        let server = match self {
            Self::Ours(mode) => xstack_right(mode, "bench server"),
            Self::OursToKernel(_) | Self::Kernel => "{xstack} bench server --kernel".to_owned(),
        };
        Process::right(server).once(SERVED)
    }

    /// `xstack bench WHAT HOST OPTIONS`.
    fn client(self, what: &str, options: &str) -> Process {
        let command = |host: &str| format!("bench {what} {host} {options} --json");
        Process::left(match self {
            Self::Ours(mode) => xstack_left(mode, &command(address::OURS_RIGHT)),
            Self::OursToKernel(mode) => xstack_left(mode, &command(address::KERNEL_RIGHT)),
            Self::Kernel => format!("{{xstack}} {} --kernel", command(address::KERNEL_RIGHT)),
        })
    }

    fn scene(self, what: &str, options: &str, read: Read) -> Scene {
        Scene {
            link: self.link(),
            files: Vec::new(),
            background: vec![self.server()],
            client: self.client(what, options),
            teller: Teller::Client,
            read,
        }
    }
}

fn transactions() -> Read {
    Read::Json(vec![(RATE, "/per_second"), (P50, "/latency_ns/p50"), (P99, "/latency_ns/p99")])
}

/// `rr`: 64 bytes there and 64 back, one after the other.
fn round_trips(plan: &Plan) -> Case {
    let Plan { seconds, warm_up, .. } = plan;
    let options = format!("--time {seconds} --omit {warm_up} --interval 0");
    let scene = |ends: Ends| ends.scene("rr", &options, transactions());
    let ours = |mode: Mode| format!("ours ↔ ours, {}", mode.name());
    let pump_name = |mode: Mode| format!("raw pump, {}", mode.name());
    let mut entries = Vec::new();
    for mode in Mode::ALL {
        entries.push(Entry::scene(pump_name(mode), echo(plan, mode)));
        entries.push(Entry::scene(ours(mode), scene(Ends::Ours(mode))));
    }
    entries.extend([
        Entry::scene(OURS_TO_KERNEL, scene(Ends::OursToKernel(Mode::Spinning))),
        Entry::scene(KERNEL_BLOCKING, sockperf(plan, "")),
        Entry::scene(KERNEL_SPINNING, sockperf(plan, "--nonblocked")),
        Entry::scene(KERNEL_POLLED, scene(Ends::Kernel)),
    ]);
    let target = |mode: Mode, metric, beside: &str, times| {
        let what = format!("rr of 64 bytes, {}", mode.name());
        Target::ratio(what, At::new(ours(mode), metric), At::new(beside, metric), Goal::MostTimes(times))
    };
    let mut targets = Vec::new();
    for metric in [P50, P99] {
        targets.push(target(Mode::Spinning, metric, &pump_name(Mode::Spinning), 1.5));
        targets.push(target(Mode::Spinning, metric, KERNEL_SPINNING, 0.25));
        targets.push(target(Mode::Sleeping, metric, KERNEL_BLOCKING, 1.0));
    }
    Case {
        name: "rr",
        about: "A request of 64 bytes and its answer, one after the other on one connection.".to_owned(),
        entries,
        targets,
        plotted: P50,
        most_rounds: usize::MAX,
    }
}

/// The pump's round trip, with frames as long as those that have 64 bytes of TCP in them.
fn echo(plan: &Plan, mode: Mode) -> Scene {
    /// Ethernet, IPv4, TCP with timestamps, and the request.
    const FRAME: usize = 14 + 20 + 32 + 64;
    let ping = format!(
        "bench pump ping {} --size {FRAME} --time {} --interval 0 --json",
        address::OURS_RIGHT,
        plan.seconds
    );
    Scene {
        link: link(1500),
        files: Vec::new(),
        background: vec![Process::right(xstack_right(mode, "bench pump echo --interval 0"))],
        client: Process::left(xstack_left(mode, &ping)),
        teller: Teller::Client,
        read: Read::Json(vec![
            (RATE, "/frames_per_second"),
            (P50, "/latency_ns/p50"),
            (P99, "/latency_ns/p99"),
        ]),
    }
}

/// sockperf's client, with a server that blocks.
fn sockperf(plan: &Plan, client: &str) -> Scene {
    let to = format!("--tcp --ip {} --port {SOCKPERF_PORT}", address::KERNEL_RIGHT);
    Scene {
        link: link(1500),
        files: Vec::new(),
        background: vec![Process::right(format!("sockperf server {to}")).once(Ready::Listens(SOCKPERF_PORT))],
        client: Process::left(format!(
            "sockperf ping-pong {to} {client} --full-rtt --msg-size 64 --time {}",
            plan.seconds + plan.warm_up
        )),
        teller: Teller::Client,
        read: Read::With(sockperf_says),
    }
}

/// What sockperf prints: microseconds, of a run without its warm-up.
fn sockperf_says(said: &str) -> Result<Vec<Reading>> {
    let percentile = |name: &str| {
        let value = said.split_once(&format!("percentile {name} ="))?.1;
        value.split_whitespace().next()?.parse::<f64>().ok()
    };
    [(P50, "50.000"), (P99, "99.000")]
        .into_iter()
        .map(|(metric, name)| {
            let micros =
                percentile(name).with_context(|| format!("sockperf tells no percentile {name}: {said}"))?;
            Ok(Reading::new(metric, micros * 1e3))
        })
        .collect()
}

/// `crr`: a connection for each request.
fn short_connections(plan: &Plan, name: &'static str, at_once: u32) -> Case {
    let Plan { seconds, warm_up, .. } = plan;
    let options = format!("--time {seconds} --omit {warm_up} --interval 0 --concurrency {at_once}");
    let scene = |ends: Ends| ends.scene("crr", &options, transactions());
    let target = |what: &str, ours: &str, times| {
        let what = format!("crr, {at_once} at once, {what}");
        Target::ratio(what, At::new(ours, RATE), At::new(KERNEL, RATE), Goal::LeastTimes(times))
    };
    let at_once = match at_once {
        1 => "one after the other".to_owned(),
        many => format!("{many} at once"),
    };
    Case {
        name,
        about: format!("Connect, ask, hear the answer, close: {at_once}, from one core to another."),
        entries: vec![
            Entry::scene(OURS, scene(Ends::Ours(Mode::Spinning))),
            Entry::scene(OURS_TO_KERNEL, scene(Ends::OursToKernel(Mode::Spinning))),
            Entry::scene(KERNEL, scene(Ends::Kernel)),
        ],
        targets: vec![target("ours → kernel", OURS_TO_KERNEL, 2.2), target("ours ↔ ours", OURS, 4.0)],
        plotted: RATE,
        most_rounds: usize::MAX,
    }
}

/// `mix`: small requests at a steady rate beside a bulk transfer, each alone, too.
fn beside_bulk(plan: &Plan) -> Case {
    let Plan { seconds, warm_up, .. } = plan;
    let options = format!("--time {seconds} --omit {warm_up} --rate {BESIDE_BULK}");
    let read = || {
        Read::Json(vec![
            (P50, "/rr/latency_ns/p50"),
            (P99, "/rr/latency_ns/p99"),
            (P99_ALONE, "/alone/rr/latency_ns/p99"),
            (BULK, "/bulk_bits_per_second"),
            (BULK_ALONE, "/alone/bulk_bits_per_second"),
        ])
    };
    let scene = |ends: Ends| ends.scene("mix", &options, read());
    Case {
        name: "mix",
        about: format!(
            "{BESIDE_BULK} requests of 64 bytes a second beside a stream that takes what it can get."
        ),
        entries: vec![
            Entry::scene(OURS, scene(Ends::Ours(Mode::Spinning))),
            Entry::scene(KERNEL, scene(Ends::Kernel)),
            Entry::program(NO_STACK, absence(plan)),
        ],
        targets: vec![
            Target::ratio(
                "requests beside bulk",
                At::new(OURS, P99),
                At::new(KERNEL, P99),
                Goal::MostTimes(0.5),
            ),
            Target::ratio(
                "bulk beside requests",
                At::new(OURS, BULK),
                At::new(OURS, BULK_ALONE),
                Goal::LeastTimes(0.9),
            ),
        ],
        plotted: P99,
        most_rounds: usize::MAX,
    }
}

/// What the same requests would wait for on cores that do nothing but are away at times.
fn absence(plan: &Plan) -> Program {
    Program {
        bench: "absence",
        arguments: vec![format!("--time={}", plan.seconds), format!("--rate={BESIDE_BULK}")],
        pinned: false,
        limit: u64::from(plan.seconds) + 10,
        read: Read::Json(vec![(P50, "/latency_ns/p50"), (P99, "/latency_ns/p99")]),
    }
}

/// `conns`: connections that are held and say nothing.
fn held(plan: &Plan) -> Case {
    // The kernel's end has a file for each, and not every process may have more of them.
    let connections = if plan.quick { 2_000 } else { 10_000 };
    let options = format!("--connections {connections}");
    let scene = |ends: Ends| ends.scene("conns", &options, Read::With(held_says));
    Case {
        name: "held",
        about: format!(
            "{connections} connections that are held and idle: what the client's process, and its kernel, have grown by for each."
        ),
        entries: vec![
            Entry::scene("ours ↔ ours", scene(Ends::Ours(Mode::Sleeping))),
            Entry::scene(KERNEL, scene(Ends::Kernel)),
        ],
        targets: Vec::new(),
        plotted: MEMORY,
        most_rounds: 3,
    }
}

fn held_says(said: &str) -> Result<Vec<Reading>> {
    let json: serde_json::Value =
        serde_json::from_str(said).with_context(|| format!("this is no JSON: {said}"))?;
    let number = |name: &str| json.get(name).and_then(serde_json::Value::as_f64);
    let ours = number("bytes_each").with_context(|| format!("there is no number of bytes in {said}"))?;
    let kernel = number("kernel_bytes_each").map(|bytes| Reading::new(KERNEL_MEMORY, bytes));
    Ok([Some(Reading::new(MEMORY, ours)), kernel].into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockperf_tells_microseconds() {
        let said = "sockperf: [Valid Duration] RunTime=0.552 sec; SentMessages=6747; ReceivedMessages=6747\n\
                    sockperf: ---> percentile 99.900 = 12045.969\nsockperf: ---> percentile 99.000 = 2502.993\n\
                    sockperf: ---> percentile 50.000 =   14.020\n";
        let expected = [Reading::new(P50, 14_020.0), Reading::new(P99, 2_502_993.0)];
        assert_eq!(sockperf_says(said).unwrap(), expected);
        assert!(sockperf_says("sockperf: ERROR").is_err());
    }

    #[test]
    fn only_the_kernel_has_memory_of_its_own() {
        let read = held_says(r#"{"bytes_each":480}"#).unwrap();
        assert_eq!(read, [Reading::new(MEMORY, 480.0)]);
        assert_eq!(held_says(r#"{"bytes_each":480,"kernel_bytes_each":3100}"#).unwrap().len(), 2);
        assert!(held_says("{}").is_err());
    }
}
