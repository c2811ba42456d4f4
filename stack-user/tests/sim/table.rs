//! How much gets through, and how it is shared: goodput by loss, round trip and algorithm, and fairness.
//!
//! The numbers repeat exactly, so what is kept in `table.md` is compared exactly; a change of it is a decision.

use std::{fmt::Write, fs, net::Ipv4Addr, path::Path, process::ExitCode, thread};

use stack_user::{
    rng::Rng,
    tcp::{self, congestion::Algorithm},
    time::{Duration, Instant},
};

use crate::{
    app::Role,
    host::{Clock, Host, Make, Nic},
    link::{Link, Quality},
    network::{Network, Port, Uplink},
    world::{Plan, World},
};

const LOSSES: [f64; 4] = [0.0, 0.001, 0.01, 0.03];
const ROUND_TRIPS: [u64; 3] = [1, 20, 100];

/// Bits per second of the link that all flows share.
const RATE: u64 = 100_000_000;

/// Goodput is measured from here to there: after slow start, over a sawtooth or two at 100 ms.
const STEADY_FROM: Duration = Duration::from_secs(5);
const STEADY_TO: Duration = Duration::from_secs(30);

/// Fairness is measured from here to there: after slow start, over many round trips.
const FAIR_FROM: Duration = Duration::from_secs(15);
const FAIR_TO: Duration = Duration::from_secs(45);

/// Chunks of each host: a quarter of them holds two products of bandwidth and delay (2.5 MB), with room to spare.
const CHUNKS: u32 = 12 << 10;
const BUFFER: usize = 4 << 20;

const START: Instant = Instant::from_millis(1_000);

/// The flows that fairness is measured of: their round trips in milliseconds.
const SHARED_BY: [&[u64]; 4] = [&[20; 2], &[20; 4], &[20; 8], &[20, 100]];

/// Prints the table; compares it with the kept one, or keeps it.
pub(crate) fn run(bless: bool) -> ExitCode {
    let table = markdown();
    print!("{table}");
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/table.md");
    if bless {
        return match fs::write(&kept, &table) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("sim: cannot write {}: {error}", kept.display());
                ExitCode::FAILURE
            }
        };
    }
    let is_same = fs::read_to_string(&kept).is_ok_and(|kept| kept == table);
    let (verdict, passed, failed) = if is_same { ("ok", 1, 0) } else { ("FAILED", 0, 1) };
    if !is_same {
        println!("\nfailures:\n\nthe table is not the kept one, {}", kept.display());
        println!("    to keep this one: cargo xtask sim --table --bless");
    }
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn markdown() -> String {
    let mut text = String::from(
        "# What gets through\n\n\
         Measured by the simulator, on virtual time: `cargo xtask sim --table`. One link of 100 Mbit/s with a queue of\n\
         one bandwidth-delay product (and 15 kB at least) is what everybody shares; `--bless` keeps the numbers.\n\n\
         ## Goodput of one flow in Mbit/s\n\n\
         | Algorithm | RTT | no loss | 0.1 % | 1 % | 3 % |\n|---|---|---|---|---|---|\n",
    );
    for &algorithm in Algorithm::ALL {
        for round_trip in ROUND_TRIPS {
            let _ = write!(text, "| {} | {round_trip} ms |", algorithm.name());
            for goodput in in_parallel(&LOSSES, |&loss| goodput(algorithm, round_trip, loss)) {
                let _ = write!(text, " {goodput:.1} |");
            }
            text.push('\n');
        }
    }
    text.push_str(
        "\n## How flows share the link\n\n\
         Jain's index: 1 is equal shares, 1/n is all for one of n. In brackets the shares in Mbit/s.\n\n\
         | Algorithm | 2 flows, 20 ms | 4 flows, 20 ms | 8 flows, 20 ms | 20 ms and 100 ms |\n|---|---|---|---|---|\n",
    );
    for &algorithm in Algorithm::ALL {
        let _ = write!(text, "| {} |", algorithm.name());
        for shares in in_parallel(&SHARED_BY, |round_trips| shares(algorithm, round_trips)) {
            let list: Vec<_> = shares.iter().map(|share| format!("{share:.1}")).collect();
            let _ = write!(text, " {:.3} ({}) |", jain(&shares), list.join(", "));
        }
        text.push('\n');
    }
    text
}

/// The results for each of `of`, in their order.
fn in_parallel<T: Sync, R: Send>(of: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let threads: Vec<_> = of.iter().map(|one| scope.spawn(|| work(one))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a measurement")).collect()
    })
}

