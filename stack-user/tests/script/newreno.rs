//! Loss recovery without SACK (RFC 5681 §3.2, RFC 6582), and limited transmit (RFC 3042).

use crate::dsl::{Script, config, plain_options, sack_options, seg};
use stack_user::tcp::{Config, congestion::Algorithm, options::Options, recovery::Phase};

fn established(peer: Options) -> Script {
    let config = Config { congestion: Algorithm::NewReno, ..Config::default() };
    Script::established(config, peer)
}

/// RFC 3042 §2: each of the first two duplicate ACKs lets a new segment out, and the window stays as it is.
#[test]
fn two_duplicate_acks_let_two_new_segments_out_rfc3042_2() {
    let mut s = established(plain_options());
    s.write(20_000);
    assert_eq!(s.drain(), 10);
    for seq in [10_000, 11_000] {
        s.inject(seg(".").seq(0).ack(0));
        s.expect(seg(".").seq(seq).ack(0).len(1000));
        s.expect_silence();
    }
    assert_eq!((s.info().cwnd, s.info().recovery), (10_000, Phase::Open));
    s.inject(seg(".").seq(0).ack(0));
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.finish();
}

#[test]
fn sacks_let_new_segments_out_as_well_rfc3042_2() {
    let mut s = established(sack_options());
    s.write(20_000);
    assert_eq!(s.drain(), 10);
    for (end, seq) in [(2000, 10_000), (3000, 11_000)] {
        s.inject(seg(".").seq(0).ack(0).sack(&[(1000, end)]));
        s.expect(seg(".").seq(seq).ack(0).len(1000));
        s.expect_silence();
    }
    s.finish();
}

/// RFC 3042 §2: only if the peer's window takes it.
#[test]
fn limited_transmit_obeys_the_peers_window_rfc3042_2() {
    let mut s = Script::new(Config::default());
    s.handshake(plain_options(), 4000);
    s.write(10_000);
    assert_eq!(s.drain(), 4);
    s.inject(seg(".").seq(0).ack(0).window(4000));
    s.expect_silence();
    s.finish();
}

/// RFC 6582 §3.2, step 3: each partial ACK repairs the next hole, and the window is reduced once.
#[test]
fn partial_acks_repair_one_hole_each_rfc6582_3_2() {
    let mut s = established(plain_options());
    s.write(10_000);
    assert_eq!(s.drain(), 10);
    for _ in 0..3 {
        s.inject(seg(".").seq(0).ack(0));
    }
    s.expect(seg(".").seq(0).ack(0).len(1000));
    for hole in [3000, 5000, 8000] {
        s.inject(seg(".").seq(0).ack(hole));
        s.expect(seg(".").seq(hole).ack(0).len(1000));
        s.expect_silence();
        assert_eq!((s.info().recovery, s.info().ssthresh), (Phase::FastRecovery, 5000));
    }
    s.inject(seg(".").seq(0).ack(10_000));
    assert_eq!((s.info().recovery, s.info().retransmissions), (Phase::Open, 4));
    s.finish();
}

/// RFC 6582 §4.1: as long as partial ACKs come, the timer does not end the recovery.
#[test]
fn a_partial_ack_starts_the_timer_again_rfc6582_4_1() {
    let mut s = established(plain_options());
    s.write(10_000);
    s.drain();
    s.advance(100);
    for _ in 0..3 {
        s.inject(seg(".").seq(0).ack(0));
    }
    s.drain();
    for hole in [3000, 5000, 8000] {
        s.advance(150);
        s.inject(seg(".").seq(0).ack(hole));
        s.expect(seg(".").seq(hole).ack(0).len(1000));
    }
    assert_eq!((s.info().recovery, s.info().timeouts), (Phase::FastRecovery, 0));
    s.finish();
}

/// RFC 6582 §3.2, step 1: duplicates that the repair itself causes start no second recovery.
#[test]
fn duplicates_of_the_repair_start_no_recovery_rfc6582_3_2() {
    let mut s = established(plain_options());
    s.write(10_000);
    s.drain();
    for _ in 0..3 {
        s.inject(seg(".").seq(0).ack(0));
    }
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(10_000));
    s.write(5000);
    s.drain();
    let before = s.info();
    for _ in 0..4 {
        s.inject(seg(".").seq(0).ack(10_000));
    }
    s.expect_silence();
    assert_eq!(s.info().retransmissions, before.retransmissions);
    s.finish();
}

/// RFC 6582 §3.2, step 4: after a time-out, duplicates of what was sent before it start no fast recovery.
#[test]
fn after_a_timeout_duplicates_start_no_fast_recovery_rfc6582_3_2() {
    let mut s = established(plain_options());
    s.write(5000);
    s.drain();
    s.advance_to_timer();
    s.expect(seg(".").seq(0).ack(0).len(1000));
    for _ in 0..4 {
        s.inject(seg(".").seq(0).ack(0));
    }
    assert_eq!(s.info().recovery, Phase::Loss);
    s.finish();
}

/// RFC 5681 §3.2: nobody can make us send by acknowledging what is not there.
#[test]
fn more_duplicates_than_segments_count_nothing_rfc5681_3_2() {
    let mut s = established(plain_options());
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    let mut sent = 0;
    for _ in 0..1000 {
        s.inject(seg(".").seq(0).ack(0));
        sent += s.drain();
    }
    assert!(sent <= 20, "{sent} segments for a thousand duplicates");
    s.finish();
}

/// RFC 5681 §3.2, step 4: a duplicate ACK says that a segment has left the network, and that may have been a small one. It
/// makes no room for a full one.
#[test]
fn duplicate_acks_of_small_segments_make_no_room_for_full_ones_rfc5681_3_2() {
    let mut s = Script::established(Config { nodelay: true, ..config() }, plain_options());
    for _ in 0..20 {
        s.write(10);
        assert_eq!(s.drain(), 1);
    }
    for _ in 0..19 {
        s.inject(seg(".").seq(0).ack(0));
        s.drain();
    }
    s.write(30_000);
    assert!(s.drain() <= 4, "ssthresh is two full segments");
    s.finish();
}
