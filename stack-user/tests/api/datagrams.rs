//! Datagram sockets beyond sending and receiving.

use std::{io, net::Ipv4Addr, time::Duration};

use tokio::io::Interest;

use stack_user::{
    api::{Stack, UdpSocket},
    device::memory,
    stack::AddressEvent,
    wire::{Ecn, MacAddr, arp},
};

use crate::{A, B, link, soon, start};

async fn sockets() -> (UdpSocket, UdpSocket, (Stack, Stack)) {
    let (a, b) = soon("claiming", link()).await;
    let client = UdpSocket::bind(&a, (A, 0).into()).await.unwrap();
    let server = UdpSocket::bind(&b, (Ipv4Addr::UNSPECIFIED, 7).into()).await.unwrap();
    (client, server, (a, b))
}

#[tokio::test]
async fn a_connected_socket_has_one_peer() {
    let (client, server, (_a, b)) = sockets().await;
    assert_eq!(client.send(b"to whom?").await.unwrap_err().kind(), io::ErrorKind::NotConnected);
    client.connect((B, 7).into()).await.unwrap();
    assert_eq!(client.peer_addr().unwrap(), (B, 7).into());
    assert_eq!(client.connect((B, 8).into()).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    client.send(b"hello").await.unwrap();
    let mut buf = [0; 100];
    let (n, from) = soon("a datagram", server.recv_from(&mut buf)).await.unwrap();
    assert_eq!((&buf[..n], from), (&b"hello"[..], client.local_addr()));
    // Somebody else's does not come.
    let other = UdpSocket::bind(&b, (B, 9).into()).await.unwrap();
    other.send_to(b"me too", from).await.unwrap();
    server.send_to(b"back", from).await.unwrap();
    let n = soon("the answer", client.recv(&mut buf)).await.unwrap();
    assert_eq!(&buf[..n], b"back");
}

#[tokio::test]
async fn a_datagram_can_be_looked_at_and_nothing_waits_where_it_is_only_tried() {
    let (client, server, _stacks) = sockets().await;
    let mut buf = [0; 100];
    assert_eq!(server.try_recv_from(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let nothing = tokio::time::timeout(Duration::from_millis(20), server.readable()).await;
    assert!(nothing.is_err(), "nothing has come");
    client.try_send_to(b"look", (B, 7).into()).unwrap();
    soon("a datagram", server.readable()).await.unwrap();
    for _ in 0..2 {
        let (n, from) = soon("a look", server.peek_from(&mut buf)).await.unwrap();
        assert_eq!((&buf[..n], from), (&b"look"[..], client.local_addr()));
    }
    assert_eq!(server.try_recv_from(&mut buf).unwrap().0, 4);
    assert_eq!(server.try_recv_from(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_foreign_address_is_refused() {
    let (a, _b) = soon("claiming", link()).await;
    let foreign = UdpSocket::bind(&a, (B, 0).into()).await.unwrap_err();
    assert_eq!(foreign.kind(), io::ErrorKind::AddrNotAvailable, "{foreign}");
}

/// RFC 5227 §2.4 (b): an address that somebody insists on is given up, and who waits for its datagrams hears of it.
#[tokio::test]
async fn whoever_waits_hears_that_the_address_is_lost() {
    let (device, wire) = memory::tap(memory::Options::default());
    let a = start(device, 1, A);
    assert_eq!(soon("claiming", a.claimed()).await.unwrap(), AddressEvent::Claimed);
    let socket = UdpSocket::bind(&a, (A, 7).into()).await.unwrap();
    let waits = tokio::spawn(async move {
        let error = socket.recv_from(&mut [0; 10]).await.unwrap_err();
        (socket, error)
    });
    tokio::task::yield_now().await;
    // Somebody without manners announces the same address, twice.
    let intruder = MacAddr([2, 0, 0, 0, 0, 9]);
    let announcement = arp::Packet {
        operation: arp::Operation::Request,
        sender_mac: intruder,
        sender_ip: A,
        target_mac: MacAddr([0; 6]),
        target_ip: A,
    };
    let mut frame = [&[0xff; 6][..], &intruder.0, &[0x08, 0x06], &[0; 28]].concat();
    announcement.emit(&mut frame[14..]);
    for _ in 0..2 {
        assert!(wire.send(&frame));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (socket, error) = soon("the news", waits).await.unwrap();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}");
    assert_eq!(
        socket.try_recv_from(&mut [0; 10]).unwrap_err().kind(),
        io::ErrorKind::AddrNotAvailable,
        "for good"
    );
}

#[tokio::test]
async fn every_way_to_send_and_to_receive_is_there() {
    let (a, b) = soon("claiming", link()).await;
    let one = UdpSocket::bind(&a, (A, 0).into()).await.unwrap();
    let other = UdpSocket::bind(&b, (B, 7).into()).await.unwrap();
    let unconnected = one.try_send(b"?").unwrap_err();
    assert_eq!(unconnected.kind(), io::ErrorKind::NotConnected, "{unconnected}");
    one.connect((B, 7).into()).await.unwrap();
    let mut buf = [0; 100];
    assert_eq!(other.try_recv(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    assert_eq!(other.try_peek_from(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    one.writable().await.unwrap();
    assert!(one.ready(Interest::READABLE | Interest::WRITABLE).await.unwrap().is_writable());
    assert_eq!(one.try_send(b"hello").unwrap(), 5);
    assert!(soon("it to come", other.ready(Interest::READABLE)).await.unwrap().is_readable());
    assert_eq!(other.peek_sender().await.unwrap(), one.local_addr());
    assert_eq!(other.peek(&mut buf).await.unwrap(), 5);
    assert_eq!(other.try_peek_from(&mut buf).unwrap(), (5, one.local_addr()));
    assert_eq!(other.try_recv(&mut buf).unwrap(), 5);
    assert_eq!(&buf[..5], b"hello");
}

#[tokio::test]
async fn what_the_packets_say_is_what_was_chosen() {
    let (device, wire) = memory::tap(memory::Options::default());
    let a = start(device, 1, A);
    assert_eq!(soon("claiming", a.claimed()).await.unwrap(), AddressEvent::Claimed);
    let socket = UdpSocket::bind(&a, (A, 7).into()).await.unwrap();
    let everybody = (Ipv4Addr::BROADCAST, 7).into();
    let sent = |ecn| {
        while wire.receive().is_some() {}
        assert_eq!(socket.try_send_many([&b"hello"[..]], everybody, None, ecn).unwrap(), 1);
        let frame = std::iter::from_fn(|| wire.receive()).find(|frame| frame[12..14] == [8, 0]).unwrap();
        let (tos, ttl) = (frame[14 + 1], frame[14 + 8]);
        assert_eq!(ttl, socket.ttl());
        tos
    };
    assert_eq!((socket.ttl(), socket.dscp(), sent(Ecn::NotEct)), (64, 0, 0));
    socket.set_ttl(3);
    socket.set_dscp(0x2e);
    assert_eq!((socket.ttl(), socket.dscp(), sent(Ecn::Ect0)), (3, 0x2e, 0xba));
    socket.set_ttl(0);
    socket.set_dscp(0xff);
    assert_eq!(
        (socket.ttl(), socket.dscp(), sent(Ecn::NotEct)),
        (1, 0x3f, 0xfc),
        "what fits, and never zero"
    );
}
