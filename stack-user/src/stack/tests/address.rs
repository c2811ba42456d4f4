//! Claiming an address, and losing it (RFC 5227).

use super::*;

#[test]
fn rfc5227_an_address_that_is_in_use_is_refused_and_its_owner_named() {
    let mut link = Link::new();
    claim(&mut link.b, link.now, A);
    link.run(Duration::from_millis(400));
    assert_eq!(link.b.address_state(A.into()), Some(AddressEvent::Refused { mac: link.a.mac() }));
    assert_eq!(link.b.address(), Some(B.into()), "and the one who wanted it keeps what it had");
    assert_eq!(link.a.address_state(A.into()), Some(AddressEvent::Claimed), "its owner goes on");
    link.assert_no_frame_is_missing();
}

#[test]
fn rfc5227_nothing_is_said_from_an_address_before_it_is_ours() {
    let mut stack = stack(1);
    let now = Instant::from_millis(1_000);
    claim(&mut stack, now, A);
    stack.handle_timeout(now);
    for bytes in sent(&mut stack, now) {
        let (_, at) = ethernet::Header::parse(&bytes).expect("Ethernet");
        assert!(arp::Packet::parse(&bytes[at..]).expect("ARP").is_probe());
    }
    assert_eq!(stack.tcp_connect(now, to(B, 80)), Err(ConnectError::NoAddress));
    assert!(matches!(stack.udp_bind(to(A, 0)), Err(UdpBindError::NoAddress)));
}

#[test]
fn rfc5227_a_lost_address_ends_its_connections() {
    let mut link = Link::new();
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    // Somebody insists on our address: twice within the interval.
    let intruder = MacAddr([2, 0, 0, 0, 0, 9]);
    let bytes = arp_request(intruder, A, A);
    receive(&mut link.a, link.now, &bytes);
    assert_eq!(link.a.address_state(A.into()), Some(AddressEvent::Claimed), "defended once");
    receive(&mut link.a, link.now, &bytes);
    assert_eq!(link.a.address_state(A.into()), Some(AddressEvent::Lost { mac: intruder }));
    let error = link.a.tcp(id).and_then(|c| c.error());
    assert_eq!(error, Some(Error::AddressLost), "the reason, not what we did about it");
    link.run(Duration::from_secs(5));
    link.a.tcp_close(link.now, id);
    link.run(Duration::from_millis(10));
    link.assert_no_frame_is_missing();
}
