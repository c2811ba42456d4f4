//! Installing by apt, without questions and without starting what is installed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::process::{as_root, capture};
use crate::progress::Step;

/// Debian's way to say that maintainer scripts may not start services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

pub(super) fn install(packages: &[&str]) -> Result<()> {
    if packages.iter().any(|package| !is_known(package)) {
        refresh_index()?;
    }
    // What one release lacks must not keep the rest from being installed.
    let (known, unknown): (Vec<&str>, Vec<&str>) = packages.iter().partition(|package| is_known(package));
    if !known.is_empty() {
        install_known(&known).or_else(|_| {
            // The index may be older than the mirror: files that it names are gone then. Once more with a new one.
            refresh_index()?;
            install_known(&known)
        })?;
    }
    if !unknown.is_empty() {
        bail!("this release has no package named {}", unknown.join(", "));
    }
    Ok(())
}

fn refresh_index() -> Result<()> {
    let step = Step::start("apt-get update");
    capture(as_root("apt-get")?.args(["update", "-qq"]))?;
    step.done("done");
    Ok(())
}

fn is_known(package: &str) -> bool {
    let output = Command::new("apt-cache").args(["policy", package]).stdin(Stdio::null()).output();
    output.is_ok_and(|output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().any(|line| {
            line.trim().strip_prefix("Candidate:").is_some_and(|version| version.trim() != "(none)")
        })
    })
}

fn install_known(packages: &[&str]) -> Result<()> {
    let _no_services = NoServices::forbid()?;
    let step = Step::start(format!("installing {}", packages.join(" ")));
    // Through `env`, because sudo would drop the variable.
    capture(
        as_root("env")?
            .args([
                "DEBIAN_FRONTEND=noninteractive",
                "apt-get",
                "install",
                "-qq",
                "-y",
                "--no-install-recommends",
            ])
            .args(["-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Use-Pty=0"])
            .args(packages),
    )?;
    step.done("done");
    Ok(())
}

/// While it lives, an installed package does not start its service: nginx must not take port 80 of the machine.
/// A policy that was there before stays, and so does a service which ran before.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn forbid() -> Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let file = std::env::temp_dir().join(format!("xstack-policy-rc.d-{}", std::process::id()));
        std::fs::write(&file, "#!/bin/sh\nexit 101\n")?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
        let installed = as_root("install")
            .and_then(|mut command| capture(command.args(["-m", "755"]).arg(&file).arg(POLICY)).map(|_| ()));
        let _ = std::fs::remove_file(&file);
        installed.map(|()| Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let removed = as_root("rm").and_then(|mut rm| capture(rm.args(["-f", POLICY])));
            if let Err(error) = removed {
                eprintln!("xtask: cannot remove {POLICY}, do it by hand: {error:#}");
            }
        }
    }
}
