//! Switches, routers and the links between them.
//!
//! Hosts are on sites. A site is a switch and a router; the routers meet in a core. A frame that stays on its site passes
//! its sender's link up and its receiver's link down; one that leaves it also passes its site's way to the core, and the
//! other site's way from there.

use std::net::Ipv4Addr;

use stack_user::{
    tcp::{Segment, options::Options},
    time::Instant,
    wire::{
        MacAddr, arp, ethernet,
        ethernet::ethertype,
        icmpv4::{self, Message, unreachable},
        ipv4, protocol,
    },
};

use crate::{
    link::{Link, Lost, read_u16, write_ip_checksum},
    trace,
};

/// Bytes of a datagram that an ICMP error quotes: header and eight more (RFC 792), here with all of TCP's fixed header.
const QUOTED: usize = ipv4::LEN + 20;

/// Where a frame is, or is about to arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// At the switch of a site.
    Switch(usize),
    /// In the core.
    Core,
    /// At the router of a site, from the core.
    Edge(usize),
    /// At a host.
    Host(usize),
}

/// How a host is connected: numbers of links.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    pub(crate) site: usize,
    pub(crate) address: Ipv4Addr,
    pub(crate) up: usize,
    pub(crate) down: usize,
}

/// How a site is connected to the core: numbers of links.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Uplink {
    pub(crate) out: usize,
    pub(crate) back: usize,
}

/// What a box on the way does to TCP.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Middlebox {
    pub(crate) strips_mss: bool,
    pub(crate) strips_window_scale: bool,
    pub(crate) strips_sack: bool,
    pub(crate) strips_timestamps: bool,
    /// No MSS passes that is larger (0: any does).
    pub(crate) clamps_mss: u16,
    /// It tells of a little more room than there is.
    pub(crate) widens_windows: bool,
}

/// All that is between the hosts.
pub(crate) struct Network {
    pub(crate) links: Vec<Link>,
    pub(crate) ports: Vec<Port>,
    pub(crate) uplinks: Vec<Uplink>,
    pub(crate) middlebox: Middlebox,
    /// Routers send "fragmentation needed"; otherwise a link that is too narrow is a black hole (RFC 2923 §2.1).
    pub(crate) tells_mtu: bool,
    /// Routers send "network unreachable" while a link is down.
    pub(crate) tells_down: bool,
    pub(crate) is_verbose: bool,
    pub(crate) lost: u64,
    arrivals: Vec<(Instant, Vec<u8>)>,
}

/// Frames that arrive somewhere at some time.
pub(crate) type Arrivals = Vec<(Instant, Hop, Vec<u8>)>;

impl Network {
    pub(crate) fn new(links: Vec<Link>, ports: Vec<Port>, uplinks: Vec<Uplink>) -> Self {
        Self {
            links,
            ports,
            uplinks,
            middlebox: Middlebox::default(),
            tells_mtu: true,
            tells_down: false,
            is_verbose: false,
            lost: 0,
            arrivals: Vec::new(),
        }
    }

    pub(crate) fn mac(host: usize) -> MacAddr {
        MacAddr([2, 0, 0, 0, (host >> 8) as u8, host as u8])
    }

    pub(crate) fn router_mac(site: usize) -> MacAddr {
        MacAddr([2, 0, 0, 1, 0, site as u8])
    }

