//! The event stream of one connection: what happened when, and why.
//!
//! Nobody listens by default, and then it costs one comparison. [`Connection::listen_in`] starts it;
//! [`Connection::poll_trace`] takes what has happened. What is not taken in time is lost, and counted.

use std::collections::VecDeque;

use super::{Connection, State};
use crate::{
    telemetry::DropReason,
    time::{Duration, Instant},
};

/// Events that wait to be taken. Fewer, and a listener that looks once per burst misses some; more, and one that has
/// forgotten to look holds memory.
const MAX_WAITING: usize = 1024;

/// Something that happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// When.
    pub at: Instant,
    /// What.
    pub kind: Kind,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// The state changed.
    State {
        /// Before.
        from: State,
        /// Now.
        to: State,
    },
    /// A segment was sent again.
    Retransmit {
        /// Stream offset of its first byte.
        start: u64,
        /// Sequence numbers that it takes.
        len: usize,
        /// Why.
        reason: RetransmitReason,
    },
    /// The congestion window changed other than by an ACK in the ordinary course of events.
    CongestionWindow {
        /// Bytes, before.
        from: usize,
        /// Bytes, now.
        to: usize,
        /// Why.
        reason: WindowReason,
    },
    /// A round trip was measured.
    RttSample {
        /// The round trip.
        rtt: Duration,
    },
    /// A segment of the peer was dropped.
    Drop {
        /// Why.
        reason: DropReason,
    },
}

/// Why a segment was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetransmitReason {
    /// Later segments were delivered (RFC 8985), or duplicate ACKs told of a loss (RFC 6582).
    Lost,
    /// The retransmission timer expired (RFC 6298).
    Timeout,
    /// To provoke an ACK at the end of a flight (RFC 8985 §7).
    TailLossProbe,
    /// The path carries less than the segment's size.
    SmallerMtu,
}

/// Why the congestion window changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WindowReason {
    /// A loss.
    Loss,
    /// A mark of ECN.
    Ecn,
    /// A retransmission time-out.
    Timeout,
    /// A recovery has ended.
    RecoveryDone,
    /// What had been taken for a loss was none.
    Undo,
    /// Nothing was sent for long.
    Idle,
}

/// Records that wait.
#[derive(Debug, Default)]
pub(super) struct Trace {
    waiting: VecDeque<Record>,
    lost: u64,
}

impl Connection {
    /// Starts the event stream, or ends it.
    pub fn listen_in(&mut self, listen: bool) {
        self.tracer = listen.then(|| self.tracer.take().unwrap_or_default());
    }

    /// Whether somebody listens.
    pub fn is_listened_to(&self) -> bool {
        self.tracer.is_some()
    }

    /// The oldest record that was not taken yet.
    pub fn poll_trace(&mut self) -> Option<Record> {
        self.tracer.as_mut()?.waiting.pop_front()
    }

    /// Records that were lost because nobody took them in time.
    pub fn trace_lost(&self) -> u64 {
        self.tracer.as_ref().map_or(0, |trace| trace.lost)
    }

    /// Notes what happened, if somebody listens.
    pub(super) fn trace(&mut self, at: Instant, kind: impl FnOnce() -> Kind) {
        if let Some(trace) = &mut self.tracer {
            if trace.waiting.len() >= MAX_WAITING {
                trace.waiting.pop_front();
                trace.lost += 1;
            }
            trace.waiting.push_back(Record { at, kind: kind() });
        }
    }
}
