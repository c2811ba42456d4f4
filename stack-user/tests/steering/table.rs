//! The table of frames and of what becomes of them.

use std::{collections::HashMap, net::IpAddr};

use stack_common::{
    abi::{Claim, ClaimKey},
    steer::{Policy, Verdict},
};

use super::frames::*;

/// All of it is ours, untagged.
const OURS: [u8; 4] = [192, 0, 2, 10];
/// All of it is ours, in VLAN 5.
const OURS_IN_VLAN_5: [u8; 4] = [192, 0, 2, 20];
/// The host's, but for ports 80 and 1000 to 2000.
const SHARED: [u8; 4] = [192, 0, 2, 30];
/// The host's in VLAN 7, but for port 80.
const SHARED_IN_VLAN_7: [u8; 4] = [192, 0, 2, 31];
/// Nobody's of interest.
const FOREIGN: [u8; 4] = [192, 0, 2, 99];
const NEIGHBOUR: [u8; 4] = [192, 0, 2, 1];

/// Addresses that have one place in the index: one that is all ours, one of which port 80 is, and one that is another's.
fn neighbours_in_the_index() -> [[u8; 4]; 3] {
    let address = |n: u16| [198, 18, (n >> 8) as u8, n as u8];
    let place = |address: [u8; 4]| ClaimKey::new(IpAddr::from(address), 0).place();
    let mut same = (1..).map(address).filter(|other| place(*other) == place(address(0)));
    std::array::from_fn(|_| same.next().expect("many addresses for each place"))
}

/// What is claimed while the table is run.
pub(crate) fn claims() -> Claims {
    let whole = |address: [u8; 4], vlan| (ClaimKey::new(IpAddr::from(address), vlan), Claim::WHOLE);
    let ports = |address: [u8; 4], vlan, ranges: &[(u16, u16)]| {
        (ClaimKey::new(IpAddr::from(address), vlan), Claim::ports(ranges).expect("good ranges"))
    };
    let [all, some, _] = neighbours_in_the_index();
    Claims(HashMap::from([
        whole(OURS, 0),
        whole(OURS_IN_VLAN_5, 5),
        ports(SHARED, 0, &[(80, 80), (1000, 2000)]),
        ports(SHARED_IN_VLAN_7, 7, &[(80, 80)]),
        whole(all, 0),
        ports(some, 0, &[(80, 80)]),
    ]))
}

/// The policy on the host's side.
pub(crate) struct Claims(pub(crate) HashMap<ClaimKey, Claim>);

impl Policy for Claims {
    fn claim(&self, key: &ClaimKey) -> Option<&Claim> {
        self.0.get(key)
    }
}

/// A frame and its verdict.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) frame: Vec<u8>,
    pub(crate) verdict: Verdict,
}

/// The whole table.
pub(crate) fn cases() -> Vec<Case> {
    let mut table = Table::default();
    // A priority tag with VLAN id 0 is no VLAN; priority and drop eligibility do not matter.
    for (link_name, link) in
        [("untagged", Link::untagged()), ("priority tag", Link::tagged(0xb000)), ("VLAN 0", Link::tagged(0))]
    {
        for options in [0, 4, 20, 40] {
            table.prefix = format!("{link_name}, {options} bytes of options: ");
            table.whole_address(&link, options);
            table.shared_address(&link, options);
            table.icmp_errors(&link, options);
        }
        table.prefix = format!("{link_name}: ");
        table.arp(&link);
        table.malformed(&link);
    }
    table.prefix.clear();
    table.vlans();
    table.ether_types();
    table.lengths();
    table.one_place();
    table.cases
}

#[derive(Default)]
struct Table {
    prefix: String,
    cases: Vec<Case>,
}

impl Table {
    fn add(&mut self, name: impl AsRef<str>, frame: Vec<u8>, verdict: Verdict) {
        self.cases.push(Case { name: format!("{}{}", self.prefix, name.as_ref()), frame, verdict });
    }