    pub(crate) fn router_address(site: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, site as u8, 1)
    }

    /// A host sends a frame.
    pub(crate) fn send(&mut self, now: Instant, host: usize, mut frame: Vec<u8>, out: &mut Arrivals) {
        self.middlebox.rewrite(&mut frame);
        let Port { site, up, .. } = self.ports[host];
        self.carry(now, up, Hop::Switch(site), frame, out);
    }

    /// A frame has arrived somewhere on its way.
    pub(crate) fn forward(&mut self, now: Instant, at: Hop, frame: Vec<u8>, out: &mut Arrivals) {
        match at {
            Hop::Switch(site) => self.switch(now, site, frame, out),
            Hop::Core => self.out_of_core(now, frame, out),
            Hop::Edge(site) => self.down_to_host(now, site, frame, out),
            Hop::Host(_) => {}
        }
    }

    fn carry(&mut self, now: Instant, link: usize, to: Hop, frame: Vec<u8>, out: &mut Arrivals) {
        let said = self.is_verbose.then(|| trace::describe(&frame));
        let result = self.links[link].carry(now, frame, &mut self.arrivals);
        self.lost += u64::from(result.is_err());
        if let Some(said) = said {
            let fate = match result {
                Err(Lost::Chance) => " LOST".to_owned(),
                Err(why) => format!(" LOST: {why:?}"),
                Ok(()) => String::new(),
            };
            eprintln!("{now} → {to:?}: {said}{fate}");
        }
        out.extend(self.arrivals.drain(..).map(|(at, frame)| (at, to, frame)));
    }

    fn switch(&mut self, now: Instant, site: usize, frame: Vec<u8>, out: &mut Arrivals) {
        let Ok((header, _)) = ethernet::Header::parse(&frame) else { return };
        if header.destination == Self::router_mac(site) {
            return self.router(now, site, frame, out);
        }
        let is_receiver = |host: usize| {
            let mac = Self::mac(host);
            mac == header.destination || header.destination.is_broadcast() && mac != header.source
        };
        let receivers: Vec<usize> = (0..self.ports.len())
            .filter(|&host| self.ports[host].site == site && is_receiver(host))
            .collect();
        for &host in &receivers {
            self.carry(now, self.ports[host].down, Hop::Host(host), frame.clone(), out);
        }
        if header.destination.is_broadcast() {
            self.router(now, site, frame, out);
        }
    }

    /// A frame for the router of a site, from a host of that site.
    fn router(&mut self, now: Instant, site: usize, frame: Vec<u8>, out: &mut Arrivals) {
        match read_u16(&frame, 12) {
            ethertype::ARP => self.answer_arp(now, site, &frame, out),
            ethertype::IPV4 => {
                let Some((source, destination)) = addresses(&frame) else { return };
                if destination.octets()[2] == site as u8 {
                    return;
                }
                let link = self.uplinks[site].out;
                if let Some(error) = self.refusal(link, site, &frame) {
                    return self.deliver(now, site, source, error, out);
                }
                self.carry(now, link, Hop::Core, frame, out);
            }
            _ => {}
        }
    }

    fn answer_arp(&mut self, now: Instant, site: usize, frame: &[u8], out: &mut Arrivals) {
        let Ok(request) = arp::Packet::parse(&frame[ethernet::LEN..]) else { return };
        let address = Self::router_address(site);
        if request.operation != arp::Operation::Request || request.target_ip != address {
            return;
        }
        let reply = arp::Packet {
            operation: arp::Operation::Reply,
            sender_mac: Self::router_mac(site),
            sender_ip: address,
            target_mac: request.sender_mac,
            target_ip: request.sender_ip,
        };
        let mut frame = frame_to(request.sender_mac, Self::router_mac(site), ethertype::ARP, arp::LEN);
        reply.emit(&mut frame[ethernet::LEN..]);
        self.switch(now, site, frame, out);
    }

    /// From the core to the site of a datagram's destination.
    fn out_of_core(&mut self, now: Instant, frame: Vec<u8>, out: &mut Arrivals) {
        let Some((source, destination)) = addresses(&frame) else { return };
        let site = usize::from(destination.octets()[2]);
        let Some(&Uplink { back, .. }) = self.uplinks.get(site) else { return };
        if let Some(error) = self.refusal(back, site, &frame) {
            let origin = usize::from(source.octets()[2]);
            let Some(&Uplink { back, .. }) = self.uplinks.get(origin) else { return };
            return self.carry(now, back, Hop::Edge(origin), error, out);
        }
        self.carry(now, back, Hop::Edge(site), frame, out);
    }

    /// From the router of a site to the host that a datagram is for.
    fn down_to_host(&mut self, now: Instant, site: usize, frame: Vec<u8>, out: &mut Arrivals) {
        let Some((_, destination)) = addresses(&frame) else { return };
        self.deliver(now, site, destination, frame, out);
    }

    fn deliver(
        &mut self,
        now: Instant,
        site: usize,
        destination: Ipv4Addr,
        mut frame: Vec<u8>,
        out: &mut Arrivals,
    ) {
        let is_it = |port: &Port| port.site == site && port.address == destination;
        let Some(host) = self.ports.iter().position(is_it) else { return };
        frame[..6].copy_from_slice(&Self::mac(host).0);
        frame[6..12].copy_from_slice(&Self::router_mac(site).0);
        self.carry(now, self.ports[host].down, Hop::Host(host), frame, out);
    }

    /// What the router of a site says to a datagram that `link` can't carry, if it says anything.
    fn refusal(&self, link: usize, site: usize, frame: &[u8]) -> Option<Vec<u8>> {
        let link = &self.links[link];
        let mtu = link.quality.mtu;
        let message = if frame.len() > ethernet::LEN + usize::from(mtu) && self.tells_mtu {
            Message::DestinationUnreachable { code: unreachable::FRAGMENTATION_NEEDED, next_hop_mtu: mtu }
        } else if !link.is_up && self.tells_down {
            Message::DestinationUnreachable { code: unreachable::NET, next_hop_mtu: 0 }
        } else {
            return None;
        };
        let datagram = frame.get(ethernet::LEN..)?;
        let (header, _) = ipv4::Header::parse(datagram).ok()?;
        // RFC 1122 §3.2.2: no error answers an error, and here nobody pings.
        if header.protocol == protocol::ICMPV4 {
            return None;
        }
        let quote = &datagram[..datagram.len().min(QUOTED)];
        let len = icmpv4::LEN + quote.len();
        let mut error = frame_to(MacAddr::ZERO, Self::router_mac(site), ethertype::IPV4, ipv4::LEN + len);
        let source = Self::router_address(site);
        ipv4::Header::new(source, header.source, protocol::ICMPV4, len as u16)
            .emit(&mut error[ethernet::LEN..]);
        let icmp = &mut error[ethernet::LEN + ipv4::LEN..];
        icmp[icmpv4::LEN..].copy_from_slice(quote);
        message.emit(icmp);
        Some(error)
    }
}

