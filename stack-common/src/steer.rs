//! Whose is this frame? One decision, taken by the XDP program, the tests and the simulator alike.
//!
//! [`decide`] is pure. It reads the frame through a [`Cursor`] (a slice on the host, the packet's pointers under
//! the verifier) and asks a [`Policy`] what is claimed (a map in the kernel, anything on the host). When in
//! doubt, the frame is the kernel's: a frame that we take by mistake is lost to the host.

use crate::{
    abi::{Claim, ClaimKey},
    numbers::{ETHERNET_LEN, ICMP_LEN, IPV4_LEN, VLAN_TAG_LEN, ethertype, protocol},
};

/// Reads a frame from its start to its end.
///
/// There is nothing to seek with: under the verifier each read is one pointer that moves and one comparison with
/// the end.
pub trait Cursor {
    /// The next `N` bytes, or `None` if there aren't as many (in the part of the frame that can be read).
    fn take<const N: usize>(&mut self) -> Option<[u8; N]>;

    /// Moves over the next bytes. `None` if there aren't as many, at once or when the next byte is taken.
    fn skip(&mut self, bytes: usize) -> Option<()>;

    /// Whether the frame is at least so long, counted from its start, those parts included that can't be read
    /// here (a multi-buffer frame shows only its first buffer).
    fn frame_has(&self, bytes: usize) -> bool;
}

/// What is claimed.
pub trait Policy {
    /// The claim on an address in a VLAN, if there is one.
    fn claim(&self, key: &ClaimKey) -> Option<&Claim>;
}