    fn whole_address(&mut self, link: &Link, options: usize) {
        for (name, protocol, verdict) in [
            ("ICMP", ICMP, Verdict::RedirectIcmp),
            ("TCP", TCP, Verdict::RedirectTcp),
            ("UDP", UDP, Verdict::RedirectUdp),
            ("GRE", GRE, Verdict::RedirectOther),
        ] {
            let packet = Ipv4 { options, ..Ipv4::to(OURS, protocol, transport(40000, 79)) };
            self.add(format!("{name} to us"), link.ipv4(&packet), verdict);
            let foreign = Ipv4 { destination: FOREIGN, ..packet.clone() };
            self.add(format!("{name} to another"), link.ipv4(&foreign), Verdict::PassAddress);
            let from_us = Ipv4 { source: OURS, ..foreign };
            self.add(format!("{name} from us to another"), link.ipv4(&from_us), Verdict::PassAddress);
            let empty = Ipv4 { payload: Vec::new(), ..packet.clone() };
            self.add(format!("{name} without a payload"), link.ipv4(&empty), verdict);
            for (name, flags_and_offset, verdict) in [
                ("first fragment", MORE_FRAGMENTS, Verdict::RedirectFragment),
                ("middle fragment", MORE_FRAGMENTS | 185, Verdict::RedirectFragment),
                ("last fragment", 370, Verdict::RedirectFragment),
                ("last fragment at the highest offset", 0x1fff, Verdict::RedirectFragment),
                ("not to be fragmented", DONT_FRAGMENT, verdict),
                ("reserved flag", 0x8000, verdict),
            ] {
                let fragment = Ipv4 { flags_and_offset, ..packet.clone() };
                self.add(format!("{name}, protocol {protocol}"), link.ipv4(&fragment), verdict);
            }
        }
    }

    fn shared_address(&mut self, link: &Link, options: usize) {
        let packet = |protocol, payload| Ipv4 { options, ..Ipv4::to(SHARED, protocol, payload) };
        for (name, protocol, ours) in [("TCP", TCP, Verdict::RedirectTcp), ("UDP", UDP, Verdict::RedirectUdp)]
        {
            for port in [80, 1000, 1001, 1999, 2000] {
                let frame = link.ipv4(&packet(protocol, transport(443, port)));
                self.add(format!("{name} to port {port}, ours"), frame, ours);
            }
            for port in [0, 79, 81, 999, 2001, 20480, 65535] {
                // The source port is one of ours, which must not matter.
                let frame = link.ipv4(&packet(protocol, transport(80, port)));
                self.add(format!("{name} to port {port}, the host's"), frame, Verdict::PassPort);
            }
            for flags_and_offset in [MORE_FRAGMENTS, MORE_FRAGMENTS | 1, 1] {
                let fragment = Ipv4 { flags_and_offset, ..packet(protocol, transport(443, 80)) };
                self.add(format!("{name} fragment"), link.ipv4(&fragment), Verdict::PassFragment);
            }
            // Three bytes of ports, though the padding behind them would complete port 80.
            let mut cut = packet(protocol, transport(443, 80));
            cut.total_len = Some((20 + options + 3) as u16);
            self.add(format!("{name} with half a port"), link.ipv4(&cut), Verdict::PassMalformed);
            cut.total_len = Some((20 + options + 4) as u16);
            self.add(format!("{name} with ports alone"), link.ipv4(&cut), ours);
        }
        let gre = packet(GRE, transport(80, 80));
        self.add("GRE to a shared address", link.ipv4(&gre), Verdict::PassProtocol);
    }

