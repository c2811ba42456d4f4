//! When an ACK waits, and what it does not wait for (RFC 9293 §3.8.6.3, RFC 5681 §4.2).

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::tcp::{Config, State};

/// After the connection's first segments, which are acknowledged at once. Returns where the peer's stream is.
fn settled(config: Config) -> (Script, i64) {
    let mut s = Script::established(config, plain_options());
    let mut at = 0;
    for _ in 0..40 {
        s.inject(seg(".").seq(at).ack(0).len(1000));
        at += 1000;
        s.drain();
    }
    s.advance(1000);
    s.drain();
    s.read(100_000);
    s.drain();
    s.events();
    (s, at)
}

/// RFC 9293 §3.8.6.3, SHLD-18 and MUST-40.
#[test]
fn one_segment_waits_less_than_half_a_second_must_40() {
    let (mut s, at) = settled(config());
    s.inject(seg("P.").seq(at).ack(0).len(100));
    s.expect_silence();
    s.expect_within(1..=499, seg(".").seq(0).ack(at + 100));
    s.finish();
}

/// RFC 9293 §3.8.6.3, SHLD-19.
#[test]
fn the_second_full_segment_is_acknowledged_at_once_shld_19() {
    let (mut s, at) = settled(config());
    for i in 0..10 {
        let at = at + i * 2000;
        s.inject(seg(".").seq(at).ack(0).len(1000));
        s.expect_silence();
        s.inject(seg(".").seq(at + 1000).ack(0).len(1000));
        s.expect(seg(".").seq(0).ack(at + 2000));
        s.expect_silence();
    }
    s.finish();
}

/// RFC 9293 §3.8.6.3, MUST-40: later segments don't push the ACK of the first one back.
#[test]
fn the_delay_counts_from_the_first_segment_must_40() {
    let (mut s, at) = settled(config());
    s.inject(seg("P.").seq(at).ack(0).len(10));
    s.expect_silence_for(30);
    s.inject(seg("P.").seq(at + 10).ack(0).len(10));
    s.expect_at(10, seg(".").seq(0).ack(at + 20));
    s.finish();
}

/// RFC 5681 §4.2: data out of order is told at once.
#[test]
fn data_out_of_order_is_told_at_once_rfc5681_4_2() {
    let (mut s, at) = settled(config());
    s.inject(seg(".").seq(at + 1000).ack(0).len(100));
    s.expect(seg(".").seq(0).ack(at));
    s.inject(seg(".").seq(at + 2000).ack(0).len(100));
    s.expect(seg(".").seq(0).ack(at));
    s.finish();
}

/// RFC 5681 §4.2: so is what fills a gap.
#[test]
fn data_that_fills_a_gap_is_told_at_once_rfc5681_4_2() {
    let (mut s, at) = settled(config());
    s.inject(seg(".").seq(at + 100).ack(0).len(100));
    s.expect(seg(".").seq(0).ack(at));
    s.inject(seg(".").seq(at).ack(0).len(100));
    s.expect(seg(".").seq(0).ack(at + 200));
    s.finish();
}

/// RFC 9293 §3.8.6.3: out-of-order data takes the ACK of what waits along.
#[test]
fn a_delayed_ack_goes_with_the_next_one() {
    let (mut s, at) = settled(config());
    s.inject(seg("P.").seq(at).ack(0).len(100));
    s.expect_silence();
    s.inject(seg("P.").seq(at + 500).ack(0).len(100));
    s.expect(seg(".").seq(0).ack(at + 100));
    s.expect_silence_for(1000);
    s.finish();
}

#[test]
fn data_of_ours_takes_the_ack_along() {
    let (mut s, at) = settled(config());
    s.inject(seg("P.").seq(at).ack(0).len(100));
    s.advance(20);
    s.write(50);
    s.expect(seg("P.").seq(0).ack(at + 100).len(50));
    s.expect_silence_for(100);
    s.finish();
}

/// FIN is not delayed: the peer's connection waits for its ACK.
#[test]
fn fin_is_acknowledged_at_once() {
    let (mut s, at) = settled(config());
    s.inject(seg("F.").seq(at).ack(0).len(100));
    s.expect(seg(".").seq(0).ack(at + 101));
    s.state(State::CloseWait);
    s.finish();
}

/// RFC 5681 §4.2: a duplicate means that the peer lacks our ACK.
#[test]
fn old_data_is_acknowledged_at_once() {
    let (mut s, at) = settled(config());
    let _ = s.try_inject(seg("P.").seq(at - 1000).ack(0).len(1000));
    s.expect(seg(".").seq(0).ack(at));
    s.finish();
}

/// RFC 9293 §3.8.6.1: a peer that probes our closed window is answered at once.
#[test]
fn a_window_probe_is_answered_at_once_rfc9293_3_8_6_1() {
    let mut s = Script::established(Config { recv_buffer: 2000, ..config() }, plain_options());
    s.inject(seg(".").seq(0).ack(0).len(1000));
    s.inject(seg(".").seq(1000).ack(0).len(1000));
    s.expect(seg(".").ack(2000).window(0));
    for _ in 0..3 {
        let _ = s.try_inject(seg(".").seq(2000).ack(0).len(1));
        s.expect(seg(".").ack(2000).window(0));
        s.advance(1000);
    }
    s.finish();
}

/// The first segments of a connection are not delayed: the peer is in slow start, and each ACK opens its window.
#[test]
fn the_first_segments_are_acknowledged_at_once() {
    let mut s = Script::established(config(), plain_options());
    for i in 0..10 {
        s.inject(seg("P.").seq(i * 100).ack(0).len(100));
        s.expect(seg(".").seq(0).ack((i + 1) * 100));
    }
    s.finish();
}

/// RFC 5681 §4.2: an ACK is for data, FIN, or what can't be right; never for another ACK.
#[test]
fn acks_are_not_acknowledged() {
    let (mut s, at) = settled(config());
    s.write(100);
    s.expect(seg("P.").seq(0).len(100));
    for _ in 0..5 {
        let _ = s.try_inject(seg(".").seq(at).ack(100));
        s.expect_silence();
    }
    s.expect_silence_for(10_000);
    s.finish();
}
