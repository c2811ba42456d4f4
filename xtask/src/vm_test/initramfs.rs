//! What the guest finds: an initramfs of busybox, some programs of this machine with their libraries, modules of the
//! guest's kernel, xstack and the scenarios.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use cpio::newc::{Builder, ModeFileType, trailer};

use super::kernel::{self, Kernel};
use crate::process::{capture, describe, find_program};

/// The guest's first process.
const INIT: &str = include_str!("init.sh");

/// Programs of this machine that scenarios may use. One that is not installed is left out, and who needs it skips.
const PROGRAMS: [&str; 9] =
    ["ip", "tc", "ss", "ethtool", "bpftool", "xdp-loader", "xdp-filter", "xdpdump", "tcpdump"];

/// Data of theirs: objects of libxdp (its dispatcher, xdp-filter's programs), tables of netem's distributions.
const DATA: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/bpf", "/usr/lib/tc"];

/// Loaded at the start: the bus, the disk for results, the cards.
const LOADED: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_net", "igb"];

/// There for whoever asks, mostly the kernel itself: other cards and devices, queueing disciplines, diagnostics. What a
/// kernel has built in, or lacks, is left out.
const LOADABLE: [&str; 25] = [
    "8021q",
    "act_mirred",
    "bridge",
    "cls_bpf",
    "cls_matchall",
    "cls_u32",
    "dummy",
    "e1000e",
    "ifb",
    "inet_diag",
    "macvlan",
    "netdevsim",
    "sch_etf",
    "sch_fq",
    "sch_fq_codel",
    "sch_ingress",
    "sch_netem",
    "sch_tbf",
    "tcp_bbr",
    "tcp_diag",
    "tun",
    "unix_diag",
    "veth",
    "vmxnet3",
    "xsk_diag",
];

/// What is ours in the guest.
pub(super) struct Payload {
    pub(super) xstack: PathBuf,
    pub(super) scenarios: PathBuf,
    /// The XDP program's objects.
    pub(super) objects: PathBuf,
}

