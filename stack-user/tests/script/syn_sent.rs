//! SYN-SENT: the active open, step by step of RFC 9293 §3.10.7.3.

use crate::dsl::{Script, all_options, config, plain_options, seg};
use stack_user::{
    tcp::{Config, Error, Event, ReadError, State, WriteError, options::Options},
    telemetry::DropReason,
};

fn syn_sent() -> Script {
    Script::syn_sent(config())
}

// First step: the ACK.

/// RFC 9293 §3.10.7.3, first step: SEG.ACK =< ISS.
#[test]
fn a_syn_ack_that_acknowledges_our_iss_itself_is_reset_rfc9293_3_10_7_3() {
    let mut s = syn_sent();
    s.inject_dropped(seg("S.").seq(-1).ack(-1).options(plain_options()), DropReason::TcpUnacceptableAck);
    s.expect(seg("R").seq(-1));
    s.expect_silence();
    s.state(State::SynSent);
    s.finish();
}

/// RFC 9293 §3.10.7.3, first step: old numbers are as wrong as future ones, whatever else the segment carries.
#[test]
fn data_for_an_earlier_connection_is_reset_rfc9293_3_10_7_3() {
    let mut s = syn_sent();
    s.inject_dropped(seg("P.").seq(500).ack(-1000).data(b"old"), DropReason::TcpUnacceptableAck);
    s.expect(seg("R").seq(-1000));
    s.state(State::SynSent);
    s.finish();
}

/// RFC 9293 §3.10.7.3, first step: a reset is never answered with a reset.
#[test]
fn an_rst_with_an_ack_of_our_iss_is_not_answered_rfc9293_3_10_7_3() {
    let mut s = syn_sent();
    s.inject_dropped(seg("R.").seq(0).ack(-1), DropReason::TcpUnacceptableAck);
    s.expect_silence();
    s.state(State::SynSent);
    s.finish();
}

/// RFC 9293 §3.5, figure 10: the peer believes in a connection that we have forgotten; our reset ends its error, and a SYN
/// follows it at once.
#[test]
fn a_half_open_peer_is_reset_and_the_next_syn_connects_rfc9293_3_5_1() {
    let mut s = syn_sent();
    s.inject_dropped(seg(".").seq(300).ack(100), DropReason::TcpUnacceptableAck);
    s.expect(seg("R").seq(100));
    s.expect(seg("S").seq(-1));
    s.advance(10);
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.finish();
}

/// RFC 9293 §3.5.1: each false ACK is reset, but only the first has us send a SYN out of turn.
#[test]
fn a_second_half_open_answer_waits_for_the_time_out_rfc9293_3_5_1() {
    let mut s = syn_sent();
    s.inject_dropped(seg(".").seq(300).ack(100), DropReason::TcpUnacceptableAck);
    s.expect(seg("R").seq(100));
    s.expect(seg("S").seq(-1));
    s.inject_dropped(seg(".").seq(300).ack(100), DropReason::TcpUnacceptableAck);
    s.expect(seg("R").seq(100));
    s.expect_silence();
    s.expect_at(1000, seg("S").seq(-1));
    s.finish();
}

/// RFC 9293 §3.10.7.3: what was reset was somebody else's; ours still counts.
#[test]
fn the_true_syn_ack_counts_after_a_false_one() {
    let mut s = syn_sent();
    s.inject_dropped(seg("S.").seq(7000).ack(4).options(plain_options()), DropReason::TcpUnacceptableAck);
    s.expect(seg("R").seq(4));
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.finish();
}

// Fourth and fifth step: SYN, or nothing.

#[test]
fn the_right_ack_without_syn_is_dropped_rfc9293_3_10_7_3() {
    let mut s = syn_sent();
    s.inject_dropped(seg(".").seq(0).ack(0), DropReason::TcpNoAck);
    s.expect_silence();
    s.state(State::SynSent);
    s.finish();
}

#[test]
fn data_with_the_right_ack_but_without_syn_is_dropped_rfc9293_3_10_7_3() {
    let mut s = syn_sent();
    s.inject_dropped(seg("P.").seq(0).ack(0).data(b"too early"), DropReason::TcpNoAck);
    s.expect_silence();
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    assert_eq!(s.app_read(10), Err(ReadError::WouldBlock));
    s.finish();
}

/// RFC 9293 §3.10.7.3, fifth step.
#[test]
fn a_lone_fin_is_dropped_rfc9293_3_10_7_3() {
    let mut s = syn_sent();
    s.inject_dropped(seg("F").seq(0), DropReason::TcpNoAck);
    s.expect_silence();
    s.state(State::SynSent);
    s.finish();
}

