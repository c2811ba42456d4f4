//! Two stacks on a link of their own, on virtual time: what they say to each other, and that no frame is lost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;
use crate::{
    device::Umem,
    net::{
        acd::Schedule,
        udp::{NetworkError, RecvError},
    },
    tcp::{Error, ReadError, Segment, SeqNumber, State, Unreachable, options::Options},
    time::Duration,
    wire::{arp, ethernet, ipv4, protocol, tcp::Flags},
};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CHUNKS: u32 = 64;

/// A link with two stacks. Frames arrive 1 ms after they were sent.
struct Link {
    now: Instant,
    a: Stack<Umem>,
    b: Stack<Umem>,
    /// All frames that were sent, by whom.
    seen: Vec<(char, Vec<u8>)>,
    /// Whether frames arrive.
    is_up: bool,
}

impl Link {
    fn new() -> Self {
        let mut link = Self {
            now: Instant::from_millis(1_000),
            a: stack(1),
            b: stack(2),
            seen: Vec::new(),
            is_up: true,
        };
        for (stack, address) in [(&mut link.a, A), (&mut link.b, B)] {
            claim(stack, link.now, address);
        }
        link.run(Duration::from_millis(400));
        assert_eq!(link.a.address(), Some(A.into()));
        assert_eq!(link.b.address(), Some(B.into()));
        link
    }

    /// Lets time pass, in steps of a millisecond.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            let sent_by_a = sent(&mut self.a, self.now);
            let sent_by_b = sent(&mut self.b, self.now);
            self.now += Duration::from_millis(1);
            if self.is_up {
                sent_by_a.iter().for_each(|bytes| receive(&mut self.b, self.now, bytes));
                sent_by_b.iter().for_each(|bytes| receive(&mut self.a, self.now, bytes));
            }
            self.seen.extend(sent_by_a.into_iter().map(|bytes| ('a', bytes)));
            self.seen.extend(sent_by_b.into_iter().map(|bytes| ('b', bytes)));
            self.a.handle_timeout(self.now);
            self.b.handle_timeout(self.now);
        }
    }

    /// The ethertypes and IP protocols of what was sent since the last call.
    fn protocols(&mut self) -> Vec<(char, u16, Option<u8>)> {
        let describe = |(who, bytes): (char, Vec<u8>)| {
            let (header, at) = ethernet::Header::parse(&bytes).expect("Ethernet");
            let ip = ipv4::Header::parse(&bytes[at..]).ok().map(|(ip, _)| ip.protocol);
            (who, header.ethertype, ip)
        };
        self.seen.drain(..).map(describe).collect()
    }

    fn assert_no_frame_is_missing(&self) {
        assert_eq!(self.a.pool().available(), CHUNKS as usize, "a");
        assert_eq!(self.b.pool().available(), CHUNKS as usize, "b");
    }
}

fn stack(number: u8) -> Stack<Umem> {
    stack_on(None, number)
}

fn stack_on(vlan: Option<u16>, number: u8) -> Stack<Umem> {
    let umem = Umem::on_heap(CHUNKS).expect("memory");
    let mac = MacAddr([2, 0, 0, 0, 0, number]);
    Stack::new(Instant::from_millis(1_000), mac, vlan, umem, Rng::from_seed(number.into()))
}

fn claim(stack: &mut Stack<Umem>, now: Instant, address: Ipv4Addr) {
    let prefix = "10.0.0.0/24".parse().expect("a prefix");
    stack.claim(now, address, prefix, None, 1_500, Schedule::Fast).expect("a good address");
}

/// All that a stack has to send. Each frame has been sent when this returns.
fn sent(stack: &mut Stack<Umem>, now: Instant) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    while let Some(frame) = stack.poll_transmit(now) {
        sent.push(stack.pool().tx_bytes(&frame).to_vec());
        stack.handle_completion(now, frame.into_completed());
    }
    sent
}

