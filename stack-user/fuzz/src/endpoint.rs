//! Our end of a connection, with everything around it that is not the peer: application, pool, NIC and clock. Whatever
//! it says on the wire is held against what it may say.

use std::net::{Ipv4Addr, SocketAddr};

use stack_user::{
    device::Umem,
    frame::{FramePool, FreeFrame, TxFrame},
    tcp::{
        Config, Connection, Event, ReadError, Reserved, Secrets, Segment, SeqNumber, State, Transmit,
        Unreachable, WriteError, congestion::Algorithm, options::Options,
    },
    telemetry::DropReason,
    time::{Duration, Instant},
    wire::tcp::Flags,
};

use super::input::{Input, pattern, tell};

/// Small, so that shortage is met often and a run is quick.
pub(crate) const CHUNKS: u32 = 96;
pub(crate) const HEADER_ROOM: usize = 34;
pub(crate) const ISS: SeqNumber = SeqNumber(u32::MAX - 3000);

/// Segments of their own frame (ACK, RST, SYN, a probe, a FIN alone) that may leave between two events. A real burst
/// has two; data is bounded by the frames, which the NIC keeps until it is told to complete them.
const MAX_BURST_WITHOUT_DATA: usize = 4;

/// Segments that may follow one at a time.
const BURST: usize = 32;

/// Expiries until a connection whose peer is gone must have come to its end. A closed one takes fifteen time-outs with
/// back-off, or thirty probes; what remains is the timers of an idle one.
const MAX_EXPIRIES: usize = 400;

pub(crate) fn local() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 40_000).into()
}

pub(crate) fn remote() -> SocketAddr {
    (Ipv4Addr::new(198, 51, 100, 7), 80).into()
}

pub(crate) struct Endpoint {
    pub(crate) connection: Connection,
    pub(crate) now: Instant,
    pub(crate) told: Told,
    pub(crate) write_shut: bool,
    /// Bytes that the application has written, and read.
    pub(crate) written: u64,
    pub(crate) read: u64,
    /// SEG.SEQ of the SYN that was accepted.
    pub(crate) irs: SeqNumber,
    config: Config,
    pool: Umem,
    /// Frames that the NIC has not sent yet.
    nic: Vec<(TxFrame, Option<u64>)>,
    /// Chunks that others hold.
    taken: Vec<FreeFrame>,
    /// A frame that the application is writing into.
    reserved: Option<Reserved>,
    state: State,
    ended: bool,
    /// The ranges that segments had which have come since we last told any.
    came: Vec<(SeqNumber, SeqNumber)>,
}

/// What the peer knows from what we have sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Behind the highest sequence number that was sent.
    pub(crate) nxt: SeqNumber,
    /// The latest acknowledgement number.
    pub(crate) ack: SeqNumber,
    /// The right edge of our window.
    pub(crate) edge: SeqNumber,
    /// Our clock.
    pub(crate) clock: u32,
    /// A segment with ACK has been sent.
    synchronized: bool,
}

/// A segment that was sent, and how many bytes of payload it has.
pub(crate) type Sent = (Segment, usize);

impl Endpoint {
    pub(crate) fn connect(config: Config) -> Self {
        let config = Config { header_room: HEADER_ROOM, ..config };
        let now = Instant::from_millis(1_000_000);
        let connection = Connection::connect(now, config.clone(), local(), remote(), secrets());
        Self::of(connection, config, now)
    }

    /// A passive open: the peer's SYN has come.
    pub(crate) fn accept(config: Config, syn: &Segment) -> Self {
        let config = Config { header_room: HEADER_ROOM, ..config };
        let now = Instant::from_millis(1_000_000);
        let connection = Connection::accept(now, config.clone(), local(), remote(), secrets(), syn);
        Self { irs: syn.seq, ..Self::of(connection, config, now) }
    }

    fn of(connection: Connection, config: Config, now: Instant) -> Self {
        Self {
            state: connection.state(),
            connection,
            now,
            told: Told { nxt: ISS, ack: SeqNumber(0), edge: SeqNumber(0), clock: 0, synchronized: false },
            write_shut: false,
            written: 0,
            read: 0,
            irs: SeqNumber(0),
            came: Vec::new(),
            config,
            pool: Umem::on_heap(CHUNKS).expect("memory"),
            nic: Vec::new(),
            taken: Vec::new(),
            reserved: None,
            ended: false,
        }
    }

