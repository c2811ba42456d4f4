//! BBR (draft-ietf-ccwg-bbr), seen from outside.

use crate::dsl::{Script, config, sack_options, seg};
use stack_user::{
    tcp::{Config, congestion::Algorithm, recovery::Phase},
    time::Duration,
};

const RTT: u64 = 100;

/// A connection over a path with a round trip of 100 ms, whose peer's window is large.
fn established(pacing: bool) -> Script {
    let mut s = Script::new(Config { congestion: Algorithm::Bbr, pacing, ..config() });
    s.expect(seg("S").seq(-1));
    s.advance(RTT);
    s.inject(seg("S.").seq(-1).ack(0).options(sack_options()));
    s.expect(seg(".").seq(0).ack(0));
    s
}

/// So many bytes are written, sent as they may be, and acknowledged a round trip later.
fn transfer(s: &mut Script, at: &mut i64, bytes: usize) {
    s.write(bytes);
    while s.info().unacknowledged > 0 {
        for _ in 0..RTT {
            s.drain();
            s.advance(1);
        }
        s.advance(RTT);
        *at += i64::try_from(s.info().outstanding).expect("a window");
        s.inject(seg(".").seq(0).ack(*at));
    }
}

#[test]
fn it_is_chosen_by_its_name() {
    let s = established(true);
    assert_eq!(s.info().congestion, "bbr");
    s.finish();
}

/// A loss is repaired within the window: neither is that made smaller, nor does proportional rate reduction count.
#[test]
fn a_loss_does_not_make_the_window_smaller_draft_ccwg_bbr_5_6_4_4() {
    let mut s = established(false);
    s.write(60_000);
    assert_eq!(s.drain(), 10);
    s.advance(RTT);
    s.inject(seg(".").seq(0).ack(10_000));
    let before = s.info().cwnd;
    assert_eq!(before, 20_000, "§5.6.4.6: by what was delivered");
    assert_eq!(s.drain(), 20);
    s.advance(RTT);
    s.inject(seg(".").seq(0).ack(10_000).sack(&[(11_000, 20_000)]));
    let info = s.info();
    assert_eq!(info.recovery, Phase::FastRecovery);
    assert!(info.cwnd >= before, "{} after {before}", info.cwnd);
    s.expect(seg(".").seq(10_000).ack(0).len(1000));
    // 10 are in flight, the lost one is sent again, and the window has room for all that was sacked.
    assert_eq!(s.drain(), (info.cwnd - 11_000) / 1000);
    s.finish();
}

/// §5.6.4.4: one segment when the timer expires, and what there was before when all is repaired.
#[test]
fn a_timeout_leaves_one_segment_until_all_is_repaired_draft_ccwg_bbr_5_6_4_4() {
    let mut s = established(false);
    s.write(60_000);
    assert_eq!(s.drain(), 10);
    s.advance(RTT);
    s.inject(seg(".").seq(0).ack(10_000));
    let before = s.info().cwnd;
    assert_eq!(s.drain(), 20);
    while s.info().recovery != Phase::Loss {
        s.advance_to_timer();
        s.drain();
    }
    assert_eq!(s.info().cwnd, 1000);
    s.advance(RTT);
    s.inject(seg(".").seq(0).ack(31_000));
    assert!(s.info().cwnd >= before, "{} after {before}", s.info().cwnd);
    s.finish();
}

/// §5.4.1: after a pause the window is as it was, and what is sent is paced.
#[test]
fn a_pause_keeps_the_window_and_what_follows_is_paced_draft_ccwg_bbr_5_4_1() {
    let mut s = established(true);
    let mut at = 0;
    transfer(&mut s, &mut at, 100_000);
    let before = s.info().cwnd;
    assert!(before >= 30_000, "{before}");
    s.advance(20_000);
    s.write(60_000);
    let at_once = s.drain();
    assert_eq!(s.info().cwnd, before);
    assert!((10..=14).contains(&at_once), "IW and a burst, but no window: {at_once}");
    assert!(s.connection.poll_timeout().is_some_and(|next| next.since(s.now) < Duration::from_millis(RTT)));
    s.finish();
}

/// §5.6.2: the rate is the model's, not a window per round trip.
#[test]
fn startup_paces_faster_than_a_window_per_round_trip_draft_ccwg_bbr_5_6_2() {
    let mut s = established(true);
    s.write(60_000);
    assert_eq!(s.drain(), 10);
    s.advance(RTT);
    s.inject(seg(".").seq(0).ack(10_000));
    // IW in a round trip, and 2.77 times as fast.
    assert_eq!(s.info().pacing_rate, Some(277_000));
    s.finish();
}
