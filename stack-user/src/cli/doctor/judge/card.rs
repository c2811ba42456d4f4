//! What the driver can do, what it does not take, and where the card is.

use super::link;
use crate::{
    cli::doctor::{
        facts::{Host, Interface, Seen},
        finding::{Apply, Finding, Fix},
    },
    device::{
        CHUNK_SIZE,
        interface::{
            drivers::{self, Place},
            netdev::{RxMetadata, XdpFeatures, XskFeatures},
        },
        remedy::Change,
    },
};

/// What an XDP program takes of a chunk in copy mode at the most: the kernel's headroom, and Ethernet's header with a tag.
const CHUNK_OVERHEAD: u32 = 256 + 18;

/// The first kernel whose AF_XDP sockets have frames in several chunks.
const SEVERAL_CHUNKS: (u32, u32) = (6, 6);

/// What XDP is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Can {
    Native,
    GenericOnly,
    Unknown,
}

fn can(host: &Host, interface: &Interface) -> Can {
    const NEEDED: XdpFeatures = XdpFeatures::BASIC.union(XdpFeatures::REDIRECT);
    if interface.virtio.is_some_and(|virtio| virtio.keeps_offloads) {
        return Can::GenericOnly;
    }
    if let Seen::Known(features) = &interface.xdp {
        return if features.xdp.contains(NEEDED) { Can::Native } else { Can::GenericOnly };
    }
    let driver = interface.details.driver.as_deref().and_then(drivers::find);
    match (driver.map(|driver| driver.native), host.version) {
        (Some(Some(since)), Some(version)) if version >= since => Can::Native,
        (Some(_), _) => Can::GenericOnly,
        (None, _) => Can::Unknown,
    }
}

/// Whether the stack would only get frames by the kernel's generic path.
pub(super) fn is_generic_only(host: &Host, interface: &Interface) -> bool {
    can(host, interface) == Can::GenericOnly
}

pub(super) fn judge(host: &Host, interface: &Interface) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !link::stands_on_others(&interface.details) {
        findings.push(driver(host, interface));
    }
    if can(host, interface) == Can::Native {
        findings.push(zero_copy(host, interface));
        findings.extend(multi_buffer(interface));
        findings.extend(hints(interface));
    }
    findings.push(mtu(host, interface));
    findings
}

fn driver(host: &Host, interface: &Interface) -> Finding {
    const CHECK: &str = "driver";
    let name = interface.details.driver.as_deref().unwrap_or("an unknown driver");
    let known = drivers::find(name);
    match can(host, interface) {
        Can::Native => match known.and_then(|driver| driver.trap) {
            Some(trap) => Finding::note(CHECK, format!("{name} has native XDP"), trap),
            None => Finding::ok(CHECK, format!("{name} has native XDP")),
        },
        Can::Unknown => Finding::note(
            CHECK,
            format!("nothing is known of {name}"),
            "whether it has native XDP is found out by attaching; --mode auto takes the generic path if not",
        ),
        Can::GenericOnly if interface.virtio.is_some_and(|virtio| virtio.keeps_offloads) => Finding::warning(
            CHECK,
            "the host puts segments together or leaves checksums out, and can't be asked to stop",
            "virtio_net refuses native XDP then, and the slow generic path is taken",
        )
        .advise("have the hypervisor offer VIRTIO_NET_F_CTRL_GUEST_OFFLOADS (QEMU: ctrl_guest_offloads=on), or no guest offloads"),
        Can::GenericOnly => {
            let since = known
                .and_then(|driver| driver.native)
                .map(|(major, minor)| format!("Linux {major}.{minor} brings native XDP for {name}"));
            let finding = Finding::warning(
                CHECK,
                format!("{name} has no native XDP here"),
                "the generic path works, and is several times slower: each frame goes through the kernel first, and is copied",
            );
            match since {
                Some(since) if host.version < known.and_then(|driver| driver.native) => finding.advise(since),
                _ => finding,
            }
        }
    }
}

