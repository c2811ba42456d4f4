//! Several addresses on one stack: none disturbs the others.

use super::*;
use crate::{
    net::route::{Prefix, Route},
    wire::icmpv4,
};

/// The second address of a.
const A2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const INTRUDER: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

fn two() -> Link {
    let mut link = Link::new();
    claim(&mut link.a, link.now, A2);
    link.run(Duration::from_millis(400));
    assert_eq!(link.a.addresses().collect::<Vec<_>>(), [IpAddr::from(A), A2.into()]);
    link.seen.clear();
    link
}

/// A connection of b to an address of a, accepted there: b's end and a's.
fn connected(link: &mut Link, listener: ListenerId, address: Ipv4Addr, port: u16) -> (TcpId, TcpId) {
    let (client, _) = link.b.tcp_connect(link.now, to(address, port)).expect("a connection");
    link.run(Duration::from_millis(20));
    let (server, _) = link.a.tcp_accept(link.now, listener).expect("accepted");
    assert_eq!(link.a.tcp(server).map(|c| c.local()), Some(to(address, port)));
    (client, server)
}

/// That b's bytes arrive at a, and back.
fn assert_goes_on(link: &mut Link, (client, server): (TcpId, TcpId)) {
    assert_eq!(link.b.tcp_write(link.now, client, b"ping"), Ok(4));
    link.run(Duration::from_millis(20));
    let mut buf = [0; 10];
    assert_eq!(link.a.tcp_read(link.now, server, &mut buf), Ok(4));
    assert_eq!(link.a.tcp_write(link.now, server, b"pong"), Ok(4));
    link.run(Duration::from_millis(20));
    assert_eq!(link.b.tcp_read(link.now, client, &mut buf), Ok(4));
}

fn error(stack: &Stack<Umem>, id: TcpId) -> Option<Error> {
    stack.tcp(id).and_then(|c| c.error())
}

/// Somebody insists on an address of a's.
fn take_from_a(link: &mut Link, address: Ipv4Addr) {
    let bytes = arp_request(INTRUDER, address, address);
    for _ in 0..2 {
        receive(&mut link.a, link.now, &bytes);
    }
    assert_eq!(link.a.address_state(address.into()), Some(AddressEvent::Lost { mac: INTRUDER }));
}

/// Segments that a has sent from an address, with these flags.
fn segments_from(link: &Link, address: Ipv4Addr, flags: Flags) -> usize {
    let is_one = |bytes: &[u8]| {
        let (ip, payload) = ipv4::Header::parse(&bytes[ethernet::LEN..]).ok()?;
        let segment = bytes[ethernet::LEN..].get(payload)?;
        let (segment, _) = Segment::parse(ip.source.into(), ip.destination.into(), segment).ok()?;
        (ip.source == address && segment.flags.contains(flags)).then_some(())
    };
    link.seen.iter().filter(|(who, bytes)| *who == 'a' && is_one(bytes).is_some()).count()
}

/// All ARP packets that a has sent.
fn arp_of_a(link: &Link) -> Vec<arp::Packet> {
    let parse = |bytes: &[u8]| {
        let (header, at) = ethernet::Header::parse(bytes).ok()?;
        (header.ethertype == ethernet::ethertype::ARP)
            .then(|| arp::Packet::parse(&bytes[at..]).ok())
            .flatten()
    };
    link.seen.iter().filter(|(who, _)| *who == 'a').filter_map(|(_, bytes)| parse(bytes)).collect()
}

#[test]
fn claiming_another_address_leaves_the_first_and_its_connections_alone() {
    let mut link = Link::new();
    let listener = link.a.tcp_listen(link.now, to(ANY, 80), 5).expect("a listener");
    let before = connected(&mut link, listener, A, 80);
    claim(&mut link.a, link.now, A2);
    assert_goes_on(&mut link, before);
    assert_eq!(link.a.address_state(A2.into()), Some(AddressEvent::Probing));
    link.run(Duration::from_millis(400));
    let states: Vec<_> = link.a.address_states().collect();
    assert_eq!(states, [(A.into(), AddressEvent::Claimed), (A2.into(), AddressEvent::Claimed)]);
    assert_eq!(link.a.address(), Some(A.into()), "the first");
    assert_goes_on(&mut link, before);
    // A listener on all of them is there for the new one, too.
    let after = connected(&mut link, listener, A2, 80);
    assert_goes_on(&mut link, after);
}