    /// A segment of the peer comes; the payload is what the peer's stream has at its place. Nothing happens when the NIC
    /// has no chunk to receive into.
    pub(crate) fn receive(&mut self, segment: &Segment, len: usize) -> Option<Result<(), DropReason>> {
        let opens = segment.syn() && self.connection.state() == State::SynSent;
        let irs = if opens { segment.seq } else { self.irs };
        let data = segment.seq + usize::from(segment.syn());
        let free = self.pool.allocate()?;
        let payload = self.pool.receive(free, &pattern(data.0.wrapping_sub(irs.0.wrapping_add(1)), len));
        self.came.push((segment.seq, segment.seq + segment.sequence_len(len)));
        let result = self.connection.handle_segment(self.now, &mut self.pool, segment, payload);
        tell(|| format!("{}: {segment:?} + {len} bytes: {result:?}", self.connection.state()));
        if opens && self.connection.state() != State::SynSent {
            self.irs = irs;
        }
        self.check();
        Some(result)
    }

    /// Sends all that there is to send.
    pub(crate) fn transmit(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        let mut without_data = 0;
        while let Some(transmit) = self.connection.poll_transmit(self.now, &mut self.pool) {
            let may_lead = self.connection.may_lead(&transmit);
            let Transmit { frame, retained, .. } = transmit;
            let headers = self.pool.tx_gather(&frame);
            let headers = headers.get(..self.connection.headers_len()).unwrap_or_default().to_vec();
            let mut frames = vec![(frame, retained)];
            if let Some(start) = retained.filter(|_| may_lead) {
                self.connection.transmit_followers(
                    self.now,
                    &mut self.pool,
                    start,
                    &headers,
                    BURST,
                    |frame, retained| frames.push((frame, Some(retained))),
                );
            }
            for (frame, retained) in frames {
                let whole = self.pool.tx_gather(&frame);
                let bytes = whole.get(HEADER_ROOM..).expect("room for lower headers");
                let (segment, payload_at) =
                    Segment::parse(local().ip(), remote().ip(), bytes).expect("what we send is whole");
                let payload = bytes[payload_at..].to_vec();
                tell(|| format!("    sends {segment:?} + {} bytes", payload.len()));
                self.nic.push((frame, retained));
                self.inspect(&segment, &payload);
                sent.push((segment, payload.len()));
                without_data += usize::from(retained.is_none());
                assert!(without_data <= MAX_BURST_WITHOUT_DATA, "it sends for ever");
            }
            self.check();
        }
        self.check();
        sent
    }

    /// Holds a segment that we send against what was written, and what was said before.
    fn inspect(&mut self, segment: &Segment, payload: &[u8]) {
        assert_eq!((segment.source_port, segment.destination_port), (local().port(), remote().port()));
        if segment.rst() {
            assert!(payload.is_empty());
            return;
        }
        let options = &segment.options;
        assert!(options.len() + payload.len() <= self.config.mss.max(60).into(), "larger than the MTU");
        if segment.syn() {
            assert_eq!((segment.seq, payload.len()), (ISS, 0));
            assert!(options.mss.is_some_and(|mss| mss <= self.config.mss));
        } else {
            let only_on_syn = (options.mss, options.window_scale, options.sack_permitted);
            assert_eq!(only_on_syn, (None, None, false));
            self.inspect_data(segment, payload);
        }
        let end = segment.seq + segment.sequence_len(payload.len());
        assert!(segment.seq.at_or_before(self.told.nxt), "a hole in the sequence numbers");
        self.told.nxt = self.told.nxt.max(end);
        if let Some(timestamps) = options.timestamps {
            self.told.clock = timestamps.value;
        }
        if let Some(ack) = segment.acknowledges() {
            self.inspect_ack(segment, ack);
        }
    }

    fn inspect_data(&self, segment: &Segment, payload: &[u8]) {
        let offset = segment.seq.0.wrapping_sub(ISS.0.wrapping_add(1));
        let end = u64::from(offset) + payload.len() as u64;
        if !payload.is_empty() {
            assert_eq!(payload, pattern(offset, payload.len()), "other bytes than were written");
            assert!(end <= self.written, "more than was written");
        }
        if segment.fin() {
            assert!(self.write_shut && end == self.written, "FIN where the stream does not end");
        }
    }

