//! The lab's hosts and links: made in order, removed in any state.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::netns::{self, ip, sysctl};
use super::{Lab, remove_if_there};
use crate::process::capture;

/// The hosts of a lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Joins the two subnets. Its bridge is the LAN's segment, so that ARP between LAN hosts is real.
    Router,
    /// Where xstack runs, beside the kernel's own stack.
    Host,
    /// A neighbour on the same LAN.
    Peer,
    /// Web and name server, behind the router.
    Web,
}

impl Host {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 4] = [Self::Router, Self::Host, Self::Peer, Self::Web];

    /// What the command line calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Host => "host",
            Self::Peer => "peer",
            Self::Web => "web",
        }
    }

    /// Its interfaces and addresses.
    pub const fn addresses(self) -> &'static str {
        match self {
            Self::Router => "lan 10.77.0.1/24, wan 10.77.1.1/24",
            Self::Host => "xs0 10.77.0.2/24",
            Self::Peer => "peer0 10.77.0.3/24",
            Self::Web => "web0 10.77.1.2/24 10.77.1.53/24",
        }
    }
}

/// Addresses that others refer to.
pub mod address {
    use std::net::Ipv4Addr;

    /// The LAN's gateway.
    pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    /// The kernel's own address on the host.
    pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
    /// The LAN neighbour.
    pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 3);
    /// example.com.
    pub const WEB: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
    /// The name server.
    pub const DNS: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 53);
}

/// A veth pair between a host and the router. MAC addresses are fixed and made from the IP address, so that a
/// capture reads well.
struct Link {
    host: Host,
    interface: &'static str,
    mac: &'static str,
    router_interface: &'static str,
    router_mac: &'static str,
    on_bridge: bool,
    addresses: &'static [&'static str],
    gateway: &'static str,
}

const LINKS: [Link; 3] = [
    Link {
        host: Host::Host,
        interface: "xs0",
        mac: "02:00:0a:4d:00:02",
        router_interface: "lan-host",
        router_mac: "02:00:0a:4d:01:02",
        on_bridge: true,
        addresses: &["10.77.0.2/24"],
        gateway: "10.77.0.1",
    },
    Link {
        host: Host::Peer,
        interface: "peer0",
        mac: "02:00:0a:4d:00:03",
        router_interface: "lan-peer",
        router_mac: "02:00:0a:4d:01:03",
        on_bridge: true,
        addresses: &["10.77.0.3/24"],
        gateway: "10.77.0.1",
    },
    Link {
        host: Host::Web,
        interface: "web0",
        mac: "02:00:0a:4d:01:35",
        router_interface: "wan",
        router_mac: "02:00:0a:4d:01:01",
        on_bridge: false,
        addresses: &["10.77.1.2/24", "10.77.1.53/24"],
        gateway: "10.77.1.1",
    },
];

/// Makes namespaces, links, addresses and routes.
pub(super) fn create(lab: &Lab, queues: u32) -> Result<()> {
    for host in Host::ALL {
        create_namespace(&lab.namespace(host))?;
    }
    create_router(&lab.namespace(Host::Router))?;
    for link in &LINKS {
        create_link(lab, link, if link.host == Host::Host { queues } else { 1 })?;
    }
    write_resolver_configuration(lab)
}

/// Removes whatever is there of it.
pub(super) fn remove(lab: &Lab) -> Result<()> {
    for link in &LINKS {
        let namespace = lab.namespace(link.host);
        if netns::exists(&namespace) {
            // By hand, because a program that still runs in the namespace would keep the link alive. In a lab that
            // is half up there may be none yet.
            let _ = ip(Some(&namespace), &format!("link del {}", link.interface));
        }
    }
    for host in Host::ALL {
        let namespace = lab.namespace(host);
        if netns::exists(&namespace) {
            ip(None, &format!("netns del {namespace}"))?;
        }
        let file = resolver_configuration(&namespace);
        remove_if_there(fs::remove_file(&file))
            .with_context(|| format!("cannot remove {}", file.display()))?;
        // Only when empty: somebody's own file in there is not ours to remove.
        let _ = file.parent().map(fs::remove_dir);
    }
    let _ = fs::remove_dir("/etc/netns");
    Ok(())
}

fn create_namespace(namespace: &str) -> Result<()> {
    ip(None, &format!("netns add {namespace}"))?;
    // IPv6 would send router solicitations and neighbour discovery of its own into every capture.
    for scope in ["all", "default"] {
        sysctl(namespace, &format!("net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
    }
    ip(Some(namespace), "link set lo up")?;
    Ok(())
}

fn create_router(router: &str) -> Result<()> {
    sysctl(router, "net/ipv4/ip_forward", "1")?;
    let inside = Some(router);
    // Without a forwarding delay and without snooping the segment is as plain as a hub from the first frame on.
    ip(
        inside,
        "link add lan address 02:00:0a:4d:00:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
    )?;
    ip(inside, "addr add 10.77.0.1/24 dev lan")?;
    ip(inside, "link set lan up")?;
    Ok(())
}

fn create_link(lab: &Lab, link: &Link, queues: u32) -> Result<()> {
    let (host, router) = (lab.namespace(link.host), lab.namespace(Host::Router));
    let Link { interface, mac, router_interface, router_mac, gateway, .. } = link;
    let queue_counts = format!("numrxqueues {queues} numtxqueues {queues}");
    ip(
        None,
        &format!(
            "link add {interface} address {mac} {queue_counts} netns {host} type veth \
             peer {router_interface} address {router_mac} {queue_counts} netns {router}"
        ),
    )?;
    // A veth end hands over TCP segments whose checksum is left for a NIC to finish. XDP and AF_XDP see them
    // unfinished: so let the kernel finish them on every link of the lab.
    for (namespace, device) in [(&host, interface), (&router, router_interface)] {
        capture(netns::command(namespace, "ethtool").args(["-K", device, "tx", "off"]))?;
    }
    if link.on_bridge {
        ip(Some(&router), &format!("link set {router_interface} master lan"))?;
    } else {
        ip(Some(&router), &format!("addr add {gateway}/24 dev {router_interface}"))?;
    }
    ip(Some(&router), &format!("link set {router_interface} up"))?;
    for address in link.addresses {
        ip(Some(&host), &format!("addr add {address} dev {interface}"))?;
    }
    ip(Some(&host), &format!("link set {interface} up"))?;
    ip(Some(&host), &format!("route add default via {gateway}"))?;
    Ok(())
}

fn write_resolver_configuration(lab: &Lab) -> Result<()> {
    for host in Host::ALL {
        let file = resolver_configuration(&lab.namespace(host));
        let directory = file.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        fs::write(&file, format!("nameserver {}\n", address::DNS))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn resolver_configuration(namespace: &str) -> PathBuf {
    Path::new("/etc/netns").join(namespace).join("resolv.conf")
}
