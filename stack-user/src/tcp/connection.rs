//! One connection: its parts, its birth and its end. What it does lies in the files beside this one.

use std::net::{IpAddr, SocketAddr};

use super::{
    ack::{AckState, ChallengeLimit, Hold},
    autotune::Autotune,
    block::{ReceiveSpace, SendSpace},
    config::Config,
    congestion::CongestionControl,
    ecn::EcnState,
    error::{Error, Unreachable},
    event::{Event, Events},
    half_open::HalfOpen,
    info::Counts,
    isn::Secrets,
    keepalive::Silence,
    options::{TIMESTAMPS_LEN, Timestamps},
    output::Reset,
    pacing::Pacer,
    persist::Persist,
    pmtud::Pmtud,
    reassembly::Reassembly,
    recovery::Recovery,
    recv_queue::RecvQueue,
    rtt::RttEstimator,
    segment::Segment,
    send_queue::{Layout, SendQueue},
    seq::SeqNumber,
    state::State,
    timer::{Timer, Timers},
    timestamps::TimestampState,
    trace::{self, Trace},
    urgent::Urgent,
    user_timeout::UserTimeoutState,
};
use crate::{
    frame::{CompletedFrame, FramePool},
    time::{Duration, Instant},
    wire::tcp::Header,
};

/// A connection between two sockets.
///
/// Frames that the connection holds belong to one pool, and every call gets that pool. When it
/// [is closed](Self::is_closed) and the application has let go of it, [`release_all`](Self::release_all) gives back what
/// it still holds; frames that the NIC has at that time come back as completions for a connection that is no more, and
/// go to the pool.
#[derive(Debug)]
pub struct Connection {
    pub(super) config: Config,
    /// Never changes (RFC 9293 §3.9.1.1, MUST-45).
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) state: State,
    /// A listener opened it, not us (RFC 9293 §3.10.1).
    pub(super) is_passive: bool,
    pub(super) snd: SendSpace,
    pub(super) rcv: ReceiveSpace,
    /// The peer understands SACK, and so do we.
    pub(super) sack_enabled: bool,
    pub(super) ecn: EcnState,
    pub(super) timestamps: TimestampState,
    pub(super) pmtud: Pmtud,
    pub(super) send: SendQueue,
    pub(super) recv: RecvQueue,
    pub(super) urgent: Urgent,
    pub(super) autotune: Autotune,
    pub(super) reassembly: Reassembly,
    /// The largest payload that came: what a full segment of this peer is.
    pub(super) largest_payload: usize,
    /// A range that came twice, to be told in the next ACK (RFC 2883).
    pub(super) duplicate: Option<(SeqNumber, SeqNumber)>,
    pub(super) acks: AckState,
    pub(super) challenges: ChallengeLimit,
    /// The stack as a whole may (still) answer with challenge ACKs, and whether this connection has.
    pub(super) may_challenge: bool,
    pub(super) has_challenged: bool,
    /// The stack as a whole has memory (left) for copies of what came.
    pub(super) may_copy: bool,
    /// What all connections' memory has of this one.
    pub(super) accounted: usize,
    pub(super) silence: Silence,
    pub(super) rtt: RttEstimator,
    pub(super) timers: Timers,
    pub(super) user_timeout_state: UserTimeoutState,
    pub(super) persist: Persist,
    pub(super) recovery: Recovery,
    pub(super) congestion: Box<dyn CongestionControl>,
    /// SND.NXT as a stream offset when the congestion window stopped us last.
    pub(super) window_full_until: u64,
    /// Sequence numbers that had to be sent again in the present recovery and have arrived.
    pub(super) repaired: usize,
    /// The stream offset whose acknowledgement ends the present round trip.
    pub(super) round_end: u64,
    pub(super) pacer: Pacer,
    pub(super) last_sent_at: Instant,
    /// SYN, or SYN with ACK, waits to be sent.
    pub(super) syn_due: bool,
    pub(super) syn_transmissions: u32,
    pub(super) syn_timeouts: u32,
    pub(super) syn_sent_at: Instant,
    pub(super) reset_due: Option<Reset>,
    /// The application reads no more.
    pub(super) reads_closed: bool,
    /// The peer's FIN has come, and all before it.
    pub(super) fin_received: bool,
    /// A write found no room, so the application waits for `Writable`.
    pub(super) write_blocked: bool,
    pub(super) events: Events,
    pub(super) error: Option<Error>,
    /// What an ICMP error said that is not the end yet, but explains one (RFC 1122 §4.2.3.9).
    pub(super) soft_error: Option<Unreachable>,
    /// See [`take_suspicion`](Self::take_suspicion).
    pub(super) suspects_first_hop: bool,
    pub(super) counts: Counts,
    /// Who listens to the event stream, if anybody.
    pub(super) tracer: Option<Box<Trace>>,
}

