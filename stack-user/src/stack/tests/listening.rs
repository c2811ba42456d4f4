//! Servers: from a SYN to a connection that is accepted.

use super::*;

/// A listens on port 80.
fn listening(backlog: usize) -> (Link, ListenerId) {
    let mut link = Link::new();
    let id = link.a.tcp_listen(link.now, to(A, 80), backlog).expect("a listener");
    (link, id)
}

fn state(stack: &Stack<Umem>, id: TcpId) -> Option<State> {
    stack.tcp(id).map(|c| c.state())
}

/// RFC 9293 §3.10.1; RFC 4987 §3.5.
#[test]
fn rfc9293_3_10_7_2_a_syn_for_a_listener_becomes_a_connection() {
    let (mut link, listener) = listening(5);
    let (client, from) = link.b.tcp_connect(link.now, to(A, 80)).expect("a connection");
    link.run(Duration::from_millis(20));
    assert_eq!(state(&link.b, client), Some(State::Established));
    let told =
        std::iter::from_fn(|| link.a.poll_event()).any(|event| event == Event::Listener { id: listener });
    assert!(told, "whoever accepts is woken");
    let (server, remote) = link.a.tcp_accept(link.now, listener).expect("a connection");
    assert_eq!(remote, from);
    assert_eq!(state(&link.a, server), Some(State::Established));
    assert_eq!(link.a.tcp_accept(link.now, listener), None);

    assert_eq!(link.b.tcp_write(link.now, client, b"question"), Ok(8));
    link.run(Duration::from_millis(10));
    let mut buf = [0; 100];
    assert_eq!(link.a.tcp_read(link.now, server, &mut buf), Ok(8));
    assert_eq!(link.a.tcp_write(link.now, server, b"answer"), Ok(6));
    link.a.tcp_close(link.now, server);
    link.run(Duration::from_millis(10));
    assert_eq!(link.b.tcp_read(link.now, client, &mut buf), Ok(6));
    assert_eq!(link.b.tcp_read(link.now, client, &mut buf), Ok(0));
    link.b.tcp_close(link.now, client);
    link.run(Duration::from_secs(70));
    assert!(link.a.tcp(server).is_none() && link.b.tcp(client).is_none());
    link.assert_no_frame_is_missing();
}

#[test]
fn a_listener_has_its_address_alone() {
    let mut link = Link::new();
    let now = link.now;
    let any = to(Ipv4Addr::UNSPECIFIED, 80);
    let id = link.a.tcp_listen(now, to(A, 80), 1).expect("a listener");
    assert_eq!(link.a.tcp_listen(now, to(A, 80), 1), Err(ListenError::InUse(to(A, 80))));
    assert_eq!(link.a.tcp_listen(now, any, 1), Err(ListenError::InUse(any)));
    assert_eq!(link.a.tcp_listen(now, to(B, 80), 1), Err(ListenError::NotOurs(B.into())));
    link.a.tcp_unlisten(now, id);
    let id = link.a.tcp_listen(now, any, 1).expect("free again");
    assert_eq!(link.a.tcp_listener(id).map(|info| info.local), Some(any));
    let (client, _) = link.b.tcp_connect(now, to(A, 80)).expect("a connection");
    link.run(Duration::from_millis(20));
    let (server, _) = link.a.tcp_accept(link.now, id).expect("on all addresses is on this one");
    assert_eq!(link.a.tcp(server).map(|c| c.local()), Some(to(A, 80)));
    assert_eq!(state(&link.b, client), Some(State::Established));
}

#[test]
fn port_0_asks_for_any_that_is_free() {
    let mut link = Link::new();
    let mut ports = std::collections::HashSet::new();
    for _ in 0..20 {
        let id = link.a.tcp_listen(link.now, to(A, 0), 1).expect("a listener");
        ports.insert(link.a.tcp_listener(id).expect("there").local.port());
    }
    assert_eq!(ports.len(), 20);
    assert!(!ports.contains(&0));
}

#[test]
fn connections_that_nobody_accepted_are_reset_with_their_listener() {
    let (mut link, listener) = listening(5);
    let (client, _) = link.b.tcp_connect(link.now, to(A, 80)).expect("a connection");
    link.run(Duration::from_millis(20));
    link.a.tcp_unlisten(link.now, listener);
    link.run(Duration::from_millis(20));
    assert_eq!(link.b.tcp(client).and_then(|c| c.error()), Some(Error::Reset));
    link.b.tcp_close(link.now, client);
    assert_eq!(link.a.tcp_connections().count(), 0);
    link.assert_no_frame_is_missing();
}

