//! QEMU: found, or unpacked from Debian's packages, and its command line.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{run::ON_A_LIFELINE, wire::Wire};
use crate::{
    debian::Archive,
    process::{as_root, capture, find_program},
    progress::Step,
};

const PROGRAM: &str = "qemu-system-x86_64";

/// What has to be among its devices; QEMU 8 was the first with it.
const NEWEST_DEVICE: &str = "igb";

/// Where Debian's packages have firmware.
const FIRMWARE: [&str; 3] = ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"];

/// Enough for the UMEM of four queues, an initramfs and captures.
const MEMORY_MB: u32 = 1536;

/// The card under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Nic {
    /// virtio-net, the card of virtual machines: zero-copy since Linux 6.16 or so
    Virtio,
    /// Intel's 82576: zero-copy since Linux 6.14
    Igb,
}

impl Nic {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio",
            Self::Igb => "igb",
        }
    }

    /// The device of QEMU's command line.
    fn device(self, queues: u32) -> String {
        match self {
            // The kernel's zero-copy wants addresses that the device may not take for granted.
            Self::Virtio if queues == 1 => "virtio-net-pci,disable-legacy=on,iommu_platform=on".into(),
            Self::Virtio => {
                // An interrupt for each queue of a pair, one for changes of the link, one for the control queue.
                let vectors = 2 * queues + 2;
                format!("virtio-net-pci,disable-legacy=on,iommu_platform=on,mq=on,vectors={vectors}")
            }
            Self::Igb => "igb".into(),
        }
    }

    /// How many CPUs it takes to have so many queues.
    fn cpus(self, queues: u32) -> u32 {
        match self {
            // Two are what most machines that run this have. Its driver can be told to use more queues than that, and for XDP
            // it takes two on top of those in use, if there are any left: with four, both can be had.
            Self::Virtio => 2,
            // Its driver takes as many queues as there are CPUs.
            Self::Igb => queues.max(2),
        }
    }
}

/// A QEMU that can be run.
#[derive(Debug, Clone)]
pub(super) struct Qemu {
    program: PathBuf,
    /// Set for an unpacked one: below what it has to find its libraries and its firmware.
    root: Option<PathBuf>,
}

/// What is booted, and where its words go.
pub(super) struct Guest<'a> {
    pub(super) nic: Nic,
    pub(super) queues: u32,
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
    /// `name=value` for init.
    pub(super) variables: Vec<String>,
    /// A file for the kernel's console; the terminal, if there is none.
    pub(super) console: Option<&'a Path>,
    /// The disk that takes the results.
    pub(super) disk: &'a Path,
    pub(super) wire: &'a Wire,
}

impl Qemu {
    /// The one given, the machine's, or one of our own, downloaded once.
    pub(super) fn find(given: Option<&Path>, dir: &Path) -> Result<Self> {
        if let Some(given) = given {
            let qemu = Self { program: given.to_owned(), root: None };
            return match qemu.is_right() {
                Ok(()) => Ok(qemu),
                Err(error) => Err(error.context(format!("{} is of no use", given.display()))),
            };
        }
        let machines = find_program(PROGRAM).map(|program| Self { program, root: None });
        if let Some(machines) = machines.filter(|qemu| qemu.is_right().is_ok()) {
            return Ok(machines);
        }
        let ours = Self::below(dir.to_owned());
        if ours.is_right().is_ok() {
            return Ok(ours);
        }
        Self::download(dir).with_context(|| {
            format!(
                "{PROGRAM} of version 8 or later is not installed: install it, or give one by --qemu PATH"
            )
        })?;
        ours.is_right()?;
        Ok(ours)
    }

    fn below(root: PathBuf) -> Self {
        Self { program: root.join("usr/bin").join(PROGRAM), root: Some(root) }
    }