impl Connection {
    /// Opens a connection (RFC 9293 §3.10.1, active): SYN is sent at the next [`poll_transmit`](Self::poll_transmit).
    pub fn connect(
        now: Instant,
        config: Config,
        local: SocketAddr,
        remote: SocketAddr,
        secrets: Secrets,
    ) -> Self {
        let mut connection = Self::new(now, config, local, remote, secrets, State::SynSent);
        connection.timers.set(Timer::Connect, now + connection.config.connect_timeout);
        connection.syn_due = true;
        connection
    }

    /// Answers a SYN (RFC 9293 §3.10.7.2): SYN with ACK is sent at the next [`poll_transmit`](Self::poll_transmit), and
    /// the connection is in SYN-RECEIVED. Should its peer not be heard of again, or reset it, it is closed, and that is
    /// all: whoever listens hears of no connection that was never open.
    pub fn accept(
        now: Instant,
        config: Config,
        local: SocketAddr,
        remote: SocketAddr,
        secrets: Secrets,
        syn: &Segment,
    ) -> Self {
        let half_open = HalfOpen::new(now, &config, secrets, syn);
        let mut connection = Self::complete(now, config, local, remote, &half_open);
        connection.syn_due = true;
        connection
    }

    /// The connection of a half-open one whose peer has answered: still in SYN-RECEIVED, with SYN sent. It is
    /// established by the answer, which it has to be handed next.
    pub fn complete(
        now: Instant,
        config: Config,
        local: SocketAddr,
        remote: SocketAddr,
        half_open: &HalfOpen,
    ) -> Self {
        let config = Config { mss: half_open.mss, ..config };
        let mut connection = Self::new(now, config, local, remote, half_open.secrets, State::SynReceived);
        connection.is_passive = true;
        connection.snd.nxt = connection.snd.iss + 1;
        connection.snd.peer_mss = half_open.peer_mss;
        connection.rcv.synchronize(half_open.irs, half_open.window.into());
        if let Some(shift) = half_open.peer_shift {
            connection.snd.window_shift = shift;
            connection.rcv.window_shift = half_open.shift;
        }
        connection.sack_enabled = half_open.sack;
        connection.ecn = EcnState::agreed(half_open.ecn);
        if let Some(value) = half_open.timestamp {
            connection.timestamps.enable(now, Timestamps { value, echo: 0 });
        }
        connection.syn_transmissions = half_open.transmissions.into();
        connection.syn_timeouts = half_open.timeouts.into();
        connection.syn_sent_at = half_open.sent_at;
        connection.take_user_timeout(now, half_open.peer_user_timeout);
        connection
    }

    fn new(
        now: Instant,
        config: Config,
        local: SocketAddr,
        remote: SocketAddr,
        secrets: Secrets,
        state: State,
    ) -> Self {
        Self {
            local,
            remote,
            state,
            is_passive: false,
            snd: SendSpace::new(secrets.isn),
            rcv: ReceiveSpace::default(),
            sack_enabled: false,
            ecn: EcnState::new(config.ecn),
            timestamps: TimestampState::new(secrets.timestamp_offset),
            pmtud: Pmtud::new(config.path_mtu_probing),
            send: SendQueue::default(),
            recv: RecvQueue::default(),
            urgent: Urgent::default(),
            autotune: Autotune::new(&config),
            reassembly: Reassembly::default(),
            largest_payload: 0,
            duplicate: None,
            acks: AckState::default(),
            challenges: ChallengeLimit::default(),
            may_challenge: true,
            has_challenged: false,
            may_copy: true,
            accounted: 0,
            silence: Silence::default(),
            rtt: RttEstimator::default(),
            timers: Timers::default(),
            user_timeout_state: UserTimeoutState::default(),
            persist: Persist::default(),
            recovery: Recovery::default(),
            congestion: config.congestion.build(config.mss.into()),
            window_full_until: 0,
            repaired: 0,
            round_end: 0,
            pacer: Pacer::default(),
            last_sent_at: now,
            syn_due: false,
            syn_transmissions: 0,
            syn_timeouts: 0,
            syn_sent_at: now,
            reset_due: None,
            reads_closed: false,
            fin_received: false,
            write_blocked: false,
            events: Events::default(),
            error: None,
            soft_error: None,
            suspects_first_hop: false,
            counts: Counts::default(),
            tracer: None,
            config,
        }
    }

