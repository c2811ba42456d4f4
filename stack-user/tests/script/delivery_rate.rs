//! The delivery rate (draft-ietf-ccwg-bbr §4.1), as statistics show it.

use crate::dsl::{Script, config, sack_options, seg};

/// A window of ten segments each round trip of 100 ms: the peer acknowledges at that pace.
#[test]
fn a_full_window_a_round_trip_is_the_rate_draft_ccwg_bbr_4_1() {
    let mut s = Script::established(config(), sack_options());
    assert_eq!(s.info().delivery_rate, None, "nothing was delivered");
    s.write(50_000);
    assert_eq!(s.drain(), 10);
    s.advance(100);
    s.inject(seg(".").seq(0).ack(10_000));
    let info = s.info();
    assert_eq!((info.delivery_rate, info.delivery_rate_app_limited), (Some(100_000), false));
    // Slow start: eighteen are delivered in the next round trip.
    assert_eq!(s.drain(), 18);
    s.advance(100);
    s.inject(seg(".").seq(0).ack(28_000));
    assert_eq!(s.info().delivery_rate, Some(180_000));
    s.finish();
}

#[test]
fn what_is_sacked_is_delivered_draft_ccwg_bbr_4_1_2_3() {
    let mut s = Script::established(config(), sack_options());
    s.write(50_000);
    assert_eq!(s.drain(), 10);
    s.advance(100);
    s.inject(seg(".").seq(0).ack(0).sack(&[(5_000, 10_000)]));
    assert_eq!(s.info().delivery_rate, Some(50_000), "half of it within the round trip");
    s.finish();
}

/// A slow application does not make the path look slow.
#[test]
fn an_application_that_writes_little_is_told_apart_draft_ccwg_bbr_4_1_2_4() {
    let mut s = Script::established(config(), sack_options());
    s.write(2_000);
    assert_eq!(s.drain(), 2);
    s.advance(100);
    s.inject(seg(".").seq(0).ack(2_000));
    let info = s.info();
    // When they were sent, nobody had found that there was no more.
    assert_eq!((info.delivery_rate, info.delivery_rate_app_limited), (Some(20_000), false));
    s.write(1_000);
    s.drain();
    s.advance(100);
    s.inject(seg(".").seq(0).ack(3_000));
    assert_eq!(s.info().delivery_rate, Some(20_000), "one segment in a round trip is no news");
    s.write(5_000);
    s.drain();
    s.advance(100);
    s.inject(seg(".").seq(0).ack(8_000));
    let info = s.info();
    assert_eq!((info.delivery_rate, info.delivery_rate_app_limited), (Some(50_000), true), "at least that");
    s.finish();
}