fn zero_copy(host: &Host, interface: &Interface) -> Finding {
    const CHECK: &str = "zero_copy";
    let name = interface.details.driver.as_deref().unwrap_or("the driver");
    let since = drivers::find(name).and_then(|driver| driver.zero_copy);
    let why = "each frame is copied between the card's memory and ours, which costs a core some of its rate";
    match &interface.xdp {
        Seen::Known(features)
            if features.xdp.contains(XdpFeatures::XSK_ZEROCOPY)
                && interface.virtio.is_some_and(|virtio| !virtio.access_platform) =>
        {
            Finding::note(CHECK, format!("{name} has zero-copy, but not with this device"), why)
                .advise("have the hypervisor offer VIRTIO_F_ACCESS_PLATFORM (QEMU: iommu_platform=on)")
        }
        Seen::Known(features) if features.xdp.contains(XdpFeatures::XSK_ZEROCOPY) => {
            Finding::ok(CHECK, format!("{name} has zero-copy"))
        }
        Seen::Known(_) => {
            let finding = Finding::note(CHECK, format!("{name} has no zero-copy here"), why);
            match since.filter(|since| host.version.is_some_and(|version| version < *since)) {
                Some((major, minor)) => finding.advise(format!("Linux {major}.{minor} brings it for {name}")),
                None => finding,
            }
        }
        Seen::Unknown(_) => match since {
            Some(since) if host.version.is_some_and(|version| version >= since) => Finding::ok(
                CHECK,
                format!("{name} has zero-copy from Linux {}.{} on, as far as is known", since.0, since.1),
            ),
            _ => Finding::note(CHECK, format!("{name} is not known to have zero-copy here"), why),
        },
    }
}

fn multi_buffer(interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "multi_buffer";
    let features = interface.xdp.known()?;
    Some(if features.xdp.contains(XdpFeatures::RX_SG) {
        let segments = features.zero_copy_max_segments.filter(|&segments| segments > 1);
        let zero_copy = segments.map(|n| format!(", up to {n} with zero-copy")).unwrap_or_default();
        Finding::ok(CHECK, format!("frames may lie in several buffers{zero_copy}"))
    } else {
        Finding::ok(CHECK, "frames lie in one buffer each")
    })
}

fn hints(interface: &Interface) -> Option<Finding> {
    let features = interface.xdp.known()?;
    let rx = features.rx_metadata.unwrap_or(RxMetadata::empty());
    let tx = features.xsk.unwrap_or(XskFeatures::empty());
    let named = [
        ("receive timestamps", rx.contains(RxMetadata::TIMESTAMP)),
        ("the receive hash", rx.contains(RxMetadata::HASH)),
        ("VLAN tags that were taken off", rx.contains(RxMetadata::VLAN_TAG)),
        ("transmit timestamps", tx.contains(XskFeatures::TX_TIMESTAMP)),
        ("transmit checksums", tx.contains(XskFeatures::TX_CHECKSUM)),
        ("launch times", tx.contains(XskFeatures::TX_LAUNCH_TIME_FIFO)),
    ];
    let there: Vec<_> = named.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect();
    (!there.is_empty()).then(|| {
        Finding::ok(
            "hints",
            format!("the driver can tell or do, and xstack does without: {}", there.join(", ")),
        )
    })
}

