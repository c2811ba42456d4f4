//! The first hop: VLANs, routes, and neighbours that do not answer.

use super::*;

#[test]
fn rfc4861_7_3_1_what_a_neighbour_sends_is_no_proof_that_it_hears_us() {
    let mut link = Link::new();
    let (client, local) = link.a.udp_bind(to(A, 0)).expect("a socket");
    let (server, _) = link.b.udp_bind(to(B, 53)).expect("a socket");
    for _ in 0..60 {
        link.a.udp_send_to(link.now, client, to(B, 53), b"hello").expect("sent");
        link.b.udp_send_to(link.now, server, local, b"hello").expect("sent");
        link.run(Duration::from_secs(1));
        assert!(link.a.udp_recv_from(client, &mut [0; 10]).is_ok());
        assert!(link.b.udp_recv_from(server, &mut [0; 10]).is_ok());
    }
    let asked = link.seen.iter().filter_map(|(who, bytes)| {
        let (header, at) = ethernet::Header::parse(bytes).ok()?;
        let packet = arp::Packet::parse(&bytes[at..]).ok()?;
        let is_request = packet.operation == arp::Operation::Request && header.destination == link.b.mac();
        (*who == 'a' && is_request).then_some(())
    });
    assert!(asked.count() > 0, "b is asked whether it still is there, though it talks all the time");
}

#[test]
fn ieee_802_1q_a_stack_hears_its_own_vlan_and_no_other() {
    for (vlan, arrives) in [(Some(7), true), (Some(8), false), (None, false)] {
        let mut link = Link::new();
        (link.a, link.b) = (stack_on(Some(7), 1), stack_on(vlan, 2));
        claim(&mut link.a, link.now, A);
        claim(&mut link.b, link.now, B);
        link.run(Duration::from_millis(400));
        let (client, local) = link.a.udp_bind(to(A, 0)).expect("a socket");
        let (server, _) = link.b.udp_bind(to(B, 53)).expect("a socket");
        link.a.udp_send_to(link.now, client, to(B, 53), b"question").expect("sent");
        link.run(Duration::from_secs(5));
        let received = link.b.udp_recv_from(server, &mut [0; 100]);
        assert_eq!(received, if arrives { Ok((8, local)) } else { Err(RecvError::WouldBlock) }, "{vlan:?}");
        assert_eq!(link.b.drops().get(DropReason::EthernetWrongVlan) == 0, arrives);
        link.assert_no_frame_is_missing();
    }
}

#[test]
fn a_neighbour_that_does_not_answer_fails_what_waits_for_it() {
    let mut link = Link::new();
    link.is_up = false;
    let nobody = Ipv4Addr::new(10, 0, 0, 77);
    let (id, _) = link.a.tcp_connect(link.now, to(nobody, 80)).expect("a connection");
    let (socket, _) = link.a.udp_bind(to(A, 0)).expect("a socket");
    link.a.udp_send_to(link.now, socket, to(nobody, 53), b"hello").expect("sent");
    link.run(Duration::from_millis(3_500));
    let error = link.a.tcp(id).and_then(|c| c.error());
    assert_eq!(error, Some(Error::Unreachable(Unreachable::NoNeighbour)));
    let failed = RecvError::Network(NetworkError::HostUnreachable { remote: to(nobody, 53) });
    assert_eq!(link.a.udp_recv_from(socket, &mut [0; 10]), Err(failed));
    // The SYN, its repetition, and the datagram.
    assert_eq!(link.a.drops().get(DropReason::NeighbourUnreachable), 3);
    link.a.tcp_close(link.now, id);
    link.assert_no_frame_is_missing();
}

#[test]
fn what_has_no_route_is_refused_at_once() {
    let mut link = Link::new();
    let far: IpAddr = [192, 0, 2, 1].into();
    assert_eq!(link.a.tcp_connect(link.now, (far, 80).into()), Err(ConnectError::NoRoute(far)));
    let (socket, _) = link.a.udp_bind(to(A, 0)).expect("a socket");
    let error = link.a.udp_send_to(link.now, socket, (far, 53).into(), b"").expect_err("no way there");
    assert_eq!(error, UdpSendError::NoRoute(far));
    for bad in [to(B, 0), to(Ipv4Addr::BROADCAST, 80), to(Ipv4Addr::new(10, 0, 0, 255), 80)] {
        assert_eq!(link.a.tcp_connect(link.now, bad), Err(ConnectError::BadRemote(bad)), "{bad}");
    }
    link.assert_no_frame_is_missing();
}

#[test]
fn rfc9293_3_8_3_when_nothing_is_acknowledged_the_neighbour_is_asked_must_20() {
    let mut link = Link::new();
    let listener = link.b.tcp_listen(link.now, to(B, 80), 1).expect("a listener");
    let (client, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(20));
    assert!(link.b.tcp_accept(link.now, listener).is_some());
    link.is_up = false;
    assert_eq!(link.a.tcp_write(link.now, client, b"anybody?"), Ok(8));
    link.protocols();
    link.run(Duration::from_secs(4));
    let asked = ('a', ethernet::ethertype::ARP, None);
    assert!(link.protocols().contains(&asked), "long before the neighbour's own time is over");
}