    fn icmp_errors(&mut self, link: &Link, options: usize) {
        let error =
            |kind, quote: &Ipv4| Ipv4 { options, ..Ipv4::to(SHARED, ICMP, icmp(kind, &quote.bytes())) };
        let quote = |source_port| Ipv4 {
            source: SHARED,
            payload: transport(source_port, 81)[..8].to_vec(),
            ..Ipv4::to(FOREIGN, TCP, Vec::new())
        };
        for kind in [3, 11, 12] {
            for protocol in [TCP, UDP] {
                for inner_options in [0, 4, 40] {
                    for (port, verdict) in [
                        (80, Verdict::RedirectIcmp),
                        (2000, Verdict::RedirectIcmp),
                        (2001, Verdict::PassIcmp),
                    ] {
                        let quote = Ipv4 { protocol, options: inner_options, ..quote(port) };
                        let name = format!(
                            "error {kind} quoting protocol {protocol}, port {port}, {inner_options} bytes of options"
                        );
                        self.add(name, link.ipv4(&error(kind, &quote)), verdict);
                    }
                }
            }
        }
        for kind in [0, 4, 5, 8, 13, 40] {
            self.add(format!("ICMP type {kind}"), link.ipv4(&error(kind, &quote(80))), Verdict::PassIcmp);
        }
        let strange = [
            ("another's packet", Ipv4 { source: FOREIGN, ..quote(80) }, Verdict::PassIcmp),
            ("a packet to us", Ipv4 { source: FOREIGN, destination: SHARED, ..quote(81) }, Verdict::PassIcmp),
            ("ICMP", Ipv4 { protocol: ICMP, ..quote(80) }, Verdict::PassIcmp),
            (
                "a first fragment",
                Ipv4 { flags_and_offset: MORE_FRAGMENTS, ..quote(80) },
                Verdict::RedirectIcmp,
            ),
            ("a later fragment", Ipv4 { flags_and_offset: 1, ..quote(80) }, Verdict::PassIcmp),
            ("IPv6", Ipv4 { version: 6, ..quote(80) }, Verdict::PassMalformed),
            ("a short header", Ipv4 { header_words: Some(4), ..quote(80) }, Verdict::PassMalformed),
            ("a long packet's start", Ipv4 { total_len: Some(1500), ..quote(80) }, Verdict::RedirectIcmp),
        ];
        for (name, quote, verdict) in strange {
            self.add(format!("error quoting {name}"), link.ipv4(&error(3, &quote)), verdict);
        }
        // The packet ends in the quote, and padding goes on as if it did not.
        let whole = error(3, &quote(80));
        for (quoted, verdict) in [
            (0, Verdict::PassIcmp),
            (19, Verdict::PassIcmp),
            (20, Verdict::PassIcmp),
            (23, Verdict::PassIcmp),
            (24, Verdict::RedirectIcmp),
        ] {
            let total_len = Some((20 + options + 8 + quoted) as u16);
            let cut = Ipv4 { total_len, ..whole.clone() };
            self.add(format!("error quoting {quoted} bytes"), link.ipv4(&cut), verdict);
        }
        let cut = Ipv4 { total_len: Some((20 + options + 7) as u16), ..whole };
        self.add("ICMP without its header", link.ipv4(&cut), Verdict::PassMalformed);
    }

    fn arp(&mut self, link: &Link) {
        let any = [0, 0, 0, 0];
        for (name, arp, verdict) in [
            ("request for us", Arp::new(REQUEST, NEIGHBOUR, OURS), Verdict::RedirectArp),
            ("reply to us", Arp::new(REPLY, NEIGHBOUR, OURS), Verdict::RedirectArp),
            ("probe for our address", Arp::new(REQUEST, any, OURS), Verdict::RedirectArp),
            ("announcement of our address", Arp::new(REQUEST, OURS, OURS), Verdict::RedirectArp),
            ("unasked reply from our address", Arp::new(REPLY, OURS, OURS), Verdict::RedirectArp),
            ("reply from our address to another", Arp::new(REPLY, OURS, NEIGHBOUR), Verdict::RedirectArp),
            ("request from our address to another", Arp::new(REQUEST, OURS, FOREIGN), Verdict::RedirectArp),
            ("request for another", Arp::new(REQUEST, NEIGHBOUR, FOREIGN), Verdict::PassArp),
            ("reply to another", Arp::new(REPLY, NEIGHBOUR, FOREIGN), Verdict::PassArp),
            ("probe for another's address", Arp::new(REQUEST, any, FOREIGN), Verdict::PassArp),
            ("another's announcement", Arp::new(REQUEST, FOREIGN, FOREIGN), Verdict::PassArp),
            ("request for a shared address", Arp::new(REQUEST, NEIGHBOUR, SHARED), Verdict::PassArp),
            ("reply to a shared address", Arp::new(REPLY, NEIGHBOUR, SHARED), Verdict::PassArp),
            ("request from a shared address", Arp::new(REQUEST, SHARED, NEIGHBOUR), Verdict::PassArp),
            ("request from our address for a shared one", Arp::new(REQUEST, OURS, SHARED), Verdict::PassArp),
            ("request for us from a shared address", Arp::new(REQUEST, SHARED, OURS), Verdict::RedirectArp),
            (
                "request for an address in VLAN 5",
                Arp::new(REQUEST, NEIGHBOUR, OURS_IN_VLAN_5),
                Verdict::PassArp,
            ),
        ] {
            self.add(format!("ARP {name}"), link.arp(&arp), verdict);
            let mut padded = link.arp(&arp);
            padded.resize(60, 0);
            self.add(format!("ARP {name}, padded"), padded, verdict);
        }
        for format in [(6, 0x0800, 6, 4), (1, 0x86dd, 6, 4), (1, 0x0800, 8, 4), (1, 0x0800, 6, 16)] {
            let arp = Arp { format, ..Arp::new(REQUEST, NEIGHBOUR, OURS) };
            self.add(format!("ARP of format {format:x?}"), link.arp(&arp), Verdict::PassMalformed);
        }
    }

