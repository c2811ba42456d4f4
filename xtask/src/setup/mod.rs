//! `cargo xtask setup`: what this machine lacks, found by looking for it, and installed where we know how.
//!
//! Every other command calls [`ensure`], so nobody has to know this one. Looking takes well under a millisecond,
//! which is why no stamp remembers the answer: a stamp could be wrong.

mod apt;
mod needs;

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};

pub use self::needs::Level;
use self::needs::{NEEDS, Need, System};

/// Arguments of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Args {
    /// Only report; exit code 1 if something is missing
    #[arg(long)]
    check: bool,
    /// Install without asking
    #[arg(long, short)]
    yes: bool,
}

/// Sets up everything, tests included, or reports on it.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.check {
        return Ok(check());
    }
    install_missing(Level::Test, args.yes)?;
    println!("Everything that building, running and testing need is here.");
    Ok(ExitCode::SUCCESS)
}

/// Makes sure that `level`'s needs are met.
///
/// A test whose programs are missing skips with its reason, so at [`Level::Test`] what can't be installed is
/// told and not an error.
pub fn ensure(level: Level) -> Result<()> {
    match (install_missing(level, false), level) {
        (Err(error), Level::Test) => {
            install_missing(Level::Build, false)?;
            eprintln!("xtask: {error:#}\nxtask: tests that need these will be skipped");
            Ok(())
        }
        (outcome, _) => outcome,
    }
}

fn check() -> ExitCode {
    let mut complete = true;
    for need in NEEDS {
        let present = need.is_met();
        complete &= present;
        println!("{} {:<14} {}", if present { "ok     " } else { "MISSING" }, need.name, need.why);
    }
    if complete {
        println!("Nothing is missing.");
        return ExitCode::SUCCESS;
    }
    println!("`cargo xtask setup` installs what is missing.");
    ExitCode::FAILURE
}

fn install_missing(level: Level, yes: bool) -> Result<()> {
    let missing = missing(level);
    if missing.is_empty() { Ok(()) } else { install(&missing, yes) }
}

fn missing(level: Level) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| need.level <= level && !need.is_met()).collect()
}

fn install(missing: &[&Need], yes: bool) -> Result<()> {
    let system = System::detect();
    eprintln!("xtask: missing on this machine:");
    for need in missing {
        eprintln!("xtask:   {:<14} {}", need.name, need.why);
    }
    let packages = packages_of(missing, system);
    if system != System::Debian {
        bail!("{}", advice(missing, &packages, system));
    }
    if !yes && !confirmed(&packages)? {
        bail!("nothing was installed; install these yourself: {}", packages.join(" "));
    }
    apt::install(&packages)?;
    let still: Vec<_> = missing.iter().filter(|need| !need.is_met()).map(|need| need.name).collect();
    if !still.is_empty() {
        bail!("still missing after the installation: {}", still.join(", "));
    }
    Ok(())
}

fn packages_of(missing: &[&Need], system: System) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().filter_map(|need| need.package(system)).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn advice(missing: &[&Need], packages: &[&str], system: System) -> String {
    let names: Vec<_> = missing.iter().map(|need| need.name).collect();
    match system.install_command() {
        Some(command) if !packages.is_empty() => {
            format!(
                "this system's packages are not installed by xtask; run: {command} {}",
                packages.join(" ")
            )
        }
        _ => format!("install these by your system's own means, then try again: {}", names.join(", ")),
    }
}

/// Asks on a terminal. Without one nobody can answer, and whoever scripted the call wants it to go on.
fn confirmed(packages: &[&str]) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(true);
    }
    eprint!("xtask: install with apt: {}? [Y/n] ", packages.join(" "));
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_systems_own_command_and_packages() {
        let missing: Vec<_> = NEEDS.iter().filter(|need| need.name == "libelf").collect();
        let packages = packages_of(&missing, System::Fedora);
        let advice = advice(&missing, &packages, System::Fedora);
        assert!(advice.contains("sudo dnf install elfutils-libelf-devel"), "{advice}");
    }

    #[test]
    fn an_unknown_system_still_learns_what_is_missing() {
        let missing: Vec<_> = NEEDS.iter().filter(|need| need.name == "clang").collect();
        assert!(advice(&missing, &[], System::Other).contains("clang"));
    }

    #[test]
    fn a_package_is_asked_for_once() {
        // Arch has clang and libclang in one.
        let clang: Vec<_> = NEEDS.iter().filter(|need| matches!(need.name, "clang" | "libclang")).collect();
        assert_eq!(clang.len(), 2);
        assert_eq!(packages_of(&clang, System::Arch), ["clang"]);
    }
}
