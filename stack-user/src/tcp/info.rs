//! What is known of a connection (RFC 9293 §3.10.6), in the manner of Linux's TCP_INFO.

use super::{Connection, State, Unreachable, recovery::Phase, timer::Timers};
use crate::time::Duration;

/// What is known of a connection, for statistics and for whoever wonders why it is slow. Sizes are in bytes, windows
/// are scaled. It holds no pointer, so that taking one costs a copy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Info {
    /// The state.
    pub state: State,

    /// SRTT, once measured (RFC 6298 §2).
    pub srtt: Option<Duration>,
    /// RTTVAR, once measured.
    pub rttvar: Option<Duration>,
    /// The smallest round trip, once measured.
    pub min_rtt: Option<Duration>,
    /// The latest round trip, once measured.
    pub latest_rtt: Option<Duration>,
    /// RTO, backed off.
    pub rto: Duration,
    /// How often RTO has been doubled since the last round trip was measured (RFC 6298 §5.5).
    pub backoff: u32,

    /// The congestion control algorithm.
    pub congestion: &'static str,
    /// The congestion window in bytes.
    pub cwnd: usize,
    /// The slow-start threshold in bytes; `usize::MAX` before the first loss.
    pub ssthresh: usize,
    /// What is sent at most, in bytes per second, if it is paced and a round trip was measured.
    pub pacing_rate: Option<u64>,
    /// Bytes that are believed to be on their way (RFC 6675 §4, pipe).
    pub in_flight: usize,
    /// Bytes that were sent and are not acknowledged in order.
    pub outstanding: usize,
    /// Of these, bytes that the peer says by SACK to have.
    pub sacked: usize,
    /// Of these, bytes that are believed lost, and were not sent again since.
    pub lost: usize,
    /// How loss recovery fares.
    pub recovery: Phase,

    /// The largest payload that we send: Eff.snd.MSS (RFC 9293 §3.7.1).
    pub mss: usize,
    /// The largest payload that we expect.
    pub receive_mss: usize,
    /// The largest packet that the path is known to carry, IP header included: no more than our link's MTU and what the
    /// peer's MSS allows.
    pub path_mtu: usize,
    /// The peer's window in bytes.
    pub send_window: usize,
    /// The largest window that the peer has offered, in bytes.
    pub max_send_window: usize,
    /// Our window in bytes.
    pub receive_window: usize,
    /// Window scaling is in use, with these shifts: the peer's, ours (RFC 7323 §2).
    pub window_shifts: (u8, u8),
    /// SACK is in use.
    pub sack: bool,
    /// Explicit congestion notification is in use.
    pub ecn: bool,
    /// Timestamps are in use.
    pub timestamps: bool,

    /// Bytes to read.
    pub readable: usize,
    /// Bytes that may wait to be read: it grows with what the application takes in a round trip.
    pub receive_buffer: usize,
    /// Bytes written that are not acknowledged, sent or not.
    pub unacknowledged: usize,
    /// Bytes written that were never sent.
    pub unsent: usize,
    /// Bytes that may wait for their acknowledgement: it grows with the congestion window.
    pub send_buffer: usize,

    /// Segments sent, of any kind.
    pub segments_sent: u64,
    /// Segments received, of any kind.
    pub segments_received: u64,
    /// Bytes that the peer has acknowledged.
    pub bytes_acked: u64,
    /// Bytes that came in order.
    pub bytes_received: u64,
    /// Segments sent again.
    pub retransmissions: u64,
    /// Times that the retransmission timer expired.
    pub timeouts: u64,
    /// Segments that came out of order.
    pub out_of_order: u64,
    /// Sequence numbers that the peer has told to have, in order or not.
    pub delivered: u64,
    /// How fast the network delivered lately, in bytes per second, once known (draft-ietf-ccwg-bbr §4.1).
    pub delivery_rate: Option<u64>,
    /// That was the application's rate, and the path may be faster.
    pub delivery_rate_app_limited: bool,
    /// Segments that were marked as lost.
    pub segments_lost: u64,
    /// DSACKs that came (RFC 2883).
    pub dsacks: u64,
    /// Reductions of the window that were undone (RFC 4015).
    pub undone: u64,
    /// Tail loss probes sent (RFC 8985 §7).
    pub probes: u64,
    /// Our segments are known to overtake each other (RFC 8985 §5.3).
    pub reordering_seen: bool,
    /// How long one that was overtaken is waited for (RFC 8985 §5.3).
    pub reo_wnd: Duration,
    /// Window probes since the peer's window was last open.
    pub window_probes: u32,

    /// The latest ICMP error that ended nothing, since the connection was established (RFC 9293 §3.9.2.2, SHLD-25).
    pub soft_error: Option<Unreachable>,
    /// Bytes to read up to the end of urgent data (RFC 9293 §3.8.5).
    pub urgent_ahead: usize,

    /// The timers that run, and when each expires.
    pub timers: Timers,
}