fn receive(stack: &mut Stack<Umem>, now: Instant, bytes: &[u8]) {
    let Some(chunk) = stack.pool_mut().allocate() else { panic!("no chunk to receive into") };
    let mut frame = chunk.into_rx(256, bytes.len() as u16);
    stack.pool_mut().rx_bytes_mut(&mut frame).copy_from_slice(bytes);
    stack.handle_frame(now, frame);
}

/// A segment from B to A that belongs to no connection: an ACK of nothing.
fn segment_to(stack: &Stack<Umem>, source: u16, destination: u16) -> Vec<u8> {
    tcp_to(stack, to(B, source), destination, Flags::ACK, (1, 1), Options::default())
}

/// A segment to A without data, from whoever it says. `numbers` are SEG.SEQ and SEG.ACK.
fn tcp_to(
    stack: &Stack<Umem>,
    from: SocketAddr,
    port: u16,
    flags: Flags,
    numbers: (u32, u32),
    options: Options,
) -> Vec<u8> {
    let IpAddr::V4(source) = from.ip() else { panic!("IPv4") };
    let (seq, ack) = (SeqNumber(numbers.0), SeqNumber(numbers.1));
    let segment = Segment { seq, ack, flags, window: 1_000, options, ..Segment::between(from.port(), port) };
    let mut tcp = vec![0; segment.header_len()];
    segment.emit(source.into(), A.into(), 0, &mut tcp);
    let mut bytes = vec![0; ethernet::LEN + ipv4::LEN];
    let header = ethernet::Header {
        destination: stack.mac(),
        source: MacAddr([2, 0, 0, 0, 0, 2]),
        vlan: None,
        ethertype: ethernet::ethertype::IPV4,
    };
    header.emit(&mut bytes);
    ipv4::Header::new(source, A, protocol::TCP, tcp.len() as u16).emit(&mut bytes[ethernet::LEN..]);
    bytes.extend_from_slice(&tcp);
    bytes
}

/// Asks everybody for `target`.
fn arp_request(mac: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let packet = arp::Packet {
        operation: arp::Operation::Request,
        sender_mac: mac,
        sender_ip: sender,
        target_mac: MacAddr::ZERO,
        target_ip: target,
    };
    let header = ethernet::Header {
        destination: MacAddr::BROADCAST,
        source: mac,
        vlan: None,
        ethertype: ethernet::ethertype::ARP,
    };
    let mut bytes = vec![0; ethernet::LEN + arp::LEN];
    header.emit(&mut bytes);
    packet.emit(&mut bytes[ethernet::LEN..]);
    bytes
}

/// The Ethernet header of a datagram from a to b.
fn write_ethernet(link: &Link, bytes: &mut [u8]) {
    let header = ethernet::Header {
        destination: link.b.mac(),
        source: link.a.mac(),
        vlan: None,
        ethertype: ethernet::ethertype::IPV4,
    };
    header.emit(bytes);
}

fn to(address: Ipv4Addr, port: u16) -> SocketAddr {
    (address, port).into()
}

#[test]
fn rfc5227_an_address_that_is_in_use_is_refused_and_its_owner_named() {
    let mut link = Link::new();
    claim(&mut link.b, link.now, A);
    link.run(Duration::from_millis(400));
    assert_eq!(link.b.address_state(), Some(AddressEvent::Refused { mac: link.a.mac() }));
    assert_eq!(link.b.address(), None);
    assert_eq!(link.a.address_state(), Some(AddressEvent::Claimed), "its owner goes on");
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
    assert!(matches!(stack.udp_bind(0), Err(UdpBindError::NoAddress)));
}