#[test]
fn addresses_are_claimed_at_once_and_keep_their_order() {
    let mut stack = stack(1);
    let start = Instant::from_millis(1_000);
    let wanted = [40, 10, 30, 20].map(|n| Ipv4Addr::new(10, 0, 0, n));
    wanted.into_iter().for_each(|address| claim(&mut stack, start, address));
    let mut now = start;
    while stack.address_states().any(|(_, state)| state == AddressEvent::Probing) {
        now = stack.poll_timeout().expect("it goes on");
        stack.handle_timeout(now);
        sent(&mut stack, now);
    }
    assert_eq!(now - start, Duration::from_millis(260), "as long as one takes");
    assert_eq!(stack.addresses().collect::<Vec<_>>(), wanted.map(IpAddr::from));
}

#[test]
fn rfc5227_2_1_1_a_conflict_about_the_second_does_not_disturb_the_first() {
    let mut link = Link::new();
    let listener = link.a.tcp_listen(link.now, to(A, 80), 5).expect("a listener");
    let ends = connected(&mut link, listener, A, 80);
    claim(&mut link.a, link.now, B);
    link.run(Duration::from_millis(400));
    assert_eq!(link.a.address_state(B.into()), Some(AddressEvent::Refused { mac: link.b.mac() }));
    assert_eq!(link.a.addresses().collect::<Vec<_>>(), [IpAddr::from(A)]);
    assert_goes_on(&mut link, ends);
    // Whoever has it is a neighbour as before, even if it has to be looked for.
    let (socket, _) = link.a.udp_bind(to(A, 0)).expect("a socket");
    let (server, _) = link.b.udp_bind(to(B, 53)).expect("a socket");
    link.a.udp_send_to(link.now, socket, to(B, 53), b"hello").expect("sent");
    link.run(Duration::from_millis(20));
    assert_eq!(link.b.udp_recv_from(server, &mut [0; 10]).map(|(n, _)| n), Ok(5));
}

#[test]
fn an_address_that_was_refused_to_us_is_its_owners_whom_we_can_talk_to() {
    let mut link = Link::new();
    let other = Ipv4Addr::new(10, 0, 0, 50);
    claim(&mut link.a, link.now, other);
    claim(&mut link.b, link.now, other);
    // Each probes for what the other wants: both give up (RFC 5227 §2.1.1). Then b gets it.
    link.run(Duration::from_millis(400));
    link.a.release(link.now, other.into());
    claim(&mut link.a, link.now, Ipv4Addr::new(10, 0, 0, 51));
    claim(&mut link.b, link.now, other);
    link.run(Duration::from_millis(400));
    claim(&mut link.a, link.now, other);
    link.run(Duration::from_millis(400));
    assert_eq!(link.a.address_state(other.into()), Some(AddressEvent::Refused { mac: link.b.mac() }));
    link.b.tcp_listen(link.now, to(other, 80), 5).expect("a listener");
    let (id, _) = link.a.tcp_connect(link.now, to(other, 80)).expect("a connection");
    link.run(Duration::from_millis(50));
    assert_eq!(link.a.tcp(id).map(|c| c.state()), Some(State::Established));
}

