//! Streams beyond reading and writing: what tokio's have, too.

use std::{
    io::{self, IoSlice},
    net::Ipv4Addr,
};

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use stack_user::{
    api::{Stack, TcpListener, TcpSocket, TcpStream},
    tcp::{KeepAlive, congestion::Algorithm},
};

use crate::{A, B, link, soon};

/// A connection from A to port 80 of B: the client's end, the server's, and the stacks.
pub(crate) async fn connected() -> (TcpStream, TcpStream, (Stack, Stack)) {
    let (a, b) = soon("claiming", link()).await;
    let listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    let client = soon("connecting", TcpStream::connect(&a, (B, 80).into())).await.unwrap();
    let (server, _) = soon("accepting", listener.accept()).await.unwrap();
    (client, server, (a, b))
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

#[tokio::test]
async fn what_was_looked_at_is_read_all_the_same() {
    let (mut client, mut server, _stacks) = connected().await;
    // Large segments stay in their frames, small ones behind them are copied together.
    let sent = pattern(6_000);
    client.set_nodelay(true);
    assert!(client.nodelay().unwrap());
    client.write_all(&sent[..5_000]).await.unwrap();
    for part in sent[5_000..].chunks(100) {
        client.write_all(part).await.unwrap();
    }
    client.shutdown().await.unwrap();
    let mut seen = vec![0; 10_000];
    let mut n = 0;
    while n < sent.len() {
        n = soon("all to come", server.peek(&mut seen)).await.unwrap();
    }
    assert_eq!(&seen[..n], sent);
    for at in [0, 1, 1_459, 1_460, 4_999, 5_050] {
        let mut some = vec![0; at];
        assert_eq!(server.peek(&mut some).await.unwrap(), at);
        assert_eq!(some, sent[..at]);
    }
    let mut read = vec![0; 700];
    server.read_exact(&mut read).await.unwrap();
    n = server.peek(&mut seen).await.unwrap();
    assert_eq!(&seen[..n], &sent[700..], "from where reading has come to");
    server.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, sent);
    assert_eq!(soon("the end", server.peek(&mut seen)).await.unwrap(), 0);
}

