//! Two stacks on a link of their own, on virtual time: what they say to each other, and that no frame is lost.

mod address;
mod addresses;
mod arbitrary;
mod connections;
mod datagrams;
mod floods;
mod held_acks;
mod jumbo;
mod listening;
mod lives;
mod neighbours;
mod rules;
mod shards;
mod time_wait;
mod trains;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;
use crate::{
    device::Umem,
    frame::TxFrame,
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
                receive_all(&mut self.b, self.now, &sent_by_a);
                receive_all(&mut self.a, self.now, &sent_by_b);
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

/// A stack whose pool limits no window.
fn roomy(number: u8) -> Stack<Umem> {
    let umem = Umem::on_heap(1024).expect("memory");
    let mac = MacAddr([2, 0, 0, 0, 0, number]);
    Stack::new(Instant::from_millis(1_000), mac, None, umem, Rng::from_seed(number.into()))
}

fn claim(stack: &mut Stack<Umem>, now: Instant, address: Ipv4Addr) {
    let prefix = "10.0.0.0/24".parse().expect("a prefix");
    stack.claim(now, address, prefix, None, 1_500, Schedule::Fast).expect("a good address");
}

/// Gives new stacks their addresses, and opens a connection from a to b: its two ends.
fn connect(link: &mut Link) -> (TcpId, TcpId) {
    connect_over(link, 1_500)
}

/// The same; b's side of the link takes packets of so many bytes, and a's if they are more.
fn connect_over(link: &mut Link, mtu: u16) -> (TcpId, TcpId) {
    claim(&mut link.a, link.now, A);
    claim(&mut link.b, link.now, B);
    link.run(Duration::from_millis(400));
    link.a.set_mtu(mtu.max(1_500));
    link.b.set_mtu(mtu);
    let listener = link.b.tcp_listen(link.now, to(B, 80), 5).expect("a listener");
    let (from, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(10));
    let (to, _) = link.b.tcp_accept(link.now, listener).expect("a connection");
    (from, to)
}

/// All that a stack has to send. Each frame has been sent when this returns.
fn sent(stack: &mut Stack<Umem>, now: Instant) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let burst = sent_at_once(stack, now, 64);
        if burst.is_empty() {
            return all;
        }
        all.extend(burst);
    }
}

/// What a stack has to send if there is room for so many frames. Each has been sent when this returns.
fn sent_at_once(stack: &mut Stack<Umem>, now: Instant, room: usize) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let n = stack.transmit(now, room, |frame| frames.push(frame));
    assert_eq!(
        (n, n <= room),
        (frames.len(), true),
        "as many as it says, and no more than there is room for"
    );
    let take_back = |frame: TxFrame| {
        let bytes = stack.pool().tx_gather(&frame).to_vec();
        stack.handle_completion(now, frame.into_completed());
        bytes
    };
    frames.into_iter().map(take_back).collect()
}

fn receive(stack: &mut Stack<Umem>, now: Instant, bytes: &[u8]) {
    let frame = stack.pool_mut().receive_whole(bytes).expect("chunks to receive into");
    stack.handle_frame(now, frame);
}

/// Frames that come in one burst.
fn receive_all(stack: &mut Stack<Umem>, now: Instant, frames: &[Vec<u8>]) {
    let pool = stack.pool_mut();
    let mut frames =
        frames.iter().map(|bytes| pool.receive_whole(bytes).expect("chunks to receive into")).collect();
    stack.handle_burst(now, &mut frames);
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
