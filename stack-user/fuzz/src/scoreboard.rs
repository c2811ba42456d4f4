//! A sender with an honest peer behind a network that does what the input says: losses, reordering, duplicates, late
//! frames. The peer keeps book of what it has and what it said; the sender is held to that. In the end the network
//! becomes good, and everything must arrive.

use std::collections::VecDeque;

use stack_user::{
    tcp::{
        Config, Segment, SeqNumber,
        options::{Options, SackBlocks, Timestamps},
    },
    time::Duration,
    wire::tcp::Flags,
};

use super::{
    endpoint::{self, Endpoint, ISS, Sent, from_peer},
    input::{Input, tell},
};

const IRS: SeqNumber = SeqNumber(0x7fff_ff00);

/// The peer's window, not scaled: larger than the send buffer's first size, so that losses are what matters.
const WINDOW: u16 = 60_000;

/// Bytes of the stream that the peer keeps book of. Less than the sequence space, so offsets need no wrap.
const STREAM: usize = 1 << 16;

/// Once the network is good, something is acknowledged in that time at the latest: the longest probe of a loss at the end
/// comes first, then the longest time-out (RFC 6298 §2.5), which sends the first segment again. Rounds don't say as much:
/// who waits for a chunk looks for one every few milliseconds of it.
const LONGEST_WAIT: Duration = Duration::from_secs(2 * 120 + 1);

struct World {
    end: Endpoint,
    peer: Peer,
    /// Data on its way to the peer, and ACKs on their way back.
    forth: VecDeque<Sent>,
    back: VecDeque<Segment>,
    sack: bool,
    timestamps: bool,
}

/// What the receiver has, by stream offset.
struct Peer {
    received: Vec<bool>,
    /// RCV.NXT as an offset.
    nxt: usize,
    /// The offset behind FIN, once it has come.
    fin: Option<usize>,
    /// The latest range first, as RFC 2018 §4 wants them.
    blocks: Vec<(usize, usize)>,
    /// The timestamp to echo.
    recent: u32,
    /// What an ACK that arrived has told by SACK and by number: sending it again helps nobody.
    told: Vec<bool>,
    told_nxt: usize,
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    while !input.is_empty() {
        world.step(&mut input);
    }
    world.heal();
    world.end.finish();
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let config = Config { user_timeout: Duration::from_secs(1 << 20), ..endpoint::config(input) };
        let mut end = Endpoint::connect(config);
        let choice = input.byte();
        let (sack, timestamps) = (choice & 3 != 0, choice & 4 == 0);
        end.transmit();
        end.complete_all();
        end.pass(Duration::from_millis(input.below(200) as u64));
        let options = Options {
            mss: Some(if choice & 8 == 0 { 1000 } else { 1460 }),
            sack_permitted: sack,
            timestamps: timestamps.then_some(Timestamps { value: 0, echo: end.told.clock }),
            ..Options::default()
        };
        let mut syn = from_peer(Flags::SYN.with(Flags::ACK), IRS, ISS + 1, options);
        syn.window = WINDOW;
        end.receive(&syn, 0);
        end.transmit();
        let peer = Peer {
            received: vec![false; STREAM],
            nxt: 0,
            fin: None,
            blocks: Vec::new(),
            recent: end.told.clock,
            told: vec![false; STREAM],
            told_nxt: 0,
        };
        Self { end, peer, forth: VecDeque::new(), back: VecDeque::new(), sack, timestamps }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..=2 => {
                let len = input.pick(&[1, 100, 1000, 4000, 10_000]);
                self.end.write(len.min(STREAM - 1 - self.end.written as usize));
            }
            3 if input.one_in(8) => self.end.shutdown(),
            4 => self.end.complete(input.below(16)),
            5 => drop(self.end.pass_to_timer()),
            6 => self.end.pass(Duration::from_millis(input.byte().into())),
            7 => {
                // One is lost.
                let _ = self.forth.remove(input.below(8));
            }
            8 => {
                let _ = self.back.remove(input.below(4));
            }
            9 => {
                // One comes late: others overtake it.
                if let Some(late) = self.forth.remove(input.below(4)) {
                    self.forth.insert(self.forth.len().min(input.below(16)), late);
                }
            }
            10 => {
                if let Some(&twice) = self.forth.get(input.below(4)) {
                    self.forth.push_back(twice);
                }
            }
            11 | 12 => self.arrive(),
            13 => (0..input.below(16)).for_each(|_| self.arrive()),
            14 if input.one_in(8) => self.end.shrink_path(input),
            _ => self.acknowledge(),
        }
        self.transmit();
    }

    /// The sender sends; what it sends again, the peer must not be known to have.
    fn transmit(&mut self) {
        let timeouts_before = self.end.connection.info().timeouts;
        for (segment, len) in self.end.transmit() {
            let takes = segment.sequence_len(len);
            let Some(at) = offset(segment.seq).filter(|_| takes > 0) else { continue };
            assert!(at + takes > self.peer.told_nxt, "{at} is sent again, and was acknowledged");
            let known = self.peer.told[at..at + takes].iter().all(|&told| told);
            // After a time-out what was sacked counts for nothing (RFC 2018 §8): the peer may have dropped it.
            assert!(!known || timeouts_before > 0, "{at} is sent again, and the peer has said to have it");
            let edge = self.peer.told_nxt + usize::from(WINDOW);
            assert!(at + len <= edge, "beyond the peer's window");
            self.forth.push_back((segment, len));
        }
        let info = self.end.connection.info();
        assert!(info.sacked + info.lost <= info.outstanding, "more is marked than was sent");
        assert!(info.in_flight <= info.outstanding + info.mss, "more on its way than was sent");
    }

    /// The next segment comes to the peer, which answers each at once.
    fn arrive(&mut self) {
        let Some((segment, len)) = self.forth.pop_front() else { return };
        self.peer.receive(&segment, len);
        self.back.push_back(self.peer.ack(&self.end, self.sack, self.timestamps));
    }

    /// The next ACK comes to the sender.
    fn acknowledge(&mut self) {
        let Some(ack) = self.back.pop_front() else { return };
        if self.end.receive(&ack, 0).is_none() {
            return;
        }
        let nxt = offset(ack.ack).unwrap_or(0).min(STREAM);
        if nxt < self.peer.told_nxt {
            return;
        }
        self.peer.told_nxt = nxt;
        for (left, right) in ack.options.sack.iter() {
            if let Some((left, right)) = offset(left).zip(offset(right)) {
                self.peer.told[left.min(STREAM)..right.min(STREAM)].fill(true);
            }
        }
    }

    /// Nothing is lost any more: all that was written arrives, with its FIN.
    fn heal(&mut self) {
        tell(|| "the network is good".into());
        self.end.shutdown();
        let mut progress = (self.peer.told_nxt, self.end.now);
        loop {
            self.end.complete_all();
            self.transmit();
            self.end.complete_all();
            let quiet = self.forth.is_empty() && self.back.is_empty();
            while !self.forth.is_empty() {
                self.arrive();
            }
            while !self.back.is_empty() {
                self.acknowledge();
            }
            let all = self.end.written as usize + 1;
            if (self.peer.fin, self.peer.nxt, self.peer.told_nxt) == (Some(all), all, all) {
                return;
            }
            if self.peer.told_nxt > progress.0 {
                progress = (self.peer.told_nxt, self.end.now);
            }
            let waits = self.end.now.since(progress.1);
            assert!(waits <= LONGEST_WAIT, "{} of {} bytes arrived", self.peer.nxt, self.end.written);
            if quiet {
                assert!(self.end.pass_to_timer(), "something is left to send and no timer runs");
            } else {
                self.end.pass(Duration::from_millis(1));
            }
        }
    }
}

