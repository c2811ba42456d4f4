//! A connection against a script: segments that are injected, segments that are expected, and silence.
//!
//! Numbers in a script are relative: `seq` and `ack` of 0 are the first byte after SYN on either side, so SYN itself has
//! -1.

use std::net::SocketAddr;

use crate::rx_frame;
use stack_user::{
    device::Umem,
    frame::{FramePool, TxFrame},
    tcp::{
        Config, Connection, Event, Secrets, Segment, SeqNumber, State, Transmit,
        options::{Options, Timestamps},
    },
    telemetry::DropReason,
    time::{Duration, Instant},
    wire::tcp::Flags,
};

const ISS: SeqNumber = SeqNumber(u32::MAX - 5);
const IRS: SeqNumber = SeqNumber(0x7fff_fff0);
const HEADER_ROOM: usize = 34;
const CHUNKS: u32 = 512;
/// The shift that the scripted peer announces if window scaling is on.
const PEER_SHIFT: u8 = 7;

/// One segment of a script: what is not said is not compared, and has a plain value when it is injected.
#[derive(Clone, Debug)]
pub(crate) struct Seg {
    flags: Flags,
    seq: i64,
    ack: Option<i64>,
    window: Option<u32>,
    data: Option<Vec<u8>>,
    sack: Option<Vec<(i64, i64)>>,
    options: Option<Options>,
    timestamp: Option<u32>,
}

/// A segment by its flags: `F`, `S`, `R`, `P`, `U`; `.` is ACK.
pub(crate) fn seg(flags: &str) -> Seg {
    let flags = flags.chars().fold(Flags::default(), |flags, letter| {
        flags.with(match letter {
            'F' => Flags::FIN,
            'S' => Flags::SYN,
            'R' => Flags::RST,
            'P' => Flags::PSH,
            'U' => Flags::URG,
            '.' => Flags::ACK,
            other => panic!("no flag is called {other}"),
        })
    });
    Seg { flags, seq: 0, ack: None, window: None, data: None, sack: None, options: None, timestamp: None }
}

impl Seg {
    pub(crate) fn seq(mut self, seq: i64) -> Self {
        self.seq = seq;
        self
    }

    pub(crate) fn ack(mut self, ack: i64) -> Self {
        self.ack = Some(ack);
        self
    }

    /// The window in bytes, as its receiver is to understand it.
    pub(crate) fn window(mut self, window: u32) -> Self {
        self.window = Some(window);
        self
    }

    pub(crate) fn data(mut self, data: &[u8]) -> Self {
        self.data = Some(data.to_vec());
        self
    }

    /// As many bytes as that; which ones, [`pattern`] says by their place.
    pub(crate) fn len(mut self, len: usize) -> Self {
        self.data = Some(pattern(self.seq, len));
        self
    }

    pub(crate) fn sack(mut self, blocks: &[(i64, i64)]) -> Self {
        self.sack = Some(blocks.to_vec());
        self
    }

    pub(crate) fn options(mut self, options: Options) -> Self {
        self.options = Some(options);
        self
    }

    /// TSval of an injected segment. Without it, the peer's clock runs as ours does.
    pub(crate) fn timestamp(mut self, value: u32) -> Self {
        self.timestamp = Some(value);
        self
    }
}

/// Bytes that differ from place to place in a stream.
pub(crate) fn pattern(at: i64, len: usize) -> Vec<u8> {
    (at..).take(len).map(|at| (at % 251) as u8).collect()
}

/// A connection and its scripted peer.
pub(crate) struct Script {
    pub(crate) connection: Connection,
    pub(crate) pool: Umem,
    pub(crate) now: Instant,
    peer_options: Options,
    /// Frames that the NIC has; `hold_frames` keeps them there.
    on_nic: Vec<(TxFrame, Option<u64>)>,
    pub(crate) hold_frames: bool,
    /// The latest TSval of ours, which the peer echoes.
    echo: u32,
    /// Bytes written so far, for [`write`](Self::write).
    written: i64,
}

fn local() -> SocketAddr {
    "192.0.2.1:40000".parse().expect("an address")
}

fn remote() -> SocketAddr {
    "198.51.100.7:80".parse().expect("an address")
}

/// The options of a peer that speaks all.
pub(crate) fn all_options() -> Options {
    Options {
        mss: Some(1460),
        window_scale: Some(PEER_SHIFT),
        sack_permitted: true,
        timestamps: Some(Timestamps { value: 0, echo: 0 }),
        ..Options::default()
    }
}

