//! What drivers do to frames before an XDP program sees them, and the other end of a pair before they come.

use super::card;
use crate::{
    cli::doctor::{
        facts::{Facts, Interface},
        finding::{Apply, Finding, Fix},
    },
    device::{
        interface::{self, PeerDetails, features::Offload},
        remedy::Change,
    },
};

pub(super) fn judge(facts: &Facts, interface: &Interface) -> Vec<Finding> {
    let tags = facts.wish.vlan.and_then(|vlan| tags(interface, vlan));
    let findings = [checksums(interface), lro(interface), hardware_gro(interface), tags];
    findings.into_iter().flatten().chain(gro(facts, interface)).collect()
}

/// A pair hands over what is in the sender's memory, checksums that nobody has finished included.
fn checksums(interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "checksums";
    let name = &interface.details.name;
    let peer = interface.details.peer.as_ref()?;
    let other = || peer.name.clone().unwrap_or_else(|| "PEER".to_owned());
    let is_on = peer.features.as_ref().map(|features| features.is_on(Offload::TxChecksum));
    let why = "TCP and UDP arrive with wrong checksums, and connections hang";
    Some(match is_on {
        Some(false) => {
            Finding::ok(CHECK, format!("{}, the other end of {name}, finishes checksums", other()))
        }
        Some(true) => {
            let fix = Fix::change(interface::finish_checksums(&other(), peer.namespace.clone()), Apply::Safe);
            let there = whereabouts(peer);
            Finding::warning(
                CHECK,
                format!("{}, the other end of {name}{there}, leaves checksums unfinished", other()),
                why,
            )
            .fixed_by(fix)
        }
        None => Finding::warning(
            CHECK,
            format!(
                "the other end of {name} may leave checksums unfinished: it is number {} elsewhere",
                peer.index
            ),
            why,
        )
        .advise(format!(
            "PEER is the interface that `ip link` lists as number {} in its network namespace",
            peer.index
        ))
        .fixed_by(Fix {
            change: None,
            ..Fix::change(interface::finish_checksums("PEER", None), Apply::Manual)
        }),
    })
}

fn whereabouts(peer: &PeerDetails) -> String {
    use crate::device::interface::namespace::Namespace;
    match &peer.namespace {
        None => String::new(),
        Some(Namespace::Named(namespace)) => format!(" in the network namespace {namespace}"),
        Some(Namespace::Process(pid)) => format!(" in the network namespace of process {pid}"),
    }
}

fn switch_off(interface: &Interface, offload: Offload) -> Change {
    Change::Offload { interface: interface.details.name.clone(), namespace: None, offload, on: false }
}

fn lro(interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "lro";
    let lro = interface.details.features.as_ref()?.offload(Offload::Lro)?;
    if !lro.on {
        return Some(Finding::ok(CHECK, "the driver does not put segments together (LRO)"));
    }
    let finding = Finding::warning(
        CHECK,
        "the driver puts received segments together (LRO)",
        "what it makes of them is no frame that was sent, and may be larger than any chunk; many drivers refuse native XDP \
         until it is off",
    );
    Some(if lro.fixed {
        finding
    } else {
        // Some drivers reset the card for it.
        finding.fixed_by(Fix::change(switch_off(interface, Offload::Lro), Apply::Disruptive))
    })
}

fn hardware_gro(interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "hardware_gro";
    // A virtio device is known to stop, or is told as one that has no native XDP.
    if interface.virtio.is_some() {
        return None;
    }
    let gro = interface.details.features.as_ref()?.offload(Offload::HardwareGro).filter(|gro| gro.on)?;
    let finding = Finding::note(
        CHECK,
        "the hardware puts received segments together (rx-gro-hw)",
        "the kernel switches it off with an XDP program, where the card or the hypervisor lets it; else attaching is refused",
    );
    Some(if gro.fixed {
        finding
    } else {
        finding.fixed_by(Fix::change(switch_off(interface, Offload::HardwareGro), Apply::Disruptive))
    })
}

/// The kernel's own: where a program runs in the driver it comes later, and where the program is in the generic path of the
/// same interface the kernel leaves it out. What stands on another interface gets what that one has put together.
fn gro<'a>(facts: &Facts, interface: &'a Interface) -> impl Iterator<Item = Finding> + use<'a> {
    let is_generic = card::is_generic_only(&facts.host, interface);
    let name = &interface.details.name;
    let below = interface.details.gro_below.iter().filter(move |_| is_generic);
    below.map(move |below| {
        let change =
            Change::Offload { interface: below.clone(), namespace: None, offload: Offload::Gro, on: false };
        Finding::warning(
            "gro",
            format!("{name} gets what {below} has put together (GRO)"),
            "several segments arrive as one that may be larger than any chunk, and is lost",
        )
        .fixed_by(Fix::change(change, Apply::Disruptive))
    })
}

