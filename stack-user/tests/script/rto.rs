//! The retransmission timer (RFC 6298 §5), rule by rule.

use crate::dsl::{Script, config, plain_options, sack_options, seg};
use stack_user::tcp::{Config, congestion::Algorithm};

fn established() -> Script {
    let config = Config { congestion: Algorithm::NewReno, ..Config::default() };
    Script::established(config, plain_options())
}

/// RFC 6298 §2.1: one second before there is a sample, as the SYN shows; §5.5: then twice that.
#[test]
fn before_the_first_sample_it_is_a_second_rfc6298_2_1() {
    let mut s = Script::new(Config::default());
    s.expect(seg("S").seq(-1));
    assert_eq!(s.advance_to_timer(), 1000);
    s.expect(seg("S").seq(-1));
    assert_eq!(s.advance_to_timer(), 2000);
    s.expect(seg("S").seq(-1));
    s.finish();
}

#[test]
fn sending_starts_it_if_it_does_not_run_rfc6298_5_1() {
    let mut s = established();
    s.write(1000);
    s.expect(seg(".").seq(0).len(1000));
    s.advance(150);
    s.write(1000);
    s.expect(seg(".").seq(1000).len(1000));
    assert_eq!(s.advance_to_timer(), 50, "of the first");
    s.finish();
}

#[test]
fn an_ack_of_all_stops_it_rfc6298_5_2() {
    let mut s = established();
    s.write(1000);
    s.expect(seg(".").seq(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000));
    assert_eq!(s.connection.poll_timeout(), None);
    s.finish();
}

#[test]
fn an_ack_of_new_data_starts_it_again_and_others_do_not_rfc6298_5_3() {
    let mut s = established();
    s.write(3000);
    s.drain();
    s.advance(100);
    s.inject(seg(".").seq(0).ack(1000));
    let rto = s.rto();
    s.advance(50);
    s.inject(seg(".").seq(0).ack(1000));
    assert_eq!(s.advance_to_timer(), rto - 50);
    s.finish();
}

/// RFC 6298 §5.4: the first segment goes again; §5.5: RTO doubles; §5.6: and runs from then.
#[test]
fn it_resends_the_first_and_backs_off_rfc6298_5_4_to_5_6() {
    let mut s = established();
    s.write(3000);
    s.drain();
    let mut expected = 200;
    // The fifth would come in smaller pieces, in case that its size is the reason.
    for _ in 0..4 {
        assert_eq!(s.advance_to_timer(), expected);
        s.expect(seg(".").seq(0).len(1000));
        s.expect_silence();
        expected *= 2;
        assert_eq!(s.rto(), expected);
    }
    s.finish();
}

/// RFC 6298 §5.1: a segment that fast retransmit sends again gets RTO's time from then. Its ACK can't come sooner than a
/// round trip after it, which is when the timer would expire that runs since its first transmission.
#[test]
fn the_timer_waits_for_the_ack_of_a_retransmission_rfc6298_5_1() {
    let mut s = established();
    s.write(5000);
    s.drain();
    s.advance(150);
    for _ in 0..3 {
        s.inject(seg(".").seq(0).ack(0));
    }
    s.expect(seg(".").seq(0).len(1000));
    s.advance(150);
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(5000));
    assert_eq!(s.info().timeouts, 0);
    s.finish();
}

/// RFC 6298 §5.7: a SYN that was sent again leaves three seconds for the data.
#[test]
fn a_repeated_syn_leaves_three_seconds_rfc6298_5_7() {
    let mut s = Script::new(Config::default());
    s.expect(seg("S").seq(-1));
    s.advance(1000);
    s.expect(seg("S").seq(-1));
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    assert_eq!(s.rto(), 3000);
    s.finish();
}

/// RFC 5681 §3.1: ssthresh is half of the flight at the first time-out, and stays at the second for the same segment.
#[test]
fn a_second_timeout_leaves_the_threshold_rfc5681_3_1() {
    let mut s = established();
    s.write(8000);
    s.drain();
    s.advance_to_timer();
    s.drain();
    assert_eq!((s.info().cwnd, s.info().ssthresh), (1000, 4000));
    s.advance_to_timer();
    s.drain();
    assert_eq!((s.info().cwnd, s.info().ssthresh), (1000, 4000));
    s.finish();
}

/// RFC 2018 §8: what the peer sacked and threw away is sent again, however it comes out.
#[test]
fn a_sack_at_the_left_edge_is_sent_again_after_a_timeout_rfc2018_8() {
    let mut s = Script::established(Config::default(), sack_options());
    s.write(3000);
    s.drain();
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(0, 2000)]));
    s.expect(seg(".").seq(0).len(1000));
    s.advance(300);
    s.expect(seg(".").seq(0).len(1000));
    s.finish();
}

/// RFC 6298 §5.4, RFC 5681 §3.1: without SACK all that is outstanding counts as lost, and is counted.
#[test]
fn a_timeout_loses_all_that_is_outstanding_rfc5681_3_1() {
    let mut s = Script::established(config(), plain_options());
    s.write(4000);
    assert_eq!(s.drain(), 4);
    s.advance_to_timer();
    s.drain();
    assert_eq!(s.info().segments_lost, 4);
    s.finish();
}

/// RFC 6298 §3 (Karn): what an ACK covers that had to be sent again has held it up, so it measures no round trip, not even
/// by the other segments that it covers.
#[test]
fn an_ack_that_waited_for_a_repair_is_no_sample_rfc6298_3() {
    let mut s = established();
    s.write(4000);
    s.drain();
    let before = s.info().srtt;
    s.advance(100);
    (0..3).for_each(|_| s.inject(seg(".").seq(0).ack(0)));
    s.expect(seg(".").seq(0).len(1000));
    s.advance(50);
    s.inject(seg(".").seq(0).ack(4000));
    assert_eq!(s.info().srtt, before);
    s.finish();
}
