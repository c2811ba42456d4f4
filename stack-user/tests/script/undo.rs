//! Recoveries that were for nothing are undone (RFC 4015), as DSACKs (RFC 3708) and timestamps (RFC 3522) show.

use crate::dsl::{Script, all_options, sack_options, seg};
use stack_user::tcp::{
    Config,
    congestion::Algorithm,
    options::Options,
    recovery::Phase,
    trace::{Kind, RetransmitReason, WindowReason},
};

fn established(peer: Options) -> Script {
    let config = Config { congestion: Algorithm::NewReno, ..Config::default() };
    Script::established(config, peer)
}

/// Ten segments, of which the first is overtaken by three, and sent again.
fn recovering() -> Script {
    let mut s = established(sack_options());
    s.write(10_000);
    assert_eq!(s.drain(), 10);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 4000)]));
    s.expect(seg(".").seq(0).ack(0).len(1000));
    assert_eq!((s.info().recovery, s.info().ssthresh), (Phase::FastRecovery, 5000));
    s
}

#[test]
fn dsacks_of_all_that_was_sent_again_undo_rfc3708_2() {
    let mut s = recovering();
    s.inject(seg(".").seq(0).ack(10_000));
    assert_eq!((s.info().recovery, s.info().cwnd), (Phase::Open, 5000));
    s.inject(seg(".").seq(0).ack(10_000).sack(&[(0, 1000)]));
    let info = s.info();
    assert_eq!((info.cwnd, info.ssthresh, info.undone, info.dsacks), (10_000, usize::MAX, 1, 1));
    assert!(info.reordering_seen);
    // Once only.
    s.inject(seg(".").seq(0).ack(10_000).sack(&[(0, 1000)]));
    assert_eq!(s.info().undone, 1);
    s.finish();
}

#[test]
fn a_dsack_in_the_middle_of_a_recovery_ends_it_rfc3708_2() {
    let mut s = recovering();
    s.inject(seg(".").seq(0).ack(4000).sack(&[(0, 1000)]));
    assert_eq!((s.info().recovery, s.info().cwnd, s.info().undone), (Phase::Open, 10_000, 1));
    s.finish();
}

#[test]
fn one_that_was_needed_leaves_it_as_it_is_rfc3708_2() {
    let mut s = established(sack_options());
    s.write(10_000);
    s.drain();
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 2000), (3000, 7000)]));
    assert_eq!(s.drain(), 2);
    s.inject(seg(".").seq(0).ack(10_000).sack(&[(0, 1000)]));
    assert_eq!((s.info().cwnd, s.info().undone, s.info().dsacks), (5000, 0, 1));
    s.finish();
}

/// RFC 2883 §4: a duplicate above the ACK is the first block, inside the second.
#[test]
fn a_dsack_above_the_ack_is_understood_rfc2883_4() {
    let mut s = established(sack_options());
    s.write(10_000);
    s.drain();
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(4000, 7000)]));
    s.drain();
    s.inject(seg(".").seq(0).ack(0).sack(&[(2000, 3000), (1000, 7000)]));
    assert_eq!(s.info().dsacks, 1);
    s.inject(seg(".").seq(0).ack(0).sack(&[(8000, 9000), (1000, 7000)]));
    assert_eq!(s.info().dsacks, 1);
    s.finish();
}

/// RFC 2883 §4: what an ACK sacks above itself is no DSACK when that ACK comes late, and SND.UNA has passed it.
#[test]
fn an_old_ack_brings_no_dsack_rfc2883_4() {
    let mut s = recovering();
    s.inject(seg(".").seq(0).ack(10_000));
    let _ = s.try_inject(seg(".").seq(0).ack(0).sack(&[(1000, 3000)]));
    assert_eq!((s.info().dsacks, s.info().undone), (0, 0));
    s.finish();
}

/// RFC 3522 §3.2: the ACK echoes the timestamp of the first copy.
#[test]
fn the_echo_of_the_first_copy_undoes_a_fast_recovery_rfc3522_3_2() {
    let mut s = established(all_options());
    s.write(10 * 1448);
    assert_eq!(s.drain(), 10);
    let (first, cwnd) = (s.our_clock(), s.info().cwnd);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1448, 4 * 1448)]));
    s.expect(seg(".").seq(0).len(1448));
    s.advance(1);
    s.inject(seg(".").seq(0).ack(4 * 1448).echo(first));
    let info = s.info();
    assert_eq!((info.recovery, info.cwnd, info.undone), (Phase::Open, cwnd, 1));
    s.finish();
}

#[test]
fn the_echo_of_the_second_copy_undoes_nothing_rfc3522_3_2() {
    let mut s = established(all_options());
    s.write(10 * 1448);
    s.drain();
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1448, 4 * 1448)]));
    s.expect(seg(".").seq(0).len(1448));
    let second = s.our_clock();
    s.advance(10);
    s.inject(seg(".").seq(0).ack(4 * 1448).echo(second));
    assert_eq!((s.info().recovery, s.info().undone), (Phase::FastRecovery, 0));
    s.finish();
}

/// RFC 4015 §3.3, §3.4 and §3.6: nothing more is sent again, the window is as before, and RTO allows for what was
/// measured.
#[test]
fn the_echo_of_the_first_copy_undoes_a_timeout_rfc4015_3() {
    let mut s = established(all_options());
    s.write(10 * 1448);
    assert_eq!(s.drain(), 10);
    let (first, cwnd) = (s.our_clock(), s.info().cwnd);
    s.advance(20);
    s.expect(seg(".").seq(9 * 1448).len(1448));
    s.connection.listen_in(true);
    assert_eq!(s.advance_to_timer(), 200);
    s.expect(seg(".").seq(0).len(1448));
    s.expect_silence();
    s.advance(30);
    s.inject(seg(".").seq(0).ack(1448).echo(first));
    let info = s.info();
    assert_eq!((info.recovery, info.lost, info.undone), (Phase::Open, 0, 1));
    assert!(info.cwnd >= cwnd);
    assert!(info.rto.as_millis() >= 250, "the round trip was 250 ms");
    s.expect_silence();
    let kinds: Vec<_> = core::iter::from_fn(|| s.connection.poll_trace()).map(|record| record.kind).collect();
    let reasons: Vec<_> = kinds
        .iter()
        .filter_map(|kind| match kind {
            Kind::CongestionWindow { reason, .. } => Some(*reason),
            _ => None,
        })
        .collect();
    assert_eq!(reasons, [WindowReason::Timeout, WindowReason::Undo]);
    let again = |kind: &Kind| matches!(kind, Kind::Retransmit { reason: RetransmitReason::Timeout, .. });
    assert!(kinds.iter().any(again));
    s.finish();
}
