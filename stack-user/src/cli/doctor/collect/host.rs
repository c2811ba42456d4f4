//! The machine, the kernel and this process, from /proc and /sys.

use std::{collections::BTreeSet, fs, path::Path, str::FromStr};

use caps::{CapSet, Capability};
use nix::{
    sys::resource::{RLIM_INFINITY, Resource, getrlimit},
    unistd::Uid,
};

use crate::{
    cli::doctor::facts::{Capabilities, Host},
    device::{
        kernel::{self, HugePages},
        remedy::{BPFFS, sysctl_path},
    },
};

const CPUS_OF_NODES: &str = "/sys/devices/system/node";

pub(super) fn look() -> Host {
    let protocols = fs::read_to_string("/proc/net/protocols").ok();
    let release = kernel::release();
    Host {
        version: version(&release),
        release,
        has_btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
        has_af_xdp: protocols.as_ref().map(|text| sockets_of(text, "XDP").is_some()),
        xdp_sockets: protocols.as_ref().and_then(|text| sockets_of(text, "XDP")),
        bpf_jit: sysctl("net.core.bpf_jit_enable"),
        unprivileged_bpf_disabled: sysctl("kernel.unprivileged_bpf_disabled"),
        has_bpffs: fs::read_to_string("/proc/self/mounts")
            .is_ok_and(|mounts| is_mounted(&mounts, "bpf", BPFFS)),
        memlock: getrlimit(Resource::RLIMIT_MEMLOCK)
            .ok()
            .map(|(_, hard)| hard)
            .filter(|&hard| hard != RLIM_INFINITY),
        capabilities: capabilities(),
        is_root: Uid::effective().is_root(),
        file_capabilities: file_capabilities(),
        huge_pages: HugePages::of_this_system(),
        numa_nodes: nodes().len(),
        process_nodes: process_nodes(),
        has_irqbalance: has_process("irqbalance"),
        vendor: fs::read_to_string("/sys/class/dmi/id/sys_vendor").ok().map(|name| name.trim().to_owned()),
    }
}

/// `6.18.3-1-amd64` is 6.18.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(u32::from_str);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// How many sockets of a protocol /proc/net/protocols counts; `None` if the kernel has no such protocol.
fn sockets_of(protocols: &str, name: &str) -> Option<u64> {
    let mut words = protocols
        .lines()
        .map(str::split_whitespace)
        .find_map(|mut words| (words.next() == Some(name)).then_some(words))?;
    words.nth(1)?.parse().ok()
}

fn sysctl(name: &str) -> Option<u32> {
    fs::read_to_string(sysctl_path(name)).ok()?.trim().parse().ok()
}

/// Whether /proc/self/mounts has such a file system there.
fn is_mounted(mounts: &str, kind: &str, target: &str) -> bool {
    mounts.lines().any(|line| {
        let mut words = line.split(' ').skip(1);
        words.next() == Some(target) && words.next() == Some(kind)
    })
}

fn capabilities() -> Capabilities {
    capabilities_by(|capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false))
}

fn file_capabilities() -> Option<Capabilities> {
    let file = std::env::current_exe().ok()?;
    let permitted = permitted(&xattr::get(file, "security.capability").ok()??)?;
    Some(capabilities_by(|capability| permitted & capability.bitmask() != 0))
}

/// Those that matter here, by whatever says whether one is there.
fn capabilities_by(has: impl Fn(Capability) -> bool) -> Capabilities {
    let sys_admin = has(Capability::CAP_SYS_ADMIN);
    Capabilities {
        net_raw: has(Capability::CAP_NET_RAW),
        net_admin: has(Capability::CAP_NET_ADMIN),
        bpf: sys_admin || has(Capability::CAP_BPF),
        ipc_lock: has(Capability::CAP_IPC_LOCK),
        sys_admin,
    }
}