    fn inspect_ack(&mut self, segment: &Segment, ack: SeqNumber) {
        let shift = if segment.syn() { 0 } else { self.connection.info().window_shifts.1 };
        let edge = ack + (usize::from(segment.window) << shift);
        let offered_before = if self.told.synchronized { self.told.edge } else { edge };
        self.inspect_blocks(segment, ack, offered_before);
        if self.told.synchronized {
            assert!(ack.at_or_after(self.told.ack), "takes back what it had acknowledged");
            // A SYN that comes again has no scale, so it can't say what was offered since if that is more (RFC 7323
            // §2.2). And an edge can't always be told to the byte, so it may go back by less than a unit (§2.4): measured
            // from the rightmost of all, so that steps back don't add up.
            let is_cut = segment.syn() && segment.window == u16::MAX;
            let unit = 1_usize << self.connection.info().window_shifts.1;
            let shrinks = (edge + unit).at_or_before(self.told.edge) && !is_cut;
            assert!(!shrinks, "the window shrinks (RFC 9293 §3.8.6, SHLD-14)");
            (self.told.ack, self.told.edge) = (ack, edge.max(self.told.edge));
        } else {
            (self.told.ack, self.told.edge, self.told.synchronized) = (ack, edge, true);
        }
        let info = self.connection.info();
        let offered = info.readable + info.receive_window;
        assert!(offered <= self.receive_bound() + (1 << shift), "a larger window than there is room");
    }

    /// Holds SACK blocks against what has come. What waits out of order lies within what was offered before it came, and
    /// that may be more than this segment says, since edges are rounded (RFC 7323 §2.4).
    fn inspect_blocks(&mut self, segment: &Segment, ack: SeqNumber, offered: SeqNumber) {
        let blocks: Vec<_> = segment.options.sack.iter().collect();
        for (index, &(left, right)) in blocks.iter().enumerate() {
            assert!(left.before(right), "an empty SACK");
            let is_island = left.after(ack) && right.at_or_before(offered);
            // The first may be a duplicate, as old as it likes: half the circle, so that it seems to lie ahead. But then it
            // is one that has come since the last was told, which is told once (RFC 2883 §4).
            let is_duplicate = index == 0 && self.came.iter().any(|came| contains(came, (left, right)));
            assert!(is_island || is_duplicate, "SACK of nothing");
            for &other in &blocks[index + 1..] {
                // What is next to a block has not come (RFC 2018 §3); a duplicate may be a part of what waits.
                let is_apart = right.before(other.0) || other.1.before(left);
                let is_part = is_duplicate && contains(&other, (left, right));
                assert!(is_apart || is_part, "SACK blocks overlap");
            }
        }
        if !blocks.is_empty() {
            self.came.clear();
        }
    }

    /// Received bytes that may wait, or be offered to wait: what is configured, and no more than a share of the pool.
    fn receive_bound(&self) -> usize {
        self.config.largest_recv_buffer().min(CHUNKS as usize / 2 * usize::from(self.config.mss))
    }

    /// The NIC is done with the frame at `index` of those that it has.
    pub(crate) fn complete(&mut self, index: usize) {
        if self.nic.is_empty() {
            return;
        }
        let (frame, retained) = self.nic.swap_remove(index % self.nic.len());
        let done = frame.into_completed();
        match retained {
            Some(key) => self.connection.handle_completion(self.now, &mut self.pool, done, key),
            None => self.pool.release_completed(done),
        }
        self.check();
    }

    pub(crate) fn complete_all(&mut self) {
        while !self.nic.is_empty() {
            self.complete(0);
        }
    }

    /// Others take chunks, or give all back when `n` is 0.
    pub(crate) fn squeeze(&mut self, n: usize) {
        match n {
            0 => self.taken.drain(..).for_each(|frame| self.pool.release(frame)),
            n => self.taken.extend((0..n).map_while(|_| self.pool.allocate())),
        }
        tell(|| format!("{} chunks are free", self.pool.available()));
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        tell(|| format!("now {}", self.now));
        self.connection.handle_timeout(self.now, &mut self.pool);
        self.check();
    }

    /// Goes to the next timer, if one is set.
    pub(crate) fn pass_to_timer(&mut self) -> bool {
        let Some(at) = self.connection.poll_timeout() else { return false };
        self.pass(at.since(self.now));
        let again = self.connection.poll_timeout();
        assert!(again.is_none_or(|again| again > self.now), "a timer that expired is due again");
        true
    }