#[test]
fn rfc5227_a_lost_address_ends_its_connections() {
    let mut link = Link::new();
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    // Somebody insists on our address: twice within the interval.
    let intruder = MacAddr([2, 0, 0, 0, 0, 9]);
    let bytes = arp_request(intruder, A, A);
    receive(&mut link.a, link.now, &bytes);
    assert_eq!(link.a.address_state(), Some(AddressEvent::Claimed), "defended once");
    receive(&mut link.a, link.now, &bytes);
    assert_eq!(link.a.address_state(), Some(AddressEvent::Lost { mac: intruder }));
    let error = link.a.tcp(id).and_then(crate::tcp::Connection::error);
    assert_eq!(error, Some(Error::AddressLost), "the reason, not what we did about it");
    link.run(Duration::from_secs(5));
    link.a.tcp_close(link.now, id);
    link.run(Duration::from_millis(10));
    link.assert_no_frame_is_missing();
}

#[test]
fn datagrams_go_both_ways_and_the_first_waits_for_arp() {
    let mut link = Link::new();
    link.protocols();
    let (client, local) = link.a.udp_bind(0).expect("a socket");
    let (server, _) = link.b.udp_bind(53).expect("a socket");
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

#[test]
fn rfc4861_7_3_1_what_a_neighbour_sends_is_no_proof_that_it_hears_us() {
    let mut link = Link::new();
    let (client, local) = link.a.udp_bind(0).expect("a socket");
    let (server, _) = link.b.udp_bind(53).expect("a socket");
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
        let (client, local) = link.a.udp_bind(0).expect("a socket");
        let (server, _) = link.b.udp_bind(53).expect("a socket");
        link.a.udp_send_to(link.now, client, to(B, 53), b"question").expect("sent");
        link.run(Duration::from_secs(5));
        let received = link.b.udp_recv_from(server, &mut [0; 100]);
        assert_eq!(received, if arrives { Ok((8, local)) } else { Err(RecvError::WouldBlock) }, "{vlan:?}");
        assert_eq!(link.b.drops().get(DropReason::EthernetWrongVlan) == 0, arrives);
        link.assert_no_frame_is_missing();
    }
}

/// RFC 1122 §3.2.2.1.
#[test]
fn rfc1122_4_1_3_1_a_datagram_for_no_socket_is_answered_and_the_answer_believed() {
    let mut link = Link::new();
    let (client, _) = link.a.udp_bind(0).expect("a socket");
    link.a.udp_send_to(link.now, client, to(B, 9), b"anybody?").expect("sent");
    link.run(Duration::from_millis(10));
    let refused = RecvError::Network(NetworkError::Refused { remote: to(B, 9) });
    assert_eq!(link.a.udp_recv_from(client, &mut [0; 10]), Err(refused));
    assert_eq!(link.b.drops().get(DropReason::UdpNoSocket), 1);
    link.assert_no_frame_is_missing();
}

#[test]
fn rfc9293_3_10_7_1_a_syn_for_no_listener_is_refused() {
    let mut link = Link::new();
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(10));
    assert_eq!(link.a.tcp(id).and_then(crate::tcp::Connection::error), Some(Error::Refused));
    assert_eq!(link.b.drops().get(DropReason::TcpNoConnection), 1);
    let told = std::iter::from_fn(|| link.a.poll_event());
    assert!(told.into_iter().any(|event| event == Event::Tcp { id, readable: true, writable: true }));
    assert!(!link.a.has_unfinished_connections());
    link.a.tcp_close(link.now, id);
    assert!(link.a.tcp(id).is_none(), "closed and let go: gone");
    assert_eq!(link.a.tcp_read(link.now, id, &mut [0; 10]), Err(ReadError::Closed));
    link.assert_no_frame_is_missing();
}

