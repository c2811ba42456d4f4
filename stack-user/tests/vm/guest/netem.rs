//! A worse wire: the kernel's `netem` at the peer's end, for what it sends and, by way of an `ifb`, for what it gets.

use super::{Guest, PEER_NAMESPACE, PEER_NIC, setup};

/// Frames in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the peer to us.
    ToUs,
    /// From us to the peer.
    ToPeer,
}

/// Where frames to the peer wait before it gets them.
const IFB: &str = "ifb0";

impl Guest {
    /// Puts netem on the wire: `delay 10ms 2ms loss 2%`, `rate 20mbit limit 100`, as `tc` has it. Taken away at the end of
    /// the scenario.
    #[track_caller]
    pub(crate) fn netem(&self, direction: Direction, what: &str) {
        match direction {
            Direction::ToUs => tc(&format!("qdisc replace dev {PEER_NIC} root netem {what}")),
            Direction::ToPeer => {
                if setup::succeeds(&format!("-n {PEER_NAMESPACE} link show {IFB}")) {
                    return tc(&format!("qdisc replace dev {IFB} root netem {what}"));
                }
                setup::run("/usr/sbin/ip", &format!("-n {PEER_NAMESPACE} link add {IFB} type ifb"));
                setup::run("/usr/sbin/ip", &format!("-n {PEER_NAMESPACE} link set {IFB} up"));
                tc(&format!("qdisc add dev {PEER_NIC} handle ffff: ingress"));
                tc(&format!(
                    "filter add dev {PEER_NIC} parent ffff: protocol all matchall action mirred egress redirect dev {IFB}"
                ));
                tc(&format!("qdisc add dev {IFB} root netem {what}"));
            }
        }
    }
}

/// Makes the wire good again.
pub(super) fn clear() {
    let quietly = |program: &str, words: &str| {
        let words = format!("netns exec {PEER_NAMESPACE} {program} {words}");
        let _ = std::process::Command::new("/usr/sbin/ip").args(words.split_whitespace()).output();
    };
    quietly("/usr/sbin/tc", &format!("qdisc del dev {PEER_NIC} root"));
    quietly("/usr/sbin/tc", &format!("qdisc del dev {PEER_NIC} ingress"));
    quietly("/usr/sbin/ip", &format!("link del {IFB}"));
}

#[track_caller]
fn tc(words: &str) {
    setup::run("/usr/sbin/ip", &format!("netns exec {PEER_NAMESPACE} /usr/sbin/tc {words}"));
}
