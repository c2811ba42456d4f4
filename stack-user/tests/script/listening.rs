//! LISTEN, half-open connections and closed ports: what a whole stack answers (RFC 9293 §3.10.7.1, §3.10.7.2).

use std::net::Ipv4Addr;

use crate::dsl::{PEER, Ports, StackScript, US, all_options, plain_options, seg};
use stack_user::{
    stack::{ConnectError, Event, ListenerId},
    tcp::{Error, State},
    telemetry::DropReason,
    wire::icmpv4::{Message, unreachable},
};

const CLIENT: Ports = (5000, 80);

fn listening() -> (StackScript, ListenerId) {
    let mut s = StackScript::new();
    let id = s.listen(80, 16);
    (s, id)
}

/// A half-open connection.
fn half_open() -> (StackScript, ListenerId) {
    let (mut s, id) = listening();
    s.inject(CLIENT, seg("S").seq(-1).options(plain_options()));
    s.expect(CLIENT, seg("S.").seq(-1).ack(0));
    (s, id)
}

// LISTEN (RFC 9293 §3.10.7.2).

/// RFC 9293 §3.5, figure 6.
#[test]
fn three_segments_make_a_connection_to_accept_rfc9293_3_5() {
    let (mut s, id) = half_open();
    assert_eq!(s.stack.tcp_accept(s.now, id), None);
    s.inject(CLIENT, seg(".").seq(0).ack(0));
    assert!(s.events().contains(&Event::Listener { id }));
    let (connection, remote) = s.stack.tcp_accept(s.now, id).expect("a connection");
    assert_eq!(remote, (PEER, 5000).into());
    assert_eq!(s.stack.tcp(connection).map(|c| c.state()), Some(State::Established));
    s.expect_silence();
    s.finish();
}

/// First: an RST is ignored.
#[test]
fn rst_is_ignored_in_listen_rfc9293_3_10_7_2() {
    let (mut s, _) = listening();
    s.inject(CLIENT, seg("R").seq(0));
    s.inject(CLIENT, seg("R.").seq(0).ack(0));
    s.expect_silence();
    s.finish();
}

/// Second: any ACK is bad, and its number is that of the reset.
#[test]
fn an_ack_in_listen_is_reset_rfc9293_3_10_7_2() {
    let (mut s, _) = listening();
    s.inject(CLIENT, seg(".").seq(0).ack(777));
    s.expect(CLIENT, seg("R").seq(777));
    s.expect_silence();
    s.finish();
}

/// Second, again: a SYN with ACK is an ACK first.
#[test]
fn a_syn_ack_in_listen_is_reset_rfc9293_3_10_7_2() {
    let (mut s, id) = listening();
    s.inject(CLIENT, seg("S.").seq(-1).ack(5).options(plain_options()));
    s.expect(CLIENT, seg("R").seq(5));
    assert_eq!(s.stack.tcp_listener(id).map(|info| info.half_open), Some(0));
    s.finish();
}

/// Fourth: what is neither is dropped.
#[test]
fn data_without_anything_else_is_dropped_in_listen_rfc9293_3_10_7_2() {
    let (mut s, _) = listening();
    s.inject(CLIENT, seg("").seq(0).data(b"hello?"));
    s.inject(CLIENT, seg("F").seq(0));
    s.expect_silence();
    s.finish();
}

/// SYN with FIN opens nothing: only scanners send it.
#[test]
fn syn_with_fin_opens_nothing() {
    let (mut s, id) = listening();
    s.inject(CLIENT, seg("SF").seq(-1).options(plain_options()));
    s.expect_silence();
    assert_eq!(s.stack.tcp_listener(id).map(|info| info.half_open), Some(0));
    s.finish();
}

/// Third: data with SYN need not be taken; it is not acknowledged, so it comes again.
#[test]
fn data_with_syn_is_not_acknowledged_rfc9293_3_10_7_2() {
    let (mut s, id) = listening();
    s.inject(CLIENT, seg("S").seq(-1).options(plain_options()).data(b"early"));
    s.expect(CLIENT, seg("S.").seq(-1).ack(0));
    s.inject(CLIENT, seg("P.").seq(0).ack(0).data(b"early"));
    let (connection, _) = s.stack.tcp_accept(s.now, id).expect("a connection");
    let mut data = [0; 10];
    assert_eq!(s.stack.tcp_read(s.now, connection, &mut data), Ok(5));
    s.expect(CLIENT, seg(".").seq(0).ack(5));
    s.finish();
}