#[test]
fn a_neighbour_that_does_not_answer_fails_what_waits_for_it() {
    let mut link = Link::new();
    link.is_up = false;
    let nobody = Ipv4Addr::new(10, 0, 0, 77);
    let (id, _) = link.a.tcp_connect(link.now, to(nobody, 80)).expect("a connection");
    let (socket, _) = link.a.udp_bind(0).expect("a socket");
    link.a.udp_send_to(link.now, socket, to(nobody, 53), b"hello").expect("sent");
    link.run(Duration::from_millis(3_500));
    let error = link.a.tcp(id).and_then(crate::tcp::Connection::error);
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
    let (socket, _) = link.a.udp_bind(0).expect("a socket");
    let error = link.a.udp_send_to(link.now, socket, (far, 53).into(), b"").expect_err("no way there");
    assert_eq!(error, UdpSendError::NoRoute(far));
    for bad in [to(B, 0), to(Ipv4Addr::BROADCAST, 80), to(Ipv4Addr::new(10, 0, 0, 255), 80)] {
        assert_eq!(link.a.tcp_connect(link.now, bad), Err(ConnectError::BadRemote(bad)), "{bad}");
    }
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
    let (server, _) = link.b.udp_bind(53).expect("a socket");
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

#[test]
fn forged_senders_do_not_make_us_ask_the_link_for_them() {
    let mut link = Link::new();
    for host in 10..200 {
        let forged = Ipv4Addr::new(10, 0, 0, host);
        let mut datagram = vec![0; ethernet::LEN + ipv4::LEN + 20];
        write_ethernet(&link, &mut datagram);
        ipv4::Header::new(forged, B, protocol::UDP, 20).emit(&mut datagram[ethernet::LEN..]);
        let header = crate::wire::udp::Header { source_port: 1, destination_port: 9 };
        header.emit(forged.into(), B.into(), &mut datagram[ethernet::LEN + ipv4::LEN..]);
        receive(&mut link.b, link.now, &datagram);
        link.run(Duration::from_millis(5));
    }
    let answers = link.seen.iter().filter(|(who, _)| *who == 'b').map(|(_, bytes)| bytes);
    let answers: Vec<_> = answers.filter_map(|bytes| ethernet::Header::parse(bytes).ok()).collect();
    let errors = answers.iter().filter(|(header, _)| header.ethertype == ethernet::ethertype::IPV4).count();
    assert!(errors > 50, "{errors} answers, to the station that sent the datagrams");
    let asked = answers.iter().filter(|(header, _)| {
        header.ethertype == ethernet::ethertype::ARP && header.destination == MacAddr::BROADCAST
    });
    assert!(asked.count() <= 10, "the probes and announcements of its own claim");
    link.assert_no_frame_is_missing();
}

#[test]
fn a_connection_that_was_let_go_is_not_found_by_its_old_number() {
    let mut link = Link::new();
    let (first, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(10));
    link.a.tcp_close(link.now, first);
    let (second, _) = link.a.tcp_connect(link.now, to(B, 81)).expect("a connection");
    assert_eq!(first.index(), second.index(), "the row is used again");
    assert!(link.a.tcp(first).is_none());
    link.a.tcp_abort(link.now, first);
    assert_eq!(link.a.tcp(second).map(crate::tcp::Connection::state), Some(State::SynSent));
    link.a.tcp_close(link.now, second);
    link.run(Duration::from_millis(10));
    link.assert_no_frame_is_missing();
}

#[test]
fn frames_on_the_ring_when_their_connection_goes_come_back_to_the_pool() {
    let mut link = Link::new();
    // With the neighbour known, the SYN goes straight to the ring.
    let (socket, _) = link.a.udp_bind(0).expect("a socket");
    link.a.udp_send_to(link.now, socket, to(B, 9), b"").expect("sent");
    link.run(Duration::from_millis(10));
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    let frames: Vec<_> = std::iter::from_fn(|| link.a.poll_transmit(link.now)).collect();
    assert_eq!(frames.len(), 1);
    link.a.tcp_close(link.now, id);
    assert!(link.a.tcp(id).is_none());
    for frame in frames {
        link.a.handle_completion(link.now, frame.into_completed());
    }
    link.run(Duration::from_millis(10));
    link.assert_no_frame_is_missing();
}

#[test]
fn rfc9293_3_10_7_1_a_segment_for_a_connection_that_has_failed_is_answered_with_a_reset() {
    let mut link = Link::new();
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(10));
    let local = link.a.tcp(id).expect("held").local();
    assert_eq!(link.a.tcp(id).and_then(crate::tcp::Connection::error), Some(Error::Refused));
    link.protocols();
    let late = segment_to(&link.a, 80, local.port());
    receive(&mut link.a, link.now, &late);
    link.run(Duration::from_millis(10));
    let reset = ('a', ethernet::ethertype::IPV4, Some(protocol::TCP));
    assert_eq!(
        link.protocols(),
        [reset],
        "the application still holds it, the peer must know that it is over"
    );
    link.a.tcp_close(link.now, id);
    link.assert_no_frame_is_missing();
}

