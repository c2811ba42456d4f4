//! What many frames from nobody may cost.

use super::*;

#[test]
fn forged_senders_do_not_make_us_ask_the_link_for_them() {
    let mut link = Link::new();
    for host in 10..200 {
        let forged = Ipv4Addr::new(10, 0, 0, host);
        let mut datagram = vec![0; ethernet::LEN + ipv4::LEN + 20];
        write_ethernet(&link, &mut datagram);
        ipv4::Header::new(forged, B, protocol::UDP, 20).emit(&mut datagram[ethernet::LEN..]);
        let header = crate::wire::udp::Header { source_port: 1, destination_port: 9 };
        header.emit(forged.into(), B.into(), &mut datagram[ethernet::LEN + ipv4::LEN..]);
        receive(&mut link.b, link.now, &datagram);
        link.run(Duration::from_millis(5));
    }
    let answers = link.seen.iter().filter(|(who, _)| *who == 'b').map(|(_, bytes)| bytes);
    let answers: Vec<_> = answers.filter_map(|bytes| ethernet::Header::parse(bytes).ok()).collect();
    let errors = answers.iter().filter(|(header, _)| header.ethertype == ethernet::ethertype::IPV4).count();
    assert!(errors > 50, "{errors} answers, to the station that sent the datagrams");
    let asked = answers.iter().filter(|(header, _)| {
        header.ethertype == ethernet::ethertype::ARP && header.destination == MacAddr::BROADCAST
    });
    assert!(asked.count() <= 10, "the probes and announcements of its own claim");
    link.assert_no_frame_is_missing();
}

#[test]
fn resets_are_limited_so_that_a_flood_does_not_take_the_ring_from_connections() {
    let mut link = Link::new();
    for port in 1..=2_000 {
        let stray = segment_to(&link.a, 80, port);
        receive(&mut link.a, link.now, &stray);
        let _ = sent(&mut link.a, link.now);
    }
    assert_eq!(link.a.drops().get(DropReason::TcpNoConnection), 2_000);
    let silent = link.a.drops().get(DropReason::TcpResetLimited);
    assert!((1_000..2_000).contains(&silent), "{silent} of 2000 segments were not answered");
    link.run(Duration::from_millis(3_500));
    link.assert_no_frame_is_missing();
}

/// An exact limit lets whoever counts the resets that he gets find out how many others got, and so which of the segments that he
/// forged met a connection (the idea of CVE-2016-5696).
#[test]
fn how_many_resets_are_sent_can_not_be_foretold() {
    let mut link = Link::new();
    let mut counts = std::collections::HashSet::new();
    for _ in 0..20 {
        link.now += Duration::from_secs(1);
        let mut resets = 0;
        for port in 1..=300 {
            let stray = segment_to(&link.a, 80, port);
            receive(&mut link.a, link.now, &stray);
            resets += sent(&mut link.a, link.now).len();
        }
        assert!((67..=200).contains(&resets), "{resets}");
        counts.insert(resets);
    }
    assert!(counts.len() > 5, "{counts:?}");
}

#[test]
fn answers_that_the_ring_does_not_take_do_not_take_the_pool() {
    let umem = Umem::on_heap(2_048).expect("memory");
    let mac = MacAddr([2, 0, 0, 0, 0, 1]);
    let mut stack = Stack::new(Instant::from_millis(1_000), mac, None, umem, Rng::from_seed(1));
    let mut now = Instant::from_millis(1_000);
    claim(&mut stack, now, A);
    for _ in 0..400 {
        now += Duration::from_millis(1);
        stack.handle_timeout(now);
        let _ = sent(&mut stack, now);
    }
    let question = arp_request(MacAddr([2, 0, 0, 0, 0, 9]), B, A);
    for _ in 0..2_000 {
        receive(&mut stack, now, &question);
    }
    assert!(stack.pool().available() > 1_024, "only {} chunks are left", stack.pool().available());
    assert!(stack.drops().get(DropReason::TxQueueFull) > 0);
    let _ = sent(&mut stack, now);
    assert_eq!(stack.pool().available(), 2_048);
}

