//! Opening: SYN-SENT and SYN-RECEIVED.

use crate::dsl::{Script, all_options, config, plain_options, seg};
use stack_user::{
    tcp::{Config, Error, Event, SeqNumber, State, Unreachable, options::Options},
    telemetry::DropReason,
    time::Duration,
};

fn new() -> Script {
    Script::new(config())
}

#[test]
fn syn_offers_all_options_and_an_unscaled_window_rfc7323_2_2() {
    let mut s = new();
    let (syn, _) = s.poll().expect("SYN");
    assert_eq!((syn.options.mss, syn.options.sack_permitted), (Some(1460), true), "MUST-14");
    assert!(syn.options.window_scale.is_some() && syn.options.timestamps.is_some());
    assert_eq!(syn.window, 65_535);
    s.expect_silence();
    s.finish();
}

#[test]
fn options_that_the_peer_lacks_are_off() {
    let mut s = Script::established(config(), plain_options());
    let info = s.connection.info();
    assert_eq!((info.sack, info.timestamps, info.window_shifts), (false, false, (0, 0)));
    s.write(100);
    let (segment, _) = s.poll().expect("data");
    assert!(segment.options.is_empty());
    s.finish();
}

#[test]
fn the_window_of_syn_ack_is_not_scaled_and_later_ones_are() {
    let mut s = Script::established(config(), all_options());
    assert_eq!(s.connection.info().send_window, 65_535);
    s.inject(seg(".").ack(0).window(1 << 20));
    assert_eq!(s.connection.info().send_window, 1 << 20);
    s.finish();
}

#[test]
fn mss_is_536_unless_told_and_less_than_told_by_the_options_must_15_must_16() {
    let s = Script::established(config(), Options::default());
    assert_eq!(s.connection.info().mss, 536);
    let s = Script::established(config(), all_options());
    assert_eq!(s.connection.info().mss, 1448);
}

#[test]
fn syn_is_sent_again_with_back_off_until_the_time_is_over_must_23() {
    let mut s = Script::new(Config { connect_timeout: Duration::from_secs(20), ..config() });
    s.expect(seg("S").seq(-1));
    for ms in [1000, 2000, 4000, 8000] {
        assert_eq!(s.advance_to_timer(), ms);
        s.expect(seg("S").seq(-1));
        s.expect_silence();
    }
    s.advance(5000);
    assert_eq!(s.events(), [Event::Stalled, Event::Failed(Error::ConnectTimedOut), Event::Closed]);
    assert!(s.connection.is_closed());
    s.expect_silence();
    s.finish();
}

#[test]
fn rst_with_the_right_ack_refuses_and_others_count_nothing_rfc9293_3_10_7_3() {
    let mut s = new();
    s.expect(seg("S").seq(-1));
    s.inject_dropped(seg("R").seq(0), DropReason::TcpNoAck);
    s.inject_dropped(seg("R.").seq(0).ack(1), DropReason::TcpUnacceptableAck);
    s.expect_silence();
    s.state(State::SynSent);
    s.inject(seg("R.").seq(0).ack(0));
    assert_eq!(s.events(), [Event::Failed(Error::Refused), Event::Closed]);
    s.expect_silence();
    s.finish();
}

#[test]
fn an_ack_of_something_else_is_reset_rfc9293_3_10_7_3() {
    let mut s = new();
    s.expect(seg("S").seq(-1));
    s.inject_dropped(seg("S.").seq(-1).ack(77), DropReason::TcpUnacceptableAck);
    s.expect(seg("R").seq(77));
    s.state(State::SynSent);
    s.inject_dropped(seg(".").seq(5).ack(-1), DropReason::TcpUnacceptableAck);
    s.expect(seg("R").seq(-1));
    s.expect(seg("S").seq(-1));
    s.expect_silence();
    s.finish();
}

#[test]
fn simultaneous_open_must_10() {
    let mut s = new();
    s.expect(seg("S").seq(-1));
    s.inject(seg("S").seq(-1).options(plain_options()));
    s.state(State::SynReceived);
    s.expect(seg("S.").seq(-1).ack(0));
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.state(State::Established);
    s.expect(seg(".").seq(0).ack(0));
    assert_eq!(s.events(), [Event::Connected]);
    s.finish();
}

#[test]
fn simultaneous_open_completed_by_a_plain_ack_with_data() {
    let mut s = new();
    s.expect(seg("S").seq(-1));
    s.inject(seg("S").seq(-1).options(all_options()));
    s.expect(seg("S.").seq(-1).ack(0));
    s.inject(seg(".").seq(0).ack(0).data(b"hello"));
    s.state(State::Established);
    assert_eq!(s.events(), [Event::Connected, Event::Readable]);
    assert_eq!(s.read(10), b"hello");
    s.finish();
}

#[test]
fn syn_ack_may_carry_data() {
    let mut s = new();
    s.expect(seg("S").seq(-1));
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()).data(b"early"));
    s.expect(seg(".").seq(0).ack(5));
    assert_eq!(s.read(10), b"early");
    s.finish();
}

#[test]
fn icmp_in_syn_sent_hard_soft_and_forged_rfc5927_4_1() {
    let unreachable = |s: &mut Script, kind, offset: u32| {
        let seq = SeqNumber(u32::MAX - 5) + offset as usize;
        s.connection.handle_unreachable(s.now, &mut s.pool, kind, Some(seq));
    };
    let mut s = new();
    s.expect(seg("S").seq(-1));
    unreachable(&mut s, Unreachable::Port, 1);
    s.state(State::SynSent);
    unreachable(&mut s, Unreachable::Host, 0);
    s.state(State::SynSent);
    s.advance(180_000);
    let cause = Error::Unreachable(Unreachable::Host);
    let report = Event::Unreachable(Unreachable::Host);
    assert_eq!(s.events(), [report, Event::Failed(cause), Event::Closed]);

    let mut s = new();
    s.expect(seg("S").seq(-1));
    unreachable(&mut s, Unreachable::Port, 0);
    assert_eq!(s.events(), [Event::Failed(Error::Refused), Event::Closed]);

    let mut s = new();
    s.expect(seg("S").seq(-1));
    s.connection.handle_unreachable(s.now, &mut s.pool, Unreachable::NoNeighbour, None);
    assert_eq!(s.events(), [Event::Failed(Error::Unreachable(Unreachable::NoNeighbour)), Event::Closed]);
}

#[test]
fn close_in_syn_sent_ends_silently_rfc9293_3_10_4() {
    let mut s = new();
    s.expect(seg("S").seq(-1));
    s.app_close();
    assert_eq!(s.events(), [Event::Closed]);
    s.expect_silence();
    s.finish();
}

#[test]
fn a_syn_ack_that_comes_again_is_acknowledged_again() {
    let mut s = Script::established(config(), plain_options());
    s.inject_dropped(seg("S.").seq(-1).ack(0).options(plain_options()), DropReason::TcpOutOfWindow);
    s.expect(seg(".").seq(0).ack(0));
    s.expect_silence();
    s.finish();
}
