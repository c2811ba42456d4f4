//! The network of a run: two namespaces with a veth pair between them, made for it and removed after it.
//!
//! ```text
//!   xs-bench-PID-N-left (bench0, .1, ours .11) ── veth ── xs-bench-PID-N-right (bench0, .2, ours .12)
//! ```
//!
//! Each run has a new pair: an interface keeps settings of its NAPI when an XDP program leaves it, and the next run would have
//! them.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::case::{Link, Side};
use crate::lab::netns::{self, ip, sysctl};
use crate::process::capture;

/// The interface, in either namespace.
pub(super) const INTERFACE: &str = "bench0";

/// Addresses of 10.77.9.0/24.
pub(super) mod address {
    /// The kernel's, on the left and on the right.
    pub(in crate::bench) const KERNEL_LEFT: &str = "10.77.9.1";
    pub(in crate::bench) const KERNEL_RIGHT: &str = "10.77.9.2";
    /// Ours, beside the kernel's.
    pub(in crate::bench) const OURS_LEFT: &str = "10.77.9.11";
    pub(in crate::bench) const OURS_RIGHT: &str = "10.77.9.12";
}

/// What every namespace of ours is called in front. The number of the process follows, so that two matrices do not meet, and so
/// that one that was killed can be told from one that runs.
const PREFIX: &str = "xs-bench-";

/// Where `ip netns` keeps names.
const NAMES: &str = "/run/netns";

/// The network, for as long as this lives.
pub(super) struct Network {
    left: String,
    right: String,
}

impl Network {
    /// Makes it. What a matrix that was killed has left is removed first.
    pub(super) fn new(link: Link) -> Result<Self> {
        sweep(Path::new(NAMES))?;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("{PREFIX}{}-{number}-{side}", std::process::id());
        let network = Self { left: name("left"), right: name("right") };
        network.create(link).context("cannot make the namespaces of a run")?;
        Ok(network)
    }

    fn create(&self, link: Link) -> Result<()> {
        for namespace in [&self.left, &self.right] {
            ip(None, &format!("netns add {namespace}"))?;
            // Nothing of its own accord: neither router solicitations nor duplicate address detection.
            for scope in ["all", "default"] {
                sysctl(namespace, &format!("net/ipv6/conf/{scope}/disable_ipv6"), "1")?;
            }
            ip(Some(namespace), "link set lo up")?;
        }
        let (left, right, mtu) = (&self.left, &self.right, link.mtu);
        ip(
            None,
            &format!(
                "link add {INTERFACE} mtu {mtu} netns {left} type veth peer name {INTERFACE} mtu {mtu} netns {right}"
            ),
        )?;
        let sides = [(left, address::KERNEL_LEFT, link.left), (right, address::KERNEL_RIGHT, link.right)];
        for (namespace, address, features) in sides {
            if !features.is_empty() {
                let mut ethtool = netns::command(namespace, "ethtool");
                capture(ethtool.args(["-K", INTERFACE]).args(features.split_whitespace()))?;
            }
            ip(Some(namespace), &format!("addr add {address}/24 dev {INTERFACE}"))?;
            ip(Some(namespace), &format!("link set {INTERFACE} up"))?;
        }
        Ok(())
    }

    /// A command that runs on a side.
    pub(super) fn command(&self, side: Side, program: impl AsRef<OsStr>) -> Command {
        netns::command(self.namespace(side), program)
    }

    /// The namespace of a side.
    pub(super) fn namespace(&self, side: Side) -> &str {
        match side {
            Side::Left => &self.left,
            Side::Right => &self.right,
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What a failed start has not made can't be removed, and is no loss.
        let _ = ip(Some(&self.left), &format!("link del {INTERFACE}"));
        for namespace in [&self.left, &self.right] {
            let _ = ip(None, &format!("netns del {namespace}"));
        }
    }
}

/// Removes the namespaces of matrices whose process is gone.
fn sweep(names: &Path) -> Result<()> {
    for namespace in abandoned(names, |process| Path::new("/proc").join(process).exists()) {
        // Programs there would end by themselves, but until then they would take time from what is measured now.
        for process in
            ip(None, &format!("netns pids {namespace}"))?.lines().filter_map(|line| line.parse().ok())
        {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
        let _ = ip(Some(&namespace), &format!("link del {INTERFACE}"));
        ip(None, &format!("netns del {namespace}"))?;
    }
    Ok(())
}

fn abandoned(names: &Path, runs: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = fs::read_dir(names).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_abandoned = |name: &String| {
        let process =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).map(|(process, _)| process);
        process.is_some_and(|process| process.parse::<u32>().is_ok() && !runs(process))
    };
    names.filter(is_abandoned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::is_root;

    #[test]
    fn only_what_a_dead_matrix_left_is_swept() {
        let names = tempfile::tempdir().unwrap();
        for name in ["xs-bench-7-left", "xs-bench-8-right", "xs-host", "xs-bench-mine-left", "xs-bench-9"] {
            fs::write(names.path().join(name), "").unwrap();
        }
        assert_eq!(abandoned(names.path(), |process| process == "8"), ["xs-bench-7-left"]);
    }

    #[test]
    fn namespaces_go_with_the_network_also_when_it_can_not_be_made() {
        if !is_root() {
            eprintln!("SKIP bench::network: namespaces need root");
            return;
        }
        let link = Link { mtu: 1500, left: "", right: "" };
        let network = match Network::new(link) {
            Ok(network) => network,
            Err(error) => {
                eprintln!("SKIP bench::network: no namespaces here: {error:#}");
                return;
            }
        };
        let (left, right) = (network.left.clone(), network.right.clone());
        assert!(netns::exists(&left) && netns::exists(&right));
        drop(network);
        assert!(!netns::exists(&left) && !netns::exists(&right));
        // No interface takes that.
        let broken = Link { left: "no-such-feature on", ..link };
        assert!(Network::new(broken).is_err());
        assert!(!netns::exists(&left) && !netns::exists(&right));
    }
}
