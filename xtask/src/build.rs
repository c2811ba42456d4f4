//! `cargo xtask build`, and the builds that other commands start.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::process::{find_program, is_root, run_visibly};
use crate::{paths, setup};

/// Arguments of `cargo xtask build`.
#[derive(clap::Args)]
pub struct Args {
    /// Build quickly instead of building a quick program
    #[arg(long)]
    debug: bool,
}

/// Builds xstack and says where it is.
pub fn run(args: &Args) -> Result<ExitCode> {
    let profile = if args.debug { Profile::Debug } else { Profile::Release };
    let binary = xstack(profile)?;
    println!("{}", binary.display());
    Ok(ExitCode::SUCCESS)
}

/// How cargo builds a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Debug,
    /// Quick to run.
    Release,
}

impl Profile {
    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Debug => &[],
            Self::Release => &["--release"],
        }
    }

    fn directory(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// Builds the `xstack` binary, after setting up what its build needs.
pub fn xstack(profile: Profile) -> Result<PathBuf> {
    setup::ensure(setup::Level::Build)?;
    run_visibly(cargo().args(["build", "--package", "stack-user", "--bin", "xstack"]).args(profile.flags()))?;
    Ok(paths::binary(profile.directory(), "xstack"))
}

/// Builds the lab's own web and DNS server, and beside it the program that loads others with connections. They are pure
/// Rust: nothing needs setting up for them.
pub fn lab_server() -> Result<PathBuf> {
    run_visibly(
        cargo()
            .args(["build", "--quiet", "--package", "xtask", "--bin", "lab-server", "--bin", "load"])
            .args(["--features", "lab-server"]),
    )?;
    Ok(paths::binary("debug", "lab-server"))
}

/// Builds the example programs, and says in which directory they are.
pub fn examples() -> Result<PathBuf> {
    setup::ensure(setup::Level::Build)?;
    run_visibly(cargo().args(["build", "--quiet", "--package", "stack-user", "--examples"]))?;
    Ok(paths::target().join("debug/examples"))
}

/// Cargo in the workspace: the very one that started us, if one did.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace());
    // What `cargo run` says about xtask itself. ring's build script depends on variables of these names, so that all that stands
    // on ring would be built again whenever cargo was called by us after having been called by hand, or the other way round.
    let about_us = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let about_us =
        about_us.filter(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"));
    about_us.for_each(|name| {
        command.env_remove(name);
    });
    command
}

/// A cargo subcommand whose programs, and only they, run as root: namespaces and AF_XDP need it.
pub fn cargo_as_root(subcommand: &str) -> Command {
    let mut command = cargo();
    command.arg(subcommand);
    if !is_root() && find_program("sudo").is_some() {
        let runner = r#"target.'cfg(unix)'.runner=["sudo","--preserve-env","--"]"#;
        command.args(["--config", runner]);
    }
    command
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_cargo_that_we_call_builds_what_one_that_is_called_by_hand_does() {
        // Tests are run by cargo, too, which tells them about their package.
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some(), "this test is run by cargo");
        let cargo = cargo();
        let removed =
            |name: &str| cargo.get_envs().any(|(known, value)| known == OsStr::new(name) && value.is_none());
        assert!(removed("CARGO_PKG_NAME") && removed("CARGO_MANIFEST_DIR"));
        assert!(!removed("PATH") && !removed("CARGO_HOME"));
    }
}
