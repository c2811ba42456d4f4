//! Facts of a host and of interfaces on which all is well, for tests to spoil.

use crate::{
    cli::doctor::{
        facts::{Capabilities, Facts, Host, Interface, Seen, Wish},
        finding::Finding,
    },
    device::{
        interface::{
            Details, Network, QueueCounts,
            features::{Feature, Features},
            netdev::{self, XdpFeatures},
        },
        kernel::HugePages,
    },
};

/// A server with a recent kernel, and root on it.
pub(in crate::cli::doctor) fn host() -> Host {
    Host {
        release: "6.18.0".to_owned(),
        version: Some((6, 18)),
        has_btf: true,
        has_af_xdp: Some(true),
        xdp_sockets: Some(0),
        bpf_jit: Some(1),
        unprivileged_bpf_disabled: Some(2),
        has_bpffs: true,
        memlock: None,
        capabilities: Capabilities {
            net_raw: true,
            net_admin: true,
            bpf: true,
            ipc_lock: true,
            sys_admin: true,
        },
        is_root: true,
        file_capabilities: None,
        huge_pages: HugePages { total: 64, free: 64, bytes: 2 << 20 },
        numa_nodes: 1,
        process_nodes: vec![0],
        has_irqbalance: false,
        vendor: None,
    }
}

/// A card that can do all, with four queues.
pub(in crate::cli::doctor) fn interface(name: &str) -> Interface {
    Interface {
        details: Details {
            name: name.to_owned(),
            index: 2,
            kind: None,
            is_ethernet: true,
            is_loopback: false,
            mac: None,
            mtu: 1500,
            is_up: true,
            has_carrier: true,
            networks: vec![Network { address: [192, 0, 2, 1].into(), prefix_len: 24 }],
            has_default_route: true,
            driver: Some("ice".to_owned()),
            bus: Some("0000:01:00.0".to_owned()),
            queues: Some(QueueCounts { combined: 4, max_combined: 4, rx: 0, max_rx: 0 }),
            rx_queues: 4,
            rx_table: Some(vec![0, 1, 2, 3]),
            has_known_hash: true,
            features: Some(features(&[])),
            lower: None,
            master: None,
            members: Vec::new(),
            gro_below: Vec::new(),
            peer: None,
        },
        xdp: Seen::Known(netdev::Features {
            xdp: XdpFeatures::BASIC | XdpFeatures::REDIRECT | XdpFeatures::XSK_ZEROCOPY | XdpFeatures::RX_SG,
            zero_copy_max_segments: Some(8),
            rx_metadata: None,
            xsk: None,
        }),
        program: Seen::Known(None),
        sockets: Seen::Known(Vec::new()),
        numa_node: None,
        is_wireless: false,
        virtio: None,
        interrupts: Vec::new(),
    }
}

/// Features of the kernel's names that are on, of those that we ask for; the others are off.
pub(in crate::cli::doctor) fn features(on: &[&str]) -> Features {
    let all =
        ["tx-checksum-ip-generic", "rx-gro", "rx-gro-hw", "rx-lro", "rx-vlan-hw-parse", "tx-vlan-hw-insert"];
    all.iter().map(|name| ((*name).to_owned(), Feature { on: on.contains(name), fixed: false })).collect()
}

pub(in crate::cli::doctor) fn facts(host: Host, interfaces: Vec<Interface>) -> Facts {
    Facts { host, interfaces, wish: Wish::default() }
}

/// The finding of a check.
#[track_caller]
pub(in crate::cli::doctor) fn find(findings: Vec<Finding>, check: &str) -> Finding {
    let checks: Vec<_> = findings.iter().map(|finding| finding.check).collect();
    let found = findings.into_iter().find(|finding| finding.check == check);
    found.unwrap_or_else(|| panic!("nothing about {check} in {checks:?}"))
}
