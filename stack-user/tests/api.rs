//! The tokio face over a wire in memory: two stacks of ours, in real time, without any privilege.

// A helper that unwraps fails its test with a line number.
#![allow(clippy::unwrap_used)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use stack_user::{
    api::{ResolveError, Resolver, Stack, TcpListener, TcpStream, UdpSocket},
    device::{Umem, memory},
    net::acd::Schedule,
    rng::Rng,
    runtime::Clock,
    stack::{self, AddressEvent},
    wire::MacAddr,
};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CHUNKS: u32 = 256;

/// Two stacks with an address each.
async fn link() -> (Stack, Stack) {
    let (one, other) = memory::pair(memory::Options::default());
    let (a, b) = (start(one, 1, A), start(other, 2, B));
    assert_eq!(a.claimed().await, AddressEvent::Claimed);
    assert_eq!(b.claimed().await, AddressEvent::Claimed);
    (a, b)
}

fn start(device: memory::MemoryDevice, number: u8, address: Ipv4Addr) -> Stack {
    let clock = Clock::new();
    let umem = Umem::on_heap(CHUNKS).unwrap();
    let mac = MacAddr([2, 0, 0, 0, 0, number]);
    let mut stack = stack::Stack::new(clock.now(), mac, None, umem, Rng::from_seed(number.into()));
    stack.claim(clock.now(), address, "10.0.0.0/24".parse().unwrap(), None, 1_500, Schedule::Fast).unwrap();
    Stack::over(stack, Box::new(device), clock).unwrap()
}

/// Fails instead of hanging when a wake-up is lost.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future)
        .await
        .unwrap_or_else(|_| panic!("{what} takes too long"))
}

#[tokio::test]
async fn datagrams_wake_whoever_waits_for_them() {
    let (a, b) = soon("claiming", link()).await;
    let server = UdpSocket::bind(&b, 7).unwrap();
    let echo = tokio::spawn(async move {
        let mut buf = [0; 2_000];
        loop {
            let (n, from) = server.recv_from(&mut buf).await.unwrap();
            server.send_to(&buf[..n], from).unwrap();
        }
    });
    let client = UdpSocket::bind(&a, 0).unwrap();
    for n in 0..200_usize {
        let payload = vec![n as u8; n * 7];
        client.send_to(&payload, (B, 7).into()).unwrap();
        let mut buf = [0; 2_000];
        let (len, from) = soon("an echo", client.recv_from(&mut buf)).await.unwrap();
        assert_eq!((&buf[..len], from), (&payload[..], (B, 7).into()));
    }
    echo.abort();
}

