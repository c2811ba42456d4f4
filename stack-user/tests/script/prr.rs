//! Proportional rate reduction (RFC 9937).

use crate::dsl::{Script, plain_options, sack_options, seg};
use stack_user::tcp::{Config, congestion::Algorithm, options::Options, recovery::Phase};

fn established(peer: Options) -> Script {
    let config = Config { congestion: Algorithm::NewReno, pacing: false, ..Config::default() };
    Script::established(config, peer)
}

/// RFC 9937 §5: with RACK; §6.2: one segment for two that arrive, when the window halves; §6.4: at the end it is ssthresh.
#[test]
fn the_window_shrinks_in_proportion_rfc9937_6_2() {
    let mut s = established(sack_options());
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    s.advance(10);
    let mut sent = 0;
    for end in 2..=10 {
        s.inject(seg(".").seq(0).ack(0).sack(&[(1000, end * 1000)]));
        sent += s.drain();
    }
    // Limited transmit gave two, which do not count (RFC 5681 §3.2): of the 10 before, 5 is the goal. One of those sent is
    // the hole.
    let info = s.info();
    assert_eq!((info.recovery, info.ssthresh), (Phase::FastRecovery, 5000));
    assert!((5..=7).contains(&sent), "{sent} sent for nine that arrived");
    assert!(info.in_flight <= info.ssthresh, "{} in flight", info.in_flight);
    s.inject(seg(".").seq(0).ack(10_000));
    s.drain();
    s.inject(seg(".").seq(0).ack(12_000));
    assert_eq!((s.info().recovery, s.info().cwnd), (Phase::Open, 5000));
    assert_eq!(s.info().retransmissions, 1);
    s.finish();
}

/// RFC 9937 §5: with NewReno; §6.2: without SACK, a duplicate ACK stands for a segment.
#[test]
fn duplicate_acks_count_as_deliveries_rfc9937_6_2() {
    let mut s = established(plain_options());
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    let mut sent = 0;
    for _ in 0..9 {
        s.inject(seg(".").seq(0).ack(0));
        sent += s.drain();
    }
    assert!((5..=7).contains(&sent), "{sent} sent for nine duplicates");
    assert_eq!(s.info().recovery, Phase::FastRecovery);
    s.inject(seg(".").seq(0).ack(12_000));
    assert_eq!((s.info().recovery, s.info().cwnd), (Phase::Open, 5000));
    s.finish();
}

/// RFC 9937 §3, §6.2: many losses at once. What is in flight falls below ssthresh; it is refilled as what is repaired arrives,
/// not in a burst.
#[test]
fn after_heavy_losses_it_does_not_burst_rfc9937_6_2() {
    let mut s = established(sack_options());
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    s.advance(10);
    // The last three arrive.
    s.inject(seg(".").seq(0).ack(0).sack(&[(7000, 10_000)]));
    assert_eq!(s.drain(), 3, "as many as arrived");
    assert_eq!(s.info().lost, 4000);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(1000).sack(&[(7000, 10_000)]));
    assert_eq!(s.drain(), 2, "one for the one that arrived, and one more since all goes well");
    s.finish();
}
