//! A connection and its scripted peer, on virtual time.

use core::ops::RangeInclusive;
use std::net::SocketAddr;

use super::{
    seg::{Seen, Seg, at, pattern, seg},
    trace::{Trace, What},
};
use crate::rx_frame;
use stack_user::{
    device::Umem,
    frame::{FramePool, TxFrame},
    tcp::{
        Config, Connection, Event, Info, ReadError, Secrets, Segment, SeqNumber, State, Transmit,
        Unreachable, WriteError,
        congestion::Algorithm,
        options::{Options, Timestamps},
    },
    telemetry::DropReason,
    time::{Duration, Instant},
    wire::{Ecn, tcp::Flags},
};

const ISS: SeqNumber = SeqNumber(u32::MAX - 5);
const IRS: SeqNumber = SeqNumber(0x7fff_fff0);
const TIMESTAMP_OFFSET: u32 = 77;
const HEADER_ROOM: usize = 34;
const CHUNKS: u32 = 512;

/// The configuration of scripts that are about something else: buffers keep the size that they have at first,
/// windows are halved and doubled (RFC 5681), so that numbers stay round, and what may be sent leaves at once.
pub(crate) fn config() -> Config {
    Config {
        recv_buffer: 1 << 20,
        recv_buffer_max: 0,
        send_buffer: 1 << 20,
        send_buffer_max: 0,
        congestion: Algorithm::NewReno,
        pacing: false,
        ..Config::default()
    }
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
    trace: Trace,
    /// The codepoint of the packet that we sent last.
    pub(crate) last_ecn: Ecn,
}

fn local() -> SocketAddr {
    "192.0.2.1:40000".parse().expect("an address")
}

fn remote() -> SocketAddr {
    "198.51.100.7:80".parse().expect("an address")
}

/// How a script is set up.
impl Script {
    /// A connection whose SYN has not been sent.
    pub(crate) fn new(config: Config) -> Self {
        let config = Config { header_room: HEADER_ROOM, ..config };
        let now = Instant::from_millis(1_000_000);
        let secrets = Secrets { isn: ISS, timestamp_offset: TIMESTAMP_OFFSET };
        Self::with(Connection::connect(now, config, local(), remote(), secrets), now)
    }

    /// A passive open (RFC 9293 §3.10.7.2): the peer's SYN has come, with these options, and SYN with ACK has not been
    /// sent.
    pub(crate) fn accepting(config: Config, peer: Options) -> Self {
        Self::accepting_syn(config, peer, Flags::SYN)
    }

    /// The same, of a SYN that has more flags.
    pub(crate) fn accepting_syn(config: Config, peer: Options, flags: Flags) -> Self {
        let config = Config { header_room: HEADER_ROOM, ..config };
        let now = Instant::from_millis(1_000_000);
        let secrets = Secrets { isn: ISS, timestamp_offset: TIMESTAMP_OFFSET };
        let timestamps = peer.timestamps.map(|ts| Timestamps { value: now.as_millis() as u32, ..ts });
        let syn = Segment {
            source_port: remote().port(),
            destination_port: local().port(),
            seq: at(IRS, -1),
            ack: SeqNumber(0),
            flags,
            window: 65_535,
            urgent: 0,
            options: Options { timestamps, ..peer },
            ce: false,
        };
        let connection = Connection::accept(now, config, local(), remote(), secrets, &syn);
        let mut script = Self::with(connection, now);
        script.peer_options = peer;
        script
    }

    /// After a passive open that took 10 ms, with a peer whose window is 65,535 bytes.
    pub(crate) fn accepted(config: Config, peer: Options) -> Self {
        let mut script = Self::accepting(config, peer);
        script.expect(seg("S.").seq(-1).ack(0));
        script.advance(10);
        script.inject(seg(".").seq(0).ack(0).window(65_535));
        assert_eq!(script.events(), [Event::Connected]);
        script.state(State::Established);
        script
    }

    fn with(connection: Connection, now: Instant) -> Self {
        Self {
            connection,
            pool: Umem::on_heap(CHUNKS).expect("memory"),
            now,
            peer_options: Options::default(),
            on_nic: Vec::new(),
            hold_frames: false,
            echo: 0,
            written: 0,
            last_ecn: Ecn::NotEct,
            trace: Trace::new(now),
        }
    }

    /// In SYN-SENT: SYN is on its way.
    pub(crate) fn syn_sent(config: Config) -> Self {
        let mut script = Self::new(config);
        script.expect(seg("S").seq(-1));
        script
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
}

/// What the peer and the network do.
impl Script {
    /// The peer sends a segment; it must be accepted.
    pub(crate) fn inject(&mut self, segment: Seg) {
        let result = self.try_inject(segment);
        assert_eq!(result, Ok(()), "the segment must be accepted");
    }

    /// The peer sends a segment, which must be dropped for `reason`.
    pub(crate) fn inject_dropped(&mut self, segment: Seg, reason: DropReason) {
        let result = self.try_inject(segment);
        assert_eq!(result, Err(reason), "the segment must be dropped");
    }

