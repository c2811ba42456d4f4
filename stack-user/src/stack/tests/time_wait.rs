//! What is left of connections that both sides have finished.

use super::*;
use crate::stack::demux::Flow;
use crate::tcp::options::Timestamps;

/// B connects to A's port 80; A closes, then B: A is in TIME-WAIT. B's address is returned.
fn finished(link: &mut Link) -> (ListenerId, SocketAddr) {
    let listener = link.a.tcp_listen(link.now, to(A, 80), 5).expect("a listener");
    let (client, from) = link.b.tcp_connect(link.now, to(A, 80)).expect("a connection");
    link.run(Duration::from_millis(20));
    let (server, _) = link.a.tcp_accept(link.now, listener).expect("a connection");
    link.a.tcp_close(link.now, server);
    link.run(Duration::from_millis(20));
    link.b.tcp_close(link.now, client);
    link.run(Duration::from_millis(20));
    assert!(link.b.tcp(client).is_none(), "LAST-ACK is over");
    assert!(link.a.tcp(server).is_none(), "a row in a table is left, no connection");
    assert_eq!(link.a.tcp_time_waits().collect::<Vec<_>>(), [(to(A, 80), from)]);
    (listener, from)
}

/// What A answered last by TCP, if it did.
fn answered(link: &mut Link) -> Option<Segment> {
    let bytes = sent(&mut link.a, link.now).pop()?;
    let at = ethernet::LEN + ipv4::LEN;
    Some(Segment::parse(A.into(), B.into(), &bytes[at..]).expect("a segment").0)
}

#[test]
fn rfc9293_3_3_2_time_wait_lasts_for_2_msl_and_needs_no_connection() {
    let mut link = Link::new();
    finished(&mut link);
    assert!(!link.a.has_unfinished_connections());
    link.run(Duration::from_secs(58));
    assert_eq!(link.a.tcp_time_waits().count(), 1);
    link.run(Duration::from_secs(3));
    assert_eq!(link.a.tcp_time_waits().count(), 0);
    link.assert_no_frame_is_missing();
}

#[test]
fn what_was_received_can_be_read_after_time_wait_has_begun() {
    let mut link = Link::new();
    let listener = link.a.tcp_listen(link.now, to(A, 80), 5).expect("a listener");
    let (client, _) = link.b.tcp_connect(link.now, to(A, 80)).expect("a connection");
    link.run(Duration::from_millis(20));
    let (server, _) = link.a.tcp_accept(link.now, listener).expect("a connection");
    link.a.tcp_shutdown_write(link.now, server);
    assert_eq!(link.b.tcp_write(link.now, client, b"last words"), Ok(10));
    link.b.tcp_close(link.now, client);
    link.run(Duration::from_millis(50));
    assert_eq!(link.a.tcp_time_waits().count(), 1);
    let mut buf = [0; 4];
    assert_eq!(link.a.tcp_read(link.now, server, &mut buf), Ok(4));
    let mut buf = [0; 100];
    assert_eq!(link.a.tcp_read(link.now, server, &mut buf), Ok(6));
    assert_eq!(link.a.tcp_read(link.now, server, &mut buf), Ok(0), "the end");
    assert_eq!(link.a.tcp(server).and_then(|c| c.error()), None);
    link.a.tcp_close(link.now, server);
    assert!(link.a.tcp(server).is_none());
    link.assert_no_frame_is_missing();
}

/// RFC 9293 §3.10.7.4 (a FIN again), RFC 1337 §3 (RST).
#[test]
fn rfc1337_3_rst_leaves_it_and_a_fin_that_comes_again_is_answered() {
    let mut link = Link::new();
    let (_, from) = finished(&mut link);
    let entry = *link.a.time_waits.get(&Flow { local: to(A, 80), remote: from }).expect("there");
    let ack = entry.ack(link.now, 80, from.port());
    let (next, expected) = (ack.ack.0, ack.seq.0);
    let timestamps = Some(Timestamps { value: u32::MAX / 2, echo: 0 });
    let options = Options { timestamps, ..Options::default() };
    let rst = tcp_to(&link.a, from, 80, Flags::RST, (next, 0), Options::default());
    receive(&mut link.a, link.now, &rst);
    assert_eq!(answered(&mut link), None);
    assert_eq!(link.a.tcp_time_waits().count(), 1);
    // 2 MSL start again.
    link.run(Duration::from_secs(50));
    let fin =
        tcp_to(&link.a, from, 80, Flags::FIN.with(Flags::ACK), (next.wrapping_sub(1), expected), options);
    receive(&mut link.a, link.now, &fin);
    let answer = answered(&mut link).expect("an ACK");
    assert_eq!((answer.seq, answer.ack, answer.flags), (ack.seq, ack.ack, Flags::ACK));
    link.run(Duration::from_secs(50));
    assert_eq!(link.a.tcp_time_waits().count(), 1);
    link.run(Duration::from_secs(11));
    assert_eq!(link.a.tcp_time_waits().count(), 0);
}

