//! What `--json` prints: one object, whose fields docs/doctor.md lists.

use std::path::Path;

use serde::Serialize;

use super::{
    facts::{Capabilities, Facts, Host, Interface, Seen},
    finding::{Apply, Finding, Severity, Unseen},
    fix::Made,
    self_test::SelfTest,
};
use crate::device::interface::features::Offload;

/// The version of this shape. A field that is added does not change it; one that goes, or means something else, does.
const SCHEMA: u32 = 1;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    schema: u32,
    version: &'static str,
    /// The worst of the findings.
    severity: Severity,
    host: HostView<'a>,
    capabilities: CapabilitiesView,
    interfaces: Vec<InterfaceView<'a>>,
    findings: Vec<FindingView<'a>>,
    fixes: &'a [Made],
    unseen: &'a [Unseen],
    self_test: &'a SelfTest,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        facts: &'a Facts,
        findings: &'a [Finding],
        fixes: &'a [Made],
        unseen: &'a [Unseen],
        self_test: &'a SelfTest,
        severity: Severity,
    ) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            severity,
            host: HostView::new(&facts.host),
            capabilities: CapabilitiesView::new(&facts.host),
            interfaces: facts.interfaces.iter().map(InterfaceView::new).collect(),
            findings: findings.iter().map(FindingView::new).collect(),
            fixes,
            unseen,
            self_test,
        }
    }
}

#[derive(Debug, Serialize)]
struct HostView<'a> {
    kernel: &'a str,
    btf: bool,
    af_xdp: Option<bool>,
    bpf_jit: Option<u32>,
    unprivileged_bpf_disabled: Option<u32>,
    bpffs: bool,
    memlock_bytes: Option<u64>,
    huge_pages: HugePagesView,
    numa_nodes: usize,
    process_nodes: &'a [u32],
    irqbalance: bool,
    vendor: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct HugePagesView {
    total: u64,
    free: u64,
    bytes: u64,
}

impl<'a> HostView<'a> {
    fn new(host: &'a Host) -> Self {
        let pages = host.huge_pages;
        Self {
            kernel: &host.release,
            btf: host.has_btf,
            af_xdp: host.has_af_xdp,
            bpf_jit: host.bpf_jit,
            unprivileged_bpf_disabled: host.unprivileged_bpf_disabled,
            bpffs: host.has_bpffs,
            memlock_bytes: host.memlock,
            huge_pages: HugePagesView { total: pages.total, free: pages.free, bytes: pages.bytes },
            numa_nodes: host.numa_nodes,
            process_nodes: &host.process_nodes,
            irqbalance: host.has_irqbalance,
            vendor: host.vendor.as_deref(),
        }
    }
}

#[derive(Debug, Serialize)]
struct CapabilitiesView {
    root: bool,
    process: SetView,
    file: Option<SetView>,
}

#[derive(Debug, Serialize)]
struct SetView {
    net_raw: bool,
    net_admin: bool,
    bpf: bool,
    ipc_lock: bool,
    sys_admin: bool,
}

impl CapabilitiesView {
    fn new(host: &Host) -> Self {
        Self {
            root: host.is_root,
            process: SetView::new(host.capabilities),
            file: host.file_capabilities.map(SetView::new),
        }
    }
}

impl SetView {
    fn new(set: Capabilities) -> Self {
        let Capabilities { net_raw, net_admin, bpf, ipc_lock, sys_admin } = set;
        Self { net_raw, net_admin, bpf, ipc_lock, sys_admin }
    }
}

#[derive(Debug, Serialize)]
struct InterfaceView<'a> {
    name: &'a str,
    index: u32,
    kind: Option<&'a str>,
    driver: Option<&'a str>,
    bus: Option<&'a str>,
    mac: Option<String>,
    mtu: u32,
    up: bool,
    carrier: bool,
    addresses: Vec<String>,
    default_route: bool,
    queues: QueuesView<'a>,
    offloads: Option<OffloadsView>,
    xdp: Option<XdpView>,
    program: Option<ProgramView<'a>>,
    sockets: Option<Vec<SocketView<'a>>>,
    lower: Option<&'a str>,
    vlan: Option<u16>,
    master: Option<&'a str>,
    members: &'a [String],
    peer: Option<PeerView<'a>>,
    numa_node: Option<u32>,
    wireless: bool,
    virtio: Option<VirtioView>,
    interrupts: Vec<InterruptView<'a>>,
}

