//! Frames off the wire against a whole stack: ARP, IPv4 with options and fragments, ICMP with quotes, UDP, and TCP to
//! listeners (with and without SYN cookies) and connections. Half of them have checksums that are right. They come in bursts,
//! as from the driver: of one frame, or of up to 64 that follow each other more or less.
//!
//! Whatever comes: no panic, no frame is lost, every frame that leaves is well formed and speaks for our address only,
//! to one station. And what comes in one burst is what it would be one by one: what is sent, read and known afterwards is
//! the same.

use std::{
    hash::{DefaultHasher, Hasher as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use stack_user::{
    device::Umem,
    frame::{FramePool, TxFrame},
    net::acd::Schedule,
    rng::Rng,
    stack::{ListenerId, Stack, TcpId, UdpId},
    tcp::{Config, Segment, timer::Timer},
    time::{Duration, Instant},
    wire::{MacAddr, arp, ethernet, ethernet::ethertype, icmpv4, ipv4, protocol, udp},
};

use super::{
    forge,
    input::{Input, tell},
};

const CHUNKS: u32 = 96;
pub(crate) const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// Frames that the NIC takes at a time.
const BURST: usize = 32;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
pub(crate) const OUR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
pub(crate) const THEIR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
pub(crate) const SERVER_PORT: u16 = 80;
pub(crate) const UDP_PORT: u16 = 53;

/// Frames that are remembered, to answer and to quote.
const REMEMBERED: usize = 16;

/// Handles that an application keeps of each kind.
const MAX_HANDLES: usize = 8;

/// The largest frame that our link carries: MTU and Ethernet header.
const MAX_FRAME: usize = 1514;

/// Once every handle is closed, all is at rest in that time: data may be paced over the longest round trip that is believed,
/// five minutes; a peer that says nothing to it is given up after as long, and one that does not close after one. Expiries
/// don't say as much: who waits for a chunk looks for one every few milliseconds of it.
const LONGEST_REST: Duration = Duration::from_secs(2 * 300 + 60 + 1);

/// How the frames of a burst are handed over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Handing {
    Together,
    OneByOne,
}

/// What there is to see of a stack from outside, in order: what it was, and a hash of all of it.
type Seen = Vec<(&'static str, u64)>;

struct World {
    stack: Stack<Umem>,
    handing: Handing,
    seen: Seen,
    /// Some burst was of more than one frame.
    had_bursts: bool,
    /// Somebody wanted a chunk in vain, and waits for a while. The frames of a burst have their chunks together, so that this happens
    /// at other times than with frames one by one, and all that follows is at other times, too.
    lacked_chunks: bool,
    now: Instant,
    nic: Vec<TxFrame>,
    /// The latest frames that were sent, from their IP header on.
    said: Vec<Vec<u8>>,
    /// Neighbours answer when they are asked for.
    neighbours_answer: bool,
    connections: Vec<TcpId>,
    listeners: Vec<ListenerId>,
    sockets: Vec<UdpId>,
}

pub fn run(data: &[u8]) {
    let (together, is_comparable) = play(data, Handing::Together);
    if !is_comparable {
        return;
    }
    tell(|| "the same, one by one".into());
    let (one_by_one, is_comparable) = play(data, Handing::OneByOne);
    if !is_comparable {
        return;
    }
    let differing = together.iter().zip(&one_by_one).position(|(a, b)| a != b);
    if let Some(at) = differing {
        let (here, there) = (together[at].0, one_by_one[at].0);
        panic!("number {at} of what is seen differs: in bursts it {here}, one by one it {there}");
    }
    assert_eq!(together.len(), one_by_one.len(), "one of them went on");
}

/// What was seen, and whether it has to be the same when frames are handed over in the other way, if they can be.
fn play(data: &[u8], handing: Handing) -> (Seen, bool) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input, handing);
    while !input.is_empty() {
        world.step(&mut input);
        if !input.one_in(8) {
            world.transmit();
        }
        while let Some(event) = world.stack.poll_event() {
            tell(|| format!("    {event:?}"));
        }
        world.lacked_chunks |= world.lacks_chunks();
    }
    world.finish()
}