    /// The peer sends a segment, whatever becomes of it.
    pub(crate) fn try_inject(&mut self, injected: Seg) -> Result<(), DropReason> {
        let bytes = self.emit(&injected);
        let (mut segment, payload_at) =
            Segment::parse(remote().ip(), local().ip(), &bytes).expect("a good segment");
        segment.ce = injected.ce;
        if segment.syn() {
            self.peer_options = segment.options;
        }
        let shift = self.peer_options.window_scale.filter(|_| self.connection.info().window_shifts != (0, 0));
        let seen = Seen::new(&segment, &bytes[payload_at..], (IRS, ISS), shift.unwrap_or(0));
        let payload = rx_frame(&mut self.pool, &bytes[payload_at..]);
        let result = self.connection.handle_segment(self.now, &mut self.pool, &segment, payload);
        self.trace.push(self.now, What::Injected(seen, result));
        self.connection.check_invariants();
        result
    }

    /// The bytes of a segment from the peer, as on the wire.
    fn emit(&self, injected: &Seg) -> Vec<u8> {
        let syn = injected.flags.contains(Flags::SYN);
        let mut options = injected.options.unwrap_or_default();
        if !syn && self.peer_options.timestamps.is_some() && injected.options.is_none() {
            options.timestamps = Some(Timestamps { value: 0, echo: 0 });
        }
        if let Some(timestamps) = &mut options.timestamps {
            timestamps.value = injected.timestamp.unwrap_or(self.peer_clock());
            timestamps.echo = injected.echo.unwrap_or(self.echo);
        }
        let shift = if syn { 0 } else { self.peer_options.window_scale.unwrap_or(0) };
        injected.bytes(remote(), local(), (IRS, ISS), options, shift)
    }

    /// The TSval of a peer whose clock runs as ours does.
    pub(crate) fn peer_clock(&self) -> u32 {
        self.now.as_millis() as u32
    }

    /// The TSval of what we send now.
    pub(crate) fn our_clock(&self) -> u32 {
        self.peer_clock().wrapping_add(TIMESTAMP_OFFSET)
    }

    /// An ICMP error comes that quotes the segment which starts at `seq`.
    pub(crate) fn inject_icmp(&mut self, kind: Unreachable, seq: i64) {
        self.trace.push(self.now, What::Call(format!("ICMP {kind:?} about seq {seq}")));
        self.connection.handle_unreachable(self.now, &mut self.pool, kind, Some(at(ISS, seq)));
        self.connection.check_invariants();
    }

    /// The NIC is done with all that it was given.
    pub(crate) fn complete(&mut self) {
        for (frame, retained) in self.on_nic.drain(..) {
            let done = frame.into_completed();
            match retained {
                Some(key) => self.connection.handle_completion(self.now, &mut self.pool, done, key),
                None => self.pool.release_completed(done),
            }
        }
    }
}

/// What we must send, and when.
impl Script {
    /// We must send this segment now; more may follow.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: Seg) {
        let seen = self.poll_seen();
        self.check(expected, seen);
    }

    #[track_caller]
    fn check(&mut self, expected: Seg, seen: Option<Seen>) {
        if seen.as_ref().is_none_or(|seen| expected.differences(seen).contains(&true)) {
            self.trace.mismatch(self.now, expected, seen);
            panic!("this is not the segment that was expected");
        }
    }

    /// We must send something now: this is it.
    #[track_caller]
    pub(crate) fn expect_any(&mut self) -> (Segment, Vec<u8>) {
        self.poll().expect("a segment")
    }

    /// In `ms` milliseconds, and not before, we must send this segment by ourselves.
    #[track_caller]
    pub(crate) fn expect_at(&mut self, ms: u64, expected: Seg) {
        self.expect_within(ms..=ms, expected);
    }

    /// We must send this segment by ourselves, so many milliseconds from now, and nothing before it.
    #[track_caller]
    pub(crate) fn expect_within(&mut self, ms: RangeInclusive<u64>, expected: Seg) {
        let start = self.now;
        let end = start + Duration::from_millis(*ms.end());
        let seen = loop {
            let seen = self.poll_seen();
            let next = self.connection.poll_timeout().filter(|&next| next <= end);
            match next.filter(|_| seen.is_none()) {
                Some(next) => self.advance_until(next),
                None => break seen,
            }
        };
        self.check(expected, seen);
        let after = self.now.since(start).as_millis() as u64;
        assert!(ms.contains(&after), "it was sent after {after} ms, not {ms:?} ms");
    }

    /// We must have nothing to send now.
    #[track_caller]
    pub(crate) fn expect_silence(&mut self) {
        if self.poll().is_some() {
            panic!("silence was expected, but the last segment was sent");
        }
    }

    /// We must have nothing to send for so many milliseconds, whatever timers expire.
    #[track_caller]
    pub(crate) fn expect_silence_for(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        self.expect_silence();
        while let Some(next) = self.connection.poll_timeout().filter(|&next| next <= end) {
            self.advance_until(next);
            self.expect_silence();
        }
        self.advance_until(end);
        self.expect_silence();
    }

