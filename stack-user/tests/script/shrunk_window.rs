//! A peer's window that has shrunk below what was sent (RFC 9293 §3.8.6), and what follows when it grows again.

use crate::dsl::{Script, config, plain_options, sack_options, seg};
use stack_user::tcp::{State, Unreachable};

/// `segments` of 1000 bytes are on their way; the window takes them all.
fn sent(sack: bool, segments: i64) -> Script {
    let mut s = Script::new(config());
    s.handshake(if sack { sack_options() } else { plain_options() }, 10_000);
    s.write(segments as usize * 1000);
    for i in 0..segments {
        s.expect(seg(".").seq(i * 1000).ack(0).len(1000));
    }
    s
}

/// RFC 9293 §3.8.6, SHLD-15: FIN takes a sequence number.
#[test]
fn fin_alone_waits_for_a_window_shld_15() {
    let mut s = sent(false, 1);
    s.inject(seg(".").seq(0).ack(1000).window(0));
    s.app_shutdown();
    s.expect_silence();
    // What waits is probed for, as data is (§3.8.6.1, MUST-36).
    s.expect_at(200, seg(".").seq(999).ack(0));
    s.inject(seg(".").seq(0).ack(1000).window(0));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(1000).window(1));
    s.expect(seg("F.").seq(1000).ack(0));
    s.inject(seg(".").seq(0).ack(1001).window(0));
    s.state(State::FinWait2);
    s.finish();
}

/// RFC 9293 §3.8.6, SHLD-15.
#[test]
fn fin_alone_stays_inside_a_window_that_shrank_shld_15() {
    let mut s = sent(false, 3);
    s.inject(seg(".").seq(0).ack(1000).window(1000));
    s.app_shutdown();
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(3000).window(1000));
    s.expect(seg("F.").seq(3000).ack(0));
    s.finish();
}

/// RFC 9293 §3.8.6, SHLD-16: not even a tail loss probe (RFC 8985 §7.3) goes beyond the window; RTO tells.
#[test]
fn a_tail_loss_probe_stays_inside_a_window_that_shrank_shld_16() {
    let mut s = sent(true, 4);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(1000).window(2000));
    s.expect_silence_for(190);
    assert_eq!(s.info().probes, 0);
    s.advance_to_timer();
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.finish();
}

/// RFC 9293 §3.8.6, SHLD-16: nor what a router says is too large, though it is no congestion that it was lost from.
#[test]
fn what_was_too_large_stays_inside_a_window_that_shrank_shld_16() {
    let mut s = sent(true, 0);
    s.connection.set_nodelay(true);
    s.write(100);
    s.expect(seg("P.").seq(0).len(100));
    s.write(1000);
    s.expect(seg("P.").seq(100).len(1000));
    s.inject(seg(".").seq(0).ack(0).window(100));
    s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 640 }, 100);
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(0).window(10_000));
    s.expect(seg(".").seq(100).len(600));
    s.expect(seg(".").seq(700).len(400));
    s.finish();
}

/// While the window was closed, the retransmission timer had the first segment ask for it (§3.8.6.1), again and again
/// more rarely. What the peer did not take then is due when it tells that there is room; not only when the timer, backed
/// off, expires.
#[test]
fn what_a_closed_window_held_back_goes_when_it_opens() {
    for sack in [false, true] {
        let mut s = sent(sack, 5);
        s.advance(10);
        s.inject(seg(".").seq(0).ack(2000).window(0));
        for timeouts in 0..5 {
            while s.info().timeouts == timeouts {
                s.advance_to_timer();
            }
            s.expect(seg(".").seq(2000).ack(0).len(1000));
            s.expect_silence();
            s.inject(seg(".").seq(0).ack(2000).window(0));
            s.expect_silence();
        }
        s.inject(seg(".").seq(0).ack(2000).window(10_000));
        s.expect(seg(".").seq(2000).ack(0).len(1000));
        s.inject(seg(".").seq(0).ack(3000).window(10_000));
        s.expect(seg(".").seq(3000).ack(0).len(1000));
        s.expect(seg(".").seq(4000).ack(0).len(1000));
        s.inject(seg(".").seq(0).ack(5000).window(10_000));
        s.finish();
    }
}

/// As the last, but only once for each that the timer sent: who opens and closes his window with each ACK gets no segment for each.
#[test]
fn a_window_that_flaps_draws_no_more_than_one_segment() {
    let mut s = sent(false, 5);
    s.inject(seg(".").seq(0).ack(2000).window(0));
    s.advance_to_timer();
    s.expect(seg(".").seq(2000).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(2000).window(1000));
    s.expect(seg(".").seq(2000).ack(0).len(1000));
    for _ in 0..5 {
        s.inject(seg(".").seq(0).ack(2000).window(0));
        s.expect_silence();
        s.inject(seg(".").seq(0).ack(2000).window(1000));
        s.expect_silence();
    }
    s.finish();
}

/// What has asked for the window was taken with the answer: nothing else is sent twice for its sake, whatever is repeated.
#[test]
fn an_answer_to_who_asked_for_the_window_is_none_to_what_follows() {
    for sack in [false, true] {
        let mut s = sent(sack, 1);
        s.inject(seg(".").seq(0).ack(0).window(0));
        while s.info().timeouts == 0 {
            s.advance_to_timer();
        }
        s.expect(seg(".").seq(0).ack(0).len(1000));
        s.inject(seg(".").seq(0).ack(1000).window(10_000));
        s.write(1000);
        s.expect(seg(".").seq(1000).ack(0).len(1000));
        s.inject(seg(".").seq(0).ack(1000).window(10_000));
        s.expect_silence();
        s.inject(seg(".").seq(0).ack(2000).window(10_000));
        s.finish();
    }
}
