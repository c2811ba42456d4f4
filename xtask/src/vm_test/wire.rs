//! What connects the guest's two cards.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::process::{as_root, capture, find_program};

/// The cable between the card under test and its peer.
#[derive(Debug)]
pub(super) enum Wire {
    /// A hub inside QEMU, which needs no privileges. It has one queue, whatever the card has: QEMU's igb spreads frames over
    /// its queues itself, virtio-net takes them from as many as it is connected by.
    Hub,
    /// A bridge of this host, with a tap of several queues for the card under test.
    Bridge(Bridge),
}

impl Wire {
    /// A bridge in a namespace of its own.
    pub(super) fn bridge(queues: u32) -> Result<Self> {
        Bridge::up(queues).map(Self::Bridge)
    }

    /// The namespace that QEMU has to be in.
    pub(super) fn namespace(&self) -> Option<&str> {
        match self {
            Self::Hub => None,
            Self::Bridge(bridge) => Some(&bridge.namespace),
        }
    }

    /// QEMU's ends of it.
    pub(super) fn netdevs(&self) -> Vec<String> {
        match self {
            // The third end is open. Without it the hub waits for the one card that a frame is for, and the sender's ring with it: on
            // a real wire nobody waits for a card that is not ready, which one is when its link flaps.
            Self::Hub => ["under-test", "peer", "open"].map(|id| format!("hubport,hubid=0,id={id}")).to_vec(),
            Self::Bridge(Bridge { queues, .. }) => {
                let tap = |id: &str, name: &str, queues: &str| {
                    format!("tap,id={id},ifname={name},script=no,downscript=no,vhost=off{queues}")
                };
                vec![tap("under-test", UNDER_TEST, &format!(",queues={queues}")), tap("peer", PEER, "")]
            }
        }
    }
}

/// Of the namespaces' names, before the process's id.
const PREFIX: &str = "xs-vm-";
const UNDER_TEST: &str = "xs-tap0";
const PEER: &str = "xs-tap1";

/// A namespace with a bridge and two taps in it, removed at the end.
#[derive(Debug)]
pub(super) struct Bridge {
    namespace: String,
    queues: u32,
}

impl Bridge {
    fn up(queues: u32) -> Result<Self> {
        remove_abandoned();
        let namespace = format!("{PREFIX}{}", std::process::id());
        ip(&format!("netns add {namespace}")).context("cannot make a network namespace for the taps")?;
        let bridge = Self { namespace, queues };
        let inside = |words: &str| ip(&format!("-n {} {words}", bridge.namespace));
        // Nothing of the host's own may be on this wire: no address, no IPv6, no multicast snooping.
        inside("link add xs-br0 type bridge mcast_snooping 0")?;
        inside(&format!("tuntap add dev {UNDER_TEST} mode tap multi_queue"))?;
        inside(&format!("tuntap add dev {PEER} mode tap"))?;
        for link in ["xs-br0", UNDER_TEST, PEER] {
            inside(&format!("link set {link} addrgenmode none"))?;
            // As large as any scenario wants its own.
            inside(&format!("link set {link} mtu 9216 up"))?;
        }
        for tap in [UNDER_TEST, PEER] {
            inside(&format!("link set {tap} master xs-br0"))?;
        }
        Ok(bridge)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Err(error) = ip(&format!("netns del {}", self.namespace)) {
            eprintln!("xtask: {error:#}");
        }
    }
}

/// A run that was killed left its namespace behind, and QEMU ended with it.
fn remove_abandoned() {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|id| id.parse::<u32>().ok());
        if owner.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists()) {
            let _ = ip(&format!("netns del {name}"));
        }
    }
}

fn ip(words: &str) -> Result<String> {
    let ip = find_program("ip").context("ip is not installed")?;
    capture(as_root(ip)?.args(words.split_whitespace()))
}
