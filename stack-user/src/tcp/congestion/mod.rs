//! Congestion control: one trait, and an algorithm a file.

mod reno;

use core::fmt;

pub use reno::Reno;

use crate::time::{Duration, Instant};

/// What an ACK tells an algorithm.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// When the ACK came.
    pub now: Instant,
    /// Bytes that it newly acknowledges, in order or by SACK.
    pub bytes: usize,
    /// Bytes that were in flight before it.
    pub in_flight: usize,
    /// The round trip that this ACK measured, if it measured one.
    pub rtt: Option<Duration>,
    /// The smoothed round trip, once known.
    pub srtt: Option<Duration>,
    /// All that was in flight when the round started is acknowledged: a new round trip begins with this ACK.
    pub round_start: bool,
    /// The window was what limited the sender: only then may it grow (RFC 7661 §4.3).
    pub cwnd_limited: bool,
}

/// What told of congestion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// A loss that RACK, SACK or duplicate ACKs found.
    Loss,
    /// The peer echoes a CE mark (RFC 3168 §6.1.2).
    Ecn,
    /// The retransmission timer expired for data that had not been retransmitted before (RFC 5681 §3.1).
    Timeout,
}

/// Decides how much may be in flight. All quantities are bytes.
///
/// The recovery code calls this: it says what happened, the algorithm says how large the window is. During fast
/// recovery how much is sent is proportional rate reduction's business (RFC 9937), and `on_ack` is not called; after a
/// time-out the window grows again (slow start).
pub trait CongestionControl: fmt::Debug + Send {
    /// The algorithm's name for statistics, as Linux calls it.
    fn name(&self) -> &'static str;

    /// The congestion window.
    fn cwnd(&self) -> usize;

    /// The slow-start threshold; `usize::MAX` before the first congestion.
    fn ssthresh(&self) -> usize;

    /// New data was acknowledged.
    fn on_ack(&mut self, acked: &Acked);

    /// Congestion was found: once per window of data (RFC 5681 §3.2). What it takes to undo this is remembered.
    fn on_congestion(&mut self, now: Instant, signal: Signal, in_flight: usize);

    /// The last congestion was none: what was taken for lost had only been late (RFC 4015, RFC 5682). Puts window and
    /// threshold back to what they were, if they are not larger by now.
    fn on_spurious(&mut self, now: Instant);

    /// Nothing was sent for `idle`, which is longer than RTO (RFC 5681 §4.1, RFC 7661 §4.4).
    fn on_idle(&mut self, now: Instant, idle: Duration, rto: Duration);

    /// The largest payload became another (RFC 5681 calls it SMSS).
    fn set_mss(&mut self, mss: usize);

    /// Start with one segment: the SYN was lost more than once (RFC 6928 §2), or the timer expired again for data that
    /// had been retransmitted (RFC 5681 §3.1: the threshold stays).
    fn restart_from_one_segment(&mut self);

    /// The rate to send at, in bytes per second, if the algorithm knows better than a window per round trip.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }
}

/// The algorithms to choose from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// RFC 5681, RFC 6582.
    #[default]
    NewReno,
}

impl Algorithm {
    /// A controller for one connection.
    pub fn build(self, mss: usize) -> Box<dyn CongestionControl> {
        match self {
            Self::NewReno => Box::new(Reno::new(mss)),
        }
    }
}

/// IW (RFC 6928 §2): ten segments, or less if they are large.
pub fn initial_window(mss: usize) -> usize {
    (10 * mss).min((2 * mss).max(14_600))
}
