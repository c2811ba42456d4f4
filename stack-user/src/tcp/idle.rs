//! An established connection on which nothing happens: what there is to remember of it.
//!
//! Everything that was sent is acknowledged, everything that came is read, and no timer runs but that of keep-alives.
//! Then most of a [`Connection`] is empty, out of date, or as it was at first: the queues and the recovery, pacing and
//! limits. What is left is a fifth of it, and the same configuration is kept once for all connections that have it. The
//! next segment or call makes a whole connection of it again, which goes on as if it had never been anything else.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Deref,
    sync::Arc,
};

use super::{
    Connection, SeqNumber, Unreachable,
    ack::{AckState, ChallengeLimit},
    autotune::{self, Autotune},
    block::{ReceiveSpace, SendSpace},
    config::Config,
    congestion::{self, CongestionControl},
    ecn::EcnState,
    event::Events,
    info::Counts,
    keepalive::Silence,
    pacing::{self, Pacer},
    persist::Persist,
    pmtud::Pmtud,
    reassembly::Reassembly,
    recovery::{self, Recovery},
    recv_queue::RecvQueue,
    rtt::{self, RttEstimator},
    send_queue::SendQueue,
    state::State,
    timer::{Timer, Timers},
    timestamps::TimestampState,
    urgent::Urgent,
    user_timeout::UserTimeoutState,
};
use crate::time::{Duration, Instant};

/// How long nothing must have happened. Shorter, and a connection in a slow dialogue is packed and unpacked all the
/// time; longer, and those that were busy a moment ago hold memory for nothing.
pub const QUIET: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Clone, Debug)]
pub struct Idle {
    config: Arc<Config>,
    local: (IpAddr, u16),
    remote: (IpAddr, u16),
    is_passive: bool,
    snd: Sent,
    rcv: Received,
    sack_enabled: bool,
    ecn: EcnState,
    timestamps: TimestampState,
    autotune: autotune::Rest,
    largest_payload: u16,
    quick_acks: u8,
    heard: Instant,
    keepalive_at: Option<Instant>,
    rtt: rtt::Rest,
    user_timeout_state: UserTimeoutState,
    recovery: recovery::Rest,
    congestion: Controller,
    pacer: pacing::Rest,
    last_sent_at: Instant,
    soft_error: Option<Unreachable>,
    segments_sent: u64,
    segments_received: u64,
    arrived: u32,
    unusual: Option<Box<Unusual>>,
}

/// The send sequence space when all is acknowledged.
#[derive(Clone, Copy, Debug)]
struct Sent {
    iss: SeqNumber,
    una_offset: u64,
    wnd: u32,
    max_wnd: u32,
    wl1: SeqNumber,
    wl2: SeqNumber,
    window_shift: u8,
    peer_mss: u16,
}

/// The receive sequence space when all is read, and the peer knows.
#[derive(Clone, Copy, Debug)]
struct Received {
    irs: SeqNumber,
    nxt_offset: u64,
    edge: SeqNumber,
    limit: SeqNumber,
    window_shift: u8,
}

#[derive(Clone, Debug)]
enum Controller {
    Small(congestion::Rest),
    Whole(Box<dyn CongestionControl>),
}

/// What most connections have nothing of.
#[derive(Clone, Debug)]
struct Unusual {
    counts: Counts,
    pmtud: Pmtud,
}

/// The configurations of a stack's idle connections, each once. Few differ, since an application opens and accepts all
/// its connections in the same way; those that are here are the ones that were looked for last.
#[derive(Debug, Default)]
pub struct Configs(Vec<Arc<Config>>);

/// Configurations that are looked through. Fewer, and applications with as many kinds of connections keep one for each
/// connection; more, and the search takes longer than the copy that it saves.
const MAX_CONFIGS: usize = 8;

impl Configs {
    fn share(&mut self, config: &Config) -> Arc<Config> {
        match self.0.iter().position(|known| **known == *config) {
            Some(at) => self.0[..=at].rotate_right(1),
            None => {
                self.0.truncate(MAX_CONFIGS - 1);
                self.0.insert(0, Arc::new(config.clone()));
            }
        }
        Arc::clone(&self.0[0])
    }
}

