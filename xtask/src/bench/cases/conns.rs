//! Very many connections, most of which are idle.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::bench::case::{Case, Entry, Plan, Program, Read, Reading};
use crate::bench::metric::{COST, Metric, Unit};
use crate::bench::target::{At, Target};

const BYTES: Metric = Metric { name: "memory of an end", unit: Unit::Bytes };

const IDLE: &str = "idle since it was opened";
const AMONG_FEW: &str = "question and answer, among a thousand";
const AMONG_ALL: &str = "question and answer, among all";

pub(super) fn cases(plan: &Plan) -> Vec<Case> {
    let connections = if plan.quick { 10_000 } else { 1_000_000 };
    vec![Case {
        name: "conns",
        about: format!(
            "{connections} connections in one stack: what one takes at an end, and what a question and its answer cost."
        ),
        entries: vec![Entry::program(
            "connections",
            Program {
                bench: "conns",
                arguments: vec!["--connections".into(), connections.to_string(), "--json".into()],
                pinned: true,
                limit: 600,
                read: Read::With(says),
            },
        )],
        targets: vec![Target::absolute("memory of an idle connection", At::new(IDLE, BYTES), 512.0)],
        plotted: BYTES,
        most_rounds: 3,
    }]
}

/// What the bench prints.
#[derive(Deserialize)]
struct Figures {
    idle_bytes: f64,
    idle_again_bytes: f64,
    busy_bytes: f64,
    echo_among_few_us: f64,
    echo_among_all_us: f64,
}

fn says(said: &str) -> Result<Vec<Reading>> {
    let figures: Figures =
        serde_json::from_str(said).with_context(|| format!("these are no figures: {said}"))?;
    Ok(vec![
        Reading::of(IDLE, BYTES, figures.idle_bytes),
        Reading::of("idle after some use", BYTES, figures.idle_again_bytes),
        Reading::of("busy", BYTES, figures.busy_bytes),
        Reading::of(AMONG_FEW, COST, figures.echo_among_few_us * 1e3),
        Reading::of(AMONG_ALL, COST, figures.echo_among_all_us * 1e3),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_with_what_they_are_of() {
        let said = r#"{"connections":9,"idle_bytes":509,"idle_again_bytes":510,"busy_bytes":4000,
            "echo_among_few_us":1.5,"echo_among_all_us":2.5,"opened_s":1,"answered_s":2}"#;
        let readings = says(said).unwrap();
        assert_eq!(readings[0], Reading::of(IDLE, BYTES, 509.0));
        assert_eq!(readings[4], Reading::of(AMONG_ALL, COST, 2500.0));
        assert!(says("{}").is_err());
    }
}
