//! The cases, a file for each family. Each says what runs, beside what, and what should come of it; nothing else has to be told
//! of it anywhere.

mod bulk;
mod conns;
mod http;
mod instructions;
mod memory;
mod rpc;
mod start;
mod wan;
mod xdp;

use super::case::{Case, Link, Plan, Read, Recipe};
use super::network::{INTERFACE, address};

/// Every case, in the order in which they are run and stand on the page.
pub(super) fn all(plan: &Plan) -> Vec<Case> {
    let families: [fn(&Plan) -> Vec<Case>; 9] = [
        bulk::cases,
        rpc::cases,
        http::cases,
        memory::cases,
        instructions::cases,
        conns::cases,
        xdp::cases,
        start::cases,
        wan::cases,
    ];
    let mut cases: Vec<_> = families.iter().flat_map(|family| family(plan)).collect();
    if plan.quick {
        cases.iter_mut().for_each(keep_what_is_judged);
    }
    cases
}

/// Leaves out what only stands beside the rest: no target is about it.
fn keep_what_is_judged(case: &mut Case) {
    let is_judged = |name: &str| {
        let mut rows = case.targets.iter().flat_map(|target| [Some(&target.ours), target.beside.as_ref()]);
        rows.any(|at| at.is_some_and(|at| at.row == name))
    };
    // A program that names rows measures them as a whole, and where there is no target, nothing is the rest.
    let names_rows = |recipe: &Recipe| match recipe {
        Recipe::Program(program) => matches!(program.read, Read::With(_)),
        Recipe::Scene(_) => false,
    };
    case.entries
        .retain(|entry| names_rows(&entry.recipe) || case.targets.is_empty() || is_judged(&entry.name));
}

/// How the ends that are ours wait for frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// They look for them all the time.
    Spinning,
    /// They sleep until some come.
    Sleeping,
}

impl Mode {
    /// Both.
    const ALL: [Self; 2] = [Self::Spinning, Self::Sleeping];

    /// As names of rows have it.
    const fn name(self) -> &'static str {
        match self {
            Self::Spinning => "spinning",
            Self::Sleeping => "sleeping",
        }
    }

    /// The network options for it. Who spins has rings that stay in the cache, as who is in a hurry would say.
    const fn options(self) -> &'static str {
        match self {
            // Longer than any gap between two frames of a run.
            Self::Spinning => "--busy-poll=100000 --ring-size 512",
            Self::Sleeping => "",
        }
    }
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
fn xstack_left(mode: Mode, command: &str) -> String {
    xstack(address::OURS_LEFT, mode, command)
}

/// xstack, with our address on the right.
fn xstack_right(mode: Mode, command: &str) -> String {
    xstack(address::OURS_RIGHT, mode, command)
}

fn xstack(address: &str, mode: Mode, command: &str) -> String {
    format!("{{xstack}} --interface {INTERFACE} --address {address}/24 {} {command}", mode.options())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

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

    #[test]
    fn the_quick_run_has_what_is_judged_and_no_more() {
        let [full, quick] = plans().map(|plan| all(&plan));
        let ways = |cases: &[Case]| cases.iter().map(|case| case.entries.len()).sum::<usize>();
        assert!(ways(&quick) < ways(&full));
        assert!(quick.iter().all(|case| !case.entries.is_empty()));
        let bulk = quick.iter().find(|case| case.name == "bulk-9000").expect("a case");
        let names: Vec<_> = bulk.entries.iter().map(|entry| &*entry.name).collect();
        assert_eq!(bulk.targets.len() * 2, names.len(), "{names:?}");
        let mix = quick.iter().find(|case| case.name == "mix").expect("a case");
        assert_eq!(mix.entries.len(), 2, "both ways that are compared");
    }

    /// A target about a row that no entry has would stay unmeasured for ever. Rows that a program names itself are its own.
    #[test]
    fn targets_are_about_what_is_measured() {
        for case in plans().iter().flat_map(all) {
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
