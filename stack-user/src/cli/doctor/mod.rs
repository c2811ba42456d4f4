//! `xstack doctor [IFACE…]`: why it does not work, or not as fast as it could, and the command that helps.
//!
//! [`collect`] reads [`facts`], [`judge`] makes [findings](finding) of them without touching anything, [`fix`] makes the
//! changes that were asked for, [`self_test`] tries the whole stack on interfaces of its own. [`report`] and [`view`] print.
//! Nothing is ever attached to or bound on an interface that is looked at.

mod collect;
pub mod facts;
pub mod finding;
pub mod fix;
mod judge;
mod report;
pub mod self_test;
mod view;

use clap::Args;

use self::{
    collect::Which,
    finding::Severity,
    fix::Fixes,
    report::Report,
    self_test::{Outcome, SelfTest},
};
use super::{
    console::Console,
    error::{Exit, Failure},
    global::GlobalOptions,
};

/// What `xstack doctor` can be told.
#[derive(Args, Clone, Debug)]
pub struct DoctorOptions {
    /// Look at these interfaces [default: the one of --interface, else the one with the default route]
    #[arg(value_name = "IFACE", conflicts_with = "all")]
    pub interfaces: Vec<String>,

    /// Look at all interfaces
    #[arg(long)]
    pub all: bool,

    /// Print it as JSON: one object, which docs/doctor.md describes
    #[arg(long)]
    pub json: bool,

    /// Make the changes that help and that nobody else notices, and say how each is undone; with `all` also those that others
    /// may notice for a moment, as when a card resets its queues
    #[arg(long, value_name = "WHICH", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "safe")]
    pub fix: Option<Fixes>,

    /// Only say which changes --fix would make
    #[arg(long, requires = "fix")]
    pub dry_run: bool,

    /// Leave out the self-test, a transfer both ways on a pair of interfaces of its own
    #[arg(long)]
    pub no_self_test: bool,
}

/// Looks, and says what is so. The exit code is that of the worst finding.
pub async fn run(
    options: DoctorOptions,
    global: &GlobalOptions,
    mut console: Console,
    stop: impl Future<Output = Exit>,
) -> Exit {
    let result = tokio::select! {
        exit = stop => return exit,
        result = examine(&options, global, &mut console) => result,
    };
    match result {
        Ok(Severity::Ok | Severity::Note) => Exit::Success,
        Ok(Severity::Warning) => Exit::Warnings,
        Ok(Severity::Problem) => Exit::Problems,
        Err(failure) => {
            console.diagnostics.line(&failure.line());
            failure.exit()
        }
    }
}

async fn examine(
    options: &DoctorOptions,
    global: &GlobalOptions,
    console: &mut Console,
) -> Result<Severity, Failure> {
    let which = match (options.all, &options.interfaces[..]) {
        (true, _) => Which::All,
        (false, []) => Which::Named(global.interface.iter().cloned().collect()),
        (false, names) => Which::Named(names.to_vec()),
    };
    let mut facts = collect::collect(&which, global).await?;
    let mut findings = judge::findings(&facts);
    let mut fixes = Vec::new();
    if let Some(included) = options.fix {
        fixes = fix::fix(&findings, included, options.dry_run).await;
        if fixes.iter().any(|made| made.outcome == fix::Outcome::Applied) {
            facts = collect::collect(&which, global).await?;
            findings = judge::findings(&facts);
        }
    }
    let self_test = match options.no_self_test {
        true => SelfTest::skipped("--no-self-test was given", None),
        false => self_test::run(&facts.host).await,
    };
    let unseen = judge::unseen(&facts);
    let severity = worst(&findings, &self_test);
    let text = if options.json {
        let view = view::Report::new(&facts, &findings, &fixes, &unseen, &self_test, severity);
        let text = serde_json::to_string_pretty(&view).map_err(|error| Failure::Write {
            destination: "standard output".to_owned(),
            source: error.into(),
        })?;
        text + "\n"
    } else {
        let coloured = console.output.is_terminal() && !asked_for_no_colour();
        Report {
            facts: &facts,
            findings: &findings,
            fixes: &fixes,
            unseen: &unseen,
            self_test: &self_test,
            coloured,
        }
        .to_text()
    };
    print(console, &text).await?;
    Ok(severity)
}

/// The worst that was found. A self-test that failed is a problem: nothing can work then.
fn worst(findings: &[finding::Finding], self_test: &SelfTest) -> Severity {
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    if self_test.outcome == Outcome::Failed { Severity::Problem } else { worst }
}

/// <https://no-color.org>: set, and not to nothing.
fn asked_for_no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

async fn print(console: &mut Console, text: &str) -> Result<(), Failure> {
    let failed = |source| Failure::Write { destination: "standard output".to_owned(), source };
    console.output.write_all(text.as_bytes()).await.map_err(failed)?;
    console.output.flush().await.map_err(failed)
}