impl Peer {
    fn receive(&mut self, segment: &Segment, len: usize) {
        let Some(at) = offset(segment.seq) else { return };
        if at <= self.nxt
            && let Some(timestamps) = segment.options.timestamps
        {
            self.recent = timestamps.value;
        }
        // FIN takes a place like a byte, also in SACK blocks.
        let end = at + len + usize::from(segment.fin());
        self.received[at..end].fill(true);
        if segment.fin() {
            self.fin = Some(end);
        }
        self.nxt += self.received[self.nxt..].iter().take_while(|&&there| there).count();
        // The island that the segment fell into comes first.
        if end > self.nxt {
            let before = self.received[..at].iter().rev().take_while(|&&there| there).count();
            let behind = self.received[end..].iter().take_while(|&&there| there).count();
            let island = (at - before, end + behind);
            self.blocks.retain(|block| block.1 < island.0 || island.1 < block.0);
            self.blocks.insert(0, island);
        }
        let nxt = self.nxt;
        self.blocks.retain(|block| block.0 > nxt);
    }

    fn ack(&self, end: &Endpoint, sack: bool, timestamps: bool) -> Segment {
        let mut blocks = SackBlocks::default();
        let limit = if timestamps { 3 } else { 4 };
        for &(left, right) in self.blocks.iter().take(if sack { limit } else { 0 }) {
            blocks.push(ISS + 1 + left, ISS + 1 + right);
        }
        let value = end.now.as_millis() as u32;
        let options = Options {
            timestamps: timestamps.then_some(Timestamps { value, echo: self.recent }),
            sack: blocks,
            ..Options::default()
        };
        let mut ack = from_peer(Flags::ACK, IRS + 1, ISS + 1 + self.nxt, options);
        ack.window = WINDOW;
        ack
    }
}

/// The stream offset of a sequence number, unless it lies before the stream.
fn offset(seq: SeqNumber) -> Option<usize> {
    usize::try_from(seq.distance(ISS + 1)).ok()
}
