//! Tail loss probes (RFC 8985 §7).

use crate::dsl::{Script, plain_options, sack_options, seg};
use stack_user::tcp::{Config, congestion::Algorithm, recovery::Phase};

/// SRTT is 10 ms, RTO 200 ms.
fn established() -> Script {
    let config = Config { congestion: Algorithm::NewReno, ..Config::default() };
    Script::established(config, sack_options())
}

fn send(s: &mut Script, at: i64, n: i64) {
    s.write(n as usize * 1000);
    for i in 0..n {
        s.expect(seg(".").seq(at + i * 1000).ack(0).len(1000));
    }
}

/// RFC 8985 §8: RTO does not expire before, nor at the same time.
#[test]
fn the_last_segment_is_sent_again_after_two_round_trips_rfc8985_7_2() {
    let mut s = established();
    send(&mut s, 0, 3);
    assert_eq!(s.advance_to_timer(), 20);
    s.expect(seg(".").seq(2000).ack(0).len(1000));
    s.expect_silence();
    let info = s.info();
    assert_eq!((info.probes, info.timeouts, info.recovery, info.cwnd), (1, 0, Phase::Open, 10_000));
    // RFC 8985 §7.3: RTO starts again; RFC 8985 §7.3 (1): no second probe.
    assert_eq!(s.advance_to_timer(), 200);
    s.expect(seg(".").seq(0).ack(0).len(1000));
    assert_eq!((s.info().probes, s.info().timeouts), (1, 1));
    s.finish();
}

#[test]
fn a_single_segment_gets_the_time_of_a_delayed_ack_up_to_rto_rfc8985_7_2() {
    let mut s = established();
    send(&mut s, 0, 1);
    assert_eq!(s.advance_to_timer(), 200, "2 SRTT and 200 ms, but no more than RTO");
    s.expect(seg(".").seq(0).ack(0).len(1000));
    assert_eq!((s.info().probes, s.info().timeouts), (1, 0));
    s.finish();
}

#[test]
fn new_data_is_the_better_probe_whatever_the_window_says_rfc8985_7_3() {
    let mut s = established();
    s.write(12_000);
    assert_eq!(s.drain(), 10);
    assert_eq!(s.advance_to_timer(), 20);
    s.expect(seg(".").seq(10_000).ack(0).len(1000));
    s.expect_silence();
    assert_eq!((s.info().probes, s.info().retransmissions), (1, 0));
    s.finish();
}

#[test]
fn each_ack_puts_the_probe_off_rfc8985_7_2() {
    let mut s = established();
    send(&mut s, 0, 4);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(1000));
    s.advance(19);
    s.expect_silence();
    s.advance(1);
    s.expect(seg(".").seq(3000).ack(0).len(1000));
    s.finish();
}

#[test]
fn an_ack_of_nothing_new_does_not_rfc8985_7_2() {
    let mut s = established();
    send(&mut s, 0, 4);
    for i in 0..3 {
        s.advance(5);
        s.inject(seg(".").seq(i).ack(0).data(b"x"));
        s.drain();
    }
    s.advance(5);
    s.expect(seg(".").seq(3000).len(1000));
    s.finish();
}

/// RFC 8985 §8: one timer at a time.
#[test]
fn no_probe_while_something_is_sacked_or_lost_rfc8985_7_2() {
    let mut s = established();
    send(&mut s, 0, 3);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 2000)]));
    s.advance(3);
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.advance(100);
    s.expect_silence();
    assert_eq!(s.info().probes, 0);
    s.finish();
}

/// RFC 8985 §4 (1), §4 (4): nor is there RACK.
#[test]
fn without_sack_there_is_no_probe_rfc8985_7_2() {
    let mut s = Script::established(Config::default(), plain_options());
    send(&mut s, 0, 3);
    assert_eq!(s.advance_to_timer(), 200);
    assert_eq!((s.info().probes, s.info().timeouts), (0, 1));
    s.finish();
}

