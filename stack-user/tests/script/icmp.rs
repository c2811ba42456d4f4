//! ICMP errors about a connection, by kind and by state (RFC 1122 §4.2.3.9, RFC 5927, RFC 9293 §3.9.2.2).

use crate::dsl::{Script, config, plain_options, seg};
use stack_user::{
    tcp::{Config, Error, Event, State, Unreachable},
    time::Duration,
};

/// A segment of 1000 bytes is on its way, which an error may quote.
fn established() -> Script {
    let config = Config { user_timeout: Duration::from_secs(10), ..config() };
    let mut s = Script::established(config, plain_options());
    s.write(1000);
    s.expect(seg("P.").seq(0).len(1000));
    s
}

/// Nothing is heard any more: returns how the connection ends.
fn end(s: &mut Script) -> Vec<Event> {
    while !s.connection.is_closed() {
        s.advance_to_timer();
        s.drain();
    }
    endings(s)
}

/// The events that wait, but for reports that delivery has trouble.
fn endings(s: &mut Script) -> Vec<Event> {
    let is_report = |event: &Event| matches!(event, Event::Stalled | Event::Unreachable(_));
    s.events().into_iter().filter(|event| !is_report(event)).collect()
}

// SYN-SENT.

/// RFC 1122 §4.2.3.9: network unreachable is a soft error: it is told when no answer comes.
#[test]
fn network_unreachable_does_not_end_syn_sent_must_56() {
    let mut s = Script::syn_sent(config());
    s.inject_icmp(Unreachable::Network, -1);
    s.state(State::SynSent);
    s.expect_at(1000, seg("S").seq(-1));
    let cause = Error::Unreachable(Unreachable::Network);
    assert_eq!(end(&mut s), [Event::Failed(cause), Event::Closed]);
    s.finish();
}

/// RFC 1122 §4.2.3.9: nor does time exceeded.
#[test]
fn time_exceeded_does_not_end_syn_sent_must_56() {
    let mut s = Script::syn_sent(config());
    s.inject_icmp(Unreachable::TimeExceeded, -1);
    s.state(State::SynSent);
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.state(State::Established);
    s.finish();
}

/// RFC 9293 §3.9.2.2, SHLD-26: hard errors end the attempt at once.
#[test]
fn protocol_unreachable_ends_syn_sent_shld_26() {
    let mut s = Script::syn_sent(config());
    s.inject_icmp(Unreachable::Protocol, -1);
    let cause = Error::Unreachable(Unreachable::Protocol);
    assert_eq!(s.events(), [Event::Failed(cause), Event::Closed]);
    s.expect_silence();
    s.finish();
}

/// RFC 1122 §3.2.2.1: so does a filter that says so.
#[test]
fn prohibited_ends_syn_sent() {
    let mut s = Script::syn_sent(config());
    s.inject_icmp(Unreachable::Admin, -1);
    let cause = Error::Unreachable(Unreachable::Admin);
    assert_eq!(s.events(), [Event::Failed(cause), Event::Closed]);
    s.finish();
}

/// RFC 1122 §4.2.3.9: what was said while we waited does not count once an answer came.
#[test]
fn a_soft_error_is_forgotten_when_the_connection_opens() {
    let mut s = Script::syn_sent(Config { user_timeout: Duration::from_secs(10), ..config() });
    s.inject_icmp(Unreachable::Host, -1);
    s.inject(seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(seg(".").seq(0).ack(0));
    s.write(10);
    s.drain();
    s.events();
    assert_eq!(end(&mut s), [Event::Failed(Error::TimedOut), Event::Closed]);
    s.finish();
}

// ESTABLISHED.

/// RFC 5927 §5.2: on an open connection, a hard error is soft: attackers know how to forge it.
#[test]
fn port_unreachable_does_not_end_a_connection_rfc5927_5_2() {
    let mut s = established();
    s.inject_icmp(Unreachable::Port, 0);
    s.state(State::Established);
    s.inject(seg(".").seq(0).ack(1000));
    assert_eq!(s.events(), [Event::Unreachable(Unreachable::Port)], "told, MUST-47");
    s.finish();
}

#[test]
fn protocol_unreachable_does_not_end_a_connection_rfc5927_5_2() {
    let mut s = established();
    s.inject_icmp(Unreachable::Protocol, 0);
    s.state(State::Established);
    s.finish();
}

#[test]
fn prohibited_does_not_end_a_connection_rfc5927_5_2() {
    let mut s = established();
    s.inject_icmp(Unreachable::Admin, 0);
    s.state(State::Established);
    s.finish();
}

/// RFC 9293 §3.9.2.2, MUST-56.
#[test]
fn soft_errors_do_not_end_a_connection_must_56() {
    let mut s = established();
    for kind in [Unreachable::Network, Unreachable::Host, Unreachable::TimeExceeded] {
        s.inject_icmp(kind, 0);
    }
    s.state(State::Established);
    s.expect_at(200, seg("P.").seq(0).len(1000));
    s.inject(seg(".").seq(0).ack(1000));
    assert_eq!(endings(&mut s), []);
    s.finish();
}

/// RFC 9293 §3.9.1.8, MUST-47 and SHLD-25: the application learns what was said when the connection fails.
#[test]
fn the_last_error_explains_a_time_out_shld_25() {
    let mut s = established();
    s.inject_icmp(Unreachable::Network, 0);
    s.inject_icmp(Unreachable::Host, 0);
    let cause = Error::Unreachable(Unreachable::Host);
    assert_eq!(end(&mut s), [Event::Failed(cause), Event::Closed]);
    s.finish();
}

/// RFC 5927 §4.1: an error about data that was acknowledged is late.
#[test]
fn an_error_about_acknowledged_data_counts_nothing_rfc5927_4_1() {
    let mut s = established();
    s.inject(seg(".").seq(0).ack(1000));
    s.write(1000);
    s.expect(seg("P.").seq(1000).len(1000));
    s.inject_icmp(Unreachable::Host, 0);
    assert_eq!(end(&mut s), [Event::Failed(Error::TimedOut), Event::Closed]);
    s.finish();
}

/// RFC 5927 §4.1: an error about what was never sent is forged.
#[test]
fn an_error_about_what_was_never_sent_counts_nothing_rfc5927_4_1() {
    let mut s = established();
    s.inject_icmp(Unreachable::Host, 1000);
    s.inject_icmp(Unreachable::Host, -1);
    s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 600 }, 5000);
    assert_eq!(s.info().mss, 1000);
    assert_eq!(end(&mut s), [Event::Failed(Error::TimedOut), Event::Closed]);
    s.finish();
}

