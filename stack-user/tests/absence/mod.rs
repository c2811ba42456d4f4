//! What requests wait for when cores are away at times and no stack takes any time: the arithmetic of `benches/absence.rs`.

use std::time::Duration;

/// A core was away from here to there, both from the beginning. Those of a core are in order, and none overlaps the next.
pub(crate) type Gap = (Duration, Duration);

/// How late each request is answered that is due at that rate for so long: it needs the client's core, the server's, and the
/// client's again.
pub(crate) fn delays(client: &[Gap], server: &[Gap], time: Duration, rate: u64) -> Vec<Duration> {
    let due = |k: u64| Duration::from_nanos(k * 1_000_000_000 / rate);
    let requests = (0..).map(due).take_while(|&due| due < time);
    requests.map(|due| back(client, back(server, back(client, due))) - due).collect()
}

/// When a core is there, at this time or after it.
pub(crate) fn back(gaps: &[Gap], at: Duration) -> Duration {
    let next = gaps.partition_point(|&(_, to)| to <= at);
    gaps.get(next).filter(|&&(from, _)| from <= at).map_or(at, |&(_, to)| to)
}

/// What so large a part of them does not exceed; zero if there are none.
pub(crate) fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let at = (sorted.len() as f64 * part) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
