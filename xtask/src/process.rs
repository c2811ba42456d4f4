//! Other programs: run them, say plainly why they failed, and become root only when it is needed.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// Environment variables that a command keeps when it becomes root, besides our own: sudo drops all others.
const KEPT_BY_SUDO: &[&str] =
    &["CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR", "CI", "NO_COLOR", "RUST_BACKTRACE", "RUST_LOG"];

/// Whether this process may do what root may.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command that runs `program` as root: as it is for root, through sudo for anybody else.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let Some(sudo) = find_program("sudo") else {
        bail!(
            "{} must run as root and there is no sudo here; run the command again as root",
            program.as_ref().to_string_lossy()
        );
    };
    let mut command = Command::new(sudo);
    command.arg(format!("--preserve-env={}", kept_by_sudo().join(","))).arg("--").arg(program);
    Ok(command)
}

/// Every option of xstack can be given as `XSTACK_…`: those go along, whichever there are.
fn kept_by_sudo() -> Vec<String> {
    let ours = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ours = ours.filter(|name| name.starts_with("XSTACK_"));
    KEPT_BY_SUDO.iter().map(|name| (*name).to_owned()).chain(ours).collect()
}

/// Replaces this process by the same xtask with other arguments, as root.
pub fn reexec_as_root<I: AsRef<OsStr>>(arguments: impl IntoIterator<Item = I>) -> Result<ExitCode> {
    let this = env::current_exe().context("cannot find the xtask binary itself")?;
    let error = as_root(this)?.args(arguments).exec();
    Err(error).context("cannot start sudo")
}

/// Finds a program in PATH, and in the sbin directories that a user's PATH often lacks.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a command with its output captured; an error carries what it printed.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        let said = if stderr.trim().is_empty() { stdout.trim() } else { stderr.trim() };
        bail!("`{}` failed ({}): {said}", describe(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command that talks to the user itself; an error names it and its exit status.
pub fn run_visibly(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", describe(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", describe(command));
    }
    Ok(())
}

/// The command as one would type it.
pub fn describe(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A child's exit status as our own, the way a shell does it: a signal N becomes 128 + N.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named_with_what_it_said() {
        let error = capture(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("sh -c") && message.contains("no such thing"), "{message}");
    }

    #[test]
    fn programs_are_found_in_path_only_when_executable() {
        assert!(find_program("sh").is_some());
        assert_eq!(find_program("surely-no-such-program"), None);
    }
}
