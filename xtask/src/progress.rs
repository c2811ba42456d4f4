//! What is going on, on stderr: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One step under way. It reports how it ended by [`Step::done`]; dropped before, it vanishes without a word,
/// since an error message follows then.
pub struct Step {
    label: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Announces a step that prints nothing itself.
    pub fn start(label: impl Into<String>) -> Self {
        let label = label.into();
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner:.cyan} {msg} {elapsed:.dim}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style).with_message(label.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { label, started: Instant::now(), bar }
    }

    /// Says more about what the step is at.
    pub fn detail(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}: {detail}", self.label));
        }
    }

    /// Ends the step with a line that stays.
    pub fn done(self, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!("xtask: {}: {result} ({:.1} s)", self.label, self.started.elapsed().as_secs_f64());
    }

    /// Ends the step without a line.
    pub fn done_quietly(self) {}
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Many steps of known number, of which one is under way.
pub struct Steps {
    bar: ProgressBar,
    label: String,
}

impl Steps {
    /// Announces so many steps.
    pub fn start(label: impl Into<String>, count: usize) -> Self {
        let label = label.into();
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(
                "{bar:24.cyan} {pos}/{len} {msg} {elapsed:.dim}, {eta:.dim} left",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = ProgressBar::new(count as u64).with_style(style);
            bar.enable_steady_tick(Duration::from_secs(1));
            bar
        } else {
            ProgressBar::hidden()
        };
        bar.set_length(count as u64);
        Self { bar, label }
    }

    /// The next one is under way.
    pub fn next(&self, what: &str) {
        if self.bar.is_hidden() {
            eprintln!("xtask: {}: {what}", self.label);
        } else if !self.bar.message().is_empty() {
            self.bar.inc(1);
        }
        self.bar.set_message(what.to_owned());
    }

    /// Says something that stays.
    pub fn tell(&self, line: &str) {
        self.aside(|| eprintln!("xtask: {}: {line}", self.label));
    }

    /// Does something that prints.
    pub fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
