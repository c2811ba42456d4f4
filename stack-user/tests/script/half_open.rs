//! What may be done to half-open connections by whom: SYNs that come again and again, and ICMP errors.

use crate::dsl::{Ports, StackScript, all_options, plain_options, seg};
use stack_user::{
    stack::ListenerId,
    telemetry::DropReason,
    wire::icmpv4::{Message, unreachable},
};

const CLIENT: Ports = (5000, 80);

/// A half-open connection.
fn half_open() -> (StackScript, ListenerId) {
    let mut s = StackScript::new();
    let id = s.listen(80, 16);
    s.inject(CLIENT, seg("S").seq(-1).options(plain_options()));
    s.expect(CLIENT, seg("S.").seq(-1).ack(0));
    (s, id)
}

fn entries(s: &StackScript, id: ListenerId) -> Option<usize> {
    s.stack.tcp_listener(id).map(|info| info.half_open)
}

/// RFC 6298 §5.5: five repetitions after 1, 2, 4, 8 and 16 s, and 32 s for the last answer.
#[test]
fn a_half_open_connection_is_given_up_after_63_seconds_rfc4987_3_5() {
    let (mut s, id) = half_open();
    s.advance(62_990);
    assert_eq!((s.drain(), entries(&s, id)), (5, Some(1)));
    s.advance(20);
    assert_eq!((s.drain(), entries(&s, id)), (0, Some(0)));
    s.finish();
}

/// A SYN that comes again is answered, and holds its place no longer for that: a few repeated SYNs must not buy hours.
#[test]
fn repeated_syns_do_not_hold_a_place_for_longer_rfc4987_3_5() {
    let (mut s, id) = half_open();
    for _ in 0..100 {
        s.advance(600);
        s.inject(CLIENT, seg("S").seq(-1).options(plain_options()));
    }
    let answers = s.drain();
    assert!((90..=105).contains(&answers), "one answer for one SYN: {answers}");
    assert_eq!(entries(&s, id), Some(1));
    s.advance(3_100);
    assert_eq!(entries(&s, id), Some(0));
    s.finish();
}

/// The client's own repetition and our time-out come at the same time, and one answer is enough.
#[test]
fn a_repeated_syn_and_a_time_out_are_answered_once() {
    let (mut s, _) = half_open();
    s.advance(995);
    s.inject(CLIENT, seg("S").seq(-1).options(plain_options()));
    s.advance(100);
    assert_eq!(s.drain(), 1);
    s.finish();
}

/// RFC 1122 §4.2.3.9, RFC 5927 §5.2: nobody is there, so nobody is waited for.
#[test]
fn a_hard_icmp_error_ends_a_half_open_connection_rfc1122_4_2_3_9() {
    for code in [unreachable::PROTOCOL, unreachable::PORT] {
        let (mut s, id) = half_open();
        s.inject_icmp(Message::DestinationUnreachable { code, next_hop_mtu: 0 }, CLIENT, -1);
        assert_eq!(entries(&s, id), Some(0));
        s.advance(100_000);
        s.expect_silence();
        s.finish();
    }
}

/// RFC 5927 §4.1: an error that quotes another number is forged, or about another connection.
#[test]
fn an_icmp_error_about_another_number_ends_nothing_rfc5927_4_1() {
    let (mut s, id) = half_open();
    for number in [-2, 0, 12_345] {
        s.inject_icmp(
            Message::DestinationUnreachable { code: unreachable::PORT, next_hop_mtu: 0 },
            CLIENT,
            number,
        );
    }
    assert_eq!(entries(&s, id), Some(1));
    assert_eq!(s.dropped(DropReason::IcmpIgnored), 3);
    s.inject(CLIENT, seg(".").seq(0).ack(0));
    assert!(s.stack.tcp_accept(s.now, id).is_some());
    s.finish();
}

/// RFC 9293 §3.9.2.2: the way may come back.
#[test]
fn a_soft_icmp_error_ends_no_half_open_connection_must_56() {
    let (mut s, id) = half_open();
    s.inject_icmp(Message::DestinationUnreachable { code: unreachable::HOST, next_hop_mtu: 0 }, CLIENT, -1);
    assert_eq!(entries(&s, id), Some(1));
    s.advance(1_010);
    s.expect(CLIENT, seg("S.").seq(-1).ack(0));
    s.finish();
}

/// RFC 7323 §3.2: a first ACK without timestamps, where both SYNs had them, completes nothing. It must not take the row that
/// has the timer, either.
#[test]
fn an_ack_without_timestamps_completes_nothing_rfc7323_3_2() {
    let mut s = StackScript::new();
    let id = s.listen(80, 16);
    s.inject(CLIENT, seg("S").seq(-1).options(all_options()));
    assert_eq!(s.drain(), 1, "SYN with ACK");
    s.inject(CLIENT, seg(".").seq(0).ack(0));
    assert_eq!((entries(&s, id), s.stack.tcp_accept(s.now, id)), (Some(1), None));
    s.advance(63_100);
    assert_eq!((s.drain(), entries(&s, id)), (5, Some(0)));
    s.finish();
}
