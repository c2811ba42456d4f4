//! A referee for each host: it sees every segment that the stack takes in and puts out, and knows the rules that can be
//! told from the wire alone. It has no part in what happens, and shares no code with what it judges but the parser.
//!
//! What came in may have been dropped for a reason that the referee doesn't know. So it keeps two accounts: what *may*
//! have been taken, for what the stack claims to have, and what *must* have been, for what it has to say.

mod ranges;
mod receiver;
mod sender;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
};

use stack_user::{
    tcp::{Segment, SeqNumber},
    time::{Duration, Instant},
    wire::{arp, ethernet, ethernet::ethertype, ipv4, protocol},
};

use receiver::Receiver;
use sender::Sender;

/// How long the slowest NIC takes to send what has waited for a neighbour.
const BACKLOG: Duration = Duration::from_secs(1);

/// What a host said that it should not have, or did not say that it should have.
pub(crate) type Verdict = Result<(), String>;

/// Who watches one host.
#[derive(Debug, Default)]
pub(crate) struct Referee {
    flows: BTreeMap<Ends, Flow>,
    /// Neighbours that were asked for and have not answered. What waits for one leaves long after it was made, or never.
    sought: BTreeSet<Ipv4Addr>,
    /// Until then the host stands still, or sends what has waited.
    prompt_from: Instant,
    /// The first breach of a rule.
    breach: Option<String>,
}

/// The host's end of a connection, and its peer's.
type Ends = (SocketAddrV4, SocketAddrV4);

/// One connection, as the host could see it.
#[derive(Debug, Default)]
struct Flow {
    /// What our SYN said, and the peer's.
    ours: Option<Syn>,
    theirs: Option<Syn>,
    /// Our SYN asked, and did not answer.
    is_active: bool,
    receiver: Receiver,
    sender: Sender,
    /// It was reset, or is a puzzle.
    is_over: bool,
    /// Something came since the host was last asked whether it has said all.
    is_fresh: bool,
}

#[derive(Clone, Copy, Debug)]
struct Syn {
    seq: SeqNumber,
    window: u16,
    shift: Option<u8>,
    sack: bool,
    mss: Option<u16>,
}

/// A segment in the terms of its stream: offsets from the first byte after SYN.
#[derive(Clone, Debug)]
struct Seen {
    now: Instant,
    start: i64,
    len: i64,
    fin: bool,
    ack: i64,
    /// In bytes.
    window: i64,
    /// The unit of that.
    unit: i64,
    /// Nothing waits for a neighbour: what leaves does so as soon as it is made.
    is_prompt: bool,
    segment: Segment,
}

impl Seen {
    /// Behind the payload and FIN.
    fn end(&self) -> i64 {
        self.start + self.len + i64::from(self.fin)
    }
}

impl Referee {
    /// The stack takes a frame.
    pub(crate) fn received(&mut self, now: Instant, frame: &[u8]) {
        if arp_packet(frame).is_some_and(|packet| self.sought.remove(&packet.sender_ip)) {
            self.prompt_from = self.prompt_from.max(now + BACKLOG);
        }
        let Some((header, bytes)) = datagram(frame) else { return };
        if header.protocol == protocol::ICMPV4 {
            // Whatever it says, what follows may follow from it.
            self.flows.values_mut().for_each(|flow| flow.sender.hear());
        }
        let Some((segment, len)) = parse(&header, bytes) else { return };
        let ends = (
            SocketAddrV4::new(header.destination, segment.destination_port),
            SocketAddrV4::new(header.source, segment.source_port),
        );
        let is_prompt = self.is_prompt(now);
        let verdict = self.flows.entry(ends).or_default().received(now, segment, len, is_prompt);
        self.note(ends, verdict);
    }

    /// The stack puts a frame out.
    pub(crate) fn sent(&mut self, now: Instant, frame: &[u8]) {
        // Not those that ask for our own address (RFC 5227 §2.1.1 and §2.3).
        let is_question = |packet: &arp::Packet| {
            let is_own = packet.sender_ip.is_unspecified() || packet.sender_ip == packet.target_ip;
            packet.operation == arp::Operation::Request && !is_own
        };
        if let Some(packet) = arp_packet(frame).filter(is_question) {
            self.sought.insert(packet.target_ip);
        }
        let Some((header, bytes)) = datagram(frame) else { return };
        let Some((segment, len)) = parse(&header, bytes) else { return };
        let ends = (
            SocketAddrV4::new(header.source, segment.source_port),
            SocketAddrV4::new(header.destination, segment.destination_port),
        );
        let is_prompt = self.is_prompt(now);
        let verdict = self.flows.entry(ends).or_default().sent(now, segment, len, is_prompt);
        self.note(ends, verdict);
    }

    /// The host has done what there was to do. `has_said_all`: and nothing kept it from sending.
    pub(crate) fn look(&mut self, now: Instant, has_said_all: bool) {
        let is_prompt = self.is_prompt(now);
        let mut verdicts = Vec::new();
        for (&ends, flow) in &mut self.flows {
            if !(has_said_all && is_prompt) {
                flow.receiver.excuse(now);
            } else if std::mem::take(&mut flow.is_fresh) && !flow.is_over {
                verdicts.push((ends, flow.receiver.owes_nothing(now)));
            }
        }
        verdicts.into_iter().for_each(|(ends, verdict)| self.note(ends, verdict));
    }