/// RFC 9293 §3.10.7.3, fourth step: other controls are processed once the connection is established.
#[test]
fn a_syn_ack_with_fin_opens_and_half_closes_rfc9293_3_10_7_3() {
    let mut s = syn_sent();
    s.inject(seg("SF.").seq(-1).ack(0).options(plain_options()));
    s.state(State::CloseWait);
    s.expect(seg(".").seq(0).ack(1));
    assert_eq!(s.events(), [Event::Connected, Event::PeerClosed]);
    assert_eq!(s.app_read(10), Ok(vec![]));
    s.finish();
}

#[test]
fn a_syn_ack_with_data_and_fin_is_a_whole_answer_rfc9293_3_10_7_3() {
    let mut s = syn_sent();
    s.inject(seg("SFP.").seq(-1).ack(0).options(plain_options()).data(b"all"));
    s.state(State::CloseWait);
    s.expect(seg(".").seq(0).ack(4));
    assert_eq!(s.read(10), b"all");
    assert_eq!(s.app_read(10), Ok(vec![]));
    s.finish();
}

/// We did not offer ECN (RFC 3168 §6.1.1), so the bits mean nothing.
#[test]
fn ecn_bits_that_nobody_asked_for_are_ignored_rfc3168_6_1_1() {
    let mut s = syn_sent();
    s.inject(seg("S.EW").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0).exact_flags());
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.finish();
}

