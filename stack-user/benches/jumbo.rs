//! `cargo xtask bench jumbo`: goodput between two hosts next to each other, by MTU: what it is worth that a frame may lie in
//! several chunks, and that these may lie on huge pages.
//!
//! A veth pair has no wire, so that what is measured is the work for a byte: both ends share the cores that there are. Each run
//! of one link is followed by the same run of the others; what is compared are the medians. Data goes to stdout, progress to
//! stderr.

#![allow(missing_docs)]

#[path = "../tests/huge_pages/mod.rs"]
mod huge_pages;
#[path = "../tests/wan/mod.rs"]
mod wan;

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use huge_pages::HugePages;
use serde_json::json;
use stack_user::tcp::congestion::Algorithm;
use wan::{Amount, Direction, Path, Tcp, transfer};

/// Goodput between two hosts next to each other, by MTU.
#[derive(Parser)]
#[command(name = "jumbo")]
struct Args {
    /// Seconds that the sender of each run sends
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Runs of each
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// One second and one run of each
    #[arg(long)]
    quick: bool,
    /// One JSON object per line instead of a table
    #[arg(long)]
    json: bool,
    /// What cargo adds
    #[arg(long, hide = true)]
    bench: bool,
}

/// What differs between two runs.
#[derive(Clone, Copy)]
struct Link {
    name: &'static str,
    mtu: u32,
    huge_pages: bool,
}

const LINKS: [Link; 3] = [
    Link { name: "1500", mtu: 1500, huge_pages: false },
    Link { name: "9000, three chunks a frame", mtu: 9000, huge_pages: false },
    Link { name: "9000, on huge pages", mtu: 9000, huge_pages: true },
];

/// Huge pages for the UMEM of an end, and for those that the kernel has not given back yet.
const PAGES: usize = 32;

fn main() -> ExitCode {
    let mut args = Args::parse();
    if args.quick {
        (args.seconds, args.runs) = (1, 1);
    }
    let ours = Tcp::Ours(Algorithm::default());
    let pairs = [
        ("ours → kernel", ours, Tcp::Kernel),
        ("kernel → ours", Tcp::Kernel, ours),
        ("kernel → kernel", Tcp::Kernel, Tcp::Kernel),
    ];
    let amount = Amount::For(Duration::from_secs(args.seconds));
    let mut results = vec![vec![Vec::new(); pairs.len()]; LINKS.len()];
    for run in 0..args.runs {
        for (link, results) in LINKS.iter().zip(&mut results) {
            for ((name, sender, receiver), results) in pairs.iter().zip(results) {
                let needs_pages = link.huge_pages && name.contains("ours");
                if link.huge_pages && !needs_pages {
                    continue;
                }
                eprintln!("jumbo: run {} of {}, MTU {}, {name}", run + 1, args.runs, link.name);
                let pages = if needs_pages { HugePages::reserve("jumbo", PAGES) } else { None };
                if needs_pages && pages.is_none() {
                    continue;
                }
                let Some(path) = Path::direct("jumbo", link.mtu) else {
                    eprintln!("jumbo: this needs root, `ip` and `ethtool`");
                    return ExitCode::FAILURE;
                };
                results.push(transfer(&path, *sender, *receiver, Direction::Up, amount).mbits());
            }
        }
    }
    let medians: Vec<Vec<_>> =
        results.into_iter().map(|pairs| pairs.into_iter().map(median).collect()).collect();
    print(&args, &pairs.map(|(name, ..)| name), &medians);
    ExitCode::SUCCESS
}

fn print(args: &Args, pairs: &[&str], medians: &[Vec<Option<f64>>]) {
    let (machine, base) = (machine(), &medians[0]);
    if !args.json {
        println!(
            "{machine}; a veth pair, both ends on it; sender → receiver; Mbit/s of payload, median of {} runs of {} s; in \
             brackets the ratio to an MTU of 1500",
            args.runs, args.seconds
        );
        println!("\n| MTU | {} |\n|---|---|---|---|", pairs.join(" | "));
    }
    for (link, medians) in LINKS.iter().zip(medians) {
        let ratios: Vec<_> = medians
            .iter()
            .zip(base)
            .map(|(&mbits, &base)| mbits.map(|mbits| (mbits, mbits / base.unwrap_or(mbits))))
            .collect();
        if args.json {
            for (pair, (mbits, ratio)) in
                pairs.iter().zip(&ratios).filter_map(|(pair, ratio)| Some((pair, (*ratio)?)))
            {
                let Link { mtu, huge_pages, .. } = link;
                println!(
                    "{}",
                    json!({ "machine": machine, "mtu": mtu, "huge_pages": huge_pages, "pair": pair, "mbits": mbits, "ratio": ratio })
                );
            }
        } else {
            let cells: Vec<_> = ratios
                .iter()
                .map(|cell| {
                    cell.map_or("–".to_owned(), |(mbits, ratio)| format!("{mbits:.0} ({ratio:.2})"))
                })
                .collect();
            println!("| {} | {} |", link.name, cells.join(" | "));
        }
    }
}

/// Kernel, processor and how many of them: figures of two machines are not compared.
fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let kernel = nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "Linux {}, {cores} cores, {}",
        kernel.unwrap_or_default(),
        model.trim_start_matches([' ', '\t', ':'])
    )
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