/// The options of a peer that speaks none but MSS, of 1000, so that numbers are round.
pub(crate) fn plain_options() -> Options {
    Options { mss: Some(1000), ..Options::default() }
}

/// [`plain_options`] with SACK.
pub(crate) fn sack_options() -> Options {
    Options { sack_permitted: true, ..plain_options() }
}

impl Script {
    /// A connection whose SYN has not been sent.
    pub(crate) fn new(config: Config) -> Self {
        let config = Config { header_room: HEADER_ROOM, ..config };
        let now = Instant::from_millis(1_000_000);
        let secrets = Secrets { isn: ISS, timestamp_offset: 77 };
        Self {
            connection: Connection::connect(now, config, local(), remote(), secrets),
            pool: Umem::on_heap(CHUNKS).expect("memory"),
            now,
            peer_options: Options::default(),
            on_nic: Vec::new(),
            hold_frames: false,
            echo: 0,
            written: 0,
        }
    }

    /// After a handshake that took 10 ms, with a peer whose window is 65,535 bytes.
    pub(crate) fn established(config: Config, peer: Options) -> Self {
        let mut script = Self::new(config);
        script.handshake(peer, 65_535);
        script
    }

    /// The handshake, up to the third segment.
    pub(crate) fn handshake(&mut self, peer: Options, window: u32) {
        self.expect(seg("S").seq(-1));
        self.advance(10);
        self.inject(seg("S.").seq(-1).ack(0).window(window).options(peer));
        self.expect(seg(".").seq(0).ack(0));
        assert_eq!(self.connection.state(), State::Established);
        assert_eq!(self.connection.poll_event(), Some(Event::Connected));
    }

    /// The peer sends a segment; it must be accepted.
    pub(crate) fn inject(&mut self, segment: Seg) {
        assert_eq!(self.try_inject(segment.clone()), Ok(()), "{segment:?}");
    }

    /// The peer sends a segment, which must be dropped for `reason`.
    pub(crate) fn inject_dropped(&mut self, segment: Seg, reason: DropReason) {
        assert_eq!(self.try_inject(segment.clone()), Err(reason), "{segment:?}");
    }

    /// The peer sends a segment, whatever becomes of it.
    pub(crate) fn try_inject(&mut self, injected: Seg) -> Result<(), DropReason> {
        let mut options = injected.options.unwrap_or_default();
        let syn = injected.flags.contains(Flags::SYN);
        if syn {
            self.peer_options = options;
        } else if self.peer_options.timestamps.is_some() {
            options.timestamps = Some(Timestamps { value: 0, echo: self.echo });
        }
        if let Some(timestamps) = &mut options.timestamps {
            timestamps.value = injected.timestamp.unwrap_or(self.now.as_millis() as u32);
            timestamps.echo = self.echo;
        }
        for (left, right) in injected.sack.iter().flatten() {
            options.sack.push(at(ISS, *left), at(ISS, *right));
        }
        let shift = if syn { 0 } else { self.peer_options.window_scale.unwrap_or(0) };
        let segment = Segment {
            source_port: remote().port(),
            destination_port: local().port(),
            seq: at(IRS, injected.seq),
            ack: injected.ack.map_or(SeqNumber(0), |ack| at(ISS, ack)),
            flags: injected.flags,
            window: (injected.window.unwrap_or(65_535) >> shift) as u16,
            urgent: 0,
            options,
        };
        // Through bytes and back, as on the wire.
        let mut bytes = vec![0; segment.header_len()];
        let data = injected.data.unwrap_or_default();
        bytes.extend_from_slice(&data);
        segment.emit(remote().ip(), local().ip(), data.len(), &mut bytes);
        let (segment, payload_at) =
            Segment::parse(remote().ip(), local().ip(), &bytes).expect("a good segment");
        let payload = rx_frame(&mut self.pool, &bytes[payload_at..]);
        let result = self.connection.handle_segment(self.now, &mut self.pool, &segment, payload);
        self.connection.check_invariants();
        result
    }

