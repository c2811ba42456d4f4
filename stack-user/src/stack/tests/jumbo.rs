//! A link with an MTU of 9000: frames that lie in several chunks, in and out.

use super::*;

const MTU: u16 = 9_000;

fn jumbo_link() -> Link {
    let now = Instant::from_millis(1_000);
    let mut link = Link { now, a: stack(1), b: stack(2), seen: Vec::new(), is_up: true };
    let prefix = "10.0.0.0/24".parse().expect("a prefix");
    for (stack, address) in [(&mut link.a, A), (&mut link.b, B)] {
        stack.claim(now, address, prefix, None, MTU, Schedule::Fast).expect("a good address");
    }
    link.run(Duration::from_millis(400));
    link
}

/// The longest frame that was sent since the last call.
fn longest(link: &mut Link) -> usize {
    link.seen.drain(..).map(|(_, bytes)| bytes.len()).max().unwrap_or(0)
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8)) as u8).collect()
}

#[test]
fn a_datagram_of_8000_bytes_goes_in_one_frame_both_ways() {
    let mut link = jumbo_link();
    let (client, local) = link.a.udp_bind(to(A, 0)).expect("a socket");
    let (server, _) = link.b.udp_bind(to(B, 53)).expect("a socket");
    let (question, answer) = (content(8_000), content(8_972));
    link.a.udp_send_to(link.now, client, to(B, 53), &question).expect("sent");
    link.run(Duration::from_millis(5));
    let mut buf = vec![0; 10_000];
    assert_eq!(link.b.udp_recv_from(server, &mut buf), Ok((8_000, local)));
    assert_eq!(buf[..8_000], question);
    link.b.udp_send_to(link.now, server, local, &answer).expect("sent");
    link.run(Duration::from_millis(5));
    assert_eq!(link.a.udp_recv_from(client, &mut buf), Ok((8_972, to(B, 53))));
    assert_eq!(buf[..8_972], answer);
    assert_eq!(longest(&mut link), 9_014);
    link.assert_no_frame_is_missing();
}

#[test]
fn a_ping_of_8000_bytes_is_answered_with_all_of_them() {
    let mut link = jumbo_link();
    let data = content(8_000);
    let mut message = [&[8, 0, 0, 0, 0, 7, 0, 1][..], &data].concat();
    let sum = crate::wire::checksum::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = ipv4::Header::new(A, B, protocol::ICMPV4, message.len() as u16);
    let mut frame = vec![0; ethernet::LEN + ipv4::LEN];
    let ethernet = ethernet::Header {
        destination: link.b.mac(),
        source: link.a.mac(),
        vlan: None,
        ethertype: ethernet::ethertype::IPV4,
    };
    ethernet.emit(&mut frame);
    header.emit(&mut frame[ethernet::LEN..]);
    frame.extend(&message);
    receive(&mut link.b, link.now, &frame);
    let replies = sent(&mut link.b, link.now);
    let [reply] = &replies[..] else { panic!("one reply, not {}", replies.len()) };
    let reply = &reply[ethernet::LEN + ipv4::LEN..];
    assert_eq!((reply[0], crate::wire::checksum::checksum(reply)), (0, 0));
    assert_eq!(reply[8..], data);
    link.assert_no_frame_is_missing();
}

#[test]
fn a_datagram_for_nobody_is_answered_with_an_error_that_quotes_its_front() {
    let mut link = jumbo_link();
    let (client, _) = link.a.udp_bind(to(A, 0)).expect("a socket");
    link.a.udp_send_to(link.now, client, to(B, 53), &content(8_000)).expect("sent");
    link.run(Duration::from_millis(5));
    assert_eq!(link.b.drops().get(DropReason::UdpNoSocket), 1);
    let refused = NetworkError::Refused { remote: to(B, 53) };
    assert_eq!(link.a.udp_recv_from(client, &mut [0; 10]), Err(RecvError::Network(refused)));
    link.assert_no_frame_is_missing();
}

#[test]
fn a_damaged_byte_in_any_chunk_is_found() {
    let mut link = jumbo_link();
    let (server, _) = link.b.udp_bind(to(B, 53)).expect("a socket");
    let (client, _) = link.a.udp_bind(to(A, 0)).expect("a socket");
    link.a.udp_send_to(link.now, client, to(B, 53), &content(8_000)).expect("sent");
    link.is_up = false;
    link.run(Duration::from_millis(2));
    link.is_up = true;
    // Its neighbour is asked for first; once it is known, the datagram goes.
    link.run(Duration::from_millis(2_000));
    let frame = link.seen.iter().map(|(_, bytes)| bytes.clone()).find(|bytes| bytes.len() > 8_000);
    let frame = frame.expect("the datagram was sent");
    while link.b.udp_recv_from(server, &mut [0; 9_000]).is_ok() {}
    for at in [100, 3_839, 3_840, 7_679, 7_680, frame.len() - 1] {
        let mut damaged = frame.clone();
        damaged[at] ^= 1;
        receive(&mut link.b, link.now, &damaged);
        assert_eq!(link.b.udp_recv_from(server, &mut [0; 10]), Err(RecvError::WouldBlock), "byte {at}");
    }
    assert_eq!(link.b.drops().get(DropReason::UdpBadChecksum), 6);
    link.assert_no_frame_is_missing();
}

/// RFC 9293 §3.7.1, MUST-67; RFC 6691 §2.
#[test]
fn tcp_announces_and_fills_what_the_link_takes() {
    let mut link = jumbo_link();
    let listener = link.b.tcp_listen(link.now, to(B, 80), 4).expect("a listener");
    let (client, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(10));
    let (server, _) = link.b.tcp_accept(link.now, listener).expect("accepted");
    let data = content(200_000);
    let (mut written, mut read) = (0, Vec::<u8>::new());
    let mut buf = vec![0; 5_000];
    for _ in 0..2_000 {
        if let Ok(n) = link.a.tcp_write(link.now, client, &data[written..]) {
            written += n;
        }
        link.run(Duration::from_millis(2));
        while let Ok(n @ 1..) = link.b.tcp_read(link.now, server, &mut buf) {
            read.extend(&buf[..n]);
        }
        if read.len() == data.len() {
            break;
        }
    }
    assert!(read == data, "{} of {} bytes, or not the same ones", read.len(), data.len());
    assert_eq!(longest(&mut link), usize::from(MTU) + ethernet::LEN);
    let info = link.a.tcp(client).expect("it is there").info();
    assert_eq!(info.mss, usize::from(MTU) - 40 - 12, "timestamps are in every segment");
    link.run(Duration::from_millis(500));
    link.assert_no_frame_is_missing();
}
