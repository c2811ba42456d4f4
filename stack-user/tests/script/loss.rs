//! Retransmission, by the timer and before it.

use crate::dsl::{Script, all_options, config, pattern, plain_options, sack_options, seg};
use stack_user::tcp::{Config, Error, Event, Unreachable, congestion::Algorithm, recovery::Phase};
use stack_user::{frame::FramePool, telemetry::DropReason, time::Duration};

fn established(peer: stack_user::tcp::options::Options) -> Script {
    Script::established(config(), peer)
}

/// Writes `n` segments of 1000 bytes and expects them.
fn send(s: &mut Script, n: i64) {
    s.write(n as usize * 1000);
    for i in 0..n {
        s.expect(seg(".").seq(i * 1000).ack(0).len(1000));
    }
    s.expect_silence();
}

#[test]
fn the_timer_sends_the_first_segment_again_and_doubles_rfc6298_5() {
    let mut s = established(plain_options());
    send(&mut s, 3);
    assert_eq!(s.advance_to_timer(), 200, "an RTT of 10 ms: RTO is at its minimum");
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.expect_silence();
    assert_eq!(s.advance_to_timer(), 400);
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.expect_silence();
    assert_eq!(s.connection.info().cwnd, 1000);
    // Slow start repairs the rest.
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.expect(seg(".").seq(2000).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(3000));
    assert_eq!(s.connection.info().recovery, Phase::Open);
    s.expect_silence();
    s.finish();
}

#[test]
fn a_sample_is_not_taken_of_what_was_sent_twice_must_18() {
    let mut s = established(plain_options());
    let before = s.connection.info().srtt;
    send(&mut s, 1);
    s.advance(200);
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.advance(150);
    s.inject(seg(".").seq(0).ack(1000));
    assert_eq!(s.connection.info().srtt, before);
    assert_eq!(s.connection.info().rto.as_millis(), 400, "Karn: backed off until there is a sample");
    s.finish();
}

#[test]
fn an_ack_of_some_restarts_the_timer_rfc6298_5_3() {
    let mut s = established(plain_options());
    send(&mut s, 2);
    s.advance(150);
    s.inject(seg(".").seq(0).ack(1000));
    let rto = s.connection.info().rto.as_millis() as u64;
    assert_eq!(s.advance_to_timer(), rto);
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.finish();
}

#[test]
fn a_peer_that_never_answers_times_out() {
    let config = Config { user_timeout: Duration::from_secs(100), ..config() };
    let mut s = Script::established(config, plain_options());
    send(&mut s, 1);
    let start = s.now;
    while !s.connection.is_closed() {
        s.advance_to_timer();
        while s.poll().is_some() {}
    }
    assert_eq!(s.now.since(start), Duration::from_secs(100));
    assert_eq!(s.events(), [Event::Stalled, Event::Failed(Error::TimedOut), Event::Closed]);
    s.finish();
}

#[test]
fn three_duplicate_acks_repair_and_partial_acks_go_on_rfc6582() {
    let mut s = established(plain_options());
    send(&mut s, 8);
    for _ in 0..2 {
        s.inject(seg(".").seq(0).ack(0));
        s.expect_silence();
    }
    s.inject(seg(".").seq(0).ack(0));
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.expect_silence();
    assert_eq!(s.connection.info().recovery, Phase::FastRecovery);
    assert_eq!(s.connection.info().ssthresh, 4000, "half of the flight");
    for _ in 0..4 {
        s.inject(seg(".").seq(0).ack(0));
    }
    // The segment at 4000 is lost, too.
    s.inject(seg(".").seq(0).ack(4000));
    s.expect(seg(".").seq(4000).ack(0).len(1000));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(8000));
    assert_eq!(s.connection.info().recovery, Phase::Open);
    assert!(s.connection.info().cwnd <= 5000);
    s.finish();
}

#[test]
fn what_is_no_duplicate_ack_by_rfc5681_2_does_not_count() {
    let mut s = established(plain_options());
    send(&mut s, 8);
    for i in 0..5 {
        s.inject(seg(".").seq(i64::from(i)).ack(0).window(60_000 + i));
        s.inject(seg(".").seq(i64::from(i)).ack(0).data(b"x").window(60_000 + i));
        s.expect(seg(".").seq(8000));
        s.expect_silence();
    }
    assert_eq!(s.connection.info().retransmissions, 0);
    s.finish();
}

/// RFC 2018 §5: what was sacked is not sent again.
#[test]
fn sack_repairs_each_hole_once_rfc6675() {
    let mut s = established(sack_options());
    send(&mut s, 10);
    // 0 and 2000 are lost.
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 2000)]));
    s.inject(seg(".").seq(0).ack(0).sack(&[(3000, 4000), (1000, 2000)]));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(0).sack(&[(3000, 5000), (1000, 2000)]));
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(0).sack(&[(3000, 6000), (1000, 2000)]));
    s.inject(seg(".").seq(0).ack(0).sack(&[(3000, 8000), (1000, 2000)]));
    s.expect(seg(".").seq(2000).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(0).sack(&[(3000, 10_000), (1000, 2000)]));
    s.inject(seg(".").seq(0).ack(2000).sack(&[(3000, 10_000)]));
    s.inject(seg(".").seq(0).ack(10_000));
    s.expect_silence();
    let info = s.connection.info();
    assert_eq!((info.retransmissions, info.timeouts, info.recovery), (2, 0, Phase::Open));
    s.finish();
}

