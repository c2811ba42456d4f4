//! Connections come and go; their rows, ports and frames are free afterwards.

use super::*;

#[test]
fn rfc9293_3_10_7_1_a_syn_for_no_listener_is_refused() {
    let mut link = Link::new();
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(10));
    assert_eq!(link.a.tcp(id).and_then(|c| c.error()), Some(Error::Refused));
    assert_eq!(link.b.drops().get(DropReason::TcpNoConnection), 1);
    let told = std::iter::from_fn(|| link.a.poll_event());
    assert!(told.into_iter().any(|event| event == Event::Tcp { id, readable: true, writable: true }));
    assert!(!link.a.has_unfinished_connections());
    link.a.tcp_close(link.now, id);
    assert!(link.a.tcp(id).is_none(), "closed and let go: gone");
    assert_eq!(link.a.tcp_read(link.now, id, &mut [0; 10]), Err(ReadError::Closed));
    link.assert_no_frame_is_missing();
}

#[test]
fn a_connection_that_was_let_go_is_not_found_by_its_old_number() {
    let mut link = Link::new();
    let (first, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(10));
    link.a.tcp_close(link.now, first);
    let (second, _) = link.a.tcp_connect(link.now, to(B, 81)).expect("a connection");
    assert_eq!(first.index(), second.index(), "the row is used again");
    assert!(link.a.tcp(first).is_none());
    link.a.tcp_abort(link.now, first);
    assert_eq!(link.a.tcp(second).map(|c| c.state()), Some(State::SynSent));
    link.a.tcp_close(link.now, second);
    link.run(Duration::from_millis(10));
    link.assert_no_frame_is_missing();
}

#[test]
fn frames_on_the_ring_when_their_connection_goes_come_back_to_the_pool() {
    let mut link = Link::new();
    // With the neighbour known, the SYN goes straight to the ring.
    let (socket, _) = link.a.udp_bind(to(A, 0)).expect("a socket");
    link.a.udp_send_to(link.now, socket, to(B, 9), b"").expect("sent");
    link.run(Duration::from_millis(10));
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    let frames: Vec<_> = std::iter::from_fn(|| link.a.poll_transmit(link.now)).collect();
    assert_eq!(frames.len(), 1);
    link.a.tcp_close(link.now, id);
    assert!(link.a.tcp(id).is_none());
    for frame in frames {
        link.a.handle_completion(link.now, frame.into_completed());
    }
    link.run(Duration::from_millis(10));
    link.assert_no_frame_is_missing();
}

#[test]
fn rfc9293_3_10_7_1_a_segment_for_a_connection_that_has_failed_is_answered_with_a_reset() {
    let mut link = Link::new();
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(10));
    let local = link.a.tcp(id).expect("held").local();
    assert_eq!(link.a.tcp(id).and_then(|c| c.error()), Some(Error::Refused));
    link.protocols();
    let late = segment_to(&link.a, 80, local.port());
    receive(&mut link.a, link.now, &late);
    link.run(Duration::from_millis(10));
    let reset = ('a', ethernet::ethertype::IPV4, Some(protocol::TCP));
    assert_eq!(
        link.protocols(),
        [reset],
        "the application still holds it, the peer must know that it is over"
    );
    link.a.tcp_close(link.now, id);
    link.assert_no_frame_is_missing();
}
