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
    /// Bytes that it newly acknowledges, in order.
    pub bytes: usize,
    /// Bytes that were in flight before it.
    pub in_flight: usize,
    /// The smoothed round trip, once known.
    pub srtt: Option<Duration>,
}

/// Decides how much may be in flight. All quantities are bytes.
///
/// The recovery code calls this: it says what happened, the algorithm says how large the window is. While lost data is
/// being repaired the window stays as `on_congestion` or `on_timeout` left it, except that after a time-out it grows
/// again (slow start).
pub trait CongestionControl: fmt::Debug + Send {
    /// The algorithm's name for statistics.
    fn name(&self) -> &'static str;

    /// The congestion window.
    fn cwnd(&self) -> usize;

    /// The slow-start threshold.
    fn ssthresh(&self) -> usize;

    /// New data was acknowledged, and the window was what limited the sender (RFC 7661 §4.3: a window that is not
    /// used says nothing, so it doesn't grow).
    fn on_ack(&mut self, acked: Acked);

    /// A loss was found by duplicate ACKs or SACK: once per window of data (RFC 5681 §3.2).
    fn on_congestion(&mut self, now: Instant, in_flight: usize);

    /// The retransmission timer expired for data that had not been retransmitted before (RFC 5681 §3.1).
    fn on_timeout(&mut self, now: Instant, in_flight: usize);

    /// Nothing was sent for longer than RTO (RFC 5681 §4.1).
    fn on_idle(&mut self);

    /// The largest payload became another (RFC 5681 calls it SMSS).
    fn set_mss(&mut self, mss: usize);

    /// Start with one segment: the SYN was lost more than once (RFC 6928 §2), or the timer expired again for data that
    /// had been retransmitted (RFC 5681 §3.1: the threshold stays).
    fn restart_from_one_segment(&mut self);
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
