//! Both sides send SYN (RFC 9293 §3.5, figure 7): SYN-RECEIVED without a listener.

use crate::dsl::{Script, all_options, config, plain_options, seg};
use stack_user::{
    tcp::{Error, Event, State},
    telemetry::DropReason,
};

/// Both SYNs have crossed, and our SYN with ACK is on its way.
fn syn_received() -> Script {
    let mut s = Script::syn_sent(config());
    s.inject(seg("S").seq(-1).options(plain_options()));
    s.expect(seg("S.").seq(-1).ack(0));
    s.state(State::SynReceived);
    s
}

/// RFC 9293 §3.5, MUST-10; RFC 6298 §2.1.
#[test]
fn a_lost_syn_ack_is_sent_again_with_back_off() {
    let mut s = syn_received();
    s.expect_at(1000, seg("S.").seq(-1).ack(0));
    s.expect_at(2000, seg("S.").seq(-1).ack(0));
    s.inject(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.finish();
}

/// RFC 7323 §2.2 and §3.2, RFC 2018 §2: SYN with ACK has the options that the peer's SYN had, and no more.
#[test]
fn syn_ack_has_only_the_options_of_the_syn_rfc7323_2_2() {
    let mut s = Script::syn_sent(config());
    s.inject(seg("S").seq(-1).options(plain_options()));
    let (answer, _) = s.expect_any();
    assert_eq!(answer.options.mss, Some(1460), "MUST-14");
    let options = answer.options;
    assert!(options.window_scale.is_none() && options.timestamps.is_none() && !options.sack_permitted);
    s.finish();
}

#[test]
fn syn_ack_has_all_options_if_the_syn_had_them_rfc7323_3_2() {
    let mut s = Script::syn_sent(config());
    let theirs = s.peer_clock();
    s.inject(seg("S").seq(-1).options(all_options()));
    let (answer, _) = s.expect_any();
    let options = answer.options;
    assert!(options.window_scale.is_some() && options.sack_permitted);
    assert_eq!(options.timestamps.map(|ts| ts.echo), Some(theirs), "RFC 7323 §4.3");
    s.finish();
}

/// RFC 9293 §3.10.7.4, fifth step, SYN-RECEIVED: an ACK of something else is reset.
#[test]
fn an_unacceptable_ack_in_syn_received_is_reset_rfc9293_3_10_7_4() {
    let mut s = syn_received();
    s.inject_dropped(seg(".").seq(0).ack(5), DropReason::TcpUnacceptableAck);
    s.expect(seg("R").seq(5));
    s.state(State::SynReceived);
    s.inject_dropped(seg(".").seq(0).ack(-1), DropReason::TcpUnacceptableAck);
    s.expect(seg("R").seq(-1));
    s.inject(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.finish();
}

/// RFC 9293 §3.10.7.4, second step: who opened actively is told that it was refused.
#[test]
fn rst_in_syn_received_refuses_rfc9293_3_10_7_4() {
    let mut s = syn_received();
    s.inject(seg("R").seq(0));
    assert_eq!(s.events(), [Event::Failed(Error::Refused), Event::Closed]);
    s.expect_silence();
    s.finish();
}

/// RFC 5961 §3.2: in SYN-RECEIVED, too, only the exact number resets.
#[test]
fn an_rst_elsewhere_in_the_window_is_challenged_in_syn_received_rfc5961_3_2() {
    let mut s = syn_received();
    s.inject_dropped(seg("R").seq(50), DropReason::TcpChallenged);
    s.expect(seg(".").seq(0).ack(0));
    s.state(State::SynReceived);
    s.finish();
}

/// RFC 9293 §3.10.7.4, first step: the peer's SYN again means that it lacks our answer; an ACK says what we have.
#[test]
fn the_peers_syn_again_is_acknowledged_rfc9293_3_10_7_4() {
    let mut s = syn_received();
    s.inject_dropped(seg("S").seq(-1).options(plain_options()), DropReason::TcpOutOfWindow);
    s.expect(seg(".").seq(0).ack(0));
    s.state(State::SynReceived);
    s.finish();
}

#[test]
fn a_segment_without_ack_is_dropped_in_syn_received_rfc9293_3_10_7_4() {
    let mut s = syn_received();
    s.inject_dropped(seg("").seq(0).data(b"x"), DropReason::TcpNoAck);
    s.state(State::SynReceived);
    s.finish();
}

/// RFC 9293 §3.10.4: CLOSE in SYN-RECEIVED sends FIN.
#[test]
fn close_in_syn_received_sends_fin_rfc9293_3_10_4() {
    let mut s = syn_received();
    s.app_close();
    s.inject(seg(".").seq(0).ack(0));
    s.state(State::FinWait1);
    s.expect(seg("F.").seq(0).ack(0));
    s.inject(seg("F.").seq(0).ack(1));
    s.expect(seg(".").seq(1).ack(1));
    s.state(State::TimeWait);
    s.finish();
}

/// RFC 9293 §3.10.5: the peer may have heard of us.
#[test]
fn abort_in_syn_received_sends_rst_rfc9293_3_10_5() {
    let mut s = syn_received();
    s.app_abort();
    s.expect(seg("R.").seq(0).ack(0));
    assert_eq!(s.events(), [Event::Failed(Error::Aborted), Event::Closed]);
    s.finish();
}

/// RFC 9293 §3.10.7.4, eighth step: FIN with the ACK that completes the handshake.
#[test]
fn fin_may_complete_the_handshake_rfc9293_3_10_7_4() {
    let mut s = syn_received();
    s.inject(seg("F.").seq(0).ack(0));
    s.state(State::CloseWait);
    s.expect(seg(".").seq(0).ack(1));
    assert_eq!(s.events(), [Event::Connected, Event::PeerClosed]);
    s.finish();
}

/// RFC 9293 §3.10.7.3: data with the SYN is not lost, since the peer sends what is not acknowledged again.
#[test]
fn data_with_a_crossing_syn_is_not_acknowledged_before_the_handshake_is_complete() {
    let mut s = Script::syn_sent(config());
    s.inject(seg("S").seq(-1).options(plain_options()).data(b"hello"));
    s.expect(seg("S.").seq(-1).ack(0));
    s.inject(seg(".").seq(0).ack(0));
    assert_eq!(s.events(), [Event::Connected]);
    s.inject(seg("P.").seq(0).ack(0).data(b"hello"));
    s.expect(seg(".").seq(0).ack(5));
    assert_eq!(s.read(10), b"hello");
    s.finish();
}

/// RFC 9293 §3.8.6: the window of the ACK that completes the handshake is the first that counts.
#[test]
fn the_window_of_the_completing_ack_counts_scaled_rfc7323_2_3() {
    let mut s = Script::syn_sent(config());
    s.inject(seg("S").seq(-1).options(all_options()).window(1000));
    s.expect(seg("S.").seq(-1).ack(0));
    s.inject(seg(".").seq(0).ack(0).window(1 << 20));
    assert_eq!(s.info().send_window, 1 << 20);
    s.finish();
}

/// RFC 9293 §3.8.3, MUST-23: SYN-RECEIVED does not last for ever.
#[test]
fn syn_received_ends_when_the_time_for_the_handshake_is_over_must_23() {
    let mut s = syn_received();
    while !s.connection.is_closed() {
        s.advance_to_timer();
        s.drain();
    }
    assert_eq!(s.events(), [Event::Stalled, Event::Failed(Error::ConnectTimedOut), Event::Closed]);
    s.finish();
}

/// RFC 9293 §3.8.6, SHLD-14: nothing was offered before the SYN with ACK, so what that offers is the window, also when the
/// pool bears less than the configuration wants.
#[test]
fn a_syn_that_comes_before_ours_was_sent_is_offered_what_the_pool_bears() {
    let buffer = 60_000;
    let config =
        stack_user::tcp::Config { mss: 100, recv_buffer: buffer, recv_buffer_max: buffer, ..config() };
    let mut s = Script::new(config);
    s.inject(seg("S").seq(-1).options(plain_options()));
    let (answer, _) = s.poll().expect("SYN with ACK");
    assert!(usize::from(answer.window) < buffer);
    s.inject(seg(".").seq(0).ack(0));
    assert_eq!(s.connection.info().receive_window, usize::from(answer.window));
    s.finish();
}
