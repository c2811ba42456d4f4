//! Three shards of one stack, whose frames come in on whichever queue a test says, and a peer of theirs.

use super::*;
use crate::stack::demux::Flow;

/// The shards are A, and the peer is B. Frames arrive 1 ms after they were sent.
struct Farm {
    now: Instant,
    shards: Vec<Stack<Umem>>,
    peer: Stack<Umem>,
    /// A shard whose driver does not run.
    stuck: Option<usize>,
    /// Nothing arrives at the peer.
    peer_is_deaf: bool,
    /// What the shards sent, by number.
    seen: Vec<(usize, Vec<u8>)>,
}

impl Farm {
    /// All have their addresses, and know each other's link-layer address.
    fn new() -> Self {
        let now = Instant::from_millis(1_000);
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let shard = |number: u64| {
            let umem = Umem::on_heap(CHUNKS).expect("memory");
            Stack::new(now, mac, None, umem, Rng::from_seed(100 + number))
        };
        let mut shards: Vec<_> = (0..3).map(shard).collect();
        unite(&mut shards, &mut Rng::from_seed(9));
        let mut farm =
            Self { now, shards, peer: stack(2), stuck: None, peer_is_deaf: false, seen: Vec::new() };
        claim(&mut farm.shards[0], now, A);
        claim(&mut farm.peer, now, B);
        farm.run(400, |_| Some(2));
        // So the peer does not have to ask.
        receive(&mut farm.peer, farm.now, &arp_request(mac, A, B));
        farm.run(5, |_| None);
        farm
    }

    /// Lets so many milliseconds pass; `steer` says on which queue a frame of the peer comes in, if on any.
    fn run(&mut self, millis: u64, mut steer: impl FnMut(&[u8]) -> Option<usize>) {
        for _ in 0..millis {
            let from_peer = sent(&mut self.peer, self.now);
            let mut from_shards = Vec::new();
            for number in self.awake() {
                let frames = sent(&mut self.shards[number], self.now);
                from_shards.extend(frames.into_iter().map(|frame| (number, frame)));
            }
            self.now += Duration::from_millis(1);
            for frame in &from_peer {
                if let Some(number) = steer(frame) {
                    receive(&mut self.shards[number], self.now, frame);
                }
            }
            for (_, frame) in from_shards.iter().filter(|_| !self.peer_is_deaf) {
                receive(&mut self.peer, self.now, frame);
            }
            self.seen.extend(from_shards);
            self.work();
        }
    }

    /// Whatever is due, and what shards have for each other.
    fn work(&mut self) {
        for number in self.awake() {
            let shard = &mut self.shards[number];
            shard.handle_notices(self.now);
            shard.handle_messages(self.now);
            shard.handle_timeout(self.now);
        }
        self.peer.handle_timeout(self.now);
    }

    fn awake(&self) -> impl Iterator<Item = usize> + use<> {
        let stuck = self.stuck;
        (0..self.shards.len()).filter(move |&number| Some(number) != stuck)
    }

    /// Each shard listens on port 80.
    fn listen(&mut self, backlog: usize) -> Vec<ListenerId> {
        let now = self.now;
        let listen = |shard: &mut Stack<Umem>| shard.tcp_listen(now, to(A, 80), backlog).expect("a listener");
        self.shards.iter_mut().map(listen).collect()
    }

    /// The connections that can be accepted, with their shard.
    fn accept(&mut self, listeners: &[ListenerId]) -> Vec<(usize, TcpId)> {
        let now = self.now;
        let accept = |(number, shard): (usize, &mut Stack<Umem>)| {
            let id = listeners[number];
            std::iter::from_fn(|| shard.tcp_accept(now, id)).map(|(id, _)| (number, id)).collect::<Vec<_>>()
        };
        self.shards.iter_mut().enumerate().flat_map(accept).collect()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.shards.iter().map(|shard| shard.drops().get(reason)).sum()
    }

    /// Nothing that was handed over, or refused, has cost a frame.
    fn assert_no_frame_is_missing(&self) {
        for stack in self.shards.iter().chain([&self.peer]) {
            assert_eq!(stack.pool().available(), CHUNKS as usize);
        }
    }

