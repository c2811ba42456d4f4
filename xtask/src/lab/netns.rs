//! Named network namespaces, through the `ip` command: it also gives a program in a namespace the resolv.conf of
//! `/etc/netns/NAME`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::{capture, find_program};

/// Whether a namespace of that name is there.
pub fn exists(namespace: &str) -> bool {
    Path::new("/run/netns").join(namespace).exists()
}

/// A command that runs `program` inside a namespace. Its process is the program's own, not a parent of it.
pub fn command(namespace: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(ip_program());
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// Runs `ip` with these words; with a namespace, inside it.
pub(crate) fn ip(namespace: Option<&str>, words: &str) -> Result<String> {
    let mut command = Command::new(ip_program());
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    capture(command.args(words.split_whitespace()))
}

/// Sets a kernel parameter inside a namespace.
pub(crate) fn sysctl(namespace: &str, path: &str, value: &str) -> Result<()> {
    let script = format!("[ ! -e /proc/sys/{path} ] || echo {value} > /proc/sys/{path}");
    capture(command(namespace, "sh").args(["-c", &script])).map(|_| ())
}

/// The absolute path, since sudo and cron have a PATH without sbin at times.
pub(super) fn ip_program() -> std::path::PathBuf {
    find_program("ip").unwrap_or_else(|| "ip".into())
}
