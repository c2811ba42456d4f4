//! `--fix`: making the changes that findings ask for, and saying how each is undone.

use clap::ValueEnum;
use serde::Serialize;

use super::finding::{Apply, Finding, Fix};

/// Which changes are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fixes {
    /// Those that nobody else notices
    Safe,
    /// Also those that others may notice for a moment, as when a card resets its queues
    All,
}

impl Fixes {
    fn include(self, apply: Apply) -> bool {
        match apply {
            Apply::Safe => true,
            Apply::Disruptive => self == Self::All,
            Apply::Manual => false,
        }
    }
}

/// A change that was made, or would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Made {
    /// The finding's check.
    pub check: &'static str,
    /// The finding's interface.
    pub interface: Option<String>,
    /// The command that does the same.
    pub command: String,
    /// The command that undoes it.
    pub undo: Option<String>,
    /// How it went.
    pub outcome: Outcome,
    /// Why it failed.
    pub error: Option<String>,
}

/// How a change went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was made.
    Applied,
    /// It would be, but for `--dry-run`.
    WouldApply,
    /// It could not be made.
    Failed,
}

/// Makes the changes that are included, each once; with `dry_run` it only says which.
pub(super) async fn fix(findings: &[Finding], fixes: Fixes, dry_run: bool) -> Vec<Made> {
    let mut made: Vec<Made> = Vec::new();
    for (finding, fix) in included(findings, fixes) {
        let Some(change) = &fix.change else { continue };
        if made.iter().any(|before| before.command == fix.command) {
            continue;
        }
        let (outcome, error) = match dry_run {
            true => (Outcome::WouldApply, None),
            false => match change.apply().await {
                Ok(()) => (Outcome::Applied, None),
                Err(error) => (Outcome::Failed, Some(error.to_string())),
            },
        };
        made.push(Made {
            check: finding.check,
            interface: finding.interface.clone(),
            command: fix.command.clone(),
            undo: fix.undo.clone(),
            outcome,
            error,
        });
    }
    made
}

fn included(findings: &[Finding], fixes: Fixes) -> impl Iterator<Item = (&Finding, &Fix)> {
    let with = findings.iter().filter_map(|finding| Some((finding, finding.fix.as_ref()?)));
    with.filter(move |(_, fix)| fix.change.is_some() && fixes.include(fix.apply))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{
        interface::{features::Offload, finish_checksums},
        remedy::Change,
    };

    fn findings() -> Vec<Finding> {
        let lro = Change::Offload {
            interface: "eth1".to_owned(),
            namespace: None,
            offload: Offload::Lro,
            on: false,
        };
        let detach = Change::Detach { interface: "eth1".to_owned(), generic: false };
        let with =
            |change, apply| Finding::warning("x", "so", "because").fixed_by(Fix::change(change, apply));
        vec![
            with(finish_checksums("xs-b", None), Apply::Safe),
            with(finish_checksums("xs-b", None), Apply::Safe),
            with(lro, Apply::Disruptive),
            with(detach, Apply::Manual),
            Finding::note("x", "so", "because").fixed_by(Fix::command("xstack status")),
        ]
    }

    #[tokio::test]
    async fn only_what_was_asked_for_is_made_and_once() {
        let commands = async |fixes| -> Vec<String> {
            let made = fix(&findings(), fixes, true).await;
            assert!(made.iter().all(|made| made.outcome == Outcome::WouldApply && made.undo.is_some()));
            made.into_iter().map(|made| made.command).collect()
        };
        assert_eq!(commands(Fixes::Safe).await, ["sudo ethtool -K xs-b tx off"]);
        assert_eq!(
            commands(Fixes::All).await,
            ["sudo ethtool -K xs-b tx off", "sudo ethtool -K eth1 lro off"]
        );
    }

    #[tokio::test]
    async fn what_can_t_be_made_says_why() {
        let missing = Finding::warning("x", "so", "because")
            .fixed_by(Fix::change(finish_checksums("xs-none", None), Apply::Safe));
        let made = fix(&[missing], Fixes::Safe, false).await;
        assert_eq!((made[0].outcome, made[0].error.is_some()), (Outcome::Failed, true));
    }
}
