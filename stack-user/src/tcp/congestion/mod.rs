//! Congestion control: one trait, and an algorithm a file.
//!
//! # How to add an algorithm
//! One new file beside [`cubic`](self::Cubic)'s, with a type that implements [`CongestionControl`] and has a
//! `new(mss: usize)`; and one line in the list of `algorithms!` below, which names the file, the type, and what users
//! call it. The line makes it an [`Algorithm`]: it parses, prints, appears in help texts, and the tests that every
//! algorithm has to pass find it by themselves. Slow start with HyStart++, pacing, ECN and the validation of windows
//! that are not used (RFC 7661) lie around the algorithms, so that a new one has them without doing anything.

mod hystart;
mod rest;
mod slow_start;
#[cfg(test)]
pub(super) mod testing;
mod validation;

use core::{fmt, str::FromStr};

pub use rest::Rest;

use super::delivery_rate::Sample;
use crate::time::{Duration, Instant};

/// Declares the algorithms: file, type, variant, the name as Linux has it, and other names that are understood.
macro_rules! algorithms {
    ($($(#[$doc:meta])* $variant:ident => $file:ident::$controller:ident, $name:literal $(| $alias:literal)*;)*) => {
        $(mod $file; pub use $file::$controller;)*

        /// The algorithms to choose from.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Algorithm { $($(#[$doc])* $variant,)* }

        impl Algorithm {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// A controller for one connection.
            pub fn build(self, mss: usize) -> Box<dyn CongestionControl> {
                match self { $(Self::$variant => Box::new($controller::new(mss)),)* }
            }

            /// The name, as Linux has it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            fn by_name(name: &str) -> Option<Self> {
                match name { $($name $(| $alias)* => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

algorithms! {
    /// RFC 9438: what Linux, Windows and macOS use.
    #[default]
    Cubic => cubic::Cubic, "cubic";
    /// RFC 5681, RFC 6582.
    NewReno => reno::Reno, "reno" | "newreno";
    /// draft-ietf-ccwg-bbr (BBRv3): a model of the path instead of a window that losses make smaller.
    Bbr => bbr::Bbr, "bbr";
}

impl Algorithm {
    /// A controller for one connection whose windows have to be used (RFC 7661). `paced` tells whether what may be sent
    /// leaves spread over the round trip.
    pub fn build_validated(self, mss: usize, paced: bool) -> Box<dyn CongestionControl> {
        Box::new(validation::Validated::new(self.build(mss), paced))
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The text names no algorithm.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no congestion control algorithm; there are: {names}", names = Names)]
pub struct ParseAlgorithmError(String);

struct Names;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, algorithm) in Algorithm::ALL.iter().enumerate() {
            write!(f, "{}{algorithm}", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Algorithm {
    type Err = ParseAlgorithmError;

    fn from_str(name: &str) -> Result<Self, ParseAlgorithmError> {
        Self::by_name(name).ok_or_else(|| ParseAlgorithmError(name.to_owned()))
    }
}

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
    /// More than was in flight when the last round trip began is acknowledged: a new one begins with this ACK.
    pub round_start: bool,
    /// The window was what limited the sender: only then may it grow (RFC 7661 §4.4).
    pub cwnd_limited: bool,
    /// What may be sent leaves spread over the round trip, and not at once.
    pub paced: bool,
}

/// What an ACK tells of the path, during recovery as at all times.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// When the ACK came.
    pub now: Instant,
    /// Bytes that it newly acknowledges, in order or by SACK.
    pub bytes: usize,
    /// Bytes that were delivered since the connection was opened; what `sample` has is counted like this.
    pub total: u64,
    /// Bytes in flight after it.
    pub in_flight: usize,
    /// How fast the network delivered, if the ACK tells.
    pub sample: Option<Sample>,
    /// Bytes that were lost since that segment was sent which the sample was taken of.
    pub lost_since_sent: usize,
    /// The round trip of the segment that was sent last among those that are acknowledged, if it was sent once.
    pub rtt: Option<Duration>,
    /// What was found to be lost since the last ACK.
    pub lost: Option<Lost>,
    /// The window was full at some time during the last round trip.
    pub cwnd_limited: bool,
    /// Losses are being repaired.
    pub recovering: bool,
    /// The peer tells what arrives out of order: more than one loss can be found in a round trip.
    pub sack: bool,
}

/// What was found to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Bytes.
    pub bytes: usize,
    /// Bytes that were in flight when the last of them was sent, itself included.
    pub in_flight: usize,
    /// Bytes that were lost since it was sent, `bytes` included.
    pub since_sent: usize,
    /// The application limited the sender then.
    pub app_limited: bool,
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
/// The recovery code calls this: it says what happened, the algorithm says how large the window is. There are two kinds
/// of algorithms. To most a loss is congestion: during fast recovery how much is sent is proportional rate reduction's
/// business (RFC 9937), and [`on_ack`](Self::on_ack) is not called; after a time-out the window grows again (slow
/// start). Others have a model of the path that [`on_delivered`](Self::on_delivered) feeds at all times; they say so by
/// [`is_reduced_by_loss`](Self::is_reduced_by_loss).
pub trait CongestionControl: BoxClone + fmt::Debug + Send {
    /// The algorithm's name for statistics, as Linux calls it.
    fn name(&self) -> &'static str;

    /// The congestion window.
    fn cwnd(&self) -> usize;

    /// The slow-start threshold; `usize::MAX` before the first congestion.
    fn ssthresh(&self) -> usize;

    /// New data was acknowledged.
    fn on_ack(&mut self, acked: &Acked);

    /// An ACK has told of what arrived or got lost: called for each that does, in recovery, too, after all else that
    /// the ACK leads to but [`on_ack`](Self::on_ack).
    fn on_delivered(&mut self, _delivered: &Delivered) {}

    /// Whether a loss by itself makes the window smaller: then proportional rate reduction says how much is sent until
    /// it is repaired. If not, the window says it, as always.
    fn is_reduced_by_loss(&self) -> bool {
        true
    }

    /// Congestion was found: once per window of data (RFC 5681 §3.2). What it takes to undo this is remembered.
    fn on_congestion(&mut self, now: Instant, signal: Signal, in_flight: usize);

    /// The last congestion was none: what was taken for lost had only been late (RFC 4015, RFC 5682). Puts window and
    /// threshold back to what they were, if they are not larger by now.
    fn on_spurious(&mut self, now: Instant);

    /// The recovery from a loss has ended, and so many bytes had to be sent again. Told only if the window had not been
    /// used before (RFC 7661 §4.4.1): window-based algorithms then make it as small as if these had not been in flight.
    fn on_recovered(&mut self, _repaired: usize) {}

    /// Sending goes on after a pause: all was acknowledged, and nothing was sent for `idle`. If that is longer than
    /// `rto`, what was known of the path is out of date (RFC 5681 §4.1).
    fn on_idle(&mut self, now: Instant, idle: Duration, rto: Duration);

    /// Half of the window or more was not used for minutes (RFC 7661 §4.4.3). Window-based algorithms give half of it up,
    /// as far as IW, and remember three quarters as the threshold.
    fn on_unused(&mut self) {}

    /// The largest payload became another (RFC 5681 calls it SMSS).
    fn set_mss(&mut self, mss: usize);

    /// Start with one segment: the SYN was lost more than once (RFC 6928 §2), or the timer expired again for data that
    /// had been retransmitted (RFC 5681 §3.1: the threshold stays).
    fn restart_from_one_segment(&mut self);

    /// The rate to send at, in bytes per second, if the algorithm knows better than a window per round trip.
    fn pacing_rate(&self) -> Option<u64> {
        None
    }

    /// What there is to remember while all is acknowledged and nothing is sent, if that is little. If it is `None`, the
    /// controller is kept as it is.
    fn rest(&self) -> Option<Rest> {
        None
    }

    /// Goes on where a controller like this one had come to [`rest`](Self::rest).
    fn resume(&mut self, _rest: &Rest) {}
}

/// Makes another of the same: whoever looks at a connection that rests looks at a copy.
pub trait BoxClone {
    /// A copy.
    fn boxed(&self) -> Box<dyn CongestionControl>;
}

impl<T: CongestionControl + Clone + 'static> BoxClone for T {
    fn boxed(&self) -> Box<dyn CongestionControl> {
        Box::new(self.clone())
    }
}

impl Clone for Box<dyn CongestionControl> {
    fn clone(&self) -> Self {
        (**self).boxed()
    }
}

/// IW (RFC 6928 §2): ten segments, or less if they are large.
pub fn initial_window(mss: usize) -> usize {
    (10 * mss).min((2 * mss).max(14_600))
}

/// The window for segments of another size. Smaller ones would leave in a larger burst, so their number stays
/// (RFC 5681 §3.1); larger ones are no reason to have more bytes in flight (RFC 4821 §7.6.4).
fn shrink_with_mss(cwnd: usize, old: usize, new: usize) -> usize {
    if new < old { (cwnd / old.max(1)).max(1) * new } else { cwnd.max(new) }
}

#[cfg(test)]
mod tests;
