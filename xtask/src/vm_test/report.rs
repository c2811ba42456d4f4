//! What scenarios reported: read as it comes, told as a table, as JSON, and in the words that `cargo xtask test` counts.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::qemu::Nic;

/// How a scenario ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It did what it should.
    Passed,
    /// It did not, or the guest ended during it.
    Failed,
    /// It can't be run in this guest, for a reason.
    Skipped,
}

/// One scenario in one guest.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Scenario {
    pub(super) name: String,
    pub(super) verdict: Verdict,
    pub(super) seconds: f64,
    /// Why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// What it printed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) output: String,
}

/// One guest, from power on to power off.
#[derive(Debug, Serialize)]
pub(super) struct Boot {
    pub(super) nic: Nic,
    pub(super) queues: u32,
    /// As `uname -r` has it.
    pub(super) kernel: String,
    pub(super) seconds: f64,
    pub(super) scenarios: Vec<Scenario>,
    /// What went wrong with the guest itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) broke: Option<String>,
    /// Where its files are: console, captures, dmesg.
    pub(super) files: String,
}

impl Boot {
    /// Names it in lines about it.
    pub(super) fn label(&self) -> String {
        label(self.nic, self.queues, &self.kernel)
    }

    pub(super) fn has_failed(&self) -> bool {
        self.broke.is_some() || self.count(Verdict::Failed) > 0
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.scenarios.iter().filter(|scenario| scenario.verdict == verdict).count()
    }
}

/// Names a guest.
pub(super) fn label(nic: Nic, queues: u32, kernel: &str) -> String {
    format!("{}-q{queues}-{kernel}", nic.name())
}

/// Reads what libtest prints with `--nocapture` on one thread: a test's name, its output, its end.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) scenarios: Vec<Scenario>,
    /// The one under way, since when, and what it printed.
    running: Option<(String, Instant, String)>,
    /// Whether libtest came to its end.
    pub(super) is_complete: bool,
}

impl Reader {
    /// The scenario under way.
    pub(super) fn current(&self) -> Option<&str> {
        self.running.as_ref().map(|(name, ..)| name.as_str())
    }

    /// Takes a line, which may still lack its end: a scenario is announced before it runs.
    pub(super) fn line(&mut self, line: &str, is_whole: bool, now: Instant) {
        let mut rest = line;
        if let Some((name, after)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
            if self.current() != Some(name) {
                self.running = Some((name.to_owned(), now, String::new()));
            }
            rest = after;
        }
        if !is_whole {
            return;
        }
        self.is_complete |= line.starts_with("test result: ");
        let verdict = match rest {
            "ok" => Verdict::Passed,
            "FAILED" => Verdict::Failed,
            // `#[ignore]`: only long runs have it.
            rest if rest.starts_with("ignored") => {
                self.running = None;
                return;
            }
            text => {
                if let Some((.., output)) = &mut self.running {
                    output.push_str(text);
                    output.push('\n');
                }
                return;
            }
        };
        self.end(verdict, now);
    }

    /// The scenario under way is over.
    pub(super) fn end(&mut self, verdict: Verdict, now: Instant) {
        let Some((name, started, output)) = self.running.take() else { return };
        let skip = output.lines().find_map(|line| line.strip_prefix("SKIP ")?.split_once(": "));
        let (verdict, reason) = match (verdict, skip) {
            // For libtest a test that returned early has passed.
            (Verdict::Passed, Some((_, reason))) => (Verdict::Skipped, Some(reason.to_owned())),
            (verdict, _) => (verdict, None),
        };
        let seconds = now.saturating_duration_since(started).as_secs_f64();
        self.scenarios.push(Scenario { name, verdict, seconds, reason, output });
    }
}

