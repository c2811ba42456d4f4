//! `cargo xtask vm-test`: the built xstack on the drivers of real cards, in a guest under QEMU.
//!
//! A veth pair shows the protocol; only a driver shows zero-copy, queues and what goes wrong with them. The guest has two
//! cards on one wire: the one under test, and a peer that its own kernel has. Kernel, QEMU and initramfs are made here
//! and kept in `target/vm/`; nothing is installed. The scenarios are a libtest program that runs in the guest,
//! `stack-user/tests/vm/`; what they report comes back over a serial line, their files on a disk.

mod initramfs;
mod kernel;
mod qemu;
mod report;
mod run;
mod wire;

use std::{
    collections::HashSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use self::{
    initramfs::Payload,
    kernel::{Flavour, Kernel, Kernels, Request},
    qemu::{Guest, Nic, Qemu},
    report::{Boot, label},
    run::Stopped,
    wire::Wire,
};
use crate::{
    build::cargo,
    paths,
    process::{describe, exit_code},
    progress::Step,
    setup,
};

/// Arguments of `cargo xtask vm-test`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the scenarios whose names contain one of these
    filters: Vec<String>,
    /// The card under test; all unless told otherwise
    #[arg(long, value_enum)]
    nic: Option<Choice>,
    /// The guest's kernel: `newest`, the newest 6.12 by `6.12`, the oldest from 6.18 on by `6.18+`, or a path to an
    /// unpacked one or to a package; repeat for several
    #[arg(long, value_name = "VERSION|PATH")]
    kernel: Vec<String>,
    /// How many queues the card has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    queues: Option<u32>,
    /// Each card once with the newest kernel, without the scenarios that only long runs have: some minutes
    #[arg(long)]
    short: bool,
    /// A shell in the guest, on this terminal, instead of the scenarios
    #[arg(long)]
    shell: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// This QEMU instead of the machine's or our own
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// Where there can be no guest, say so and succeed
    #[arg(long, hide = true)]
    or_skip: bool,
    /// Ask the mirror for newer kernels than those that were downloaded
    #[arg(long)]
    refresh: bool,
}

/// A card, or each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Choice {
    /// virtio-net
    Virtio,
    /// Intel's 82576
    Igb,
    /// Each
    All,
}

/// A guest to boot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Plan {
    nic: Nic,
    queues: u32,
    kernel: Request,
}

/// Prepares what is needed, boots each guest, reports. Exit code 1 if anything failed.
pub fn run(args: &Args) -> Result<ExitCode> {
    setup::ensure(setup::Level::Test)?;
    let plans = plans(args)?;
    let work_dir = paths::target().join("vm");
    fs::create_dir_all(&work_dir)?;
    let started = Instant::now();
    let (qemu, kernels) = match machines(args, &plans, &work_dir) {
        Err(error) if args.or_skip => {
            println!("SKIP vm: {error:#}");
            return Ok(ExitCode::SUCCESS);
        }
        machines => machines?,
    };
    let payload = build()?;

    let bench = Bench { args, qemu, payload, work_dir, stopped: Stopped::watch()? };
    if args.shell {
        let (Some(plan), Some(kernel)) = (plans.first(), kernels.first()) else {
            bail!("there is no such guest")
        };
        return bench.shell(plan, kernel);
    }
    let mut boots = Vec::new();
    for (plan, kernel) in plans.iter().zip(&kernels) {
        if !bench.stopped.is_set() {
            boots.push(bench.boot(plan, kernel)?);
        }
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&boots)?);
    } else {
        print!("{}", report::tell(&boots, started.elapsed()));
    }
    let failed = bench.stopped.is_set() || boots.iter().any(Boot::has_failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is booted, and by what.
fn machines(args: &Args, plans: &[Plan], work_dir: &Path) -> Result<(Qemu, Vec<Kernel>)> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the guest runs this machine's programs, and its cards are emulated for x86-64 only"
    );
    let qemu = Qemu::find(args.qemu.as_deref(), &work_dir.join("qemu"))?;
    let kernels = Kernels::new(work_dir.join("kernels"), args.refresh);
    let get = |plan: &Plan| kernels.get(&plan.kernel, flavour(plan, plans, &kernels));
    Ok((qemu, plans.iter().map(get).collect::<Result<_>>()?))
}