#[test]
fn resets_are_limited_so_that_a_flood_does_not_take_the_ring_from_connections() {
    let mut link = Link::new();
    for port in 1..=2_000 {
        let stray = segment_to(&link.a, 80, port);
        receive(&mut link.a, link.now, &stray);
        let _ = sent(&mut link.a, link.now);
    }
    assert_eq!(link.a.drops().get(DropReason::TcpNoConnection), 2_000);
    let silent = link.a.drops().get(DropReason::TcpResetLimited);
    assert!((1_000..2_000).contains(&silent), "{silent} of 2000 segments were not answered");
    link.run(Duration::from_millis(3_500));
    link.assert_no_frame_is_missing();
}

#[test]
fn answers_that_the_ring_does_not_take_do_not_take_the_pool() {
    let umem = Umem::on_heap(2_048).expect("memory");
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let mut stack = Stack::new(Instant::from_millis(1_000), mac, None, umem, Rng::from_seed(1));
    let mut now = Instant::from_millis(1_000);
    claim(&mut stack, now, A);
    for _ in 0..400 {
        now += Duration::from_millis(1);
        stack.handle_timeout(now);
        let _ = sent(&mut stack, now);
    }
    let question = arp_request(MacAddr([2, 0, 0, 0, 0, 9]), B, A);
    for _ in 0..2_000 {
        receive(&mut stack, now, &question);
    }
    assert!(stack.pool().available() > 1_024, "only {} chunks are left", stack.pool().available());
    assert!(stack.drops().get(DropReason::TxQueueFull) > 0);
    let _ = sent(&mut stack, now);
    assert_eq!(stack.pool().available(), 2_048);
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

mod listening;
mod rules;
mod time_wait;

mod arbitrary {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever comes, nothing panics and no frame is lost.
        #[test]
        fn frames_of_any_bytes(
            frames in proptest::collection::vec(
                (any::<bool>(), 0usize..4, proptest::collection::vec(any::<u8>(), 0..200)), 0..50),
        ) {
            let mut stack = stack(1);
            let mut now = Instant::from_millis(1_000);
            claim(&mut stack, now, A);
            for _ in 0..400 {
                now += Duration::from_millis(1);
                stack.handle_timeout(now);
                let _ = sent(&mut stack, now);
            }
            for (to_us, shape, mut bytes) in frames {
                // Half of them get as far as the upper layers.
                if to_us && bytes.len() >= ethernet::LEN + ipv4::LEN {
                    let header = ethernet::Header {
                        destination: stack.mac(),
                        source: MacAddr([2, 0, 0, 0, 0, 2]),
                        vlan: None,
                        ethertype: if shape == 0 { ethernet::ethertype::ARP } else { ethernet::ethertype::IPV4 },
                    };
                    header.emit(&mut bytes);
                    if shape > 0 {
                        let proto = [protocol::ICMPV4, protocol::TCP, protocol::UDP][shape - 1];
                        let len = (bytes.len() - ethernet::LEN - ipv4::LEN) as u16;
                        ipv4::Header::new(B, A, proto, len).emit(&mut bytes[ethernet::LEN..]);
                    }
                }
                receive(&mut stack, now, &bytes);
                let _ = sent(&mut stack, now);
            }
            for _ in 0..40 {
                now += Duration::from_secs(1);
                stack.handle_timeout(now);
                let _ = sent(&mut stack, now);
            }
            prop_assert_eq!(stack.pool().available(), CHUNKS as usize);
        }
    }
}