    /// Who has the flow, by all shards' accounts.
    fn owners(&self, local: SocketAddr, remote: SocketAddr) -> Vec<Option<u16>> {
        let flow = Flow { local, remote };
        let owner = |shard: &Stack<Umem>| shard.siblings.as_ref().and_then(|s| s.owner_elsewhere(&flow));
        self.shards.iter().map(owner).collect()
    }
}

/// One after the other.
fn in_turn() -> impl FnMut(&[u8]) -> Option<usize> {
    let mut turn = 0;
    move |_| {
        turn += 1;
        Some(turn % 3)
    }
}

/// The control bits of a segment, if the frame has one.
fn flags(frame: &[u8]) -> Option<Flags> {
    let (ethernet, at) = ethernet::Header::parse(frame).ok()?;
    let (ip, payload) = ipv4::Header::parse(frame.get(at..)?).ok()?;
    let is_tcp = ethernet.ethertype == ethernet::ethertype::IPV4 && ip.protocol == protocol::TCP;
    let tcp = is_tcp.then(|| frame.get(at..).and_then(|ip| ip.get(payload))).flatten()?;
    crate::wire::tcp::Header::parse(tcp).ok().map(|(header, ..)| header.flags)
}

#[test]
fn the_first_shard_claims_defends_and_answers_and_the_others_use_the_address() {
    let mut farm = Farm::new();
    assert!(farm.shards.iter().all(|shard| shard.address() == Some(A.into())));
    assert!(farm.seen.iter().all(|(number, _)| *number == 0), "the others have been silent");
    // The peer asks on the third queue, and the first shard answers.
    let (client, _) = farm.peer.tcp_connect(farm.now, to(A, 9)).expect("a connection");
    farm.run(10, |_| Some(2));
    assert_eq!(farm.peer.tcp(client).and_then(|c| c.error()), Some(Error::Refused));
    let answered = |(number, frame): &(usize, Vec<u8>)| (*number, flags(frame).is_some());
    let answers: Vec<_> = farm.seen.iter().map(answered).filter(|answer| *answer != (0, false)).collect();
    assert_eq!(answers, [(2, true)], "the reset is that of the shard where the SYN came in");
    farm.assert_no_frame_is_missing();
}

#[test]
fn when_the_address_is_lost_all_shards_lose_it_at_once() {
    let mut farm = Farm::new();
    let listeners = farm.listen(5);
    farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    farm.run(20, |_| Some(1));
    let [(1, server)] = farm.accept(&listeners)[..] else { panic!("one connection, on the second shard") };
    let thief = arp_request(MacAddr([2, 0, 0, 0, 0, 9]), A, A);
    for _ in 0..2 {
        receive(&mut farm.shards[2], farm.now, &thief);
        farm.work();
    }
    farm.work();
    assert!(farm.shards.iter().all(|shard| shard.address().is_none()));
    assert_eq!(farm.shards[1].tcp(server).and_then(|c| c.error()), Some(Error::AddressLost));
    farm.seen.clear();
    farm.run(20, |_| Some(1));
    assert!(farm.seen.is_empty(), "nothing more is said from it");
}

#[test]
fn an_address_that_is_given_up_is_given_up_by_all_shards_and_the_others_stay() {
    const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
    let mut farm = Farm::new();
    claim(&mut farm.shards[0], farm.now, SECOND);
    farm.run(400, |_| Some(2));
    assert!(farm.shards.iter().all(|shard| shard.addresses().eq([A, SECOND])));
    let now = farm.now;
    let listen = |shard: &mut Stack<Umem>| shard.tcp_listen(now, to(SECOND, 80), 5).expect("a listener");
    let listeners: Vec<_> = farm.shards.iter_mut().map(listen).collect();
    let staying = farm.listen(5);
    receive(&mut farm.peer, farm.now, &arp_request(farm.shards[0].mac(), SECOND, B));
    let (client, _) = farm.peer.tcp_connect(farm.now, to(SECOND, 80)).expect("a connection");
    let (other, _) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    farm.run(20, |_| Some(1));
    let [(1, server)] = farm.accept(&listeners)[..] else { panic!("one connection, on the second shard") };
    farm.shards[0].give_up(farm.now, SECOND.into());
    farm.run(20, |_| Some(1));
    for (shard, &listener) in farm.shards.iter().zip(&listeners) {
        assert_eq!(shard.address_state(SECOND.into()), Some(AddressEvent::Leaving));
        assert!(shard.tcp_listener(listener).is_none());
    }
    assert!(farm.shards[1].has_unfinished_connections_at(SECOND.into()), "it goes on");
    farm.peer.tcp_write(farm.now, client, b"still there").expect("room");
    farm.run(10, |_| Some(0));
    assert_eq!(farm.shards[1].tcp_read(farm.now, server, &mut [0; 20]), Ok(11));
    farm.shards[0].release(farm.now, SECOND.into());
    farm.run(20, |_| Some(1));
    assert!(farm.shards.iter().all(|shard| shard.addresses().eq([A])));
    assert_eq!(farm.peer.tcp(client).and_then(|c| c.error()), Some(Error::Reset));
    assert_eq!(farm.peer.tcp(other).map(|c| c.state()), Some(State::Established));
    assert_eq!(farm.accept(&staying).len(), 1);
}

