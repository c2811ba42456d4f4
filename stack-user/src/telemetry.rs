//! Every dropped frame has one reason and bumps one counter.

use core::fmt;

/// The `tracing` target of the story that `-v` tells: attached, claimed, connected, state by state.
///
/// Any layer tells a line of it by `tracing::info!(target: STORY, "…")`; the command prints it as `* …` on stderr.
/// One event is one line in plain words, for the user and not for us: what happened, to whom.
pub const STORY: &str = "xstack::story";

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a frame was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// All reasons, in the order of the counters.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason's name in metrics and `--json`: words in snake case, by layer.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than an Ethernet header, or a VLAN tag that is cut off.
    EthernetTruncated = "ethernet_truncated",
    /// Addressed to a MAC that is neither ours, nor broadcast, nor a multicast group that we are in.
    EthernetNotForUs = "ethernet_not_for_us",
    /// Sent from a group address, which no station has (IEEE 802.3 §3.2.3).
    EthernetBadSource = "ethernet_bad_source",
    /// An EtherType that this stack does not speak.
    EthernetUnknownType = "ethernet_unknown_type",
    /// A VLAN that the claimed address is not on.
    EthernetWrongVlan = "ethernet_wrong_vlan",
    /// Not Ethernet/IPv4 ARP, or cut off (RFC 826).
    ArpMalformed = "arp_malformed",
    /// ARP that concerns other hosts.
    ArpNotForUs = "arp_not_for_us",
    /// Shorter than its header, version or header length wrong (RFC 791).
    Ipv4Malformed = "ipv4_malformed",
    /// Longer by its own word than what came: whoever sent it, or a driver that cuts frames to its buffers (RFC 791).
    Ipv4Truncated = "ipv4_truncated",
    /// The header's checksum is wrong (RFC 1122 §3.2.1.2).
    Ipv4BadChecksum = "ipv4_bad_checksum",
    /// A source that no host may use: multicast, broadcast, loopback (RFC 1122 §3.2.1.3).
    Ipv4BadSource = "ipv4_bad_source",
    /// A destination that is not ours.
    Ipv4NotForUs = "ipv4_not_for_us",
    /// Source-routed (RFC 7126 §4.3, §4.4).
    Ipv4SourceRoute = "ipv4_source_route",
    /// A protocol that this stack does not speak.
    Ipv4UnknownProtocol = "ipv4_unknown_protocol",
    /// A fragment that overlaps another, or leads beyond 65535 bytes (RFC 791, RFC 1858).
    FragmentMalformed = "fragment_malformed",
    /// A datagram whose fragments did not all come in time (RFC 1122 §3.3.2).
    FragmentTimeout = "fragment_timeout",
    /// A datagram whose fragments did not all come before others needed the room, or a fragment too many of one.
    FragmentQueueFull = "fragment_queue_full",
    /// A segment or ICMP message that came in fragments, longer than a chunk.
    FragmentTooLong = "fragment_too_long",
    /// Cut off or with a wrong checksum (RFC 792).
    IcmpMalformed = "icmp_malformed",
    /// A type that asks for nothing from us.
    IcmpIgnored = "icmp_ignored",
    /// An error about a packet that we did not send (RFC 5927).
    IcmpUnmatched = "icmp_unmatched",
    /// An answer was due but the rate limit was reached (RFC 1812 §4.3.2.8).
    IcmpRateLimited = "icmp_rate_limited",
    /// Cut off, or a length that the packet does not have (RFC 768).
    UdpMalformed = "udp_malformed",
    /// The checksum is wrong (RFC 768).
    UdpBadChecksum = "udp_bad_checksum",
    /// No socket listens on the port.
    UdpNoSocket = "udp_no_socket",
    /// The socket's queue is full.
    UdpQueueFull = "udp_queue_full",
    /// Cut off, data offset wrong, or options that do not parse (RFC 9293 §3.1).
    TcpMalformed = "tcp_malformed",
    /// The checksum is wrong (RFC 9293 §3.1, MUST-3).
    TcpBadChecksum = "tcp_bad_checksum",
    /// No connection and no listener: answered with RST (RFC 9293 §3.10.7.1).
    TcpNoConnection = "tcp_no_connection",
    /// A multicast or broadcast address in a SYN (RFC 9293 §3.10.7.2, MUST-57).
    TcpBadAddress = "tcp_bad_address",
    /// An ACK for data that was never sent, in SYN-SENT or later (RFC 9293 §3.10.7).
    TcpUnacceptableAck = "tcp_unacceptable_ack",
    /// Outside the receive window (RFC 9293 §3.10.7.4).
    TcpOutOfWindow = "tcp_out_of_window",
    /// The connection has timestamps, and the segment none (RFC 7323 §3.2).
    TcpNoTimestamp = "tcp_no_timestamp",
    /// An old duplicate by its timestamp (RFC 7323 §5, PAWS).
    TcpPaws = "tcp_paws",
    /// No ACK bit where one is required (RFC 9293 §3.10.7.4).
    TcpNoAck = "tcp_no_ack",
    /// A SYN or RST that an attacker may have sent: answered with a challenge ACK (RFC 5961).
    TcpChallenged = "tcp_challenged",
    /// Data that was received before.
    TcpDuplicateData = "tcp_duplicate_data",
    /// Data after the application stopped reading: answered with RST (RFC 9293 §3.6.1).
    TcpDataAfterClose = "tcp_data_after_close",
    /// More data out of order than the bound allows.
    TcpReassemblyFull = "tcp_reassembly_full",
    /// What waits to be read or put in order, of all connections, takes more memory than the bound allows.
    TcpMemory = "tcp_memory",
    /// A SYN found more half-open connections than the bound allows.
    TcpSynQueueFull = "tcp_syn_queue_full",
    /// The application does not accept connections as fast as they come.
    TcpAcceptQueueFull = "tcp_accept_queue_full",
    /// A reset was due but the rate limit was reached.
    TcpResetLimited = "tcp_reset_limited",
    /// It came in on a queue of another shard than its flow's, and that one does not take in what it is passed as fast as
    /// it comes.
    ShardInboxFull = "shard_inbox_full",
    /// Another shard took the flow at the same moment: its sender repeats it.
    ShardRace = "shard_race",
    /// No chunk was left to answer with, or to keep the data in.
    NoFrame = "no_frame",
    /// An answer or a datagram found too many others that wait for the TX ring.
    TxQueueFull = "tx_queue_full",
    /// Too many frames wait for this neighbour's link-layer address.
    NeighbourQueueFull = "neighbour_queue_full",
    /// The neighbour did not answer.
    NeighbourUnreachable = "neighbour_unreachable",
    /// No route to the destination.
    NoRoute = "no_route",
    /// Dropped on purpose by `--fault`.
    Fault = "fault",
}

/// How often each [`DropReason`] occurred.
#[derive(Clone, PartialEq, Eq)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl DropCounters {
    /// Counts one drop.
    pub fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// Counts what another has counted, too.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }

    /// How often `reason` occurred.
    pub fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// The reasons that occurred, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.get(reason))).filter(|&(_, n)| n > 0)
    }
}

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl fmt::Debug for DropCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(reason, n)| (reason.name(), n))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        let mut counters = DropCounters::default();
        for &reason in DropReason::ALL {
            counters.count(reason);
        }
        assert!(DropReason::ALL.iter().all(|&reason| counters.get(reason) == 1));
        assert_eq!(counters.iter().count(), DropReason::ALL.len());
        let names: std::collections::HashSet<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DropReason::ALL.len(), "two reasons share a name");
    }

    #[test]
    fn counters_add_up_reason_by_reason() {
        let (mut one, mut other) = (DropCounters::default(), DropCounters::default());
        one.count(DropReason::Fault);
        other.count(DropReason::Fault);
        other.count(DropReason::NoRoute);
        one.add(&other);
        assert_eq!(one.iter().collect::<Vec<_>>(), [(DropReason::NoRoute, 1), (DropReason::Fault, 2)]);
    }
}
