//! What can be chosen for a stream, and how it ends.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use stack_user::{
    api::{Stack, TcpListener, TcpSocket, TcpStream},
    device::memory,
    tcp::{KeepAlive, congestion::Algorithm},
};

use crate::{A, B, connected_to_a_host_that_may_die, link, soon, start, streams::connected};

/// The frames that A sent.
type Sent = Arc<Mutex<Vec<Vec<u8>>>>;

/// Two stacks, with somebody between them who writes down what A sends.
async fn watched_link() -> (Stack, Stack, Sent) {
    let ((one, one_end), (other, other_end)) =
        (memory::tap(memory::Options::default()), memory::tap(memory::Options::default()));
    let (a, b) = (start(one, 1, A), start(other, 2, B));
    let sent = Sent::default();
    let log = sent.clone();
    tokio::spawn(async move {
        loop {
            while let Some(frame) = one_end.receive() {
                other_end.send(&frame);
                log.lock().unwrap().push(frame);
            }
            while let Some(frame) = other_end.receive() {
                one_end.send(&frame);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    for stack in [&a, &b] {
        soon("claiming", stack.claimed()).await.unwrap();
    }
    (a, b, sent)
}

#[tokio::test]
async fn what_was_chosen_is_told_and_is_on_the_wire() {
    let (a, b, sent) = watched_link().await;
    let listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    let mut client = soon("connecting", TcpStream::connect(&a, (B, 80).into())).await.unwrap();
    let (mut server, _) = soon("accepting", listener.accept()).await.unwrap();
    assert_eq!((client.ttl().unwrap(), client.dscp().unwrap()), (64, 0));
    client.set_ttl(3);
    client.set_dscp(0x2e);
    sent.lock().unwrap().clear();
    client.write_all(b"marked").await.unwrap();
    soon("bytes", server.read_exact(&mut [0; 6])).await.unwrap();
    let frame = sent.lock().unwrap().iter().find(|frame| frame[12..14] == [8, 0]).cloned().unwrap();
    assert_eq!((frame[14 + 1] >> 2, frame[14 + 8]), (0x2e, 3), "the type of service, and the time to live");
    client.set_dscp(0xff);
    client.set_ttl(0);
    assert_eq!((client.ttl().unwrap(), client.dscp().unwrap()), (1, 0x3f), "what fits, and never zero");

    assert_eq!(client.keepalive().unwrap(), None);
    let keepalive = KeepAlive { idle: Duration::from_secs(60), ..KeepAlive::default() };
    client.set_keepalive(Some(keepalive));
    assert_eq!(client.keepalive().unwrap(), Some(keepalive));
    assert_eq!(client.user_timeout().unwrap(), Duration::from_secs(300));
    client.set_user_timeout(Duration::from_secs(7));
    assert_eq!(client.user_timeout().unwrap(), Duration::from_secs(7));
    assert_eq!(client.linger(), None);
    client.set_linger(Some(Duration::from_secs(2)));
    assert_eq!(client.linger(), Some(Duration::from_secs(2)));
    assert!(client.error().is_none());
}

#[tokio::test]
async fn a_socket_tells_what_was_chosen() {
    let (a, b) = soon("claiming", link()).await;
    let mut socket = TcpSocket::new(&b);
    assert_eq!((socket.local_addr(), socket.nodelay(), socket.keepalive()), (None, false, None));
    socket.bind((B, 80).into());
    socket.set_nodelay(true);
    socket.set_keepalive(Some(KeepAlive::default()));
    socket.set_user_timeout(Duration::from_secs(9));
    socket.set_connect_timeout(Duration::from_secs(8));
    socket.set_linger(Some(Duration::from_secs(7)));
    socket.set_dscp(6);
    socket.set_ttl(5);
    socket.set_congestion(Algorithm::NewReno);
    socket.set_send_buffer_size(40_000);
    socket.set_recv_buffer_size(30_000);
    assert_eq!(socket.local_addr(), Some((B, 80).into()));
    assert_eq!((socket.nodelay(), socket.keepalive()), (true, Some(KeepAlive::default())));
    assert_eq!(socket.user_timeout(), Duration::from_secs(9));
    assert_eq!(socket.connect_timeout(), Duration::from_secs(8));
    assert_eq!(socket.linger(), Some(Duration::from_secs(7)));
    assert_eq!((socket.dscp(), socket.ttl(), socket.congestion()), (6, 5, Algorithm::NewReno));
    assert_eq!((socket.send_buffer_size(), socket.recv_buffer_size()), (40_000, 30_000));
    // What is accepted is as the listener.
    let listener = socket.listen(2).unwrap();
    let _client = soon("connecting", TcpStream::connect(&a, (B, 80).into())).await.unwrap();
    let (server, _) = soon("accepting", listener.accept()).await.unwrap();
    assert_eq!((server.dscp().unwrap(), server.ttl().unwrap()), (6, 5));
    assert_eq!(server.keepalive().unwrap(), Some(KeepAlive::default()));
    assert_eq!(server.linger(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn closing_waits_until_all_is_acknowledged() {
    let (client, mut server, _stacks) = connected().await;
    // As much as fits while nobody reads: it can't all have arrived.
    let data = crate::streams::pattern(64 << 10);
    let mut written = 0;
    while tokio::time::timeout(Duration::from_millis(100), client.writable()).await.is_ok() {
        written += client.try_write(&data).unwrap_or(0);
    }
    let early = tokio::time::timeout(Duration::from_millis(100), client.close()).await;
    assert!(early.is_err(), "{early:?}");
    // Given up, it goes on in the background.
    let mut read = Vec::new();
    soon("the rest", server.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read.len(), written);

    let (mut client, mut server, _stacks) = connected().await;
    client.write_all(b"last words").await.unwrap();
    soon("closing", client.close()).await.unwrap();
    let mut read = Vec::new();
    soon("reading", server.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, b"last words");
    // The other end closes as well, after it heard of the first.
    soon("closing", server.close()).await.unwrap();
}

#[tokio::test]
async fn closing_waits_no_longer_than_was_chosen_and_tells_why_it_failed() {
    let (mut client, _server, mut power) = connected_to_a_host_that_may_die().await;
    power.fails();
    client.write_all(b"anybody?").await.unwrap();
    client.set_linger(Some(Duration::from_millis(300)));
    let began = Instant::now();
    let error = soon("giving up", client.close()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    assert!(began.elapsed() >= Duration::from_millis(290), "{:?}", began.elapsed());

    // What the peer did not read is lost, and it says so by a reset.
    let (mut client, server, _stacks) = connected().await;
    client.write_all(b"unread").await.unwrap();
    soon("bytes", server.readable()).await.unwrap();
    drop(server);
    soon("the reset", client.readable()).await.unwrap();
    let error = soon("an error", client.close()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test]
async fn closing_with_a_linger_time_of_zero_resets() {
    let (client, mut server, _stacks) = connected().await;
    client.set_linger(Some(Duration::from_secs(1)));
    client.set_linger(Some(Duration::ZERO));
    client.close().await.unwrap();
    let error = soon("the reset", server.read(&mut [0; 10])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    // And not, when that was taken back.
    let (client, mut server, _stacks) = connected().await;
    client.set_zero_linger();
    client.set_linger(None);
    drop(client);
    assert_eq!(soon("the end", server.read(&mut [0; 10])).await.unwrap(), 0);
}
