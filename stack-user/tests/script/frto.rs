//! F-RTO (RFC 5682): time-outs that were none.

use crate::dsl::{Script, plain_options, sack_options, seg};
use stack_user::{
    frame::FramePool,
    tcp::{Config, congestion::Algorithm, options::Options, recovery::Phase, send_queue::RESERVED_CHUNKS},
};

fn established(peer: Options) -> Script {
    let config = Config { congestion: Algorithm::NewReno, ..Config::default() };
    Script::established(config, peer)
}

/// Four segments are in flight when the timer expires, and four more wait.
fn timed_out() -> Script {
    let mut s = established(plain_options());
    s.write(4000);
    assert_eq!(s.drain(), 4);
    assert_eq!(s.advance_to_timer(), 200);
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.write(4000);
    s.expect_silence();
    assert_eq!((s.info().recovery, s.info().cwnd), (Phase::Loss, 1000));
    s
}

/// RFC 5682 §4: the window is as before.
#[test]
fn two_acks_of_what_was_sent_once_undo_the_timeout_rfc5682_2_1() {
    let mut s = timed_out();
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(4000).ack(0).len(1000));
    s.expect(seg(".").seq(5000).ack(0).len(1000));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(2000));
    let info = s.info();
    assert_eq!((info.recovery, info.undone), (Phase::Open, 1));
    assert!(info.cwnd >= 10_000, "as before");
    s.expect(seg(".").seq(6000).ack(0).len(1000));
    s.expect(seg(".").seq(7000).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(8000));
    assert_eq!(s.info().retransmissions, 1);
    s.finish();
}

#[test]
fn a_duplicate_ack_after_the_new_data_means_a_real_loss_rfc5682_2_1() {
    let mut s = timed_out();
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(4000).ack(0).len(1000));
    s.expect(seg(".").seq(5000).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    assert_eq!((s.info().recovery, s.info().undone), (Phase::Loss, 0));
    s.finish();
}

#[test]
fn a_duplicate_ack_at_once_means_a_real_loss_rfc5682_2_1() {
    let mut s = timed_out();
    s.inject(seg(".").seq(0).ack(0));
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.finish();
}

#[test]
fn an_ack_of_all_ends_the_recovery_rfc5682_2_1() {
    let mut s = timed_out();
    s.inject(seg(".").seq(0).ack(4000));
    assert_eq!((s.info().recovery, s.info().undone), (Phase::Open, 0));
    s.finish();
}

#[test]
fn without_new_data_the_usual_recovery_goes_on_rfc5682_2_1() {
    let mut s = established(plain_options());
    s.write(4000);
    s.drain();
    s.advance_to_timer();
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.expect(seg(".").seq(2000).ack(0).len(1000));
    s.finish();
}

/// RFC 5682 §2.1, step 2b: one segment of new data asks as well as two.
#[test]
fn one_new_segment_is_enough_rfc5682_2_1() {
    let mut s = established(plain_options());
    s.write(4000);
    s.drain();
    s.advance_to_timer();
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.write(1000);
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(4000).ack(0).len(1000));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(2000));
    assert_eq!((s.info().recovery, s.info().undone), (Phase::Open, 1));
    s.finish();
}

/// RFC 5682 §2.1, step 2b: the peer's window must take it.
#[test]
fn a_full_window_leaves_the_usual_recovery_rfc5682_2_1() {
    let mut s = Script::new(Config { congestion: Algorithm::NewReno, ..Config::default() });
    s.handshake(plain_options(), 4000);
    s.write(8000);
    assert_eq!(s.drain(), 4);
    s.advance_to_timer();
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000).window(3000));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.finish();
}

/// RFC 5682 §2.2: not one ACK came in between, so the question is still open.
#[test]
fn a_second_timeout_of_the_same_segment_asks_again_rfc5682_2_1() {
    let mut s = timed_out();
    s.advance_to_timer();
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(4000).ack(0).len(1000));
    s.expect(seg(".").seq(5000).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(2000));
    let info = s.info();
    assert_eq!((info.timeouts, info.recovery, info.undone), (2, Phase::Open, 1));
    assert!(info.cwnd >= 10_000, "as before the first");
    s.finish();
}

/// RFC 5682 §2.1, step 1: what is acknowledged then may be what was sent again.
#[test]
fn a_timeout_later_in_the_recovery_asks_no_more_rfc5682_2_1() {
    let mut s = timed_out();
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(4000).ack(0).len(1000));
    s.expect(seg(".").seq(5000).ack(0).len(1000));
    s.advance_to_timer();
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(2000));
    s.expect(seg(".").seq(2000).ack(0).len(1000));
    assert_eq!((s.info().timeouts, s.info().undone), (2, 0));
    s.finish();
}

/// Ten segments and a probe are in flight when the timer expires; more waits.
fn timed_out_with_sack() -> Script {
    let mut s = established(sack_options());
    s.write(20_000);
    assert_eq!(s.drain(), 10);
    s.advance(20);
    s.expect(seg(".").seq(10_000).ack(0).len(1000));
    assert_eq!(s.advance_to_timer(), 200);
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.expect_silence();
    s
}

