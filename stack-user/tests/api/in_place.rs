//! Reading and writing without a copy.

use std::{io, time::Duration};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    soon,
    streams::{connected, pattern},
};

/// Reads all in chunks.
async fn read_chunks(stream: &stack_user::api::TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    while let Some(chunk) = soon("a chunk", stream.read_chunk()).await.unwrap() {
        assert!(!chunk.is_empty());
        read.extend_from_slice(&chunk);
    }
    read
}

#[tokio::test]
async fn what_is_written_in_place_is_read_in_place() {
    let (mut client, server, _stacks) = connected().await;
    let sent = pattern(400_000);
    let sends = async {
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let mut room = client.reserve().await.unwrap();
            let n = room.len().min(rest.len());
            room[..n].copy_from_slice(&rest[..n]);
            room.commit(n).unwrap();
            rest = &rest[n..];
        }
        client.shutdown().await.unwrap();
    };
    let ((), read) = soon("the transfer", async { tokio::join!(sends, read_chunks(&server)) }).await;
    assert!(read == sent);
    assert!(server.read_chunk().await.unwrap().is_none(), "and again");
}

#[tokio::test]
async fn both_ways_of_writing_keep_the_order() {
    let (mut client, server, _stacks) = connected().await;
    client.write_all(b"one ").await.unwrap();
    let mut room = client.reserve().await.unwrap();
    room[..4].copy_from_slice(b"two ");
    room.commit(4).unwrap();
    client.write_all(b"three ").await.unwrap();
    // What is given up or empty is not there.
    drop(client.reserve().await.unwrap());
    client.reserve().await.unwrap().commit(0).unwrap();
    client.write_all(b"four").await.unwrap();
    drop(client);
    assert_eq!(read_chunks(&server).await, b"one two three four");
}

/// Crumbs are copied together, so that a peer that sends them does not take a frame for each.
#[tokio::test]
async fn crumbs_come_as_one_chunk() {
    let (mut client, server, _stacks) = connected().await;
    client.set_nodelay(true);
    let sent = pattern(500);
    for byte in &sent {
        client.write_all(&[*byte]).await.unwrap();
    }
    client.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut chunks = 0;
    let mut read = Vec::new();
    while let Some(chunk) = soon("a chunk", server.read_chunk()).await.unwrap() {
        chunks += 1;
        read.extend_from_slice(&chunk);
    }
    assert!(read == sent && chunks < 20, "{chunks} chunks");
}

/// Whoever keeps chunks must not starve the NIC: when frames are scarce, what is handed out is a copy.
#[tokio::test]
async fn chunks_that_are_kept_stop_nothing() {
    let (mut client, server, _stacks) = connected().await;
    let sent = pattern(2_000_000);
    let sends = async {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let reads = async {
        let mut kept = Vec::new();
        while let Some(chunk) = server.read_chunk().await.unwrap() {
            kept.push(chunk);
        }
        kept
    };
    let ((), kept) = soon("the transfer", async { tokio::join!(sends, reads) }).await;
    assert!(kept.iter().flat_map(|chunk| chunk.iter()).eq(&sent));
}

#[tokio::test]
async fn room_for_a_stream_that_has_ended_is_an_error_and_no_leak() {
    let (client, server, (a, b)) = connected().await;
    let mut room = client.reserve().await.unwrap();
    room[..4].copy_from_slice(b"late");
    server.set_zero_linger();
    drop(server);
    soon("the reset", client.readable()).await.unwrap();
    let error = room.commit(4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    let error = soon("an error", client.reserve()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    drop(client);
    for stack in [a, b] {
        soon("shutting down", stack.shut_down(Duration::from_secs(60))).await;
    }

    // A chunk may outlive its stream.
    let (mut client, mut server, stacks) = connected().await;
    client.write_all(b"kept").await.unwrap();
    let chunk = soon("a chunk", server.read_chunk()).await.unwrap().unwrap();
    server.shutdown().await.unwrap();
    let mut end = Vec::new();
    drop(server);
    soon("the end", client.read_to_end(&mut end)).await.unwrap();
    drop((client, stacks));
    assert_eq!(&*chunk, b"kept");
}