/// The client comes back from the same port: its timestamps, or its number, tell that it is new.
#[test]
fn rfc6191_2_a_new_connection_takes_the_place_of_one_in_time_wait() {
    let mut link = Link::new();
    let (listener, from) = finished(&mut link);
    let flow = Flow { local: to(A, 80), remote: from };
    let old = link.a.time_waits.get(&flow).expect("there").ack(link.now, 80, from.port());
    let syn = |link: &Link, seq, value| {
        let timestamps = Some(Timestamps { value, echo: 0 });
        let options = Options { mss: Some(1460), timestamps, ..Options::default() };
        tcp_to(&link.a, from, 80, Flags::SYN, (seq, 0), options)
    };
    let recent = old.options.timestamps.expect("in use").echo;
    let late = syn(&link, old.ack.0.wrapping_sub(5_000), recent.wrapping_sub(1));
    receive(&mut link.a, link.now, &late);
    let answer = answered(&mut link).expect("a challenge");
    assert_eq!((answer.flags, answer.seq), (Flags::ACK, old.seq), "RFC 5961 §4");
    assert_eq!(link.a.tcp_time_waits().count(), 1);

    let new = syn(&link, old.ack.0.wrapping_sub(5_000), recent.wrapping_add(1));
    receive(&mut link.a, link.now, &new);
    let answer = answered(&mut link).expect("SYN with ACK");
    assert_eq!(answer.flags, Flags::SYN.with(Flags::ACK));
    assert!(answer.seq.after(old.seq), "beyond the old connection's numbers: RFC 9293 §3.4.1, MUST-8");
    assert_eq!(link.a.tcp_time_waits().count(), 0);
    assert_eq!(link.a.tcp_listener(listener).map(|info| info.half_open), Some(1));
}

/// A cookie is no number beyond the old connection's (RFC 9293 §3.6.1, MAY-2), and the SYN is of somebody who has been
/// here: it finds room in a queue that a flood has filled. When there is none at all it is dropped, and TIME-WAIT goes on.
#[test]
fn rfc6191_2_a_new_connection_in_the_place_of_an_old_one_gets_no_cookie() {
    let mut link = Link::new();
    let (listener, from) = finished(&mut link);
    let flow = Flow { local: to(A, 80), remote: from };
    let old = link.a.time_waits.get(&flow).expect("there").ack(link.now, 80, from.port());
    let recent = old.options.timestamps.expect("in use").echo;
    for port in 1..=100 {
        let forged = to(Ipv4Addr::new(10, 0, 0, 200), port);
        let syn = tcp_to(&link.a, forged, 80, Flags::SYN, (77, 0), Options::default());
        receive(&mut link.a, link.now, &syn);
        let _ = sent(&mut link.a, link.now);
    }
    assert_eq!(link.a.tcp_listener(listener).map(|info| info.half_open), Some(64));
    let timestamps = Some(Timestamps { value: recent.wrapping_add(1), echo: 0 });
    let options = Options { mss: Some(1460), timestamps, ..Options::default() };
    let syn = tcp_to(&link.a, from, 80, Flags::SYN, (old.ack.0.wrapping_sub(5_000), 0), options);
    let room = link.a.half_open.set_limit(64);
    receive(&mut link.a, link.now, &syn);
    assert_eq!(answered(&mut link), None);
    assert_eq!(link.a.tcp_time_waits().count(), 1);
    link.a.half_open.set_limit(room);
    receive(&mut link.a, link.now, &syn);
    let answer = answered(&mut link).expect("SYN with ACK");
    assert_eq!(answer.flags, Flags::SYN.with(Flags::ACK));
    assert!(answer.seq.after(old.seq), "{:?} after {:?}", answer.seq, old.seq);
    assert_eq!(link.a.tcp_time_waits().count(), 0);
    assert_eq!(link.a.tcp_listener(listener).map(|info| info.half_open), Some(65), "it is remembered");
}

#[test]
fn rfc6191_2_when_ports_run_out_those_in_time_wait_are_used_again_after_a_second() {
    let mut link = Link::new();
    let listener = link.b.tcp_listen(link.now, to(B, 80), 5).expect("a listener");
    let (client, local) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(20));
    let (server, _) = link.b.tcp_accept(link.now, listener).expect("a connection");
    link.a.tcp_close(link.now, client);
    link.run(Duration::from_millis(20));
    link.b.tcp_close(link.now, server);
    link.run(Duration::from_millis(20));
    assert_eq!(link.a.tcp_time_waits().count(), 1);
    // Every other port has a listener.
    for port in 32_768..=65_535 {
        if port != local.port() {
            link.a.tcp_listen(link.now, to(A, port), 1).expect("a listener");
        }
    }
    assert_eq!(link.a.tcp_connect(link.now, to(B, 80)), Err(ConnectError::NoPort(to(B, 80))));
    link.run(Duration::from_secs(1));
    let (again, second) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    assert_eq!(second, local);
    link.run(Duration::from_millis(20));
    assert_eq!(link.a.tcp(again).map(|c| c.state()), Some(State::Established));
}