/// Connections from A to B's port 80, both ends.
fn connected(link: &mut Link, count: usize) -> Vec<(TcpId, TcpId)> {
    let listener = link.b.tcp_listen(link.now, to(B, 80), count).expect("a listener");
    (0..count)
        .map(|_| {
            let (client, _) = link.a.tcp_connect(link.now, to(B, 80)).expect("a connection");
            link.run(Duration::from_millis(20));
            link.a.tcp_set_nodelay(client, true);
            (client, link.b.tcp_accept(link.now, listener).expect("a connection").0)
        })
        .collect()
}

/// Small segments are copied, or they would take the frames. What is copied is bounded for all connections together, not
/// only for each.
#[test]
fn what_slow_readers_leave_lying_takes_no_more_memory_than_all_together_may() {
    let mut link = Link::new();
    let pairs = connected(&mut link, 4);
    link.b.limits.memory = 2_000;
    let message = [7; 100];
    let (reader, slow) = pairs.split_first().expect("connections");
    let mut wrote = [0; 3];
    for _ in 0..20 {
        for (&(client, _), wrote) in slow.iter().zip(&mut wrote) {
            *wrote += link.a.tcp_write(link.now, client, &message).expect("room");
        }
        assert_eq!(link.a.tcp_write(link.now, reader.0, &message), Ok(100));
        link.run(Duration::from_millis(20));
        // Who reads is served as if nothing were.
        assert_eq!(link.b.tcp_read(link.now, reader.1, &mut [0; 200]), Ok(100));
        let memory = link.b.connections.memory();
        assert!(memory < 2_400, "{memory} bytes");
    }
    assert!(link.b.drops().get(DropReason::TcpMemory) > 0);
    // When they do read, nothing of it is missing.
    let mut read = [0; 3];
    for _ in 0..400 {
        for (&(_, server), read) in slow.iter().zip(&mut read) {
            *read += link.b.tcp_read(link.now, server, &mut [0; 4_000]).unwrap_or(0);
        }
        link.run(Duration::from_millis(100));
    }
    assert_eq!(read, wrote);
    assert_eq!(link.b.connections.memory(), 0);
    for &(client, server) in &pairs {
        link.a.tcp_abort(link.now, client);
        link.a.tcp_close(link.now, client);
        link.b.tcp_close(link.now, server);
    }
    link.run(Duration::from_millis(50));
    link.assert_no_frame_is_missing();
}

/// A peer that takes nothing in would keep what its server has long closed.
#[test]
fn of_too_many_closed_connections_that_wait_for_their_peers_the_next_is_reset() {
    let mut link = Link::new();
    let pairs = connected(&mut link, 4);
    link.b.limits.orphans = 2;
    link.is_up = false;
    for &(_, server) in &pairs[..3] {
        link.b.tcp_write(link.now, server, b"nobody takes this").expect("room");
        link.b.tcp_close(link.now, server);
    }
    let waiting = |link: &Link, pair: usize| link.b.tcp(pairs[pair].1).is_some();
    link.run(Duration::from_millis(5));
    assert!(waiting(&link, 0) && waiting(&link, 1) && !waiting(&link, 2));
    // One that is held counts for nothing, and when some have ended, there is room again.
    link.is_up = true;
    link.run(Duration::from_secs(2));
    for &(client, _) in &pairs[..2] {
        link.a.tcp_close(link.now, client);
    }
    link.run(Duration::from_secs(2));
    link.is_up = false;
    link.b.tcp_close(link.now, pairs[3].1);
    link.run(Duration::from_millis(5));
    assert!(waiting(&link, 3), "it may wait for its peer");
    link.is_up = true;
    link.run(Duration::from_secs(3));
    for &(client, _) in &pairs[2..] {
        link.a.tcp_close(link.now, client);
    }
    link.run(Duration::from_secs(70));
    link.assert_no_frame_is_missing();
}