    /// The NIC is done with a frame that [`Transmit::retained`](super::Transmit::retained) named.
    pub fn handle_completion<P: FramePool>(
        &mut self,
        now: Instant,
        pool: &mut P,
        frame: CompletedFrame,
        retained: u64,
    ) {
        if self.send.complete(pool, frame, retained) {
            self.offer_room(now, pool);
        }
    }

    /// Whether a completion may have let somebody go on: the application, or a segment that has to be sent again and was with
    /// the NIC; or whether there is a time to look again at. Most frames are waited for by nobody.
    pub(crate) fn may_go_on(&self) -> bool {
        !self.events.is_empty()
            || self.send.lost() > 0
            || self.recovery.wants_new_data()
            || self.timers.is_set(Timer::FrameRetry)
    }

    /// Until when an ACK is held that has to go then, and for what: when to call [`poll_transmit`](Self::poll_transmit) again. It
    /// is too soon for a timer.
    pub fn held_ack(&self) -> Option<(Instant, Hold)> {
        self.acks.held()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next event that the application has not been told.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop()
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why the connection failed, if it did.
    pub fn error(&self) -> Option<Error> {
        self.error
    }

    /// SND.UNA: what the peer has acknowledged. It moves when, and only when, something of ours has arrived.
    pub fn send_unacknowledged(&self) -> SeqNumber {
        self.snd.una
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The peer's end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Whether the connection is over and has nothing more to send. It can then be taken out of whatever finds it by
    /// address; what came before the end can be read until [`release_all`](Self::release_all).
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed && self.reset_due.is_none()
    }

    /// Gives back all frames that the connection holds.
    pub fn release_all<P: FramePool>(&mut self, pool: &mut P) {
        self.send.clear(pool);
        self.recv.clear(pool);
        self.reassembly.clear(pool);
    }

    /// Panics if the connection contradicts itself. Tests call it after every step.
    pub fn check_invariants(&self) {
        assert!(self.snd.una.at_or_before(self.snd.nxt), "SND.UNA is not beyond SND.NXT");
        self.recv.check_invariants();
        if self.state.is_synchronized() {
            assert!(self.rcv.nxt.at_or_before(self.rcv.edge), "RCV.NXT is within the window");
            assert_eq!(self.rcv.seq(self.rcv.nxt_offset), self.rcv.nxt, "RCV.NXT and its offset");
            self.send.check_invariants(self.snd.una_offset, self.snd.offset(self.snd.nxt));
            self.reassembly.check_invariants(self.rcv.nxt_offset);
            self.recovery.check_invariants(&self.send);
            let waits = self.send.has_outstanding();
            assert_eq!(
                waits,
                self.timers.is_set(Timer::Retransmit),
                "the timer runs while data is outstanding"
            );
            for timer in [Timer::Reorder, Timer::LossProbe] {
                assert!(waits || !self.timers.is_set(timer), "{timer:?} runs for nothing");
            }
            let (probe, rto) = (self.timers.at(Timer::LossProbe), self.timers.at(Timer::Retransmit));
            assert!(probe.is_none() || probe <= rto, "a probe comes before the time-out");
            assert!(!waits || self.timers.is_set(Timer::User), "the peer has until some time to answer");
            let has_unsent = self.send.unsent().is_some();
            assert!(
                waits || has_unsent || !self.timers.is_set(Timer::User),
                "nobody is given up for whom nothing waits"
            );
            assert!(has_unsent || !self.timers.is_set(Timer::Persist), "a window is probed for something");
            let owes_ack = self.acks.is_owed() || self.rcv.last_ack_sent != self.rcv.nxt;
            assert!(
                owes_ack || !self.timers.is_set(Timer::DelayedAck),
                "what waits for its ACK has none yet"
            );
            assert!(
                !waits || !self.timers.is_set(Timer::Persist),
                "persist and retransmit exclude each other"
            );
        }
        let ends = self.state == State::Closed;
        let waits_only_for_frames =
            Timer::ALL.iter().all(|&t| t == Timer::FrameRetry || !self.timers.is_set(t));
        assert!(!ends || waits_only_for_frames, "no timer outlives the connection");
    }

    /// Bytes of each data segment's header: the same for all, since the payload has a fixed place in its frame.
    pub(super) fn data_header_len(&self) -> usize {
        Header::LEN + if self.timestamps.enabled { TIMESTAMPS_LEN } else { 0 }
    }

    /// Eff.snd.MSS (RFC 9293 §3.7.1, MUST-16): the peer's MSS, or less if our link or the path carries less, minus the
    /// options of every segment.
    pub(super) fn layout(&self) -> Layout {
        let options = self.data_header_len() - Header::LEN;
        let largest = usize::from(self.snd.peer_mss.min(self.config.mss));
        let path = self.pmtud.mtu().saturating_sub(self.ip_header_len() + Header::LEN);
        Layout {
            payload_at: self.config.header_room + self.data_header_len(),
            mss: largest.min(path).saturating_sub(options).max(1),
        }
    }

    /// Bytes in front of the payload of a data segment: the room for lower headers, and ours.
    pub fn headers_len(&self) -> usize {
        self.layout().payload_at
    }

    /// Bytes of payload in a full segment of ours, now.
    pub fn segment_len(&self) -> usize {
        self.layout().mss
    }

    /// The largest payload that we expect: what we announced, less the options of every segment.
    pub(super) fn receive_mss(&self) -> usize {
        usize::from(self.config.mss).saturating_sub(self.data_header_len() - Header::LEN).max(1)
    }

    /// Bytes of the IP header in front of ours.
    pub(super) fn ip_header_len(&self) -> usize {
        match self.remote.ip() {
            IpAddr::V4(_) => 20,
            IpAddr::V6(_) => 40,
        }
    }

    /// Tells the application that it can write, if it waits for that and can.
    pub(super) fn offer_room<P: FramePool>(&mut self, now: Instant, pool: &P) {
        if !self.write_blocked || !self.state.may_write() {
            return;
        }
        let room = self.has_room(pool);
        if room && self.send.may_allocate(pool) {
            self.write_blocked = false;
            self.events.push(Event::Writable);
        } else if room {
            // Other connections hold the chunks, and don't tell us when they let go.
            self.timers.set_if_earlier(Timer::FrameRetry, now + FRAME_RETRY);
        }
    }

    /// Whether there is room for what the application may write, as far as this connection alone is concerned.
    pub(super) fn has_room<P: FramePool>(&mut self, pool: &P) -> bool {
        self.send.bytes() < self.send_buffer(pool) && !self.send.is_full(pool)
    }

    /// Goes to another state. All changes of state come through here.
    pub(super) fn set_state(&mut self, now: Instant, to: State) {
        let from = core::mem::replace(&mut self.state, to);
        if from != to {
            self.trace(now, || trace::Kind::State { from, to });
        }
    }

    /// The end, with or without an error.
    pub(super) fn finish(&mut self, now: Instant, error: Option<Error>) {
        self.set_state(now, State::Closed);
        self.timers.stop_all();
        self.syn_due = false;
        if let Some(error) = error {
            self.error.get_or_insert(error);
            self.events.push(Event::Failed(error));
        }
        self.events.push(Event::Closed);
    }

    /// The end by an error: nothing more is sent or awaited. What has ended stays as it ended.
    pub fn fail<P: FramePool>(&mut self, now: Instant, pool: &mut P, error: Error) {
        if self.state == State::Closed {
            return;
        }
        self.finish(now, Some(error));
        self.send.clear(pool);
        self.reassembly.clear(pool);
    }
}

/// When to look for a free chunk again. Sooner costs wake-ups while others hold them; later leaves the NIC idle.
pub(super) const FRAME_RETRY: Duration = Duration::from_millis(5);