/// Writes the initramfs for a kernel.
pub(super) fn write(kernel: &Kernel, payload: &Payload, to: &Path) -> Result<()> {
    let scratch = tempfile::tempdir()?;
    let mut image = Image::default();
    for directory in ["dev", "proc", "sys", "tmp", "run", "root", "results", "var/run", "mnt", "lib64"] {
        image.directory(directory);
    }
    image.text("init", INIT, 0o755);
    image.text(
        "etc/passwd",
        "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
        0o644,
    );
    image.text("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644);
    image.text("etc/hosts", "127.0.0.1 localhost\n", 0o644);
    image.text("etc/modules", &LOADED.map(|module| format!("{module}\n")).concat(), 0o644);
    busybox(&mut image)?;
    for name in PROGRAMS {
        if let Some(program) = find_program(name) {
            image.program(&format!("usr/sbin/{name}"), &program)?;
        }
    }
    for directory in DATA.map(Path::new).into_iter().filter(|directory| directory.is_dir()) {
        image.tree(directory.strip_prefix("/")?, directory)?;
    }
    for (name, program) in [("usr/bin/xstack", &payload.xstack), ("scenarios", &payload.scenarios)] {
        // Line tables are nine tenths of what cargo builds, and all of it goes into the guest's memory.
        let stripped = scratch.path().join(name.replace('/', "-"));
        capture(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
        image.program(name, &stripped)?;
    }
    image.tree(Path::new("usr/lib/xstack"), &payload.objects)?;
    modules(&mut image, kernel, &scratch.path().join("modules"))?;
    image.write(to).with_context(|| format!("cannot write {}", to.display()))
}

/// The shell and all that goes with it. Debian's prefers its own applets to files of the same name, so what init and
/// scenarios call of [`PROGRAMS`] they call by path.
fn busybox(image: &mut Image) -> Result<()> {
    let busybox =
        find_program("busybox").context("busybox is not installed; `cargo xtask setup` installs it")?;
    image.program("bin/busybox", &busybox)?;
    let applets = capture(Command::new(&busybox).arg("--list-full"))?;
    for applet in applets.lines().map(str::trim).filter(|path| !path.is_empty() && *path != "bin/busybox") {
        image.link(applet, "/bin/busybox");
    }
    Ok(())
}

/// The modules that the guest may need, with those that they need, unpacked, and an index of just these.
fn modules(image: &mut Image, kernel: &Kernel, scratch: &Path) -> Result<()> {
    let index = fs::read_to_string(kernel.modules.join("modules.dep"))?;
    let staged = scratch.join(&kernel.release);
    for file in with_dependencies(&index, LOADED.iter().chain(&LOADABLE).copied()) {
        let source = kernel.modules.join(&file);
        let (name, unpacker) = match Path::new(&file).extension().and_then(|extension| extension.to_str()) {
            Some("xz") => (file.trim_end_matches(".xz"), Some("xz")),
            Some("zst") => (file.trim_end_matches(".zst"), Some("zstd")),
            Some("gz") => (file.trim_end_matches(".gz"), Some("gzip")),
            _ => (file.as_str(), None),
        };
        let target = staged.join(name);
        fs::create_dir_all(target.parent().context("a module in no directory")?)?;
        match unpacker {
            Some(program) => {
                let mut command = Command::new(program);
                command.arg("-dc").arg(&source).stdin(Stdio::null()).stdout(File::create(&target)?);
                let status =
                    command.status().with_context(|| format!("cannot start `{}`", describe(&command)))?;
                ensure!(status.success(), "`{}` failed ({status})", describe(&command));
            }
            None => fs::copy(&source, &target).map(|_| ())?,
        }
    }
    // depmod complains without them; what is built in must not be looked for.
    for known in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        if kernel.modules.join(known).is_file() {
            fs::copy(kernel.modules.join(known), staged.join(known))?;
        }
    }
    kernel::index(scratch, &kernel.release)?;
    image.tree(&Path::new("lib/modules").join(&kernel.release), &staged)
}

/// The files of these modules and of all that they depend on, by what depmod wrote.
fn with_dependencies<'a>(index: &str, names: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let module_name = |file: &str| {
        let name = file.rsplit('/').next().unwrap_or(file);
        name.split(".ko").next().unwrap_or(name).replace('-', "_")
    };
    let lines: BTreeMap<String, &str> =
        index.lines().filter_map(|line| Some((module_name(line.split_once(':')?.0), line))).collect();
    let mut files = BTreeSet::new();
    for line in names.filter_map(|name| lines.get(&name.replace('-', "_"))) {
        files.extend(line.split([':', ' ']).filter(|file| !file.is_empty()).map(str::to_owned));
    }
    files
}

/// A file system to be, by path without the leading slash.
#[derive(Default)]
struct Image {
    nodes: BTreeMap<String, Node>,
}

enum Node {
    Directory,
    Link(String),
    Text(Vec<u8>, u32),
    /// A file of this machine, with its permissions.
    File(PathBuf),
}

impl Image {
    fn directory(&mut self, path: &str) {
        self.parents(path);
        self.nodes.entry(path.to_owned()).or_insert(Node::Directory);
    }