#[test]
fn connections_of_both_roles_work_whichever_queue_their_segments_take() {
    let mut farm = Farm::new();
    let listeners = farm.listen(5);
    let server = farm.peer.tcp_listen(farm.now, to(B, 90), 5).expect("a listener");
    let (from_peer, _) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    let (from_shard, _) = farm.shards[1].tcp_connect(farm.now, to(B, 90)).expect("a connection");
    farm.run(50, in_turn());
    let accepted = farm.accept(&listeners);
    let [(number, ours)] = accepted[..] else { panic!("one connection: {accepted:?}") };
    let (theirs, _) = farm.peer.tcp_accept(farm.now, server).expect("a connection");
    for round in 0..5_u8 {
        let data = [round; 3_000];
        let now = farm.now;
        assert_eq!(farm.peer.tcp_write(now, from_peer, &data), Ok(3_000));
        assert_eq!(farm.peer.tcp_write(now, theirs, &data), Ok(3_000));
        assert_eq!(farm.shards[number].tcp_write(now, ours, &data), Ok(3_000));
        assert_eq!(farm.shards[1].tcp_write(now, from_shard, &data), Ok(3_000));
        farm.run(50, in_turn());
        let (now, mut buf) = (farm.now, [0; 4_000]);
        for read in [
            farm.peer.tcp_read(now, from_peer, &mut buf),
            farm.peer.tcp_read(now, theirs, &mut buf),
            farm.shards[number].tcp_read(now, ours, &mut buf),
            farm.shards[1].tcp_read(now, from_shard, &mut buf),
        ] {
            assert_eq!(read, Ok(3_000));
            assert!(buf[..3_000] == data);
        }
    }
    let hand_overs: Vec<_> = farm.shards.iter().map(Stack::hand_overs).collect();
    let passed: u64 = hand_overs.iter().map(|count| count.passed_on).sum();
    assert_eq!(passed, hand_overs.iter().map(|count| count.taken_in).sum::<u64>());
    assert!(passed > 20, "{hand_overs:?}");
    let now = farm.now;
    farm.peer.tcp_close(now, from_peer);
    farm.peer.tcp_close(now, theirs);
    farm.shards[number].tcp_close(now, ours);
    farm.shards[1].tcp_close(now, from_shard);
    farm.run(100, in_turn());
    farm.assert_no_frame_is_missing();
    assert_eq!(farm.drops(DropReason::TcpNoConnection), 0);
}

#[test]
fn a_syn_that_is_sent_again_and_takes_another_queue_opens_no_second_connection() {
    let mut farm = Farm::new();
    let listeners = farm.listen(5);
    let (client, local) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    let mut syns = 0;
    let mut steer = |frame: &[u8]| {
        syns += usize::from(flags(frame).is_some_and(|flags| flags.contains(Flags::SYN)));
        Some(syns.min(2))
    };
    farm.peer_is_deaf = true;
    farm.run(2_500, &mut steer);
    assert_eq!(farm.owners(to(A, 80), local), [Some(1), None, Some(1)]);
    farm.peer_is_deaf = false;
    farm.run(2_500, &mut steer);
    assert!(syns >= 2, "{syns}");
    assert_eq!(farm.peer.tcp(client).map(|c| c.state()), Some(State::Established));
    let accepted = farm.accept(&listeners);
    assert!(matches!(accepted[..], [(1, _)]), "{accepted:?}");
    assert!(farm.shards.iter().all(|shard| shard.tcp_listeners().all(|(_, info)| info.half_open == 0)));
}