#[test]
fn a_peer_that_reneges_gets_all_again_rfc2018_8() {
    let mut s = established(sack_options());
    send(&mut s, 3);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 3000)]));
    s.advance(300);
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.expect(seg(".").seq(2000).ack(0).len(1000));
    s.finish();
}

/// RFC 2018 §4: the peer is told what came out of order, even while we send data, which has no room for it.
#[test]
fn data_that_is_sent_does_not_swallow_the_sack_rfc2018_4() {
    let mut s = established(sack_options());
    s.write(2000);
    s.inject(seg(".").seq(1000).ack(0).len(1000));
    s.expect(seg(".").seq(0).ack(0).len(1000));
    s.expect(seg(".").seq(1000).ack(0).len(1000));
    s.expect(seg(".").seq(2000).ack(0).sack(&[(1000, 2000)]));
    s.expect_silence();
    s.finish();
}

#[test]
fn senseless_sack_blocks_count_nothing() {
    let mut s = established(sack_options());
    send(&mut s, 3);
    let blocks = [(2000, 1000), (-5000, -1000), (1000, 9000), (-70_000, 2000)];
    for _ in 0..4 {
        s.inject(seg(".").seq(0).ack(0).sack(&blocks));
    }
    s.expect_silence();
    s.finish();
}

#[test]
fn a_frame_that_the_nic_still_has_is_sent_again_when_it_is_back() {
    let mut s = established(plain_options());
    s.hold_frames = true;
    send(&mut s, 1);
    s.advance(200);
    s.expect_silence();
    s.complete();
    s.expect(seg(".").seq(0).ack(0).len(1000));
    // Acknowledged while the NIC has it: it goes to the pool when it comes back.
    s.inject(seg(".").seq(0).ack(1000));
    s.complete();
    s.finish();
}

#[test]
fn timestamps_tell_the_round_trip_of_a_retransmission_rfc7323_4() {
    let mut s = Script::established(config(), all_options());
    s.write(500);
    s.expect(seg(".").seq(0).ack(0).len(500));
    s.advance(200);
    s.expect(seg(".").seq(0).ack(0).len(500));
    s.advance(30);
    s.inject(seg(".").seq(0).ack(500));
    assert!(s.connection.info().rto.as_millis() < 300, "a sample ends the back-off");
    s.finish();
}

#[test]
fn an_ack_of_what_was_never_sent_is_challenged_rfc5961_5() {
    let mut s = established(plain_options());
    send(&mut s, 1);
    s.inject_dropped(seg(".").seq(0).ack(1001), DropReason::TcpUnacceptableAck);
    s.expect(seg(".").seq(1000).ack(0));
    s.inject_dropped(seg(".").seq(0).ack(-70_000), DropReason::TcpUnacceptableAck);
    s.expect(seg(".").seq(1000).ack(0));
    s.finish();
}

#[test]
fn an_ack_inside_a_segment_moves_una_and_the_rest_comes_again() {
    let mut s = established(plain_options());
    send(&mut s, 1);
    s.inject(seg(".").seq(0).ack(400));
    s.advance(300);
    let (segment, data) = s.poll().expect("a retransmission");
    assert_eq!(data, pattern(0, 1000), "as it was: {segment:?}");
    s.inject(seg(".").seq(0).ack(1000));
    s.finish();
}

#[test]
fn a_smaller_path_mtu_cuts_what_was_sent_rfc1191() {
    let mut s = established(plain_options());
    send(&mut s, 2);
    let kind = stack_user::tcp::Unreachable::FragmentationNeeded { mtu: 640 };
    let quoted = stack_user::tcp::SeqNumber(u32::MAX - 4);
    s.connection.handle_unreachable(s.now, &mut s.pool, kind, Some(quoted));
    s.connection.check_invariants();
    for (seq, len) in [(0, 600), (600, 400), (1000, 600), (1600, 400)] {
        s.expect(seg(".").seq(seq).ack(0).len(len));
    }
    s.inject(seg(".").seq(0).ack(2000));
    s.finish();
}

#[test]
fn after_a_pause_the_window_starts_again_rfc5681_4_1() {
    let config = Config { congestion: Algorithm::NewReno, ..config() };
    let mut s = Script::established(config, plain_options());
    for round in 0..10 {
        s.write(10_000);
        for i in 0..10 {
            s.expect(seg(".").seq(round * 10_000 + i * 1000).ack(0).len(1000));
        }
        s.inject(seg(".").seq(0).ack((round + 1) * 10_000));
    }
    assert!(s.connection.info().cwnd > 10_000);
    s.advance(5_000);
    s.write(1000);
    s.expect(seg(".").seq(100_000).len(1000));
    assert_eq!(s.connection.info().cwnd, 10_000);
    s.finish();
}

