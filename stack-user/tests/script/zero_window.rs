//! A window that is closed, and its probes (RFC 9293 §3.8.6.1).

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::{
    tcp::{Config, Error, Event, State},
    time::Duration,
};

fn window(bytes: u32) -> Script {
    let mut s = Script::new(config());
    s.handshake(plain_options(), bytes);
    s
}

/// RFC 9293 §3.8.6.1, MUST-36 and SHLD-29: first after RTO.
#[test]
fn the_first_probe_goes_after_rto_shld_29() {
    let mut s = window(0);
    s.write(100);
    s.expect_silence();
    let rto = s.rto();
    s.expect_at(rto, seg(".").seq(-1).ack(0));
    s.finish();
}

/// RFC 9293 §3.8.6.1, SHLD-30: then twice as long each time.
#[test]
fn probes_back_off_shld_30() {
    let mut s = window(0);
    s.write(100);
    for ms in [200, 400, 800, 1600, 3200, 6400] {
        s.expect_at(ms, seg(".").seq(-1).ack(0));
        s.inject(seg(".").seq(0).ack(0).window(0));
    }
    s.finish();
}

/// RFC 9293 §3.8.6.1: without data there is nothing to probe for.
#[test]
fn nothing_to_send_is_nothing_to_probe_for() {
    let mut s = window(0);
    s.expect_silence_for(1_000_000);
    s.finish();
}

/// RFC 9293 §3.8.6.1: the window opens, whether or not a probe asked, and the probing ends.
#[test]
fn a_window_update_ends_the_probing() {
    let mut s = window(0);
    s.write(100);
    s.expect_at(200, seg(".").seq(-1));
    s.advance(50);
    s.inject(seg(".").seq(0).ack(0).window(5000));
    s.expect(seg("P.").seq(0).len(100));
    s.inject(seg(".").seq(0).ack(100).window(5000));
    s.expect_silence_for(1_000_000);
    s.finish();
}

/// RFC 9293 §3.8.6.2.1 (4): one that opens by a crack is used after RTO, however far the probes had backed off.
#[test]
fn a_crack_is_used_after_rto_and_not_at_the_next_probe_must_38() {
    let mut s = window(5000);
    s.write(1000);
    s.expect(seg(".").seq(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000).window(0));
    s.write(1000);
    for ms in [200, 400, 800] {
        s.expect_at(ms, seg(".").seq(999));
        s.inject(seg(".").seq(0).ack(1000).window(0));
    }
    s.inject(seg(".").seq(0).ack(1000).window(10));
    s.expect_at(s.rto(), seg(".").seq(1000).len(10));
    s.finish();
}

/// RFC 9293 §3.8.6.1: a window that closes again is probed again, from RTO on.
#[test]
fn a_window_that_closes_again_is_probed_from_the_start() {
    let mut s = window(0);
    s.write(2000);
    for ms in [200, 400, 800] {
        s.expect_at(ms, seg(".").seq(-1));
        s.inject(seg(".").seq(0).ack(0).window(0));
    }
    s.inject(seg(".").seq(0).ack(0).window(1000));
    s.expect(seg(".").seq(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000).window(0));
    let rto = s.rto();
    s.expect_at(rto, seg(".").seq(999));
    s.finish();
}

/// RFC 9293 §3.8.6, MUST-35: a window that shrinks to zero while data is on its way.
#[test]
fn a_window_that_shrinks_to_zero_is_probed_must_35() {
    let mut s = window(5000);
    s.write(5000);
    assert_eq!(s.drain(), 5);
    s.write(1000);
    s.inject(seg(".").seq(0).ack(5000).window(0));
    s.expect_silence();
    let rto = s.rto();
    s.expect_at(rto, seg(".").seq(4999));
    s.inject(seg(".").seq(0).ack(5000).window(5000));
    s.expect(seg("P.").seq(5000).len(1000));
    s.finish();
}

/// RFC 9293 §3.8.6.1: what is outstanding is a probe by itself; the retransmission timer does its work.
#[test]
fn outstanding_data_probes_a_window_that_closed_above_it() {
    let mut s = window(2000);
    s.write(4000);
    s.expect(seg(".").seq(0).len(1000));
    s.expect(seg(".").seq(1000).len(1000));
    s.inject(seg(".").seq(0).ack(0).window(0));
    s.expect_at(200, seg(".").seq(0).len(1000));
    s.inject(seg(".").seq(0).ack(0).window(0));
    s.expect_at(400, seg(".").seq(0).len(1000));
    s.inject(seg(".").seq(0).ack(2000).window(2000));
    s.expect(seg(".").seq(2000).len(1000));
    s.finish();
}

/// RFC 9293 §3.8.6.1, MUST-37: not even the time-out for data that is retransmitted counts while the peer answers.
#[test]
fn a_peer_that_answers_keeps_the_connection_must_37() {
    let config = Config { user_timeout: Duration::from_secs(100), ..config() };
    let mut s = Script::new(config);
    s.handshake(plain_options(), 1000);
    s.write(3000);
    s.expect(seg(".").seq(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000).window(0));
    s.expect_silence();
    let start = s.now;
    while s.now.since(start) < Duration::from_secs(2000) {
        s.advance_to_timer();
        assert_eq!(s.drain(), 1, "one probe");
        s.inject(seg(".").seq(0).ack(1000).window(0));
        s.expect_silence();
    }
    s.state(State::Established);
    s.finish();
}

/// RFC 9293 §3.8.3: a peer that answers no probe is gone.
#[test]
fn a_peer_that_answers_no_probe_is_gone() {
    let config = Config { user_timeout: Duration::from_secs(100), ..config() };
    let mut s = Script::new(config);
    s.handshake(plain_options(), 0);
    s.write(100);
    s.drain();
    let start = s.now;
    while !s.connection.is_closed() {
        s.advance_to_timer();
        s.drain();
    }
    assert_eq!(s.now.since(start), Duration::from_secs(100));
    assert_eq!(s.events(), [Event::Failed(Error::TimedOut), Event::Closed]);
    s.finish();
}

/// RFC 9293 §3.10.5: abort does not wait for a window.
#[test]
fn abort_needs_no_window_rfc9293_3_10_5() {
    let mut s = window(0);
    s.write(1000);
    s.expect_silence();
    s.app_abort();
    s.expect(seg("R.").seq(0).ack(0));
    s.finish();
}

/// ACKs take no window: data of the peer is acknowledged although we may send nothing.
#[test]
fn acks_go_through_a_closed_window() {
    let mut s = window(0);
    s.write(1000);
    s.expect_silence();
    s.inject(seg("P.").seq(0).ack(0).window(0).len(500));
    s.expect(seg(".").seq(0).ack(500));
    s.finish();
}

/// RFC 9293 §3.1, MUST-1: the window is an unsigned number; 65,535 is not -1.
#[test]
fn the_largest_unscaled_window_is_used_must_1() {
    let mut s = window(65_535);
    assert_eq!(s.info().send_window, 65_535);
    s.write(200_000);
    // Slow start, until the window is what limits us.
    for i in 1..41 {
        s.drain();
        s.inject(seg(".").seq(0).ack(i * 2000));
    }
    s.drain();
    assert_eq!(s.info().in_flight, 65_000, "and not one more full segment");
    s.finish();
}
