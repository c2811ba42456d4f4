//! Requirements that are about a stack rather than about one connection.

use super::*;
use crate::{
    tcp,
    wire::{checksum::Sum, icmpv4, tcp::Flags},
};

/// A datagram from B's station to A's, as the link carries it.
fn datagram(link: &Link, header: ipv4::Header, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; ethernet::LEN + ipv4::LEN];
    let ethernet = ethernet::Header {
        destination: link.a.mac(),
        source: link.b.mac(),
        vlan: None,
        ethertype: ethernet::ethertype::IPV4,
    };
    ethernet.emit(&mut bytes);
    header.emit(&mut bytes[ethernet::LEN..]);
    bytes.extend_from_slice(payload);
    bytes
}

/// A SYN to port 80.
fn syn(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let header = crate::wire::tcp::Header {
        source: 4_000,
        destination: 80,
        seq: 1,
        ack: 0,
        flags: Flags::SYN,
        window: 1_000,
        urgent: 0,
    };
    let mut tcp = vec![0; crate::wire::tcp::Header::LEN];
    header.emit(0, &mut tcp);
    let sum = Sum::pseudo_header(source.into(), destination.into(), protocol::TCP, tcp.len());
    let checksum = sum.bytes(&tcp).finish();
    crate::wire::tcp::Header::set_checksum(&mut tcp, checksum);
    tcp
}

/// An ICMP error that quotes `segment`, a whole IP packet.
fn icmp_error(message: icmpv4::Message, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0; icmpv4::LEN][..], &quoted[..ipv4::LEN + 8]].concat();
    message.emit(&mut bytes);
    bytes
}

#[test]
fn an_open_to_what_is_no_single_host_is_refused_must_46() {
    let mut link = Link::new();
    let group = Ipv4Addr::new(224, 0, 0, 1);
    for bad in [Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 0, 0, 255), group, Ipv4Addr::UNSPECIFIED] {
        let refused = link.a.tcp_connect(link.now, to(bad, 80));
        assert_eq!(refused, Err(ConnectError::BadRemote(to(bad, 80))), "{bad}");
    }
}

#[test]
fn the_local_address_is_the_routes_and_stays_must_44_must_45() {
    let mut link = Link::new();
    let listener = link.b.tcp_listen(link.now, to(B, 80), 1).expect("a listener");
    let (id, local) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    assert_eq!(local.ip(), IpAddr::from(A));
    link.run(Duration::from_millis(20));
    assert_eq!(link.a.tcp_write(link.now, id, b"hello"), Ok(5));
    link.run(Duration::from_millis(20));
    let (_, remote) = link.b.tcp_accept(link.now, listener).expect("accepted");
    assert_eq!(remote, local);
    for (_, bytes) in link.seen.iter().filter(|(who, _)| *who == 'a') {
        if let Ok((ip, _)) = ipv4::Header::parse(&bytes[ethernet::LEN..]) {
            assert_eq!(ip.source, A);
        }
    }
}

#[test]
fn what_syn_says_is_what_the_link_carries_must_67() {
    let mut link = Link::new();
    link.seen.clear();
    link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(5));
    let syn = link.seen.iter().find_map(|(who, bytes)| {
        let (ip, payload) = ipv4::Header::parse(&bytes[ethernet::LEN..]).ok()?;
        let segment = bytes[ethernet::LEN..].get(payload)?;
        let (segment, _) = crate::tcp::Segment::parse(A.into(), B.into(), segment).ok()?;
        (*who == 'a' && ip.protocol == protocol::TCP).then_some(segment)
    });
    assert_eq!(syn.expect("a SYN").options.mss, Some(1_500 - 40));
}

#[test]
fn listening_disturbs_no_connection_of_the_same_port_must_41_must_42() {
    let mut link = Link::new();
    link.is_up = false;
    let (id, local) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    assert_eq!(link.a.tcp(id).map(|c| c.state()), Some(State::SynSent));
    let listener = link.a.tcp_listen(link.now, local, 5);
    assert!(listener.is_ok(), "while a connection with this port is in SYN-SENT");
    assert_eq!(link.a.tcp(id).map(|c| c.state()), Some(State::SynSent));
    assert_eq!(link.a.tcp_listen(link.now, local, 5), Err(ListenError::InUse(local)), "or it is an error");
}

