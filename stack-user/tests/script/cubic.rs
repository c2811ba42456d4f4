//! CUBIC (RFC 9438), seen from outside.

use crate::dsl::{Script, sack_options, seg};
use stack_user::{tcp::Config, time::Duration};

/// A peer that acknowledges every segment a round trip of `rtt_ms` after it was sent, for `rounds` round trips.
fn bulk(s: &mut Script, at: &mut i64, rtt_ms: u64, rounds: usize) {
    for _ in 0..rounds {
        let sent = drain(s);
        s.advance(rtt_ms);
        for _ in 0..sent {
            *at += 1000;
            s.inject(seg(".").seq(0).ack(*at));
        }
    }
}

/// Keeps the send buffer full, and counts the segments that are sent now.
fn drain(s: &mut Script) -> usize {
    while s.info().unacknowledged < 100_000 {
        s.write(10_000);
    }
    s.drain()
}

#[test]
fn it_is_what_a_connection_has_if_nothing_is_chosen() {
    let s = Script::established(Config::default(), sack_options());
    assert_eq!(s.info().congestion, "cubic");
    s.finish();
}

#[test]
fn a_loss_leaves_seven_tenths_and_the_window_comes_back_rfc9438_4_6() {
    let mut s = Script::established(Config { pacing: false, ..Config::default() }, sack_options());
    let mut at = 0;
    bulk(&mut s, &mut at, 100, 2);
    let before = s.info().cwnd;
    assert_eq!(before, 40_000, "slow start");
    drain(&mut s);
    s.inject(seg(".").seq(0).ack(at).sack(&[(at + 1000, at + 4000)]));
    let after = s.info();
    assert_eq!(after.ssthresh, 28_000);
    s.drain();
    s.advance(100);
    at += 40_000;
    s.inject(seg(".").seq(0).ack(at));
    let start = s.now;
    while s.info().cwnd < 40_000 {
        bulk(&mut s, &mut at, 100, 1);
    }
    // K is the cube root of 12 segments over 0.4: 3.1 s. Reno would add 12 segments in 12 round trips, and the
    // Reno-friendly window is 9/17 of that; so CUBIC is the faster.
    let took = s.now.since(start);
    assert!(took > Duration::from_millis(1_500) && took < Duration::from_millis(3_500), "{took:?}");
    s.finish();
}
