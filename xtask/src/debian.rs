//! Packages of Debian suites that this machine does not use: looked up and unpacked, never installed.
//!
//! apt does the work, with lists of its own in a directory of ours, from the mirror that the machine uses anyway. So it
//! verifies signatures and checksums as ever, while the machine's configuration and packages stay as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::process::capture;

/// Who signs Debian's suites.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The package lists of some suites.
pub struct Archive {
    /// Ours alone: lists, and what was downloaded.
    dir: PathBuf,
}

impl Archive {
    /// Reads the lists of these suites, from the mirror, into `dir`. Fails if the mirror lacks one.
    pub fn open(dir: &Path, suites: &[&str]) -> Result<Self> {
        // apt insists on absolute paths, and downloads into the directory where it is started.
        let dir = std::path::absolute(dir)?;
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(below))
                .with_context(|| format!("cannot create {}", dir.join(below).display()))?;
        }
        let site = mirror()?;
        let lines: String =
            suites.iter().map(|suite| format!("deb [signed-by={KEYS}] {site} {suite} main\n")).collect();
        fs::write(dir.join("sources.list"), lines)?;
        let archive = Self { dir };
        capture(archive.apt("apt-get").args(["-q", "update"]))?;
        Ok(archive)
    }

    /// The names of all packages that begin so.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let names = capture(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// The versions of a package, newest first.
    pub fn versions(&self, package: &str) -> Result<Vec<String>> {
        let table = capture(self.apt("apt-cache").args(["madison", package]))?;
        let versions = table.lines().filter_map(|line| line.split('|').nth(1));
        Ok(versions.map(|version| version.trim().to_owned()).collect())
    }

    /// Downloads a package, `NAME` or `NAME=VERSION`, and unpacks it below `into`.
    pub fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let downloads = self.dir.join("download");
        let _ = fs::remove_dir_all(&downloads);
        fs::create_dir_all(&downloads)?;
        capture(self.apt("apt-get").current_dir(&downloads).args(["-q", "download", package]))?;
        let debs = debs_in(&downloads)?;
        ensure!(!debs.is_empty(), "apt downloaded nothing for {package}");
        debs.iter().try_for_each(|deb| unpack(deb, into))?;
        fs::remove_dir_all(&downloads).map_err(Into::into)
    }

    /// The same with all that it depends on and that this machine lacks. `suite` is where it comes from, and what
    /// it depends on where that suite has it.
    pub fn unpack_with_dependencies(&self, package: &str, suite: &str, into: &Path) -> Result<()> {
        let mut apt = self.apt("apt-get");
        apt.args(["-q", "-y", "--no-install-recommends", "--download-only", "-t", suite]);
        // It locks the machine's package database even if it only reads it, and an ordinary user can't.
        apt.args(["-o", "Debug::NoLocking=1"]);
        capture(apt.args(["install", package]))?;
        let archives = self.dir.join("cache/archives");
        let debs = debs_in(&archives)?;
        ensure!(!debs.is_empty(), "apt downloaded nothing for {package}: it is installed already");
        debs.iter().try_for_each(|deb| unpack(deb, into))?;
        debs.iter().try_for_each(|deb| fs::remove_file(deb).map_err(Into::into))
    }

    /// apt, or one of its kin, with lists and a cache of our own.
    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        apt.current_dir(&self.dir).stdin(Stdio::null());
        for (option, path) in [
            ("Dir::Etc::sourcelist", self.dir.join("sources.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::lists", self.dir.join("lists")),
            ("Dir::Cache", self.dir.join("cache")),
        ] {
            apt.arg("-o").arg(format!("{option}={}", path.display()));
        }
        // The user _apt, as whom apt would download, can't write here.
        apt.args(["-o", "APT::Sandbox::User="]);
        apt
    }
}

/// Unpacks a package's files below a directory.
pub fn unpack(deb: &Path, into: &Path) -> Result<()> {
    fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
    capture(Command::new("dpkg-deb").arg("-x").arg(deb).arg(into)).map(|_| ())
}

/// The address of the Debian mirror that the machine uses.
fn mirror() -> Result<String> {
    let sites = capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(SITE)",
        "Created-By: Packages",
    ]));
    let sites = sites.context("packages of another suite are only to be had where apt is")?;
    match sites.lines().find(|site| site.trim_end_matches('/').ends_with("/debian")) {
        Some(site) => Ok(site.to_owned()),
        None => bail!("apt knows no Debian mirror"),
    }
}

fn debs_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect())
}
