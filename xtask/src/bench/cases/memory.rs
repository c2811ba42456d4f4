//! Both ends on one core and in memory: what protocols cost without a device, beside smoltcp and beside the copies and sums that
//! no TCP can do without.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::bench::case::{Case, Entry, Plan, Program, Read, Reading};
use crate::bench::metric::{COST, GOODPUT};
use crate::bench::target::{At, Goal, Target};

/// Bytes of buffers, and as rows have them.
const BUFFERS: [(u64, &str); 2] = [(64 << 10, "64 KiB"), (1 << 20, "1 MiB")];

pub(super) fn cases(plan: &Plan) -> Vec<Case> {
    let bulk_target = |at: usize, beside: &str, times| {
        let (_, buffers) = BUFFERS[at];
        let (ours, beside) = (At::new(row("ours", buffers), GOODPUT), At::new(row(beside, buffers), GOODPUT));
        Target::ratio(format!("in memory, buffers of {buffers}"), ours, beside, Goal::LeastTimes(times))
    };
    let mut targets = vec![
        bulk_target(0, "smoltcp", 1.5),
        bulk_target(1, "smoltcp", 2.0),
        bulk_target(0, "copy and checksum", 0.6),
        bulk_target(1, "copy and checksum", 0.6),
    ];
    let many: &[u64] = if plan.quick { &[1000, 100_000] } else { &[1000, 100_000, 1_000_000] };
    targets.extend(many.iter().map(|&connections| {
        Target::ratio(
            format!("a segment among {connections} connections"),
            At::new(among(connections), COST),
            At::new(among(1), COST),
            Goal::MostTimes(1.25),
        )
    }));
    let arguments = ["--json"].into_iter().chain(plan.quick.then_some("--quick"));
    vec![Case {
        name: "memory",
        about: "One stream with both ends on one core and no device, MTU 1500, checksums on: payload that arrives; what its parts \
                cost for each segment or ACK; and what a small segment costs that comes in for another connection than the last, by \
                how many there are."
            .to_owned(),
        entries: vec![Entry::program(
            "in memory",
            Program {
                bench: "memory",
                arguments: arguments.map(Into::into).collect(),
                pinned: true,
                limit: 300,
                read: Read::With(says),
            },
        )],
        targets,
        plotted: GOODPUT,
        most_rounds: 3,
    }]
}

fn row(whose: &str, buffers: &str) -> String {
    format!("{whose}, {buffers}")
}

fn among(connections: u64) -> String {
    format!("a segment among {connections}")
}

/// What the bench prints, as far as it is read.
#[derive(Deserialize)]
struct Figures {
    bulk: Vec<Bulk>,
    parts_ns: serde_json::Map<String, serde_json::Value>,
    among: Vec<Among>,
    timer: Timer,
}

#[derive(Deserialize)]
struct Bulk {
    buffers: u64,
    ours_gbits: f64,
    smoltcp_gbits: f64,
    floor_gbits: f64,
}

#[derive(Deserialize)]
struct Among {
    connections: u64,
    received_ns: f64,
}

#[derive(Deserialize)]
struct Timer {
    set_ns: f64,
    expired_ns: f64,
}

fn says(said: &str) -> Result<Vec<Reading>> {
    let figures: Figures =
        serde_json::from_str(said).with_context(|| format!("these are no figures: {said}"))?;
    let Figures { bulk, parts_ns, among: many, timer } = figures;
    let mut readings = Vec::new();
    for Bulk { buffers, ours_gbits, smoltcp_gbits, floor_gbits } in bulk {
        let known = BUFFERS.into_iter().find(|(bytes, _)| *bytes == buffers);
        let name = known.map_or_else(|| format!("{buffers} B"), |(_, name)| name.to_owned());
        for (whose, gbits) in
            [("ours", ours_gbits), ("smoltcp", smoltcp_gbits), ("copy and checksum", floor_gbits)]
        {
            readings.push(Reading::of(row(whose, &name), GOODPUT, gbits * 1e9));
        }
    }
    readings.extend(many.iter().map(|one| Reading::of(among(one.connections), COST, one.received_ns)));
    readings.extend(parts_ns.iter().filter_map(|(part, nanos)| {
        Some(Reading::of(format!("bulk: {}", part.replace('_', " ")), COST, nanos.as_f64()?))
    }));
    readings.extend([
        Reading::of("a timer: set", COST, timer.set_ns),
        Reading::of("a timer: expired", COST, timer.expired_ns),
    ]);
    Ok(readings)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"{"benchmark":"memory",
        "bulk":[{"buffers":65536,"ours_gbits":50.0,"smoltcp_gbits":40.0,"floor_gbits":100.0,"of_smoltcp":1.25,"of_floor":0.5}],
        "parts_ns":{"write":30.5,"deliver_acks":12},
        "among":[{"connections":1,"received_ns":50,"answered_ns":400}],
        "timer":{"set_ns":20,"expired_ns":90}}"#;

    #[test]
    fn rows_are_those_that_targets_know() {
        let rows: Vec<_> = says(SAID).unwrap().into_iter().map(|reading| reading.row.unwrap()).collect();
        assert_eq!(rows[..3], ["ours, 64 KiB", "smoltcp, 64 KiB", "copy and checksum, 64 KiB"]);
        let plan = Plan { rounds: 1, seconds: 1, warm_up: 1, quick: true };
        let targets = &cases(&plan)[0].targets;
        assert!(
            rows.contains(&targets[0].ours.row) && rows.contains(&targets[2].beside.as_ref().unwrap().row)
        );
        assert!(rows.contains(&targets[4].beside.as_ref().unwrap().row), "{rows:?}");
        assert!(rows.contains(&"bulk: deliver acks".to_owned()) && rows.len() == 8, "{rows:?}");
    }
}