impl World {
    /// A stack that has claimed its address, listens, and has a socket.
    fn new(input: &mut Input<'_>, handing: Handing) -> Self {
        let now = Instant::from_millis(1_000);
        let umem = Umem::on_heap(CHUNKS).expect("memory");
        let mut stack = Stack::new(now, OUR_MAC, None, umem, Rng::from_seed(1));
        let choice = input.byte();
        stack.set_tcp_config(Config {
            recv_buffer: if choice & 8 == 0 { [2000, 30_000][usize::from(choice & 1)] } else { 120_000 },
            recv_buffer_max: 0,
            send_buffer: 20_000,
            ..Config::default()
        });
        let prefix = "10.0.0.0/24".parse().expect("a prefix");
        let gateway = (choice & 2 == 0).then_some(GATEWAY);
        stack.claim(now, OURS, prefix, gateway, 1500, Schedule::Fast).expect("a good address");
        let mut world = Self {
            stack,
            handing,
            seen: Seen::new(),
            had_bursts: false,
            lacked_chunks: false,
            now,
            nic: Vec::new(),
            said: Vec::new(),
            neighbours_answer: choice & 4 == 0,
            connections: Vec::new(),
            listeners: Vec::new(),
            sockets: Vec::new(),
        };
        while world.stack.address().is_none() {
            world.transmit();
            world.complete_all();
            assert!(world.pass_to_timer(), "the claim never ends");
        }
        let backlog = input.pick(&[1, 2, 100]);
        let local = SocketAddr::from((OURS, SERVER_PORT));
        world.listeners.extend(world.stack.tcp_listen(world.now, local, backlog));
        world.sockets.extend(world.stack.udp_bind((OURS, UDP_PORT).into()).map(|(id, _)| id));
        world.transmit();
        world
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(40) {
            0 => drop(self.pass_to_timer()),
            1 => self.pass(Duration::from_millis(input.byte().into())),
            2 => self.pass(Duration::from_secs(input.pick(&[1, 30, 70, 400, 86_400, 40 * 86_400]))),
            3 => self.complete(input.below(8)),
            4 | 5 => self.complete_all(),
            6..=8 => self.call_tcp(input),
            9 => self.call_udp(input),
            10 => {
                let again = input.below(REMEMBERED);
                self.answer(again);
            }
            32.. => {
                let frames = forge::burst(input, &self.said, self.now);
                self.receive(&frames);
            }
            _ => {
                let frame = forge::frame(input, &self.said);
                self.receive(&[frame]);
            }
        }
    }

    /// What an application does with TCP.
    fn call_tcp(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        let id = self.connections.get(input.below(MAX_HANDLES)).copied();
        let choice = input.below(16);
        tell(|| format!("application: {choice} of {id:?}"));
        match (choice, id) {
            (0, _) => {
                let ip =
                    input.pick(&[NEIGHBOUR, Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(10, 0, 0, 77), OURS]);
                let remote = SocketAddr::from((ip, 80));
                if self.connections.len() < MAX_HANDLES {
                    self.connections.extend(self.stack.tcp_connect(now, remote).map(|(id, _)| id));
                }
            }
            (1 | 2, _) => {
                for &listener in &self.listeners {
                    if self.connections.len() < MAX_HANDLES {
                        self.connections.extend(self.stack.tcp_accept(now, listener).map(|(id, _)| id));
                    }
                }
            }
            (3, _) => {
                let local = SocketAddr::from((Ipv4Addr::UNSPECIFIED, input.pick(&[0, SERVER_PORT, 8080])));
                if self.listeners.len() < MAX_HANDLES {
                    self.listeners.extend(self.stack.tcp_listen(now, local, input.below(4)));
                }
            }
            (4, _) if input.one_in(8) => {
                if let Some(listener) = self.listeners.pop() {
                    self.stack.tcp_unlisten(now, listener);
                }
            }
            (5..=7, Some(id)) => {
                let data = vec![7; input.pick(&[1, 100, 1460, 5000, 30_000])];
                let _ = self.stack.tcp_write(now, id, &data);
            }
            (8..=10, Some(id)) => {
                let mut buffer = vec![0; input.pick(&[1, 1000, 30_000])];
                let read = self.stack.tcp_read(now, id, &mut buffer);
                self.see("reads", (read.is_ok(), &buffer[..read.unwrap_or(0)]));
            }
            (11, Some(id)) => self.stack.tcp_shutdown_write(now, id),
            (12, Some(id)) => {
                self.stack.tcp_close(now, id);
                self.connections.retain(|&other| other != id);
            }
            (13, Some(id)) => self.stack.tcp_abort(now, id),
            (14, Some(id)) => self.stack.tcp_set_nodelay(id, input.one_in(2)),
            (15, _) if input.one_in(32) => self.stack.abort_all(now),
            _ => {}
        }
    }

