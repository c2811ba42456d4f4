//! What was found out, as plain values: whoever judges them needs neither root nor a network card.

use crate::device::{
    interface::{Details, netdev},
    kernel::HugePages,
    xdp::program::OnInterface,
};

/// All of it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// About the machine, the kernel and this process.
    pub host: Host,
    /// About each interface that was asked for.
    pub interfaces: Vec<Interface>,
    /// What the stack would be told.
    pub wish: Wish,
}

/// Options of the command line that change what is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The VLAN that the address is to be on.
    pub vlan: Option<u16>,
    /// The only queue that is to be bound.
    pub queue: Option<u32>,
}

/// What was looked for: found, or not to be seen for this reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen<T> {
    /// It is so.
    Known(T),
    /// Nobody told, because.
    Unknown(String),
}

impl<T> Seen<T> {
    /// What is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

/// The machine, the kernel and this process.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The kernel's release, as `uname -r` has it.
    pub release: String,
    /// Its version, as far as the release begins with one.
    pub version: Option<(u32, u32)>,
    /// Whether the kernel describes its types, at /sys/kernel/btf/vmlinux.
    pub has_btf: bool,
    /// Whether it has AF_XDP sockets, if it lists its protocols.
    pub has_af_xdp: Option<bool>,
    /// How many of them there are in this network namespace, likewise.
    pub xdp_sockets: Option<u64>,
    /// `net.core.bpf_jit_enable`; `None` where there is no such parameter.
    pub bpf_jit: Option<u32>,
    /// `kernel.unprivileged_bpf_disabled`, likewise.
    pub unprivileged_bpf_disabled: Option<u32>,
    /// Whether the file system for BPF objects is mounted.
    pub has_bpffs: bool,
    /// How much memory this process may lock; `None` is without a limit.
    pub memlock: Option<u64>,
    /// What this process may do.
    pub capabilities: Capabilities,
    /// Whether this process is root's.
    pub is_root: bool,
    /// What whoever starts this program's file may do by that; `None` if the file has no capabilities.
    pub file_capabilities: Option<Capabilities>,
    /// Huge pages of the ordinary size: how many there are, how many are free, and bytes of each.
    pub huge_pages: HugePages,
    /// How many NUMA nodes have CPUs.
    pub numa_nodes: usize,
    /// Those of the CPUs that this process may run on.
    pub process_nodes: Vec<u32>,
    /// Whether irqbalance runs, which moves interrupts between CPUs.
    pub has_irqbalance: bool,
    /// Who made the machine, as its firmware says: clouds tell their names here.
    pub vendor: Option<String>,
}

/// Capabilities that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// CAP_NET_RAW: AF_XDP sockets.
    pub net_raw: bool,
    /// CAP_NET_ADMIN: attaching, and settings of interfaces.
    pub net_admin: bool,
    /// CAP_BPF, or CAP_SYS_ADMIN, which has it: loading the program.
    pub bpf: bool,
    /// CAP_IPC_LOCK: memory for frames without a limit.
    pub ipc_lock: bool,
    /// CAP_SYS_ADMIN: other programs' names, other namespaces.
    pub sys_admin: bool,
}

impl Capabilities {
    /// All that the stack needs.
    pub fn suffice(self) -> bool {
        self.net_raw && self.net_admin && self.bpf
    }
}

/// An interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// What rtnetlink and ethtool tell.
    pub details: Details,
    /// What its driver can do for AF_XDP.
    pub xdp: Seen<netdev::Features>,
    /// The XDP program on it.
    pub program: Seen<Option<OnInterface>>,
    /// The AF_XDP sockets on its queues.
    pub sockets: Seen<Vec<Socket>>,
    /// The NUMA node that the card is at, if the machine tells.
    pub numa_node: Option<u32>,
    /// Whether it is Wi-Fi.
    pub is_wireless: bool,
    /// What the host of a virtio device lets us do, if it is one.
    pub virtio: Option<Virtio>,
    /// The card's interrupts, each with the CPUs that it may go to.
    pub interrupts: Vec<Interrupt>,
}

/// What was agreed upon with the host of a virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Virtio {
    /// VIRTIO_F_ACCESS_PLATFORM: its memory goes through the platform's DMA, as zero-copy needs it (`iommu_platform=on`).
    pub access_platform: bool,
    /// Whether the host puts segments together or leaves checksums out, and can't be asked to stop: XDP is refused then.
    pub keeps_offloads: bool,
}

/// An AF_XDP socket on a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The queue.
    pub queue: u32,
    /// Whose it is, if that is told.
    pub uid: Option<u32>,
    /// Whether its frames go without a copy, if that is told.
    pub zero_copy: Option<bool>,
    /// The process that has it, if it was found: its number and name.
    pub process: Option<(u32, String)>,
}

/// An interrupt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Its number.
    pub number: u32,
    /// The CPUs that it may go to, as the kernel writes them: `0-3,7`.
    pub cpus: String,
}
