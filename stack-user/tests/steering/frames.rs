//! Frames, put together field by field, so that each field can be wrong.

/// An Ethernet frame.
#[derive(Clone, Default)]
pub(crate) struct Link {
    /// What precedes the EtherType: tag protocol and tag control information.
    pub(crate) tags: Vec<(u16, u16)>,
}

impl Link {
    pub(crate) fn untagged() -> Self {
        Self::default()
    }

    /// One IEEE 802.1Q tag: priority, drop eligibility and VLAN id.
    pub(crate) fn tagged(tci: u16) -> Self {
        Self { tags: vec![(0x8100, tci)] }
    }

    pub(crate) fn frame(&self, ether_type: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (protocol, tci) in &self.tags {
            frame.extend(protocol.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        frame.extend(ether_type.to_be_bytes());
        frame.extend(payload);
        frame
    }

    pub(crate) fn ipv4(&self, packet: &Ipv4) -> Vec<u8> {
        self.frame(0x0800, &packet.bytes())
    }

    pub(crate) fn arp(&self, arp: &Arp) -> Vec<u8> {
        self.frame(0x0806, &arp.bytes())
    }
}

/// An IPv4 packet, right unless told otherwise.
#[derive(Clone)]
pub(crate) struct Ipv4 {
    pub(crate) version: u8,
    /// Bytes of options, a multiple of four.
    pub(crate) options: usize,
    /// In words, if it is to contradict the options.
    pub(crate) header_words: Option<u8>,
    /// If it is to contradict the payload.
    pub(crate) total_len: Option<u16>,
    pub(crate) flags_and_offset: u16,
    pub(crate) protocol: u8,
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
    pub(crate) payload: Vec<u8>,
}

pub(crate) const MORE_FRAGMENTS: u16 = 0x2000;
pub(crate) const DONT_FRAGMENT: u16 = 0x4000;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const GRE: u8 = 47;

impl Ipv4 {
    pub(crate) fn to(destination: [u8; 4], protocol: u8, payload: Vec<u8>) -> Self {
        Self {
            version: 4,
            options: 0,
            header_words: None,
            total_len: None,
            flags_and_offset: 0,
            protocol,
            source: [198, 51, 100, 1],
            destination,
            payload,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let header_len = 20 + self.options;
        let words = self.header_words.unwrap_or(header_len as u8 / 4);
        let total_len = self.total_len.unwrap_or((header_len + self.payload.len()) as u16);
        let mut bytes = vec![self.version << 4 | words, 0];
        bytes.extend(total_len.to_be_bytes());
        bytes.extend([0x12, 0x34]);
        bytes.extend(self.flags_and_offset.to_be_bytes());
        bytes.extend([64, self.protocol, 0, 0]);
        bytes.extend(self.source);
        bytes.extend(self.destination);
        // NOPs (RFC 791 §3.1), then whatever the packet carries.
        bytes.extend(std::iter::repeat_n(1, self.options));
        bytes.extend(&self.payload);
        bytes
    }
}

/// A TCP or UDP header and a little data: enough for the ports to be where they belong.
pub(crate) fn transport(source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut bytes = source_port.to_be_bytes().to_vec();
    bytes.extend(destination_port.to_be_bytes());
    bytes.extend([0; 20]);
    bytes
}

/// An ICMP message.
pub(crate) fn icmp(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(body);
    bytes
}

/// An ARP packet, right unless told otherwise.
#[derive(Clone)]
pub(crate) struct Arp {
    /// Hardware type, protocol type, and the lengths of their addresses.
    pub(crate) format: (u16, u16, u8, u8),
    pub(crate) operation: u16,
    pub(crate) sender: [u8; 4],
    pub(crate) target: [u8; 4],
}

pub(crate) const REQUEST: u16 = 1;
pub(crate) const REPLY: u16 = 2;

impl Arp {
    pub(crate) fn new(operation: u16, sender: [u8; 4], target: [u8; 4]) -> Self {
        Self { format: (1, 0x0800, 6, 4), operation, sender, target }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let (hardware, protocol, hardware_len, protocol_len) = self.format;
        let mut bytes = hardware.to_be_bytes().to_vec();
        bytes.extend(protocol.to_be_bytes());
        bytes.extend([hardware_len, protocol_len]);
        bytes.extend(self.operation.to_be_bytes());
        bytes.extend([2, 0, 0, 0, 0, 2]);
        bytes.extend(self.sender);
        bytes.extend([0; 6]);
        bytes.extend(self.target);
        bytes
    }
}