impl Middlebox {
    fn is_idle(&self) -> bool {
        let strips =
            self.strips_mss || self.strips_window_scale || self.strips_sack || self.strips_timestamps;
        !(strips || self.clamps_mss > 0 || self.widens_windows)
    }

    fn rewrite(&self, frame: &mut Vec<u8>) {
        if self.is_idle() || read_u16(frame, 12) != ethertype::IPV4 {
            return;
        }
        let Ok((header, payload)) = ipv4::Header::parse(&frame[ethernet::LEN..]) else { return };
        let tcp = ethernet::LEN + payload.start;
        let end = ethernet::LEN + payload.end;
        let (source, destination) = (header.source.into(), header.destination.into());
        let parsed = Segment::parse(source, destination, &frame[tcp..end]).ok();
        let is_changed = |segment: &Segment| segment.syn() || self.widens_windows;
        let Some((mut segment, data)) = parsed.filter(|(segment, _)| is_changed(segment)) else { return };
        let data = frame[tcp + data..end].to_vec();
        if segment.syn() {
            self.change(&mut segment.options);
        } else if segment.window > 0 {
            segment.window = segment.window.saturating_add(1);
        }
        frame.truncate(tcp);
        frame.resize(tcp + segment.header_len(), 0);
        frame.extend_from_slice(&data);
        segment.emit(source, destination, data.len(), &mut frame[tcp..]);
        let total = (frame.len() - ethernet::LEN) as u16;
        frame[ethernet::LEN + 2..ethernet::LEN + 4].copy_from_slice(&total.to_be_bytes());
        write_ip_checksum(&mut frame[ethernet::LEN..]);
    }

    fn change(&self, options: &mut Options) {
        if self.strips_mss {
            options.mss = None;
        }
        if self.strips_window_scale {
            options.window_scale = None;
        }
        if self.strips_timestamps {
            options.timestamps = None;
        }
        options.sack_permitted &= !self.strips_sack;
        if self.clamps_mss > 0 {
            options.mss = options.mss.map(|mss| mss.min(self.clamps_mss));
        }
    }
}

/// Source and destination of a datagram.
fn addresses(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let header: &[u8; ipv4::LEN] = frame.get(ethernet::LEN..)?.first_chunk()?;
    let address = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    Some((address(12), address(16)))
}

fn frame_to(destination: MacAddr, source: MacAddr, ethertype: u16, payload: usize) -> Vec<u8> {
    let mut frame = vec![0; ethernet::LEN + payload];
    ethernet::Header { destination, source, vlan: None, ethertype }.emit(&mut frame);
    frame
}
