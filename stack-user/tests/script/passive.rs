//! Passive opens: SYN-RECEIVED after a listener has got a SYN (RFC 9293 §3.10.7.2, §3.10.7.4).

use crate::dsl::{Script, all_options, config, plain_options, sack_options, seg};
use stack_user::{
    tcp::{Error, Event, State, options::Options},
    telemetry::DropReason,
};

fn accepting() -> Script {
    Script::accepting(config(), plain_options())
}

/// RFC 9293 §3.5 (figure 6): SYN, SYN with ACK, ACK.
#[test]
fn a_passive_open_is_complete_with_the_third_segment_rfc9293_3_5() {
    let mut s = accepting();
    s.state(State::SynReceived);
    s.expect(seg("S.").seq(-1).ack(0));
    s.expect_silence();
    s.advance(10);
    s.inject(seg(".").seq(0).ack(0));
    s.state(State::Established);
    assert_eq!(s.events(), [Event::Connected]);
    s.expect_silence();
    s.write(100);
    s.expect(seg(".").seq(0).ack(0).len(100));
    s.inject(seg(".").seq(0).ack(100));
    s.finish();
}

/// RFC 7323 §2.2, §3.2; RFC 2018 §2: SYN with ACK has only what the SYN had.
#[test]
fn syn_ack_mirrors_the_options_of_syn() {
    let mut s = Script::accepting(config(), all_options());
    let (segment, _) = s.expect_any();
    let options = segment.options;
    assert!(options.window_scale.is_some() && options.sack_permitted && options.mss.is_some());
    assert_eq!(options.timestamps.map(|ts| ts.echo), Some(s.now.as_millis() as u32), "echoes the SYN's");
    for peer in [plain_options(), sack_options()] {
        let mut s = Script::accepting(config(), peer);
        let (segment, _) = s.expect_any();
        assert_eq!(segment.options.sack_permitted, peer.sack_permitted);
        assert_eq!((segment.options.window_scale, segment.options.timestamps), (None, None));
    }
    let scale_only = Options { window_scale: Some(0), ..plain_options() };
    let (segment, _) = Script::accepting(config(), scale_only).expect_any();
    assert!(segment.options.window_scale.is_some(), "a shift of 0 is an offer, too (RFC 7323 §2.2)");
}

/// RFC 9293 §3.7.1, MUST-15: a SYN without MSS means 536.
#[test]
fn a_syn_without_mss_means_536_must_15() {
    let s = Script::accepted(config(), Options::default());
    assert_eq!(s.info().mss, 536);
    assert_eq!(Script::accepted(config(), all_options()).info().mss, 1448);
}

#[test]
fn the_window_of_the_third_segment_is_scaled_rfc7323_2_2() {
    let mut s = Script::accepting(config(), all_options());
    s.expect(seg("S.").seq(-1).ack(0));
    s.inject(seg(".").seq(0).ack(0).window(1 << 20));
    assert_eq!(s.info().send_window, 1 << 20);
    s.finish();
}

/// RFC 9293 §3.8.1, MUST-18 (RFC 6298 §5.5): with back-off; and an end, which no application hears of.
#[test]
fn syn_ack_is_repeated_with_back_off_five_times() {
    let mut s = accepting();
    s.expect(seg("S.").seq(-1).ack(0));
    for ms in [1000, 2000, 4000, 8000, 16_000] {
        assert_eq!(s.advance_to_timer(), ms);
        s.expect(seg("S.").seq(-1).ack(0));
        s.expect_silence();
    }
    assert_eq!(s.advance_to_timer(), 32_000);
    s.expect_silence();
    assert!(s.connection.is_closed());
    assert_eq!(s.connection.error(), Some(Error::ConnectTimedOut));
    s.finish();
}

#[test]
fn a_syn_that_comes_again_is_answered_again_rfc9293_3_8_1() {
    let mut s = accepting();
    s.expect(seg("S.").seq(-1).ack(0));
    s.advance(900);
    s.inject_dropped(seg("S").seq(-1).options(plain_options()), DropReason::TcpDuplicateData);
    s.expect(seg("S.").seq(-1).ack(0));
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.finish();
}

