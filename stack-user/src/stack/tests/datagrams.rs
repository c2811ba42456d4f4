//! Datagrams, pings, errors, and what comes in parts.

use super::*;

#[test]
fn datagrams_go_both_ways_and_the_first_waits_for_arp() {
    let mut link = Link::new();
    link.protocols();
    let (client, local) = link.a.udp_bind(to(A, 0)).expect("a socket");
    let (server, _) = link.b.udp_bind(to(B, 53)).expect("a socket");
    link.a.udp_send_to(link.now, client, to(B, 53), b"question").expect("sent");
    link.run(Duration::from_millis(5));
    let arp = ethernet::ethertype::ARP;
    let ip = ethernet::ethertype::IPV4;
    assert_eq!(
        link.protocols(),
        [('a', arp, None), ('b', arp, None), ('a', ip, Some(protocol::UDP))],
        "a question, its answer, and then the datagram"
    );
    let mut buf = [0; 100];
    assert_eq!(link.b.udp_recv_from(server, &mut buf), Ok((8, local)));
    assert_eq!(&buf[..8], b"question");
    link.b.udp_send_to(link.now, server, local, b"answer").expect("sent");
    link.run(Duration::from_millis(5));
    assert_eq!(link.protocols(), [('b', ip, Some(protocol::UDP))], "b learned a's address from its question");
    assert_eq!(link.a.udp_recv_from(client, &mut buf), Ok((6, to(B, 53))));
    assert_eq!(link.a.udp_recv_from(client, &mut buf), Err(RecvError::WouldBlock));
    link.assert_no_frame_is_missing();
}

/// Drivers hand a short frame over with the padding that was on the wire (igb), or without (virtio).
#[test]
fn the_padding_of_a_short_frame_is_no_data() {
    for padded_to in [ethernet::LEN + ipv4::LEN + 8 + 2, 60] {
        let mut link = Link::new();
        let (server, _) = link.b.udp_bind(to(B, 53)).expect("a socket");
        let mut bytes = datagram_from_a(&link, b"hi");
        bytes.resize(padded_to, 0xee);
        receive(&mut link.b, link.now, &bytes);
        let mut buf = [0; 100];
        assert_eq!(link.b.udp_recv_from(server, &mut buf), Ok((2, to(A, 1_000))), "{padded_to} bytes");
        assert_eq!(&buf[..2], b"hi");
        link.assert_no_frame_is_missing();
    }
}

/// So is the padding behind a segment: by far most of the short frames are ACKs.
#[test]
fn the_padding_of_a_bare_ack_is_no_data() {
    let mut link = Link::new();
    let mut ack = segment_to(&link.a, 1_000, 80);
    assert_eq!(ack.len(), 54);
    ack.resize(60, 0xee);
    receive(&mut link.a, link.now, &ack);
    assert_eq!(link.a.drops().get(DropReason::TcpNoConnection), 1, "{:?}", link.a.drops());
}

/// A driver may cut frames to its buffers without a word: igb does, to 1024 bytes if chunks have 2048.
#[test]
fn what_came_cut_short_is_counted_and_never_handed_on() {
    let mut link = Link::new();
    let (server, _) = link.b.udp_bind(to(B, 53)).expect("a socket");
    let whole = datagram_from_a(&link, &[0xab; 1_472]);
    assert_eq!(whole.len(), 1_514);
    for cut in [1_024, whole.len() - 1] {
        receive(&mut link.b, link.now, &whole[..cut]);
    }
    let mut buf = [0; 2_000];
    assert_eq!(link.b.udp_recv_from(server, &mut buf), Err(RecvError::WouldBlock));
    assert_eq!(link.b.drops().get(DropReason::Ipv4Truncated), 2, "{:?}", link.b.drops());
    receive(&mut link.b, link.now, &whole);
    assert_eq!(link.b.udp_recv_from(server, &mut buf), Ok((1_472, to(A, 1_000))));
    link.assert_no_frame_is_missing();
}

/// The frame of a datagram from port 1000 of a to port 53 of b.
fn datagram_from_a(link: &Link, data: &[u8]) -> Vec<u8> {
    let mut datagram = [&[0; 8], data].concat();
    let header = crate::wire::udp::Header { source_port: 1_000, destination_port: 53 };
    header.emit(A.into(), B.into(), &mut datagram);
    let mut bytes = vec![0; ethernet::LEN + ipv4::LEN];
    write_ethernet(link, &mut bytes);
    let header = ipv4::Header::new(A, B, protocol::UDP, datagram.len() as u16);
    header.emit(&mut bytes[ethernet::LEN..]);
    [bytes, datagram].concat()
}

/// RFC 1122 §3.2.2.1.
#[test]
fn rfc1122_4_1_3_1_a_datagram_for_no_socket_is_answered_and_the_answer_believed() {
    let mut link = Link::new();
    let (client, _) = link.a.udp_bind(to(A, 0)).expect("a socket");
    link.a.udp_send_to(link.now, client, to(B, 9), b"anybody?").expect("sent");
    link.run(Duration::from_millis(10));
    let refused = RecvError::Network(NetworkError::Refused { remote: to(B, 9) });
    assert_eq!(link.a.udp_recv_from(client, &mut [0; 10]), Err(refused));
    assert_eq!(link.b.drops().get(DropReason::UdpNoSocket), 1);
    link.assert_no_frame_is_missing();
}

