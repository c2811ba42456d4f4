//! The tokio face over a wire in memory: two stacks of ours, in real time, without any privilege.

// A helper that unwraps fails its test with a line number.
#![allow(clippy::unwrap_used)]

#[path = "api/addresses.rs"]
mod addresses;
#[path = "api/datagrams.rs"]
mod datagrams;
#[path = "api/in_place.rs"]
mod in_place;
#[path = "api/names.rs"]
mod names;
#[path = "api/options.rs"]
mod options;
#[path = "api/quic.rs"]
mod quic;
#[path = "api/shards.rs"]
mod shards;
#[path = "api/streams.rs"]
mod streams;
#[path = "api/turns.rs"]
mod turns;
#[path = "api/waiting.rs"]
mod waiting;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use stack_user::{
    api::{ResolveError, Resolver, Stack, TcpListener, TcpStream, UdpSocket},
    device::{Device, Umem, memory},
    frame::{CompletedFrame, RxFrame, TxFrame},
    net::acd::Schedule,
    rng::Rng,
    runtime::Clock,
    stack::{self, AddressEvent},
    tcp::KeepAlive,
    time::Instant,
    wire::MacAddr,
};

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const CHUNKS: u32 = 256;

/// Two stacks with an address each.
async fn link() -> (Stack, Stack) {
    let (one, other) = memory::pair(memory::Options::default());
    let (a, b) = (start(one, 1, A), start(other, 2, B));
    assert_eq!(a.claimed().await.unwrap(), AddressEvent::Claimed);
    assert_eq!(b.claimed().await.unwrap(), AddressEvent::Claimed);
    (a, b)
}

fn start(device: impl Device + 'static, number: u8, address: Ipv4Addr) -> Stack {
    let clock = Clock::new();
    Stack::over(stack(clock, number, address), Box::new(device), clock).unwrap()
}