/// For a person, and for `cargo xtask test`.
pub(super) fn tell(boots: &[Boot], took: Duration) -> String {
    let mut told = String::new();
    let mut line = |text: String| {
        told.push_str(&text);
        told.push('\n');
    };
    for boot in boots {
        line(format!("\n{} ({:.0} s; files in {})", boot.label(), boot.seconds, boot.files));
        for Scenario { name, verdict, seconds, .. } in &boot.scenarios {
            let word = match verdict {
                Verdict::Passed => "ok",
                Verdict::Failed => "FAILED",
                Verdict::Skipped => "skipped",
            };
            line(format!("  {name:<64} {word:<8} {seconds:>6.1} s"));
        }
    }
    if boots.iter().any(Boot::has_failed) {
        line("\nfailures:".into());
    }
    for boot in boots {
        for scenario in boot.scenarios.iter().filter(|scenario| scenario.verdict == Verdict::Failed) {
            line(format!(
                "\n---- {} in {} ----\n{}",
                scenario.name,
                boot.label(),
                scenario.output.trim_end()
            ));
        }
        if let Some(broke) = &boot.broke {
            line(format!("\n---- {} itself ----\n{broke}", boot.label()));
        }
    }
    line(String::new());
    for boot in boots {
        for Scenario { name, reason, .. } in &boot.scenarios {
            if let Some(reason) = reason {
                line(format!("SKIP {name} in {}: {reason}", boot.label()));
            }
        }
    }
    let count = |verdict| boots.iter().map(|boot| boot.count(verdict)).sum::<usize>();
    let (passed, failed, skipped) = (count(Verdict::Passed), count(Verdict::Failed), count(Verdict::Skipped));
    let broken = boots.iter().filter(|boot| boot.broke.is_some() && boot.count(Verdict::Failed) == 0).count();
    let outcome = if failed + broken == 0 { "ok" } else { "FAILED" };
    // libtest's words, for whom a skipped test has passed; `cargo xtask test` takes them out again by their lines.
    line(format!(
        "test result: {outcome}. {} passed; {} failed; 0 ignored; in {} guests, {:.0} s",
        passed + skipped,
        failed + broken,
        boots.len(),
        took.as_secs_f64()
    ));
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Reader {
        let (mut reader, now) = (Reader::default(), Instant::now());
        for line in text.lines() {
            // As it comes over a serial line: in pieces.
            reader.line(&line[..line.len() / 2], false, now);
            reader.line(line, true, now);
        }
        reader
    }

    const PRINTED: &str = "\
vm: up 7.3.4

running 4 tests
test a::first ... ok
test a::second ... some words
and more
ok
test b::third ... SKIP third: igb has one queue
ok
test b::fourth ... panicked at here:
FAILED
test b::fifth ... ignored, long
test result: FAILED. 3 passed; 1 failed; 0 ignored
";

    #[test]
    fn scenarios_are_read_with_their_output_and_skips_with_their_reason() {
        let reader = read(PRINTED);
        let verdicts: Vec<_> =
            reader.scenarios.iter().map(|scenario| (scenario.name.as_str(), scenario.verdict)).collect();
        let expected = [
            ("a::first", Verdict::Passed),
            ("a::second", Verdict::Passed),
            ("b::third", Verdict::Skipped),
            ("b::fourth", Verdict::Failed),
        ];
        assert_eq!(verdicts, expected);
        assert_eq!(reader.scenarios[1].output, "some words\nand more\n");
        assert_eq!(reader.scenarios[2].reason.as_deref(), Some("igb has one queue"));
        assert!(reader.is_complete && reader.current().is_none());
    }

    #[test]
    fn the_scenario_during_which_the_guest_ends_has_failed() {
        let mut reader = read("test a::first ... ok\n");
        reader.line("test a::second ... ", false, Instant::now());
        assert_eq!(reader.current(), Some("a::second"));
        reader.end(Verdict::Failed, Instant::now());
        assert_eq!(reader.scenarios[1].verdict, Verdict::Failed);
        assert!(!reader.is_complete);
    }

    #[test]
    fn what_is_told_is_counted_right_by_cargo_xtask_test() {
        let scenarios = read(PRINTED).scenarios;
        let boot = |broke: Option<&str>| Boot {
            nic: Nic::Igb,
            queues: 2,
            kernel: "7.3.4".into(),
            seconds: 9.0,
            scenarios: scenarios.clone(),
            broke: broke.map(str::to_owned),
            files: "target/vm".into(),
        };
        let told = tell(&[boot(None), boot(Some("the kernel panicked"))], Duration::from_secs(9));
        assert!(told.contains("SKIP b::third in igb-q2-7.3.4: igb has one queue"), "{told}");
        assert!(told.contains("test result: FAILED. 6 passed; 2 failed; 0 ignored"), "{told}");
        assert!(told.contains("---- b::fourth in igb-q2-7.3.4 ----\npanicked at here:"), "{told}");
        assert!(told.contains("---- igb-q2-7.3.4 itself ----\nthe kernel panicked"), "{told}");
    }
}