/// Which guests, in which order: without a wish, what shows each driver with zero-copy on two kernels, each number of
/// queues, and a kernel that has none of it.
///
/// Left out is what was found broken here, in the kernel. 6.16.12, the last 6.16, panicked in `xsk_destruct_skb` as frames
/// that were sent in copy mode came out of a veth. igb of 6.18.15 binds zero-copy and sends, but where receiving and sending have interrupts
/// of their own, which is up to four queues, it receives nothing; 7.2 does. virtio-net of 6.18.15 with four queues has
/// been seen to receive nothing, once, and its queues are shown on 7.2 instead.
fn plans(args: &Args) -> Result<Vec<Plan>> {
    const MATRIX: [(Nic, u32, &str); 9] = [
        (Nic::Virtio, 1, "newest"),
        (Nic::Igb, 2, "newest"),
        (Nic::Virtio, 4, "newest"),
        (Nic::Igb, 4, "newest"),
        (Nic::Virtio, 1, "6.18+"),
        (Nic::Igb, 2, "7.0+"),
        (Nic::Igb, 4, "7.0+"),
        (Nic::Virtio, 4, "7.0+"),
        (Nic::Virtio, 1, "6.12"),
    ];
    /// How many of them a short run has.
    const SHORT: usize = 2;

    let wanted = |nic: Nic| match args.nic {
        None | Some(Choice::All) => true,
        Some(Choice::Virtio) => nic == Nic::Virtio,
        Some(Choice::Igb) => nic == Nic::Igb,
    };
    let given = args.kernel.iter().map(|text| Request::parse(text)).collect::<Result<Vec<_>>>()?;
    let rows = if args.short { &MATRIX[..SHORT] } else { &MATRIX[..] };
    let mut plans = Vec::new();
    for &(nic, queues, kernel) in rows.iter().filter(|row| wanted(row.0)) {
        let queues = args.queues.unwrap_or(queues);
        let kernels = if given.is_empty() { vec![Request::parse(kernel)?] } else { given.clone() };
        plans.extend(kernels.into_iter().map(|kernel| Plan { nic, queues, kernel }));
    }
    let mut seen = HashSet::new();
    plans.retain(|plan| seen.insert(plan.clone()));
    Ok(plans)
}

/// The small flavour where it has the driver, unless the large one is there, or is going to be, anyway.
fn flavour(plan: &Plan, plans: &[Plan], kernels: &Kernels) -> Flavour {
    let needs_generic = |other: &Plan| other.kernel == plan.kernel && other.nic == Nic::Igb;
    if plans.iter().any(needs_generic) || kernels.has(&plan.kernel, Flavour::Generic) {
        return Flavour::Generic;
    }
    Flavour::Cloud
}

/// Builds xstack and the scenarios: as quick as a release, with every assertion on, and with what the simulator has
/// compiled already.
fn build() -> Result<Payload> {
    let mut command = cargo();
    command.args(["build", "--profile", "sim", "--package", "stack-user", "--bin", "xstack", "--test", "vm"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    let step = Step::start("building xstack and the scenarios");
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start `{}`", describe(&command)))?;
    ensure!(output.status.success(), "`{}` failed ({})", describe(&command), output.status);
    let executable =
        |name: &str, kind: &str| executable(&String::from_utf8_lossy(&output.stdout), name, kind);
    let (xstack, scenarios) = (executable("xstack", "bin")?, executable("vm", "test")?);
    step.done("built");
    Ok(Payload { xstack, scenarios, objects: paths::workspace().join("stack-user/bpf") })
}

/// Where cargo says that it has put a program.
fn executable(messages: &str, name: &str, kind: &str) -> Result<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut of_target = messages.filter(|message| {
        message["target"]["name"] == name
            && message["target"]["kind"][0] == kind
            && message["executable"].is_string()
    });
    let found = of_target.next().and_then(|message| message["executable"].as_str().map(PathBuf::from));
    found.with_context(|| format!("cargo names no executable of {kind} {name}"))
}

/// What every guest of a run shares.
struct Bench<'a> {
    args: &'a Args,
    qemu: Qemu,
    payload: Payload,
    work_dir: PathBuf,
    stopped: Stopped,
}

