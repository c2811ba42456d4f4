//! Long paths that lose frames: our congestion control and recovery beside the kernel's, through the same relay.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::bench::case::{Case, Entry, Plan, Program, Read, Reading};
use crate::bench::metric::GOODPUT;
use crate::bench::target::{At, Goal, Target};

/// Per cent of the frames on their way to the receiver.
const LOSSES: [&str; 3] = ["0.1", "1", "3"];
/// Milliseconds there and back.
const ROUND_TRIPS: [&str; 2] = ["20", "100"];

const OURS: &str = "ours → kernel";
const THEIRS: &str = "kernel → kernel";

pub(super) fn cases(plan: &Plan) -> Vec<Case> {
    let (losses, round_trips) =
        if plan.quick { (&LOSSES[1..2], &ROUND_TRIPS[..1]) } else { (&LOSSES[..], &ROUND_TRIPS[..]) };
    // Recovery and congestion control work on a scale of round trips and losses, of which a shorter run has few.
    let seconds = if plan.quick { 2 } else { plan.seconds.max(8) };
    let cells = || round_trips.iter().flat_map(|rtt| losses.iter().map(move |loss| (*loss, *rtt)));
    vec![Case {
        name: "wan",
        about: "A bottleneck of 100 Mbit/s with a queue of one bandwidth-delay product, by loss and round trip: payload that \
                arrives; ours and the kernel's are both CUBIC."
            .to_owned(),
        entries: cells().map(|(loss, rtt)| Entry::program(format!("{loss} %, {rtt} ms"), program(loss, rtt, seconds))).collect(),
        targets: cells()
            .map(|(loss, rtt)| {
                Target::ratio(
                    format!("loss {loss} %, {rtt} ms"),
                    At::new(row(loss, rtt, OURS), GOODPUT),
                    At::new(row(loss, rtt, THEIRS), GOODPUT),
                    Goal::LeastTimes(1.0),
                )
            })
            .collect(),
        plotted: GOODPUT,
        most_rounds: 5,
    }]
}

fn program(loss: &str, rtt: &str, seconds: u32) -> Program {
    let words = format!("--json --loss {loss} --rtt {rtt} --seconds {seconds} --runs 1 --seed {{round}}");
    Program {
        bench: "wan",
        arguments: words.split(' ').map(str::to_owned).collect(),
        // Two ends and the relay between them share the cores as they can.
        pinned: false,
        limit: 60 + 8 * u64::from(seconds),
        read: Read::With(pairs_say),
    }
}

fn row(loss: &str, rtt: &str, pair: &str) -> String {
    format!("{loss} %, {rtt} ms, {pair}")
}

/// A line of the bench.
#[derive(Deserialize)]
struct Line {
    loss_percent: f64,
    rtt_ms: u64,
    pair: String,
    mbits: f64,
}

fn pairs_say(said: &str) -> Result<Vec<Reading>> {
    said.lines()
        .map(|line| {
            let Line { loss_percent, rtt_ms, pair, mbits } =
                serde_json::from_str(line).with_context(|| format!("this is no figure: {line}"))?;
            Ok(Reading::of(row(&loss_percent.to_string(), &rtt_ms.to_string(), &pair), GOODPUT, mbits * 1e6))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_row_that_targets_know() {
        let said = r#"{"loss_percent":0.1,"rtt_ms":20,"pair":"ours → kernel","mbits":91.5,"ratio":1.0}
{"loss_percent":3.0,"rtt_ms":100,"pair":"kernel → kernel","mbits":7,"ratio":1.0}"#;
        let read = pairs_say(said).unwrap();
        let plan = Plan { rounds: 1, seconds: 1, warm_up: 1, quick: false };
        let targets = &cases(&plan)[0].targets;
        assert_eq!(targets.len(), 6);
        assert!(targets.iter().any(|target| Some(&target.ours.row) == read[0].row.as_ref()), "{read:?}");
        let beside = |target: &Target| target.beside.as_ref().map(|at| at.row.clone());
        assert!(targets.iter().any(|target| beside(target) == read[1].row), "{read:?}");
        assert_eq!((read[0].metric, read[0].value), (GOODPUT, 91.5e6));
    }
}