#[test]
fn rfc5227_2_4_b_a_lost_address_ends_its_own_connections_and_sockets_only() {
    let mut link = two();
    let all = link.a.tcp_listen(link.now, to(ANY, 80), 5).expect("a listener");
    let one = link.a.tcp_listen(link.now, to(A2, 81), 5).expect("a listener");
    let kept = connected(&mut link, all, A, 80);
    let ended = connected(&mut link, all, A2, 80);
    let sockets =
        [A, A2, ANY].map(|ip| link.a.udp_bind(to(ip, if ip == ANY { 8 } else { 7 })).expect("a socket").0);
    link.seen.clear();

    take_from_a(&mut link, A2);
    link.run(Duration::from_millis(50));
    assert_eq!(error(&link.a, ended.1), Some(Error::AddressLost));
    assert_eq!(segments_from(&link, A2, Flags::default()), 0, "nothing more is said from it");
    assert_goes_on(&mut link, kept);
    assert!(link.a.tcp_listener(one).is_none(), "nothing can come there any more");
    assert!(link.a.tcp_listener(all).is_some());
    let told = sockets.map(|id| link.a.udp_recv_from(id, &mut []));
    assert_eq!(told, [Err(RecvError::WouldBlock), Err(RecvError::AddressLost), Err(RecvError::WouldBlock)]);
    assert_eq!(link.a.addresses().collect::<Vec<_>>(), [IpAddr::from(A)]);

    take_from_a(&mut link, A);
    assert_eq!(link.a.udp_recv_from(sockets[2], &mut []), Err(RecvError::AddressLost), "none is left");
    claim(&mut link.a, link.now, Ipv4Addr::new(10, 0, 0, 4));
    link.run(Duration::from_millis(400));
    assert_eq!(link.a.udp_recv_from(sockets[2], &mut []), Err(RecvError::WouldBlock), "there is one again");
}

#[test]
fn rfc5227_2_4_b_what_waits_for_a_neighbour_is_not_sent_from_a_lost_address() {
    let mut link = two();
    let far = Ipv4Addr::new(10, 0, 0, 77);
    for source in [A, A2] {
        let (socket, _) = link.a.udp_bind(to(source, 7)).expect("a socket");
        link.a.udp_send_to(link.now, socket, to(far, 7), b"hello").expect("sent");
    }
    link.run(Duration::from_millis(5));
    take_from_a(&mut link, A2);
    let mac = MacAddr([2, 0, 0, 0, 0, 7]);
    receive(&mut link.a, link.now, &arp_request(mac, far, A));
    let from = |bytes: &Vec<u8>| ipv4::Header::parse(&bytes[ethernet::LEN..]).ok().map(|(ip, _)| ip.source);
    let said: Vec<_> = sent(&mut link.a, link.now).iter().filter_map(from).collect();
    assert_eq!(said, [A]);
    assert_eq!(link.a.drops().get(DropReason::NoRoute), 1);
    link.assert_no_frame_is_missing();
}

#[test]
fn a_released_address_resets_its_connections_and_is_answered_for_no_more() {
    let mut link = two();
    let all = link.a.tcp_listen(link.now, to(ANY, 80), 5).expect("a listener");
    let one = link.a.tcp_listen(link.now, to(A2, 81), 5).expect("a listener");
    let kept = connected(&mut link, all, A, 80);
    let ended = connected(&mut link, all, A2, 80);
    let (socket, _) = link.a.udp_bind(to(A2, 7)).expect("a socket");
    link.seen.clear();

    link.a.release(link.now, A2.into());
    link.run(Duration::from_millis(20));
    assert_eq!(segments_from(&link, A2, Flags::RST), 1);
    assert_eq!(segments_from(&link, A, Flags::RST), 0);
    assert_eq!(error(&link.b, ended.0), Some(Error::Reset), "the peer knows");
    assert_eq!(error(&link.a, ended.1), Some(Error::Aborted));
    assert_eq!(link.a.address_state(A2.into()), None);
    assert!(link.a.tcp_listener(one).is_none());
    assert_eq!(link.a.udp_recv_from(socket, &mut []), Err(RecvError::AddressLost));
    assert_goes_on(&mut link, kept);

    // Nobody is told anything in its name, whatever comes.
    link.seen.clear();
    let dropped = link.a.drops().get(DropReason::Ipv4NotForUs);
    receive(&mut link.a, link.now, &arp_request(link.b.mac(), B, A2));
    link.b.tcp_connect(link.now, to(A2, 80)).expect("an attempt");
    link.run(Duration::from_millis(20));
    assert_eq!(link.a.drops().get(DropReason::Ipv4NotForUs), dropped + 1);
    assert_eq!((arp_of_a(&link), segments_from(&link, A2, Flags::default())), (vec![], 0));
    assert_eq!(
        link.a.tcp_connect_with(link.now, Some(to(A2, 0)), to(B, 80), None),
        Err(ConnectError::NotOurs(A2.into()))
    );
    assert_eq!(link.a.tcp_listen(link.now, to(A2, 80), 1), Err(ListenError::NotOurs(A2.into())));
}