impl Bench<'_> {
    fn boot(&self, plan: &Plan, kernel: &Kernel) -> Result<Boot> {
        let label = label(plan.nic, plan.queues, &kernel.release);
        let step = Step::start(label.clone());
        let files = self.files(&label)?;
        let started = Instant::now();
        let wire = wire(plan)?;
        let (initramfs, disk, console) = self.prepare(kernel, &files)?;
        let guest = Guest {
            nic: plan.nic,
            queues: plan.queues,
            kernel: &kernel.image,
            initramfs: &initramfs,
            variables: self.variables(plan),
            console: Some(&console),
            disk: &disk,
            wire: &wire,
        };
        let ended = run::run(self.qemu.boot(&guest)?, &files, &step, &self.stopped)?;
        let _ = fs::remove_file(initramfs);
        let boot = Boot {
            nic: plan.nic,
            queues: plan.queues,
            kernel: kernel.release.clone(),
            seconds: started.elapsed().as_secs_f64(),
            scenarios: ended.scenarios,
            broke: ended.broke,
            files: files.strip_prefix(paths::workspace()).unwrap_or(&files).display().to_string(),
        };
        step.done(if boot.has_failed() { "FAILED" } else { "passed" });
        Ok(boot)
    }

    /// The guest's console on this terminal, with a shell.
    fn shell(&self, plan: &Plan, kernel: &Kernel) -> Result<ExitCode> {
        let files = self.files("shell")?;
        let wire = wire(plan)?;
        let (initramfs, disk, _) = self.prepare(kernel, &files)?;
        let mut variables = self.variables(plan);
        variables.push("XSTACK_VM_SHELL=1".into());
        let mut command = self.qemu.boot(&Guest {
            nic: plan.nic,
            queues: plan.queues,
            kernel: &kernel.image,
            initramfs: &initramfs,
            variables,
            console: None,
            disk: &disk,
            wire: &wire,
        })?;
        eprintln!("xtask: {} in a moment; `exit` powers it off, Ctrl-A X ends it", kernel.release);
        let status = command.status().with_context(|| format!("cannot start `{}`", describe(&command)))?;
        Ok(exit_code(status))
    }

    /// An empty directory for one guest's files.
    fn files(&self, label: &str) -> Result<PathBuf> {
        let files = self.work_dir.join("runs").join(label);
        if files.exists() {
            fs::remove_dir_all(&files).with_context(|| format!("cannot empty {}", files.display()))?;
        }
        fs::create_dir_all(&files)?;
        Ok(files)
    }

    fn prepare(&self, kernel: &Kernel, files: &Path) -> Result<(PathBuf, PathBuf, PathBuf)> {
        /// Room for captures; it takes what is written to it.
        const DISK: u64 = 1 << 30;
        let initramfs = files.join("initramfs");
        initramfs::write(kernel, &self.payload, &initramfs)?;
        let disk = files.join("disk");
        File::create(&disk)?.set_len(DISK)?;
        Ok((initramfs, disk, files.join("console.log")))
    }

    fn variables(&self, plan: &Plan) -> Vec<String> {
        vec![
            format!("XSTACK_VM_NIC={}", plan.nic.name()),
            format!("XSTACK_VM_QUEUES={}", plan.queues),
            format!("XSTACK_VM_LONG={}", u32::from(!self.args.short)),
            format!("XSTACK_VM_FILTERS={}", self.args.filters.join(",")),
        ]
    }
}

fn wire(plan: &Plan) -> Result<Wire> {
    match plan.nic {
        Nic::Virtio if plan.queues > 1 => Wire::bridge(plan.queues),
        _ => Ok(Wire::Hub),
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn planned(line: &str) -> Vec<String> {
        let line =
            Line::parse_from([&["vm-test"], &line.split_whitespace().collect::<Vec<_>>()[..]].concat());
        let plans = plans(&line.args).unwrap();
        plans.iter().map(|plan| label(plan.nic, plan.queues, &plan.kernel.name())).collect()
    }

    #[test]
    fn without_a_wish_everything_is_booted() {
        let all = planned("");
        assert_eq!(all.len(), 9, "{all:?}");
        assert!(all.contains(&"virtio-q1-6.12".to_owned()), "{all:?}");
        assert_eq!(planned("--nic all"), all);
    }

    #[test]
    fn a_short_run_boots_each_card_once() {
        assert_eq!(planned("--short"), ["virtio-q1-newest", "igb-q2-newest"]);
        assert_eq!(planned("--short --nic igb transfer"), ["igb-q2-newest"]);
    }

    #[test]
    fn wishes_are_combined_and_nothing_is_booted_twice() {
        assert_eq!(planned("--nic virtio --kernel newest --queues 2"), ["virtio-q2-newest"]);
        assert_eq!(planned("--nic igb --queues 4"), ["igb-q4-newest", "igb-q4-7.0+"]);
        assert_eq!(
            planned("--short --nic virtio --kernel 6.12 --kernel newest"),
            ["virtio-q1-6.12", "virtio-q1-newest"]
        );
    }

    #[test]
    fn the_large_flavour_is_for_whom_it_is_needed_or_there() {
        let directory = tempfile::tempdir().unwrap();
        let kernels = Kernels::new(directory.path().to_owned(), false);
        let of = |nic| Plan { nic, queues: 1, kernel: Request::Newest };
        let (virtio, igb) = (of(Nic::Virtio), of(Nic::Igb));
        assert_eq!(flavour(&virtio, slice::from_ref(&virtio), &kernels), Flavour::Cloud);
        assert_eq!(flavour(&virtio, &[virtio.clone(), igb.clone()], &kernels), Flavour::Generic);
        assert_eq!(flavour(&igb, slice::from_ref(&igb), &kernels), Flavour::Generic);
        fs::create_dir(directory.path().join("newest-generic")).unwrap();
        assert_eq!(flavour(&virtio, slice::from_ref(&virtio), &kernels), Flavour::Generic);
    }

    #[test]
    fn cargos_messages_name_the_programs() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"vm","kind":["test"]},"executable":"/t/vm-1"}
{"reason":"compiler-artifact","target":{"name":"xstack","kind":["bin"]},"executable":"/t/xstack"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "vm", "test").unwrap(), Path::new("/t/vm-1"));
        assert_eq!(executable(messages, "xstack", "bin").unwrap(), Path::new("/t/xstack"));
        assert!(executable(messages, "sim", "test").is_err());
    }
}