fn mtu(host: &Host, interface: &Interface) -> Finding {
    const CHECK: &str = "mtu";
    let details = &interface.details;
    let (name, mtu) = (&details.name, details.mtu);
    let is_native = can(host, interface) == Can::Native;
    let takes_several =
        interface.xdp.known().is_some_and(|features| features.xdp.contains(XdpFeatures::RX_SG));
    let limit = details.driver.as_deref().and_then(drivers::find).and_then(|driver| driver.mtu_max);
    if let Some(limit) = limit.filter(|&limit| is_native && !takes_several && mtu > limit) {
        let change = Change::Mtu { interface: name.clone(), mtu: limit.min(1500), was: Some(mtu) };
        return Finding::warning(
            CHECK,
            format!("an MTU of {mtu} is more than native XDP takes here: {limit}, or somewhat less"),
            "the driver refuses the XDP program then, and the slow generic path is taken",
        )
        .fixed_by(Fix::change(change, Apply::Disruptive));
    }
    if mtu <= CHUNK_SIZE as u32 - CHUNK_OVERHEAD {
        return Finding::ok(CHECK, format!("an MTU of {mtu} fits"));
    }
    let segments = interface.xdp.known().map(|features| {
        features.xdp.contains(XdpFeatures::XSK_ZEROCOPY).then(|| features.zero_copy_max_segments.unwrap_or(1))
    });
    if host.version.is_some_and(|version| version < SEVERAL_CHUNKS) {
        Finding::note(
            CHECK,
            format!("an MTU of {mtu} is more than a chunk of {CHUNK_SIZE} bytes takes"),
            "kernels before 6.6 don't give us frames in several chunks: TCP announces segments that fit, and what is longer is lost",
        )
    } else if segments == Some(Some(1)) {
        Finding::note(
            CHECK,
            format!(
                "an MTU of {mtu} takes frames of several chunks, and the driver has those with copies only"
            ),
            "with an MTU that a chunk takes, frames would go without a copy",
        )
        .fixed_by(Fix::change(
            Change::Mtu { interface: name.clone(), mtu: 1500, was: Some(mtu) },
            Apply::Disruptive,
        ))
    } else {
        Finding::ok(CHECK, format!("an MTU of {mtu} takes frames of several chunks, which there are"))
    }
}

/// Where the card is: in which machine, at which node of it, on what kind of network.
pub(super) fn judge_place(host: &Host, interface: &Interface) -> Vec<Finding> {
    [numa(host, interface), interrupts(host, interface), network(host, interface)]
        .into_iter()
        .flatten()
        .collect()
}

fn numa(host: &Host, interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "numa";
    let node = interface.numa_node.filter(|_| host.numa_nodes > 1)?;
    Some(if host.process_nodes == [node] {
        Finding::ok(CHECK, format!("the card and this process are at NUMA node {node}"))
    } else if host.process_nodes.contains(&node) {
        Finding::note(
            CHECK,
            format!("the card is at NUMA node {node}, and this process may run at others, too"),
            "frames that cross between nodes take longer",
        )
        .fixed_by(near(node, interface))
    } else {
        Finding::warning(
            CHECK,
            format!("the card is at NUMA node {node}, and this process may not run there"),
            "each frame crosses between nodes",
        )
        .fixed_by(near(node, interface))
    })
}

/// Whoever is started so runs where the card is: the doctor, who then finds it well, or another command.
fn near(node: u32, interface: &Interface) -> Fix {
    let name = &interface.details.name;
    Fix::command(format!("numactl --cpunodebind={node} --membind={node} xstack doctor {name}"))
}

fn interrupts(host: &Host, interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "interrupts";
    if interface.interrupts.is_empty() {
        return None;
    }
    let told: Vec<_> =
        interface.interrupts.iter().map(|irq| format!("{} on CPU {}", irq.number, irq.cpus)).collect();
    let what = format!("interrupts: {}", told.join(", "));
    Some(if host.has_irqbalance {
        Finding::note(
            CHECK,
            what,
            "irqbalance runs, and moves them: a queue's interrupt and the thread that serves it may be far from each other",
        )
    } else {
        Finding::ok(CHECK, what)
    })
}

