//! The control socket's server, in process: what it tells, and what it does not let hostile clients do.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    time::timeout,
};

use super::{
    access::Access,
    client::{Client, ControlError, DaemonNetwork},
    server::{Daemon, Server},
    view::{Count, Hello, Socket, Status},
};
use crate::{
    api::Stack,
    cli::{
        kernel::KernelNetwork,
        network::{ConnectError, Connection, Network},
    },
    device::{Umem, memory},
    rng::Rng,
    runtime::Clock,
    wire::MacAddr,
};

const PATIENCE: Duration = Duration::from_secs(10);

/// A daemon whose clients reach the kernel's network.
struct Fake {
    /// Of two interfaces.
    stacks: Vec<Stack>,
    network: Mutex<Option<Arc<KernelNetwork>>>,
}

impl Daemon for Fake {
    type Network = KernelNetwork;

    fn network(&self) -> Option<Arc<KernelNetwork>> {
        self.network.lock().expect("whole").clone()
    }

    fn stacks(&self) -> Vec<Stack> {
        self.stacks.clone()
    }

    fn status(&self) -> Status {
        Status::of(&["eth1\u{1b}[31m".to_owned(), "eth2".to_owned()], &self.stacks)
    }
}

fn server() -> Server<Fake> {
    let clock = Clock::new();
    let stack = |number| {
        let (device, _wire) = memory::tap(memory::Options::default());
        let umem = Umem::on_heap(64).expect("memory");
        let mac = MacAddr([2, 0, 0, 0, 0, number]);
        let stack = crate::stack::Stack::new(clock.now(), mac, None, umem, Rng::from_seed(number.into()));
        Stack::over(stack, Box::new(device), clock).expect("runs")
    };
    let stacks = vec![stack(1), stack(2)];
    Server::new(Fake { stacks, network: Mutex::new(Some(Arc::new(KernelNetwork))) }, Access::default())
}

/// A server that listens, and a client of it.
fn listening() -> (tempfile::TempDir, Server<Fake>, Client) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("control.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("listens");
    let server = server();
    let serving = server.clone();
    tokio::spawn(async move { serving.run(&listener).await });
    (directory, server, Client::new(&path))
}