/// MUST-11: a passive open, unlike an active one, is not refused by RST.
#[test]
fn rst_returns_to_listen_and_nobody_hears_of_it_rfc9293_3_10_7_4() {
    let mut s = accepting();
    s.expect(seg("S.").seq(-1).ack(0));
    s.inject_dropped(seg("R").seq(-1), DropReason::TcpOutOfWindow);
    s.state(State::SynReceived);
    s.inject_dropped(seg("R").seq(5), DropReason::TcpChallenged);
    s.expect(seg(".").seq(0).ack(0));
    s.inject(seg("R").seq(0));
    assert_eq!(s.events(), [Event::Closed]);
    assert_eq!(s.connection.error(), None);
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.10.7.4, fourth step: SYN in SYN-RECEIVED after a passive open.
#[test]
fn another_syn_in_the_window_returns_to_listen_rfc9293_3_10_7_4() {
    let mut s = accepting();
    s.expect(seg("S.").seq(-1).ack(0));
    s.inject(seg("S").seq(77).options(plain_options()));
    assert_eq!(s.events(), [Event::Closed]);
    s.expect_silence();
    s.finish();
}

#[test]
fn an_ack_of_something_else_is_reset_rfc9293_3_10_7_4() {
    let mut s = accepting();
    s.expect(seg("S.").seq(-1).ack(0));
    for ack in [-1, 1] {
        s.inject_dropped(seg(".").seq(0).ack(ack), DropReason::TcpUnacceptableAck);
        s.expect(seg("R").seq(ack));
        s.state(State::SynReceived);
    }
    s.inject(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.finish();
}

/// RFC 9293 §3.10.7.4, seventh step: data may come with the third segment, and FIN.
#[test]
fn the_third_segment_may_carry_data_and_fin() {
    let mut s = accepting();
    s.expect(seg("S.").seq(-1).ack(0));
    s.inject(seg("F.").seq(0).ack(0).data(b"hello"));
    s.state(State::CloseWait);
    s.expect(seg(".").seq(0).ack(6));
    assert_eq!(s.events(), [Event::Connected, Event::Readable, Event::PeerClosed]);
    assert_eq!(s.read(10), b"hello");
    s.finish();
}

/// The third segment was lost, the data after it not: it acknowledges our SYN as well.
#[test]
fn data_completes_a_handshake_whose_third_segment_was_lost() {
    let mut s = accepting();
    s.expect(seg("S.").seq(-1).ack(0));
    s.inject(seg(".").seq(1000).ack(0).len(1000));
    s.state(State::Established);
    s.inject(seg(".").seq(0).ack(0).len(1000));
    assert_eq!(s.read(3000).len(), 2000);
    s.finish();
}

/// RFC 7323 §5.3, R1: an old duplicate does not complete a handshake.
#[test]
fn paws_holds_in_syn_received_rfc7323_5_3() {
    let mut s = Script::accepting(config(), all_options());
    s.expect(seg("S.").seq(-1).ack(0));
    let clock = s.peer_clock();
    s.inject_dropped(seg(".").seq(0).ack(0).timestamp(clock.wrapping_sub(1)), DropReason::TcpPaws);
    s.state(State::SynReceived);
    s.inject(seg(".").seq(0).ack(0));
    s.state(State::Established);
    s.finish();
}

/// RFC 9293 §3.10.4: CLOSE in SYN-RECEIVED; what was written goes out before FIN, which is nothing here.
#[test]
fn close_in_syn_received_sends_fin_once_established_rfc9293_3_10_4() {
    let mut s = accepting();
    s.expect(seg("S.").seq(-1).ack(0));
    s.app_shutdown();
    s.expect_silence();
    s.inject(seg(".").seq(0).ack(0));
    s.state(State::FinWait1);
    s.expect(seg("F.").seq(0).ack(0));
    s.finish();
}

/// RFC 9293 §3.10.5: ABORT in SYN-RECEIVED.
#[test]
fn abort_in_syn_received_sends_rst_rfc9293_3_10_5() {
    let mut s = accepting();
    s.expect(seg("S.").seq(-1).ack(0));
    s.app_abort();
    s.expect(seg("R.").seq(0).ack(0));
    s.expect_silence();
    s.finish();
}

/// RFC 6298 §3, MUST-18: a handshake that had to be repeated gives no sample, but by timestamps.
#[test]
fn the_first_round_trip_is_measured_once_or_by_timestamps_must_18() {
    let s = Script::accepted(config(), plain_options());
    assert_eq!(s.info().srtt.map(|rtt| rtt.as_millis()), Some(10));
    for (peer, measured) in [(plain_options(), None), (all_options(), Some(20))] {
        let mut s = Script::accepting(config(), peer);
        s.expect(seg("S.").seq(-1).ack(0));
        s.advance(1000);
        s.expect(seg("S.").seq(-1).ack(0));
        s.advance(20);
        s.inject(seg(".").seq(0).ack(0));
        assert_eq!(s.info().srtt.map(|rtt| rtt.as_millis()), measured);
        s.finish();
    }
}
