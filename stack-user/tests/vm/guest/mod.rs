//! The guest as a scenario finds it: a card under test, and a peer on the same wire that the guest's kernel has.

// What a scenario may want is more than today's scenarios use.
#![allow(dead_code, unused_imports)]

mod counters;
mod netem;
mod relay;
mod server;
mod setup;
mod xstack;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

pub(crate) use counters::{Counters, Story};
pub(crate) use netem::Direction;
pub(crate) use relay::Relay;
pub(crate) use server::{Server, content, fetch};
pub(crate) use xstack::{XSTACK, Xstack};

use crate::process::Running;

/// The card under test.
pub(crate) const NIC: &str = "xs0";
/// Its peer, in the namespace [`PEER_NAMESPACE`].
pub(crate) const PEER_NIC: &str = "peer0";
/// Where the peer is.
pub(crate) const PEER_NAMESPACE: &str = "xs-peer";
/// The address that xstack claims.
pub(crate) const OURS: &str = "10.77.0.80";
/// The kernel's own address on the card under test.
pub(crate) const HOST: &str = "10.77.0.2";
/// The peer's.
pub(crate) const PEER: &str = "10.77.0.1";
/// The XDP program's objects.
pub(crate) const OBJECTS: &str = "/usr/lib/xstack";

/// What a command may take. Emulated, on a machine that is busy, everything is slow; a hang is found all the same.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The card that this guest is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nic {
    Virtio,
    Igb,
}

impl Nic {
    /// The first kernel on which its driver has been seen with zero-copy.
    fn zero_copy_since(self) -> (u32, u32) {
        match self {
            Self::Virtio | Self::Igb => (6, 16),
        }
    }
}

/// A scenario's hold on the guest. What it changed is undone when the next one begins.
pub(crate) struct Guest {
    scenario: &'static str,
    nic: Nic,
    queues: u32,
}

impl Guest {
    /// The guest as its kernel sets it up, or None and a SKIP line where this is not one.
    #[track_caller]
    pub(crate) fn new(scenario: &'static str) -> Option<Self> {
        let nic = match std::env::var("XSTACK_VM_NIC").as_deref() {
            Ok("virtio") => Nic::Virtio,
            Ok("igb") => Nic::Igb,
            _ => {
                println!("SKIP {scenario}: this is no guest of `cargo xtask vm-test`");
                return None;
            }
        };
        let queues = std::env::var("XSTACK_VM_QUEUES").unwrap().parse().unwrap();
        setup::restore(queues);
        Some(Self { scenario, nic, queues })
    }

    /// The same for what a short run shows on virtio-net only: binding a queue of igb takes seconds each time, and emulating it is
    /// slow. It is for what depends on our side of the rings more than on the driver's.
    #[track_caller]
    pub(crate) fn long_on_igb(scenario: &'static str) -> Option<Self> {
        if sized(true, false) && std::env::var("XSTACK_VM_NIC").is_ok_and(|nic| nic == "igb") {
            println!("SKIP {scenario}: a short run has it on virtio-net");
            return None;
        }
        Self::new(scenario)
    }

    /// Says why this scenario can't be in this guest. The scenario then returns.
    pub(crate) fn skip(&self, reason: &str) {
        println!("SKIP {}: {reason}", self.scenario);
    }

    /// The card under test.
    pub(crate) fn nic(&self) -> Nic {
        self.nic
    }

    /// How many queues the card has, all of them in use when a scenario begins.
    pub(crate) fn queues(&self) -> u32 {
        self.queues
    }

    /// The kernel's version: 6.12, 7.3.
    pub(crate) fn kernel(&self) -> (u32, u32) {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-', '+']).map(|number| number.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// Whether this driver, in this kernel, must be able to bind zero-copy.
    pub(crate) fn has_zero_copy(&self) -> bool {
        self.kernel() >= self.nic.zero_copy_since()
    }

    /// False, with a SKIP line, where there is no zero-copy.
    pub(crate) fn require_zero_copy(&self) -> bool {
        if !self.has_zero_copy() {
            let (major, minor) = self.kernel();
            self.skip(&format!("{:?} has no zero-copy in Linux {major}.{minor}", self.nic));
        }
        self.has_zero_copy()
    }

    /// False, with a SKIP line, where a program is not in the guest because the machine that booted it lacks it.
    pub(crate) fn require_program(&self, name: &str) -> bool {
        let is_there = Path::new("/usr/sbin").join(name).exists();
        if !is_there {
            self.skip(&format!("{name} is not installed"));
        }
        is_there
    }

    /// A program on the peer's side of the wire.
    pub(crate) fn peer(&self, program: &str) -> Command {
        let mut command = Command::new("/usr/sbin/ip");
        command.args(["netns", "exec", PEER_NAMESPACE, program]).stdin(Stdio::null());
        command
    }

    /// Runs `work` in a thread on the peer's side: sockets made there are the peer's, also later.
    #[track_caller]
    pub(crate) fn on_peer<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        setup::in_namespace(PEER_NAMESPACE, work)
    }

    /// Has the kernel do something on this side of the wire, by words: `link set xs0 down`.
    #[track_caller]
    pub(crate) fn ip(&self, words: &str) -> String {
        setup::run("/usr/sbin/ip", words)
    }

    /// The same by `ethtool`: `-L xs0 combined 2`.
    #[track_caller]
    pub(crate) fn ethtool(&self, words: &str) -> String {
        setup::run("/usr/sbin/ethtool", words)
    }

    /// Whether an XDP program is attached to the card under test.
    pub(crate) fn has_program(&self) -> bool {
        self.ip(&format!("link show {NIC}")).contains("prog/xdp")
    }

    /// A server on the peer's port 80, in this process, over the kernel's TCP.
    #[track_caller]
    pub(crate) fn serve(&self) -> Server {
        self.on_peer(|| Server::start(PEER, 80))
    }

    /// A file of this scenario that is brought back: `target/vm/runs/…/results/SCENARIO/NAME`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let directory = Path::new("/results").join(self.scenario);
        fs::create_dir_all(&directory).unwrap();
        directory.join(name)
    }

    /// Records what the peer sees, into a file that is brought back, until the value is dropped.
    #[track_caller]
    pub(crate) fn capture(&self, name: &str) -> Option<Running> {
        if !Path::new("/usr/sbin/tcpdump").exists() {
            return None;
        }
        let mut tcpdump = self.peer("/usr/sbin/tcpdump");
        tcpdump.args(["-n", "-U", "-s", "128", "-i", PEER_NIC, "-w"]).arg(self.file(name));
        let capture = Running::start(tcpdump.stdout(Stdio::null()).stderr(Stdio::null()));
        // The file is there when it listens.
        self.wait_until("tcpdump listens", || self.file(name).metadata().is_ok_and(|file| file.len() > 0));
        Some(capture)
    }

    /// Waits until the card has a carrier: binding its queues and giving them back reset the link of some.
    #[track_caller]
    pub(crate) fn wait_for_carrier(&self) {
        let carrier = format!("/sys/class/net/{NIC}/carrier");
        self.wait_until("there is a carrier", || {
            std::fs::read_to_string(&carrier).is_ok_and(|up| up.trim() == "1")
        });
    }

    /// Waits until something has happened.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, mut happened: impl FnMut() -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !happened() {
            assert!(Instant::now() < deadline, "waited {LIMIT:?} until {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// `short` in a short run, `long` in a long one.
pub(crate) fn sized<T>(short: T, long: T) -> T {
    if std::env::var("XSTACK_VM_LONG").is_ok_and(|value| value == "1") { long } else { short }
}