#[tokio::test]
async fn nothing_waits_where_it_is_only_tried() {
    let (client, server, _stacks) = connected().await;
    let mut buf = [0; 4_096];
    assert_eq!(server.try_read(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let nothing = tokio::time::timeout(std::time::Duration::from_millis(20), server.readable()).await;
    assert!(nothing.is_err(), "nothing has come");
    // As much as fits, then nothing.
    let sent = pattern(8 << 20);
    let mut written = 0;
    loop {
        soon("room", client.writable()).await.unwrap();
        match client.try_write(&sent[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
        let full =
            tokio::time::timeout(std::time::Duration::from_millis(100), client.writable()).await.is_err();
        if full {
            break;
        }
    }
    assert!(written > 0 && written < sent.len(), "{written}: the reader takes nothing");
    assert_eq!(client.try_write(b"more").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let mut read = Vec::new();
    while read.len() < written {
        soon("bytes", server.readable()).await.unwrap();
        match server.try_read(&mut buf) {
            Ok(n) => read.extend_from_slice(&buf[..n]),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    assert!(read == sent[..written]);
    soon("room again", client.writable()).await.unwrap();
    drop(client);
    soon("the end", server.readable()).await.unwrap();
    assert_eq!(server.try_read(&mut buf).unwrap(), 0);
}

#[tokio::test]
async fn halves_work_in_two_tasks_and_the_one_that_writes_ends_the_stream() {
    let (client, server, _stacks) = connected().await;
    let sent = pattern(500_000);
    let (mut reader, mut writer) = server.into_split();
    let echo =
        tokio::spawn(async move { tokio::io::copy(&mut reader, &mut writer).await.map(|n| (n, reader)) });
    let (mut reader, mut writer) = client.into_split();
    assert_eq!(reader.local_addr(), writer.local_addr());
    let data = sent.clone();
    let sends = tokio::spawn(async move {
        writer.write_all(&data).await.unwrap();
        // Dropped: FIN.
    });
    let mut back = Vec::new();
    soon("the echo", reader.read_to_end(&mut back)).await.unwrap();
    assert!(back == sent);
    sends.await.unwrap();
    assert_eq!(soon("the end", echo).await.unwrap().unwrap().0, sent.len() as u64);
}

#[tokio::test]
async fn halves_become_one_again_if_they_are_of_one() {
    let (client, server, _stacks) = connected().await;
    let ((client_reads, client_writes), (server_reads, server_writes)) =
        (client.into_split(), server.into_split());
    let error = client_reads.reunite(server_writes).unwrap_err();
    assert_eq!(error.to_string(), "these halves are not of one stream");
    let (client_reads, server_writes) = (error.0, error.1);
    let mut client = client_reads.reunite(client_writes).unwrap();
    let mut server = server_reads.reunite(server_writes).unwrap();
    let (mut reads, mut writes) = client.split();
    server.write_all(b"there").await.unwrap();
    writes.write_all(b"and back").await.unwrap();
    let mut buf = [0; 5];
    soon("there", reads.read_exact(&mut buf)).await.unwrap();
    assert_eq!(&buf, b"there");
    let mut buf = [0; 8];
    soon("back", server.read_exact(&mut buf)).await.unwrap();
    assert_eq!(&buf, b"and back", "no half has closed anything");
}

#[tokio::test]
async fn a_half_that_is_forgotten_leaves_the_stream_open() {
    let (client, mut server, _stacks) = connected().await;
    let (mut reader, writer) = client.into_split();
    writer.forget();
    server.write_all(b"still").await.unwrap();
    let mut buf = [0; 5];
    soon("bytes", reader.read_exact(&mut buf)).await.unwrap();
    let quiet = tokio::time::timeout(std::time::Duration::from_millis(50), server.read(&mut buf)).await;
    assert!(quiet.is_err(), "no FIN: {quiet:?}");
}

#[tokio::test]
async fn several_buffers_go_as_one() {
    let (mut client, mut server, _stacks) = connected().await;
    let sent = pattern(3_000);
    let parts: Vec<_> = sent.chunks(700).map(IoSlice::new).collect();
    assert!(client.is_write_vectored());
    let n = soon("writing", client.write_vectored(&parts)).await.unwrap();
    assert_eq!(n, sent.len());
    drop(client);
    let mut read = Vec::new();
    soon("reading", server.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read, sent);
}

#[tokio::test]
async fn a_socket_is_configured_before_its_first_segment() {
    let (a, b) = soon("claiming", link()).await;
    let mut socket = TcpSocket::new(&b);
    socket.bind((B, 80).into());
    socket.set_nodelay(true);
    socket.set_congestion(Algorithm::NewReno);
    socket.set_recv_buffer_size(20_000);
    let listener = socket.listen(2).unwrap();

    let mut socket = TcpSocket::new(&a);
    socket.bind((A, 4_000).into());
    socket.set_keepalive(Some(KeepAlive::default()));
    let client = soon("connecting", socket.clone().connect((B, 80).into())).await.unwrap();
    assert_eq!(client.local_addr(), (A, 4_000).into());
    assert!(!client.nodelay().unwrap());
    let (server, from) = soon("accepting", listener.accept()).await.unwrap();
    assert_eq!(from, (A, 4_000).into());
    assert!(server.nodelay().unwrap(), "what is accepted is as the listener");
    assert_eq!(server.info().unwrap().congestion, Algorithm::NewReno.name());
    assert!(client.info().unwrap().send_window <= 20_000, "{:?}", client.info());

    let again = soon("a refusal", socket.connect((B, 80).into())).await.unwrap_err();
    assert_eq!(again.kind(), io::ErrorKind::AddrInUse, "{again}");
    let mut socket = TcpSocket::new(&a);
    socket.bind((Ipv4Addr::new(192, 0, 2, 1), 0).into());
    let foreign = soon("a refusal", socket.clone().connect((B, 80).into())).await.unwrap_err();
    assert_eq!(foreign.kind(), io::ErrorKind::AddrNotAvailable, "{foreign}");
    assert_eq!(socket.listen(1).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
}