/// RFC 9293 §3.9.1.1, MUST-42: listening goes on while connections to the port are opened.
#[test]
fn clients_do_not_disturb_each_other_must_42() {
    let (mut s, id) = listening();
    let ports = [(5000, 80), (5001, 80), (5002, 80)];
    for client in ports {
        s.inject(client, seg("S").seq(-1).options(plain_options()));
        s.expect(client, seg("S.").seq(-1).ack(0));
    }
    s.inject((5001, 80), seg("R").seq(0));
    for client in [(5002, 80), (5000, 80)] {
        s.inject(client, seg(".").seq(0).ack(0));
    }
    s.expect_silence();
    let accepted: Vec<_> =
        core::iter::from_fn(|| s.stack.tcp_accept(s.now, id)).map(|(_, remote)| remote.port()).collect();
    assert_eq!(accepted, [5002, 5000]);
    s.finish();
}

// Addresses (RFC 9293 §3.9.2.3).

/// MUST-57.
#[test]
fn a_syn_to_a_broadcast_address_is_dropped_must_57() {
    let (mut s, _) = listening();
    for to in [Ipv4Addr::new(10, 0, 0, 255), Ipv4Addr::BROADCAST] {
        s.inject_between(PEER, to, CLIENT, seg("S").seq(-1).options(plain_options()));
    }
    s.expect_silence();
    s.finish();
}

#[test]
fn a_syn_to_a_multicast_address_is_dropped_must_57() {
    let (mut s, _) = listening();
    s.inject_between(PEER, Ipv4Addr::new(224, 0, 0, 1), CLIENT, seg("S").seq(-1).options(plain_options()));
    s.expect_silence();
    s.finish();
}

/// MUST-63.
#[test]
fn a_syn_from_an_address_that_no_host_has_is_dropped_must_63() {
    let (mut s, _) = listening();
    for from in [[224, 0, 0, 1], [255, 255, 255, 255], [10, 0, 0, 255], [127, 0, 0, 1], [0, 0, 0, 0]] {
        s.inject_between(from.into(), US, CLIENT, seg("S").seq(-1).options(plain_options()));
        s.expect_silence();
    }
    s.finish();
}

