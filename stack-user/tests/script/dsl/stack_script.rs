//! A whole stack, and scripted hosts on its link: for what no single connection decides. Listeners, half-open
//! connections, closed ports, broadcasts, ICMP errors.

use std::{
    collections::{HashMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
};

use super::{
    seg::{Seen, Seg},
    trace::{Trace, What},
};
use crate::rx_frame;
use stack_user::{
    device::Umem,
    frame::FramePool,
    net::acd::Schedule,
    rng::Rng,
    stack::{Event, ListenerId, Stack},
    tcp::{Segment, SeqNumber, options::Timestamps},
    telemetry::DropReason,
    time::{Duration, Instant},
    wire::{MacAddr, arp, ethernet, icmpv4, ipv4, protocol},
};

pub(crate) const US: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const PEER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const IRS: SeqNumber = SeqNumber(0x7fff_fff0);
const CHUNKS: u32 = 512;

/// The peer's port, and ours.
pub(crate) type Ports = (u16, u16);

/// A stack with the address [`US`], and a scripted host [`PEER`].
///
/// Numbers are relative, as in a [`Script`](super::Script): ours to what our SYN had. Before we have sent one, they are
/// what they are.
pub(crate) struct StackScript {
    pub(crate) stack: Stack<Umem>,
    pub(crate) now: Instant,
    /// Our initial sequence number, by ports.
    iss: HashMap<Ports, SeqNumber>,
    /// Segments that we sent and that nobody has expected yet.
    sent: VecDeque<(Ports, Segment, Vec<u8>)>,
    trace: Trace,
}

impl StackScript {
    pub(crate) fn new() -> Self {
        let now = Instant::from_millis(1_000_000);
        let umem = Umem::on_heap(CHUNKS).expect("memory");
        let mut stack = Stack::new(now, OUR_MAC, None, umem, Rng::from_seed(7));
        let prefix = "10.0.0.0/24".parse().expect("a prefix");
        stack.claim(now, US, prefix, None, 1500, Schedule::Fast).expect("a good address");
        let mut script =
            Self { stack, now, iss: HashMap::new(), sent: VecDeque::new(), trace: Trace::new(now) };
        script.advance(1000);
        assert_eq!(script.stack.address(), Some(US.into()), "the address is ours");
        script.events();
        script
    }

    /// Listens on a port.
    pub(crate) fn listen(&mut self, port: u16, backlog: usize) -> ListenerId {
        self.trace.push(self.now, What::Call(format!("listen on {port}, backlog {backlog}")));
        self.stack.tcp_listen(self.now, (US, port).into(), backlog).expect("a free port")
    }

    /// The peer sends a segment.
    pub(crate) fn inject(&mut self, ports: Ports, segment: Seg) {
        self.inject_between(PEER, US, ports, segment);
    }

    /// Somebody sends a segment to somebody.
    pub(crate) fn inject_between(&mut self, from: Ipv4Addr, to: Ipv4Addr, ports: Ports, segment: Seg) {
        let bytes = self.emit(from, to, ports, &segment);
        let (parsed, at) = Segment::parse(from.into(), to.into(), &bytes).expect("a good segment");
        let seen = Seen::new(&parsed, &bytes[at..], (IRS, self.iss(ports)), 0);
        self.trace.push(self.now, What::Injected(seen, Ok(())));
        self.receive(from, to, protocol::TCP, &bytes);
    }

    /// The peer sends a segment whose checksum is wrong.
    pub(crate) fn inject_corrupt(&mut self, ports: Ports, segment: Seg) {
        let mut bytes = self.emit(PEER, US, ports, &segment);
        bytes[16] ^= 0x55;
        self.receive(PEER, US, protocol::TCP, &bytes);
    }

    /// An ICMP error of the peer about the segment of ours that starts at `seq`.
    pub(crate) fn inject_icmp(&mut self, message: icmpv4::Message, ports: Ports, seq: i64) {
        self.trace.push(self.now, What::Call(format!("{message:?} about {ports:?} seq {seq}")));
        let number = SeqNumber(self.iss(ports).0.wrapping_add(1).wrapping_add(seq as u32));
        let mut bytes = vec![0; icmpv4::LEN + ipv4::LEN];
        ipv4::Header::new(US, PEER, protocol::TCP, 20).emit(&mut bytes[icmpv4::LEN..]);
        bytes.extend_from_slice(&ports.1.to_be_bytes());
        bytes.extend_from_slice(&ports.0.to_be_bytes());
        bytes.extend_from_slice(&number.0.to_be_bytes());
        message.emit(&mut bytes);
        self.receive(PEER, US, protocol::ICMPV4, &bytes);
    }

    fn emit(&self, from: Ipv4Addr, to: Ipv4Addr, ports: Ports, segment: &Seg) -> Vec<u8> {
        let mut options = segment.options.unwrap_or_default();
        if options.timestamps.is_some() {
            let value = segment.timestamp.unwrap_or(self.now.as_millis() as u32);
            options.timestamps = Some(Timestamps { value, echo: segment.echo.unwrap_or(0) });
        }
        let (from, to) = (SocketAddr::from((from, ports.0)), SocketAddr::from((to, ports.1)));
        segment.bytes(from, to, (IRS, self.iss(ports)), options, 0)
    }

    /// Before our SYN, numbers count from zero.
    fn iss(&self, ports: Ports) -> SeqNumber {
        self.iss.get(&ports).copied().unwrap_or(SeqNumber(u32::MAX))
    }

    fn receive(&mut self, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) {
        let broadcast = to.is_multicast() || to.octets()[3] == 255;
        let header = ethernet::Header {
            destination: if broadcast { MacAddr::BROADCAST } else { OUR_MAC },
            source: PEER_MAC,
            vlan: None,
            ethertype: ethernet::ethertype::IPV4,
        };
        let mut bytes = vec![0; ethernet::LEN + ipv4::LEN];
        header.emit(&mut bytes);
        ipv4::Header::new(from, to, protocol, payload.len() as u16).emit(&mut bytes[ethernet::LEN..]);
        bytes.extend_from_slice(payload);
        self.receive_frame(&bytes);
    }

    fn receive_frame(&mut self, bytes: &[u8]) {
        let frame = rx_frame(self.stack.pool_mut(), bytes);
        self.stack.handle_frame(self.now, frame);
        self.collect();
    }

    /// Takes what the stack has to send; ARP is answered.
    fn collect(&mut self) {
        loop {
            let mut frames = Vec::new();
            self.stack.transmit(self.now, 64, |frame| frames.push(frame));
            if frames.is_empty() {
                return;
            }
            for frame in frames {
                let bytes = self.stack.pool().tx_gather(&frame).to_vec();
                self.stack.handle_completion(self.now, frame.into_completed());
                let (header, at) = ethernet::Header::parse(&bytes).expect("Ethernet");
                match header.ethertype {
                    ethernet::ethertype::ARP => self.answer_arp(&bytes[at..]),
                    _ => self.note(&bytes[at..]),
                }
            }
        }
    }

    fn answer_arp(&mut self, bytes: &[u8]) {
        let request = arp::Packet::parse(bytes).expect("ARP");
        if request.target_ip != PEER || request.operation != arp::Operation::Request {
            return;
        }
        let reply = arp::Packet {
            operation: arp::Operation::Reply,
            sender_mac: PEER_MAC,
            sender_ip: PEER,
            target_mac: OUR_MAC,
            target_ip: US,
        };
        let header = ethernet::Header {
            destination: OUR_MAC,
            source: PEER_MAC,
            vlan: None,
            ethertype: ethernet::ethertype::ARP,
        };
        let mut frame = vec![0; ethernet::LEN + arp::LEN];
        header.emit(&mut frame);
        reply.emit(&mut frame[ethernet::LEN..]);
        self.receive_frame(&frame);
    }

    fn note(&mut self, bytes: &[u8]) {
        let (ip, payload) = ipv4::Header::parse(bytes).expect("IPv4");
        if ip.protocol != protocol::TCP {
            return;
        }
        let bytes = &bytes[payload];
        let (segment, at) =
            Segment::parse(ip.source.into(), ip.destination.into(), bytes).expect("a good segment");
        let ports = (segment.destination_port, segment.source_port);
        if segment.syn() {
            self.iss.insert(ports, segment.seq);
        }
        self.sent.push_back((ports, segment, bytes[at..].to_vec()));
    }

    /// We must have sent this segment.
    #[track_caller]
    pub(crate) fn expect(&mut self, ports: Ports, expected: Seg) {
        self.collect();
        let sent = self.sent.pop_front();
        let seen = sent.map(|(to, segment, data)| {
            assert_eq!(to, ports, "the ports of {segment:?}");
            Seen::new(&segment, &data, (self.iss(ports), IRS), 0)
        });
        match seen {
            Some(seen) if !expected.differences(&seen).contains(&true) => {
                self.trace.push(self.now, What::Sent(seen));
            }
            other => {
                self.trace.push(self.now, What::Mismatch { expected, actual: other });
                panic!("this is not the segment that was expected");
            }
        }
    }

    /// We must have sent something to these ports: this is it.
    #[track_caller]
    pub(crate) fn expect_any(&mut self, ports: Ports) -> Segment {
        self.collect();
        let (to, segment, data) = self.sent.pop_front().expect("a segment");
        assert_eq!(to, ports);
        let seen = Seen::new(&segment, &data, (self.iss(ports), IRS), 0);
        self.trace.push(self.now, What::Sent(seen));
        segment
    }

    /// We must have sent nothing more.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        self.collect();
        let sent = self.sent.pop_front();
        assert!(sent.is_none(), "silence was expected, but this was sent: {sent:?}");
    }

    /// Forgets what was sent; returns how many segments that was.
    pub(crate) fn drain(&mut self) -> usize {
        self.collect();
        self.sent.drain(..).count()
    }

    /// Time passes; each timer is served at its time.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.collect();
        let end = self.now + Duration::from_millis(ms);
        while let Some(next) = self.stack.poll_timeout().filter(|&next| next <= end) {
            self.now = self.now.max(next);
            self.stack.handle_timeout(self.now);
            self.collect();
        }
        self.now = end;
        self.stack.handle_timeout(end);
        self.collect();
        self.trace.push(end, What::Time);
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.stack.poll_event()).collect()
    }

    /// How many frames were dropped for that reason.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.stack.drops().get(reason)
    }

    /// The end of a test: no frame was lost.
    pub(crate) fn finish(self) {
        assert_eq!(self.stack.pool().available(), CHUNKS as usize, "frames are conserved");
    }
}

impl Drop for StackScript {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace);
        }
    }
}
