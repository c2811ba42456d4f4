//! A burst of frames for many connections: what all of them will need of memory is asked for before the first is handled.
//!
//! With a hundred thousand connections, what one is found by and kept in is in no cache, and each step to it (the table, its
//! row, itself) waits for the one before. Steps of different frames don't wait for each other: so the burst is gone through
//! step by step, and the CPU waits for many at once. Nothing is decided here, and nothing changed: what is touched in vain
//! costs time only.

use std::{hint::black_box, net::SocketAddr};

use smallvec::SmallVec;

use super::{Stack, demux::Flow};
use crate::{
    frame::{FramePool, RxFrame},
    time::Instant,
    wire::{
        ethernet::{self, ethertype},
        ipv4, protocol,
    },
};

/// Frames that are looked at together. Fewer, and fewer waits overlap; more, and what was touched first is gone again from the
/// near caches: of each connection it is some two dozen lines.
const FRAMES: usize = 32;

/// Fewer connections fit in the nearer caches, and looking ahead costs more than it saves: so many by where both took the same time,
/// with an L2 cache of 1 MiB. Tests and fuzz targets, which have debug assertions, hardly ever have as many, and look ahead for
/// any: it must change nothing.
const MANY: usize = if cfg!(debug_assertions) { 1 } else { 2500 };

impl<P: FramePool> Stack<P> {
    /// Takes in received frames, as [`handle_frame`](Self::handle_frame) does one by one, and empties `frames`.
    pub fn handle_burst(&mut self, now: Instant, frames: &mut Vec<RxFrame>) {
        let (connections, _) = self.connections.count();
        while !frames.is_empty() {
            let some = frames.len().min(FRAMES);
            if connections >= MANY && some > 1 {
                self.look_ahead(&frames[..some]);
            }
            self.handle_trains(now, frames.drain(..some));
        }
    }

    fn look_ahead(&self, frames: &[RxFrame]) {
        let mut hashes = SmallVec::<[u32; FRAMES]>::new();
        let mut before = None;
        for frame in frames {
            let flow = flow(self.pool.rx_bytes(frame));
            if flow != before {
                hashes.extend(flow.map(|flow| self.connections.hash(&flow)));
                before = flow;
            }
        }
        // One train needs nothing of this.
        if hashes.len() > 1 {
            // The look-ups are short when nothing else is between them, so that the CPU begins several before it has the first.
            let rows = hashes.iter().filter_map(|&hash| self.connections.likely_row(hash));
            let rows = rows.collect::<SmallVec<[u32; FRAMES]>>();
            black_box(rows.iter().map(|&row| self.connections.touch_row(row)).fold(0, u32::wrapping_add));
            black_box(rows.iter().map(|&row| self.connections.touch_page(row)).fold(0, u16::wrapping_add));
            black_box(rows.iter().map(|&row| self.connections.touch(row)).fold(0, u64::wrapping_add));
        }
    }
}

/// The flow of a frame that seems to be a TCP segment without a VLAN's tag: whether it is one will be seen.
fn flow(frame: &[u8]) -> Option<Flow> {
    let (link, datagram) = frame.split_at_checked(ethernet::LEN)?;
    let fixed = datagram.first_chunk::<{ ipv4::LEN }>()?;
    let is_tcp = link.ends_with(&ethertype::IPV4.to_be_bytes()) && fixed[9] == protocol::TCP;
    let ports = datagram.get(usize::from(fixed[0] & 0x0f) * 4..)?.first_chunk::<4>().filter(|_| is_tcp)?;
    let end = |at: usize, port: [u8; 2]| {
        let address: [u8; 4] = [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        SocketAddr::from((address, u16::from_be_bytes(port)))
    };
    Some(Flow { local: end(16, [ports[2], ports[3]]), remote: end(12, [ports[0], ports[1]]) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_flow_of_a_segment_is_read_as_its_receiver_has_it() {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&ethertype::IPV4.to_be_bytes());
        frame[14] = 0x45;
        frame[23] = protocol::TCP;
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        frame[34..38].copy_from_slice(&[0x12, 0x34, 0, 80]);
        let (local, remote) = (([10, 0, 0, 2], 80).into(), ([10, 0, 0, 1], 0x1234).into());
        assert_eq!(flow(&frame), Some(Flow { local, remote }));
        frame[23] = protocol::UDP;
        assert_eq!(flow(&frame), None);
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_flow_or_none(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), likely in any::<bool>()) {
            if let (Some(kind), true) = (bytes.get_mut(12..14), likely) {
                kind.copy_from_slice(&ethertype::IPV4.to_be_bytes());
            }
            let _ = flow(&bytes);
        }
    }
}