/// Mbit/s of one bulk transfer, once it is under way.
fn goodput(algorithm: Algorithm, round_trip: u64, loss: f64) -> f64 {
    rates(algorithm, &[round_trip], loss, STEADY_FROM, STEADY_TO)[0]
}

/// Mbit/s of each of several flows, once they have found their shares.
fn shares(algorithm: Algorithm, round_trips: &[u64]) -> Vec<f64> {
    rates(algorithm, round_trips, 0.0, FAIR_FROM, FAIR_TO)
}

fn rates(algorithm: Algorithm, round_trips: &[u64], loss: f64, from: Duration, to: Duration) -> Vec<f64> {
    let mut world = dumbbell(algorithm, round_trips, loss);
    let flows = 0..round_trips.len();
    world.run(START + from, |_| Ok(false)).unwrap_or_else(|error| panic!("{error}"));
    let before: Vec<_> = flows.clone().map(|flow| received(&world, flow)).collect();
    world.run(START + to, |_| Ok(false)).unwrap_or_else(|error| panic!("{error}"));
    flows.map(|flow| megabits(received(&world, flow) - before[flow], to - from)).collect()
}

fn received(world: &World, flow: usize) -> u64 {
    world.sessions[flow].sides[1].as_ref().map_or(0, |side| side.read)
}

fn megabits(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / 1e6 / time.as_secs_f64()
}

fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// Senders on one side, receivers on the other, and one link between them for all.
fn dumbbell(algorithm: Algorithm, round_trips: &[u64], loss: f64) -> World {
    let flows = round_trips.len();
    let mut rng = Rng::from_seed(1);
    let makes: Vec<_> = (0..2 * flows).map(|host| make(algorithm, host / flows, host)).collect();
    let shortest = round_trips.iter().copied().min().unwrap_or(1);
    let longest = round_trips.iter().copied().max().unwrap_or(1);
    let half = |millis: u64| Duration::from_micros(millis * 500);
    let shared = Quality {
        rate: RATE,
        delay: half(shortest),
        queue: ((RATE / 8_000 * longest) as usize).max(15_000),
        loss,
        ..Quality::perfect()
    };
    let instant = Quality { delay: Duration::ZERO, ..Quality::perfect() };
    let back = Quality { delay: half(shortest), ..Quality::perfect() };
    let mut qualities = Vec::new();
    // What a flow has more than the shared link is its sender's.
    let senders = round_trips.iter().map(|&round_trip| half(round_trip - shortest));
    for more in senders.chain(vec![Duration::ZERO; flows]) {
        let quality = Quality { delay: more, ..Quality::perfect() };
        qualities.extend([quality.clone(), quality]);
    }
    qualities.extend([shared, instant.clone(), back, instant]);
    let links = qualities.into_iter().map(|quality| Link::new(quality, rng.fork())).collect();
    let port = |(host, make): (usize, &Make)| Port {
        site: host / flows,
        address: make.address,
        up: 2 * host,
        down: 2 * host + 1,
    };
    let ports = makes.iter().enumerate().map(port).collect();
    let uplinks = (0..2).map(|site| Uplink { out: 4 * flows + 2 * site, back: 4 * flows + 2 * site + 1 });
    let network = Network::new(links, ports, uplinks.collect());
    let hosts = makes.into_iter().enumerate();
    let hosts = hosts
        .map(|(number, make)| Host::new(Instant::ZERO, Network::mac(number), make, rng.fork()))
        .collect();
    let plan = |flow: usize| Plan {
        client: flow,
        server: flows + flow,
        start: START + Duration::from_millis(50 * flow as u64),
        roles: [Role::eager(u64::MAX, 0), Role::eager(0, u64::MAX)],
    };
    World::new(hosts, network, (0..flows).map(plan).collect(), rng)
}

fn make(algorithm: Algorithm, site: usize, host: usize) -> Make {
    let config = tcp::Config {
        recv_buffer: BUFFER,
        send_buffer: BUFFER,
        congestion: algorithm,
        ..tcp::Config::default()
    };
    Make {
        address: Ipv4Addr::new(10, 0, site as u8, 10 + host as u8),
        gateway: Some(Network::router_address(site)),
        mtu: 1_500,
        chunks: CHUNKS,
        tcp: config,
        nic: Nic {
            tx_ring: 1_024,
            tx_delay: Duration::ZERO,
            completion_delay: Duration::ZERO,
            fill_ring: 1_024,
            interrupt_delay: Duration::ZERO,
        },
        clock: Clock { origin: Instant::ZERO, skew: 0, jumped: Duration::ZERO },
        backlog: 16,
    }
}