#[test]
fn a_passive_open_may_name_the_local_address_must_43() {
    let mut link = Link::new();
    let any = to(Ipv4Addr::UNSPECIFIED, 81);
    let one = link.a.tcp_listen(link.now, to(A, 80), 1).expect("on an address of ours");
    let all = link.a.tcp_listen(link.now, any, 1).expect("on all of them");
    for (port, listener) in [(80, one), (81, all)] {
        link.b.tcp_connect(link.now, to(A, port)).expect("a connection");
        link.run(Duration::from_millis(20));
        let (id, _) = link.a.tcp_accept(link.now, listener).expect("accepted");
        assert_eq!(link.a.tcp(id).map(|c| c.local()), Some(to(A, port)), "bound to the one that was asked");
    }
}

#[test]
fn a_syn_to_everybody_or_from_nobody_is_dropped_silently_must_57_must_63() {
    let mut link = Link::new();
    link.a.tcp_listen(link.now, to(Ipv4Addr::UNSPECIFIED, 80), 5).expect("a listener");
    link.protocols();
    let everybody = Ipv4Addr::new(10, 0, 0, 255);
    let nobodies = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, everybody, Ipv4Addr::new(224, 0, 0, 1)];
    let addresses = nobodies.map(|source| (source, A)).into_iter();
    for (source, destination) in addresses.chain([(B, everybody), (B, Ipv4Addr::new(224, 0, 0, 1))]) {
        let tcp = syn(source, destination);
        let header = ipv4::Header::new(source, destination, protocol::TCP, tcp.len() as u16);
        let bytes = datagram(&link, header, &tcp);
        receive(&mut link.a, link.now, &bytes);
        link.run(Duration::from_millis(5));
        assert_eq!(link.protocols(), [], "from {source} to {destination}");
    }
    let tcp = syn(B, A);
    let good = datagram(&link, ipv4::Header::new(B, A, protocol::TCP, tcp.len() as u16), &tcp);
    receive(&mut link.a, link.now, &good);
    link.run(Duration::from_millis(5));
    assert_ne!(link.protocols(), [], "this one is answered");
}

