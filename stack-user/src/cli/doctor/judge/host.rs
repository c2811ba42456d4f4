//! The kernel, its settings, and what this process may do.

use crate::{
    cli::doctor::{
        facts::{Facts, Host},
        finding::{Apply, Finding, Fix},
    },
    device::{
        CHUNK_SIZE, kernel,
        remedy::{self, Change, UNLIMITED_MEMLOCK},
        xdp::{CHUNKS_PER_QUEUE, Options},
    },
};

/// The first kernel that knows XDP programs for frames in several buffers, which ours is.
const OLDEST: (u32, u32) = (5, 18);
/// The first one that tells what drivers can do.
const TELLS_FEATURES: (u32, u32) = (6, 3);
/// The first one that lets a program without capabilities change what it has open.
const OPEN_MAPS: (u32, u32) = (5, 19);

const JIT: &str = "net.core.bpf_jit_enable";
const UNPRIVILEGED: &str = "kernel.unprivileged_bpf_disabled";

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let host = &facts.host;
    let queues = facts.interfaces.iter().map(|interface| interface.details.rx_queues as usize).max();
    [
        kernel_release(host),
        af_xdp(host),
        btf(host),
        jit(host),
        unprivileged(host),
        bpffs(host),
        capabilities(host),
        memlock(host, queues.unwrap_or(1)),
        huge_pages(host),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn kernel_release(host: &Host) -> Option<Finding> {
    const CHECK: &str = "kernel";
    let release = &host.release;
    let version = host.version?;
    Some(if version < OLDEST {
        Finding::problem(
            CHECK,
            format!("Linux {release} is too old"),
            "the XDP program takes frames in several buffers, which kernels before 5.18 refuse",
        )
        .advise("install a kernel from 5.18 on")
    } else if kernel::panics_on_copied_frames(release) {
        Finding::warning(
            CHECK,
            format!("Linux {release} panics when a frame that is sent in copy mode comes out of a veth pair"),
            "it is a fault of 6.16.8 and later and of 6.17 up to 6.17.10: the whole machine stops",
        )
        .advise("install 6.17.11, 6.18 or later; until then xstack refuses to run on veth pairs")
    } else if version < TELLS_FEATURES {
        Finding::note(
            CHECK,
            format!("Linux {release}"),
            "kernels before 6.3 do not tell what a driver can do with XDP: what is said about that here is from a table",
        )
    } else {
        Finding::ok(CHECK, format!("Linux {release}"))
    })
}

fn af_xdp(host: &Host) -> Option<Finding> {
    const CHECK: &str = "af_xdp";
    Some(match host.has_af_xdp? {
        true => Finding::ok(CHECK, "the kernel has AF_XDP sockets"),
        false => Finding::problem(
            CHECK,
            "the kernel has no AF_XDP sockets",
            "frames come and go through them, in every mode",
        )
        .advise("use a kernel that was built with CONFIG_XDP_SOCKETS=y"),
    })
}

fn btf(host: &Host) -> Option<Finding> {
    const CHECK: &str = "btf";
    Some(match host.has_btf {
        true => Finding::ok(CHECK, "the kernel describes its types (BTF)"),
        false => Finding::note(
            CHECK,
            "the kernel does not describe its types: there is no /sys/kernel/btf/vmlinux",
            "xstack itself needs no BTF, but libxdp's dispatcher does, by which several XDP programs share an interface",
        )
        .advise("use a kernel that was built with CONFIG_DEBUG_INFO_BTF=y"),
    })
}

fn jit(host: &Host) -> Option<Finding> {
    const CHECK: &str = "bpf_jit";
    Some(match host.bpf_jit {
        Some(0) => Finding::warning(
            CHECK,
            "XDP programs are interpreted",
            "every frame of the interface, the kernel's own ones too, takes several times as long as when they are compiled",
        )
        .fixed_by(Fix::change(Change::Sysctl { name: JIT, value: 1, was: 0 }, Apply::Safe)),
        Some(_) => Finding::ok(CHECK, "XDP programs are compiled (BPF JIT)"),
        // Only root of the first network namespace sees it.
        None => return None,
    })
}

fn unprivileged(host: &Host) -> Option<Finding> {
    const CHECK: &str = "unprivileged_bpf";
    let disabled = host.unprivileged_bpf_disabled?;
    let is_old = host.version.is_some_and(|version| version < OPEN_MAPS);
    Some(match disabled {
        0 => Finding::note(
            CHECK,
            "every user may load BPF programs",
            "xstack does not need it, and it is a way for local users to attack the kernel",
        )
        .fixed_by(Fix {
            apply: Apply::Manual,
            ..Fix::change(Change::Sysctl { name: UNPRIVILEGED, value: 2, was: 0 }, Apply::Manual)
        }),
        _ if is_old => Finding::note(
            CHECK,
            "users without capabilities may not change BPF maps, not even those that they have open",
            "this kernel (before 5.19) then refuses addresses that are claimed after the start: give all of them at the start",
        ),
        _ => Finding::ok(CHECK, "only the privileged may load BPF programs"),
    })
}

fn bpffs(host: &Host) -> Option<Finding> {
    const CHECK: &str = "bpffs";
    Some(match host.has_bpffs {
        true => Finding::ok(CHECK, "BPF objects can be pinned (/sys/fs/bpf)"),
        false => Finding::note(
            CHECK,
            "no BPF file system is mounted at /sys/fs/bpf",
            "xstack attach and xdp-loader keep programs there that stay; without those it is not needed",
        )
        .fixed_by(Fix::change(Change::MountBpffs, Apply::Safe)),
    })
}

fn capabilities(host: &Host) -> Option<Finding> {
    const CHECK: &str = "capabilities";
    let is_by_file = host.file_capabilities.is_some_and(super::super::facts::Capabilities::suffice);
    Some(if host.capabilities.suffice() {
        let how = match (host.is_root, is_by_file) {
            (true, _) => "as root",
            (false, true) => "by the capabilities of its file",
            (false, false) => "by its capabilities",
        };
        Finding::ok(CHECK, format!("this process may attach and bind, {how}"))
    } else {
        Finding::note(
            CHECK,
            "this process may not attach an XDP program or open AF_XDP sockets",
            "it takes CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW; they are given up once everything is open",
        )
        .advise("run it with sudo, or give its file the capabilities once")
        .fixed_by(Fix::command(remedy::setcap(remedy::CAPABILITIES)).undone_by(remedy::unset_capabilities()))
    })
}

fn memlock(host: &Host, queues: usize) -> Option<Finding> {
    const CHECK: &str = "memlock";
    let chunks = u64::from(Options::chunks_for_each_of(queues)) * queues as u64;
    let (needed, limit) = (chunks * CHUNK_SIZE as u64, host.memlock);
    Some(match limit {
        None => Finding::ok(CHECK, "memory for frames is not limited"),
        Some(_) if host.capabilities.ipc_lock => {
            Finding::ok(CHECK, "memory for frames is not limited (CAP_IPC_LOCK)")
        }
        Some(limit) if limit >= needed => Finding::ok(
            CHECK,
            format!("{} MB may be locked, and frames of {queues} queues take {}", limit >> 20, needed >> 20),
        ),
        // Whoever becomes root for it has no limit.
        Some(_) if !host.capabilities.suffice() => return None,
        Some(limit) => Finding::warning(
            CHECK,
            format!("{} MB may be locked, but frames take {} MB", limit >> 20, needed >> 20),
            "the kernel counts the memory that frames lie in, and refuses what is above the limit",
        )
        .advise("or LimitMEMLOCK=infinity in a systemd unit, or CAP_IPC_LOCK for the file")
        .fixed_by(Fix::command(UNLIMITED_MEMLOCK)),
    })
}

fn huge_pages(host: &Host) -> Option<Finding> {
    const CHECK: &str = "huge_pages";
    let pages = host.huge_pages;
    if pages.bytes == 0 {
        return None;
    }
    let queue = u64::from(CHUNKS_PER_QUEUE) * CHUNK_SIZE as u64;
    let wanted = queue.div_ceil(pages.bytes);
    Some(if pages.free >= wanted {
        Finding::ok(CHECK, format!("{} huge pages of {} kB are free", pages.free, pages.bytes >> 10))
    } else {
        Finding::note(
            CHECK,
            match pages.total {
                0 => "no huge pages are set aside".to_owned(),
                total => format!("{} of {total} huge pages are free", pages.free),
            },
            "memory for frames may lie in huge pages, which spares a busy machine misses of the TLB",
        )
        .fixed_by(
            Fix::command(format!("sudo sysctl -w vm.nr_hugepages={}", pages.total + wanted))
                .undone_by(format!("sudo sysctl -w vm.nr_hugepages={}", pages.total)),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{
            facts::Capabilities,
            finding::Severity,
            judge::testing::{facts, host},
        },
        device::kernel::HugePages,
    };

    /// The finding of a check about a host.
    fn of(check: &str, host: Host) -> Option<Finding> {
        let facts = facts(host, Vec::new());
        judge(&facts).into_iter().find(|finding| finding.check == check)
    }

    #[test]
    fn a_host_as_it_should_be_has_nothing_to_complain_of() {
        let all = judge(&facts(host(), Vec::new()));
        assert!(all.iter().all(|finding| finding.severity == Severity::Ok), "{all:#?}");
        assert!(all.len() >= 8);
    }

    #[test]
    fn old_kernels_are_told() {
        let panics = of("kernel", Host { release: "6.16.12".to_owned(), version: Some((6, 16)), ..host() })
            .expect("found");
        assert!(panics.severity == Severity::Warning && panics.what.contains("panics"), "{panics:?}");
        let severity =
            |version| of("kernel", Host { version: Some(version), ..host() }).map(|finding| finding.severity);
        assert_eq!(severity((5, 15)), Some(Severity::Problem));
        assert_eq!(severity((6, 1)), Some(Severity::Note));
        assert_eq!(severity((6, 12)), Some(Severity::Ok));
        let open_maps = of("unprivileged_bpf", Host { version: Some((5, 18)), ..host() }).expect("found");
        assert!(open_maps.why.contains("5.19"), "{open_maps:?}");
    }

    #[test]
    fn what_the_kernel_lacks_is_told() {
        let problem = of("af_xdp", Host { has_af_xdp: Some(false), ..host() }).expect("found");
        assert_eq!(problem.severity, Severity::Problem);
        assert_eq!(of("af_xdp", Host { has_af_xdp: None, ..host() }), None);
        let note = of("btf", Host { has_btf: false, ..host() }).expect("found");
        assert_eq!(note.severity, Severity::Note);
    }

    #[test]
    fn settings_have_a_safe_fix_that_can_be_undone() {
        let jit = of("bpf_jit", Host { bpf_jit: Some(0), ..host() }).expect("found");
        let fix = jit.fix.expect("a fix");
        assert_eq!((jit.severity, fix.apply), (Severity::Warning, Apply::Safe));
        assert_eq!(fix.command, "sudo sysctl -w net.core.bpf_jit_enable=1");
        assert_eq!(fix.undo.as_deref(), Some("sudo sysctl -w net.core.bpf_jit_enable=0"));
        let bpffs = of("bpffs", Host { has_bpffs: false, ..host() }).and_then(|finding| finding.fix);
        assert_eq!(bpffs.map(|fix| (fix.apply, fix.change)), Some((Apply::Safe, Some(Change::MountBpffs))));
        // Forbidding others something is not ours to do.
        let open = of("unprivileged_bpf", Host { unprivileged_bpf_disabled: Some(0), ..host() });
        assert_eq!(open.and_then(|finding| finding.fix).map(|fix| fix.apply), Some(Apply::Manual));
    }

    #[test]
    fn who_may_not_is_told_how_to_and_it_is_no_failure() {
        let nobody = Host { capabilities: Capabilities::default(), is_root: false, ..host() };
        let note = of("capabilities", nobody.clone()).expect("found");
        assert_eq!(note.severity, Severity::Note);
        assert!(
            note.fix.expect("a fix").command.starts_with("sudo setcap cap_net_raw,cap_net_admin,cap_bpf")
        );
        assert_eq!(of("memlock", Host { memlock: Some(8 << 20), ..nobody }), None);
    }

    #[test]
    fn locked_memory_counts_for_those_who_lack_the_capability() {
        let limited = Host { memlock: Some(8 << 20), ..host() };
        assert_eq!(of("memlock", limited.clone()).map(|finding| finding.severity), Some(Severity::Ok));
        let capabilities = Capabilities { ipc_lock: false, ..host().capabilities };
        let warning = of("memlock", Host { capabilities, ..limited }).expect("found");
        assert_eq!(warning.severity, Severity::Warning);
        assert!(warning.what.contains("8 MB") && warning.what.contains("16 MB"), "{warning:?}");
    }

    #[test]
    fn huge_pages_are_added_to_those_that_there_are() {
        let few = Host { huge_pages: HugePages { total: 3, free: 1, bytes: 2 << 20 }, ..host() };
        let fix = of("huge_pages", few).and_then(|finding| finding.fix).expect("a fix");
        assert_eq!(fix.command, "sudo sysctl -w vm.nr_hugepages=11");
        assert_eq!(fix.undo.as_deref(), Some("sudo sysctl -w vm.nr_hugepages=3"));
    }
}
