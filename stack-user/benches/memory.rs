//! `cargo xtask bench memory [-- --quick] [--json]`: one bulk stream with both ends on one core, in memory, at MTU 1500 and
//! with checksums on: ours, beside smoltcp and beside the copies and sums that no TCP can do without. Then what a segment
//! costs part by part, and among how many connections it does.
//!
//! Those that are compared run in turns, several times; what is told are medians.

#![allow(missing_docs)]

#[path = "../tests/counting/mod.rs"]
#[allow(dead_code, reason = "bytes do not matter here")]
mod counting;
#[path = "../tests/crowd/mod.rs"]
#[allow(dead_code, reason = "one part of it does")]
mod crowd;
mod in_memory;

use std::time::{Duration, Instant};

use clap::Parser;
use crowd::Crowd;
use in_memory::{BURST, Stream, floor::Floor, many, ours::Ours, smoltcp::Smoltcp};
use serde_json::{Map, Value, json};
use stack_user::{stack::TcpId, tcp::Config, time::Duration as Virtual};

#[derive(Parser)]
struct Arguments {
    /// Shorter streams, and no million connections
    #[arg(long)]
    quick: bool,
    /// Figures for a script
    #[arg(long)]
    json: bool,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Flows that take turns when one of many is measured: so many that what is read of them is in no near cache.
const FLOWS: usize = 4096;

/// A part of what a round of a stream does, and its name.
type Part = (&'static str, fn(&mut Ours));

/// All of them, in order.
const PARTS: [Part; 10] = [
    ("write", Ours::write),
    ("send", Ours::send),
    ("deliver", Ours::deliver),
    ("complete", Ours::complete),
    ("receive", Ours::receive),
    ("read", Ours::read),
    ("acknowledge", Ours::acknowledge),
    ("deliver_acks", Ours::deliver_acks),
    ("complete_acks", Ours::complete_acks),
    ("hear", Ours::hear),
];

/// Those of them that are about data; the others are about ACKs.
const DATA_PARTS: usize = 6;

fn main() {
    let Arguments { quick, json, .. } = Arguments::parse();
    let bulk: Vec<Bulk> =
        [64 << 10, 1 << 20].into_iter().map(|buffers| measure_bulk(buffers, quick)).collect();
    let parts = measure_parts(quick);
    let mut sizes = vec![1, 1000, 100_000];
    sizes.extend((!quick).then_some(1_000_000));
    let among = measure_among(&sizes);
    let timers = measure_timers();
    if json {
        println!("{}", as_json(&bulk, &parts, &among, timers));
    } else {
        print(&bulk, &parts, &among, timers);
    }
}

/// A stream with buffers of some size: nanoseconds for each byte of it.
struct Bulk {
    buffers: usize,
    ours: f64,
    smoltcp: f64,
    floor: f64,
}

fn gbits(nanos_per_byte: f64) -> f64 {
    8.0 / nanos_per_byte
}

fn measure_bulk(buffers: usize, quick: bool) -> Bulk {
    let (bytes, rounds) = if quick { (50 << 20, 5) } else { (200 << 20, 11) };
    let mut ours = Ours::open(Some(buffers));
    ours.verify();
    let mut streams: [Box<dyn Stream>; 3] =
        [Box::new(ours), Box::new(Smoltcp::open(buffers)), Box::new(Floor::new(buffers))];
    let mut times = [const { Vec::new() }; 3];
    for round in 0..=rounds {
        for (stream, times) in streams.iter_mut().zip(&mut times) {
            let started = Instant::now();
            stream.carry(bytes);
            // The first is for the caches.
            times.extend((round > 0).then(|| started.elapsed().as_nanos() as f64 / bytes as f64));
        }
    }
    let [ours, smoltcp, floor] = times.map(median);
    Bulk { buffers, ours, smoltcp, floor }
}

/// Nanoseconds of each part of a round, for each data segment or ACK.
fn measure_parts(quick: bool) -> [(&'static str, f64); PARTS.len()] {
    let (rounds, turns) = if quick { (1000, 5) } else { (2000, 11) };
    let mut ours = Ours::open(Some(1 << 20));
    ours.verify();
    let mut samples = PARTS.map(|_| Vec::new());
    for _ in 0..turns {
        let mut times = [Duration::ZERO; PARTS.len()];
        let (segments, acks) = (ours.segments, ours.acks);
        for _ in 0..rounds {
            for ((_, part), time) in PARTS.iter().zip(&mut times) {
                let started = Instant::now();
                part(&mut ours);
                *time += started.elapsed();
            }
            ours.pass_time();
        }
        let (segments, acks) = (ours.segments - segments, ours.acks - acks);
        for (i, (time, samples)) in times.into_iter().zip(&mut samples).enumerate() {
            let count = if i < DATA_PARTS { segments } else { acks };
            samples.push(time.as_nanos() as f64 / count.max(1) as f64);
        }
    }
    let mut samples = samples.into_iter();
    PARTS.map(|(name, _)| (name, samples.next().map_or(0.0, median)))
}

/// What a small segment costs among so many connections, each for another one than the last: to receive it, and with its
/// answer at both ends. Nanoseconds.
struct Among {
    connections: usize,
    received: f64,
    answered: f64,
}

fn measure_among(sizes: &[usize]) -> Vec<Among> {
    let most = sizes.iter().copied().max().unwrap_or(1);
    let mut crowd = Crowd::new(&Config::default(), most);
    let measure = |&connections: &usize| {
        crowd.open(connections);
        crowd.run(Virtual::from_secs(5));
        let flows = many::some(&crowd.clients, FLOWS);
        // Those that rest are woken.
        crowd.ask(&flows);
        let answered = crowd.cost(&flows).as_nanos() as f64;
        let received = (0..3).map(|_| receive(&mut crowd, &flows)).fold(f64::MAX, f64::min);
        Among { connections, received, answered }
    };
    sizes.iter().map(measure).collect()
}

/// The time that it takes to receive a small segment on each of these flows.
fn receive(crowd: &mut Crowd, flows: &[TcpId]) -> f64 {
    let mut time = Duration::ZERO;
    let mut frames = Vec::new();
    for burst in flows.chunks(BURST) {
        many::questions(crowd, burst, &mut frames);
        let started = Instant::now();
        many::receive(crowd, &mut frames);
        time += started.elapsed();
        crowd.run(Virtual::from_millis(3));
    }
    time.as_nanos() as f64 / flows.len() as f64
}

/// Nanoseconds to set a timer of a connection, and to have it expire, with the keep-alive that it is for.
fn measure_timers() -> [f64; 2] {
    const CONNECTIONS: usize = 1000;
    let mut crowd = Crowd::new(&Config::default(), CONNECTIONS);
    crowd.open(CONNECTIONS);
    let flows = crowd.clients.clone();
    let mut samples = [const { Vec::new() }; 2];
    for _ in 0..21 {
        crowd.ask(&flows);
        let started = Instant::now();
        many::set_timers(&mut crowd, &flows);
        samples[0].push(started.elapsed().as_nanos() as f64 / CONNECTIONS as f64);
        many::wait(&mut crowd);
        let started = Instant::now();
        many::expire(&mut crowd);
        samples[1].push(started.elapsed().as_nanos() as f64 / CONNECTIONS as f64);
        many::forget_timers(&mut crowd, &flows);
    }
    samples.map(median)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn as_json(bulk: &[Bulk], parts: &[(&str, f64)], among: &[Among], [set, expired]: [f64; 2]) -> Value {
    let bulk: Vec<Value> = bulk
        .iter()
        .map(|Bulk { buffers, ours, smoltcp, floor }| {
            json!({
                "buffers": buffers,
                "ours_gbits": gbits(*ours),
                "smoltcp_gbits": gbits(*smoltcp),
                "floor_gbits": gbits(*floor),
                "of_smoltcp": smoltcp / ours,
                "of_floor": floor / ours,
            })
        })
        .collect();
    let parts: Map<String, Value> = parts.iter().map(|(name, ns)| ((*name).into(), json!(ns))).collect();
    let among: Vec<Value> = among
        .iter()
        .map(|Among { connections, received, answered }| {
            json!({ "connections": connections, "received_ns": received, "answered_ns": answered })
        })
        .collect();
    let timer = json!({ "set_ns": set, "expired_ns": expired });
    json!({ "benchmark": "memory", "bulk": bulk, "parts_ns": parts, "among": among, "timer": timer })
}

fn print(bulk: &[Bulk], parts: &[(&str, f64)], among: &[Among], [set, expired]: [f64; 2]) {
    println!(
        "| bulk, both ends on one core, buffers | ours, Gbit/s | smoltcp | ours / smoltcp | floor | ours / floor |"
    );
    println!("|---|---|---|---|---|---|");
    for Bulk { buffers, ours, smoltcp, floor } in bulk {
        println!(
            "| {} KiB | {:.1} | {:.1} | {:.2} | {:.1} | {:.2} |",
            buffers >> 10,
            gbits(*ours),
            gbits(*smoltcp),
            smoltcp / ours,
            gbits(*floor),
            floor / ours,
        );
    }
    println!("\n| part, for each full segment, or ACK | ns |\n|---|---|");
    for (name, nanos) in parts {
        println!("| {} | {nanos:.1} |", name.replace('_', " "));
    }
    println!(
        "\n| among connections | a small segment in, ns | and its answer, both ends, ns |\n|---|---|---|"
    );
    for Among { connections, received, answered } in among {
        println!("| {connections} | {received:.0} | {answered:.0} |");
    }
    println!("\n| a timer | ns |\n|---|---|\n| set | {set:.0} |\n| expired | {expired:.0} |");
}
