//! Which queue a NIC puts a frame in: receive side scaling, by the Toeplitz hash of addresses and ports.
//!
//! Whoever opens a connection chooses its port so that the answers come to a queue of its own.

use std::net::{IpAddr, SocketAddr};

/// A NIC's hash key, and the queues that it spreads hashes over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    key: Vec<u8>,
    /// The queue of each hash, by its low bits.
    table: Vec<u32>,
}

impl Rss {
    /// With the key and the indirection table of a NIC. `None` if it has none, and so one queue.
    pub fn new(key: Vec<u8>, table: Vec<u32>) -> Option<Self> {
        (!key.is_empty() && !table.is_empty()).then_some(Self { key, table })
    }

    /// Whether any hash leads to a queue.
    pub fn uses(&self, queue: u32) -> bool {
        self.table.contains(&queue)
    }

    /// The queue that a TCP segment from `remote` to `local` comes in on, its addresses being of one family.
    pub fn queue_of(&self, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
        let hash = match (remote.ip(), local.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.hash(&[&source.octets(), &destination.octets(), &ports(remote, local)])
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.hash(&[&source.octets(), &destination.octets(), &ports(remote, local)])
            }
            _ => return None,
        };
        self.table.get(hash as usize % self.table.len()).copied()
    }

    /// The Toeplitz hash: for each bit of the input that is set, the 32 bits of the key that begin there.
    fn hash(&self, input: &[&[u8]]) -> u32 {
        let mut key = self.key.iter().copied().chain(std::iter::repeat(0));
        let mut next = || u32::from(key.next().unwrap_or(0));
        let mut window = (0..4).fold(0, |window, _| (window << 8) | next());
        let mut hash = 0;
        for byte in input.iter().copied().flatten() {
            let following = next();
            for bit in (0..8).rev() {
                if byte >> bit & 1 == 1 {
                    hash ^= window;
                }
                window = (window << 1) | (following >> bit & 1);
            }
        }
        hash
    }
}

fn ports(source: SocketAddr, destination: SocketAddr) -> [u8; 4] {
    let ([a, b], [c, d]) = (source.port().to_be_bytes(), destination.port().to_be_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key that the specification's verification suite uses, and most drivers by default.
    const KEY: [u8; 40] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn hash(source: &str, destination: &str) -> u32 {
        let rss = Rss::new(KEY.to_vec(), vec![0]).expect("a key and a table");
        let [source, destination]: [SocketAddr; 2] =
            [source, destination].map(|address| address.parse().expect("an address"));
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                rss.hash(&[&from.octets(), &to.octets(), &ports(source, destination)])
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                rss.hash(&[&from.octets(), &to.octets(), &ports(source, destination)])
            }
            _ => panic!("two families"),
        }
    }

    /// "Verifying the RSS Hash Calculation", of the specification of receive side scaling.
    #[test]
    fn hashes_are_those_of_the_published_verification_suite() {
        for (destination, source, expected) in [
            ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178),
            ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea),
            ("12.22.207.184:38024", "24.19.198.95:12898", 0x5c2b_394a),
            ("209.142.163.6:2217", "38.27.205.30:48228", 0xafc7_327f),
            ("202.188.127.2:1303", "153.39.163.191:44251", 0x10e8_28a2),
            ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x4020_7d3d),
            ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0xdde5_1bbf),
            ("[fe80::200:f8ff:fe21:67cf]:38024", "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", 0x02d1_feef),
        ] {
            assert_eq!(hash(source, destination), expected, "{source} to {destination}");
        }
    }

    #[test]
    fn low_bits_choose_the_queue_and_a_port_can_be_found_for_each() {
        let rss = Rss::new(KEY.to_vec(), vec![5, 5, 7, 9]).expect("a key and a table");
        let remote = SocketAddr::from(([66, 9, 149, 187], 2794));
        // 0x51ccc178 ends with 00.
        assert_eq!(rss.queue_of(([161, 142, 100, 80], 1766).into(), remote), Some(5));
        assert!(rss.uses(7) && !rss.uses(6));
        for queue in [5, 7, 9] {
            let found = (32_768..33_000)
                .any(|port| rss.queue_of(([161, 142, 100, 80], port).into(), remote) == Some(queue));
            assert!(found, "{queue}");
        }
        assert_eq!(rss.queue_of("[::1]:1".parse().expect("an address"), remote), None);
        assert!(Rss::new(Vec::new(), vec![0]).is_none() && Rss::new(vec![0], Vec::new()).is_none());
    }
}
