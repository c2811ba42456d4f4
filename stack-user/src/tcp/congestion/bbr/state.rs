//! The states (draft-ietf-ccwg-bbr §5.1), and how fast and how much each sends (§5.6.1).

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Twice as fast with each round trip, until the pipe is full.
    Startup,
    /// The queue that came of it goes.
    Drain,
    /// ProbeBW_DOWN: slower than the path, so that the queue goes and others find room.
    Down,
    /// ProbeBW_CRUISE: as fast as the path.
    Cruise,
    /// ProbeBW_REFILL: the pipe is filled before more is tried, so that it is that which fails, if anything.
    Refill,
    /// ProbeBW_UP: is there more?
    Up,
    /// Little is in flight, so that the round trip without a queue shows.
    ProbeRtt,
}

impl State {
    /// BBR.pacing_gain. 4 ln 2 is what doubles the rate in a round trip; half empties in one what Startup leaves behind.
    pub(super) fn pacing_gain(self) -> u64 {
        match self {
            Self::Startup => 277,
            Self::Drain => 50,
            Self::Down => 90,
            Self::Cruise | Self::Refill | Self::ProbeRtt => 100,
            Self::Up => 125,
        }
    }

    /// BBR.cwnd_gain. Pacing says how fast is sent; the window has to leave room for ACKs that are late.
    pub(super) fn cwnd_gain(self) -> u64 {
        match self {
            Self::Up => 225,
            Self::ProbeRtt => 50,
            _ => 200,
        }
    }

    pub(super) fn is_probe_bw(self) -> bool {
        matches!(self, Self::Down | Self::Cruise | Self::Refill | Self::Up)
    }

    /// Whether more is tried than is known to fit (IsProbingBW): a loss is then no news of the path.
    pub(super) fn is_probing(self) -> bool {
        matches!(self, Self::Startup | Self::Refill | Self::Up)
    }
}
