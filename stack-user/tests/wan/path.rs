//! The namespaces and links of a path, removed at the end.

use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};
use stack_user::device::fault::FaultSpec;

use super::relay::Relay;

/// One end of every path: each has namespaces of its own, so that all may have the same names and addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) interface: &'static str,
    /// The kernel's address.
    pub(crate) kernel: IpAddr,
    /// The one that our stack claims on the same interface.
    pub(crate) ours: IpAddr,
}

const fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 78, 0, last))
}

/// Who connects.
pub(crate) const CLIENT: End = End { interface: "xs-client", kernel: address(1), ours: address(101) };
/// Who listens.
pub(crate) const SERVER: End = End { interface: "xs-server", kernel: address(2), ours: address(102) };

/// Two hosts and the way between them.
pub(crate) struct Path {
    // Dropped first: it uses the links.
    relay: Option<Relay>,
    client: Namespace,
    /// None, where the hosts are next to each other.
    middle: Option<Namespace>,
    server: Namespace,
}

impl Path {
    /// A path with these faults in each direction: `tx` is from the client to the server. `None`, with the reason
    /// printed, if there can't be one here.
    pub(crate) fn new(test: &str, faults: FaultSpec) -> Option<Self> {
        let [client, middle, server] = namespaces(test, ["client", "relay", "server"])?;
        link(&client, CLIENT, &middle, "xs-west");
        link(&server, SERVER, &middle, "xs-east");
        let relay = middle.inside(|| Relay::start("xs-west", "xs-east", faults));
        Some(Self { relay: Some(relay), client, middle: Some(middle), server })
    }

    /// Two hosts next to each other, on a link of that MTU which does no harm. `None` as above.
    pub(crate) fn direct(test: &str, mtu: u32) -> Option<Self> {
        let [client, server] = namespaces(test, ["client", "server"])?;
        let (one, other) = (CLIENT.interface, SERVER.interface);
        client.run(&format!("ip link add {one} type veth peer name {other} netns {}", server.0));
        for (host, end) in [(&client, CLIENT), (&server, SERVER)] {
            host.run(&format!("ip link set {} mtu {mtu}", end.interface));
            bring_up(host, end);
        }
        Some(Self { relay: None, client, middle: None, server })
    }

    /// Where the client runs.
    pub(crate) fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where the server runs.
    pub(crate) fn server(&self) -> &Namespace {
        &self.server
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        drop(self.relay.take());
        for namespace in [Some(&self.client), self.middle.as_ref(), Some(&self.server)].into_iter().flatten()
        {
            let _ = Command::new("ip").args(["netns", "del", &namespace.0]).output();
        }
    }
}

/// Namespaces of a path of its own, by their roles.
fn namespaces<const N: usize>(test: &str, roles: [&str; N]) -> Option<[Namespace; N]> {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIP {test}: network namespaces and AF_XDP need root");
        return None;
    }
    for program in ["ip", "ethtool"] {
        if xtask::process::find_program(program).is_none() {
            println!("SKIP {test}: {program} is not installed");
            return None;
        }
    }
    remove_leftovers();
    static PATHS: AtomicU32 = AtomicU32::new(0);
    let number = PATHS.fetch_add(1, Ordering::Relaxed);
    let named = roles.map(|role| Namespace::new(&format!("{PREFIX}{}-{number}-{role}", std::process::id())));
    if named.iter().any(Option::is_none) {
        println!("SKIP {test}: `ip netns add` does not work here");
        return None;
    }
    Some(named.map(|namespace| namespace.expect("looked at just now")))
}

/// What a path is called before its maker's process id.
const PREFIX: &str = "xs-wan";

/// Removes the namespaces of processes that were killed before they could.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

/// A named network namespace.
pub(crate) struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Option<Self> {
        let made = Command::new("ip").args(["netns", "add", name]).output();
        made.is_ok_and(|output| output.status.success()).then(|| Self(name.to_owned()))
    }

    /// Runs `work` in a thread that is in the namespace.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.0)).expect("the namespace");
        let result = thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                work()
            });
            entered.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    fn run(&self, words: &str) {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0]).args(words.split_whitespace());
        let output = command.output().expect("running ip");
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Joins a host to the relay.
fn link(host: &Namespace, end: End, relay: &Namespace, name: &str) {
    let interface = end.interface;
    relay.run(&format!("ip link add {name} type veth peer name {interface} netns {}", host.0));
    relay.run(&format!("ip link set {name} addrgenmode none"));
    relay.run(&format!("ip link set {name} up"));
    bring_up(host, end);
}

fn bring_up(host: &Namespace, end: End) {
    let interface = end.interface;
    // A veth leaves checksums to whoever sends the frame on, and there is no NIC that could.
    host.run(&format!("ethtool -K {interface} tx off"));
    host.run(&format!("ip link set {interface} addrgenmode none"));
    host.run(&format!("ip address add {}/24 dev {interface}", end.kernel));
    host.run(&format!("ip link set {interface} up"));
    host.run("ip link set lo up");
}