/// RFC 4987 §3.6: the cookie is all that is left of the SYN, and any shard reads it.
#[test]
fn the_ack_of_a_cookie_may_take_another_queue_rfc4987_3_6() {
    let mut farm = Farm::new();
    let listeners = farm.listen(1);
    // More half-open connections than the listener of the first shard may have.
    for port in 0..100 {
        let syn = tcp_to(&farm.shards[0], to(B, 1_000 + port), 80, Flags::SYN, (1, 0), Options::default());
        receive(&mut farm.shards[0], farm.now, &syn);
        let _ = sent(&mut farm.shards[0], farm.now);
    }
    assert!(farm.drops(DropReason::TcpSynQueueFull) > 0, "cookies are out");
    let (client, _) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    let is_syn = |frame: &[u8]| flags(frame).is_some_and(|flags| flags.contains(Flags::SYN));
    farm.run(10, |frame| Some(if is_syn(frame) { 0 } else { 2 }));
    assert_eq!(farm.peer.tcp(client).map(|c| c.state()), Some(State::Established));
    let accepted = farm.accept(&listeners);
    let [(2, server)] = accepted[..] else { panic!("on the queue of its ACK: {accepted:?}") };
    farm.peer.tcp_write(farm.now, client, b"hello").expect("room");
    farm.run(10, |_| Some(1));
    let mut buf = [0; 10];
    assert_eq!(farm.shards[2].tcp_read(farm.now, server, &mut buf), Ok(5), "and it stays there");
}

#[test]
fn an_ack_without_a_cookie_opens_nothing_on_any_queue() {
    let mut farm = Farm::new();
    let listeners = farm.listen(1);
    for number in 0..3 {
        let ack = tcp_to(&farm.shards[0], to(B, 1_000), 80, Flags::ACK, (1, 1), Options::default());
        receive(&mut farm.shards[number], farm.now, &ack);
    }
    farm.work();
    assert!(farm.accept(&listeners).is_empty());
    assert_eq!(farm.drops(DropReason::TcpNoConnection), 3);
}

/// RFC 9293 §3.9.2.2, MUST-54.
#[test]
fn an_icmp_error_finds_the_shard_of_the_flow_that_it_quotes() {
    let mut farm = Farm::new();
    // Nobody answers the SYN but a router, who says that there is no way.
    let (client, local) = farm.shards[1].tcp_connect(farm.now, to(B, 90)).expect("a connection");
    let mut frames = Vec::new();
    for _ in 0..10 {
        farm.now += Duration::from_millis(1);
        frames.extend(sent(&mut farm.shards[1], farm.now));
        frames.retain(|frame| {
            let is_syn = flags(frame).is_some();
            if !is_syn {
                receive(&mut farm.peer, farm.now, frame);
            }
            is_syn
        });
        for answer in sent(&mut farm.peer, farm.now) {
            receive(&mut farm.shards[2], farm.now, &answer);
        }
        farm.work();
    }
    let syn = frames.first().expect("a SYN, since the ARP answer came to all");
    let quote = &syn[ethernet::LEN..ethernet::LEN + ipv4::LEN + 8];
    let mut error = vec![0; ethernet::LEN + ipv4::LEN + 8];
    let header = ethernet::Header {
        destination: farm.shards[0].mac(),
        source: farm.peer.mac(),
        vlan: None,
        ethertype: ethernet::ethertype::IPV4,
    };
    header.emit(&mut error);
    ipv4::Header::new(B, A, protocol::ICMPV4, 8 + quote.len() as u16).emit(&mut error[ethernet::LEN..]);
    error.extend_from_slice(quote);
    let refused = crate::wire::icmpv4::Message::DestinationUnreachable { code: 2, next_hop_mtu: 0 };
    refused.emit(&mut error[ethernet::LEN + ipv4::LEN..]);
    receive(&mut farm.shards[0], farm.now, &error);
    farm.work();
    let told = farm.shards[1].tcp(client).and_then(|c| c.error());
    assert_eq!(told, Some(Error::Unreachable(Unreachable::Protocol)), "from {local}");
    assert_eq!(farm.drops(DropReason::IcmpUnmatched), 0);
    // About a flow that nobody has, it is nobody's.
    receive(&mut farm.shards[0], farm.now, &error);
    farm.work();
    assert_eq!(farm.drops(DropReason::IcmpUnmatched), 1);
}

