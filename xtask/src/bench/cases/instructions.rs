//! How many instructions a segment takes: the same on any machine, and on a busy one.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::bench::case::{Case, Entry, Plan, Program, Read, Reading};
use crate::bench::metric::{Metric, Unit};
use crate::bench::target::{At, Target};

const INSTRUCTIONS: Metric = Metric { name: "instructions", unit: Unit::Count };

/// The bench's name for a full segment of a stream, both ends, with its share of an ACK.
const BULK: &str = "bulk";

pub(super) fn cases(_plan: &Plan) -> Vec<Case> {
    vec![Case {
        name: "instructions",
        about: "Instructions for each segment or ACK, as callgrind counts them on a CPU with AVX2; `bulk` is all that a full \
                segment takes, at both ends and with its share of an ACK."
            .to_owned(),
        entries: vec![Entry::program(
            "counted",
            Program {
                bench: "instructions",
                arguments: vec!["--json".to_owned()],
                pinned: true,
                limit: 300,
                read: Read::With(says),
            },
        )],
        targets: vec![Target::absolute("instructions of a segment, both ends", At::new(BULK, INSTRUCTIONS), 2000.0)],
        plotted: INSTRUCTIONS,
        // It comes to the same each time.
        most_rounds: 1,
    }]
}

#[derive(Deserialize)]
struct Figures {
    per_segment: serde_json::Map<String, serde_json::Value>,
}

fn says(said: &str) -> Result<Vec<Reading>> {
    // Where nothing can be counted, it says why in place of figures.
    let figures: Figures = serde_json::from_str(said).with_context(|| said.trim().to_owned())?;
    let counts = figures.per_segment.iter();
    Ok(counts.filter_map(|(name, count)| Some(Reading::of(name, INSTRUCTIONS, count.as_f64()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_rows_and_a_reason_is_told() {
        let read = says(r#"{"benchmark":"instructions","per_segment":{"bulk":1987.5,"send":400}}"#).unwrap();
        assert!(read.contains(&Reading::of(BULK, INSTRUCTIONS, 1987.5)) && read.len() == 2, "{read:?}");
        let error = says("SKIP instructions: valgrind is not installed\n").unwrap_err();
        assert_eq!(error.to_string(), "SKIP instructions: valgrind is not installed");
    }
}