    fn malformed(&mut self, link: &Link) {
        let packet = Ipv4::to(OURS, TCP, transport(40000, 80));
        for version in [0, 3, 5, 6, 15] {
            let packet = Ipv4 { version, ..packet.clone() };
            self.add(format!("IP version {version}"), link.ipv4(&packet), Verdict::PassMalformed);
        }
        for words in 0..5 {
            let packet = Ipv4 { header_words: Some(words), ..packet.clone() };
            self.add(format!("a header of {words} words"), link.ipv4(&packet), Verdict::PassMalformed);
        }
        for (total_len, verdict) in [
            (0, Verdict::PassMalformed),
            (19, Verdict::PassMalformed),
            (20, Verdict::RedirectTcp),
            (43, Verdict::RedirectTcp),
            (44, Verdict::RedirectTcp),
            (45, Verdict::PassTruncated),
            (65535, Verdict::PassTruncated),
        ] {
            let packet = Ipv4 { total_len: Some(total_len), ..packet.clone() };
            self.add(format!("44 bytes that say {total_len}"), link.ipv4(&packet), verdict);
        }
        // The header is longer than the packet says that it is.
        let packet = Ipv4 { options: 8, total_len: Some(27), ..packet };
        self.add("a packet that ends in its options", link.ipv4(&packet), Verdict::PassMalformed);
    }

    fn vlans(&mut self) {
        let to = |destination| Ipv4::to(destination, TCP, transport(40000, 80));
        for (name, tci, destination, verdict) in [
            ("ours, VLAN 5", 5, OURS_IN_VLAN_5, Verdict::RedirectTcp),
            ("ours, VLAN 5 with priority", 0xf005, OURS_IN_VLAN_5, Verdict::RedirectTcp),
            ("ours elsewhere, VLAN 4", 4, OURS_IN_VLAN_5, Verdict::PassVlan),
            ("ours elsewhere, VLAN 0x505", 0x505, OURS_IN_VLAN_5, Verdict::PassVlan),
            ("ours elsewhere, VLAN 4095", 4095, OURS_IN_VLAN_5, Verdict::PassVlan),
            ("ours elsewhere, priority tag", 0xa000, OURS_IN_VLAN_5, Verdict::PassAddress),
            ("ours untagged, VLAN 5", 5, OURS, Verdict::PassVlan),
            ("another's, VLAN 5", 5, FOREIGN, Verdict::PassVlan),
            ("shared, VLAN 7", 7, SHARED_IN_VLAN_7, Verdict::RedirectTcp),
            ("shared elsewhere, VLAN 8", 8, SHARED_IN_VLAN_7, Verdict::PassVlan),
            ("shared untagged, VLAN 7", 7, SHARED, Verdict::PassVlan),
        ] {
            self.add(format!("TCP to {name}"), Link::tagged(tci).ipv4(&to(destination)), verdict);
        }
        let untagged = Link::untagged();
        self.add(
            "TCP to an address in VLAN 5, untagged",
            untagged.ipv4(&to(OURS_IN_VLAN_5)),
            Verdict::PassAddress,
        );
        for (tci, verdict) in
            [(5, Verdict::RedirectArp), (0x2005, Verdict::RedirectArp), (6, Verdict::PassArp)]
        {
            let arp = Arp::new(REQUEST, NEIGHBOUR, OURS_IN_VLAN_5);
            self.add(
                format!("ARP for an address in VLAN 5, tag {tci:#x}"),
                Link::tagged(tci).arp(&arp),
                verdict,
            );
        }
        let arp = Arp::new(REQUEST, NEIGHBOUR, SHARED_IN_VLAN_7);
        self.add("ARP for a shared address in VLAN 7", Link::tagged(7).arp(&arp), Verdict::PassArp);
        for tags in [[(0x8100, 5), (0x8100, 5)], [(0x8100, 0), (0x8100, 5)], [(0x88a8, 5), (0x8100, 5)]] {
            let stacked = Link { tags: tags.to_vec() };
            self.add(format!("tags {tags:x?}"), stacked.ipv4(&to(OURS_IN_VLAN_5)), Verdict::PassStackedVlan);
        }
        let tags = vec![(0x8100, 5), (0x88a8, 5)];
        self.add("a service tag inside", Link { tags }.ipv4(&to(OURS_IN_VLAN_5)), Verdict::PassStackedVlan);
        let service = Link { tags: vec![(0x88a8, 5)] };
        self.add("a service tag alone", service.ipv4(&to(OURS_IN_VLAN_5)), Verdict::PassStackedVlan);
    }

