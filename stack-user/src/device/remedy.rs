//! What to change on a host so that it fits: the commands that do it, and those that undo it.
//!
//! All messages that tell somebody what to say have it from here, and so has whoever does it for them.

use std::{borrow::Cow, fs, io, path::Path};

use nix::mount::{MsFlags, mount};

use super::interface::{
    self,
    features::{self, Offload},
    namespace::Namespace,
};

/// Where the kernel's own file system for BPF objects belongs.
pub const BPFFS: &str = "/sys/fs/bpf";

/// How it is mounted: as systemd does. Without a mode, everybody may make directories in it, also in the place of ours.
const BPFFS_OPTIONS: &str = "mode=0700";

/// A change of a host's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// An interface is switched on.
    Up {
        /// The interface.
        interface: String,
    },
    /// An interface takes packets of another size.
    Mtu {
        /// The interface.
        interface: String,
        /// Bytes of an IP packet.
        mtu: u32,
        /// Before, if that is known.
        was: Option<u32>,
    },
    /// An interface does something to frames, or no longer does.
    Offload {
        /// The interface.
        interface: String,
        /// Its network namespace, if that is not ours.
        namespace: Option<Namespace>,
        /// What it does.
        offload: Offload,
        /// Whether it is to do it.
        on: bool,
    },
    /// An interface has another number of queues.
    Queues {
        /// The interface.
        interface: String,
        /// How many that receive and send.
        combined: u32,
        /// Before.
        was: u32,
    },
    /// An interface spreads what it receives over these queues only.
    Steer {
        /// The interface.
        interface: String,
        /// The first queue.
        start: u32,
        /// How many there are.
        equal: u32,
    },
    /// A parameter of the kernel is another.
    Sysctl {
        /// Its name.
        name: &'static str,
        /// What it is to be.
        value: u32,
        /// Before.
        was: u32,
    },
    /// The file system for BPF objects is mounted.
    MountBpffs,
    /// Whatever XDP program is on an interface is taken off.
    Detach {
        /// The interface.
        interface: String,
        /// Whether it is in the generic path.
        generic: bool,
    },
}

impl Change {
    /// The command that makes it, for a shell.
    pub fn command(&self) -> String {
        match self {
            Self::Up { interface } => format!("sudo ip link set {} up", quoted(interface)),
            Self::Mtu { interface, mtu, .. } => format!("sudo ip link set {} mtu {mtu}", quoted(interface)),
            Self::Offload { interface, namespace, offload, on } => {
                let there = namespace.as_ref().map(Namespace::command_prefix).unwrap_or_default();
                let on = if *on { "on" } else { "off" };
                format!("sudo {there}ethtool -K {} {offload} {on}", quoted(interface))
            }
            Self::Queues { interface, combined, .. } => {
                format!("sudo ethtool -L {} combined {combined}", quoted(interface))
            }
            Self::Steer { interface, start: 0, equal } => {
                format!("sudo ethtool -X {} equal {equal}", quoted(interface))
            }
            Self::Steer { interface, start, equal } => {
                format!("sudo ethtool -X {} start {start} equal {equal}", quoted(interface))
            }
            Self::Sysctl { name, value, .. } => format!("sudo sysctl -w {name}={value}"),
            Self::MountBpffs => format!("sudo mount -t bpf -o {BPFFS_OPTIONS} bpf {BPFFS}"),
            Self::Detach { interface, generic } => {
                let xdp = if *generic { "xdpgeneric" } else { "xdp" };
                format!("sudo ip link set dev {} {xdp} off", quoted(interface))
            }
        }
    }

    /// The command that takes it back; `None` where there is no way back, or none that is known.
    pub fn undo(&self) -> Option<String> {
        let back = match self.clone() {
            Self::Up { interface } => return Some(format!("sudo ip link set {} down", quoted(&interface))),
            Self::Mtu { interface, mtu, was: Some(was) } => Self::Mtu { interface, mtu: was, was: Some(mtu) },
            Self::Offload { interface, namespace, offload, on } => {
                Self::Offload { interface, namespace, offload, on: !on }
            }
            Self::Queues { interface, combined, was } => {
                Self::Queues { interface, combined: was, was: combined }
            }
            Self::Steer { interface, .. } => {
                return Some(format!("sudo ethtool -X {} default", quoted(&interface)));
            }
            Self::Sysctl { name, value, was } => Self::Sysctl { name, value: was, was: value },
            Self::MountBpffs => return Some(format!("sudo umount {BPFFS}")),
            Self::Mtu { was: None, .. } | Self::Detach { .. } => return None,
        };
        Some(back.command())
    }