/// RFC 791 §3.2: parts that take different queues make one datagram, and a segment in it finds its connection.
#[test]
fn parts_that_come_in_on_several_queues_are_put_together() {
    let mut farm = Farm::new();
    let sockets: Vec<_> =
        farm.shards.iter_mut().map(|shard| shard.udp_bind(to(A, 53)).expect("a socket").0).collect();
    let (client, local) = farm.peer.udp_bind(to(B, 0)).expect("a socket");
    let listeners = farm.listen(5);
    let (from_peer, _) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    farm.peer.tcp_set_nodelay(from_peer, true);
    farm.run(20, |_| Some(0));
    let [(0, server)] = farm.accept(&listeners)[..] else { panic!("one connection, on the first shard") };
    let mut turn = 0;
    for round in 0..20_u8 {
        let segment = [round; 1_200];
        farm.peer.tcp_write(farm.now, from_peer, &segment).expect("room");
        let datagram: Vec<u8> = (0..1_200).map(|n| round ^ n as u8).collect();
        farm.peer.udp_send_to(farm.now, client, to(A, 53), &datagram).expect("sent");
        for frame in sent(&mut farm.peer, farm.now) {
            for part in in_parts(&frame) {
                turn += 1;
                receive(&mut farm.shards[turn % 3], farm.now, &part);
            }
        }
        // Once for the parts, once for what they make.
        farm.work();
        farm.work();
        let mut buf = [0; 2_000];
        assert_eq!(farm.shards[0].tcp_read(farm.now, server, &mut buf), Ok(1_200));
        assert_eq!(buf[..1_200], segment);
        let received = sockets.iter().zip(&mut farm.shards);
        let received: Vec<_> =
            received.filter_map(|(&id, shard)| shard.udp_recv_from(id, &mut buf).ok()).collect();
        assert_eq!(received, [(1_200, local)], "by one shard");
        assert_eq!(buf[..1_200], datagram);
        farm.run(5, in_turn());
    }
    farm.assert_no_frame_is_missing();
}

#[test]
fn an_address_that_was_released_and_claimed_again_is_used_by_a_shard_that_hears_of_both_at_once() {
    const A2: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
    let mut farm = Farm::new();
    claim(&mut farm.shards[0], farm.now, A2);
    farm.run(400, |_| Some(0));
    let listener = farm.shards[1].tcp_listen(farm.now, to(A2, 80), 5).expect("a listener");
    let (client, _) = farm.peer.tcp_connect(farm.now, to(A2, 80)).expect("a connection");
    farm.run(20, |_| Some(1));
    assert!(farm.shards[1].tcp_accept(farm.now, listener).is_some());
    farm.stuck = Some(1);
    farm.shards[0].release(farm.now, A2.into());
    farm.run(10, |_| Some(0));
    assert_eq!(farm.shards[0].address_state(A2.into()), None);
    claim(&mut farm.shards[0], farm.now, A2);
    farm.run(400, |_| Some(0));
    farm.stuck = None;
    farm.work();
    assert!(farm.shards.iter().all(|s| s.address_state(A2.into()) == Some(AddressEvent::Claimed)));
    assert!(farm.shards[1].tcp_listener(listener).is_none(), "the old listener is gone all the same");
    farm.run(20, |_| Some(0));
    assert_eq!(farm.peer.tcp(client).and_then(|c| c.error()), Some(Error::Reset), "and the old connection");
    farm.assert_no_frame_is_missing();
}