#[test]
fn an_address_that_is_given_up_lets_its_connections_finish_and_begins_no_new_ones() {
    let mut link = two();
    let all = link.a.tcp_listen(link.now, to(ANY, 80), 5).expect("a listener");
    let ends = connected(&mut link, all, A2, 80);
    let kept = connected(&mut link, all, A, 80);
    link.a.give_up(link.now, A2.into());
    assert_eq!(link.a.address_state(A2.into()), Some(AddressEvent::Leaving));
    assert_goes_on(&mut link, ends);
    assert!(link.a.has_unfinished_connections_at(A2.into()));

    let (late, _) = link.b.tcp_connect(link.now, to(A2, 80)).expect("an attempt");
    link.run(Duration::from_millis(20));
    assert_eq!(error(&link.b, late), Some(Error::Refused), "as where nobody listens");
    assert_eq!(
        link.a.tcp_connect_with(link.now, Some(to(A2, 0)), to(B, 80), None),
        Err(ConnectError::NotOurs(A2.into()))
    );

    link.b.tcp_close(link.now, ends.0);
    link.run(Duration::from_millis(20));
    link.a.tcp_close(link.now, ends.1);
    link.run(Duration::from_millis(20));
    assert!(!link.a.has_unfinished_connections_at(A2.into()));
    link.seen.clear();
    link.a.release(link.now, A2.into());
    link.run(Duration::from_millis(20));
    assert_eq!(link.a.address_state(A2.into()), None);
    assert_eq!(segments_from(&link, A2, Flags::RST), 0, "there was nobody to reset");
    assert_goes_on(&mut link, kept);
}

#[test]
fn a_release_ends_although_connections_of_another_address_always_have_something_to_send() {
    let mut link = two();
    let all = link.a.tcp_listen(link.now, to(ANY, 80), 20).expect("a listener");
    let busy: Vec<_> = (0..6).map(|_| connected(&mut link, all, A, 80).1).collect();
    let ended = connected(&mut link, all, A2, 80);
    for &id in &busy {
        assert_eq!(link.a.tcp_write(link.now, id, &[0; 3_000]), Ok(3_000), "more than a segment");
    }
    link.a.release(link.now, A2.into());
    // Each has its turn, and then the first has its second.
    let mut frames = Vec::new();
    for _ in 0..8 {
        let frame = link.a.poll_transmit(link.now).expect("there is always something");
        frames.push(link.a.pool().tx_gather(&frame).to_vec());
        link.a.handle_completion(link.now, frame.into_completed());
    }
    assert_eq!(link.a.address_state(A2.into()), None);
    link.now += Duration::from_millis(1);
    frames.iter().for_each(|bytes| receive(&mut link.b, link.now, bytes));
    assert_eq!(error(&link.b, ended.0), Some(Error::Reset), "the peer knows");
    assert!(link.a.poll_transmit(link.now).is_some_and(|frame| {
        link.a.handle_completion(link.now, frame.into_completed());
        true
    }));
}