    /// What an application does with UDP.
    fn call_udp(&mut self, input: &mut Input<'_>) {
        let Some(&id) = self.sockets.last() else { return };
        match input.below(8) {
            0..=2 => {
                let mut buffer = [0; 2000];
                let _ = self.stack.udp_recv_from(id, &mut buffer);
            }
            3 if self.sockets.len() < MAX_HANDLES => {
                self.sockets.extend(self.stack.udp_bind((OURS, 0).into()).map(|(id, _)| id));
            }
            4 if self.sockets.len() > 1 => {
                self.sockets.pop();
                self.stack.udp_close(id);
            }
            _ => {
                let ip = input.pick(&[
                    NEIGHBOUR,
                    GATEWAY,
                    Ipv4Addr::new(192, 0, 2, 9),
                    Ipv4Addr::new(10, 0, 0, 77),
                ]);
                let data = vec![1; input.pick(&[0, 10, 1472, 1473, 4000])];
                let _ = self.stack.udp_send_to(self.now, id, (ip, 4000).into(), &data);
            }
        }
    }

    /// A burst comes, as far as the NIC has chunks for it.
    fn receive(&mut self, frames: &[Vec<u8>]) {
        let mut received = Vec::new();
        for bytes in frames {
            let Some(frame) = self.stack.pool_mut().receive_whole(bytes) else { break };
            tell(|| format!("comes {bytes:02x?}"));
            received.push(frame);
        }
        self.had_bursts |= received.len() > 1;
        match self.handing {
            Handing::Together => self.stack.handle_burst(self.now, &mut received),
            Handing::OneByOne => {
                received.drain(..).for_each(|frame| self.stack.handle_frame(self.now, frame))
            }
        }
        for index in 0..self.connections.len() {
            let info =
                self.stack.tcp(self.connections[index]).map(|connection| format!("{:?}", connection.info()));
            tell(|| format!("    {info:?}"));
            self.see("knows", info);
        }
        let drops: Vec<_> = self.stack.drops().iter().map(|(reason, n)| (reason.name(), n)).collect();
        tell(|| format!("    drops {drops:?}"));
        self.see("drops", (drops, self.stack.pool().available()));
    }

    fn see(&mut self, what: &'static str, value: impl std::hash::Hash) {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        self.seen.push((what, hasher.finish()));
    }

    /// Takes all that there is to send; the NIC keeps it until it is told to complete.
    fn transmit(&mut self) {
        let mut sent = 0;
        loop {
            let mut frames = Vec::new();
            self.stack.transmit(self.now, BURST, |frame| frames.push(frame));
            sent += frames.len();
            assert!(sent <= CHUNKS as usize, "more was sent than there are chunks");
            if frames.is_empty() {
                return;
            }
            for frame in frames {
                let bytes = self.stack.pool().tx_gather(&frame).to_vec();
                self.nic.push(frame);
                self.inspect(&bytes);
            }
        }
    }