impl Connection {
    /// When to see whether it [rests](Self::rest), if nothing happens meanwhile: after [`QUIET`], RTO, and what is limited
    /// by time. `None` in states in which it can't.
    pub fn rests_at(&self) -> Option<Instant> {
        let last = self.last_sent_at.max(self.silence.heard());
        // Later than RTO, so that the next data finds the connection idle by RFC 5681 §4.1.
        let quiet = last + QUIET.max(self.rtt.rto()) + Duration::from_nanos(1);
        (self.state == State::Established)
            .then(|| quiet.max(self.challenges.ends()).max(self.pacer.held_until()))
    }

    /// When to look at the connection again: when a timer is due, or when it may [rest](Self::rests_at).
    pub fn looks_at(&self) -> Option<Instant> {
        let timer = self.poll_timeout();
        // Most often there is a timer that is due before any connection rests.
        let quiet = self.last_sent_at.max(self.silence.heard()) + QUIET;
        if timer.is_some_and(|at| at < quiet) {
            return timer;
        }
        timer.into_iter().chain(self.rests_at()).min()
    }

    /// What there is to remember of the connection if nothing happens on it, and has not for long enough. It holds no
    /// frames then. `None` while it has something to do.
    pub fn rest(&self, now: Instant, configs: &mut Configs) -> Option<Idle> {
        if self.rests_at().is_none_or(|at| now < at) || !self.has_nothing_to_do() {
            return None;
        }
        let Self { snd, rcv, counts, .. } = self;
        let usual = Counts {
            segments_sent: counts.segments_sent,
            segments_received: counts.segments_received,
            bytes_acked: snd.una_offset,
            bytes_received: rcv.nxt_offset,
            ..Counts::default()
        };
        let arrived = self.pmtud.rest().filter(|_| *counts == usual);
        let unusual = || Box::new(Unusual { counts: *counts, pmtud: self.pmtud.clone() });
        Some(Idle {
            local: plain(self.local)?,
            remote: plain(self.remote)?,
            is_passive: self.is_passive,
            snd: Sent::of(snd)?,
            rcv: Received::of(rcv)?,
            sack_enabled: self.sack_enabled,
            ecn: self.ecn,
            timestamps: self.timestamps.clone(),
            autotune: self.autotune.rest()?,
            largest_payload: self.largest_payload.try_into().ok()?,
            quick_acks: self.acks.rest()?,
            heard: self.silence.rest()?,
            keepalive_at: self.timers.at(Timer::KeepAlive),
            rtt: self.rtt.rest(),
            user_timeout_state: self.user_timeout_state.clone(),
            recovery: self.recovery.rest(snd.una_offset)?,
            congestion: match self.congestion.rest() {
                Some(rest) => Controller::Small(rest),
                None => Controller::Whole(self.congestion.clone()),
            },
            pacer: self.pacer.rest(),
            last_sent_at: self.last_sent_at,
            soft_error: self.soft_error,
            segments_sent: counts.segments_sent,
            segments_received: counts.segments_received,
            arrived: arrived.unwrap_or_default(),
            unusual: arrived.is_none().then(unusual),
            config: configs.share(&self.config),
        })
    }