    pub(crate) fn write(&mut self, len: usize) {
        let data = pattern(self.written as u32, len);
        let written = self.connection.write(self.now, &mut self.pool, &data);
        tell(|| format!("write {len}: {written:?}"));
        match written {
            Ok(n) => {
                assert!(n <= len && (n > 0 || len == 0) && !self.write_shut);
                self.written += n as u64;
            }
            Err(WriteError::Failed(error)) => assert_eq!(self.connection.error(), Some(error)),
            Err(_) => {}
        }
        self.check();
    }

    pub(crate) fn read(&mut self, len: usize) {
        let mut buffer = vec![0; len];
        let read = self.connection.read(self.now, &mut self.pool, &mut buffer);
        tell(|| format!("read {len}: {read:?}"));
        match read {
            Ok(n) => {
                assert_eq!(buffer[..n], pattern(self.read as u32, n), "other bytes than the peer has sent");
                self.read += n as u64;
            }
            Err(ReadError::Failed(error)) => assert_eq!(self.connection.error(), Some(error)),
            Err(_) => {}
        }
        self.check();
    }

    /// The application asks for a frame to write into, or is done with the one that it has.
    pub(crate) fn write_in_place(&mut self, len: usize) {
        if let Some(reserved) = self.reserved.take() {
            return self.commit(reserved, len);
        }
        let reserved = self.connection.reserve(self.now, &mut self.pool);
        tell(|| format!("reserve: {:?}", reserved.as_ref().map(|reserved| reserved.layout)));
        match reserved {
            Ok(reserved) => self.reserved = Some(reserved),
            Err(WriteError::Failed(error)) => assert_eq!(self.connection.error(), Some(error)),
            Err(_) => {}
        }
        self.check();
    }

    fn commit(&mut self, mut reserved: Reserved, len: usize) {
        let layout = reserved.layout;
        let len = len.min(layout.mss);
        let room = self.pool.tx_buffer(&mut reserved.frame);
        room[layout.payload_at..][..len].copy_from_slice(&pattern(self.written as u32, len));
        let committed = self.connection.commit(&mut self.pool, reserved, len);
        tell(|| format!("commit {len}: {committed:?}"));
        match committed {
            Ok(()) => {
                assert!(!self.write_shut);
                self.written += len as u64;
            }
            Err(WriteError::Failed(error)) => assert_eq!(self.connection.error(), Some(error)),
            Err(_) => {}
        }
        self.check();
    }

    pub(crate) fn read_in_place(&mut self) {
        let read = self.connection.read_in_place(self.now, &mut self.pool);
        tell(|| format!("read in place: {read:?}"));
        match read {
            Ok(Some(payload)) => {
                let bytes = payload.bytes(&self.pool);
                let expected = pattern(self.read as u32, bytes.len());
                assert!(!bytes.is_empty() && bytes == expected, "other bytes than the peer has sent");
                self.read += bytes.len() as u64;
                payload.release(&mut self.pool);
            }
            Err(ReadError::Failed(error)) => assert_eq!(self.connection.error(), Some(error)),
            Ok(None) | Err(_) => {}
        }
        self.check();
    }

    pub(crate) fn shutdown(&mut self) {
        tell(|| "shutdown".into());
        self.connection.shutdown_write(self.now);
        self.write_shut = true;
        self.check();
    }

    pub(crate) fn close(&mut self) {
        tell(|| "close".into());
        self.connection.close(self.now, &mut self.pool);
        self.write_shut = true;
        self.check();
    }

    pub(crate) fn abort(&mut self) {
        tell(|| "abort".into());
        self.connection.abort(self.now);
        self.check();
    }

    /// Everything else that can be done to a connection from outside.
    pub(crate) fn disturb(&mut self, input: &mut Input<'_>) {
        match input.below(4) {
            0 => self.connection.set_nodelay(input.one_in(2)),
            1 => self.connection.listen_in(input.one_in(2)),
            _ => {
                let kind = input.pick(&[
                    Unreachable::Host,
                    Unreachable::Port,
                    Unreachable::Admin,
                    Unreachable::NoNeighbour,
                    Unreachable::FragmentationNeeded { mtu: 0 },
                    Unreachable::FragmentationNeeded { mtu: 576 },
                    Unreachable::FragmentationNeeded { mtu: 1400 },
                ]);
                self.report(kind, input);
            }
        }
        self.check();
    }

    /// A router says that the path carries less than what was sent.
    pub(crate) fn shrink_path(&mut self, input: &mut Input<'_>) {
        let mtu = input.pick(&[576, 800, 1200, 1400]);
        self.report(Unreachable::FragmentationNeeded { mtu }, input);
        self.check();
    }