#[test]
fn the_probes_sack_tells_what_was_lost_before_it_rfc8985_7_4_1() {
    let mut s = established();
    send(&mut s, 0, 4);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(1000));
    s.advance_to_timer();
    s.expect(seg(".").seq(3000).ack(0).len(1000));
    s.advance(10);
    s.inject(seg(".").seq(0).ack(1000).sack(&[(3000, 4000)]));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.advance(10);
    s.inject(seg(".").seq(0).ack(2000).sack(&[(3000, 4000)]));
    s.expect(seg(".").seq(2000).ack(0).len(1000));
    s.advance(10);
    s.inject(seg(".").seq(0).ack(4000));
    let info = s.info();
    assert_eq!((info.recovery, info.timeouts), (Phase::Open, 0));
    assert!(info.ssthresh < 10_000, "the window has shrunk");
    s.finish();
}

/// For congestion control it is a loss as any other.
#[test]
fn a_loss_that_the_probe_repaired_shrinks_the_window_rfc8985_7_4_2() {
    let mut s = established();
    send(&mut s, 0, 10);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(9000));
    s.advance_to_timer();
    s.expect(seg(".").seq(9000).ack(0).len(1000));
    s.advance(10);
    s.inject(seg(".").seq(0).ack(10_000));
    assert_eq!(s.info().ssthresh, usize::MAX, "not known yet");
    send(&mut s, 10_000, 8);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(12_000));
    assert_eq!(s.info().ssthresh, 4000, "half of the flight");
    s.finish();
}

#[test]
fn a_probe_that_was_for_nothing_shrinks_nothing_rfc8985_7_4_2() {
    let mut s = established();
    send(&mut s, 0, 10);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(9000));
    s.advance_to_timer();
    s.expect(seg(".").seq(9000).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(10_000));
    s.inject(seg(".").seq(0).ack(10_000).sack(&[(9000, 10_000)]));
    send(&mut s, 10_000, 2);
    s.inject(seg(".").seq(0).ack(12_000));
    assert_eq!((s.info().ssthresh, s.info().dsacks), (usize::MAX, 1));
    s.finish();
}

/// RFC 8985 §7.3 (2): the copy that the probe was gives no sample, and without one there is no second probe.
#[test]
fn after_a_probe_a_round_trip_is_measured_first_rfc8985_7_3() {
    let mut s = established();
    send(&mut s, 0, 2);
    assert_eq!(s.advance_to_timer(), 20);
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.advance(10);
    s.inject(seg(".").seq(0).ack(2000));
    s.inject(seg(".").seq(0).ack(2000).sack(&[(1000, 2000)]));
    send(&mut s, 2000, 2);
    let rto = s.rto();
    assert_eq!(s.advance_to_timer(), rto, "no probe");
    s.expect(seg(".").seq(2000).ack(0).len(1000));
    assert_eq!((s.info().probes, s.info().timeouts), (1, 1));
    s.inject(seg(".").seq(0).ack(4000));
    send(&mut s, 4000, 2);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(6000));
    send(&mut s, 6000, 2);
    s.advance_to_timer();
    s.expect(seg(".").seq(7000).ack(0).len(1000));
    assert_eq!((s.info().probes, s.info().timeouts), (2, 1), "measured again");
    s.finish();
}

/// The time-out has reduced the window already, so what the probe had to tell is of no interest.
#[test]
fn a_timeout_forgets_the_probe_rfc8985_7_1() {
    let mut s = established();
    send(&mut s, 0, 10);
    s.advance_to_timer();
    s.expect(seg(".").seq(9000).ack(0).len(1000));
    s.advance_to_timer();
    s.expect(seg(".").seq(0).ack(0).len(1000));
    assert_eq!((s.info().timeouts, s.info().ssthresh), (1, 5000));
    // A round trip later: the bucket of pacing has room for both.
    s.advance(10);
    s.inject(seg(".").seq(0).ack(10_000));
    send(&mut s, 10_000, 2);
    s.inject(seg(".").seq(0).ack(12_000));
    assert_eq!(s.info().ssthresh, 5000, "no second reduction");
    s.finish();
}

#[test]
fn a_probe_waits_for_its_frame() {
    let mut s = established();
    s.hold_frames = true;
    send(&mut s, 0, 2);
    s.advance_to_timer();
    s.expect_silence();
    s.complete();
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.complete();
    s.finish();
}
