//! What building, running and testing need, how to tell that it is there, and which package brings it.

use std::fs;
use std::path::Path;

use crate::process::find_program;

/// For what something is needed. A level includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// To build and run xstack and the lab.
    Build,
    /// To run every test instead of skipping some.
    Test,
}

/// One thing that must be there.
pub(super) struct Need {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
    pub(super) level: Level,
    probe: Probe,
    /// Package names by system; empty where there is no package, or none that we are sure of.
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
    suse: &'static str,
}

/// How to tell that something is there: by looking for it, since a package manager knows only its own.
enum Probe {
    Program(&'static str),
    Header(&'static str),
    /// A shared library whose file name starts so: bindgen loads libclang when it runs.
    Library(&'static str),
}

macro_rules! need {
    ($level:ident, $name:literal, $why:literal, $probe:expr, $debian:literal, $fedora:literal, $arch:literal, $suse:literal) => {
        Need {
            name: $name,
            why: $why,
            level: Level::$level,
            probe: $probe,
            debian: $debian,
            fedora: $fedora,
            arch: $arch,
            suse: $suse,
        }
    };
}

use Probe::{Header, Library, Program};

#[rustfmt::skip] // A table: one need a line.
pub(super) const NEEDS: &[Need] = &[
    need!(Build, "cc",           "links Rust programs, compiles libxdp",       Program("cc"),                "gcc",          "gcc",                  "gcc",        "gcc"),
    need!(Build, "libc headers", "compile libxdp",                             Header("stdio.h"),            "libc6-dev",    "glibc-devel",          "glibc",      "glibc-devel"),
    need!(Build, "objcopy",      "embeds libxdp's programs",                   Program("objcopy"),           "binutils",     "binutils",             "binutils",   "binutils"),
    need!(Build, "clang",        "compiles libxdp's BPF programs",             Program("clang"),             "clang",        "clang",                "clang",      "clang"),
    need!(Build, "libclang",     "lets bindgen read libxdp's headers",         Library("libclang"),          "libclang-dev", "clang-devel",          "clang",      "clang-devel"),
    need!(Build, "make",         "builds libbpf",                              Program("make"),              "make",         "make",                 "make",       "make"),
    need!(Build, "m4",           "writes libxdp's dispatcher",                 Program("m4"),                "m4",           "m4",                   "m4",         "m4"),
    need!(Build, "pkg-config",   "finds libelf and zlib",                      Program("pkg-config"),        "pkg-config",   "pkgconf-pkg-config",   "pkgconf",    "pkg-config"),
    need!(Build, "libelf",       "libbpf reads objects with it",               Header("libelf.h"),           "libelf-dev",   "elfutils-libelf-devel","libelf",     "libelf-devel"),
    need!(Build, "zlib",         "libbpf needs it",                            Header("zlib.h"),             "zlib1g-dev",   "zlib-devel",           "zlib",       "zlib-devel"),
    need!(Build, "ip",           "makes the lab's namespaces and links",       Program("ip"),                "iproute2",     "iproute",              "iproute2",   "iproute2"),
    need!(Build, "ethtool",      "turns the lab's partial checksums off",      Program("ethtool"),           "ethtool",      "ethtool",              "ethtool",    "ethtool"),
    need!(Test,  "curl",         "what xstack curl is compared with",          Program("curl"),              "curl",         "curl",                 "curl",       "curl"),
    need!(Test,  "wget",         "follows the links of what we list",           Program("wget"),              "wget",         "wget",                 "wget",       "wget"),
    need!(Test,  "wrk",          "loads xstack serve over many connections",   Program("wrk"),               "wrk",          "",                     "wrk",        "wrk"),
    need!(Test,  "ab",           "loads it over one after the other",          Program("ab"),                "apache2-utils","httpd-tools",          "apache",     "apache2-utils"),
    need!(Test,  "hping3",       "floods it with connections that it never completes", Program("hping3"),   "hping3",       "hping3",               "hping",      "hping"),
    need!(Test,  "sshd",         "has sessions through forwards and proxies",  Program("sshd"),              "openssh-server","openssh-server",      "openssh",    "openssh-server"),
    need!(Test,  "ssh",          "is who has them",                            Program("ssh"),               "openssh-client","openssh-clients",     "openssh",    "openssh-clients"),
    need!(Test,  "nc",           "takes ssh through a proxy",                  Program("nc"),                "netcat-openbsd","netcat",              "openbsd-netcat", "netcat-openbsd"),
    need!(Test,  "nginx",        "a real web server on the other side",        Program("nginx"),             "nginx-light",  "nginx",                "nginx",      "nginx"),
    need!(Test,  "dnsmasq",      "a real name server on the other side",       Program("dnsmasq"),           "dnsmasq-base", "dnsmasq",              "dnsmasq",    "dnsmasq"),
    need!(Test,  "ping",         "shows that the kernel's stack works on",     Program("ping"),              "iputils-ping", "iputils",              "iputils",    "iputils"),
    need!(Test,  "valgrind",     "counts the instructions of a segment",       Program("valgrind"),          "valgrind",     "valgrind",             "valgrind",   "valgrind"),
    need!(Test,  "iperf3",       "loads the kernel's stack beside ours",       Program("iperf3"),            "iperf3",       "iperf3",               "iperf3",     "iperf"),
    need!(Test,  "sockperf",     "asks the kernel's stack without sleeping",   Program("sockperf"),          "sockperf",     "sockperf",             "sockperf",   ""),
    need!(Test,  "tcpdump",      "sees what really is on the wire",            Program("tcpdump"),           "tcpdump",      "tcpdump",              "tcpdump",    "tcpdump"),
    need!(Test,  "tshark",       "checks captures for malformed packets",      Program("tshark"),            "tshark",       "wireshark-cli",        "wireshark-cli", "wireshark"),
    need!(Test,  "xdp-loader",   "attaches our program as an operator would",  Program("xdp-loader"),        "xdp-tools",    "xdp-tools",            "xdp-tools",  "xdp-tools"),
    need!(Test,  "setcap",       "gives a file capabilities instead of root",  Program("setcap"),            "libcap2-bin",  "libcap",               "libcap",     "libcap-progs"),
    need!(Test,  "bpftool",      "lists attached programs",                    Program("bpftool"),           "bpftool",      "bpftool",              "bpf",        "bpftool"),
    need!(Test,  "busybox",      "is a guest's user space",                    Program("busybox"),           "busybox-static","busybox",             "busybox",    "busybox-static"),
    need!(Test,  "depmod",       "indexes the modules of a guest's kernel",    Program("depmod"),            "kmod",         "kmod",                 "kmod",       "kmod"),
    need!(Test,  "xz",           "unpacks them",                               Program("xz"),                "xz-utils",     "xz",                   "xz",         "xz"),
];

impl Need {
    pub(super) fn is_met(&self) -> bool {
        match self.probe {
            Program(name) => find_program(name).is_some(),
            Header(name) => header_directories().iter().any(|dir| Path::new(dir).join(name).exists()),
            Library(prefix) => library_directories().iter().any(|dir| has_library(Path::new(dir), prefix)),
        }
    }

    pub(super) fn package(&self, system: System) -> Option<&'static str> {
        let name = match system {
            System::Debian => self.debian,
            System::Fedora => self.fedora,
            System::Arch => self.arch,
            System::Suse => self.suse,
            System::Other => "",
        };
        (!name.is_empty()).then_some(name)
    }
}

/// The families of systems whose package names we know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    /// Debian, Ubuntu and what derives from them: installed by us.
    Debian,
    Fedora,
    Arch,
    Suse,
    Other,
}

impl System {
    pub(super) fn detect() -> Self {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        Self::from_os_release(&release)
    }