#[test]
fn an_address_that_is_given_up_can_be_kept_after_all() {
    let mut link = two();
    let all = link.a.tcp_listen(link.now, to(ANY, 80), 5).expect("a listener");
    let ends = connected(&mut link, all, A2, 80);
    link.a.give_up(link.now, A2.into());
    claim(&mut link.a, link.now, A2);
    assert_eq!(link.a.address_state(A2.into()), Some(AddressEvent::Claimed), "it was ours all the time");
    assert_goes_on(&mut link, ends);
    connected(&mut link, all, A2, 80);
}

#[test]
fn a_claim_that_is_withdrawn_asks_no_more() {
    let mut link = Link::new();
    link.run(Duration::from_secs(5));
    claim(&mut link.a, link.now, A2);
    link.run(Duration::from_millis(70));
    link.seen.clear();
    link.a.release(link.now, A2.into());
    link.run(Duration::from_secs(1));
    assert_eq!((link.a.address_state(A2.into()), arp_of_a(&link)), (None, vec![]));
}

#[test]
fn rfc1122_3_3_4_3_connections_and_datagrams_come_from_the_address_in_the_peers_subnet() {
    let mut link = Link::new();
    let wide: Prefix = "192.0.2.0/24".parse().expect("a prefix");
    let (near, router) = (Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 254));
    link.a.claim(link.now, near, wide, Some(router), 1_500, Schedule::Fast).expect("a good address");
    link.run(Duration::from_millis(400));
    let (socket, local) = link.a.udp_bind(to(ANY, 7)).expect("a socket");
    assert_eq!(local, to(ANY, 7));
    link.b.udp_bind(to(B, 7)).expect("a socket");
    for (remote, source) in [
        (B, A),
        (Ipv4Addr::new(192, 0, 2, 77), near),
        // The first that has a router.
        (Ipv4Addr::new(198, 51, 100, 1), near),
    ] {
        let (_, local) = link.a.tcp_connect(link.now, to(remote, 80)).expect("a route");
        assert_eq!(local.ip(), IpAddr::from(source), "to {remote}");
        link.seen.clear();
        link.a.udp_send_to(link.now, socket, to(remote, 7), b"hello").expect("sent");
        link.run(Duration::from_millis(20));
        // What is asked on its behalf names the same address.
        let asks = arp_of_a(&link).into_iter().filter(|packet| packet.target_ip != packet.sender_ip);
        asks.for_each(|packet| assert_eq!(packet.sender_ip, source, "to {remote}"));
    }
    // Somebody's choice goes first.
    let (_, local) = link.a.tcp_connect_with(link.now, Some(to(near, 0)), to(B, 80), None).expect("a route");
    assert_eq!(local.ip(), IpAddr::from(near));
    let foreign = link.a.tcp_connect_with(link.now, Some(to(B, 0)), to(B, 80), None);
    assert_eq!(foreign, Err(ConnectError::NotOurs(B.into())));
    // RFC 1122 §4.1.3.5: a socket may be on one address, and a connected one stays with one.
    link.a.udp_connect(socket, to(B, 7));
    assert_eq!(link.a.udp_local(socket), Some(to(A, 7)));
}

#[test]
fn rfc826_the_link_is_asked_in_the_name_of_the_address_that_has_something_to_send() {
    let mut link = two();
    for (source, target) in [(A2, 70), (A, 71), (A2, 72)] {
        let (socket, _) = link.a.udp_bind(to(source, 0)).expect("a socket");
        link.a.udp_send_to(link.now, socket, to(Ipv4Addr::new(10, 0, 0, target), 7), b"hello").expect("sent");
    }
    link.run(Duration::from_millis(200));
    let asked: Vec<_> =
        arp_of_a(&link).iter().map(|packet| (packet.sender_ip, packet.target_ip.octets()[3])).collect();
    for question in [(A2, 70), (A, 71), (A2, 72)] {
        assert!(asked.iter().filter(|&&asked| asked == question).count() >= 2, "{asked:?}");
    }
    assert_eq!(asked.len(), 6, "{asked:?}");
}

