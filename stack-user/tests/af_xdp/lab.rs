//! A namespace with a veth pair in it, removed at the end.

use std::{fs::File, process::Command, thread};

use nix::sched::{CloneFlags, setns};

/// One end of the pair.
pub(crate) const ONE: &str = "xs-dev0";
/// The other end.
pub(crate) const OTHER: &str = "xs-dev1";

/// A network namespace of its own.
pub(crate) struct Lab {
    name: String,
}

impl Lab {
    /// A namespace with a veth pair of that many queues, or `None`, with the reason on stderr, if we may not make one.
    pub(crate) fn new(name: &str, queues: u32) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIP af_xdp::{name}: network namespaces and AF_XDP need root");
            return None;
        }
        let lab = Self { name: format!("xs-dev-{name}") };
        // What an interrupted run left.
        let _ = Command::new("ip").args(["netns", "del", &lab.name]).output();
        let made = Command::new("ip").args(["netns", "add", &lab.name]).output();
        if !made.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIP af_xdp::{name}: `ip netns add` does not work here");
            return None;
        }
        lab.inside(|| {
            let queues = queues.to_string();
            let of_queues = ["numrxqueues", &queues, "numtxqueues", &queues];
            let pair = ["link", "add", ONE, "type", "veth", "peer", "name", OTHER];
            ip(&[&pair[..3], &of_queues, &pair[3..], &of_queues].concat());
            for end in [ONE, OTHER] {
                ip(&["link", "set", end, "addrgenmode", "none"]);
                ip(&["link", "set", end, "up"]);
            }
        });
        Some(lab)
    }

    /// Runs `work` in a thread that is in the namespace.
    pub(crate) fn inside(&self, work: impl FnOnce() + Send) {
        let namespace = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        let result = thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("entering the namespace");
                work();
            });
            entered.join()
        });
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// Runs `ip` in this thread's namespace.
pub(crate) fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).output().expect("running ip");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether an XDP program is attached to the interface.
pub(crate) fn has_program(interface: &str) -> bool {
    ip(&["link", "show", interface]).contains("xdp")
}
