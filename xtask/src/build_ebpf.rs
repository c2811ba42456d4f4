//! `cargo xtask build-ebpf`: compiles the XDP program into the objects that `stack-user` embeds.
//!
//! The objects are kept in the repository, so that whoever depends on `stack-user` needs no BPF toolchain. `--check`
//! proves that they are what the sources say.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail, ensure};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

use crate::{
    paths,
    toolchain::{self, Toolchain, say},
};

/// Arguments of `cargo xtask build-ebpf`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Build into target/ only, and compare with the objects in the repository
    #[arg(long)]
    pub check: bool,
    /// An unpacked source tree of the active toolchain's version, if rust-src is not installed
    #[arg(long, value_name = "DIR")]
    pub rust_src: Option<PathBuf>,
}

/// The objects and the features that make them. Logging takes a second one, since its maps are of a kind that
/// libbpf, and so xdp-loader, refuses.
const OBJECTS: [(&str, &str); 2] = [("xstack.bpf.o", ""), ("xstack-log.bpf.o", "log")];

/// The file next to the objects that says what built them.
const RECORD: &str = "toolchain.txt";

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let root = paths::workspace();
    let work_dir = paths::target().join("bpf");
    let kept = root.join("stack-user/bpf");
    let toolchain = toolchain::find(args.rust_src.as_deref(), &work_dir)?;
    let fresh = work_dir.join("objects");
    build(root, &work_dir, &toolchain, &fresh)?;
    if args.check {
        check(root, &toolchain, &fresh, &kept)?;
    } else {
        fs::create_dir_all(&kept)?;
        for (name, _) in OBJECTS {
            fs::copy(fresh.join(name), kept.join(name)).with_context(|| format!("cannot write {name}"))?;
        }
        fs::write(kept.join(RECORD), &toolchain.record)?;
        say(&format!("the objects are in {}", kept.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn build(root: &Path, work_dir: &Path, toolchain: &Toolchain, objects: &Path) -> Result<()> {
    fs::create_dir_all(objects)?;
    for (name, features) in OBJECTS {
        say(&format!("building {name}"));
        let status = Command::new("cargo")
            .current_dir(root.join("stack-ebpf"))
            .args([
                "build",
                "--quiet",
                "--locked",
                "--profile=bpf",
                "-Zbuild-std=core",
                "--target",
                "bpfel-unknown-none",
            ])
            .args(["--features", features, "--target-dir"])
            .arg(work_dir)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, toolchain)?)
            .env_remove("RUSTFLAGS")
            // The linker takes the first LLVM that it finds along this path.
            .env("LD_LIBRARY_PATH", &toolchain.libraries)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "building {name} failed; the compiler's output above says why");
        let linked = work_dir.join("bpfel-unknown-none/bpf/xstack-xdp");
        let linked = fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
        let object = without_debug_info(&linked)?;
        no_paths_of_this_machine(&object, root, name)?;
        fs::write(objects.join(name), object)?;
    }
    Ok(())
}

/// The compiler's flags, in cargo's encoding. Every path of this machine gets a name that is the same everywhere.
fn rustflags(root: &Path, toolchain: &Toolchain) -> Result<String> {
    let mut flags = vec![
        format!("-Clinker={}", toolchain.linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // BTF is made from debug info.
        "-Cdebuginfo=2".to_owned(),
        format!("--remap-path-prefix={}=/rust", toolchain.rust_src.display()),
        format!("--remap-path-prefix={}=/xstack", root.display()),
    ];
    let cargo_home = cargo_home()?;
    // A directory per registry, named after its host.
    for registry in fs::read_dir(cargo_home.join("registry/src")).into_iter().flatten() {
        flags.push(format!("--remap-path-prefix={}=/crates", registry?.path().display()));
    }
    Ok(flags.join("\x1f"))
}

fn cargo_home() -> Result<PathBuf> {
    let from_environment = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let usual = || Some(std::env::home_dir()?.join(".cargo"));
    from_environment.or_else(usual).context("neither CARGO_HOME nor a home directory")
}

/// The object without DWARF, which no loader reads. BTF stays.
fn without_debug_info(object: &[u8]) -> Result<Vec<u8>> {
    let mut builder = Builder::read(object).context("the linker's output is no ELF file")?;
    for section in &mut builder.sections {
        section.delete = section.name.starts_with(b".debug") || section.name.starts_with(b".rel.debug");
    }
    builder.delete_orphans();
    // The linker kept the names of sections and of symbols in one table. This library writes two.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the object without its debug info")?;
    Ok(stripped)
}

/// A path of the machine that built an object would make another machine's differ.
fn no_paths_of_this_machine(object: &[u8], root: &Path, name: &str) -> Result<()> {
    let cargo_home = cargo_home()?;
    for path in [root, &cargo_home] {
        let path = path.as_os_str().as_encoded_bytes();
        let found = object.windows(path.len()).any(|window| window == path);
        ensure!(!found, "{name} has a path of this machine in it: {}", String::from_utf8_lossy(path));
    }
    Ok(())
}

/// Compares fresh objects with the kept ones: byte for byte if the toolchain is the one that made those, else by
/// what they decide.
fn check(root: &Path, toolchain: &Toolchain, fresh: &Path, kept: &Path) -> Result<()> {
    let record = fs::read_to_string(kept.join(RECORD)).unwrap_or_default();
    if record != toolchain.record {
        return check_by_running(root, fresh);
    }
    for (name, _) in OBJECTS {
        let read = |directory: &Path| {
            let path = directory.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        if read(fresh)? != read(kept)? {
            bail!("{name} is not what its sources say: run `cargo xtask build-ebpf` and commit the result");
        }
    }
    say("the kept objects are byte for byte what the sources say");
    Ok(())
}

/// Runs the steering table through the fresh objects in the kernel.
fn check_by_running(root: &Path, fresh: &Path) -> Result<()> {
    say("the kept objects are of another toolchain; running the steering table through the fresh ones");
    let output = Command::new("cargo")
        .current_dir(root)
        .args(["test", "--quiet", "--package", "stack-user", "--test", "steering", "--", "--nocapture"])
        .env("XSTACK_OBJECTS", fresh)
        .output()
        .context("cannot run cargo")?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        eprint!("{}{told}", String::from_utf8_lossy(&output.stdout));
        bail!("the fresh objects decide otherwise than the sources; the output above says where");
    }
    match told.lines().find_map(|line| line.strip_prefix("SKIP ")) {
        // Not having looked is not the same as having found nothing.
        Some(reason) => eprintln!("SKIP build-ebpf --check: {reason}"),
        None => say("the fresh objects decide as the sources say"),
    }
    Ok(())
}
