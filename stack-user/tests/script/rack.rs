//! RACK (RFC 8985 §6): losses by time.

use crate::dsl::{Script, all_options, sack_options, seg};
use stack_user::tcp::{
    Config,
    recovery::Phase,
    trace::{Kind, RetransmitReason, WindowReason},
};

/// The round trip of the handshake is 10 ms, so the reordering window starts with 2.5 ms.
fn established() -> Script {
    Script::established(Config::default(), sack_options())
}

/// Writes `n` segments of 1000 bytes from `at` on and expects them.
fn send(s: &mut Script, at: i64, n: i64) {
    s.write(n as usize * 1000);
    for i in 0..n {
        s.expect(seg(".").seq(at + i * 1000).ack(0).len(1000));
    }
    s.expect_silence();
}

/// RFC 8985 §6.2, step 4 and step 5.
#[test]
fn one_sack_means_a_loss_when_reordering_had_its_time_rfc8985_6_2() {
    let mut s = established();
    send(&mut s, 0, 3);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 2000)]));
    s.expect_silence();
    assert_eq!(s.advance_to_timer(), 2, "min_RTT / 4");
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.expect_silence();
    assert_eq!((s.info().recovery, s.info().segments_lost), (Phase::FastRecovery, 1));
    // What was sent after the last segment that arrived is not lost.
    s.inject(seg(".").seq(0).ack(3000));
    assert_eq!((s.info().recovery, s.info().retransmissions), (Phase::Open, 1));
    s.finish();
}

#[test]
fn three_sacks_mean_a_loss_at_once_rfc8985_6_2() {
    let mut s = established();
    send(&mut s, 0, 5);
    s.advance(10);
    for end in [2000, 3000] {
        s.inject(seg(".").seq(0).ack(0).sack(&[(1000, end)]));
        s.expect_silence();
    }
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 4000)]));
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.expect_silence();
    s.finish();
}

/// RFC 8985 §6.2, step 3.
#[test]
fn what_is_only_late_is_not_sent_again_and_remembered_rfc8985_6_2() {
    let mut s = established();
    send(&mut s, 0, 3);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 2000)]));
    s.advance(1);
    s.inject(seg(".").seq(0).ack(3000));
    s.expect_silence();
    let info = s.info();
    assert!(info.reordering_seen && info.retransmissions == 0);
    // From now on, three sacked segments are no proof.
    send(&mut s, 3000, 5);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(3000).sack(&[(4000, 8000)]));
    s.expect_silence();
    assert_eq!(s.advance_to_timer(), 2);
    s.expect(seg(".").seq(3000).ack(0).len(1000));
    s.finish();
}

/// RFC 8985 §6.2, step 3.
#[test]
fn what_one_ack_tells_is_not_out_of_order_rfc8985_6_2() {
    let mut s = established();
    send(&mut s, 0, 6);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(1000).sack(&[(4000, 5000), (2000, 3000)]));
    assert!(!s.info().reordering_seen);
    s.finish();
}

/// RFC 8985 §6.2, step 5: what was sent again is judged as what was sent once.
#[test]
fn a_retransmission_that_is_lost_is_noticed_rfc8985_6_2() {
    let mut s = established();
    send(&mut s, 0, 10);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 4000)]));
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.advance(1);
    s.write(6000);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 10_000)]));
    let sent = s.drain();
    assert!(sent > 0);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 11_000)]));
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.finish();
}

/// RFC 8985 §6.2, step 2.
#[test]
fn an_ack_of_the_first_copy_says_nothing_of_the_second_rfc8985_6_2() {
    let mut s = Script::established(Config::default(), all_options());
    s.write(3 * 1448);
    for i in 0..3 {
        s.expect(seg(".").seq(i * 1448).len(1448));
    }
    let first = s.our_clock();
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1448, 2 * 1448)]));
    s.advance_to_timer();
    s.expect(seg(".").seq(0).len(1448));
    s.advance(20);
    // The original arrives. If this were the answer to the copy, which was sent after the third segment, that segment
    // would be lost.
    s.inject(seg(".").seq(0).ack(2 * 1448).echo(first));
    s.expect_silence();
    assert_eq!(s.info().lost, 0);
    s.finish();
}

/// RFC 8985 §6.3: a time-out marks what was sent a round trip ago, not what has just been sent.
#[test]
fn a_timeout_marks_by_time_rfc8985_6_3() {
    let mut s = established();
    send(&mut s, 0, 2);
    assert_eq!(s.advance_to_timer(), 20);
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.advance(195);
    send(&mut s, 2000, 2);
    assert_eq!(s.advance_to_timer(), 5, "RTO counts from the probe");
    s.expect(seg(".").seq(0).ack(0).len(1000));
    assert_eq!((s.info().recovery, s.info().lost), (Phase::Loss, 1000), "the probe's segment still is");
    assert_eq!(s.info().in_flight, 3000);
    s.finish();
}

#[test]
fn dsacks_widen_the_window_rfc8985_6_2() {
    let mut s = established();
    send(&mut s, 0, 3);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 2000)]));
    s.advance(3);
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(3000));
    s.inject(seg(".").seq(0).ack(3000).sack(&[(0, 1000)]));
    assert_eq!(s.info().dsacks, 1);
    send(&mut s, 3000, 3);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(3000).sack(&[(4000, 5000)]));
    assert_eq!(s.info().reo_wnd.as_micros(), 5000, "two steps of a quarter");
    s.finish();
}

#[test]
fn the_trace_tells_why_something_is_sent_again() {
    let mut s = established();
    s.connection.listen_in(true);
    send(&mut s, 0, 10);
    s.advance(20);
    s.expect(seg(".").seq(9000).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 4000)]));
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(10_000));
    let (mut again, mut window) = (Vec::new(), Vec::new());
    while let Some(record) = s.connection.poll_trace() {
        match record.kind {
            Kind::Retransmit { start, len, reason } => again.push((start, len, reason)),
            Kind::CongestionWindow { reason, .. } => window.push(reason),
            _ => {}
        }
    }
    let (probe, lost) = (RetransmitReason::TailLossProbe, RetransmitReason::Lost);
    assert_eq!(again, [(9000, 1000, probe), (0, 1000, lost)]);
    assert_eq!(window, [WindowReason::Loss, WindowReason::RecoveryDone]);
    s.finish();
}

/// A peer that tells more DSACKs than we have sent twice does not slow us (RFC 8985 §10).
#[test]
fn dsacks_of_what_was_sent_once_widen_nothing() {
    let mut s = established();
    send(&mut s, 0, 3);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(3000).sack(&[(0, 1000)]));
    send(&mut s, 3000, 3);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(3000).sack(&[(4000, 5000)]));
    assert_eq!(s.info().reo_wnd.as_micros(), 2500);
    s.finish();
}