#[test]
fn a_sack_of_what_was_sent_once_undoes_the_timeout_rfc5682_3_1() {
    let mut s = timed_out_with_sack();
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(11_000).ack(0).len(1000));
    s.expect(seg(".").seq(12_000).ack(0).len(1000));
    s.expect_silence();
    // The second is lost, but the third, sent before the time-out, was only late.
    s.inject(seg(".").seq(0).ack(1000).sack(&[(2000, 3000)]));
    assert_eq!(s.info().undone, 1);
    s.finish();
}

#[test]
fn a_sack_of_the_new_data_alone_means_a_real_loss_rfc5682_3_1() {
    let mut s = timed_out_with_sack();
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(11_000).ack(0).len(1000));
    s.expect(seg(".").seq(12_000).ack(0).len(1000));
    s.advance(10);
    s.inject(seg(".").seq(0).ack(1000).sack(&[(11_000, 12_000)]));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    assert_eq!((s.info().recovery, s.info().undone), (Phase::Loss, 0));
    s.finish();
}

/// RFC 5682 §2.1, step 2, speaks of acknowledgements that advance or are duplicates. Data of the peer's that happens to
/// repeat one is neither, and neither is a window update.
#[test]
fn what_is_no_answer_decides_nothing_rfc5682_2_1() {
    let mut s = timed_out();
    s.inject(seg(".").seq(0).ack(0).len(100));
    s.drain();
    s.inject(seg(".").seq(100).ack(0).window(60_000));
    s.inject(seg(".").seq(100).ack(1000).window(60_000));
    s.expect(seg(".").seq(4000).ack(100).len(1000));
    s.expect(seg(".").seq(5000).ack(100).len(1000));
    s.expect_silence();
    s.inject(seg(".").seq(100).ack(1000).window(61_000));
    s.expect_silence();
    s.inject(seg(".").seq(100).ack(2000).window(61_000));
    assert_eq!((s.info().recovery, s.info().undone), (Phase::Open, 1));
    s.finish();
}

/// RFC 5682 §3.1, step 2: with SACK, a duplicate ACK before the first that advances is no answer yet.
#[test]
fn with_sack_the_first_ack_that_advances_is_waited_for_rfc5682_3_1() {
    let mut s = timed_out_with_sack();
    s.inject(seg(".").seq(0).ack(0).sack(&[(9000, 10_000)]));
    s.drain();
    s.inject(seg(".").seq(0).ack(1000).sack(&[(9000, 10_000)]));
    s.expect(seg(".").seq(11_000).ack(0).len(1000));
    s.finish();
}

/// New data that would have to be cut, when there is no chunk for its tail, is none that can be sent now.
#[test]
fn who_has_no_chunk_to_ask_with_goes_on_with_the_recovery_rfc5682_2_1() {
    let mut s = timed_out();
    let taken: Vec<_> =
        core::iter::from_fn(|| (s.pool.available() > RESERVED_CHUNKS - 5).then(|| s.pool.allocate())?)
            .collect();
    s.inject(seg(".").seq(0).ack(1000).window(3500));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    taken.into_iter().for_each(|frame| s.pool.release(frame));
    s.finish();
}

/// RFC 5682 §3.1: data that was sent while a loss was being repaired would seem to answer.
#[test]
fn a_timeout_in_a_recovery_is_not_asked_about_rfc5682_3_1() {
    let mut s = established(sack_options());
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 10_000)]));
    s.expect(seg(".").seq(0).len(1000));
    s.drain();
    assert_eq!(s.info().recovery, Phase::FastRecovery);
    while s.info().recovery != Phase::Loss {
        s.advance_to_timer();
    }
    s.expect(seg(".").seq(0).len(1000));
    s.drain();
    s.inject(seg(".").seq(0).ack(10_000));
    // Were it asked, nothing but new data would go, and the first ACK of what went in the recovery would say "spurious".
    s.drain();
    s.inject(seg(".").seq(0).ack(11_000));
    assert_eq!(s.info().undone, 0);
    s.finish();
}

/// RFC 5682 §3.1, step 3: an ACK that comes for both what was sent before the time-out and what was sent after it may be
/// the repair's.
#[test]
fn an_ack_of_new_data_as_well_proves_nothing_rfc5682_3_1() {
    let mut s = established(sack_options());
    s.write(4000);
    assert_eq!(s.drain(), 4);
    while s.info().recovery != Phase::Loss {
        s.advance_to_timer();
        s.drain();
    }
    s.write(4000);
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(4000).len(1000));
    s.expect(seg(".").seq(5000).len(1000));
    s.inject(seg(".").seq(0).ack(2000).sack(&[(4000, 5000)]));
    assert_eq!((s.info().recovery, s.info().undone), (Phase::Loss, 0));
    s.finish();
}

/// RFC 5682 §2.1, step 2a: an ACK of a part of what was sent again does not ask.
#[test]
fn an_ack_of_a_part_asks_nothing_rfc5682_2_1() {
    let mut s = timed_out();
    s.inject(seg(".").seq(0).ack(500));
    s.expect_silence();
    // No new data: the usual recovery goes on.
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.finish();
}