#[test]
fn rfc1122_3_2_2_6_a_ping_is_answered_by_the_address_that_was_asked() {
    for address in [A, A2] {
        let mut link = two();
        let mut ping = vec![0; icmpv4::LEN];
        icmpv4::Message::EchoRequest { identifier: 1, sequence: 2 }.emit(&mut ping);
        assert_eq!(answers(&mut link, address, protocol::ICMPV4, &ping), [(address, protocol::ICMPV4)]);
    }
}

#[test]
fn an_error_comes_from_the_address_that_the_datagram_was_sent_to() {
    for address in [A, A2] {
        let mut link = two();
        assert_eq!(answers(&mut link, address, 99, b"what is this?"), [(address, protocol::ICMPV4)]);
    }
}

/// The source and protocol of what a says when b sends it a datagram.
fn answers(link: &mut Link, address: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<(Ipv4Addr, u8)> {
    let mut bytes = vec![0; ethernet::LEN + ipv4::LEN];
    let header = ethernet::Header {
        destination: link.a.mac(),
        source: link.b.mac(),
        vlan: None,
        ethertype: ethernet::ethertype::IPV4,
    };
    header.emit(&mut bytes);
    ipv4::Header::new(B, address, protocol, payload.len() as u16).emit(&mut bytes[ethernet::LEN..]);
    bytes.extend_from_slice(payload);
    receive(&mut link.a, link.now, &bytes);
    let said = sent(&mut link.a, link.now);
    let parsed = said.iter().filter_map(|bytes| ipv4::Header::parse(&bytes[ethernet::LEN..]).ok());
    parsed.map(|(ip, _)| (ip.source, ip.protocol)).collect()
}

/// RFC 1122 §4.1.3.5.
#[test]
fn datagrams_to_each_address_find_the_socket_that_is_bound_to_it() {
    let mut link = two();
    let sockets = [A, A2].map(|ip| link.a.udp_bind(to(ip, 7)).expect("a socket").0);
    let (client, from) = link.b.udp_bind(to(B, 9)).expect("a socket");
    link.b.udp_send_to(link.now, client, to(A2, 7), b"hello").expect("sent");
    link.run(Duration::from_millis(20));
    let got = sockets.map(|id| link.a.udp_recv_from(id, &mut [0; 10]));
    assert_eq!(got, [Err(RecvError::WouldBlock), Ok((5, from))]);
    link.a.udp_send_to(link.now, sockets[1], from, b"hello").expect("sent");
    link.run(Duration::from_millis(20));
    assert_eq!(link.b.udp_recv_from(client, &mut [0; 10]), Ok((5, to(A2, 7))));
}

/// A socket on all addresses can answer from the one that was asked, as who asked expects (RFC 1122 §4.1.3.5).
#[test]
fn a_socket_on_all_addresses_hears_which_was_meant_and_answers_from_it() {
    let mut link = two();
    let (server, _) = link.a.udp_bind(to(ANY, 53)).expect("a socket");
    let (client, local) = link.b.udp_bind(to(B, 0)).expect("a socket");
    for asked in [A2, A] {
        link.b.udp_connect(client, to(asked, 53));
        link.b.udp_send_to(link.now, client, to(asked, 53), b"question").expect("sent");
        link.run(Duration::from_millis(10));
        let received = link.a.udp_recv(server, &mut [0; 100]).expect("a question");
        assert_eq!((received.from, received.to), (local, asked.into()));
        let fields = crate::wire::IpFields::default();
        link.a.udp_send_with(link.now, server, local, Some(received.to), fields, b"answer").expect("sent");
        link.run(Duration::from_millis(10));
        // A connected socket takes it from nobody else.
        assert_eq!(link.b.udp_recv_from(client, &mut [0; 100]), Ok((6, to(asked, 53))));
    }
    let foreign = Some(Ipv4Addr::new(10, 0, 0, 77).into());
    let error = link.a.udp_send_with(link.now, server, local, foreign, Default::default(), b"forged");
    assert_eq!(error, Err(UdpSendError::NoAddress));
}

#[test]
fn one_peer_may_have_the_same_ports_at_two_addresses() {
    let mut link = two();
    let all = link.a.tcp_listen(link.now, to(ANY, 80), 5).expect("a listener");
    let mut ends = Vec::new();
    for address in [A, A2] {
        let from = Some(to(B, 5_000));
        let (client, _) = link.b.tcp_connect_with(link.now, from, to(address, 80), None).expect("a port");
        link.run(Duration::from_millis(20));
        let (server, _) = link.a.tcp_accept(link.now, all).expect("accepted");
        ends.push((client, server));
    }
    for ends in ends {
        assert_goes_on(&mut link, ends);
    }
}

#[test]
fn an_adopted_address_is_used_but_neither_probed_for_nor_defended() {
    let mut link = Link::new();
    link.run(Duration::from_secs(5));
    link.seen.clear();
    let prefix = "10.0.0.0/24".parse().expect("a prefix");
    link.a.adopt(Route::new(A2.into(), prefix, None, 1_500).expect("valid")).expect("a new one");
    let all = link.a.tcp_listen(link.now, to(A2, 80), 5).expect("a listener");
    let ends = connected(&mut link, all, A2, 80);
    assert_goes_on(&mut link, ends);
    assert!(
        arp_of_a(&link).iter().all(|packet| packet.operation == arp::Operation::Reply),
        "it speaks when asked"
    );
    receive(&mut link.a, link.now, &arp_request(INTRUDER, A2, A2));
    link.seen.clear();
    link.run(Duration::from_millis(20));
    assert_eq!(arp_of_a(&link), [], "who claimed it defends it");
    assert_eq!(link.a.neighbour(A2.into()), None);

    link.a.abandon(link.now, A2.into());
    link.run(Duration::from_millis(20));
    assert_eq!(error(&link.a, ends.1), Some(Error::AddressLost));
    assert_eq!((segments_from(&link, A2, Flags::RST), link.a.address_state(A2.into())), (0, None));
}

#[test]
fn there_are_never_more_addresses_than_the_limit() {
    let mut stack = stack(1);
    let now = Instant::from_millis(1_000);
    let prefix: Prefix = "10.0.0.0/16".parse().expect("a prefix");
    let address = |n: usize| Ipv4Addr::from_bits(u32::from_be_bytes([10, 0, 1, 0]) + n as u32);
    let mut claim = |n| stack.claim(now, address(n), prefix, None, 1_500, Schedule::Fast);
    for n in 0..MAX_ADDRESSES {
        assert_eq!(claim(n), Ok(()));
    }
    assert_eq!(claim(0), Err(ClaimError::Again(address(0).into())));
    assert_eq!(claim(MAX_ADDRESSES), Err(ClaimError::TooMany(address(MAX_ADDRESSES).into())));
    // One that is somebody else's makes room.
    receive(&mut stack, now, &arp_request(INTRUDER, address(5), address(5)));
    assert_eq!(stack.address_state(address(5).into()), Some(AddressEvent::Refused { mac: INTRUDER }));
    let last = address(MAX_ADDRESSES);
    assert_eq!(stack.claim(now, last, prefix, None, 1_500, Schedule::Fast), Ok(()));
    assert_eq!(stack.address_states().count(), MAX_ADDRESSES);
}

#[test]
fn an_address_is_not_the_router_of_another() {
    let mut link = two();
    let prefix: Prefix = "10.0.0.0/24".parse().expect("a prefix");
    let mut claim = |address: Ipv4Addr, gateway| {
        link.a.claim(link.now, address, prefix, Some(gateway), 1_500, Schedule::Fast)
    };
    let (other, router) = (Ipv4Addr::new(10, 0, 0, 60), Ipv4Addr::new(10, 0, 0, 254));
    assert!(matches!(claim(other, A2), Err(ClaimError::Route(_))));
    assert_eq!(claim(other, router), Ok(()));
    assert!(matches!(claim(router, A2), Err(ClaimError::Route(_))));
}