/// `--vlan`: the XDP program tells frames by the tag that is in them.
fn tags(interface: &Interface, vlan: u16) -> Option<Finding> {
    const CHECK: &str = "vlan_tags";
    let name = &interface.details.name;
    let rx = interface.details.features.as_ref()?.offload(Offload::RxVlan)?;
    let peer = interface.details.peer.as_ref();
    let why = "the XDP program does not see the tag, so that no frame of the VLAN is ours";
    if rx.on {
        let finding =
            Finding::warning(CHECK, format!("{name} takes tags off, and VLAN {vlan} is asked for"), why);
        // A pair only notes it; cards may reset their queues.
        let apply = if peer.is_some() { Apply::Safe } else { Apply::Disruptive };
        return Some(match rx.fixed {
            true => finding,
            false => finding.fixed_by(Fix::change(interface::keep_vlan_tags(name), apply)),
        });
    }
    if let Some(peer) = peer
        && let (Some(other), Some(features)) = (&peer.name, &peer.features)
        && features.is_on(Offload::TxVlan)
    {
        let there = whereabouts(peer);
        let change = Change::Offload {
            interface: other.clone(),
            namespace: peer.namespace.clone(),
            offload: Offload::TxVlan,
            on: false,
        };
        return Some(
            Finding::warning(
                CHECK,
                format!("{other}, the other end of {name}{there}, keeps tags beside its frames"),
                why,
            )
            .fixed_by(Fix::change(change, Apply::Safe)),
        );
    }
    Some(Finding::ok(CHECK, format!("{name} leaves tags in its frames")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::doctor::{
            facts::{Seen, Wish},
            finding::Severity,
            judge::testing::{self, features, find, host, interface},
        },
        device::interface::{namespace::Namespace, netdev::XdpFeatures},
    };

    fn findings(interface: &Interface, vlan: Option<u16>) -> Vec<Finding> {
        let mut facts = testing::facts(host(), Vec::new());
        facts.wish = Wish { vlan, ..Wish::default() };
        judge(&facts, interface)
    }

    fn veth(peer_does: Option<&[&str]>, namespace: Option<Namespace>) -> Interface {
        let mut veth = interface("xs-a");
        veth.details.peer = Some(PeerDetails {
            index: 7,
            name: peer_does.map(|_| "xs-b".to_owned()),
            is_here: namespace.is_none(),
            namespace,
            features: peer_does.map(features),
        });
        veth
    }

    #[test]
    fn a_card_that_leaves_frames_alone_is_fine() {
        let all = findings(&interface("eth1"), Some(7));
        assert!(all.iter().all(|finding| finding.severity == Severity::Ok), "{all:#?}");
    }

    #[test]
    fn unfinished_checksums_are_mended_at_the_other_end() {
        let command = |namespace| {
            let warning =
                find(findings(&veth(Some(&["tx-checksum-ip-generic"]), namespace), None), "checksums");
            assert_eq!(warning.severity, Severity::Warning);
            warning.fix.map(|fix| (fix.command, fix.apply)).expect("a fix")
        };
        assert_eq!(command(None), ("sudo ethtool -K xs-b tx off".to_owned(), Apply::Safe));
        let named = Some(Namespace::Named("web".to_owned()));
        assert_eq!(command(named).0, "sudo ip netns exec web ethtool -K xs-b tx off");
        assert_eq!(
            command(Some(Namespace::Process(42))).0,
            "sudo nsenter --net=/proc/42/ns/net ethtool -K xs-b tx off"
        );
        assert_eq!(find(findings(&veth(Some(&[]), None), None), "checksums").severity, Severity::Ok);
        let unknown = find(findings(&veth(None, None), None), "checksums");
        assert!(unknown.advice.expect("advice").contains("number 7"));
        assert_eq!(unknown.fix.expect("a fix").apply, Apply::Manual);
    }

    #[test]
    fn segments_that_are_put_together_are_told() {
        let mut card = interface("eth1");
        card.details.features = Some(features(&["rx-lro", "rx-gro-hw", "rx-gro"]));
        let lro = find(findings(&card, None), "lro");
        let fix = lro.fix.expect("a fix");
        assert_eq!((lro.severity, fix.apply), (Severity::Warning, Apply::Disruptive));
        assert_eq!(fix.command, "sudo ethtool -K eth1 lro off");
        assert_eq!(find(findings(&card, None), "hardware_gro").severity, Severity::Note);
        // The kernel's own comes after the program.
        assert!(findings(&card, None).iter().all(|finding| finding.check != "gro"));
    }

    #[test]
    fn what_the_interface_below_puts_together_is_told() {
        let mut vlan = interface("eth1.7");
        vlan.details.gro_below = vec!["eth1".to_owned()];
        if let Seen::Known(features) = &mut vlan.xdp {
            features.xdp = XdpFeatures::empty();
        }
        let fix = find(findings(&vlan, None), "gro").fix.expect("a fix");
        assert_eq!((fix.command.as_str(), fix.apply), ("sudo ethtool -K eth1 gro off", Apply::Disruptive));
        vlan.details.gro_below.clear();
        assert!(findings(&vlan, None).iter().all(|finding| finding.check != "gro"));
    }

    #[test]
    fn tags_have_to_stay_where_a_vlan_is_asked_for() {
        let mut card = interface("eth1");
        card.details.features = Some(features(&["rx-vlan-hw-parse"]));
        assert!(findings(&card, None).iter().all(|finding| finding.check != "vlan_tags"));
        let fix = find(findings(&card, Some(7)), "vlan_tags").fix.expect("a fix");
        assert_eq!((fix.command.as_str(), fix.apply), ("sudo ethtool -K eth1 rxvlan off", Apply::Disruptive));
        let fix = find(findings(&veth(Some(&["tx-vlan-hw-insert"]), None), Some(7)), "vlan_tags").fix;
        assert_eq!(
            fix.map(|fix| (fix.command, fix.apply)),
            Some(("sudo ethtool -K xs-b txvlan off".to_owned(), Apply::Safe))
        );
    }
}