    fn from_os_release(release: &str) -> Self {
        let ids = release
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
            .flat_map(|value| value.trim_matches('"').split_whitespace());
        for id in ids {
            match id {
                "debian" | "ubuntu" => return Self::Debian,
                "fedora" | "rhel" | "centos" => return Self::Fedora,
                "arch" => return Self::Arch,
                "suse" | "opensuse" | "opensuse-tumbleweed" | "opensuse-leap" => return Self::Suse,
                _ => {}
            }
        }
        Self::Other
    }

    pub(super) fn install_command(self) -> Option<&'static str> {
        match self {
            Self::Debian => Some("sudo apt-get install"),
            Self::Fedora => Some("sudo dnf install"),
            Self::Arch => Some("sudo pacman -S"),
            Self::Suse => Some("sudo zypper install"),
            Self::Other => None,
        }
    }
}

fn header_directories() -> Vec<String> {
    let arch = std::env::consts::ARCH;
    vec!["/usr/include".into(), "/usr/local/include".into(), format!("/usr/include/{arch}-linux-gnu")]
}

fn library_directories() -> Vec<String> {
    let arch = std::env::consts::ARCH;
    let mut directories = vec![
        "/usr/lib".into(),
        "/usr/lib64".into(),
        "/usr/local/lib".into(),
        format!("/usr/lib/{arch}-linux-gnu"),
    ];
    directories.extend(std::env::var("LIBCLANG_PATH"));
    // Versioned LLVM installations keep their own directory: /usr/lib/llvm-18/lib.
    for entry in fs::read_dir("/usr/lib").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("llvm") {
            directories.push(entry.path().join("lib").display().to_string());
        }
    }
    directories
}

/// `libclang.so`, `libclang-14.so.1` and so on, but neither `libclang-cpp.so` nor an archive.
fn has_library(directory: &Path, prefix: &str) -> bool {
    fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_prefix(prefix)
            .and_then(|rest| rest.split_once(".so"))
            .is_some_and(|(version, _)| version.chars().all(|c| c == '-' || c == '.' || c.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_told_by_id_or_what_they_are_like() {
        for (release, system) in [
            ("NAME=\"Debian\"\nID=debian\n", System::Debian),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", System::Debian),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", System::Fedora),
            ("ID=arch\n", System::Arch),
            ("ID=\"opensuse-tumbleweed\"\n", System::Suse),
            ("ID=nixos\n", System::Other),
            ("", System::Other),
        ] {
            assert_eq!(System::from_os_release(release), system, "{release}");
        }
    }

    #[test]
    fn libclang_is_not_mistaken_for_its_cousins() {
        let dir = tempfile::tempdir().unwrap();
        for other in ["libclang-cpp.so.14", "libclangBasic.a", "libclang_rt.so"] {
            fs::write(dir.path().join(other), "").unwrap();
        }
        assert!(!has_library(dir.path(), "libclang"));
        fs::write(dir.path().join("libclang-14.so.1"), "").unwrap();
        assert!(has_library(dir.path(), "libclang"));
    }
}
