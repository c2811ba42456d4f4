//! The cases, a file for each family. Each says what runs, beside what, and what should come of it; nothing else has to be told
//! of it anywhere.

mod bulk;
mod conns;
mod http;
mod start;
mod wan;
mod xdp;

use super::case::{Case, Link, Plan};
use super::network::{INTERFACE, address};

/// Every case, in the order in which they are run and stand on the page.
pub(super) fn all(plan: &Plan) -> Vec<Case> {
    [
        bulk::cases(plan),
        http::cases(plan),
        conns::cases(plan),
        xdp::cases(plan),
        start::cases(plan),
        wan::cases(plan),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A link as it comes.
const fn link(mtu: u32) -> Link {
    Link { mtu, left: "", right: "" }
}

/// A link with the kernel's TCP on the left and ours on the right: a veth end leaves checksums to a card that is not there, and
/// XDP sees the frames before anybody has noticed.
const fn kernel_to_ours(mtu: u32) -> Link {
    Link { mtu, left: "tx off", right: "" }
}

/// The other way round.
const fn ours_to_kernel(mtu: u32) -> Link {
    Link { mtu, left: "", right: "tx off" }
}

/// xstack, with our address on the left.
fn xstack_left(command: &str) -> String {
    xstack(address::OURS_LEFT, command)
}

/// xstack, with our address on the right.
fn xstack_right(command: &str) -> String {
    xstack(address::OURS_RIGHT, command)
}

fn xstack(address: &str, command: &str) -> String {
    format!("{{xstack}} --interface {INTERFACE} --address {address}/24 {command}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::bench::case::{Read, Recipe};

    fn plans() -> [Plan; 2] {
        [false, true].map(|quick| Plan { rounds: 2, seconds: 1, warm_up: 1, quick })
    }

    #[test]
    fn names_are_told_apart_and_fit_for_files() {
        let cases = all(&plans()[0]);
        let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), cases.len());
        for name in names {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
        }
    }

    #[test]
    fn the_quick_run_has_the_same_cases() {
        let names = plans().map(|plan| all(&plan).iter().map(|case| case.name).collect::<Vec<_>>());
        assert_eq!(names[0], names[1]);
    }

    /// A target about a row that no entry has would stay unmeasured for ever. Rows that a program names itself are its own.
    #[test]
    fn targets_are_about_what_is_measured() {
        for case in all(&plans()[0]) {
            let has_rows_of_its_own = |recipe: &Recipe| match recipe {
                Recipe::Scene(scene) => matches!(scene.read, Read::With(_)),
                Recipe::Program(program) => matches!(program.read, Read::With(_)),
            };
            if case.entries.iter().any(|entry| has_rows_of_its_own(&entry.recipe)) {
                continue;
            }
            for target in &case.targets {
                for at in [Some(&target.ours), target.beside.as_ref()].into_iter().flatten() {
                    let entry = case.entries.iter().find(|entry| entry.name == at.row);
                    let entry =
                        entry.unwrap_or_else(|| panic!("{}: no entry is called {:?}", case.name, at.row));
                    let read = match &entry.recipe {
                        Recipe::Scene(scene) => &scene.read,
                        Recipe::Program(program) => &program.read,
                    };
                    let has_metric = match read {
                        Read::Json(places) => places.iter().any(|(metric, _)| *metric == at.metric),
                        Read::FirstByte => at.metric == crate::bench::metric::FIRST_BYTE,
                        Read::With(_) => true,
                    };
                    assert!(has_metric, "{}: {} has no {}", case.name, at.row, at.metric.name);
                }
            }
        }
    }
}
