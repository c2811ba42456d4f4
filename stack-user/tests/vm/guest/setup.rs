//! Bringing the guest's network to where every scenario begins.

use std::{fs, process::Command, thread};

use nix::sched::{CloneFlags, setns};

use super::{HOST, NIC, PEER, PEER_NAMESPACE, PEER_NIC};

/// As QEMU gave them out.
const NIC_MAC: &str = "52:54:00:12:34:01";
const PEER_MAC: &str = "52:54:00:12:34:02";

/// Undoes what a scenario may have changed, and is the first set-up too.
pub(super) fn restore(queues: u32) {
    if !fs::exists(format!("/sys/class/net/{NIC}")).unwrap() {
        name_the_cards();
    }
    // A program that a failed scenario left, pinned or by a process that is being killed.
    let _ = Command::new("/usr/sbin/ip").args(["link", "set", NIC, "xdp", "off"]).output();
    for (namespace, card, address) in [(None, NIC, HOST), (Some(PEER_NAMESPACE), PEER_NIC, PEER)] {
        let ip = |words: &str| match namespace {
            Some(namespace) => run("/usr/sbin/ip", &format!("-n {namespace} {words}")),
            None => run("/usr/sbin/ip", words),
        };
        ip(&format!("link set {card} down"));
        if namespace.is_none() {
            set_queues(queues);
        }
        ip(&format!("link set {card} mtu 1500 addrgenmode none"));
        ip(&format!("address flush dev {card}"));
        ip(&format!("address add {address}/24 dev {card}"));
        ip(&format!("link set {card} up"));
        ip("neigh flush all");
    }
    super::netem::clear();
}

/// As many as it was booted with: virtio-net starts with one for each CPU at most.
fn set_queues(queues: u32) {
    if queues > 1 {
        // It fails if there are so many already.
        let set = ["-L", NIC, "combined", &queues.to_string()];
        let _ = Command::new("/usr/sbin/ethtool").args(set).output();
    }
}

/// The card under test becomes [`NIC`]; its peer gets a namespace, so that the kernel does not shorten the way.
fn name_the_cards() {
    run("/usr/sbin/ip", &format!("netns add {PEER_NAMESPACE}"));
    run("/usr/sbin/ip", &format!("link set {} name {NIC}", card_of(NIC_MAC)));
    run("/usr/sbin/ip", &format!("link set {} netns {PEER_NAMESPACE} name {PEER_NIC}", card_of(PEER_MAC)));
    run("/usr/sbin/ip", &format!("-n {PEER_NAMESPACE} link set lo up"));
}

fn card_of(mac: &str) -> String {
    let cards = fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap());
    let mut matching = cards.filter(|card| {
        fs::read_to_string(card.path().join("address")).is_ok_and(|address| address.trim() == mac)
    });
    let card =
        matching.next().unwrap_or_else(|| panic!("no card has the address {mac}: its driver is not there"));
    card.file_name().into_string().unwrap()
}

/// Runs a program with these words, and gives what it prints; fails the test if the program fails.
#[track_caller]
pub(super) fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split_whitespace()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {}: {}", output.status, stderr.trim());
    String::from_utf8(output.stdout).unwrap()
}

/// Whether `ip` can do something.
pub(super) fn succeeds(words: &str) -> bool {
    let output = Command::new("/usr/sbin/ip").args(words.split_whitespace()).output();
    output.is_ok_and(|output| output.status.success())
}

/// Runs `work` in a thread that is in a network namespace.
#[track_caller]
pub(super) fn in_namespace<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    let namespace = fs::File::open(format!("/run/netns/{namespace}")).unwrap();
    let result = thread::scope(|scope| {
        let entered = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        entered.join()
    });
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