#[test]
fn when_the_accept_queue_is_full_clients_wait() {
    let (mut link, listener) = listening(2);
    let clients: Vec<_> =
        (0..4).map(|_| link.b.tcp_connect(link.now, to(A, 80)).expect("a connection").0).collect();
    link.run(Duration::from_millis(500));
    assert_eq!(link.a.tcp_listener(listener).map(|info| (info.half_open, info.waiting)), Some((2, 2)));
    assert_eq!(link.a.drops().get(DropReason::TcpAcceptQueueFull), 2);
    // A SYN finds the queue full, too.
    let late = link.b.tcp_connect(link.now, to(A, 80)).expect("a connection").0;
    link.run(Duration::from_millis(100));
    assert_eq!(state(&link.b, late), Some(State::SynSent));
    while link.a.tcp_accept(link.now, listener).is_some() {}
    link.run(Duration::from_secs(3));
    assert_eq!(link.a.tcp_listener(listener).map(|info| (info.half_open, info.waiting)), Some((0, 2)));
    while link.a.tcp_accept(link.now, listener).is_some() {}
    link.run(Duration::from_secs(8));
    assert!(link.a.tcp_accept(link.now, listener).is_some(), "the fifth");
    for id in clients {
        assert_eq!(state(&link.b, id), Some(State::Established));
    }
    link.assert_no_frame_is_missing();
}

/// RFC 4987 §3.3.
#[test]
fn a_syn_ack_is_repeated_five_times_and_then_its_syn_forgotten() {
    let (mut link, listener) = listening(5);
    let (client, _) = link.b.tcp_connect(link.now, to(A, 80)).expect("a connection");
    link.run(Duration::from_millis(1));
    // The SYN has left; from now on nothing arrives, neither at b.
    let syn = sent(&mut link.b, link.now);
    for bytes in syn {
        receive(&mut link.a, link.now, &bytes);
    }
    link.run(Duration::from_millis(1));
    for bytes in sent(&mut link.b, link.now) {
        receive(&mut link.a, link.now, &bytes);
    }
    link.b.tcp_abort(link.now, client);
    link.is_up = false;
    link.protocols();
    assert_eq!(link.a.tcp_listener(listener).map(|info| info.half_open), Some(1));
    link.run(Duration::from_secs(62));
    assert_eq!(link.a.tcp_listener(listener).map(|info| info.half_open), Some(1));
    link.run(Duration::from_secs(2));
    assert_eq!(link.a.tcp_listener(listener).map(|info| info.half_open), Some(0));
    let by_a = link.protocols().into_iter().filter(|&(who, _, ip)| who == 'a' && ip.is_some()).count();
    assert_eq!(by_a, 6, "SYN with ACK and five repetitions");
    link.assert_no_frame_is_missing();
}

/// A SYN to A's port 80, as anybody may forge it.
fn forged_syn(stack: &Stack<Umem>, from: SocketAddr) -> Vec<u8> {
    let options = Options { mss: Some(1460), ..Default::default() };
    tcp_to(stack, from, 80, Flags::SYN, (77, 0), options)
}

#[test]
fn rfc4987_3_6_a_flood_of_syns_takes_a_bounded_room_and_clients_get_through() {
    let (mut link, listener) = listening(5);
    for port in 1..=3_000 {
        let syn = forged_syn(&link.a, to(Ipv4Addr::new(10, 0, 0, 200), port));
        receive(&mut link.a, link.now, &syn);
        assert_eq!(sent(&mut link.a, link.now).len(), 1, "one answer each, to the station that sent it");
    }
    assert_eq!(link.a.tcp_listener(listener).map(|info| info.half_open), Some(64));
    assert_eq!(link.a.tcp_connections().count(), 0);
    assert_eq!(link.a.drops().get(DropReason::TcpSynQueueFull), 3_000 - 64);
    link.protocols();

    let (client, _) = link.b.tcp_connect(link.now, to(A, 80)).expect("a connection");
    link.run(Duration::from_millis(20));
    let (server, _) = link.a.tcp_accept(link.now, listener).expect("by its cookie");
    let info = link.a.tcp(server).expect("there").info();
    assert!(info.sack && info.timestamps, "TSval kept the options: {info:?}");
    assert_eq!(link.b.tcp_write(link.now, client, b"question"), Ok(8));
    link.run(Duration::from_millis(10));
    assert_eq!(link.a.tcp_read(link.now, server, &mut [0; 100]), Ok(8));
    assert_eq!(link.a.tcp_write(link.now, server, b"answer"), Ok(6));
    link.run(Duration::from_millis(10));
    assert_eq!(link.b.tcp_read(link.now, client, &mut [0; 100]), Ok(6));

    // What nobody answers goes, and then there are no cookies any more.
    link.is_up = false;
    link.run(Duration::from_secs(64));
    assert_eq!(link.a.tcp_listener(listener).map(|info| info.half_open), Some(0));
}