/// RFC 1191 §6.2: what is too large for the path is cut. Without a chunk to do it with, it waits for one.
#[test]
fn what_is_too_large_is_not_sent_as_it_is_for_want_of_a_chunk_rfc1191() {
    let mut s = established(plain_options());
    send(&mut s, 2);
    let mut held = Vec::new();
    while let Some(frame) = s.pool.allocate() {
        held.push(frame);
    }
    s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 640 }, 0);
    s.expect_silence();
    held.into_iter().for_each(|frame| s.pool.release(frame));
    assert_eq!(s.advance_to_timer(), 5);
    s.expect(seg(".").seq(0).ack(0).len(600));
    s.expect(seg(".").seq(600).ack(0).len(400));
    s.finish();
}

/// Ten segments, of which the first is overtaken and sent again; the others arrive, and four of new data go out.
fn recovering() -> Script {
    let config = Config { congestion: Algorithm::NewReno, ..config() };
    let mut s = Script::established(config, sack_options());
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 4000)]));
    s.expect(seg(".").seq(0).len(1000));
    assert_eq!((s.info().recovery, s.info().ssthresh), (Phase::FastRecovery, 5000));
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 10_000)]));
    let new = s.drain();
    s.advance(10);
    assert_eq!(new + s.drain(), 4, "new data, paced");
    s
}

/// RFC 5681 §4.3: what is lost of the data that was sent since the window was reduced is another window's loss.
#[test]
fn losses_in_two_windows_reduce_twice_rfc5681_4_3() {
    let mut s = recovering();
    s.inject(seg(".").seq(0).ack(10_000).sack(&[(11_000, 14_000)]));
    s.expect(seg(".").seq(10_000).len(1000));
    assert_eq!((s.info().recovery, s.info().ssthresh), (Phase::FastRecovery, 2000), "half of four segments");
    s.inject(seg(".").seq(0).ack(14_000));
    assert_eq!(s.info().recovery, Phase::Open);
    s.finish();
}

/// The same, and the first is not repaired yet.
#[test]
fn the_second_window_counts_though_the_first_is_not_repaired_rfc5681_4_3() {
    let mut s = recovering();
    s.inject(seg(".").seq(0).ack(0).sack(&[(11_000, 12_000), (1000, 10_000)]));
    assert_eq!(s.info().ssthresh, 2500);
    s.finish();
}

/// RFC 5681 §4.3: the loss of a retransmission is a sign of congestion, too.
#[test]
fn a_lost_retransmission_reduces_again_rfc5681_4_3() {
    let mut s = recovering();
    // What was sent after the repair has arrived, and the repair has not.
    s.inject(seg(".").seq(0).ack(0).sack(&[(1000, 14_000)]));
    s.expect(seg(".").seq(0).len(1000));
    assert_eq!((s.info().recovery, s.info().ssthresh), (Phase::FastRecovery, 2500));
    s.finish();
}

/// RFC 5681 §4.3: all losses of one window are one sign of congestion, whenever they are found.
#[test]
fn losses_of_one_window_reduce_once_rfc5681_4_3() {
    let mut s = Script::established(Config { congestion: Algorithm::NewReno, ..config() }, sack_options());
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    s.advance(10);
    for blocks in
        [&[(1000, 4000)][..], &[(5000, 7000), (1000, 4000)], &[(8000, 9000), (5000, 7000), (1000, 4000)]]
    {
        s.inject(seg(".").seq(0).ack(0).sack(blocks));
        s.drain();
        assert_eq!(s.info().ssthresh, 5000);
    }
    s.finish();
}

/// RFC 5681 §4.3, after a time-out: what is lost of the repair ends slow start.
#[test]
fn a_loss_in_the_repair_after_a_timeout_reduces_again_rfc5681_4_3() {
    let mut s = Script::established(Config { congestion: Algorithm::NewReno, ..config() }, sack_options());
    s.write(40_000);
    assert_eq!(s.drain(), 10);
    while s.info().recovery != Phase::Loss {
        s.advance_to_timer();
        s.drain();
    }
    assert_eq!(s.info().ssthresh, 5000);
    // The repair arrives, and new data asks whether the time-out was needed: it was.
    s.inject(seg(".").seq(0).ack(1000));
    s.drain();
    s.inject(seg(".").seq(0).ack(1000).sack(&[(11_000, 12_000)]));
    s.expect(seg(".").seq(1000).len(1000));
    s.inject(seg(".").seq(0).ack(1000).sack(&[(11_000, 13_000)]));
    s.expect(seg(".").seq(2000).len(1000));
    assert_eq!((s.info().recovery, s.info().ssthresh), (Phase::Loss, 5000));
    s.advance(10);
    s.inject(seg(".").seq(0).ack(1000).sack(&[(2000, 3000), (11_000, 13_000)]));
    s.expect(seg(".").seq(1000).len(1000));
    assert_eq!((s.info().recovery, s.info().ssthresh), (Phase::FastRecovery, 2000));
    s.finish();
}