/// Networks that forward frames of addresses only that they have handed out.
fn network(host: &Host, interface: &Interface) -> Option<Finding> {
    const CHECK: &str = "network";
    let name = &interface.details.name;
    if interface.is_wireless {
        return Some(
            Finding::warning(
                CHECK,
                format!("{name} is Wi-Fi"),
                "an access point may drop what comes from an address that it has not handed out to this station, and wireless \
                 drivers have no native XDP",
            )
            .advise("ask the router's DHCP server for a second address, or use a wired interface"),
        );
    }
    let place = interface.details.driver.as_deref().and_then(drivers::find).map(|driver| driver.place)?;
    let vendor = host.vendor.as_deref().unwrap_or_default();
    let place = match vendor {
        _ if vendor.contains("Amazon") && place != Place::Anywhere => Place::Aws,
        _ if vendor.contains("Google") && place != Place::Anywhere => Place::GoogleCloud,
        _ => place,
    };
    let only_its_own = "the network drops frames of addresses that it has not assigned to this interface";
    Some(match place {
        Place::Anywhere => return None,
        Place::Aws => Finding::note(CHECK, "this is an interface of a VPC", only_its_own)
            .advise("assign a secondary private address to the network interface, and give it as --address")
            .fixed_by(
                Fix::command(
                    "aws ec2 assign-private-ip-addresses --network-interface-id ENI --secondary-private-ip-address-count 1",
                )
                .undone_by(
                    "aws ec2 unassign-private-ip-addresses --network-interface-id ENI --private-ip-addresses ADDRESS",
                ),
            ),
        Place::GoogleCloud => Finding::note(CHECK, "this is an interface of a VPC", only_its_own)
            .advise("give the instance an alias range, and an address of it as --address")
            .fixed_by(
                Fix::command("gcloud compute instances network-interfaces update INSTANCE --aliases RANGE")
                    .undone_by("gcloud compute instances network-interfaces update INSTANCE --aliases ''"),
            ),
        Place::HyperV => Finding::note(CHECK, "this is an interface of Hyper-V or Azure", only_its_own)
            .advise("on Azure assign a second IP configuration to the interface, and give its address as --address"),
        Place::VMware | Place::Guest => Finding::note(
            CHECK,
            "this is an interface of a virtual machine",
            "a hypervisor or cloud with port security drops frames of addresses that it has not assigned",
        )
        .advise("if nothing is answered: have the address allowed on the port (OpenStack: --allowed-address)"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::{
        facts::Virtio,
        finding::Severity,
        judge::testing::{find, host, interface},
    };

    fn xdp(interface: &mut Interface) -> &mut XdpFeatures {
        match &mut interface.xdp {
            Seen::Known(features) => &mut features.xdp,
            Seen::Unknown(_) => panic!("known"),
        }
    }

    fn of(driver: &str) -> Interface {
        let mut interface = interface("eth1");
        interface.details.driver = Some(driver.to_owned());
        interface
    }

    #[test]
    fn a_card_that_can_do_all_has_nothing_to_complain_of() {
        let all = [judge(&host(), &interface("eth1")), judge_place(&host(), &interface("eth1"))].concat();
        assert!(all.iter().all(|finding| finding.severity == Severity::Ok), "{all:#?}");
    }

    #[test]
    fn what_the_driver_says_counts_more_than_the_table() {
        let mut virtio = of("virtio_net");
        *xdp(&mut virtio) = XdpFeatures::empty();
        assert_eq!(find(judge(&host(), &virtio), "driver").severity, Severity::Warning);
        *xdp(&mut virtio) = XdpFeatures::BASIC | XdpFeatures::REDIRECT;
        let note = find(judge(&host(), &virtio), "zero_copy");
        assert_eq!((note.severity, note.advice), (Severity::Note, None));
    }

    #[test]
    fn what_a_hypervisor_keeps_back_is_told() {
        let mut virtio = of("virtio_net");
        virtio.virtio = Some(Virtio { access_platform: false, keeps_offloads: false });
        assert!(
            find(judge(&host(), &virtio), "zero_copy").advice.expect("advice").contains("iommu_platform")
        );
        virtio.virtio = Some(Virtio { access_platform: true, keeps_offloads: false });
        assert_eq!(find(judge(&host(), &virtio), "zero_copy").severity, Severity::Ok);
        virtio.virtio = Some(Virtio { access_platform: true, keeps_offloads: true });
        let warning = find(judge(&host(), &virtio), "driver");
        assert!(
            warning.severity == Severity::Warning && warning.what.contains("can't be asked"),
            "{warning:?}"
        );
    }

    #[test]
    fn the_table_is_asked_where_the_kernel_does_not_tell() {
        let mut igb = of("igb");
        igb.xdp = Seen::Unknown("Linux 5.15 does not tell".to_owned());
        let old = Host { version: Some((5, 15)), ..host() };
        assert_eq!(find(judge(&old, &igb), "driver").severity, Severity::Note);
        assert_eq!(find(judge(&old, &igb), "zero_copy").severity, Severity::Note);
        let older = Host { version: Some((5, 4)), ..host() };
        let warning = find(judge(&older, &igb), "driver");
        assert!(warning.advice.expect("advice").contains("Linux 5.10"));
    }

    #[test]
    fn a_newer_kernel_is_named_where_it_helps() {
        let mut igb = of("igb");
        *xdp(&mut igb) = XdpFeatures::BASIC | XdpFeatures::REDIRECT;
        let old = Host { version: Some((6, 12)), ..host() };
        assert!(find(judge(&old, &igb), "zero_copy").advice.expect("advice").contains("6.14"));
        assert_eq!(find(judge(&host(), &igb), "zero_copy").advice, None);
    }

    #[test]
    fn an_mtu_that_native_xdp_refuses_has_a_fix_that_others_notice() {
        let mut ena = of("ena");
        *xdp(&mut ena) = XdpFeatures::BASIC | XdpFeatures::REDIRECT;
        ena.details.mtu = 9001;
        let warning = find(judge(&host(), &ena), "mtu");
        let fix = warning.fix.expect("a fix");
        assert_eq!((warning.severity, fix.apply), (Severity::Warning, Apply::Disruptive));
        assert_eq!(fix.command, "sudo ip link set eth1 mtu 1500");
        assert_eq!(fix.undo.as_deref(), Some("sudo ip link set eth1 mtu 9001"));
        // A program for frames in several buffers is taken with any MTU by a driver that has them.
        *xdp(&mut ena) |= XdpFeatures::RX_SG;
        assert_eq!(find(judge(&host(), &ena), "mtu").severity, Severity::Ok);
        let old = Host { version: Some((6, 5)), ..host() };
        assert_eq!(find(judge(&old, &ena), "mtu").severity, Severity::Note);
    }

    #[test]
    fn zero_copy_that_an_mtu_prevents_is_told() {
        let mut card = of("i40e");
        card.details.mtu = 9000;
        assert_eq!(find(judge(&host(), &card), "mtu").severity, Severity::Ok);
        if let Seen::Known(features) = &mut card.xdp {
            features.zero_copy_max_segments = Some(1);
        }
        let note = find(judge(&host(), &card), "mtu");
        assert_eq!(note.fix.map(|fix| fix.apply), Some(Apply::Disruptive));
    }

    #[test]
    fn hints_are_named() {
        let mut igc = of("igc");
        if let Seen::Known(features) = &mut igc.xdp {
            features.rx_metadata = Some(RxMetadata::TIMESTAMP);
            features.xsk = Some(XskFeatures::TX_LAUNCH_TIME_FIFO);
        }
        let what = find(judge(&host(), &igc), "hints").what;
        assert!(what.contains("xstack does without: receive timestamps, launch times"), "{what}");
    }

    #[test]
    fn a_process_that_is_far_from_its_card_is_told() {
        let two = Host { numa_nodes: 2, process_nodes: vec![0], ..host() };
        let mut far = interface("eth1");
        far.numa_node = Some(1);
        let severity = |host: &Host, far: &Interface| find(judge_place(host, far), "numa").severity;
        assert_eq!(severity(&two, &far), Severity::Warning);
        assert_eq!(severity(&Host { process_nodes: vec![0, 1], ..two.clone() }, &far), Severity::Note);
        assert_eq!(severity(&Host { process_nodes: vec![1], ..two }, &far), Severity::Ok);
        assert!(judge_place(&host(), &far).is_empty(), "one node is near to itself");
    }

    #[test]
    fn clouds_and_wi_fi_are_told_by_the_driver() {
        let advice = |driver| find(judge_place(&host(), &of(driver)), "network");
        assert!(advice("ena").fix.expect("a command").command.starts_with("aws ec2 assign-private-ip"));
        assert!(advice("gve").fix.expect("a command").command.starts_with("gcloud"));
        assert!(advice("hv_netvsc").advice.expect("advice").contains("Azure"));
        let amazon = Host { vendor: Some("Amazon EC2".to_owned()), ..host() };
        let what = find(judge_place(&amazon, &of("virtio_net")), "network").what;
        assert!(what.contains("VPC"), "{what}");
        let mut wlan = of("iwlwifi");
        wlan.is_wireless = true;
        assert_eq!(find(judge_place(&host(), &wlan), "network").severity, Severity::Warning);
    }
}
