//! Windows that are not used (RFC 7661), seen from outside.

use crate::dsl::{Script, config, sack_options, seg};
use stack_user::{
    tcp::{Config, options::Options, recovery::Phase},
    time::Duration,
};

const WINDOW: u32 = 1 << 20;

/// The window has grown from 10 to 160 segments, a little less with pacing, and all of it was used, in round trips of
/// 10 ms.
fn grown(config: Config) -> (Script, i64) {
    let mut s = Script::established(config, Options { window_scale: Some(7), ..sack_options() });
    s.inject(seg(".").seq(0).ack(0).window(WINDOW));
    let mut at = 0;
    for window in [10, 20, 40, 80] {
        s.write(window * 1000 + 1000);
        at = send(&mut s, at, 0, window as i64);
    }
    // What was left over each time, so that the window and not the application was the limit.
    at = send(&mut s, at, 0, 4);
    assert_eq!(s.info().unacknowledged, 0);
    assert!(s.info().cwnd == 160_000 || s.info().pacing_rate.is_some());
    (s, at)
}

/// The application writes, so many segments leave, whenever pacing lets them, and are acknowledged one by one after
/// 10 ms. Returns the next sequence number.
fn send(s: &mut Script, at: i64, written: usize, segments: i64) -> i64 {
    s.write(written * 1000);
    let mut sent = s.drain() as i64;
    while sent < segments {
        s.advance_to_timer();
        sent += s.drain() as i64;
    }
    s.advance(10);
    for i in 1..=segments {
        s.inject(seg(".").seq(0).ack(at + i * 1000).window(WINDOW));
    }
    at + segments * 1000
}

/// For so long, the application sends so many segments in every 100 ms.
fn trickle(s: &mut Script, mut at: i64, segments: usize, time: Duration) -> i64 {
    let end = s.now + time;
    while s.now < end {
        at = send(s, at, segments, segments as i64);
        s.advance(90);
    }
    at
}

/// RFC 7661 §4.4.2: in return, what follows leaves paced.
#[test]
fn a_pause_costs_nothing_for_five_minutes_and_then_half_rfc7661_4_4_3() {
    for (seconds, divisor) in [(299, 1), (301, 2), (601, 4)] {
        let (mut s, at) = grown(Config { pacing: true, ..config() });
        let window = s.info().cwnd;
        s.advance(seconds * 1000);
        s.write(200_000);
        let at_once = s.drain();
        assert_eq!(s.info().cwnd, window / divisor, "after {seconds} s");
        let limit = 10 + window / divisor / 2000;
        assert!(at_once < limit, "{at_once} segments leave at once: more than IW and what pacing adds");
        s.inject(seg(".").seq(0).ack(at + 1000).window(WINDOW));
        s.finish();
    }
}

/// RFC 5681 §4.1: without pacing, a pause of more than RTO is a new beginning.
#[test]
fn without_pacing_a_pause_leaves_iw_rfc5681_4_1() {
    let (mut s, _) = grown(config());
    s.advance(1_000);
    s.write(100_000);
    assert_eq!(s.drain(), 10);
    assert_eq!(s.info().cwnd, 10_000);
    s.finish();
}

#[test]
fn who_sends_little_keeps_the_window_for_five_minutes_and_does_not_grow_it_rfc7661_4_4() {
    let (mut s, mut at) = grown(config());
    at = trickle(&mut s, at, 4, Duration::from_secs(290));
    assert_eq!(s.info().cwnd, 160_000);
    at = trickle(&mut s, at, 4, Duration::from_secs(20));
    assert_eq!(s.info().cwnd, 80_000, "RFC 7661 §4.4.3");
    // Used again, it grows again.
    for _ in 0..2 {
        at = send(&mut s, at, 81, 80);
        at = send(&mut s, at, 0, 1);
    }
    assert!(s.info().cwnd > 80_000, "{}", s.info().cwnd);
    s.finish();
}

/// RFC 7661 §4.4.1: at first, half of what was in flight; when all is repaired, half of that without what was lost.
#[test]
fn a_loss_in_a_window_that_was_not_used_takes_what_was_lost_off_rfc7661_4_4_1() {
    let (mut s, mut at) = grown(config());
    at = trickle(&mut s, at, 20, Duration::from_secs(3));
    s.write(40_000);
    assert_eq!(s.drain(), 40);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(at).window(WINDOW).sack(&[(at + 4000, at + 10_000)]));
    assert_eq!((s.info().recovery, s.info().cwnd), (Phase::FastRecovery, 20_000));
    s.drain();
    s.inject(seg(".").seq(0).ack(at).window(WINDOW).sack(&[(at + 4000, at + 40_000)]));
    assert!(s.drain() > 0);
    assert_eq!(s.info().retransmissions, 4);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(at + 40_000).window(WINDOW));
    let info = s.info();
    assert_eq!((info.recovery, info.cwnd, info.ssthresh), (Phase::Open, 18_000, 18_000));
    s.finish();
}

/// RFC 7661 §4.4.1: what was borne before counts, if less is in flight when the loss is found.
#[test]
fn a_small_flight_does_not_make_a_small_window_rfc7661_4_4_1() {
    let (mut s, mut at) = grown(config());
    at = trickle(&mut s, at, 20, Duration::from_secs(3));
    s.write(5000);
    assert_eq!(s.drain(), 5);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(at).window(WINDOW).sack(&[(at + 1000, at + 5000)]));
    assert_eq!(s.info().cwnd, 10_000, "half of the 20 of a round trip, not of 5");
    assert_eq!(s.drain(), 1);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(at + 5000).window(WINDOW));
    assert_eq!((s.info().recovery, s.info().cwnd), (Phase::Open, 9_500), "half of 20 - 1");
    s.finish();
}

/// A window that was used is reduced as ever, whatever is repaired.
#[test]
fn a_loss_in_a_window_that_was_used_is_as_ever_rfc7661_4_4_1() {
    let (mut s, mut at) = grown(config());
    at = send(&mut s, at, 160, 160);
    let window = s.info().cwnd;
    s.write(250_000);
    let sent = s.drain() as i64;
    s.advance(10);
    s.inject(seg(".").seq(0).ack(at).window(WINDOW).sack(&[(at + 4000, at + sent * 1000)]));
    s.drain();
    s.advance(10);
    s.inject(seg(".").seq(0).ack(at + sent * 1000).window(WINDOW));
    assert_eq!((s.info().recovery, s.info().cwnd), (Phase::Open, window / 1000 * 1000 / 2));
    s.finish();
}

/// RFC 7661 §4.4: a time-out is what it always is (RFC 5681 §3.1).
#[test]
fn a_timeout_in_a_window_that_was_not_used_is_as_ever_rfc7661_4_4() {
    let (mut s, mut at) = grown(config());
    at = trickle(&mut s, at, 20, Duration::from_secs(3));
    s.write(6000);
    assert_eq!(s.drain(), 6);
    while s.info().timeouts == 0 {
        s.advance_to_timer();
        s.drain();
    }
    assert_eq!((s.info().cwnd, s.info().ssthresh), (1000, 3000));
    s.inject(seg(".").seq(0).ack(at + 6000).window(WINDOW));
    s.finish();
}