    /// A frame that leaves must be one that may.
    fn inspect(&mut self, bytes: &[u8]) {
        tell(|| format!("    sends {bytes:02x?}"));
        self.see("sends", bytes);
        assert!(bytes.len() <= MAX_FRAME, "larger than the link carries");
        let (header, at) = ethernet::Header::parse(bytes).expect("an Ethernet header");
        assert_eq!((header.source, header.vlan), (OUR_MAC, None));
        let body = &bytes[at..];
        if header.ethertype == ethertype::ARP {
            let packet = arp::Packet::parse(body).expect("ARP");
            assert_eq!(packet.sender_mac, OUR_MAC);
            if self.neighbours_answer && packet.operation == arp::Operation::Request {
                self.answer_arp(&packet);
            }
            return;
        }
        assert_eq!(header.ethertype, ethertype::IPV4);
        let (ip, payload) = ipv4::Header::parse(body).expect("IPv4");
        assert_eq!(ip.source, OURS, "speaks for somebody else");
        let to_one = !header.destination.is_multicast() && !ip.destination.is_multicast();
        assert!(to_one && !ip.destination.is_broadcast(), "to more than one");
        let payload = &body[payload];
        let (source, destination) = (IpAddr::V4(ip.source), IpAddr::V4(ip.destination));
        match ip.protocol {
            protocol::TCP => drop(Segment::parse(source, destination, payload).expect("TCP")),
            protocol::UDP => drop(udp::Header::parse(source, destination, payload).expect("UDP")),
            protocol::ICMPV4 => drop(icmpv4::Message::parse(payload).expect("ICMP")),
            other => panic!("protocol {other} is none of ours"),
        }
        if self.said.len() == REMEMBERED {
            self.said.remove(0);
        }
        self.said.push(body.to_vec());
    }

    /// Whoever is asked for is the same station.
    fn answer_arp(&mut self, request: &arp::Packet) {
        if request.target_ip == OURS || request.is_probe() {
            return;
        }
        let reply = arp::Packet {
            operation: arp::Operation::Reply,
            sender_mac: THEIR_MAC,
            sender_ip: request.target_ip,
            target_mac: OUR_MAC,
            target_ip: OURS,
        };
        self.receive(&[forge::arp(&reply)]);
    }

    /// An honest peer's answer to a segment of ours: it acknowledges, and is in sequence.
    fn answer(&mut self, which: usize) {
        let Some(frame) = self.said.get(which).and_then(|said| forge::honest_answer(said, self.now)) else {
            return;
        };
        self.receive(&[frame]);
    }

    fn complete(&mut self, index: usize) {
        if !self.nic.is_empty() {
            let frame = self.nic.swap_remove(index % self.nic.len());
            self.stack.handle_completion(self.now, frame.into_completed());
        }
    }

    fn complete_all(&mut self) {
        for frame in std::mem::take(&mut self.nic) {
            self.stack.handle_completion(self.now, frame.into_completed());
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        tell(|| format!("now {}", self.now));
        self.stack.handle_timeout(self.now);
    }

    fn pass_to_timer(&mut self) -> bool {
        let Some(at) = self.stack.poll_timeout() else { return false };
        self.pass(at.since(self.now));
        let again = self.stack.poll_timeout();
        assert!(again.is_none_or(|again| again > self.now), "what was due is due again");
        true
    }

    /// The application closes all that it has: at last, every chunk is in the pool.
    fn finish(mut self) -> (Seen, bool) {
        tell(|| "the end".into());
        for listener in std::mem::take(&mut self.listeners) {
            self.stack.tcp_unlisten(self.now, listener);
        }
        for id in std::mem::take(&mut self.connections) {
            self.stack.tcp_close(self.now, id);
        }
        for id in std::mem::take(&mut self.sockets) {
            self.stack.udp_close(id);
        }
        let end = self.now + LONGEST_REST;
        while self.now < end {
            self.transmit();
            self.complete_all();
            let busy =
                self.stack.has_unfinished_connections() || self.stack.pool().available() < CHUNKS as usize;
            if !busy || !self.pass_to_timer() {
                break;
            }
        }
        assert!(!self.stack.has_unfinished_connections(), "a connection that nobody holds does not end");
        assert_eq!(self.stack.pool().available(), CHUNKS as usize, "frames are conserved");
        (self.seen, self.had_bursts && !self.lacked_chunks)
    }

    fn lacks_chunks(&self) -> bool {
        let waits = |&id: &TcpId| {
            self.stack.tcp(id).is_some_and(|connection| connection.info().timers.is_set(Timer::FrameRetry))
        };
        self.connections.iter().any(waits)
    }
}