/// RFC 791 §3.2: whichever shard puts a datagram together, and whichever has the socket.
#[test]
fn parts_for_a_socket_that_only_one_shard_has_are_put_together_for_it() {
    let mut farm = Farm::new();
    let (client, local) = farm.peer.udp_bind(to(B, 0)).expect("a socket");
    for round in 0..60_usize {
        let owner = round % 3;
        let (socket, _) = farm.shards[owner].udp_bind(to(A, 53)).expect("a socket");
        let datagram: Vec<u8> = (0..1_200).map(|n| (round ^ n) as u8).collect();
        farm.peer.udp_send_to(farm.now, client, to(A, 53), &datagram).expect("sent");
        for frame in sent(&mut farm.peer, farm.now) {
            for (number, part) in in_parts(&frame).iter().enumerate() {
                receive(&mut farm.shards[(round + number) % 3], farm.now, part);
            }
        }
        // Once for the parts, once for what they make.
        farm.work();
        farm.work();
        let mut buf = [0; 2_000];
        assert_eq!(farm.shards[owner].udp_recv_from(socket, &mut buf), Ok((1_200, local)), "round {round}");
        assert_eq!(buf[..1_200], datagram);
        farm.shards[owner].udp_close(socket);
        farm.run(5, in_turn());
    }
    // The socket is gone, and is looked for once.
    let handed_over = |farm: &Farm| farm.shards.iter().map(|shard| shard.hand_overs().passed_on).sum::<u64>();
    let before = (handed_over(&farm), farm.drops(DropReason::UdpNoSocket));
    farm.peer.udp_send_to(farm.now, client, to(A, 53), &[0; 1_200]).expect("sent");
    let frames = sent(&mut farm.peer, farm.now);
    frames
        .iter()
        .flat_map(|frame| in_parts(frame))
        .for_each(|part| receive(&mut farm.shards[0], farm.now, &part));
    (0..3).for_each(|_| farm.work());
    assert_eq!(farm.drops(DropReason::UdpNoSocket), before.1 + 1);
    assert!(handed_over(&farm) <= before.0 + 4, "no more than the parts");
    farm.assert_no_frame_is_missing();
}

/// The parts of a datagram, as a router with a narrow link makes them.
fn in_parts(frame: &[u8]) -> Vec<Vec<u8>> {
    const PART: usize = 400;
    let (header, ip) = frame[ethernet::LEN..].split_at(ipv4::LEN);
    if ip.len() <= PART {
        return vec![frame.to_vec()];
    }
    let parts = ip.chunks(PART).enumerate().map(|(number, part)| {
        let more = number < (ip.len() - 1) / PART;
        let mut bytes = [&frame[..ethernet::LEN], header, part].concat();
        let ip = &mut bytes[ethernet::LEN..];
        ip[2..4].copy_from_slice(&((ipv4::LEN + part.len()) as u16).to_be_bytes());
        let offset = (number * PART / 8) as u16 | if more { 1 << 13 } else { 0 };
        ip[6..8].copy_from_slice(&offset.to_be_bytes());
        ip[10..12].fill(0);
        let sum = crate::wire::checksum::Sum::default().bytes(&ip[..ipv4::LEN]).finish();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    });
    parts.collect()
}

#[test]
fn what_comes_for_a_shard_that_is_stuck_waits_within_a_bound_and_the_others_go_on() {
    let mut farm = Farm::new();
    let listeners = farm.listen(5);
    let (stuck, _) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    farm.run(20, |_| Some(1));
    let (fine, _) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    farm.peer.tcp_set_nodelay(fine, true);
    farm.run(20, |_| Some(2));
    let [(1, on_stuck), (2, on_fine)] = farm.accept(&listeners)[..] else { panic!("two connections") };
    farm.stuck = Some(1);
    farm.peer.tcp_write(farm.now, stuck, b"patience").expect("room");
    for round in 0..100_u8 {
        farm.peer.tcp_write(farm.now, fine, &[round; 1_000]).expect("room");
        farm.run(10, |_| Some(0));
        let mut buf = [0; 2_000];
        assert_eq!(farm.shards[2].tcp_read(farm.now, on_fine, &mut buf), Ok(1_000));
    }
    // Far more than there is room for, of the same flow.
    let flood = tcp_to(&farm.shards[0], farm.peer_end(stuck), 80, Flags::ACK, (1, 1), Options::default());
    for _ in 0..3_000 {
        receive(&mut farm.shards[0], farm.now, &flood);
    }
    let lost = farm.drops(DropReason::ShardInboxFull);
    assert!((1_900..2_900).contains(&lost), "{lost} of 3000");
    let (new, _) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    farm.run(20, |_| Some(0));
    assert_eq!(farm.peer.tcp(new).map(|c| c.state()), Some(State::Established));
    farm.stuck = None;
    farm.run(3_000, in_turn());
    let mut buf = [0; 100];
    let got = farm.shards[1].tcp_read(farm.now, on_stuck, &mut buf).expect("data");
    assert_eq!(&buf[..got], b"patience");
    farm.assert_no_frame_is_missing();
}