impl<'a> InterfaceView<'a> {
    fn new(interface: &'a Interface) -> Self {
        let details = &interface.details;
        let lower = details.lower.as_ref();
        let program = interface.program.known().and_then(Option::as_ref);
        let sockets = interface.sockets.known();
        let queues = details.queues.unwrap_or_default();
        Self {
            name: &details.name,
            index: details.index,
            kind: details.kind.as_deref(),
            driver: details.driver.as_deref(),
            bus: details.bus.as_deref(),
            mac: details.mac.map(|mac| mac.to_string()),
            mtu: details.mtu,
            up: details.is_up,
            carrier: details.has_carrier,
            addresses: details.networks.iter().map(ToString::to_string).collect(),
            default_route: details.has_default_route,
            queues: QueuesView {
                receiving: details.rx_queues,
                combined: queues.combined,
                max_combined: queues.max_combined,
                rx: queues.rx,
                max_rx: queues.max_rx,
                table: details.rx_table.as_deref(),
                hash_known: details.has_known_hash,
            },
            offloads: details.features.as_ref().map(|features| OffloadsView {
                tx_checksum: features.is_on(Offload::TxChecksum),
                gro: features.is_on(Offload::Gro),
                hardware_gro: features.is_on(Offload::HardwareGro),
                lro: features.is_on(Offload::Lro),
                rx_vlan: features.is_on(Offload::RxVlan),
                tx_vlan: features.is_on(Offload::TxVlan),
            }),
            xdp: XdpView::new(interface),
            program: program.map(|program| ProgramView {
                id: program.id,
                name: program.name.as_deref(),
                mode: if program.is_generic { "generic" } else { "native" },
                dispatcher: program.is_dispatcher(),
                xstack: program.is_ours,
                kept: program.kept.as_deref(),
            }),
            sockets: sockets.map(|sockets| {
                let view = |socket: &'a super::facts::Socket| SocketView {
                    queue: socket.queue,
                    uid: socket.uid,
                    zero_copy: socket.zero_copy,
                    pid: socket.process.as_ref().map(|(pid, _)| *pid),
                    process: socket.process.as_ref().map(|(_, name)| &**name),
                };
                sockets.iter().map(view).collect()
            }),
            lower: lower.and_then(|lower| lower.name.as_deref()),
            vlan: lower.and_then(|lower| lower.vlan),
            master: details.master.as_deref(),
            members: &details.members,
            peer: details.peer.as_ref().map(|peer| PeerView {
                index: peer.index,
                name: peer.name.as_deref(),
                command_prefix: peer.namespace.as_ref().map(|there| there.command_prefix()),
                tx_checksum: peer.features.as_ref().map(|features| features.is_on(Offload::TxChecksum)),
            }),
            numa_node: interface.numa_node,
            wireless: interface.is_wireless,
            virtio: interface.virtio.map(|virtio| VirtioView {
                access_platform: virtio.access_platform,
                keeps_offloads: virtio.keeps_offloads,
            }),
            interrupts: interface
                .interrupts
                .iter()
                .map(|irq| InterruptView { number: irq.number, cpus: &irq.cpus })
                .collect(),
        }
    }
}

#[derive(Debug, Serialize)]
struct QueuesView<'a> {
    receiving: u32,
    combined: u32,
    max_combined: u32,
    rx: u32,
    max_rx: u32,
    table: Option<&'a [u32]>,
    hash_known: bool,
}

#[derive(Debug, Serialize)]
struct OffloadsView {
    tx_checksum: bool,
    gro: bool,
    hardware_gro: bool,
    lro: bool,
    rx_vlan: bool,
    tx_vlan: bool,
}

#[derive(Debug, Serialize)]
struct XdpView {
    features: Vec<String>,
    zero_copy: bool,
    zero_copy_max_segments: Option<u32>,
    rx_metadata: Option<Vec<String>>,
    tx_metadata: Option<Vec<String>>,
}

impl XdpView {
    fn new(interface: &Interface) -> Option<Self> {
        use crate::device::interface::netdev::XdpFeatures;
        let Seen::Known(features) = &interface.xdp else { return None };
        Some(Self {
            features: names(features.xdp.iter_names()),
            zero_copy: features.xdp.contains(XdpFeatures::XSK_ZEROCOPY),
            zero_copy_max_segments: features.zero_copy_max_segments,
            rx_metadata: features.rx_metadata.map(|hints| names(hints.iter_names())),
            tx_metadata: features.xsk.map(|hints| names(hints.iter_names())),
        })
    }
}

/// The kernel's names, in small letters.
fn names<T>(flags: impl Iterator<Item = (&'static str, T)>) -> Vec<String> {
    flags.map(|(name, _)| name.to_lowercase().replace('_', "-")).collect()
}

#[derive(Debug, Serialize)]
struct ProgramView<'a> {
    id: u32,
    name: Option<&'a str>,
    mode: &'static str,
    dispatcher: bool,
    xstack: bool,
    kept: Option<&'a Path>,
}

#[derive(Debug, Serialize)]
struct SocketView<'a> {
    queue: u32,
    uid: Option<u32>,
    zero_copy: Option<bool>,
    pid: Option<u32>,
    process: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct PeerView<'a> {
    index: u32,
    name: Option<&'a str>,
    command_prefix: Option<String>,
    tx_checksum: Option<bool>,
}

#[derive(Debug, Serialize)]
struct VirtioView {
    access_platform: bool,
    keeps_offloads: bool,
}

#[derive(Debug, Serialize)]
struct InterruptView<'a> {
    number: u32,
    cpus: &'a str,
}

#[derive(Debug, Serialize)]
struct FindingView<'a> {
    check: &'static str,
    interface: Option<&'a str>,
    severity: Severity,
    what: &'a str,
    why: &'a str,
    advice: Option<&'a str>,
    fix: Option<FixView<'a>>,
}

#[derive(Debug, Serialize)]
struct FixView<'a> {
    command: &'a str,
    undo: Option<&'a str>,
    apply: Apply,
}

impl<'a> FindingView<'a> {
    fn new(finding: &'a Finding) -> Self {
        Self {
            check: finding.check,
            interface: finding.interface.as_deref(),
            severity: finding.severity,
            what: &finding.what,
            why: &finding.why,
            advice: finding.advice.as_deref(),
            fix: finding.fix.as_ref().map(|fix| FixView {
                command: &fix.command,
                undo: fix.undo.as_deref(),
                apply: fix.apply,
            }),
        }
    }
}