    /// Unpacks the packages of this machine's own suite or of its backports, whichever is new enough. What it depends on
    /// and the machine has is the machine's.
    fn download(dir: &Path) -> Result<()> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let suite = suite.context("/etc/os-release names no VERSION_CODENAME")?.trim_matches('"').to_owned();
        let backports = format!("{suite}-backports");
        let step = Step::start("QEMU");
        step.detail(&format!("reading the package lists of {suite} and {backports}"));
        let archive = Archive::open(&dir.with_extension("apt"), &[&suite, &backports])?;
        let partial = dir.with_extension("partial");
        let mut refused = Vec::new();
        for from in [&suite, &backports] {
            step.detail(&format!("downloading what {from} has (15 MB)"));
            let _ = fs::remove_dir_all(&partial);
            let unpacked = archive.unpack_with_dependencies("qemu-system-x86", from, &partial);
            match unpacked.and_then(|()| Self::below(partial.clone()).is_right()) {
                Ok(()) => {
                    let _ = fs::remove_dir_all(dir);
                    fs::rename(&partial, dir)?;
                    step.done(&format!("unpacked, from {from}"));
                    return Ok(());
                }
                Err(error) => refused.push(format!("{from}: {error:#}")),
            }
        }
        bail!("{}", refused.join("; "));
    }

    /// Whether it runs, and emulates what we need.
    fn is_right(&self) -> Result<()> {
        ensure!(self.program.is_file(), "there is no {}", self.program.display());
        let devices = capture(self.command(None, false)?.args(["-device", "help"]))?;
        ensure!(
            devices.contains(&format!("\"{NEWEST_DEVICE}\"")),
            "{} has no device {NEWEST_DEVICE}: it has to be QEMU 8 or later",
            self.program.display()
        );
        Ok(())
    }

    /// The program with what it needs to run, as root in a network namespace if one is given; by a shell if it is to end with us.
    fn command(&self, namespace: Option<&str>, ends_with_us: bool) -> Result<Command> {
        let mut command = match namespace {
            Some(namespace) => {
                let mut command = as_root(find_program("ip").context("ip is not installed")?)?;
                command.args(["netns", "exec", namespace, "env"]);
                command
            }
            None => Command::new("env"),
        };
        if ends_with_us {
            command.args(["sh", "-c", ON_A_LIFELINE, "sh", "env"]);
        }
        // By `env`, since sudo would drop them.
        if let Some(root) = &self.root {
            let libraries = root.join("usr/lib/x86_64-linux-gnu");
            command.arg(format!("LD_LIBRARY_PATH={}", libraries.display()));
            command.arg(format!("QEMU_MODULE_DIR={}", libraries.join("qemu").display()));
        }
        command.arg(&self.program);
        for firmware in self.root.iter().flat_map(|root| FIRMWARE.map(|path| root.join(path))) {
            command.arg("-L").arg(firmware);
        }
        Ok(command)
    }

    /// The command that runs a guest to its end. What scenarios report is its standard output. With a shell on this terminal, that
    /// ends it.
    pub(super) fn boot(&self, guest: &Guest<'_>) -> Result<Command> {
        let mut command = self.command(guest.wire.namespace(), guest.console.is_some())?;
        command.args(arguments(guest));
        Ok(command)
    }
}

/// By software alone: it works on every machine, also inside another virtual one, and the kernel's timers in the guest
/// then run as slowly as its CPUs.
fn arguments(guest: &Guest<'_>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(Into::into));
    add(&["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"]);
    add(&["-smp", &guest.nic.cpus(guest.queues).to_string(), "-m", &MEMORY_MB.to_string()]);
    add(&["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"]);
    add(&["-kernel", &guest.kernel.to_string_lossy(), "-initrd", &guest.initramfs.to_string_lossy()]);
    let kernel =
        "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check net.ifnames=0".to_owned();
    let line = [&[kernel], guest.variables.as_slice()].concat().join(" ");
    add(&["-append", &line]);
    match guest.console {
        Some(file) => add(&["-serial", &format!("file:{}", file.display()), "-serial", "stdio"]),
        None => add(&["-serial", "mon:stdio", "-serial", "null"]),
    }
    let disk = format!("file={},format=raw,if=none,id=results,cache=unsafe", guest.disk.display());
    add(&["-drive", &disk, "-device", "virtio-blk-pci,drive=results"]);
    for words in guest.wire.netdevs() {
        add(&["-netdev", &words]);
    }
    // The card under test is the first on the bus, and so eth0; its peer is eth1.
    let card = guest.nic.device(guest.queues);
    add(&["-device", &format!("{card},netdev=under-test,mac=52:54:00:12:34:01,romfile=")]);
    // What comes over a wire has its checksums; taps hand over what the sender's driver has left to its card.
    add(&["-device", "virtio-net-pci,netdev=peer,mac=52:54:00:12:34:02,csum=off,disable-legacy=on,romfile="]);
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(nic: Nic, queues: u32, wire: &Wire) -> String {
        let guest = Guest {
            nic,
            queues,
            kernel: Path::new("vmlinuz"),
            initramfs: Path::new("initramfs"),
            variables: vec!["XSTACK_VM_NIC=x".into()],
            console: Some(Path::new("console")),
            disk: Path::new("disk"),
            wire,
        };
        let words = arguments(&guest);
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn hardware_is_never_used_and_cpus_follow_the_queues() {
        let virtio = line(Nic::Virtio, 1, &Wire::Hub);
        assert!(virtio.contains("tcg,thread=multi") && !virtio.contains("kvm"), "{virtio}");
        assert!(virtio.contains("-smp 2 ") && virtio.contains("iommu_platform=on"), "{virtio}");
        assert!(line(Nic::Igb, 4, &Wire::Hub).contains("-smp 4 "));
        assert!(line(Nic::Virtio, 4, &Wire::Hub).contains("mq=on,vectors=10,"));
    }

    #[test]
    fn what_init_is_told_is_on_the_kernels_command_line() {
        let virtio = line(Nic::Virtio, 1, &Wire::Hub);
        assert!(virtio.contains("no_timer_check net.ifnames=0 XSTACK_VM_NIC=x -serial"), "{virtio}");
    }
}