    fn ether_types(&mut self) {
        let ipv4 = Ipv4::to(OURS, TCP, transport(40000, 80)).bytes();
        for (name, ether_type) in [
            ("a length", 44),
            ("IPv6", 0x86dd),
            ("reversed IPv4", 0x0008),
            ("RARP", 0x8035),
            ("LLDP", 0x88cc),
            ("MPLS", 0x8847),
            ("PPPoE", 0x8864),
            ("QinQ of old", 0x9100),
            ("experimental", 0x88b5),
        ] {
            for link in [Link::untagged(), Link::tagged(5)] {
                self.add(format!("EtherType {name}"), link.frame(ether_type, &ipv4), Verdict::PassEtherType);
            }
        }
    }

    /// What the index doesn't know is asked of the map.
    fn one_place(&mut self) {
        let [all, some, none] = neighbours_in_the_index();
        let link = Link::untagged();
        for (name, to, verdict, arp) in [
            ("all ours", all, Verdict::RedirectTcp, Verdict::RedirectArp),
            ("shared", some, Verdict::RedirectTcp, Verdict::PassArp),
            ("another's", none, Verdict::PassAddress, Verdict::PassArp),
        ] {
            let frame = link.ipv4(&Ipv4::to(to, TCP, transport(443, 80)));
            self.add(format!("one place of the index, {name}"), frame, verdict);
            let frame = link.arp(&Arp::new(REQUEST, NEIGHBOUR, to));
            self.add(format!("one place of the index, ARP for {name}"), frame, arp);
        }
        let frame = link.ipv4(&Ipv4::to(some, TCP, transport(443, 81)));
        self.add("one place of the index, a port of the host's", frame, Verdict::PassPort);
        let frame = link.arp(&Arp::new(REPLY, all, none));
        self.add("one place of the index, ARP from what is all ours", frame, Verdict::RedirectArp);
    }

    /// Frames as long as they come: in the kernel these are in several buffers.
    fn lengths(&mut self) {
        for link in [Link::untagged(), Link::tagged(0)] {
            for payload_len in [0, 1, 26, 1460, 4000, 8960] {
                let mut payload = transport(40000, 80);
                payload.resize(24 + payload_len, 0x55);
                let packet = Ipv4::to(OURS, TCP, payload);
                let total_len = packet.bytes().len() as u16;
                self.add(format!("{total_len} bytes"), link.ipv4(&packet), Verdict::RedirectTcp);
                let longer = Ipv4 { total_len: Some(total_len + 1), ..packet.clone() };
                self.add(
                    format!("{total_len} bytes, one missing"),
                    link.ipv4(&longer),
                    Verdict::PassTruncated,
                );
                let shorter = Ipv4 { total_len: Some(total_len - 1), ..packet };
                self.add(
                    format!("{total_len} bytes, one too many"),
                    link.ipv4(&shorter),
                    Verdict::RedirectTcp,
                );
            }
        }
    }
}