    fn report(&mut self, kind: Unreachable, input: &mut Input<'_>) {
        let quoted = input.one_in(2).then(|| self.told.nxt - input.below(4000));
        tell(|| format!("unreachable: {kind:?} about {quoted:?}"));
        self.connection.handle_unreachable(self.now, &mut self.pool, kind, quoted);
    }

    /// What must hold at any time.
    fn check(&mut self) {
        self.connection.check_invariants();
        let state = self.connection.state();
        assert!(age(state) >= age(self.state), "from {} back to {state}", self.state);
        self.state = state;
        let info = self.connection.info();
        // Windows are told in units, rounded up.
        assert!(
            info.readable < info.receive_buffer + (1 << info.window_shifts.1),
            "more to read than allowed"
        );
        // A frame that was handed out while there was room is taken back full, whatever was written meanwhile.
        let in_place = usize::from(self.config.mss);
        assert!(info.unacknowledged <= info.send_buffer + in_place, "more written than allowed");
        assert!(info.send_buffer <= self.config.send_buffer_max.max(self.config.send_buffer));
        assert!(info.cwnd >= info.mss.min(1460) && info.mss > 0, "a window of less than a segment");
        while self.connection.poll_trace().is_some() {}
        while let Some(event) = self.connection.poll_event() {
            tell(|| format!("    {event:?}"));
            assert!(!self.ended, "{event:?} after the end");
            self.ended = event == Event::Closed;
        }
        assert_eq!(self.ended, state == State::Closed, "the end is told, once");
    }

    /// The peer has gone for good and the application closes: the connection ends by itself, and no frame is lost.
    pub(crate) fn finish(mut self) {
        tell(|| "the peer is gone".into());
        self.squeeze(0);
        self.close();
        if let Some(reserved) = self.reserved.take() {
            self.commit(reserved, 1);
        }
        let mut expiries = 0;
        loop {
            self.transmit();
            self.complete_all();
            self.transmit();
            self.complete_all();
            if !self.pass_to_timer() {
                break;
            }
            expiries += 1;
            assert!(expiries < MAX_EXPIRIES, "in {} it does not end", self.state);
        }
        assert!(self.connection.is_closed(), "nothing would ever end it: {}", self.state);
        self.connection.release_all(&mut self.pool);
        assert_eq!(self.pool.available(), CHUNKS as usize, "frames are conserved");
    }
}

/// Whether a range of sequence numbers lies in another, wherever on the circle.
fn contains(outer: &(SeqNumber, SeqNumber), inner: (SeqNumber, SeqNumber)) -> bool {
    let from_start = |seq: SeqNumber| seq.0.wrapping_sub(outer.0.0);
    from_start(inner.0) <= from_start(inner.1) && from_start(inner.1) <= from_start(outer.1)
}

/// How far a connection is in its life: it never gets younger.
fn age(state: State) -> u8 {
    match state {
        State::SynSent => 0,
        State::SynReceived => 1,
        State::Established => 2,
        State::FinWait1 | State::CloseWait => 3,
        State::FinWait2 | State::Closing | State::LastAck => 4,
        State::TimeWait => 5,
        State::Closed => 6,
    }
}

fn secrets() -> Secrets {
    Secrets { isn: ISS, timestamp_offset: 77 }
}

/// A configuration with small buffers.
pub(crate) fn config(input: &mut Input<'_>) -> Config {
    let choice = input.byte();
    Config {
        recv_buffer: [800, 4000, 20_000, 70_000][usize::from(choice & 3)],
        recv_buffer_max: if choice & 32 == 0 { 0 } else { 200_000 },
        send_buffer: [1000, 20_000][usize::from(choice >> 2 & 1)],
        send_buffer_max: if choice & 64 == 0 { 0 } else { 200_000 },
        nodelay: choice & 8 != 0,
        ecn: choice & 0x14 == 0x14,
        // Bits that have nothing else to do with sending.
        congestion: Algorithm::ALL[usize::from(choice >> 7 | choice >> 4 & 2) % Algorithm::ALL.len()],
        mss: if choice & 16 == 0 { 1460 } else { 536 },
        ..Config::default()
    }
}

/// A segment of the peer, without anything in it yet.
pub(crate) fn from_peer(flags: Flags, seq: SeqNumber, ack: SeqNumber, options: Options) -> Segment {
    Segment {
        source_port: remote().port(),
        destination_port: local().port(),
        seq,
        ack,
        flags,
        window: 0,
        urgent: 0,
        options,
        ce: false,
    }
}
