//! What the doctor says: how bad it is, what is so, why it matters, and what to do about it.

use serde::Serialize;

use crate::device::remedy::Change;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It works, but not well, or not in every case.
    Warning,
    /// It can't work.
    Problem,
}

impl Severity {
    /// A word of its own for each.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// Who may make a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Apply {
    /// `--fix`: nobody else notices.
    Safe,
    /// `--fix=all`: others may notice for a moment, as when a card resets its queues.
    Disruptive,
    /// A person: it takes judgement, or something away from somebody.
    Manual,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// The command.
    pub command: String,
    /// The command that undoes it, if there is one.
    pub undo: Option<String>,
    /// Who may.
    pub apply: Apply,
    /// The change that the command makes, if we can make it, too.
    pub change: Option<Change>,
}

impl Fix {
    /// A change that `--fix` makes, or does not.
    pub fn change(change: Change, apply: Apply) -> Self {
        Self { command: change.command(), undo: change.undo(), apply, change: Some(change) }
    }

    /// A command that only a person gives.
    pub fn command(command: impl Into<String>) -> Self {
        Self { command: command.into(), undo: None, apply: Apply::Manual, change: None }
    }

    /// The same, with what undoes it.
    pub fn undone_by(self, undo: impl Into<String>) -> Self {
        Self { undo: Some(undo.into()), ..self }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its name, which stays the same from version to version.
    pub check: &'static str,
    /// The interface that it is about; `None` if it is the machine.
    pub interface: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// Why it matters; nothing, where all is well.
    pub why: String,
    /// What to do where that is no command.
    pub advice: Option<String>,
    /// The command.
    pub fix: Option<Fix>,
}

impl Finding {
    fn new(check: &'static str, severity: Severity, what: String, why: &str) -> Self {
        Self { check, interface: None, severity, what, why: why.to_owned(), advice: None, fix: None }
    }

    /// All is well.
    pub fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(check, Severity::Ok, what.into(), "")
    }

    /// Good to know.
    pub fn note(check: &'static str, what: impl Into<String>, why: &str) -> Self {
        Self::new(check, Severity::Note, what.into(), why)
    }

    /// Not good.
    pub fn warning(check: &'static str, what: impl Into<String>, why: &str) -> Self {
        Self::new(check, Severity::Warning, what.into(), why)
    }

    /// Bad.
    pub fn problem(check: &'static str, what: impl Into<String>, why: &str) -> Self {
        Self::new(check, Severity::Problem, what.into(), why)
    }

    /// With what to do, in words.
    pub fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    /// With the command that fixes it.
    pub fn fixed_by(self, fix: Fix) -> Self {
        Self { fix: Some(fix), ..self }
    }

    /// About an interface.
    pub fn about(self, interface: &str) -> Self {
        Self { interface: Some(interface.to_owned()), ..self }
    }
}

/// Something that could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unseen {
    /// What.
    pub what: String,
    /// Why not.
    pub why: String,
    /// The command that shows it.
    pub command: String,
}