    /// We must send this segment now; more may follow.
    pub(crate) fn expect(&mut self, expected: Seg) {
        let sent = self.poll().unwrap_or_else(|| panic!("nothing was sent, expected {expected:?}"));
        let (segment, data) = sent;
        let relative = |number: SeqNumber, zero: SeqNumber| i64::from(number.distance(zero + 1));
        let told = format!(
            "{:?} seq {} ack {} window {} len {} {:?}, expected {expected:?}",
            segment.flags,
            relative(segment.seq, ISS),
            relative(segment.ack, IRS),
            segment.window,
            data.len(),
            segment.options
        );
        // PSH is a hint: it is compared only if the script names it.
        let psh = if expected.flags.contains(Flags::PSH) { 0 } else { Flags::PSH.0 };
        assert_eq!(Flags(segment.flags.0 & !psh), expected.flags, "flags: {told}");
        assert_eq!(relative(segment.seq, ISS), expected.seq, "seq: {told}");
        if let Some(ack) = expected.ack {
            assert_eq!(relative(segment.ack, IRS), ack, "ack: {told}");
        }
        if let Some(window) = expected.window {
            let shift = if segment.syn() { 0 } else { self.connection.info().window_shifts.1 };
            assert_eq!(u32::from(segment.window) << shift, window, "window: {told}");
        }
        assert_eq!(data, expected.data.unwrap_or_default(), "data: {told}");
        if let Some(sack) = expected.sack {
            let blocks: Vec<_> =
                segment.options.sack.iter().map(|(l, r)| (relative(l, IRS), relative(r, IRS))).collect();
            assert_eq!(blocks, sack, "SACK: {told}");
        }
    }

    /// The next segment that we send, parsed.
    pub(crate) fn poll(&mut self) -> Option<(Segment, Vec<u8>)> {
        let Transmit { frame, retained } = self.connection.poll_transmit(self.now, &mut self.pool)?;
        self.connection.check_invariants();
        let bytes = self.pool.tx_bytes(&frame)[HEADER_ROOM..].to_vec();
        self.on_nic.push((frame, retained));
        if !self.hold_frames {
            self.complete();
        }
        let (segment, payload_at) =
            Segment::parse(local().ip(), remote().ip(), &bytes).expect("a good segment");
        if let Some(timestamps) = segment.options.timestamps {
            self.echo = timestamps.value;
        }
        Some((segment, bytes[payload_at..].to_vec()))
    }

    /// The NIC is done with all that it was given.
    pub(crate) fn complete(&mut self) {
        for (frame, retained) in self.on_nic.drain(..) {
            let done = frame.into_completed();
            match retained {
                Some(key) => self.connection.handle_completion(self.now, &mut self.pool, done, key),
                None => self.pool.release(done.into_free()),
            }
        }
    }

    /// We must have nothing to send now.
    pub(crate) fn silence(&mut self) {
        if let Some((segment, data)) = self.poll() {
            panic!("expected silence, but this was sent: {segment:?} with {} bytes", data.len());
        }
    }

    /// Time passes, and the timers that have expired by then are served, all at once.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.connection.handle_timeout(self.now, &mut self.pool);
        self.connection.check_invariants();
    }

    /// Goes to the time when the next timer expires, and returns how many milliseconds that was away.
    pub(crate) fn advance_to_timer(&mut self) -> u64 {
        let next = self.connection.poll_timeout().expect("a timer runs");
        let ms = next.since(self.now).as_millis() as u64;
        self.now = self.now.max(next);
        self.connection.handle_timeout(self.now, &mut self.pool);
        self.connection.check_invariants();
        ms
    }

    /// The application writes that many bytes of [`pattern`]; all must be taken.
    pub(crate) fn write(&mut self, len: usize) {
        let data = pattern(self.written, len);
        assert_eq!(self.connection.write(self.now, &mut self.pool, &data), Ok(len));
        self.written += len as i64;
        self.connection.check_invariants();
    }

    /// The application reads up to `len` bytes.
    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        let n = self.connection.read(self.now, &mut self.pool, &mut data).expect("something to read");
        data.truncate(n);
        self.connection.check_invariants();
        data
    }

    /// The state must be this.
    pub(crate) fn state(&self, state: State) {
        assert_eq!(self.connection.state(), state);
    }

    /// All events that wait.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.connection.poll_event()).collect()
    }

    /// The end of a test: no frame was lost.
    pub(crate) fn finish(mut self) {
        self.complete();
        self.connection.release_all(&mut self.pool);
        assert_eq!(self.pool.available(), CHUNKS as usize, "frames are conserved");
    }
}

/// The sequence number of a place in a script.
fn at(zero: SeqNumber, relative: i64) -> SeqNumber {
    SeqNumber(zero.0.wrapping_add(1).wrapping_add(relative as u32))
}