fn stack(clock: Clock, number: u8, address: Ipv4Addr) -> stack::Stack<Umem> {
    let umem = Umem::on_heap(CHUNKS).unwrap();
    let mac = MacAddr([2, 0, 0, 0, 0, number]);
    let mut stack = stack::Stack::new(clock.now(), mac, None, umem, Rng::from_seed(number.into()));
    stack.claim(clock.now(), address, "10.0.0.0/24".parse().unwrap(), None, 1_500, Schedule::Fast).unwrap();
    stack
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
    let server = UdpSocket::bind(&b, (B, 7).into()).await.unwrap();
    let echo = tokio::spawn(async move {
        let mut buf = [0; 2_000];
        loop {
            let (n, from) = server.recv_from(&mut buf).await.unwrap();
            server.send_to(&buf[..n], from).await.unwrap();
        }
    });
    let client = UdpSocket::bind(&a, (A, 0).into()).await.unwrap();
    for n in 0..200_usize {
        let payload = vec![n as u8; n * 7];
        client.send_to(&payload, (B, 7).into()).await.unwrap();
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

    let socket = UdpSocket::bind(&a, (A, 0).into()).await.unwrap();
    socket.send_to(b"anybody?", (B, 9).into()).await.unwrap();
    let error = soon("port unreachable", socket.recv_from(&mut [0; 10])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");

    let taken = socket.local_addr().port();
    assert_eq!(UdpSocket::bind(&a, (A, taken).into()).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    drop(socket);
    UdpSocket::bind(&a, (A, taken).into()).await.expect("free again");
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
    assert_eq!(soon("claiming", a.claimed()).await.unwrap(), AddressEvent::Claimed);
    let b = start(other, 2, A);
    let owner = MacAddr([2, 0, 0, 0, 0, 1]);
    assert_eq!(soon("refusing", b.claimed()).await.unwrap(), AddressEvent::Refused { mac: owner });
    assert_eq!((a.address(), b.address()), (Some(A.into()), None));
}

/// Answers for one name, and says of all others that they don't exist.
async fn name_server(stack: Stack, mut lose: usize) {
    let socket = UdpSocket::bind(&stack, (Ipv4Addr::UNSPECIFIED, 53).into()).await.unwrap();
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
        socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
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

/// What a host runs on. A runtime must not be dropped where others wait.
struct Power(Option<tokio::runtime::Runtime>);

impl Power {
    /// The host is silent from now on: what it is just doing is done when this returns.
    fn fails(&mut self) {
        let (runtime, began) = (self.0.take().unwrap(), std::time::Instant::now());
        let patience = Duration::from_secs(20);
        std::thread::spawn(move || runtime.shutdown_timeout(patience)).join().unwrap();
        assert!(began.elapsed() < patience, "the host does not stop");
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    }
}

/// Two stacks with a connection between them: the client's end and the server's. The server's stack runs on a runtime of
/// its own; without that it is silent, as if its host had lost power.
async fn connected_to_a_host_that_may_die() -> (TcpStream, TcpStream, Power) {
    let (one, other) = memory::pair(memory::Options::default());
    let power = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (a, b) = (start(one, 1, A), power.spawn(async { start(other, 2, B) }).await.unwrap());
    assert_eq!(soon("claiming", a.claimed()).await.unwrap(), AddressEvent::Claimed);
    assert_eq!(soon("claiming", b.claimed()).await.unwrap(), AddressEvent::Claimed);
    let listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    let client = soon("connecting", TcpStream::connect(&a, (B, 80).into())).await.unwrap();
    let (server, _) = soon("accepting", listener.accept()).await.unwrap();
    (client, server, Power(Some(power)))
}

#[tokio::test]
async fn rfc9293_3_8_4_a_peer_that_died_is_noticed_by_keep_alives_only() {
    let (mut client, _server, mut power) = connected_to_a_host_that_may_die().await;
    let quick = Duration::from_millis(100);
    client.set_keepalive(Some(KeepAlive { idle: quick, interval: quick, probes: 3 }));
    let mut buf = [0; 10];
    let alive = tokio::time::timeout(Duration::from_millis(800), client.read(&mut buf)).await;
    assert!(alive.is_err(), "a peer that answers is kept: {alive:?}");
    client.set_keepalive(None);
    power.fails();
    let unnoticed = tokio::time::timeout(Duration::from_millis(800), client.read(&mut buf)).await;
    assert!(unnoticed.is_err(), "nobody asks: {unnoticed:?}");
    client.set_keepalive(Some(KeepAlive { idle: quick, interval: quick, probes: 3 }));
    let died = soon("the end", client.read(&mut buf)).await.unwrap_err();
    assert_eq!(died.kind(), io::ErrorKind::TimedOut, "{died}");
}

#[tokio::test]
async fn rfc9293_3_8_3_the_user_timeout_is_as_chosen() {
    let (mut client, _server, mut power) = connected_to_a_host_that_may_die().await;
    power.fails();
    client.write_all(b"anybody?").await.unwrap();
    client.set_user_timeout(Duration::from_millis(400));
    let began = std::time::Instant::now();
    let error = soon("the time-out", client.read(&mut [0; 10])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    assert!(began.elapsed() > Duration::from_millis(300), "{:?}", began.elapsed());
}

#[tokio::test]
async fn dropping_with_zero_linger_resets_and_without_it_delivers() {
    let (mut client, mut server, _power) = connected_to_a_host_that_may_die().await;
    server.write_all(b"last words").await.unwrap();
    drop(server);
    let mut received = Vec::new();
    soon("the end", client.read_to_end(&mut received)).await.unwrap();
    assert_eq!(received, b"last words");

    let (mut client, server, _power) = connected_to_a_host_that_may_die().await;
    server.set_zero_linger();
    drop(server);
    let error = soon("the reset", client.read(&mut [0; 10])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

/// Several tasks may accept from one listener, and any may give up: no connection is lost with it.
#[tokio::test]
async fn a_dropped_accept_loses_no_connection() {
    let (a, b) = soon("claiming", link()).await;
    let listener = Arc::new(TcpListener::bind(&b, (B, 80).into()).await.unwrap());
    let gives_up = tokio::time::timeout(Duration::from_millis(20), listener.accept()).await;
    assert!(gives_up.is_err());
    let accepts: Vec<_> = (0..3)
        .map(|_| {
            let listener = listener.clone();
            tokio::spawn(async move { listener.accept().await.map(|(stream, _)| stream) })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    accepts[0].abort();
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(soon("connecting", TcpStream::connect(&a, (B, 80).into())).await.unwrap());
    }
    for accept in accepts.into_iter().skip(1) {
        soon("accepting", accept).await.unwrap().unwrap();
    }
    soon("the third", listener.accept()).await.unwrap();
}

/// Nobody is going to take what waits to be accepted.
#[tokio::test]
async fn shutting_down_closes_listeners_and_resets_what_they_hold() {
    let (a, b) = soon("claiming", link()).await;
    let listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    let mut client = soon("connecting", TcpStream::connect(&a, (B, 80).into())).await.unwrap();
    soon("shutting down", b.shut_down(Duration::from_secs(60))).await;
    let error = soon("the reset", client.read(&mut [0; 10])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    let error = soon("the end", listener.accept()).await.unwrap_err();
    assert!(error.to_string().contains("shut down"), "{error}");

    let listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    let (accepted, ()) = tokio::join!(soon("the end", listener.accept()), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        b.shut_down(Duration::from_secs(60)).await;
    });
    accepted.unwrap_err();
}

/// A device that fails when it is told to.
struct Failing {
    device: memory::MemoryDevice,
    failed: Arc<AtomicBool>,
}

impl Device for Failing {
    fn rx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut Vec<RxFrame>) -> usize {
        self.device.rx_burst(now, umem, frames)
    }

    fn tx_room(&mut self) -> usize {
        self.device.tx_room()
    }

    fn tx_burst(&mut self, now: Instant, umem: &mut Umem, frames: &mut VecDeque<TxFrame>) {
        self.device.tx_burst(now, umem, frames);
    }

    fn completions(&mut self, umem: &mut Umem, done: &mut Vec<CompletedFrame>) {
        self.device.completions(umem, done);
    }

    fn failure(&mut self) -> Option<io::Error> {
        let failed = self.failed.load(Ordering::Relaxed);
        failed.then(|| io::Error::new(io::ErrorKind::NetworkDown, "the card was pulled out"))
    }

    fn fds(&self) -> io::Result<Vec<OwnedFd>> {
        self.device.fds()
    }

    fn describe(&self) -> String {
        "fails".to_owned()
    }
}

/// What every call on a stack that stopped says: those that wait already, and those that come later.
async fn check_that_all_fail(stack: &Stack, kind: io::ErrorKind, says: &str, stops: impl FnOnce()) {
    let check = |what: &str, error: io::Error| {
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(error.to_string().contains(says), "{what}: {error}");
    };
    let listener = TcpListener::bind(stack, (A, 80).into()).await.unwrap();
    let socket = UdpSocket::bind(stack, (A, 7).into()).await.unwrap();
    let nobody = SocketAddr::from(([10, 0, 0, 99], 80));
    let mut buf = [0; 10];
    let waiting = async {
        tokio::join!(
            listener.accept(),
            TcpStream::connect(stack, nobody),
            socket.recv_from(&mut buf),
            async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                stops();
            }
        )
    };
    let (accept, connect, receive, ()) = soon("a call that waits", waiting).await;
    check("accept", accept.unwrap_err());
    check("connect", connect.unwrap_err());
    check("recv_from", receive.unwrap_err());
    check("a later accept", soon("accept", listener.accept()).await.unwrap_err());
    check("a later connect", soon("connect", TcpStream::connect(stack, nobody)).await.unwrap_err());
    check("a later recv_from", soon("recv_from", socket.recv_from(&mut [0; 10])).await.unwrap_err());
    check("send_to", socket.send_to(b"anybody?", nobody).await.unwrap_err());
    check("bind", TcpListener::bind(stack, (A, 81).into()).await.unwrap_err());
    check("bind", UdpSocket::bind(stack, (A, 8).into()).await.unwrap_err());
    check("claimed", soon("claimed", stack.claimed()).await.unwrap_err());
    soon("shutting down", stack.shut_down(Duration::from_secs(60))).await;
}

#[tokio::test]
async fn when_the_device_fails_every_call_says_so() {
    let (one, other) = memory::pair(memory::Options::default());
    let failed = Arc::new(AtomicBool::new(false));
    let (a, b) = (start(Failing { device: one, failed: failed.clone() }, 1, A), start(other, 2, B));
    assert_eq!(soon("claiming", a.claimed()).await.unwrap(), AddressEvent::Claimed);
    assert_eq!(soon("claiming", b.claimed()).await.unwrap(), AddressEvent::Claimed);
    let listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    let mut client = soon("connecting", TcpStream::connect(&a, (B, 80).into())).await.unwrap();
    let (mut server, _) = soon("accepting", listener.accept()).await.unwrap();
    server.write_all(b"last words").await.unwrap();
    let mut buf = [0; 20];
    assert_eq!(soon("reading", client.read(&mut buf)).await.unwrap(), 10);
    let says = "the card was pulled out";
    let reading = async {
        let error = client.read(&mut buf).await.unwrap_err();
        (error.kind(), error.to_string())
    };
    let waker = UdpSocket::bind(&b, (B, 9).into()).await.unwrap();
    let stops = || {
        failed.store(true, Ordering::Relaxed);
        // The driver looks when it wakes up.
        waker.try_send_to(b"wake up", (A, 9).into()).unwrap();
    };
    let (error, ()) = tokio::join!(
        soon("reading", reading),
        check_that_all_fail(&a, io::ErrorKind::NetworkDown, says, stops)
    );
    assert!(error.0 == io::ErrorKind::NetworkDown && error.1.contains(says), "{error:?}");
    let error = client.write(b"anybody?").await.unwrap_err();
    assert!(error.kind() == io::ErrorKind::NetworkDown && error.to_string().contains(says), "{error}");
}

#[tokio::test]
async fn when_the_runtime_that_drives_a_stack_ends_every_call_on_others_says_so() {
    let (one, _other) = memory::pair(memory::Options::default());
    let power = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let a = power.spawn(async { start(one, 1, A) }).await.unwrap();
    assert_eq!(soon("claiming", a.claimed()).await.unwrap(), AddressEvent::Claimed);
    let mut power = Power(Some(power));
    check_that_all_fail(&a, io::ErrorKind::NotConnected, "runtime", || power.fails()).await;
}
