//! docs/performance.md: its prose is written by hand, and what stands between two markers is made of results.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::results::Outcome;
use super::{plot, table};

/// The page, and where its plots are, from the root of the workspace.
const PAGE: &str = "docs/performance.md";
const PLOTS: &str = "docs/performance";

const BEGIN: &str = "<!-- Made by `cargo xtask bench --write-docs` from here on. -->";
const END: &str = "<!-- Made by `cargo xtask bench --write-docs` up to here. -->";

/// Puts results into the page and writes the plots. All of them must be from one machine, and from full runs.
pub(super) fn write(root: &Path, outcomes: &[Outcome]) -> Result<()> {
    check(outcomes)?;
    let path = root.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let plots = root.join(PLOTS);
    fs::create_dir_all(&plots).with_context(|| format!("cannot make {}", plots.display()))?;
    let mut drawn = BTreeSet::new();
    for outcome in outcomes {
        if let Some(svg) = plot::draw(outcome)? {
            let file = plots.join(format!("{}.svg", outcome.case));
            fs::write(&file, svg).with_context(|| format!("cannot write {}", file.display()))?;
            drawn.insert(outcome.case.as_str());
        }
    }
    let page = replace(&page, &generated(outcomes, &drawn))?;
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether these may stand in one table.
fn check(outcomes: &[Outcome]) -> Result<()> {
    if let Some(quick) = outcomes.iter().find(|outcome| outcome.plan.quick) {
        bail!(
            "{} was measured with --quick, which is no figure for a page: measure it again without",
            quick.case
        );
    }
    if let Some(pair) = outcomes.windows(2).find(|pair| pair[0].machine != pair[1].machine) {
        bail!(
            "{} and {} were measured on different machines, and figures of two are not compared:\n{}\n{}",
            pair[0].case,
            pair[1].case,
            pair[0].machine.told(),
            pair[1].machine.told()
        );
    }
    if let Some(failed) = outcomes.iter().find(|outcome| !outcome.failures.is_empty()) {
        bail!("runs of {} failed: {:?}; measure it again", failed.case, failed.failures);
    }
    Ok(())
}

fn generated(outcomes: &[Outcome], drawn: &BTreeSet<&str>) -> String {
    let Some(first) = outcomes.first() else {
        return "Nothing has been measured for this page yet.\n".to_owned();
    };
    let mut text = format!("Measured on: {}.\n\n## Targets\n\n", first.machine.told());
    text.push_str(&table::targets(outcomes).markdown());
    text.push_str("\n## Figures\n");
    for outcome in outcomes {
        let plan = outcome.plan;
        text.push_str(&format!("\n### {}\n\n{}\n\n", outcome.case, outcome.about));
        if drawn.contains(outcome.case.as_str()) {
            text.push_str(&format!("![{}: {}](performance/{0}.svg)\n\n", outcome.case, outcome.plotted));
        }
        text.push_str(&table::figures(outcome).markdown());
        text.push_str(&format!(
            "\n`cargo xtask bench {} --rounds {} --seconds {}`: the median of {} rounds, and the smallest and the largest value.\n",
            outcome.case, plan.rounds, plan.seconds, plan.rounds
        ));
    }
    text
}

/// The page with other words between its markers.
fn replace(page: &str, generated: &str) -> Result<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else {
        bail!("{PAGE} has lost its markers: {BEGIN} and, further down, {END}");
    };
    Ok(format!("{before}{BEGIN}\n\n{generated}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::outcome;
    use crate::paths;

    fn whole(case: &str) -> Outcome {
        Outcome { failures: Default::default(), ..outcome(case) }
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("docs")).unwrap();
        let path = root.path().join(PAGE);
        fs::write(&path, format!("# Prose\n{BEGIN}\nold\n{END}\nmore prose\n")).unwrap();
        for _ in 0..2 {
            write(root.path(), &[whole("bulk-1500"), whole("bulk-9000")]).unwrap();
        }
        let page = fs::read_to_string(&path).unwrap();
        assert!(page.starts_with("# Prose\n<!--") && page.ends_with("-->\nmore prose\n"), "{page}");
        assert!(!page.contains("old") && page.matches("### bulk-").count() == 2, "{page}");
        assert!(page.contains("![bulk-9000: goodput](performance/bulk-9000.svg)"), "{page}");
        assert!(root.path().join(PLOTS).join("bulk-9000.svg").exists());
    }

    #[test]
    fn what_is_not_comparable_does_not_come_onto_the_page() {
        let mut quick = whole("a");
        quick.plan.quick = true;
        assert!(check(&[quick]).unwrap_err().to_string().contains("--quick"));
        let mut elsewhere = whole("b");
        elsewhere.machine.kernel = "2.6.32".into();
        assert!(check(&[whole("a"), elsewhere]).unwrap_err().to_string().contains("2.6.32"));
        assert!(check(&[outcome("c")]).unwrap_err().to_string().contains("it broke"));
        assert!(check(&[whole("a"), whole("b")]).is_ok());
    }

    #[test]
    fn a_page_without_markers_is_left_alone() {
        assert!(replace("# Prose\n", "new").is_err());
        assert!(replace(&format!("{END}\n{BEGIN}\n"), "new").is_err());
    }

    #[test]
    fn the_page_of_this_repository_has_its_markers() {
        let page = fs::read_to_string(paths::workspace().join(PAGE)).unwrap();
        assert!(replace(&page, "new").unwrap().contains("\n\nnew\n"));
    }
}