impl Farm {
    /// The local end of a connection of the peer.
    fn peer_end(&self, id: TcpId) -> SocketAddr {
        self.peer.tcp(id).expect("a connection").local()
    }
}

/// RFC 9293 §3.10.7.4, MUST-13: TIME-WAIT answers for a connection wherever its segments come in.
#[test]
fn a_time_wait_is_found_from_every_queue() {
    let mut farm = Farm::new();
    let listeners = farm.listen(5);
    let (client, local) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    farm.run(20, |_| Some(1));
    let [(1, server)] = farm.accept(&listeners)[..] else { panic!("one connection") };
    // Ours closes first, and its last ACK is lost, so the peer's FIN comes again.
    farm.shards[1].tcp_close(farm.now, server);
    farm.run(10, |_| Some(1));
    farm.peer.tcp_close(farm.now, client);
    let fins = sent(&mut farm.peer, farm.now);
    fins.iter().for_each(|fin| receive(&mut farm.shards[1], farm.now, fin));
    let _lost = sent(&mut farm.shards[1], farm.now);
    assert_eq!(farm.shards[1].tcp_time_waits().count(), 1);
    assert_eq!(farm.owners(to(A, 80), local), [Some(1), None, Some(1)]);
    farm.seen.clear();
    farm.run(2_000, |_| Some(2));
    assert_eq!(farm.peer.tcp_connections().count(), 0, "the peer was answered");
    let mut answers = farm.seen.iter().filter(|(_, frame)| flags(frame).is_some());
    assert!(answers.all(|(number, _)| *number == 1), "by the shard that has the row");
    // And nobody is asked once that is over.
    farm.run(130_000, |_| Some(0));
    assert_eq!(farm.shards[1].tcp_time_waits().count(), 0);
    assert_eq!(farm.owners(to(A, 80), local), [None; 3]);
    farm.assert_no_frame_is_missing();
}

#[test]
fn what_was_passed_on_for_a_flow_that_is_gone_by_then_is_for_no_connection() {
    let mut farm = Farm::new();
    let listeners = farm.listen(5);
    let (client, local) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    farm.run(20, |_| Some(1));
    let [(1, server)] = farm.accept(&listeners)[..] else { panic!("one connection") };
    farm.peer.tcp_write(farm.now, client, b"too late").expect("room");
    for frame in sent(&mut farm.peer, farm.now) {
        receive(&mut farm.shards[2], farm.now, &frame);
    }
    // The connection ends, and another shard gets the flow, before the message is read.
    farm.shards[1].tcp_abort(farm.now, server);
    farm.shards[1].tcp_close(farm.now, server);
    let _ = sent(&mut farm.shards[1], farm.now);
    assert_eq!(farm.owners(to(A, 80), local), [None; 3]);
    let syn = tcp_to(&farm.shards[0], local, 80, Flags::SYN, (1, 0), Options::default());
    receive(&mut farm.shards[0], farm.now, &syn);
    let before = farm.shards[1].hand_overs().passed_on;
    farm.work();
    assert_eq!(farm.shards[1].hand_overs().passed_on, before, "once is enough");
    assert_eq!(farm.shards[1].drops().get(DropReason::TcpNoConnection), 1);
}

#[test]
fn a_four_tuple_is_used_once_on_all_shards_together() {
    let mut farm = Farm::new();
    let connect = |farm: &mut Farm, number: usize, port| {
        farm.shards[number]
            .tcp_connect_with(farm.now, Some(to(A, port)), to(B, 90), None)
            .map(|(_, local)| local.port())
    };
    assert_eq!(connect(&mut farm, 0, 40_000), Ok(40_000));
    let in_use = ConnectError::InUse(to(A, 40_000), to(B, 90));
    assert_eq!(connect(&mut farm, 1, 40_000), Err(in_use));
    assert_eq!(connect(&mut farm, 1, 40_001), Ok(40_001));
    let ports: std::collections::HashSet<_> =
        (0..300).map(|n| connect(&mut farm, n % 3, 0).expect("a port")).collect();
    assert_eq!(ports.len(), 300);
    farm.shards[2].tcp_listen(farm.now, to(A, 50_000), 1).expect("a listener");
    let in_use = ConnectError::InUse(to(A, 50_000), to(B, 90));
    assert_eq!(connect(&mut farm, 1, 50_000), Err(in_use), "its clients would meet ours");
}