    /// The next segment that we send, parsed.
    pub(crate) fn poll(&mut self) -> Option<(Segment, Vec<u8>)> {
        let Transmit { frame, retained, ecn } = self.connection.poll_transmit(self.now, &mut self.pool)?;
        self.connection.check_invariants();
        let bytes = self.pool.tx_gather(&frame)[HEADER_ROOM..].to_vec();
        self.last_ecn = ecn;
        self.on_nic.push((frame, retained));
        if !self.hold_frames {
            self.complete();
        }
        let (segment, payload_at) =
            Segment::parse(local().ip(), remote().ip(), &bytes).expect("a good segment");
        if let Some(timestamps) = segment.options.timestamps {
            self.echo = timestamps.value;
        }
        let shift = self.connection.info().window_shifts.1;
        let seen = Seen::new(&segment, &bytes[payload_at..], (ISS, IRS), shift);
        self.trace.push(self.now, What::Sent(seen));
        Some((segment, bytes[payload_at..].to_vec()))
    }

    fn poll_seen(&mut self) -> Option<Seen> {
        let (segment, data) = self.poll()?;
        Some(Seen::new(&segment, &data, (ISS, IRS), self.connection.info().window_shifts.1))
    }

    /// Lets go whatever we have to send; returns how many segments that was.
    pub(crate) fn drain(&mut self) -> usize {
        core::iter::from_fn(|| self.poll()).count()
    }
}

/// Time.
impl Script {
    /// Time passes, and the timers that have expired by then are served, all at once.
    pub(crate) fn advance(&mut self, ms: u64) {
        self.advance_until(self.now + Duration::from_millis(ms));
    }

    /// Goes to the time when the next timer expires, and returns how many milliseconds that was away.
    pub(crate) fn advance_to_timer(&mut self) -> u64 {
        let next = self.connection.poll_timeout().expect("a timer runs");
        let ms = next.since(self.now).as_millis() as u64;
        self.advance_until(next);
        ms
    }

    fn advance_until(&mut self, then: Instant) {
        self.now = self.now.max(then);
        self.trace.push(self.now, What::Time);
        self.connection.handle_timeout(self.now, &mut self.pool);
        self.connection.check_invariants();
    }
}

/// What the application does.
impl Script {
    fn call(&mut self, call: String) {
        self.trace.push(self.now, What::Call(call));
        self.connection.check_invariants();
    }

    /// The application writes that many bytes of [`pattern`]; all must be taken.
    pub(crate) fn write(&mut self, len: usize) {
        let data = pattern(self.written, len);
        assert_eq!(self.app_write(&data), Ok(len));
        self.written += len as i64;
    }

    /// The application writes.
    pub(crate) fn app_write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        let result = self.connection.write(self.now, &mut self.pool, data);
        self.call(format!("write {} bytes: {result:?}", data.len()));
        result
    }

    /// The application reads up to `len` bytes; there must be some.
    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        self.app_read(len).expect("something to read")
    }

    /// The application reads up to `len` bytes.
    pub(crate) fn app_read(&mut self, len: usize) -> Result<Vec<u8>, ReadError> {
        let mut data = vec![0; len];
        let result = self.connection.read(self.now, &mut self.pool, &mut data);
        self.call(format!("read {len} bytes: {result:?}"));
        data.truncate(result?);
        Ok(data)
    }

    /// The application has finished sending.
    pub(crate) fn app_shutdown(&mut self) {
        self.connection.shutdown_write(self.now);
        self.call("shutdown".to_owned());
    }

    /// The application is done with the connection.
    pub(crate) fn app_close(&mut self) {
        self.connection.close(self.now, &mut self.pool);
        self.call("close".to_owned());
    }

    /// The application gives the connection up.
    pub(crate) fn app_abort(&mut self) {
        self.connection.abort(self.now);
        self.call("abort".to_owned());
    }
}

/// What is known of the connection.
impl Script {
    /// The state must be this.
    #[track_caller]
    pub(crate) fn state(&self, state: State) {
        assert_eq!(self.connection.state(), state);
    }

    pub(crate) fn info(&self) -> Info {
        self.connection.info()
    }

    /// RTO in milliseconds.
    pub(crate) fn rto(&self) -> u64 {
        self.info().rto.as_millis() as u64
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

/// Whatever fails in a script, its history says how it came to that.
impl Drop for Script {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.trace);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::dsl::plain_options;

    #[test]
    fn a_failure_tells_the_history_with_expected_and_actual_beneath_each_other() {
        let mut s = Script::established(config(), plain_options());
        s.write(10);
        catch_unwind(AssertUnwindSafe(|| s.expect(seg("P.").seq(0).ack(5).len(10)))).expect_err("ACK is 0");
        let history = s.trace.to_string();
        let end = "
    10.000 ms  <           S.  seq -1        ack 0  win 65535  mss 1000
    10.000 ms  >           .   seq 0         ack 0  win 65535
    10.000 ms    write 10 bytes: Ok(10)
    10.000 ms  > expected  P.  seq 0:10(10)  ack 5  ·          ·
                 actual    P.  seq 0:10(10)  ack 0  win 65535
                                             ^^^^^
";
        assert!(history.ends_with(end), "{history}");
        s.finish();
    }
}
