//! Whether an interface is one that frames can come and go on, and whether another one would be better.

use crate::{
    cli::doctor::{
        facts::Interface,
        finding::{Apply, Finding, Fix},
    },
    device::{interface::Details, remedy::Change},
};

/// Whether a stack could run on it at all, were it up.
pub(super) fn is_usable(details: &Details) -> bool {
    details.is_ethernet && !details.is_loopback
}

/// Whether it is one for which [`kind`] says what is to be said of its driver.
pub(super) fn stands_on_others(details: &Details) -> bool {
    kind(details).is_some()
}

pub(super) fn judge(interface: &Interface) -> Vec<Finding> {
    let details = &interface.details;
    if !is_usable(details) {
        return vec![unusable(details)];
    }
    [Some(state(details)), kind(details), master(details), address(details)].into_iter().flatten().collect()
}

fn unusable(details: &Details) -> Finding {
    const CHECK: &str = "kind";
    let name = &details.name;
    if details.is_loopback {
        return Finding::problem(
            CHECK,
            format!("{name} is the loopback"),
            "it has no Ethernet frames and no neighbours: an address that is claimed there would reach nobody",
        )
        .advise("programs of this host reach the stack by `xstack forward` and `xstack proxy`");
    }
    let what = details.kind.as_deref().unwrap_or("no Ethernet interface");
    Finding::problem(
        CHECK,
        format!("{name} has no Ethernet frames ({what})"),
        "ARP and AF_XDP need an Ethernet interface",
    )
}

fn state(details: &Details) -> Finding {
    const CHECK: &str = "state";
    let name = &details.name;
    if !details.is_up {
        let change = Change::Up { interface: name.clone() };
        return Finding::problem(CHECK, format!("{name} is down"), "nothing comes or goes")
            .fixed_by(Fix::change(change, Apply::Disruptive));
    }
    if !details.has_carrier {
        let at_the_peer = details.peer.as_ref().and_then(|peer| peer.name.clone().filter(|_| peer.is_here));
        let finding = Finding::problem(CHECK, format!("{name} has no carrier"), "nobody is at the other end");
        return match at_the_peer {
            Some(peer) => finding.fixed_by(Fix::change(Change::Up { interface: peer }, Apply::Disruptive)),
            None => finding.advise("plug in the cable, or bring the other end up"),
        };
    }
    Finding::ok(CHECK, format!("{name} is up and has a carrier"))
}

/// Interfaces that stand on others: XDP runs there after everything that the lower ones do.
fn kind(details: &Details) -> Option<Finding> {
    const CHECK: &str = "kind";
    let name = &details.name;
    let kind = details.kind.as_deref()?;
    let lower = details.lower.as_ref().and_then(|lower| lower.name.as_deref());
    Some(match (kind, lower) {
        ("vlan", Some(lower)) => {
            let vlan = details.lower.as_ref().and_then(|lower| lower.vlan);
            let id = vlan.map_or_else(|| "ID".to_owned(), |id| id.to_string());
            Finding::warning(
                CHECK,
                format!("{name} is a VLAN on {lower}"),
                "a VLAN interface has no native XDP, so each frame goes through the kernel first, and several may have been \
                 put together by then; on the interface below it is native, and xstack speaks the tags itself",
            )
            .advise(format!("use `--interface {lower} --vlan {id}` and an address with its prefix length"))
            .fixed_by(Fix::command(format!("xstack doctor --vlan {id} {lower}")))
        }
        ("macvlan" | "macvtap" | "ipvlan" | "macsec", Some(lower)) => Finding::warning(
            CHECK,
            format!("{name} is a {kind} on {lower}"),
            "it has no native XDP, so each frame goes through the kernel first; on the interface below it is native",
        )
        .advise(format!("use `--interface {lower}`"))
        .fixed_by(Fix::command(format!("xstack doctor {lower}"))),
        ("bridge", _) => Finding::warning(
            CHECK,
            format!("{name} is a bridge{}", members(details)),
            "a bridge has no native XDP, so each frame goes through the kernel first; a claim here reaches hosts behind all of \
             its ports, a claim on one port only those behind that one",
        ),
        ("bond" | "team", _) => Finding::warning(
            CHECK,
            format!("{name} is a {kind}{}", members(details)),
            "frames are copied, whatever its cards can do: no zero-copy through a bond; on one of the cards alone the switch \
             may send frames to another",
        ),
        _ => return None,
    })
}

