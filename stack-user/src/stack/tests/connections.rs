//! Connections come and go; their rows, ports and frames are free afterwards.

use super::*;
use crate::frame::TxFrame;

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

#[test]
fn a_frame_that_the_nic_gives_back_late_wakes_no_connection_that_rests() {
    let mut link = Link::new();
    let _listener = link.b.tcp_listen(link.now, to(B, 80), 5).expect("a listener");
    let (id, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
    link.run(Duration::from_millis(10));
    assert_eq!(link.a.tcp_write(link.now, id, b"hello"), Ok(5));
    let frame = link.a.poll_transmit(link.now).expect("the data");
    let bytes = link.a.pool().tx_gather(&frame).to_vec();
    receive(&mut link.b, link.now, &bytes);
    link.run(Duration::from_secs(30));
    assert_eq!(link.a.tcp_counts().resting, 1, "acknowledged, though the NIC still has it");
    let before = link.a.pool().available();
    link.a.handle_completion(link.now, frame.into_completed());
    assert_eq!(link.a.tcp_counts().resting, 1);
    assert_eq!(link.a.pool().available(), before + 1);
}

/// By a walk over all of them, and as the stack keeps count: without those that are none.
fn assert_counts_are_true(stack: &Stack<Umem>, half_open: usize) {
    let mut walked = [0; State::ALL.len()];
    stack.tcp_connections().for_each(|(_, connection)| walked[connection.state() as usize] += 1);
    walked[State::SynReceived as usize] += half_open;
    walked[State::TimeWait as usize] += stack.tcp_time_waits().count();
    let counted: Vec<_> = stack.tcp_state_counts().collect();
    assert_eq!(counted, State::ALL.into_iter().zip(walked).collect::<Vec<_>>());
}

#[test]
fn connections_are_counted_by_state_as_they_come_rest_and_go() {
    let mut link = Link::new();
    let listener = link.b.tcp_listen(link.now, to(B, 80), 5).expect("a listener");
    let count = |stack: &Stack<Umem>, wanted| {
        stack.tcp_state_counts().find(|&(state, _)| state == wanted).map(|c| c.1)
    };
    let connect = |link: &mut Link, port| link.a.tcp_connect(link.now, to(B, port)).expect("a connection").0;
    let ids: Vec<_> = (0..4).map(|_| connect(&mut link, 80)).collect();
    let refused = connect(&mut link, 81);
    assert_eq!(count(&link.a, State::SynSent), Some(5));
    while link.b.tcp_counts().half_open == 0 {
        link.run(Duration::from_millis(1));
    }
    assert_counts_are_true(&link.b, 4);
    link.run(Duration::from_millis(20));
    assert_eq!(count(&link.a, State::Closed), Some(1), "the application still holds it");
    link.a.tcp_close(link.now, refused);
    assert_eq!(count(&link.a, State::Closed), Some(0));
    link.run(Duration::from_secs(30));
    assert_eq!(link.a.tcp_counts().resting, 4);
    assert_eq!(count(&link.a, State::Established), Some(4));
    assert_counts_are_true(&link.a, 0);
    let servers: Vec<_> =
        std::iter::from_fn(|| link.b.tcp_accept(link.now, listener)).map(|(id, _)| id).collect();
    link.a.tcp_close(link.now, ids[0]);
    link.run(Duration::from_millis(10));
    assert_eq!(count(&link.a, State::FinWait2), Some(1));
    assert_eq!(count(&link.b, State::CloseWait), Some(1));
    assert_counts_are_true(&link.b, 0);
    servers.iter().for_each(|&id| link.b.tcp_close(link.now, id));
    link.run(Duration::from_millis(10));
    assert_eq!(count(&link.a, State::TimeWait), Some(1));
    assert_counts_are_true(&link.a, 0);
    assert_counts_are_true(&link.b, 0);
    ids[1..].iter().for_each(|&id| link.a.tcp_abort(link.now, id));
    ids[1..].iter().for_each(|&id| link.a.tcp_close(link.now, id));
    link.run(Duration::from_secs(130));
    assert!(link.a.tcp_state_counts().chain(link.b.tcp_state_counts()).all(|(_, count)| count == 0));
}

/// Whoever waits for data looks whether there is any, also where nothing has happened for long.
#[test]
fn a_look_that_finds_nothing_to_read_is_no_work_and_keeps_nobody_from_resting() {
    let mut link = Link::new();
    (link.a, link.b) = (roomy(1), roomy(2));
    let (from, to) = connect(&mut link);
    link.run(Duration::from_millis(100));
    assert_eq!(link.b.connections.ready(), 0);
    assert_eq!(link.b.tcp_read(link.now, to, &mut [0; 10]), Err(ReadError::WouldBlock));
    assert_eq!(link.b.connections.ready(), 0, "nothing to send because of that");
    link.run(Duration::from_secs(2));
    assert_eq!((link.a.tcp_counts().resting, link.b.tcp_counts().resting), (1, 1));
    for (stack, id) in [(&mut link.a, from), (&mut link.b, to)] {
        assert_eq!(stack.tcp_read(link.now, id, &mut [0; 10]), Err(ReadError::WouldBlock));
    }
    link.run(Duration::from_secs(2));
    assert_eq!((link.a.tcp_counts().resting, link.b.tcp_counts().resting), (1, 1), "again");
}

/// What a connection from a port writes: three full segments, no two of which are alike.
fn story(port: u16) -> Vec<u8> {
    (0..).flat_map(|n| format!("{port}.{n} ").into_bytes()).take(3 * 1448).collect()
}

/// What frames are sorted by, of the port that they come from and themselves.
type Order = fn(&(u16, TxFrame)) -> (u16, u32);

#[test]
fn frames_that_come_back_together_go_each_to_its_own_connection() {
    let orders: [Order; 3] = [
        |_| (0, 0),
        |(port, _)| (*port, 0),
        |(port, frame)| (0, (frame.chunk() ^ u32::from(*port)).wrapping_mul(0x9e37_79b9)),
    ];
    for order in orders {
        let mut link = Link::new();
        let listener = link.b.tcp_listen(link.now, to(B, 80), 5).expect("a listener");
        let connect = |link: &mut Link| link.a.tcp_connect(link.now, to(B, 80)).expect("a connection").0;
        let ids: Vec<_> = (0..4).map(|_| connect(&mut link)).collect();
        link.run(Duration::from_millis(10));
        let ends = |link: &mut Link| link.b.tcp_accept(link.now, listener).map(|(id, _)| id);
        let ends: Vec<_> = std::iter::from_fn(|| ends(&mut link)).collect();
        let port = |link: &Link, id| link.a.tcp(id).expect("it").local().port();
        for &id in &ids {
            assert_eq!(link.a.tcp_write(link.now, id, &story(port(&link, id))), Ok(3 * 1448));
        }
        let (socket, _) = link.a.udp_bind(to(A, 0)).expect("a socket");
        link.a.udp_send_to(link.now, socket, to(B, 9), b"and one of nobody").expect("sent");
        // The NIC has all of them for a while. The first connection's arrive meanwhile, and two of the last one's.
        let (aborted, mut arrive) = (port(&link, ids[1]), vec![port(&link, ids[0]); 3]);
        arrive.extend([port(&link, ids[3]); 2]);
        let mut frames = Vec::new();
        while let Some(frame) = link.a.poll_transmit(link.now) {
            let bytes = link.a.pool().tx_gather(&frame).to_vec();
            let from = u16::from_be_bytes([bytes[34], bytes[35]]);
            if let Some(at) = arrive.iter().position(|&port| port == from) {
                arrive.swap_remove(at);
                receive(&mut link.b, link.now, &bytes);
            }
            frames.push((from, frame));
        }
        assert_eq!(frames.len(), 4 * 3 + 1);
        link.a.tcp_abort(link.now, ids[1]);
        link.a.tcp_close(link.now, ids[1]);
        link.run(Duration::from_millis(3));
        assert!(link.a.tcp(ids[1]).is_none(), "gone");
        assert_eq!(link.a.tcp(ids[0]).map(|c| c.info().in_flight), Some(0), "acknowledged");
        link.a.tcp_close(link.now, ids[0]);
        let before = link.a.pool().available();
        frames.sort_by_key(order);
        let frames = frames.into_iter().map(|(_, frame)| frame.into_completed());
        link.a.handle_completions(link.now, frames);
        assert_eq!(link.a.pool().available(), before + 3 + 3 + 2 + 1, "the others wait for their ACKs");
        link.run(Duration::from_secs(5));
        for &end in &ends {
            let port = link.b.tcp(end).expect("it").remote().port();
            let (mut read, mut data) = (0, vec![0; 5_000]);
            while let Ok(n @ 1..) = link.b.tcp_read(link.now, end, &mut data[read..]) {
                read += n;
            }
            let expected = if port == aborted { Vec::new() } else { story(port) };
            assert!(data[..read] == expected);
        }
        ids[2..].iter().for_each(|&id| link.a.tcp_close(link.now, id));
        ends.iter().for_each(|&end| link.b.tcp_close(link.now, end));
        link.run(Duration::from_secs(1));
        link.assert_no_frame_is_missing();
    }
}