/// A SYN from port 0 can't be answered.
#[test]
fn a_syn_from_port_0_is_dropped() {
    let (mut s, _) = listening();
    s.inject((0, 80), seg("S").seq(-1).options(plain_options()));
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.1, MUST-3.
#[test]
fn a_syn_with_a_wrong_checksum_is_dropped_must_3() {
    let (mut s, _) = listening();
    s.inject_corrupt(CLIENT, seg("S").seq(-1).options(plain_options()));
    s.expect_silence();
    assert_eq!(s.dropped(DropReason::TcpBadChecksum), 1);
    s.finish();
}

// SYN-RECEIVED.

/// RFC 6298 §2.1 and §5.5.
#[test]
fn syn_ack_is_repeated_with_back_off_rfc6298_5_5() {
    let (mut s, _) = half_open();
    for (before, after) in [(990, 20), (1970, 40), (3950, 60)] {
        s.advance(before);
        s.expect_silence();
        s.advance(after);
        s.expect(CLIENT, seg("S.").seq(-1).ack(0));
    }
    s.finish();
}

/// The client's SYN again: its answer again, with the same number.
#[test]
fn a_repeated_syn_gets_the_same_answer() {
    let (mut s, id) = listening();
    s.inject(CLIENT, seg("S").seq(-1).options(all_options()));
    let first = s.expect_any(CLIENT);
    s.advance(500);
    s.inject(CLIENT, seg("S").seq(-1).options(all_options()));
    let second = s.expect_any(CLIENT);
    assert_eq!((first.seq, first.ack), (second.seq, second.ack));
    assert_eq!(s.stack.tcp_listener(id).map(|info| info.half_open), Some(1));
    s.finish();
}

/// RFC 9293 §3.10.7.4, second step: back to LISTEN.
#[test]
fn rst_ends_a_half_open_connection_rfc9293_3_10_7_4() {
    let (mut s, id) = half_open();
    s.inject(CLIENT, seg("R").seq(0));
    s.expect_silence();
    assert_eq!(s.stack.tcp_listener(id).map(|info| info.half_open), Some(0));
    s.advance(100_000);
    s.expect_silence();
    s.finish();
}

/// RFC 5961 §3.2: only with the exact number.
#[test]
fn a_guessed_rst_does_not_end_a_half_open_connection_rfc5961_3_2() {
    let (mut s, id) = half_open();
    s.inject(CLIENT, seg("R").seq(100));
    s.expect(CLIENT, seg(".").seq(0).ack(0));
    s.inject(CLIENT, seg("R").seq(-1000));
    s.expect_silence();
    assert_eq!(s.stack.tcp_listener(id).map(|info| info.half_open), Some(1));
    s.finish();
}

/// RFC 9293 §3.10.7.4, fifth step.
#[test]
fn a_wrong_ack_is_reset_and_the_right_one_connects_rfc9293_3_10_7_4() {
    let (mut s, id) = half_open();
    s.inject(CLIENT, seg(".").seq(0).ack(55));
    s.expect(CLIENT, seg("R").seq(55));
    s.inject(CLIENT, seg(".").seq(0).ack(0));
    assert!(s.stack.tcp_accept(s.now, id).is_some());
    s.finish();
}

/// Nobody listens any more: who was half-open is told when it speaks.
#[test]
fn when_nobody_listens_any_more_the_third_segment_is_reset() {
    let (mut s, id) = half_open();
    s.stack.tcp_unlisten(s.now, id);
    s.inject(CLIENT, seg(".").seq(0).ack(0));
    s.expect(CLIENT, seg("R").seq(0));
    s.inject((6000, 80), seg("S").seq(-1).options(plain_options()));
    s.expect((6000, 80), seg("R.").ack(0));
    s.finish();
}

/// More half-open connections than are remembered: cookies keep the door open (RFC 4987 §3.6).
#[test]
fn a_flood_of_syns_does_not_keep_an_honest_client_out_rfc4987_3_6() {
    let (mut s, id) = listening();
    for port in 10_000..12_000 {
        s.inject((port, 80), seg("S").seq(-1).options(plain_options()));
    }
    s.drain();
    s.inject(CLIENT, seg("S").seq(-1).options(plain_options()));
    s.expect(CLIENT, seg("S.").seq(-1).ack(0));
    s.advance(100);
    s.drain();
    s.inject(CLIENT, seg(".").seq(0).ack(0));
    let (connection, remote) = s.stack.tcp_accept(s.now, id).expect("the honest client");
    assert_eq!(remote, (PEER, 5000).into());
    assert!(s.stack.tcp(connection).expect("there").info().mss <= 1000);
}

/// RFC 4987 §3.6: an ACK that answers no cookie of ours is somebody's guess.
#[test]
fn a_guessed_cookie_opens_nothing_rfc4987_3_6() {
    let (mut s, id) = listening();
    for port in 10_000..12_000 {
        s.inject((port, 80), seg("S").seq(-1).options(plain_options()));
    }
    s.drain();
    for guess in 0..50 {
        s.inject((6000, 80), seg(".").seq(0).ack(guess * 65_537));
    }
    assert_eq!(s.stack.tcp_accept(s.now, id), None);
}

// Closed ports (RFC 9293 §3.10.7.1).

#[test]
fn a_syn_to_a_closed_port_is_refused_rfc9293_3_10_7_1() {
    let mut s = StackScript::new();
    s.inject((5000, 81), seg("S").seq(-1).options(plain_options()));
    s.expect((5000, 81), seg("R.").seq(0).ack(0));
    s.expect_silence();
    s.finish();
}

/// SEG.LEN counts data and FIN.
#[test]
fn the_reset_acknowledges_all_of_the_segment_rfc9293_3_10_7_1() {
    let mut s = StackScript::new();
    s.inject((5000, 81), seg("SF").seq(-1).data(b"hello"));
    s.expect((5000, 81), seg("R.").seq(0).ack(6));
    s.finish();
}

#[test]
fn an_ack_to_a_closed_port_is_reset_with_its_number_rfc9293_3_10_7_1() {
    let mut s = StackScript::new();
    s.inject((5000, 81), seg("FP.").seq(10).ack(4242).data(b"x"));
    s.expect((5000, 81), seg("R").seq(4242));
    s.finish();
}

/// A reset is not answered, or two hosts would never end.
#[test]
fn an_rst_to_a_closed_port_is_not_answered_rfc9293_3_10_7_1() {
    let mut s = StackScript::new();
    s.inject((5000, 81), seg("R").seq(10));
    s.inject((5000, 81), seg("R.").seq(10).ack(20));
    s.expect_silence();
    s.finish();
}

/// Resets are limited, by a number that nobody knows: forged sources must not make us shout at others.
#[test]
fn resets_are_limited() {
    let mut s = StackScript::new();
    for port in 0..500 {
        s.inject((20_000 + port, 81), seg("S").seq(-1));
    }
    let sent = s.drain();
    assert!((67..=200).contains(&sent), "{sent}");
    assert_eq!(s.dropped(DropReason::TcpResetLimited), 500 - sent as u64);
    s.finish();
}

// Active opens.

/// RFC 9293 §3.9.1.1, MUST-46.
#[test]
fn a_connection_to_an_address_of_no_single_host_is_refused_must_46() {
    let mut s = StackScript::new();
    for ip in [[224, 0, 0, 1], [255, 255, 255, 255], [10, 0, 0, 255]] {
        let remote = (Ipv4Addr::from(ip), 80).into();
        assert_eq!(s.stack.tcp_connect(s.now, remote), Err(ConnectError::BadRemote(remote)));
    }
    s.expect_silence();
    s.finish();
}

/// RFC 9293 §3.9.1.1, MUST-44: the source is our address.
#[test]
fn a_connection_comes_from_our_address_must_44() {
    let mut s = StackScript::new();
    let (_, local) = s.stack.tcp_connect(s.now, (PEER, 80).into()).expect("a connection");
    assert_eq!(local.ip(), US);
    s.expect((80, local.port()), seg("S").seq(-1));
    s.finish();
}

/// RFC 9293 §3.9.2.2, MUST-54: an ICMP error reaches the connection whose segment it quotes, and only that.
#[test]
fn an_icmp_error_reaches_its_connection_must_54() {
    let mut s = StackScript::new();
    let (first, a) = s.stack.tcp_connect(s.now, (PEER, 80).into()).expect("a connection");
    let (second, b) = s.stack.tcp_connect(s.now, (PEER, 80).into()).expect("a connection");
    assert_eq!(s.drain(), 2);
    let refused = Message::DestinationUnreachable { code: unreachable::PORT, next_hop_mtu: 0 };
    s.inject_icmp(refused, (80, a.port()), -1);
    assert_eq!(s.stack.tcp(first).and_then(|c| c.error()), Some(Error::Refused));
    assert_eq!(s.stack.tcp(second).map(|c| c.state()), Some(State::SynSent));
    s.inject_icmp(refused, (80, b.port()), 12_345);
    assert_eq!(s.stack.tcp(second).map(|c| c.state()), Some(State::SynSent), "RFC 5927 §4.1");
    s.finish();
}

/// RFC 9293 §3.9.2.2, MUST-55: source quench is dropped.
#[test]
fn source_quench_is_dropped_must_55() {
    let mut s = StackScript::new();
    let (id, local) = s.stack.tcp_connect(s.now, (PEER, 80).into()).expect("a connection");
    let ports = (80, local.port());
    s.expect(ports, seg("S").seq(-1));
    s.inject(ports, seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(ports, seg(".").seq(0).ack(0));
    assert_eq!(s.stack.tcp_write(s.now, id, &[0; 1000]), Ok(1000));
    s.drain();
    let before = s.stack.tcp(id).expect("there").info().cwnd;
    s.inject_icmp(Message::Other { kind: 4, code: 0, rest: [0; 4] }, ports, 0);
    assert_eq!(s.stack.tcp(id).expect("there").info().cwnd, before);
    s.expect_silence();
}

/// RFC 9293 §3.10.7.1: a connection that is over is no connection.
#[test]
fn what_comes_after_the_end_is_reset_rfc9293_3_10_7_1() {
    let mut s = StackScript::new();
    let (id, local) = s.stack.tcp_connect(s.now, (PEER, 80).into()).expect("a connection");
    let ports = (80, local.port());
    s.expect(ports, seg("S").seq(-1));
    s.inject(ports, seg("S.").seq(-1).ack(0).options(plain_options()));
    s.expect(ports, seg(".").seq(0).ack(0));
    s.stack.tcp_abort(s.now, id);
    s.expect(ports, seg("R.").seq(0).ack(0));
    s.inject(ports, seg("P.").seq(0).ack(0).data(b"late"));
    s.expect(ports, seg("R").seq(0));
    s.finish();
}

/// RFC 9293 §3.4.1, MUST-8: of two connections between the same sockets, the later one has later numbers.
#[test]
fn initial_numbers_follow_a_clock_must_8() {
    let (mut s, _) = listening();
    s.inject(CLIENT, seg("S").seq(-1).options(plain_options()));
    let first = s.expect_any(CLIENT).seq;
    s.inject(CLIENT, seg("R").seq(0));
    s.advance(1000);
    s.inject(CLIENT, seg("S").seq(-1).options(plain_options()));
    let second = s.expect_any(CLIENT).seq;
    // A tick every 4 us.
    assert_eq!(second - first, 250_000);
    s.finish();
}

/// RFC 9293 §3.4.1, SHLD-1: between other sockets, numbers are somewhere else.
#[test]
fn initial_numbers_differ_from_peer_to_peer_shld_1() {
    let (mut s, _) = listening();
    let mut numbers = Vec::new();
    for port in 5000..5020 {
        s.inject((port, 80), seg("S").seq(-1).options(plain_options()));
        numbers.push(s.expect_any((port, 80)).seq.0);
    }
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|pair| pair[1] - pair[0] > 1000), "{numbers:?}");
    s.finish();
}