    /// All parts are named here, so that a new one is not forgotten: those that are let go of in [`rest`](Self::rest) must
    /// be as [`Idle::resume`] makes them, or it must make no difference.
    fn has_nothing_to_do(&self) -> bool {
        let Self {
            // Kept.
            config: _,
            local: _,
            remote: _,
            state: _,
            is_passive: _,
            snd: _,
            rcv: _,
            sack_enabled: _,
            ecn: _,
            timestamps: _,
            pmtud: _,
            autotune: _,
            largest_payload: _,
            acks: _,
            silence: _,
            rtt: _,
            user_timeout_state: _,
            recovery: _,
            congestion: _,
            pacer: _,
            last_sent_at: _,
            soft_error: _,
            counts: _,
            // Stream offsets up to SND.UNA and what was read, which tell as much as 0; and what is of a recovery, or of
            // the handshake.
            urgent,
            window_full_until: _,
            repaired: _,
            round_end: _,
            syn_transmissions: _,
            syn_timeouts: _,
            syn_sent_at: _,
            // Over when the connection may rest.
            challenges: _,
            // Said for each segment.
            may_challenge: _,
            may_copy: _,
            // Of what waits, which is nothing.
            accounted: _,
            // To be at rest.
            send,
            recv,
            reassembly,
            duplicate,
            has_challenged,
            timers,
            persist,
            syn_due,
            reset_due,
            reads_closed,
            fin_received,
            write_blocked,
            events,
            error,
            suspects_first_hop,
            tracer,
        } = self;
        send.is_empty()
            && !send.has_fin()
            && recv.is_empty()
            && urgent.is_over(self.snd.una_offset, self.rcv.nxt_offset)
            && reassembly.is_empty()
            && reassembly.fin().is_none()
            && duplicate.is_none()
            && timers.iter().all(|(timer, _)| timer == Timer::KeepAlive)
            && persist.is_at_rest()
            && events.is_empty()
            && error.is_none()
            && reset_due.is_none()
            && tracer.is_none()
            && ![has_challenged, syn_due, reads_closed, fin_received, write_blocked, suspects_first_hop]
                .contains(&&true)
    }
}

impl Idle {
    /// The connection, to go on with.
    pub fn resume(self) -> Connection {
        let Self { config, snd, rcv, .. } = self;
        let config = Config::clone(&config);
        let congestion = match self.congestion {
            Controller::Small(rest) => config.congestion.resume(config.pacing, &rest),
            Controller::Whole(controller) => controller,
        };
        let usual = || Counts {
            segments_sent: self.segments_sent,
            segments_received: self.segments_received,
            bytes_acked: snd.una_offset,
            bytes_received: rcv.nxt_offset,
            ..Counts::default()
        };
        let (counts, pmtud) = match self.unusual {
            Some(unusual) => (unusual.counts, unusual.pmtud),
            None => (usual(), Pmtud::resume(config.path_mtu_probing, self.arrived)),
        };
        let mut timers = Timers::default();
        if let Some(at) = self.keepalive_at {
            timers.set(Timer::KeepAlive, at);
        }
        Connection {
            local: self.local.into(),
            remote: self.remote.into(),
            state: State::Established,
            is_passive: self.is_passive,
            snd: snd.resume(),
            rcv: rcv.resume(),
            sack_enabled: self.sack_enabled,
            ecn: self.ecn,
            timestamps: self.timestamps,
            pmtud,
            send: SendQueue::resume(snd.una_offset),
            recv: RecvQueue::default(),
            urgent: Urgent::default(),
            autotune: Autotune::resume(&config, self.autotune),
            reassembly: Reassembly::default(),
            largest_payload: self.largest_payload.into(),
            duplicate: None,
            acks: AckState::resume(self.quick_acks),
            challenges: ChallengeLimit::default(),
            may_challenge: true,
            has_challenged: false,
            may_copy: true,
            accounted: 0,
            silence: Silence::resume(self.heard),
            rtt: RttEstimator::resume(self.rtt),
            timers,
            user_timeout_state: self.user_timeout_state,
            persist: Persist::default(),
            recovery: Recovery::resume(&self.recovery, snd.una_offset),
            congestion,
            window_full_until: 0,
            repaired: 0,
            round_end: 0,
            pacer: Pacer::resume(self.pacer),
            last_sent_at: self.last_sent_at,
            syn_due: false,
            syn_transmissions: 0,
            syn_timeouts: 0,
            syn_sent_at: Instant::ZERO,
            reset_due: None,
            reads_closed: false,
            fin_received: false,
            write_blocked: false,
            events: Events::default(),
            error: None,
            soft_error: self.soft_error,
            suspects_first_hop: false,
            counts,
            tracer: None,
            config,
        }
    }