// Other states.

/// RFC 9293 §3.9.2.2, MUST-56, while we close.
#[test]
fn errors_do_not_end_fin_wait_1_must_56() {
    let mut s = established();
    s.app_shutdown();
    s.expect(seg("F.").seq(1000));
    s.inject_icmp(Unreachable::Host, 1000);
    s.inject_icmp(Unreachable::Port, 1000);
    s.state(State::FinWait1);
    s.inject(seg(".").seq(0).ack(1001));
    s.state(State::FinWait2);
    s.finish();
}

/// RFC 5927 §4.1: in TIME-WAIT nothing is outstanding that an error could be about.
#[test]
fn errors_count_nothing_in_time_wait_rfc5927_4_1() {
    let mut s = Script::established(config(), plain_options());
    s.app_shutdown();
    s.expect(seg("F.").seq(0));
    s.inject(seg("F.").seq(0).ack(1));
    s.expect(seg(".").seq(1).ack(1));
    s.events();
    s.inject_icmp(Unreachable::Port, 0);
    s.inject_icmp(Unreachable::Port, 1);
    s.state(State::TimeWait);
    assert_eq!(s.events(), []);
    s.finish();
}

/// RFC 9293 §3.9.2.2: in SYN-RECEIVED after both sides opened, a hard error ends the attempt as in SYN-SENT.
#[test]
fn a_hard_error_ends_syn_received_shld_26() {
    let mut s = Script::syn_sent(config());
    s.inject(seg("S").seq(-1).options(plain_options()));
    s.expect(seg("S.").seq(-1).ack(0));
    s.inject_icmp(Unreachable::Port, -1);
    assert_eq!(s.events(), [Event::Failed(Error::Refused), Event::Closed]);
    s.finish();
}

// Too large a packet.

/// RFC 1191 §6.3, RFC 5927 §7.2: segments become smaller, and the lost one goes again, at once.
#[test]
fn fragmentation_needed_makes_segments_smaller_rfc1191() {
    let mut s = established();
    s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 840 }, 0);
    s.expect(seg(".").seq(0).len(800));
    s.expect(seg("P.").seq(800).len(200));
    s.inject(seg(".").seq(0).ack(1000));
    s.write(1600);
    s.expect(seg(".").seq(1000).len(800));
    s.expect(seg(".").seq(1800).len(800));
    s.finish();
}

/// RFC 1191 §6.3: that packet was too large says nothing of congestion.
#[test]
fn fragmentation_needed_is_no_congestion_rfc1191() {
    let mut s = established();
    s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 840 }, 0);
    s.drain();
    assert_eq!(s.info().ssthresh, usize::MAX);
    s.finish();
}

/// RFC 1191 §3: an error never makes segments larger.
#[test]
fn fragmentation_needed_with_a_larger_mtu_changes_nothing_rfc1191_3() {
    let mut s = established();
    s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 9000 }, 0);
    s.expect_silence();
    assert_eq!(s.info().mss, 1000);
    s.finish();
}

/// RFC 5927 §7.2: nobody's link carries as little as that.
#[test]
fn an_absurdly_small_mtu_is_not_obeyed_rfc5927_7_2() {
    let mut s = established();
    s.inject_icmp(Unreachable::FragmentationNeeded { mtu: 68 }, 0);
    s.drain();
    assert!(s.info().mss >= 500, "{}", s.info().mss);
    s.finish();
}