macro_rules! verdicts {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Where a frame goes, and why. Each verdict has a counter of that index.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum Verdict { $($(#[$doc])* $variant,)* }

        impl Verdict {
            /// All verdicts, in the order of their counters.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The verdict in a word or two, as shown to people.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

verdicts! {
    /// To us: ARP about a claimed address.
    RedirectArp = "redirect-arp",
    /// To us: ICMP to a claimed address, or an ICMP error that quotes a flow of ours.
    RedirectIcmp = "redirect-icmp",
    /// To us: TCP.
    RedirectTcp = "redirect-tcp",
    /// To us: UDP.
    RedirectUdp = "redirect-udp",
    /// To us: another protocol over IP, to a claimed address.
    RedirectOther = "redirect-other",
    /// To us: a fragment of a packet to a claimed address.
    RedirectFragment = "redirect-fragment",
    /// To the kernel: the frame ends within a header, or before the packet does.
    PassTruncated = "pass-truncated",
    /// To the kernel: a header that contradicts itself.
    PassMalformed = "pass-malformed",
    /// To the kernel: neither ARP nor IPv4.
    PassEtherType = "pass-ethertype",
    /// To the kernel: more than one VLAN tag, or a service tag (IEEE 802.1ad).
    PassStackedVlan = "pass-stacked-vlan",
    /// To the kernel: ARP about addresses that nobody claimed.
    PassArp = "pass-arp",
    /// To the kernel: an untagged packet to an address that nobody claimed.
    PassAddress = "pass-address",
    /// To the kernel: a tagged packet to an address that nobody claimed in that VLAN.
    PassVlan = "pass-vlan",
    /// To the kernel: TCP or UDP to a shared address, but not to a port of ours.
    PassPort = "pass-port",
    /// To the kernel: ICMP to a shared address that quotes no flow of ours.
    PassIcmp = "pass-icmp",
    /// To the kernel: a protocol without ports, to a shared address.
    PassProtocol = "pass-protocol",
    /// To the kernel: a fragment of a packet to a shared address. Only the first one shows the ports.
    PassFragment = "pass-fragment",
}

impl Verdict {
    /// Whether the frame is ours.
    #[inline(always)]
    #[must_use]
    pub const fn is_redirect(self) -> bool {
        self.index() <= Self::RedirectFragment.index()
    }

    /// The index of the verdict's counter.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }
}

/// Decides where a frame goes.
///
/// Bad headers leave by `Err`, only so that `?` can be used: a verdict is a verdict.
#[inline(always)]
pub fn decide<C: Cursor, P: Policy>(frame: &mut C, policy: &P) -> Verdict {
    match ethernet(frame, policy) {
        Ok(verdict) | Err(verdict) => verdict,
    }
}

type Decision = Result<Verdict, Verdict>;

#[inline(always)]
fn take<const N: usize, C: Cursor>(frame: &mut C) -> Result<[u8; N], Verdict> {
    frame.take().ok_or(Verdict::PassTruncated)
}

/// The Ethernet header and at most one IEEE 802.1Q tag.
///
/// The destination address is not looked at: the NIC filters by it, and a claimed address may be reached by a
/// MAC of its own.
#[inline(always)]
fn ethernet<C: Cursor, P: Policy>(frame: &mut C, policy: &P) -> Decision {
    let [.., t0, t1] = take::<ETHERNET_LEN, _>(frame)?;
    match u16::from_be_bytes([t0, t1]) {
        ethertype::VLAN => {
            let [tci0, tci1, t0, t1] = take::<VLAN_TAG_LEN, _>(frame)?;
            // Twelve bits of VLAN id. Zero is a priority tag: the frame belongs to no VLAN (IEEE 802.1Q §9.6).
            let vlan = u16::from_be_bytes([tci0, tci1]) & 0x0fff;
            network(frame, policy, u16::from_be_bytes([t0, t1]), vlan, ETHERNET_LEN + VLAN_TAG_LEN)
        }
        ether_type => network(frame, policy, ether_type, 0, ETHERNET_LEN),
    }
}

#[inline(always)]
fn network<C: Cursor, P: Policy>(
    frame: &mut C,
    policy: &P,
    ether_type: u16,
    vlan: u16,
    link_header_len: usize,
) -> Decision {
    match ether_type {
        ethertype::IPV4 => ipv4(frame, policy, vlan, link_header_len),
        ethertype::ARP => arp(frame, policy, vlan),
        ethertype::VLAN | ethertype::SERVICE_VLAN => Ok(Verdict::PassStackedVlan),
        _ => Ok(Verdict::PassEtherType),
    }
}

/// ARP (RFC 826) is ours when it is about an address that is all ours.
///
/// As the target: somebody asks for us, answers us, or probes for our address. As the sender: somebody else uses
/// our address, which is the conflict that RFC 5227 §2.4 wants us to see. The host's ARP is never ours, so a
/// request for a shared address goes to the kernel whoever sent it.
#[inline(always)]
fn arp<C: Cursor, P: Policy>(frame: &mut C, policy: &P, vlan: u16) -> Decision {
    let [h0, h1, p0, p1, hlen, plen, _, _] = take::<8, _>(frame)?;
    let [_, _, _, _, _, _, s0, s1, s2, s3] = take::<10, _>(frame)?;
    let [_, _, _, _, _, _, t0, t1, t2, t3] = take::<10, _>(frame)?;
    // Ethernet (1) with 6-byte addresses, and IPv4 with 4-byte ones.
    if [h0, h1, p0, p1, hlen, plen] != [0, 1, 8, 0, 6, 4] {
        return Ok(Verdict::PassMalformed);
    }
    if let Some(claim) = policy.claim(&ClaimKey::v4([t0, t1, t2, t3], vlan)) {
        return Ok(if claim.is_whole() { Verdict::RedirectArp } else { Verdict::PassArp });
    }
    match policy.claim(&ClaimKey::v4([s0, s1, s2, s3], vlan)) {
        Some(claim) if claim.is_whole() => Ok(Verdict::RedirectArp),
        _ => Ok(Verdict::PassArp),
    }
}

const PORTS_LEN: usize = 4;

/// The fields of an IPv4 header (RFC 791 §3.1) that matter here.
struct Ipv4 {
    header_len: usize,
    total_len: usize,
    /// Part of a packet: more fragments follow, or it does not start at offset 0.
    is_fragment: bool,
    /// A part that does not begin with the transport header.
    is_later_fragment: bool,
    protocol: u8,
    source: [u8; 4],
    destination: [u8; 4],
}

impl Ipv4 {
    /// Takes the fixed header off the cursor; the options stay.
    #[inline(always)]
    fn take<C: Cursor>(frame: &mut C) -> Result<Self, Verdict> {
        let [vihl, _, l0, l1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
            take::<IPV4_LEN, _>(frame)?;
        let header_len = usize::from(vihl & 0x0f) * 4;
        if vihl >> 4 != 4 || header_len < IPV4_LEN {
            return Err(Verdict::PassMalformed);
        }
        let offset_and_flags = u16::from_be_bytes([f0, f1]);
        Ok(Self {
            header_len,
            total_len: usize::from(u16::from_be_bytes([l0, l1])),
            // The don't-fragment bit and the reserved one are left out.
            is_fragment: offset_and_flags & 0x3fff != 0,
            is_later_fragment: offset_and_flags & 0x1fff != 0,
            protocol,
            source: [s0, s1, s2, s3],
            destination: [d0, d1, d2, d3],
        })
    }

    /// Moves the cursor over the options.
    #[inline(always)]
    fn skip_options<C: Cursor>(&self, frame: &mut C) -> Result<(), Verdict> {
        frame.skip(self.header_len - IPV4_LEN).ok_or(Verdict::PassTruncated)
    }
}

#[inline(always)]
fn ipv4<C: Cursor, P: Policy>(frame: &mut C, policy: &P, vlan: u16, link_header_len: usize) -> Decision {
    let packet = Ipv4::take(frame)?;
    if packet.total_len < packet.header_len {
        return Ok(Verdict::PassMalformed);
    }
    let claim = match policy.claim(&ClaimKey::v4(packet.destination, vlan)) {
        Some(claim) => claim,
        None if vlan == 0 => return Ok(Verdict::PassAddress),
        None => return Ok(Verdict::PassVlan),
    };
    let verdict =
        if claim.is_whole() { to_whole_address(&packet) } else { to_shared_address(frame, &packet, claim)? };
    // What is the kernel's anyway is so whatever its length, which takes a call to find out. Longer is fine: short frames are
    // padded to the link's minimum.
    if verdict.is_redirect() && !frame.frame_has(link_header_len + packet.total_len) {
        return Ok(Verdict::PassTruncated);
    }
    Ok(verdict)
}

/// Everything to a claimed address is ours. The rest of the packet is the stack's to judge.
#[inline(always)]
fn to_whole_address(packet: &Ipv4) -> Verdict {
    match packet.protocol {
        _ if packet.is_fragment => Verdict::RedirectFragment,
        protocol::ICMPV4 => Verdict::RedirectIcmp,
        protocol::TCP => Verdict::RedirectTcp,
        protocol::UDP => Verdict::RedirectUdp,
        _ => Verdict::RedirectOther,
    }
}

/// The address is the host's, but for some ports.
#[inline(always)]
fn to_shared_address<C: Cursor>(frame: &mut C, packet: &Ipv4, claim: &Claim) -> Decision {
    if packet.is_fragment {
        return Ok(Verdict::PassFragment);
    }
    let ours = match packet.protocol {
        protocol::TCP => Verdict::RedirectTcp,
        protocol::UDP => Verdict::RedirectUdp,
        protocol::ICMPV4 => return quoted_flow(frame, packet, claim),
        _ => return Ok(Verdict::PassProtocol),
    };
    if packet.total_len < packet.header_len + PORTS_LEN {
        return Ok(Verdict::PassMalformed);
    }
    packet.skip_options(frame)?;
    let [_, _, p0, p1] = take::<PORTS_LEN, _>(frame)?;
    Ok(if claim.has_port(u16::from_be_bytes([p0, p1])) { ours } else { Verdict::PassPort })
}

/// An ICMP error belongs to whoever sent the packet that it quotes (RFC 792): ours, if that came from a port of
/// ours. Echo and the rest are the host's.
#[inline(always)]
fn quoted_flow<C: Cursor>(frame: &mut C, packet: &Ipv4, claim: &Claim) -> Decision {
    if packet.total_len < packet.header_len + ICMP_LEN {
        return Ok(Verdict::PassMalformed);
    }
    packet.skip_options(frame)?;
    let [kind, ..] = take::<ICMP_LEN, _>(frame)?;
    // Destination unreachable, time exceeded, parameter problem. A redirect is about the host's own routes, and
    // source quench is no more (RFC 6633).
    if !matches!(kind, 3 | 11 | 12) {
        return Ok(Verdict::PassIcmp);
    }
    // What is left of the packet after the ICMP header must hold the quoted header and its ports; behind it
    // there may be padding, which is not to be read as ports.
    let quote_len = packet.total_len - packet.header_len - ICMP_LEN;
    if quote_len < IPV4_LEN {
        return Ok(Verdict::PassIcmp);
    }
    let quote = Ipv4::take(frame)?;
    let has_ports = matches!(quote.protocol, protocol::TCP | protocol::UDP)
        && !quote.is_later_fragment
        && quote_len >= quote.header_len + PORTS_LEN;
    if !has_ports || quote.source != packet.destination {
        return Ok(Verdict::PassIcmp);
    }
    quote.skip_options(frame)?;
    let [p0, p1, _, _] = take::<PORTS_LEN, _>(frame)?;
    let ours = claim.has_port(u16::from_be_bytes([p0, p1]));
    Ok(if ours { Verdict::RedirectIcmp } else { Verdict::PassIcmp })
}

/// The host's cursor: a whole frame in one piece.
pub struct SliceCursor<'a> {
    rest: &'a [u8],
    frame_len: usize,
}

impl<'a> SliceCursor<'a> {
    /// A cursor at the start of a frame.
    #[must_use]
    pub fn new(frame: &'a [u8]) -> Self {
        Self { rest: frame, frame_len: frame.len() }
    }
}

impl Cursor for SliceCursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    fn frame_has(&self, bytes: usize) -> bool {
        self.frame_len >= bytes
    }
}