/// Counters for [`Info`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) segments_sent: u64,
    pub(super) segments_received: u64,
    pub(super) bytes_acked: u64,
    pub(super) bytes_received: u64,
    pub(super) retransmissions: u64,
    pub(super) timeouts: u64,
    pub(super) out_of_order: u64,
}

impl Connection {
    /// Statistics.
    pub fn info(&self) -> Info {
        let Self { rtt, congestion, send, snd, rcv, counts, .. } = self;
        let mss = self.layout().mss;
        let delivery_rate = self.recovery.delivery_rate();
        Info {
            state: self.state,
            srtt: rtt.srtt(),
            rttvar: rtt.rttvar(),
            min_rtt: rtt.min(),
            latest_rtt: rtt.latest(),
            rto: rtt.rto(),
            backoff: rtt.backoff(),
            congestion: congestion.name(),
            cwnd: congestion.cwnd(),
            ssthresh: congestion.ssthresh(),
            pacing_rate: self.bytes_per_second(),
            in_flight: self.recovery.pipe(send, mss),
            outstanding: send.outstanding(),
            sacked: send.sacked(),
            lost: send.lost(),
            recovery: self.recovery.phase(),
            mss,
            receive_mss: self.receive_mss(),
            path_mtu: self.path_mtu(),
            send_window: snd.wnd,
            max_send_window: snd.max_wnd,
            receive_window: rcv.wnd(),
            window_shifts: (snd.window_shift, rcv.window_shift),
            sack: self.sack_enabled,
            ecn: self.ecn.is_on(),
            timestamps: self.timestamps.enabled,
            readable: self.recv.len(),
            receive_buffer: self.autotune.receive_buffer(),
            unacknowledged: send.bytes(),
            unsent: send.bytes().saturating_sub(send.outstanding()),
            send_buffer: self.autotune.send_buffer(),
            segments_sent: counts.segments_sent,
            segments_received: counts.segments_received,
            bytes_acked: counts.bytes_acked,
            bytes_received: counts.bytes_received,
            retransmissions: counts.retransmissions,
            timeouts: counts.timeouts,
            out_of_order: counts.out_of_order,
            delivered: self.recovery.delivered(),
            delivery_rate: delivery_rate.map(|(rate, _)| rate),
            delivery_rate_app_limited: delivery_rate.is_some_and(|(_, app_limited)| app_limited),
            segments_lost: self.recovery.segments_lost(),
            dsacks: self.recovery.dsacks(),
            undone: self.recovery.undone(),
            probes: self.recovery.probes(),
            reordering_seen: self.recovery.reordering_seen(),
            reo_wnd: self.recovery.reo_wnd(),
            window_probes: self.persist.probes(),
            soft_error: self.soft_error,
            urgent_ahead: self.urgent_ahead(),

            timers: self.timers.clone(),
        }
    }
}
