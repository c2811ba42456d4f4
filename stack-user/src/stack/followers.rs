//! Segments that go with another of their connection, for a part of what it costs: sent behind it here, and
//! [taken in](super::gro) together with it.

use super::{Stack, TcpId, egress::Owner};
use crate::{
    frame::{FramePool, TxFrame},
    time::Instant,
};

/// Followers of one segment when others wait for their turn. Fewer, and each costs more, here and for who receives them; more, and a
/// short answer waits for longer behind a stream's.
const TURN: usize = 16;

/// Bytes in front of the payload, at most: those of Ethernet with a tag, of IPv6, and of TCP with timestamps.
const MAX_HEADERS_LEN: usize = 96;

/// How many segments were handled as followers: the first of each train is not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Followers {
    /// Received ones that were taken in with the one before.
    pub taken_in: u64,
    /// Those that were sent by what had been found out for the first.
    pub sent: u64,
}

impl Followers {
    /// Counts what another stack has counted, too.
    pub fn add(&mut self, other: Self) {
        self.taken_in += other.taken_in;
        self.sent += other.sent;
    }
}

/// The segment that a connection has sent last, by the stream offset where it starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leader {
    pub(super) id: TcpId,
    pub(super) start: u64,
}

/// The first bytes of a frame, among them all headers that it has.
pub(super) struct Headers([u8; MAX_HEADERS_LEN]);

impl Headers {
    pub(super) fn of<P: FramePool>(pool: &P, frame: &TxFrame) -> Self {
        let mut bytes = [0; MAX_HEADERS_LEN];
        let all = pool.tx_bytes(frame);
        match all.first_chunk() {
            Some(first) => bytes = *first,
            // It has less payload than that.
            None => bytes.iter_mut().zip(all).for_each(|(byte, &same)| *byte = same),
        }
        Self(bytes)
    }
}

impl<P> Stack<P> {
    /// How many segments came and went behind another of their connection.
    pub fn followers(&self) -> Followers {
        self.followers
    }
}

impl<P: FramePool> Stack<P> {
    /// What may follow a segment that was just sent with these headers, as far as there is room. Returns how many frames.
    pub(super) fn transmit_followers(
        &mut self,
        now: Instant,
        leader: Leader,
        headers: &Headers,
        room: usize,
        send: &mut impl FnMut(TxFrame),
    ) -> usize {
        let turn = if self.connections.ready() > 1 { room.min(TURN) } else { room };
        let Leader { id, start } = leader;
        let Some(connection) = self.connections.get_mut(id) else { return 0 };
        let Some(headers) = headers.0.get(..connection.headers_len()) else { return 0 };
        let owners = &mut self.owners;
        let sent =
            connection.transmit_followers(now, &mut self.pool, start, headers, turn, |frame, retained| {
                if let Some(owner) = owners.get_mut(frame.chunk() as usize) {
                    *owner = Some(Owner { id, retained: Some(retained) });
                }
                send(frame);
            });
        self.followers.sent += sent as u64;
        sent
    }
}