#[test]
fn rfc4987_3_6_an_ack_is_no_cookie_when_none_are_out() {
    let (mut link, listener) = listening(5);
    let from = to(B, 4_000);
    let config = link.a.tcp_config(None, A.into(), 1_500);
    let options = Options { mss: Some(1460), ..Default::default() };
    let mut syn = Segment::between(4_000, 80);
    (syn.seq, syn.options) = (SeqNumber(77), options);
    let answer = crate::tcp::syn_cookie::answer(&link.a.secret, link.now, &config, to(A, 80), from, &syn);
    let ack = tcp_to(&link.a, from, 80, Flags::ACK, (78, answer.seq.0.wrapping_add(1)), Default::default());
    receive(&mut link.a, link.now, &ack);
    assert_eq!(link.a.tcp_accept(link.now, listener), None);
    assert_eq!(link.a.drops().get(DropReason::TcpNoConnection), 1);
}

/// RFC 5961 §7: whatever comes for however many connections, the answers are limited.
#[test]
fn rfc5961_7_challenge_acks_of_all_connections_together_are_limited() {
    let (mut link, _) = listening(2_000);
    let mut answered = 0;
    for port in 1..=500 {
        let from = to(Ipv4Addr::new(10, 0, 0, 200), port);
        let syn = forged_syn(&link.a, from);
        receive(&mut link.a, link.now, &syn);
        let _ = sent(&mut link.a, link.now);
        // In the window, not the exact number: RFC 5961 §3.
        let rst = tcp_to(&link.a, from, 80, Flags::RST, (100, 0), Options::default());
        for _ in 0..10 {
            receive(&mut link.a, link.now, &rst);
            answered += sent(&mut link.a, link.now).len();
        }
    }
    assert!((500..1_500).contains(&answered), "{answered} of 5000");
}

/// A SYN that comes again by another way, since a gateway has failed, is answered on that way, then and when our timer
/// expires. A forged one, which does not know the number, turns no answer aside.
#[test]
fn a_syn_that_comes_again_from_another_station_is_answered_there() {
    let (mut link, _) = listening(5);
    let from = to(Ipv4Addr::new(10, 0, 0, 200), 1);
    let by = |mac: u8, mut syn: Vec<u8>| {
        syn[6..12].copy_from_slice(&[2, 0, 0, 0, 0, mac]);
        syn
    };
    let answered_to = |link: &mut Link| -> Vec<u8> {
        let frames = sent(&mut link.a, link.now);
        frames.iter().filter(|bytes| bytes[12..14] == [8, 0]).map(|bytes| bytes[5]).collect()
    };
    let syn = forged_syn(&link.a, from);
    receive(&mut link.a, link.now, &by(7, syn.clone()));
    assert_eq!(answered_to(&mut link), [7]);
    let other = tcp_to(&link.a, from, 80, Flags::SYN, (50_000, 0), Options::default());
    receive(&mut link.a, link.now, &by(9, other));
    assert_eq!(answered_to(&mut link), [9], "a challenge, to whoever it was");
    link.now += Duration::from_millis(1_001);
    link.a.handle_timeout(link.now);
    assert_eq!(answered_to(&mut link), [7]);

    link.now += Duration::from_millis(999);
    receive(&mut link.a, link.now, &by(8, syn));
    assert_eq!(answered_to(&mut link), [8]);
    link.now += Duration::from_millis(1_010);
    link.a.handle_timeout(link.now);
    assert_eq!(answered_to(&mut link), [8]);
}
