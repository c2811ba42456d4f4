//! What it takes to compile Rust for BPF: a compiler, the sources of `core` to build for that target, and a linker.
//!
//! The active toolchain is used, stable or not: `RUSTC_BOOTSTRAP=1` lets it build `core`. Another one would bring
//! another LLVM, which a linker that was built with this one could not read.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::debian::Archive;

/// The newest bpf-linker that links with the LLVM inside rustc; later ones want a system LLVM of the same version.
const LINKER_VERSION: &str = "0.10.3";

/// Debian suites that may have the sources of the newest stable Rust, in the order in which they are asked.
const DEBIAN_SUITES: [&str; 3] = ["trixie-backports", "sid", "trixie"];

/// A toolchain that can build the XDP program.
pub struct Toolchain {
    /// Where `core`'s sources are, with `library/` in it.
    pub rust_src: PathBuf,
    /// The linker to give to rustc.
    pub linker: PathBuf,
    /// Where rustc's own LLVM is, which the linker uses too.
    pub libraries: PathBuf,
    /// What to record next to an object: two builds with equal records are equal.
    pub record: String,
}

/// Finds what is needed, and installs what is missing, below `work_dir` where that is possible.
pub fn find(given_rust_src: Option<&Path>, work_dir: &Path) -> Result<Toolchain> {
    let rustc = output(Command::new("rustc").arg("-vV"))?;
    let sysroot = PathBuf::from(output(Command::new("rustc").args(["--print", "sysroot"]))?.trim());
    let rust_src = rust_src(&rustc, &sysroot, given_rust_src, work_dir)?;
    let linker = linker(work_dir)?;
    let record = format!(
        "{rustc}bpf-linker: {LINKER_VERSION}\ncore: {:016x}\n",
        digest(&rust_src.join("library/core/src"))?
    );
    Ok(Toolchain { rust_src, linker, libraries: sysroot.join("lib"), record })
}

/// The sources of `core`, where cargo looks for them.
fn rust_src(rustc: &str, sysroot: &Path, given: Option<&Path>, work_dir: &Path) -> Result<PathBuf> {
    let rust_src = sysroot.join("lib/rustlib/src/rust");
    let library = rust_src.join("library");
    if let Some(given) = given {
        let given = library_below(given)?;
        say(&format!("copying the Rust sources from {}", given.display()));
        copy(&given, &library)?;
    }
    let is_there = || library.join("core/Cargo.toml").is_file();
    if is_there() {
        return Ok(rust_src);
    }

    say("the sources of Rust's core library are missing; asking rustup for them");
    // Fails where the toolchain did not come from rustup, or its server is out of reach.
    let added = Command::new("rustup")
        .args(["component", "add", "rust-src"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if added.is_ok_and(|status| status.success()) && is_there() {
        return Ok(rust_src);
    }

    say("rustup has none; looking in Debian's archive");
    let version = field(rustc, "release").context("rustc -vV names no release")?;
    match debian_rust_src(version, work_dir) {
        Ok(source) => {
            copy(&source, &library)?;
            Ok(rust_src)
        }
        Err(error) => Err(error.context(format!(
            "no sources of Rust {version} found: run `rustup component add rust-src`, or unpack rustc-{version}-src \
             from rust-lang.org and give its directory by --rust-src"
        ))),
    }
}

/// `library/` of an unpacked source tree, however deep the user pointed.
fn library_below(given: &Path) -> Result<PathBuf> {
    [given.to_path_buf(), given.join("library"), given.join("lib/rustlib/src/rust/library")]
        .into_iter()
        .find(|library| library.join("core/Cargo.toml").is_file())
        .with_context(|| {
            format!("{} has no library/core in it, so it is no Rust source tree", given.display())
        })
}

/// Downloads the package `rust-src` of this very version and unpacks it. Returns its `library/`.
fn debian_rust_src(version: &str, work_dir: &Path) -> Result<PathBuf> {
    let apt_dir = work_dir.join("apt");
    for suite in DEBIAN_SUITES {
        say(&format!("reading the package list of {suite}"));
        let Ok(archive) = Archive::open(&apt_dir, &[suite]) else { continue };
        let versions = archive.versions("rust-src")?;
        let Some(package) = versions.iter().find(|found| found.starts_with(&format!("{version}+"))) else {
            continue;
        };
        say(&format!("downloading rust-src {package} (45 MB)"));
        let unpacked = apt_dir.join("rust-src");
        archive.unpack(&format!("rust-src={package}"), &unpacked)?;
        return library_below(&unpacked.join(format!("usr/src/rustc-{version}")));
    }
    bail!("no suite of {DEBIAN_SUITES:?} has rust-src {version}")
}

/// bpf-linker in the version we need: the user's if it is that one, else one of our own.
fn linker(work_dir: &Path) -> Result<PathBuf> {
    let is_right = |path: &Path| {
        let version = output(Command::new(path).arg("--version"));
        version.is_ok_and(|version| version.split_whitespace().last() == Some(LINKER_VERSION))
    };
    let users = PathBuf::from("bpf-linker");
    if is_right(&users) {
        return Ok(users);
    }
    let ours = work_dir.join("tools/bin/bpf-linker");
    if !is_right(&ours) {
        say(&format!("installing bpf-linker {LINKER_VERSION} (a minute)"));
        let root = work_dir.join("tools");
        let status = Command::new("cargo")
            .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force", "--root"])
            .arg(root)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "cargo install bpf-linker failed; its output above says why");
    }
    Ok(ours)
}

/// The value of `name: value` in what `rustc -vV` prints.
fn field<'a>(rustc: &'a str, name: &str) -> Option<&'a str> {
    rustc.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// A number that changes when a source file does (FNV-1a over names and contents, in the order of names).
///
/// Distributions patch the library a little, and then the same compiler makes another object.
fn digest(directory: &Path) -> Result<u64> {
    fn add(hash: &mut u64, bytes: &[u8]) {
        for byte in bytes {
            *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    fn walk(hash: &mut u64, directory: &Path) -> Result<()> {
        let entries =
            fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            add(hash, path.file_name().unwrap_or_default().as_encoded_bytes());
            if path.is_dir() {
                walk(hash, &path)?;
            } else {
                add(hash, &fs::read(&path)?);
            }
        }
        Ok(())
    }
    let mut hash = 0xcbf2_9ce4_8422_2325;
    walk(&mut hash, directory)?;
    Ok(hash)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().context("a directory has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot replace {}", to.display()))?;
    }
    output(Command::new("cp").arg("-r").arg(from).arg(to))?;
    Ok(())
}

/// Runs a command and returns what it printed. Its complaints become the error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Tells what is being done.
pub fn say(what: &str) {
    eprintln!("build-ebpf: {what}");
}