/// What a client gets that sends this.
async fn answer(server: &Server<Fake>, request: &[u8]) -> String {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    server.admit(ours);
    // The server may have had enough before it has read all.
    let _ = theirs.write_all(request).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, theirs.read_to_end(&mut answer)).await.expect("ends by itself");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn it_tells_who_it_is_and_what_it_does() {
    let (_directory, server, client) = listening();
    let listen = async |stack: &Stack, at: &str| {
        crate::api::TcpListener::bind(stack, at.parse().expect("ok")).await.expect("listens")
    };
    let [first, second] = &server.daemon().stacks[..] else { panic!("two") };
    let _listeners = [
        listen(first, "0.0.0.0:80").await,
        listen(second, "0.0.0.0:80").await,
        listen(second, "0.0.0.0:81").await,
    ];
    assert_eq!(client.get::<Hello>("/v1/hello").await.expect("answers"), Hello::ours());
    let status: Status = client.get("/v1/status").await.expect("answers");
    let networks: Vec<_> =
        status.networks.iter().map(|one| (&*one.interface, one.shards[0].frames)).collect();
    assert_eq!((status.hello, networks), (Hello::ours(), vec![("eth1\u{1b}[31m", 64), ("eth2", 64)]));
    assert_eq!(status.connections, [Count::new("LISTEN", 2)], "one on all addresses is one");
    let mut lines = client.lines("/v1/connections?all=").await.expect("answers");
    for port in [80, 81] {
        let line = lines.next().await.expect("reads").expect("a listener");
        let socket: Socket = serde_json::from_slice(line).expect("parses");
        assert_eq!((socket.state.as_str(), socket.local.port()), ("LISTEN", port));
    }
    assert!(lines.next().await.expect("an end").is_none());
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_disturbs_nobody() {
    let server = server();
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes();
    let long = get(&format!("/v1/hello?{}", "x".repeat(100_000)));
    let many = [b"GET / HTTP/1.1\r\n".to_vec(), b"A: b\r\n".repeat(1_000), b"\r\n".to_vec()].concat();
    for (request, says) in [
        (get("/v2/status"), "404"),
        (get("/v1/connections?state=open"), "400"),
        (get("/v1/resolve"), "400"),
        (get("/v1/connect?to=here"), "400"),
        (get("/v1/connect?to=127.0.0.1:1"), "426"),
        (b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello".to_vec(), "405"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_vec(), "400"),
        (long, "4"),
        (many, "4"),
    ] {
        let answer = answer(&server, &request).await;
        let status = answer.strip_prefix("HTTP/1.1 ").unwrap_or_default();
        assert!(status.starts_with(says), "{says}: {answer}");
    }
    assert!(answer(&server, &get("/v1/hello")).await.contains("\"pid\""));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stalls_loses_its_place() {
    let server = server();
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    server.admit(ours);
    theirs.write_all(b"GET /v1/hello HTTP/1.1\r\nHo").await.expect("writes");
    let mut answer = Vec::new();
    let started = tokio::time::Instant::now();
    theirs.read_to_end(&mut answer).await.expect("is let go");
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn no_more_clients_are_served_at_once_than_there_is_room_for() {
    let server = server();
    let mut clients = Vec::new();
    for _ in 0..600 {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        server.admit(ours);
        clients.push(theirs);
    }
    let last = timeout(PATIENCE, clients.last_mut().expect("a client").read(&mut [0])).await;
    assert_eq!(last.expect("at once").expect("an end"), 0, "it is turned away");
    drop(clients);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(answer(&server, b"GET /v1/hello HTTP/1.1\r\nHost: x\r\n\r\n").await.contains("\"pid\""));
}

#[tokio::test]
async fn connections_go_through_it_with_their_ends_and_resets() {
    let (_directory, server, client) = listening();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
    let to = listener.local_addr().expect("an address");
    let network = DaemonNetwork::new(client);
    assert_eq!(
        network.resolve("localhost").await.expect("resolves").first().map(|ip| ip.is_loopback()),
        Some(true)
    );

    let mut stream = network.connect(to).await.expect("connects");
    let (mut peer, _) = listener.accept().await.expect("accepts");
    stream.write_all(b"question").await.expect("writes");
    stream.shutdown().await.expect("ends");
    let mut heard = String::new();
    peer.read_to_string(&mut heard).await.expect("an end in order");
    assert_eq!(heard, "question");
    peer.write_all(b"answer").await.expect("writes");
    drop(peer);
    heard.clear();
    stream.read_to_string(&mut heard).await.expect("an end in order");
    assert_eq!(heard, "answer");

    let mut stream = network.connect(to).await.expect("connects");
    let (peer, _) = listener.accept().await.expect("accepts");
    Connection::reset(peer);
    let error = stream.read(&mut [0]).await.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let stream = network.connect(to).await.expect("connects");
    let (mut peer, _) = listener.accept().await.expect("accepts");
    stream.reset();
    let error = peer.read(&mut [0]).await.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    drop(listener);
    assert_eq!(network.connect(to).await.err(), Some(ConnectError::Refused));
    assert_eq!(server.stop(Duration::ZERO).await, 0);
}

#[tokio::test]
async fn stopping_resets_what_does_not_end() {
    let (_directory, server, client) = listening();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("loopback");
    let network = DaemonNetwork::new(client.clone());
    let mut stream = network.connect(listener.local_addr().expect("an address")).await.expect("connects");
    let (mut peer, _) = listener.accept().await.expect("accepts");
    stream.write_all(b"x").await.expect("writes");
    peer.read_exact(&mut [0]).await.expect("arrives");
    assert_eq!(server.stop(Duration::from_millis(50)).await, 1);
    assert_eq!(peer.read(&mut [0]).await.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(stream.read(&mut [0]).await.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
    let gone = client.get::<Hello>("/v1/hello").await;
    assert!(matches!(gone, Err(ControlError::Unreachable { .. } | ControlError::Ended { .. })), "{gone:?}");
}

#[test]
fn who_may_is_decided_by_credentials() {
    // Only the kernel makes credentials: what is tested is everything but root and ourselves.
    let access = Access { users: vec![1_000], groups: vec![50] };
    let decide = |uid, gid| access.allows_ids(uid, gid);
    assert!(decide(0, 0) && decide(1_000, 7) && decide(7, 50));
    assert!(!decide(1_001, 7) && !decide(50, 1_000));
    assert!(!Access::default().allows_ids(65_534, 65_534));
}
