//! What our XDP program costs those whose frames are not ours.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::bulk::{KERNEL, kernel_to_kernel, with_empty_program};
use super::link;
use crate::bench::case::{Case, Entry, Plan, Process, Program, Read, Reading, Ready};
use crate::bench::metric::{COST, GOODPUT};
use crate::bench::network::INTERFACE;
use crate::bench::target::{At, Goal, Target};

const EMPTY: &str = "an empty program";
const BULK_BESIDE_EMPTY: &str = "an empty XDP program on the receiver";
const BULK_BESIDE_OURS: &str = "our XDP program on the receiver";

pub(super) fn cases(plan: &Plan) -> Vec<Case> {
    vec![frames(plan), bulk(plan)]
}

/// Frame by frame, in the kernel's own test of a program.
fn frames(plan: &Plan) -> Case {
    let passed = ["pass-address", "pass-arp", "pass-port", "pass-ethertype", "pass-vlan", "pass-fragment"];
    Case {
        name: "xdp-frames",
        about:
            "What the XDP program takes for a frame, verdict by verdict, as BPF_PROG_TEST_RUN measures it."
                .to_owned(),
        entries: vec![Entry::program(
            "ours",
            Program {
                bench: "xdp",
                arguments: ["--json", "--repeat", if plan.quick { "100000" } else { "3000000" }]
                    .map(Into::into)
                    .to_vec(),
                pinned: true,
                limit: 120,
                read: Read::With(verdicts_say),
            },
        )],
        targets: passed
            .into_iter()
            .map(|verdict| {
                let (ours, beside) = (At::new(verdict, COST), At::new(EMPTY, COST));
                Target::ratio(format!("XDP program, {verdict}"), ours, beside, Goal::MostBeyond(30.0))
            })
            .collect(),
        plotted: COST,
        most_rounds: usize::MAX,
    }
}

/// A line of the bench.
#[derive(Deserialize)]
struct Line {
    verdict: Option<String>,
    nanoseconds: f64,
}

fn verdicts_say(said: &str) -> Result<Vec<Reading>> {
    said.lines()
        .map(|line| {
            let Line { verdict, nanoseconds } =
                serde_json::from_str(line).with_context(|| format!("this is no figure: {line}"))?;
            Ok(Reading::of(verdict.unwrap_or_else(|| EMPTY.to_owned()), COST, nanoseconds))
        })
        .collect()
}

/// The kernel's own traffic on an interface that has the program, and no address of ours.
fn bulk(plan: &Plan) -> Case {
    let scene = || kernel_to_kernel(plan, link(1500));
    let mut beside_ours = scene();
    // What it attaches stays for as long as its pins do, in a file system that goes with the process that it is mounted for.
    let attach = format!(
        "mount -t bpf -o mode=0700 bpf /sys/fs/bpf && {{xstack}} attach {INTERFACE} && echo attached && exec sleep 1000"
    );
    beside_ours.background.insert(0, Process::right("sh -c").and(attach).once(Ready::Says("attached\n")));
    Case {
        name: "xdp-bulk",
        about: "One stream of the kernel's TCP, MTU 1500, on an interface with an XDP program that is not for it.".to_owned(),
        entries: vec![
            Entry::scene(BULK_BESIDE_OURS, beside_ours),
            Entry::scene(BULK_BESIDE_EMPTY, with_empty_program(scene())),
            Entry::scene(KERNEL, scene()),
        ],
        targets: vec![Target::ratio(
            "kernel bulk beside our XDP program",
            At::new(BULK_BESIDE_OURS, GOODPUT),
            At::new(BULK_BESIDE_EMPTY, GOODPUT),
            Goal::LeastTimes(0.97),
        )],
        plotted: GOODPUT,
        most_rounds: usize::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_verdict_or_the_empty_program() {
        let said = "{\"verdict\":null,\"nanoseconds\":9}\n{\"verdict\":\"pass-arp\",\"nanoseconds\":21.5}\n";
        let read = verdicts_say(said).unwrap();
        assert_eq!(read, [Reading::of(EMPTY, COST, 9.0), Reading::of("pass-arp", COST, 21.5)]);
        assert!(verdicts_say("what\n").is_err());
    }
}