    /// Directories come before what is in them, which the order of names provides.
    fn parents(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            self.nodes.entry(path[..at].to_owned()).or_insert(Node::Directory);
        }
    }

    fn add(&mut self, path: &str, node: Node) {
        self.parents(path);
        self.nodes.insert(path.to_owned(), node);
    }

    fn text(&mut self, path: &str, text: &str, mode: u32) {
        self.add(path, Node::Text(text.into(), mode));
    }

    fn link(&mut self, path: &str, to: &str) {
        self.add(path, Node::Link(to.to_owned()));
    }

    /// All files below a directory of this machine.
    fn tree(&mut self, path: &Path, from: &Path) -> Result<()> {
        for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
            let entry = entry?;
            let path = path.join(entry.file_name());
            if entry.path().is_dir() {
                self.tree(&path, &entry.path())?;
            } else {
                self.add(&path.to_string_lossy(), Node::File(entry.path()));
            }
        }
        Ok(())
    }

    /// A program with the libraries that it loads, where it looks for them.
    fn program(&mut self, path: &str, file: &Path) -> Result<()> {
        self.add(path, Node::File(file.to_owned()));
        let output = Command::new("ldd").arg(file).stdin(Stdio::null()).output().context("cannot run ldd")?;
        for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
            self.add(library.trim_start_matches('/'), Node::File(library.into()));
        }
        Ok(())
    }

    fn write(&self, to: &Path) -> Result<()> {
        let partial = to.with_extension("partial");
        let mut archive = io::BufWriter::new(File::create(&partial)?);
        for (number, (path, node)) in self.nodes.iter().enumerate() {
            let entry = Builder::new(path).ino(u32::try_from(number + 1)?).nlink(1);
            let (entry, content) = match node {
                Node::Directory => {
                    (entry.mode(0o755).set_mode_file_type(ModeFileType::Directory), Vec::new())
                }
                Node::Link(to) => {
                    (entry.mode(0o777).set_mode_file_type(ModeFileType::Symlink), to.clone().into())
                }
                Node::Text(text, mode) => {
                    (entry.mode(*mode).set_mode_file_type(ModeFileType::Regular), text.clone())
                }
                Node::File(source) => {
                    let read = || format!("cannot read {}", source.display());
                    let mode = source.metadata().with_context(read)?.permissions().mode() & 0o777;
                    let content = fs::read(source).with_context(read)?;
                    (entry.mode(mode).set_mode_file_type(ModeFileType::Regular), content)
                }
            };
            let Ok(length) = u32::try_from(content.len()) else {
                bail!("{path} is too large for an initramfs")
            };
            let mut writer = entry.write(archive, length);
            writer.write_all(&content)?;
            archive = writer.finish()?;
        }
        trailer(archive)?.flush()?;
        fs::rename(partial, to).map_err(Into::into)
    }
}

/// The files that `ldd` names: `name => FILE (address)`, and the loader by its path alone.
fn libraries(ldd: &str) -> Vec<&str> {
    let file = |line: &'_ str| -> Option<usize> { line.find('/') };
    ldd.lines()
        .filter_map(|line| file(line).map(|at| &line[at..]))
        .filter_map(|rest| rest.split_whitespace().next())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_with_what_they_depend_on_and_in_no_order_that_matters() {
        let index = "\
kernel/drivers/net/virtio_net.ko.xz: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko.xz:
kernel/drivers/net/veth.ko.xz:
";
        let files = with_dependencies(index, ["virtio_net", "virtio_rng", "not_there"].into_iter());
        let names: Vec<_> = files.iter().map(|file| file.rsplit('/').next().unwrap()).collect();
        assert_eq!(names, ["virtio-rng.ko.xz", "net_failover.ko.xz", "virtio_net.ko.xz", "failover.ko.xz"]);
    }

    #[test]
    fn libraries_are_those_that_are_files() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                   \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(libraries(ldd), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut image = Image::default();
        image.text("usr/bin/x", "x", 0o755);
        image.link("usr/bin/y", "x");
        image.directory("usr/bin");
        let file = tempfile::tempdir().unwrap();
        let file = file.path().join("initramfs");
        image.write(&file).unwrap();
        let mut names = Vec::new();
        let mut reader = File::open(&file).unwrap();
        loop {
            let archive = cpio::newc::Reader::new(reader).unwrap();
            if archive.entry().is_trailer() {
                break;
            }
            names.push((archive.entry().name().to_owned(), archive.entry().mode()));
            reader = archive.finish().unwrap();
        }
        let expected =
            [("usr", 0o040_755), ("usr/bin", 0o040_755), ("usr/bin/x", 0o100_755), ("usr/bin/y", 0o120_777)];
        assert_eq!(names, expected.map(|(name, mode)| (name.to_owned(), mode)));
    }
}
