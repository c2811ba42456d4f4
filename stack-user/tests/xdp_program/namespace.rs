//! A network of two interfaces that nobody else sees, and that is gone with the thread that made it.

use std::{process::Command, thread};

use nix::sched::{CloneFlags, unshare};

/// Where programs are attached.
pub(crate) const HERE: &str = "xs-ebpf0";
/// Its peer.
pub(crate) const PEER: &str = "xs-ebpf1";

/// Runs a test in a thread with namespaces of its own: a network with a veth pair, and mounts with a BPF file system.
/// Skips it if that is not allowed.
pub(crate) fn test_in_namespace(name: &str, test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIP xdp_program::{name}: attaching XDP programs needs root");
        return;
    }
    let name = name.to_owned();
    let thread = thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS) {
            eprintln!("SKIP xdp_program::{name}: no namespaces here: {error}");
            return;
        }
        run("mount", &["--make-rprivate", "/"]);
        run("mount", &["-t", "bpf", "bpf", "/sys/fs/bpf"]);
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", HERE, "type", "veth", "peer", "name", PEER]);
        for interface in [HERE, PEER] {
            run("ip", &["link", "set", interface, "addrgenmode", "none"]);
            run("ip", &["link", "set", interface, "up"]);
        }
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command in this thread's namespaces and returns what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether any XDP program is attached to an interface.
pub(crate) fn has_program(interface: &str) -> bool {
    run("ip", &["link", "show", interface]).contains("xdp")
}