#[tokio::test]
async fn errors_of_the_network_are_those_of_std_io() {
    let (a, _b) = soon("claiming", link()).await;
    let refused = soon("a refusal", TcpStream::connect(&a, (B, 80).into())).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");

    let far = SocketAddr::from(([192, 0, 2, 1], 80));
    let error = TcpStream::connect(&a, far).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable, "{error}");

    let nobody = SocketAddr::from(([10, 0, 0, 99], 80));
    let error = soon("no answer to ARP", TcpStream::connect(&a, nobody)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::HostUnreachable, "{error}");

    let socket = UdpSocket::bind(&a, 0).unwrap();
    socket.send_to(b"anybody?", (B, 9).into()).unwrap();
    let error = soon("port unreachable", socket.recv_from(&mut [0; 10])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");

    let taken = socket.local_addr().port();
    assert_eq!(UdpSocket::bind(&a, taken).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(socket);
    UdpSocket::bind(&a, taken).expect("free again");
}

#[tokio::test]
async fn a_dropped_connect_is_over() {
    let (a, _b) = soon("claiming", link()).await;
    let nobody = SocketAddr::from(([10, 0, 0, 99], 80));
    let connect = TcpStream::connect(&a, nobody);
    assert!(tokio::time::timeout(Duration::from_millis(50), connect).await.is_err());
    // Nothing is left to wait for.
    soon("shutting down", a.shut_down(Duration::from_secs(60))).await;
}

#[tokio::test]
async fn two_with_one_address_do_not_both_get_it() {
    let (one, other) = memory::pair(memory::Options::default());
    let a = start(one, 1, A);
    assert_eq!(soon("claiming", a.claimed()).await, AddressEvent::Claimed);
    let b = start(other, 2, A);
    let owner = MacAddr([2, 0, 0, 0, 0, 1]);
    assert_eq!(soon("refusing", b.claimed()).await, AddressEvent::Refused { mac: owner });
    assert_eq!((a.address(), b.address()), (Some(A.into()), None));
}

/// Answers for one name, and says of all others that they don't exist.
async fn name_server(stack: Stack, mut lose: usize) {
    let socket = UdpSocket::bind(&stack, 53).unwrap();
    let mut buf = [0; 2_000];
    loop {
        let (n, from) = socket.recv_from(&mut buf).await.unwrap();
        if lose > 0 {
            lose -= 1;
            continue;
        }
        let query = Message::from_vec(&buf[..n]).unwrap();
        let question = query.queries.first().unwrap().clone();
        let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
        if question.name().to_ascii() == "example.com." {
            let address = RData::A(Ipv4Addr::new(192, 0, 2, 80).into());
            answer.add_answer(Record::from_rdata(question.name().clone(), 60, address));
        } else {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        answer.add_query(question);
        socket.send_to(&answer.to_vec().unwrap(), from).unwrap();
    }
}

#[tokio::test]
async fn names_are_looked_up_through_the_stack() {
    let (a, b) = soon("claiming", link()).await;
    // The first query is lost: it is repeated.
    let server = tokio::spawn(name_server(b, 1));
    let resolver = Resolver::new(&a, &[B.into()]).unwrap();
    let found = soon("an answer", resolver.lookup("example.com")).await.unwrap();
    assert_eq!(found, [IpAddr::from([192, 0, 2, 80])]);
    let unknown = soon("an answer", resolver.lookup("nowhere.example")).await.unwrap_err();
    assert!(matches!(&unknown, ResolveError::NotFound(name) if name == "nowhere.example"), "{unknown:?}");
    let invalid = resolver.lookup(&"x".repeat(70)).await.unwrap_err();
    assert!(matches!(invalid, ResolveError::InvalidName(_)), "{invalid:?}");
    assert_eq!(resolver.lookup("10.1.2.3").await.unwrap(), [IpAddr::from([10, 1, 2, 3])], "needs no server");
    server.abort();
}

#[tokio::test]
async fn a_name_server_that_is_not_there_is_named() {
    let (a, _b) = soon("claiming", link()).await;
    let resolver = Resolver::new(&a, &[[10, 0, 0, 99].into()]).unwrap();
    let lookup = resolver.lookup("example.com");
    let error = tokio::time::timeout(Duration::from_secs(30), lookup).await.expect("bounded").unwrap_err();
    assert!(matches!(error, ResolveError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("10.0.0.99"), "{error}");
}

#[tokio::test]
async fn a_listener_accepts_and_streams_carry_bytes_both_ways() {
    let (a, b) = soon("claiming", link()).await;
    let listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    assert_eq!(listener.local_addr(), (B, 80).into());
    let server = tokio::spawn(async move {
        let (mut stream, from) = listener.accept().await.unwrap();
        assert_eq!(stream.peer_addr(), from);
        let mut received = Vec::new();
        stream.read_to_end(&mut received).await.unwrap();
        stream.write_all(&received).await.unwrap();
        stream.shutdown().await.unwrap();
        received
    });
    let mut client = soon("connecting", TcpStream::connect(&a, (B, 80).into())).await.unwrap();
    let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    soon("sending", client.write_all(&sent)).await.unwrap();
    client.shutdown().await.unwrap();
    let mut echo = Vec::new();
    soon("the echo", client.read_to_end(&mut echo)).await.unwrap();
    assert_eq!(soon("the server", server).await.unwrap(), sent);
    assert_eq!(echo, sent);
}

#[tokio::test]
async fn a_dropped_listener_refuses() {
    let (a, b) = soon("claiming", link()).await;
    let listener = TcpListener::bind(&b, (Ipv4Addr::UNSPECIFIED, 0).into()).await.unwrap();
    let port = listener.local_addr().port();
    let second = TcpListener::bind(&b, (B, port).into()).await.unwrap_err();
    assert_eq!(second.kind(), io::ErrorKind::AddrInUse, "{second}");
    drop(listener);
    let refused = soon("a refusal", TcpStream::connect(&a, (B, port).into())).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "{refused}");
}