fn members(details: &Details) -> String {
    if details.members.is_empty() { String::new() } else { format!(" of {}", details.members.join(", ")) }
}

fn master(details: &Details) -> Option<Finding> {
    let (name, master) = (&details.name, details.master.as_deref()?);
    Some(
        Finding::note(
            "master",
            format!("{name} is a port of {master}"),
            "the XDP program sees its frames before the bridge or bond does; our own frames leave by this port only, and hosts \
             behind others do not see them",
        )
        .advise(format!("for all ports use `--interface {master}`, in generic mode")),
    )
}

/// Without an address of the kernel's nothing says which network it is.
fn address(details: &Details) -> Option<Finding> {
    const CHECK: &str = "address";
    let name = &details.name;
    let first = details.networks.iter().find(|network| network.address.is_ipv4());
    Some(match first {
        Some(network) => Finding::ok(CHECK, format!("{name} is in the network of {network}")),
        None => Finding::note(
            CHECK,
            format!("{name} has no IPv4 address"),
            "a free address can't be chosen where no network is known",
        )
        .advise("give --address with a prefix length, as in 192.0.2.10/24, and --gateway for what is beyond"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{
            finding::Severity,
            judge::testing::{find, interface},
        },
        device::interface::{Lower, PeerDetails},
    };

    #[test]
    fn an_interface_as_it_should_be_is_fine() {
        let all = judge(&interface("eth1"));
        assert!(all.iter().all(|finding| finding.severity == Severity::Ok), "{all:#?}");
    }

    #[test]
    fn down_and_without_carrier_are_told_apart() {
        let mut eth1 = interface("eth1");
        eth1.details.has_carrier = false;
        assert!(find(judge(&eth1), "state").advice.expect("advice").contains("cable"));
        eth1.details.is_up = false;
        let down = find(judge(&eth1), "state");
        let fix = down.fix.expect("a fix");
        assert_eq!((down.severity, fix.apply), (Severity::Problem, Apply::Disruptive));
        assert_eq!(fix.command, "sudo ip link set eth1 up");
    }

    #[test]
    fn the_other_end_of_a_pair_is_named() {
        let mut veth = interface("xs-a");
        veth.details.has_carrier = false;
        let peer = PeerDetails {
            index: 7,
            name: Some("xs-b".to_owned()),
            namespace: None,
            is_here: true,
            features: None,
        };
        veth.details.peer = Some(peer);
        let fix = find(judge(&veth), "state").fix.expect("a fix");
        assert_eq!(fix.command, "sudo ip link set xs-b up");
    }

    #[test]
    fn a_vlan_is_better_spoken_on_the_interface_below() {
        let mut vlan = interface("eth1.7");
        vlan.details.kind = Some("vlan".to_owned());
        vlan.details.lower = Some(Lower { name: Some("eth1".to_owned()), driver: None, vlan: Some(7) });
        let warning = find(judge(&vlan), "kind");
        assert_eq!(warning.severity, Severity::Warning);
        assert!(warning.advice.expect("advice").contains("--interface eth1 --vlan 7"));
        assert_eq!(warning.fix.expect("a command").command, "xstack doctor --vlan 7 eth1");
    }

    #[test]
    fn bridges_and_their_ports_are_told() {
        let mut bridge = interface("br0");
        bridge.details.kind = Some("bridge".to_owned());
        bridge.details.members = vec!["eth1".to_owned(), "eth2".to_owned()];
        assert!(find(judge(&bridge), "kind").what.contains("eth1, eth2"));
        let mut port = interface("eth1");
        port.details.master = Some("br0".to_owned());
        assert_eq!(find(judge(&port), "master").severity, Severity::Note);
    }

    #[test]
    fn what_has_no_frames_is_a_problem_and_the_only_one() {
        let mut lo = interface("lo");
        (lo.details.is_loopback, lo.details.is_ethernet) = (true, false);
        let all = judge(&lo);
        assert_eq!((all.len(), all[0].severity), (1, Severity::Problem));
    }
}