/// The permitted set of a `struct vfs_cap_data` of version 2 or 3: a word that tells the version, and then the low and the
/// high word of the set, each followed by that of the inheritable one.
fn permitted(attribute: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u32::from_le_bytes(attribute.get(at..at + 4)?.try_into().ok()?));
    matches!(word(0)? >> 24, 2 | 3).then_some(())?;
    Some(u64::from(word(4)?) | u64::from(word(12)?) << 32)
}

/// The NUMA nodes that have CPUs, with these.
fn nodes() -> Vec<(u32, BTreeSet<u32>)> {
    let entries = fs::read_dir(CPUS_OF_NODES).into_iter().flatten().flatten();
    let node = |name: &str| -> Option<(u32, BTreeSet<u32>)> {
        let number = name.strip_prefix("node")?.parse().ok()?;
        let cpus = list(&fs::read_to_string(format!("{CPUS_OF_NODES}/{name}/cpulist")).ok()?);
        (!cpus.is_empty()).then_some((number, cpus))
    };
    let mut nodes: Vec<_> = entries.filter_map(|entry| node(&entry.file_name().to_string_lossy())).collect();
    nodes.sort_by_key(|(number, _)| *number);
    nodes
}

/// The nodes of the CPUs that this process may run on.
fn process_nodes() -> Vec<u32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let allowed = list(allowed.unwrap_or_default());
    nodes().into_iter().filter(|(_, cpus)| !cpus.is_disjoint(&allowed)).map(|(number, _)| number).collect()
}

/// Reads a list as the kernel writes it: `0-3,7`. Longer ones than any machine has are cut off.
fn list(text: &str) -> BTreeSet<u32> {
    /// As many CPUs as the kernel can be built for.
    const CPUS_MAX: u32 = 8192;
    let mut all = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            all.extend(first.min(CPUS_MAX)..=last.min(CPUS_MAX));
        }
    }
    all
}

/// Whether a process of that name runs, as far as we may see.
fn has_process(name: &str) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let is_it = |entry: &fs::DirEntry| {
        entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
            && fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    };
    entries.into_iter().any(|entry| is_it(&entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_begin_with_a_version() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("7.0-rc3+"), Some((7, 0)));
        assert_eq!(version("next"), None);
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(list("0-2,7\n").into_iter().collect::<Vec<_>>(), [0, 1, 2, 7]);
        assert!(list("\n").is_empty() && list("x-3").is_empty());
        assert!(list("0-4294967295").len() < 10_000);
    }

    #[test]
    fn files_of_the_kernel_are_read() {
        let protocols = "protocol  size sockets\nXDP       1088      0\nUDP       1344      3\n";
        assert_eq!((sockets_of(protocols, "XDP"), sockets_of(protocols, "UDP")), (Some(0), Some(3)));
        assert_eq!(sockets_of(protocols, "XD"), None);
        let mounts = "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n";
        assert!(is_mounted(mounts, "bpf", "/sys/fs/bpf"));
        assert!(!is_mounted(mounts, "bpf", "/sys/fs") && !is_mounted(mounts, "tmpfs", "/sys/fs/bpf"));
    }

    /// What `setcap cap_net_raw,cap_bpf+ep` writes.
    #[test]
    fn capabilities_of_a_file_are_read() {
        let mut attribute = vec![1, 0, 0, 2];
        attribute.extend((1u32 << 13).to_le_bytes());
        attribute.extend([0; 4]);
        attribute.extend((1u32 << (39 - 32)).to_le_bytes());
        attribute.extend([0; 4]);
        let set = permitted(&attribute).expect("a set");
        assert_eq!(set, 1 << 13 | 1 << 39);
        let few = capabilities_by(|capability| set & capability.bitmask() != 0);
        assert!(few.net_raw && few.bpf && !few.net_admin && !few.ipc_lock && !few.sys_admin);
        assert!(
            capabilities_by(|capability| capability == Capability::CAP_SYS_ADMIN).bpf,
            "it may all of that"
        );
        assert_eq!(permitted(&attribute[..9]), None);
        attribute[3] = 1;
        assert_eq!(permitted(&attribute), None, "an old version, of 32 bits");
    }
}