#[test]
fn a_connection_chooses_a_port_whose_answers_come_to_its_own_queue() {
    let key = (0..40).map(|n| (n * 37 + 11) as u8).collect();
    let rss = Arc::new(crate::net::rss::Rss::new(key, vec![0, 1, 2, 1]).expect("a table"));
    let mut farm = Farm::new();
    for (queue, shard) in farm.shards.iter_mut().enumerate() {
        shard.place(Arc::clone(&rss), queue as u32);
    }
    for number in (0..3).cycle().take(60) {
        let (_, local) = farm.shards[number].tcp_connect(farm.now, to(B, 90)).expect("a port");
        assert_eq!(rss.queue_of(local, to(B, 90)), Some(number as u32));
        // A port that was asked for is taken as it is.
        let wish = local.port().wrapping_add(1).max(1024);
        let _ = farm.shards[number]
            .tcp_connect_with(farm.now, Some(to(A, wish)), to(B, 91), None)
            .expect("that port");
    }
    farm.run(50, |_| Some(0));
    // Where no port leads, any will do.
    farm.shards[0].place(rss, 7);
    farm.shards[0].tcp_connect(farm.now, to(B, 90)).expect("a port");
    let constant = Arc::new(crate::net::rss::Rss::new(vec![0; 40], vec![1, 0]).expect("a table"));
    farm.shards[0].place(constant, 0);
    farm.shards[0].tcp_connect(farm.now, to(B, 90)).expect("a port");
}

#[test]
fn what_only_one_shard_has_is_found_from_every_queue() {
    let mut farm = Farm::new();
    let listener = farm.shards[1].tcp_listen(farm.now, to(A, 80), 5).expect("a listener");
    let (socket, _) = farm.shards[1].udp_bind(to(A, 53)).expect("a socket");
    let (client, _) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    let (asker, _) = farm.peer.udp_bind(to(B, 0)).expect("a socket");
    farm.peer.udp_send_to(farm.now, asker, to(A, 53), b"question").expect("sent");
    farm.run(20, |_| Some(2));
    assert_eq!(farm.peer.tcp(client).map(|c| c.state()), Some(State::Established));
    assert!(farm.shards[1].tcp_accept(farm.now, listener).is_some());
    assert!(farm.shards[1].udp_recv_from(socket, &mut [0; 10]).is_ok());
    farm.shards[1].tcp_unlisten(farm.now, listener);
    farm.shards[1].udp_close(socket);
    let (refused, _) = farm.peer.tcp_connect(farm.now, to(A, 80)).expect("a connection");
    farm.peer.udp_send_to(farm.now, asker, to(A, 53), b"question").expect("sent");
    farm.run(20, |_| Some(2));
    assert_eq!(farm.peer.tcp(refused).and_then(|c| c.error()), Some(Error::Refused));
    assert_eq!(farm.shards[2].drops().get(DropReason::UdpNoSocket), 1, "told by the shard that was asked");
}

#[test]
fn an_answer_to_one_shards_question_reaches_it_from_every_queue() {
    let mut farm = Farm::new();
    for number in 0..3 {
        assert_eq!(farm.shards[number].neighbour(B.into()), None);
        farm.shards[number].tcp_connect(farm.now, to(B, 90)).expect("a connection");
        farm.run(10, |_| Some((number + 1) % 3));
        assert_eq!(farm.shards[number].neighbour(B.into()), Some(farm.peer.mac()));
    }
}

/// What a shard makes of a flow is what its siblings would: RFC 6528 §3, and RFC 7323 §7.1.
#[test]
fn all_shards_have_the_same_secrets() {
    let farm = Farm::new();
    let flow = Flow { local: to(A, 80), remote: to(B, 90) };
    let secrets: Vec<_> = farm.shards.iter().map(|shard| shard.secrets(farm.now, &flow)).collect();
    assert!(
        secrets
            .iter()
            .all(|of| (of.isn, of.timestamp_offset) == (secrets[0].isn, secrets[0].timestamp_offset))
    );
}
