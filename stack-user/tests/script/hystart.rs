//! HyStart++ (RFC 9406): the first slow start, seen from outside.

use crate::dsl::{Script, config, sack_options, seg};
use stack_user::tcp::options::Options;

/// With a peer whose window is no limit.
fn established() -> Script {
    let mut s = Script::established(config(), Options { window_scale: Some(7), ..sack_options() });
    s.inject(seg(".").seq(0).ack(0).window(1 << 20));
    s
}

/// A round trip of `rtt_ms` in which all of the window is sent, and every segment acknowledged; returns the window.
fn round(s: &mut Script, at: &mut i64, rtt_ms: u64) -> usize {
    while s.info().unacknowledged < 120_000 {
        s.write(10_000);
    }
    let sent = s.drain();
    s.advance(rtt_ms);
    for _ in 0..sent {
        *at += 1000;
        s.inject(seg(".").seq(0).ack(*at).window(1 << 20));
    }
    s.info().cwnd
}

#[test]
fn a_steady_round_trip_doubles_the_window_rfc9406_4_2() {
    let (mut s, mut at) = (established(), 0);
    let windows = [20, 20, 23].map(|rtt_ms| round(&mut s, &mut at, rtt_ms));
    assert_eq!(windows, [20_000, 40_000, 80_000], "3 ms more are jitter");
    s.finish();
}

/// RFC 9406 §4.2: the eighth sample of a round tells; what is acknowledged from then on counts a quarter.
#[test]
fn a_longer_round_trip_slows_the_growth_and_a_shorter_one_resumes_it_rfc9406_4_2() {
    let (mut s, mut at) = (established(), 0);
    assert_eq!(round(&mut s, &mut at, 20), 20_000);
    assert_eq!(round(&mut s, &mut at, 30), 20_000 + 7_000 + 13 * 250, "CSS");
    assert_eq!(round(&mut s, &mut at, 30), 30_250 + 30 * 250, "still CSS");
    // Below what the round trip was when it had risen: that was no queue.
    assert_eq!(round(&mut s, &mut at, 21), 37_750 + 7 * 250 + 30_000, "slow start again");
    assert_eq!(s.info().ssthresh, usize::MAX);
    // It can begin anew.
    let before = s.info().cwnd;
    let acked = before / 1000;
    assert_eq!(round(&mut s, &mut at, 40), before + 7_000 + (acked - 7) * 250, "CSS again");
    s.finish();
}

#[test]
fn five_rounds_of_a_longer_round_trip_end_slow_start_rfc9406_4_2() {
    let (mut s, mut at) = (established(), 0);
    round(&mut s, &mut at, 20);
    for _ in 0..5 {
        assert_eq!(s.info().ssthresh, usize::MAX);
        round(&mut s, &mut at, 30);
    }
    let window = s.info().cwnd;
    assert_eq!(s.info().ssthresh, usize::MAX, "the fifth round has not ended yet");
    round(&mut s, &mut at, 30);
    assert_eq!((s.info().ssthresh, s.info().cwnd), (window, window), "not a segment more in this round");
    assert_eq!(round(&mut s, &mut at, 30), window + 1000, "congestion avoidance");
    s.finish();
}

/// RFC 9406 §4.2: a loss ends it at once, as it ends any slow start.
#[test]
fn a_loss_ends_conservative_slow_start_rfc9406_4_2() {
    let (mut s, mut at) = (established(), 0);
    round(&mut s, &mut at, 20);
    let window = round(&mut s, &mut at, 30);
    s.drain();
    s.advance(30);
    s.inject(seg(".").seq(0).ack(at).window(1 << 20).sack(&[(at + 1000, at + 4000)]));
    assert_eq!(s.info().ssthresh, window / 1000 * 1000 / 2, "half of the flight");
    s.finish();
}

/// RFC 9406 §4.3: later slow starts know where to stop.
#[test]
fn after_a_timeout_slow_start_is_the_standard_one_rfc9406_4_3() {
    let (mut s, mut at) = (established(), 0);
    round(&mut s, &mut at, 20);
    round(&mut s, &mut at, 20);
    let sent = s.drain() as i64;
    while s.info().timeouts == 0 {
        s.advance_to_timer();
        s.drain();
    }
    at += sent * 1000;
    s.inject(seg(".").seq(0).ack(at + 1000).window(1 << 20));
    at += 1000;
    let mut windows = vec![s.info().cwnd];
    for rtt_ms in [30, 60, 90] {
        windows.push(round(&mut s, &mut at, rtt_ms));
    }
    let doubled = |pair: &[usize]| pair[1] / 1000 == (2 * (pair[0] / 1000)).min(20);
    assert!(windows.windows(2).all(doubled), "whatever the round trip does: {windows:?}");
    s.finish();
}
