//! The report for people: what is well in a line, what is not with its why and its command.

use std::fmt::Write as _;

use super::{
    facts::{Facts, Interface},
    finding::{Apply, Finding, Severity, Unseen},
    fix::{self, Made},
    self_test::{self, SelfTest},
};
use crate::cli::console::printable;

/// Where what belongs to a finding begins, below its first line.
const INDENT: &str = "           ";

/// Everything that there is to say.
pub(super) struct Report<'a> {
    pub(super) facts: &'a Facts,
    pub(super) findings: &'a [Finding],
    pub(super) fixes: &'a [Made],
    pub(super) unseen: &'a [Unseen],
    pub(super) self_test: &'a SelfTest,
    /// Whether a terminal shows it that has colours.
    pub(super) coloured: bool,
}

impl Report<'_> {
    /// All of it.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, f: &mut String) -> std::fmt::Result {
        writeln!(f, "{}", self.bold("host"))?;
        for finding in self.findings.iter().filter(|finding| finding.interface.is_none()) {
            self.finding(f, finding)?;
        }
        for interface in &self.facts.interfaces {
            let name = &interface.details.name;
            writeln!(f, "\n{}", self.bold(&printable(&title(interface))))?;
            for finding in self.findings.iter().filter(|finding| finding.interface.as_ref() == Some(name)) {
                self.finding(f, finding)?;
            }
        }
        self.unseen(f)?;
        self.fixes(f)?;
        self.self_test(f)?;
        writeln!(f, "\n{}", self.sum())
    }

    fn finding(&self, f: &mut String, finding: &Finding) -> std::fmt::Result {
        writeln!(f, "  {} {}", self.word(finding.severity), printable(&finding.what))?;
        if !finding.why.is_empty() {
            writeln!(f, "{INDENT}{}", printable(&finding.why))?;
        }
        if let Some(advice) = &finding.advice {
            writeln!(f, "{INDENT}{}", printable(advice))?;
        }
        if let Some(fix) = &finding.fix {
            let by = match fix.apply {
                Apply::Safe => "   # or --fix",
                Apply::Disruptive => "   # or --fix=all",
                Apply::Manual => "",
            };
            writeln!(f, "{INDENT}  {}{by}", printable(&fix.command))?;
            if let Some(undo) = &fix.undo {
                writeln!(f, "{INDENT}  undo: {}", printable(undo))?;
            }
        }
        Ok(())
    }

    fn unseen(&self, f: &mut String) -> std::fmt::Result {
        if self.unseen.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{}", self.bold("not looked at"))?;
        for Unseen { what, why, command } in self.unseen {
            writeln!(f, "  {}: {}", printable(what), printable(why))?;
            writeln!(f, "{INDENT}  {}", printable(command))?;
        }
        Ok(())
    }

    fn fixes(&self, f: &mut String) -> std::fmt::Result {
        if self.fixes.is_empty() {
            return Ok(());
        }
        writeln!(f, "\n{}", self.bold("changes"))?;
        for made in self.fixes {
            let how = match made.outcome {
                fix::Outcome::Applied => "made",
                fix::Outcome::WouldApply => "would be made",
                fix::Outcome::Failed => "failed",
            };
            let error = made.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            writeln!(f, "  {how}{}: {}", printable(&error), printable(&made.command))?;
            if let Some(undo) = &made.undo {
                writeln!(f, "{INDENT}  undo: {}", printable(undo))?;
            }
        }
        Ok(())
    }

    fn self_test(&self, f: &mut String) -> std::fmt::Result {
        let SelfTest { outcome, reason, command, mode, device, steps } = self.self_test;
        writeln!(f, "\n{}", self.bold("self-test"))?;
        for step in steps {
            writeln!(f, "  {} {} ({} ms)", self.word(Severity::Ok), step.name, step.milliseconds)?;
        }
        if let (Some(mode), Some(device)) = (mode, device) {
            writeln!(f, "{INDENT}{mode}; {}", printable(device))?;
        }
        let reason = printable(reason.as_deref().unwrap_or_default());
        match outcome {
            self_test::Outcome::Passed => Ok(()),
            self_test::Outcome::Failed => writeln!(f, "  {} {reason}", self.word(Severity::Problem)),
            self_test::Outcome::Skipped => {
                writeln!(f, "  not run: {reason}")?;
                command.iter().try_for_each(|command| writeln!(f, "{INDENT}  {command}"))
            }
        }
    }

    fn sum(&self) -> String {
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        let failed = usize::from(self.self_test.outcome == self_test::Outcome::Failed);
        let counted = [
            (count(Severity::Problem) + failed, "problem"),
            (count(Severity::Warning), "warning"),
            (count(Severity::Note), "note"),
        ];
        let told: Vec<_> = counted
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, word)| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
            .collect();
        if told.is_empty() { "all is well".to_owned() } else { told.join(", ") }
    }

    /// A severity's word, as wide as the longest.
    fn word(&self, severity: Severity) -> String {
        let word = format!("{:<8}", severity.word());
        let colour = match severity {
            Severity::Ok => 32,
            Severity::Note => 36,
            Severity::Warning => 33,
            Severity::Problem => 31,
        };
        if self.coloured { format!("\x1b[{colour}m{word}\x1b[0m") } else { word }
    }

    fn bold(&self, text: &str) -> String {
        if self.coloured { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The interface, and what it is.
fn title(interface: &Interface) -> String {
    let details = &interface.details;
    let what = [details.driver.as_deref(), details.bus.as_deref()];
    let what: Vec<_> = what.into_iter().flatten().collect();
    if what.is_empty() { details.name.clone() } else { format!("{} ({})", details.name, what.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::{
        finding::Fix,
        judge::testing::{facts, host, interface},
    };

    fn text(findings: &[Finding], coloured: bool) -> String {
        let facts = facts(host(), vec![interface("eth1")]);
        let self_test = SelfTest::skipped("it takes root", Some("sudo xstack doctor".to_owned()));
        Report { facts: &facts, findings, fixes: &[], unseen: &[], self_test: &self_test, coloured }.to_text()
    }

    #[test]
    fn a_finding_has_its_why_and_its_command_below() {
        let fix = Fix::command("sudo do it").undone_by("sudo undo it");
        let finding = Finding::warning("x", "it is so", "it matters").fixed_by(fix).about("eth1");
        let text = text(&[Finding::ok("y", "fine"), finding], false);
        let expected = "host\n  ok       fine\n\neth1 (ice, 0000:01:00.0)\n  warning  it is so\n           it matters\n             \
                        sudo do it\n             undo: sudo undo it\n\nself-test\n  not run: it takes root\n             \
                        sudo xstack doctor\n\n1 warning\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn colours_are_for_terminals_and_names_can_t_bring_their_own() {
        let finding = Finding::problem("x", "program `\x1b[2J` is there", "so");
        assert!(!text(std::slice::from_ref(&finding), false).contains('\x1b'));
        let coloured = text(&[finding], true);
        assert!(coloured.contains("\x1b[31mproblem") && !coloured.contains("\x1b[2J"));
    }
}