    /// Makes it. What it was before is what [`undo`](Self::undo) tells.
    ///
    /// # Errors
    /// When the kernel refuses; `Unsupported` for what only a person should do.
    pub async fn apply(&self) -> io::Result<()> {
        match self {
            Self::Up { interface } => interface::set_up(interface).await.map_err(io::Error::other),
            Self::Mtu { interface, mtu, .. } => {
                interface::set_mtu(interface, *mtu).await.map_err(io::Error::other)
            }
            Self::Offload { interface, namespace: None, offload, on } => {
                features::switch(interface, *offload, *on)
            }
            Self::Offload { interface, namespace: Some(namespace), offload, on } => {
                namespace.inside(|| features::switch(interface, *offload, *on))?
            }
            Self::Queues { interface, combined, .. } => interface::set_queues(interface, *combined),
            Self::Sysctl { name, value, .. } => fs::write(sysctl_path(name), value.to_string()),
            Self::MountBpffs => {
                let (target, options) = (Path::new(BPFFS), Some(BPFFS_OPTIONS));
                mount(Some("bpf"), target, Some("bpf"), MsFlags::empty(), options).map_err(io::Error::from)
            }
            Self::Steer { .. } | Self::Detach { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// A name as a shell takes it for one word. The kernel lets an interface be called `$(reboot)`, and whoever owns another
/// namespace calls the interfaces there as he likes.
pub fn quoted(name: &str) -> Cow<'_, str> {
    shlex::try_quote(name).unwrap_or(Cow::Borrowed("''"))
}

/// The command that switches an interface on.
pub fn up(interface: &str) -> String {
    Change::Up { interface: interface.to_owned() }.command()
}

/// The command that gives an interface Ethernet's own packet size, which every driver takes in native mode.
pub fn standard_mtu(interface: &str) -> String {
    Change::Mtu { interface: interface.to_owned(), mtu: 1500, was: None }.command()
}

/// The command that takes whatever XDP program is there off an interface's driver.
pub fn detach(interface: &str) -> String {
    Change::Detach { interface: interface.to_owned(), generic: false }.command()
}

/// Where a parameter of the kernel is read and written.
pub fn sysctl_path(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

/// The capabilities that it takes, as setcap has them. CAP_IPC_LOCK is among them because frames are locked memory, and the
/// limit of that is 8 MB on most systems: half a queue.
pub const CAPABILITIES: &str = "cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock";

/// The command that gives this program's file capabilities.
pub fn setcap(capabilities: &str) -> String {
    let this = std::env::current_exe().unwrap_or_else(|_| "FILE".into());
    format!("sudo setcap {capabilities}+ep {}", this.display())
}

/// The command that takes them from it.
pub fn unset_capabilities() -> String {
    let this = std::env::current_exe().unwrap_or_else(|_| "FILE".into());
    format!("sudo setcap -r {}", this.display())
}

/// The command that lets a shell, and what it starts, lock as much memory as it wants.
pub const UNLIMITED_MEMLOCK: &str = "ulimit -l unlimited";

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever reads them pastes them into a shell.
    #[test]
    fn each_change_is_a_command_and_has_one_that_undoes_it() {
        let interface = || "eth1".to_owned();
        let offload = |namespace| Change::Offload {
            interface: interface(),
            namespace,
            offload: Offload::TxChecksum,
            on: false,
        };
        let table = [
            (
                Change::Up { interface: interface() },
                "sudo ip link set eth1 up",
                Some("sudo ip link set eth1 down"),
            ),
            (
                Change::Mtu { interface: interface(), mtu: 1500, was: Some(9000) },
                "sudo ip link set eth1 mtu 1500",
                Some("sudo ip link set eth1 mtu 9000"),
            ),
            (offload(None), "sudo ethtool -K eth1 tx off", Some("sudo ethtool -K eth1 tx on")),
            (
                offload(Some(Namespace::Named("web".to_owned()))),
                "sudo ip netns exec web ethtool -K eth1 tx off",
                Some("sudo ip netns exec web ethtool -K eth1 tx on"),
            ),
            (
                Change::Queues { interface: interface(), combined: 4, was: 1 },
                "sudo ethtool -L eth1 combined 4",
                Some("sudo ethtool -L eth1 combined 1"),
            ),
            (
                Change::Steer { interface: interface(), start: 2, equal: 1 },
                "sudo ethtool -X eth1 start 2 equal 1",
                Some("sudo ethtool -X eth1 default"),
            ),
            (
                Change::Sysctl { name: "net.core.bpf_jit_enable", value: 1, was: 0 },
                "sudo sysctl -w net.core.bpf_jit_enable=1",
                Some("sudo sysctl -w net.core.bpf_jit_enable=0"),
            ),
            (
                Change::MountBpffs,
                "sudo mount -t bpf -o mode=0700 bpf /sys/fs/bpf",
                Some("sudo umount /sys/fs/bpf"),
            ),
            (
                Change::Detach { interface: interface(), generic: true },
                "sudo ip link set dev eth1 xdpgeneric off",
                None,
            ),
        ];
        for (change, command, undo) in table {
            assert_eq!((change.command().as_str(), change.undo().as_deref()), (command, undo));
        }
    }

    /// Whatever somebody called his interface or namespace, the shell of who pastes the command sees one word.
    #[test]
    fn a_hostile_name_is_one_word_of_the_command() {
        for name in ["$(reboot)", ";reboot;", "a b", "a'b", "`id`", "a\nb", "", "eth1"] {
            let change = Change::Offload {
                interface: name.to_owned(),
                namespace: Some(Namespace::Named(name.to_owned())),
                offload: Offload::TxChecksum,
                on: false,
            };
            let words = shlex::split(&change.command()).expect("a command");
            let expected = ["sudo", "ip", "netns", "exec", name, "ethtool", "-K", name, "tx", "off"];
            assert_eq!(words, expected);
            for change in [
                Change::Up { interface: name.to_owned() },
                Change::Mtu { interface: name.to_owned(), mtu: 1500, was: Some(9000) },
                Change::Queues { interface: name.to_owned(), combined: 2, was: 1 },
                Change::Steer { interface: name.to_owned(), start: 1, equal: 2 },
                Change::Detach { interface: name.to_owned(), generic: false },
            ] {
                for command in [Some(change.command()), change.undo()].into_iter().flatten() {
                    let words = shlex::split(&command).expect("a command");
                    assert!(words.iter().any(|word| word == name), "{command}");
                }
            }
        }
    }

    #[test]
    fn parameters_are_files() {
        assert_eq!(sysctl_path("net.core.bpf_jit_enable"), "/proc/sys/net/core/bpf_jit_enable");
    }
}