/// RFC 9293 §3.8.6: a window is what it is, even in SYN with ACK.
#[test]
fn a_syn_ack_with_a_window_of_zero_lets_nothing_through_yet() {
    let mut s = syn_sent();
    s.inject(seg("S.").seq(-1).ack(0).window(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    s.write(10);
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(0).window(100));
    s.expect(seg("P.").seq(0).len(10));
    s.finish();
}

/// RFC 9293 §3.10.7.3: the third segment may carry what the application has to say.
#[test]
fn the_third_segment_carries_data_if_there_is_any() {
    let mut s = syn_sent();
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    assert_eq!(s.events(), [Event::Connected]);
    s.write(10);
    s.expect(seg("P.").seq(0).ack(0).len(10));
    s.expect_silence();
    s.finish();
}

// The calls of the application.

/// RFC 9293 §3.10.2 lets SEND queue or fail in SYN-SENT; we ask to wait for `Connected`.
#[test]
fn writing_waits_for_the_connection_rfc9293_3_10_2() {
    let mut s = syn_sent();
    assert_eq!(s.app_write(b"early"), Err(WriteError::WouldBlock));
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    assert_eq!(s.events(), [Event::Connected]);
    assert_eq!(s.app_write(b"now"), Ok(3));
    s.expect(seg("P.").seq(0).data(b"now"));
    s.finish();
}

#[test]
fn reading_waits_for_the_connection_rfc9293_3_10_3() {
    let mut s = syn_sent();
    assert_eq!(s.app_read(10), Err(ReadError::WouldBlock));
    s.finish();
}

/// RFC 9293 §3.10.5: nobody has to be told of a connection that there never was.
#[test]
fn abort_in_syn_sent_sends_nothing_rfc9293_3_10_5() {
    let mut s = syn_sent();
    s.app_abort();
    s.expect_silence();
    assert_eq!(s.events(), [Event::Failed(Error::Aborted), Event::Closed]);
    assert!(s.connection.is_closed());
    s.finish();
}

#[test]
fn a_refusal_after_shutdown_is_a_refusal_all_the_same() {
    let mut s = syn_sent();
    s.app_shutdown();
    s.inject(seg("R.").seq(0).ack(0));
    assert_eq!(s.events(), [Event::Failed(Error::Refused), Event::Closed]);
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.10.7.1 leaves what comes after the end to whoever has no connection for it.
#[test]
fn nothing_is_answered_after_the_refusal() {
    let mut s = syn_sent();
    s.inject(seg("R.").seq(0).ack(0));
    s.inject_dropped(seg("S.").seq(-1).ack(0).options(plain_options()), DropReason::TcpNoConnection);
    s.expect_silence();
    s.finish();
}

// SYN again.

/// RFC 9293 §3.8.3, MUST-23: at least three minutes, with back-off (RFC 6298 §2.1 and §5.5).
#[test]
fn syn_is_repeated_for_three_minutes_must_23() {
    let mut s = syn_sent();
    for seconds in [1, 2, 4, 8, 16, 32, 64] {
        s.expect_at(seconds * 1000, seg("S").seq(-1));
    }
    s.expect_silence_for(52_999);
    assert_eq!(s.events(), [Event::Stalled], "and no end yet");
    s.expect_silence_for(1);
    assert_eq!(s.events(), [Event::Failed(Error::ConnectTimedOut), Event::Closed]);
    s.finish();
}

/// A SYN that is sent again is the same SYN; only its clock has moved (RFC 7323 §3.2).
#[test]
fn a_repeated_syn_offers_the_same_rfc7323_3_2() {
    let mut s = Script::new(config());
    let (first, _) = s.expect_any();
    s.advance(1000);
    let (second, _) = s.expect_any();
    assert_eq!((first.seq, first.window, first.flags), (second.seq, second.window, second.flags));
    let without_clock = |options: Options| Options { timestamps: None, ..options };
    assert_eq!(without_clock(first.options), without_clock(second.options));
    let clock = |options: Options| options.timestamps.expect("timestamps").value;
    assert_eq!(clock(second.options) - clock(first.options), 1000);
    s.finish();
}

/// RFC 6298 §5.7: after a lost SYN, data starts with an RTO of 3 s if there is no sample.
#[test]
fn after_a_lost_syn_rto_is_3_seconds_rfc6298_5_7() {
    let mut s = syn_sent();
    s.expect_at(1000, seg("S").seq(-1));
    s.advance(10);
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    assert_eq!(s.info().srtt, None, "RFC 6298 §3: which SYN was answered, nobody knows");
    s.write(10);
    s.expect(seg("P.").seq(0).len(10));
    s.expect_at(3000, seg("P.").seq(0).len(10));
    s.finish();
}

/// RFC 7323 §4.1: the echo tells which SYN was answered.
#[test]
fn the_echo_tells_which_syn_was_answered_rfc7323_4_1() {
    let mut s = syn_sent();
    s.expect_at(1000, seg("S").seq(-1));
    s.advance(50);
    s.inject(seg("S.").seq(-1).ack(0).options(all_options()));
    assert_eq!(s.info().srtt.map(|srtt| srtt.as_millis()), Some(50));

    let mut s = syn_sent();
    let first = s.our_clock();
    s.expect_at(1000, seg("S").seq(-1));
    s.advance(50);
    s.inject(seg("S.").seq(-1).ack(0).options(all_options()).echo(first));
    assert_eq!(s.info().srtt.map(|srtt| srtt.as_millis()), Some(1050));
    s.finish();
}

/// RFC 6298 §2.2: the handshake is the first sample: SRTT = R, RTTVAR = R/2, RTO = SRTT + 4 RTTVAR.
#[test]
fn the_handshake_is_the_first_sample_rfc6298_2_2() {
    let mut s = syn_sent();
    s.advance(100);
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    let info = s.info();
    assert_eq!(info.srtt.map(|srtt| srtt.as_millis()), Some(100));
    assert_eq!(info.rttvar.map(|rttvar| rttvar.as_millis()), Some(50));
    assert_eq!(s.rto(), 300);
    s.finish();
}

/// RFC 6928 §2: one lost SYN may have been an RTO that was too short.
#[test]
fn one_lost_syn_leaves_the_initial_window_rfc6928_2() {
    let mut s = syn_sent();
    s.expect_at(1000, seg("S").seq(-1));
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    assert_eq!(s.info().cwnd, 10_000);
    s.finish();
}

/// RFC 6928 §2: two lost SYNs mean congestion.
#[test]
fn two_lost_syns_make_the_initial_window_one_segment_rfc6928_2() {
    let mut s = syn_sent();
    s.expect_at(1000, seg("S").seq(-1));
    s.expect_at(2000, seg("S").seq(-1));
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    s.write(5000);
    s.expect(seg(".").seq(0).len(1000));
    s.expect_silence();
    s.finish();
}

/// RFC 6928 §2: min(10 MSS, max(2 MSS, 14600)).
#[test]
fn the_initial_window_is_ten_segments_rfc6928_2() {
    let mut s = Script::established(config(), plain_options());
    s.write(20_000);
    for i in 0..10 {
        s.expect(seg(".").seq(i * 1000).len(1000));
    }
    s.expect_silence();
    s.finish();
}

/// RFC 6928 §2: large segments, fewer of them.
#[test]
fn the_initial_window_of_jumbo_segments_is_14600_bytes_rfc6928_2() {
    let peer = Options { mss: Some(1800), ..Options::default() };
    let mut s = Script::established(Config { mss: 1800, ..config() }, peer);
    assert_eq!((s.info().mss, s.info().cwnd), (1800, 14_600));
    s.write(20_000);
    assert_eq!(s.drain(), 8, "14600 / 1800");
    s.finish();
}

/// RFC 9293 §3.8: a SYN with ACK that comes late, for the first SYN, after the second went out, connects, and a second
/// one is answered.
#[test]
fn both_answers_to_two_syns_are_acknowledged() {
    let mut s = syn_sent();
    s.expect_at(1000, seg("S").seq(-1));
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    s.advance(20);
    s.inject_dropped(seg("S.").seq(-1).ack(0).options(plain_options()), DropReason::TcpOutOfWindow);
    s.expect(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.expect_silence_for(60_000);
    s.finish();
}