/// RFC 1122 §2.3.3, RFC 894: in Ethernet frames.
#[test]
fn rfc1122_3_2_2_6_pings_are_answered() {
    let mut link = Link::new();
    let mut request = vec![0; ethernet::LEN + ipv4::LEN + 8 + 5];
    write_ethernet(&link, &mut request);
    ipv4::Header::new(A, B, protocol::ICMPV4, 13).emit(&mut request[ethernet::LEN..]);
    request[ethernet::LEN + ipv4::LEN + 8..].copy_from_slice(b"hello");
    let echo = crate::wire::icmpv4::Message::EchoRequest { identifier: 1, sequence: 2 };
    echo.emit(&mut request[ethernet::LEN + ipv4::LEN..]);
    link.protocols();
    receive(&mut link.b, link.now, &request);
    link.run(Duration::from_millis(10));
    let answer = ('b', ethernet::ethertype::IPV4, Some(protocol::ICMPV4));
    assert!(link.protocols().contains(&answer));
    assert_eq!(link.a.drops().get(DropReason::IcmpUnmatched), 1, "an answer that nobody here asked for");
    link.assert_no_frame_is_missing();
}

#[test]
fn rfc791_a_datagram_in_parts_is_put_together() {
    let mut link = Link::new();
    let (server, _) = link.b.udp_bind(to(B, 53)).expect("a socket");
    let mut datagram = vec![0xab; 8 + 3_000];
    crate::wire::udp::Header { source_port: 1_000, destination_port: 53 }.emit(
        A.into(),
        B.into(),
        &mut datagram,
    );
    let parts: Vec<_> = datagram.chunks(1_480).collect();
    // The last part comes first.
    for (n, part) in parts.iter().enumerate().rev() {
        let mut bytes = vec![0; ethernet::LEN + ipv4::LEN];
        write_ethernet(&link, &mut bytes);
        let ip = ipv4::Header {
            dont_fragment: false,
            more_fragments: n + 1 < parts.len(),
            fragment_offset: (n * 1_480) as u16,
            identification: 7,
            ..ipv4::Header::new(A, B, protocol::UDP, part.len() as u16)
        };
        ip.emit(&mut bytes[ethernet::LEN..]);
        bytes.extend_from_slice(part);
        receive(&mut link.b, link.now, &bytes);
    }
    let mut buf = [0; 4_000];
    assert_eq!(link.b.udp_recv_from(server, &mut buf), Ok((3_000, to(A, 1_000))));
    assert!(buf[..3_000].iter().all(|&byte| byte == 0xab));
    link.assert_no_frame_is_missing();
}

/// The fragments of a datagram from A to B, the last first.
fn in_parts(link: &Link, proto: u8, payload: &[u8], size: usize) -> Vec<Vec<u8>> {
    let parts: Vec<_> = payload.chunks(size).collect();
    let part = |n: usize| {
        let mut bytes = vec![0; ethernet::LEN + ipv4::LEN];
        write_ethernet(link, &mut bytes);
        let ip = ipv4::Header {
            dont_fragment: false,
            more_fragments: n + 1 < parts.len(),
            fragment_offset: (n * size) as u16,
            identification: 7,
            ..ipv4::Header::new(A, B, proto, parts[n].len() as u16)
        };
        ip.emit(&mut bytes[ethernet::LEN..]);
        bytes.extend_from_slice(parts[n]);
        bytes
    };
    (0..parts.len()).rev().map(part).collect()
}

#[test]
fn rfc791_segments_and_pings_in_parts_are_put_together() {
    let mut link = Link::new();
    link.b.tcp_listen(link.now, to(B, 80), 1).expect("a listener");
    let options = Options { mss: Some(1460), sack_permitted: true, ..Options::default() };
    let syn = Segment { flags: Flags::SYN, options, ..Segment::between(4_000, 80) };
    let mut tcp = vec![0; syn.header_len()];
    syn.emit(A.into(), B.into(), 0, &mut tcp);
    link.run(Duration::from_millis(10));
    link.protocols();
    for bytes in in_parts(&link, protocol::TCP, &tcp, 16) {
        receive(&mut link.b, link.now, &bytes);
    }
    link.run(Duration::from_millis(1));
    assert_eq!(link.protocols(), [('b', ethernet::ethertype::IPV4, Some(protocol::TCP))], "SYN with ACK");

    let mut ping = vec![0; 8 + 300];
    let echo = crate::wire::icmpv4::Message::EchoRequest { identifier: 1, sequence: 2 };
    echo.emit(&mut ping);
    for bytes in in_parts(&link, protocol::ICMPV4, &ping, 104) {
        receive(&mut link.b, link.now, &bytes);
    }
    let answers = sent(&mut link.b, link.now);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].len(), ethernet::LEN + ipv4::LEN + ping.len());

    for bytes in in_parts(&link, protocol::ICMPV4, &vec![0; 8_000], 1_480) {
        receive(&mut link.b, link.now, &bytes);
    }
    assert_eq!(link.b.drops().get(DropReason::FragmentTooLong), 1);
    link.run(Duration::from_millis(10));
    link.assert_no_frame_is_missing();
}

#[test]
fn rfc1122_3_2_2_a_broadcast_in_parts_is_not_answered_with_an_error() {
    let mut link = Link::new();
    let mut bytes = vec![0; ethernet::LEN + ipv4::LEN + 8];
    let header = ethernet::Header {
        destination: MacAddr::BROADCAST,
        source: link.a.mac(),
        vlan: None,
        ethertype: ethernet::ethertype::IPV4,
    };
    header.emit(&mut bytes);
    let ip = ipv4::Header {
        dont_fragment: false,
        more_fragments: true,
        ..ipv4::Header::new(A, Ipv4Addr::BROADCAST, protocol::UDP, 8)
    };
    ip.emit(&mut bytes[ethernet::LEN..]);
    receive(&mut link.b, link.now, &bytes);
    link.run(Duration::from_secs(5));
    link.protocols();
    link.run(Duration::from_secs(30));
    assert_eq!(link.protocols(), [], "neither at once nor when the other parts don't come");
}