    /// When to make a connection of it again and call [`handle_timeout`](Connection::handle_timeout), if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.keepalive_at
    }

    /// Our end.
    pub fn local(&self) -> SocketAddr {
        self.local.into()
    }

    /// The peer's end.
    pub fn remote(&self) -> SocketAddr {
        self.remote.into()
    }
}

/// A connection to look at, in whatever form it is kept.
#[derive(Debug)]
pub enum View<'a> {
    /// As it is.
    Whole(&'a Connection),
    /// One that rests: a copy, as it will go on.
    Resumed(Box<Connection>),
}

impl Deref for View<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        match self {
            View::Whole(connection) => connection,
            View::Resumed(connection) => connection,
        }
    }
}

/// An address and a port, if that is all.
fn plain(address: SocketAddr) -> Option<(IpAddr, u16)> {
    let plain = (address.ip(), address.port());
    (SocketAddr::from(plain) == address).then_some(plain)
}

impl Sent {
    fn of(space: &SendSpace) -> Option<Self> {
        let SendSpace { iss, una, una_offset, nxt, wnd, max_wnd, wl1, wl2, window_shift, peer_mss } = *space;
        let is_acknowledged = una == nxt && una == space.seq(una_offset);
        let (wnd, max_wnd) = (wnd.try_into().ok()?, max_wnd.try_into().ok()?);
        is_acknowledged.then_some(Self { iss, una_offset, wnd, max_wnd, wl1, wl2, window_shift, peer_mss })
    }

    fn resume(self) -> SendSpace {
        let Self { iss, una_offset, wnd, max_wnd, wl1, wl2, window_shift, peer_mss } = self;
        let mut space = SendSpace { wl1, wl2, window_shift, peer_mss, una_offset, ..SendSpace::new(iss) };
        (space.una, space.nxt) = (space.seq(una_offset), space.seq(una_offset));
        (space.wnd, space.max_wnd) = (wnd as usize, max_wnd as usize);
        space
    }
}

impl Received {
    fn of(space: &ReceiveSpace) -> Option<Self> {
        let ReceiveSpace { irs, nxt, nxt_offset, edge, limit, last_ack_sent, window_shift } = *space;
        let is_told = nxt == last_ack_sent && nxt == space.seq(nxt_offset);
        is_told.then_some(Self { irs, nxt_offset, edge, limit, window_shift })
    }

    fn resume(self) -> ReceiveSpace {
        let Self { irs, nxt_offset, edge, limit, window_shift } = self;
        let mut space =
            ReceiveSpace { irs, nxt_offset, edge, limit, window_shift, ..ReceiveSpace::default() };
        (space.nxt, space.last_ack_sent) = (space.seq(nxt_offset), space.seq(nxt_offset));
        space
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever timers run.
    #[test]
    fn the_next_look_is_the_sooner_of_both() {
        let now = Instant::from_millis(10_000);
        let secrets = crate::tcp::Secrets { isn: SeqNumber(1), timestamp_offset: 0 };
        let ends = [1, 2].map(|port| std::net::SocketAddr::from(([192, 0, 2, 1], port)));
        let mut connection = Connection::connect(now, Config::default(), ends[0], ends[1], secrets);
        for state in [State::SynSent, State::Established] {
            connection.set_state(now, state);
            connection.silence.ends(now);
            for after in [0, 1, 999, 1_000, 1_001, 5_000] {
                connection.timers.stop_all();
                let sooner = |connection: &Connection| {
                    connection.poll_timeout().into_iter().chain(connection.rests_at()).min()
                };
                assert_eq!(connection.looks_at(), sooner(&connection));
                connection.timers.set(Timer::Retransmit, now + Duration::from_millis(after));
                assert_eq!(connection.looks_at(), sooner(&connection), "{state:?}, after {after} ms");
            }
        }
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Idle>() <= 424, "{}", size_of::<Idle>());
        assert!(size_of::<Connection>() > 4 * size_of::<Idle>(), "{}", size_of::<Connection>());
    }
}