    /// Nothing has happened for a while: nobody may still be waiting for an ACK.
    pub(crate) fn look_at_all(&mut self, now: Instant, has_said_all: bool) {
        self.flows.values_mut().for_each(|flow| flow.is_fresh = true);
        self.look(now, has_said_all);
    }

    /// The host stood still until then, or its clock jumped: times tell nothing.
    pub(crate) fn interrupt(&mut self, until: Instant) {
        for flow in self.flows.values_mut() {
            flow.receiver.excuse(until);
            flow.sender.hear();
        }
        self.prompt_from = self.prompt_from.max(until);
    }

    /// Whether what is made now leaves now.
    fn is_prompt(&self, now: Instant) -> bool {
        self.sought.is_empty() && now >= self.prompt_from
    }

    /// The first breach, if there was one.
    pub(crate) fn verdict(&self) -> Verdict {
        self.breach.clone().map_or(Ok(()), Err)
    }

    fn note(&mut self, (local, remote): Ends, verdict: Verdict) {
        if let Err(what) = verdict {
            self.breach.get_or_insert_with(|| format!("{local} → {remote}: {what}"));
        }
    }
}

impl Flow {
    fn received(&mut self, now: Instant, segment: Segment, len: usize, is_prompt: bool) -> Verdict {
        self.is_over |= segment.rst();
        self.is_fresh = true;
        if self.is_over {
            return Ok(());
        }
        self.sender.hear();
        if segment.syn() {
            let is_other = self.theirs.is_some_and(|syn| syn.seq != segment.seq);
            // An old one, or a new peer: our own next SYN will tell.
            self.is_over |= is_other && self.ours.is_some();
            self.theirs = Some(Syn::of(&segment));
        }
        let Some(seen) = self.seen(now, segment, len, false) else { return Ok(()) };
        let seen = Seen { is_prompt, ..seen };
        let is_heeded = !seen.segment.syn() && self.receiver.received(&seen);
        self.sender.received(&seen, is_heeded);
        Ok(())
    }

    fn sent(&mut self, now: Instant, segment: Segment, len: usize, is_prompt: bool) -> Verdict {
        if segment.syn() && self.ours.is_none_or(|syn| syn.seq != segment.seq) {
            let theirs = self.theirs;
            *self = Self { theirs, is_active: segment.acknowledges().is_none(), ..Self::default() };
        }
        if segment.syn() {
            let syn = Syn::of(&segment);
            self.receiver.offer(i64::from(syn.window), i64::from(syn.mss.unwrap_or(0)));
            self.ours = Some(syn);
            return Ok(());
        }
        self.is_over |= segment.rst();
        if self.is_over {
            return Ok(());
        }
        let Some(seen) = self.seen(now, segment, len, true) else { return Ok(()) };
        let seen = Seen { is_prompt, ..seen };
        let speaks_sack = [self.ours, self.theirs].iter().flatten().all(|syn| syn.sack);
        let snd_nxt = self.sender.next();
        self.receiver.sent(&seen, self.is_active, speaks_sack, snd_nxt)?;
        let mss = self.theirs.and_then(|syn| syn.mss).unwrap_or(536);
        self.sender.sent(&seen, i64::from(mss.max(48)))
    }

    /// A segment with offsets instead of numbers, once both sides are known.
    fn seen(&self, now: Instant, segment: Segment, len: usize, is_ours: bool) -> Option<Seen> {
        let (ours, theirs) = (self.ours?, self.theirs?);
        let (from, to) = if is_ours { (ours, theirs) } else { (theirs, ours) };
        let offset = |seq: SeqNumber, syn: Syn| i64::from(seq.distance(syn.seq + 1));
        let is_scaled = ours.shift.is_some() && theirs.shift.is_some() && !segment.syn();
        let shift = from.shift.filter(|_| is_scaled).unwrap_or(0);
        Some(Seen {
            now,
            start: offset(segment.seq, from),
            len: len as i64,
            fin: segment.fin(),
            ack: offset(segment.acknowledges()?, to),
            window: i64::from(segment.window) << shift,
            unit: 1 << shift,
            is_prompt: true,
            segment,
        })
    }
}

impl Syn {
    fn of(segment: &Segment) -> Self {
        Self {
            seq: segment.seq,
            window: segment.window,
            shift: segment.options.window_scale,
            sack: segment.options.sack_permitted,
            mss: segment.options.mss,
        }
    }
}

fn datagram(frame: &[u8]) -> Option<(ipv4::Header, &[u8])> {
    let (link, at) = ethernet::Header::parse(frame).ok()?;
    let datagram = frame.get(at..).filter(|_| link.ethertype == ethertype::IPV4)?;
    let (header, payload) = ipv4::Header::parse(datagram).ok()?;
    Some((header, datagram.get(payload)?))
}

/// A segment and the length of its payload.
fn parse(header: &ipv4::Header, bytes: &[u8]) -> Option<(Segment, usize)> {
    let is_tcp = header.protocol == protocol::TCP;
    let bytes = Some(bytes).filter(|_| is_tcp)?;
    let (segment, at) = Segment::parse(header.source.into(), header.destination.into(), bytes).ok()?;
    Some((segment, bytes.len() - at))
}

fn arp_packet(frame: &[u8]) -> Option<arp::Packet> {
    let (link, at) = ethernet::Header::parse(frame).ok()?;
    let packet = frame.get(at..).filter(|_| link.ethertype == ethertype::ARP)?;
    arp::Packet::parse(packet).ok()
}