#[test]
fn an_icmp_error_reaches_the_connection_that_it_quotes_must_54() {
    let mut link = Link::new();
    link.is_up = false;
    let (one, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    let (other, _) = link.a.tcp_connect(link.now, to(B, 81)).expect("a connection");
    link.is_up = true;
    let mac = link.b.mac();
    receive(&mut link.a, link.now, &arp_request(mac, B, A));
    let sent = sent(&mut link.a, link.now);
    let first_syn = sent.iter().find_map(|bytes| {
        let packet = &bytes[ethernet::LEN..];
        let (ip, payload) = ipv4::Header::parse(packet).ok()?;
        let port = packet.get(payload)?.get(2..4)?;
        (ip.protocol == protocol::TCP && port == 80_u16.to_be_bytes()).then(|| packet.to_vec())
    });
    let unreachable = icmpv4::Message::DestinationUnreachable { code: 3, next_hop_mtu: 0 };
    let error = icmp_error(unreachable, &first_syn.expect("its SYN"));
    let bytes = datagram(&link, ipv4::Header::new(B, A, protocol::ICMPV4, error.len() as u16), &error);
    receive(&mut link.a, link.now, &bytes);
    assert_eq!(link.a.tcp(one).and_then(|c| c.error()), Some(Error::Refused));
    assert_eq!(link.a.tcp(other).and_then(|c| c.error()), None);
}

#[test]
fn ip_options_change_nothing_must_50() {
    let mut link = Link::new();
    link.protocols();
    let tcp = syn(B, A);
    let mut plain = datagram(&link, ipv4::Header::new(B, A, protocol::TCP, tcp.len() as u16), &tcp);
    // Four bytes of a kind that nobody knows, with the header's lengths and checksum to match.
    plain.splice(ethernet::LEN + ipv4::LEN..ethernet::LEN + ipv4::LEN, [0x9e, 4, 1, 2]);
    let header = &mut plain[ethernet::LEN..ethernet::LEN + ipv4::LEN + 4];
    header[0] = 0x46;
    header[3] += 4;
    header[10..12].fill(0);
    let checksum = crate::wire::checksum::checksum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    receive(&mut link.a, link.now, &plain);
    link.run(Duration::from_millis(5));
    assert_eq!(link.a.drops().get(DropReason::TcpNoConnection), 1, "it has got as far as TCP");
}

/// The IP headers of the TCP segments that A has sent.
fn headers_from_a(link: &mut Link) -> Vec<ipv4::Header> {
    let sent = link.seen.drain(..).filter(|(who, _)| *who == 'a');
    let headers = sent.filter_map(|(_, bytes)| ipv4::Header::parse(&bytes[ethernet::LEN..]).ok());
    headers.map(|(header, _)| header).filter(|header| header.protocol == protocol::TCP).collect()
}

#[test]
fn the_application_chooses_differentiated_services_must_48_shld_21_shld_22() {
    const EXPEDITED: u8 = 46;
    let mut link = Link::new();
    link.a.set_tcp_config(tcp::Config { dscp: EXPEDITED, ..tcp::Config::default() });
    link.b.tcp_listen(link.now, to(B, 80), 1).expect("a listener");
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(20));
    let sent = headers_from_a(&mut link);
    assert!(sent.len() >= 2 && sent.iter().all(|header| header.tos >> 2 == EXPEDITED), "{sent:?}");
    link.a.tcp_set_dscp(id, 10);
    assert_eq!(link.a.tcp_write(link.now, id, b"bulk"), Ok(4));
    link.run(Duration::from_millis(20));
    let sent = headers_from_a(&mut link);
    assert!(!sent.is_empty() && sent.iter().all(|header| header.tos >> 2 == 10), "{sent:?}");
}

#[test]
fn the_time_to_live_can_be_configured_must_49() {
    let mut link = Link::new();
    for (configured, sent) in [(64, 64), (3, 3), (255, 255), (0, 1)] {
        link.a.set_tcp_config(tcp::Config { hop_limit: configured, ..tcp::Config::default() });
        link.seen.clear();
        link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
        link.run(Duration::from_millis(5));
        assert_eq!(headers_from_a(&mut link)[0].ttl, sent, "{configured}: never zero (RFC 1122 §3.2.1.7)");
    }
}

#[test]
fn answers_of_nobody_have_the_same_time_to_live_must_49() {
    let mut link = Link::new();
    link.a.set_tcp_config(tcp::Config { hop_limit: 9, ..tcp::Config::default() });
    let stray = segment_to(&link.a, 80, 81);
    receive(&mut link.a, link.now, &stray);
    link.run(Duration::from_millis(5));
    assert_eq!(headers_from_a(&mut link)[0].ttl, 9);
}

#[test]
fn excessive_retransmission_is_reported_and_the_first_hop_looked_after_must_20_must_47() {
    let mut link = Link::new();
    link.b.tcp_listen(link.now, to(B, 80), 1).expect("a listener");
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(20));
    link.is_up = false;
    assert_eq!(link.a.tcp_write(link.now, id, b"anybody there?"), Ok(14));
    link.protocols();
    while link.a.poll_event().is_some() {}
    link.run(Duration::from_secs(4));
    let asked = link
        .protocols()
        .into_iter()
        .filter(|&(who, ethertype, _)| (who, ethertype) == ('a', ethernet::ethertype::ARP));
    assert!(asked.count() >= 2, "whether B is still there");
    let report = Event::TcpReport { id, report: tcp::Event::Stalled };
    assert_eq!(std::iter::from_fn(|| link.a.poll_event()).filter(|event| *event == report).count(), 1);
    assert_eq!(link.a.tcp(id).map(|c| c.state()), Some(State::Established), "R1 is not the end");
}
