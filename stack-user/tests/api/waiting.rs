//! Whoever waits is woken, however many there are and whoever gives up; and all of it can go to other threads.

use std::{
    io::{IoSlice, IoSliceMut},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest, Ready};

use stack_user::api::{
    Chunk, Incoming, IntoIncoming, OwnedReadHalf, OwnedWriteHalf, ReadHalf, Resolver, Room, Stack,
    TcpListener, TcpSocket, TcpStream, UdpSocket, WriteHalf,
};

use crate::{
    B, soon,
    streams::{connected, pattern},
};

/// The compiler is the test.
#[test]
fn everything_is_send_and_sync() {
    fn assert<T: Send + Sync>() {}
    fn future<A, F: Future + Send>(_: impl FnOnce(A) -> F) {}
    assert::<(Stack, TcpStream, TcpListener, TcpSocket, UdpSocket, Resolver)>();
    assert::<(OwnedReadHalf, OwnedWriteHalf, ReadHalf<'_>, WriteHalf<'_>, Chunk, Room<'_>)>();
    assert::<(Incoming<'_>, IntoIncoming)>();
    future(|stream: &'static TcpStream| stream.read_chunk());
    future(|stream: &'static TcpStream| stream.reserve());
    future(|stream: &'static TcpStream| stream.ready(Interest::READABLE));
    future(|stream: TcpStream| stream.close());
    future(|listener: &'static TcpListener| listener.accept());
    future(|socket: &'static UdpSocket| socket.recv_from(Box::leak(Box::new([0]))));
    future(|resolver: &'static Resolver| TcpStream::connect_host(resolver, "example.com:80"));
    future(|socket: TcpSocket| socket.connect((B, 80).into()));
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counter {
    fn times(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn several_tasks_wait_for_one_stream() {
    let (mut client, server, _stacks) = connected().await;
    let server = Arc::new(server);
    let wait = |server: Arc<TcpStream>| tokio::spawn(async move { server.readable().await });
    let waits: Vec<_> = (0..4).map(|_| wait(server.clone())).collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    // One gives up, and those before and after it are woken all the same.
    waits[1].abort();
    client.write_all(b"for all").await.unwrap();
    for (number, wait) in waits.into_iter().enumerate().filter(|(number, _)| *number != 1) {
        soon(&format!("task {number}"), wait).await.unwrap().unwrap();
    }
    // And those who wait to write.
    let filling = pattern(64 << 10);
    while tokio::time::timeout(Duration::from_millis(100), server.writable()).await.is_ok() {
        while server.try_write(&filling).is_ok() {}
    }
    let wait = |server: Arc<TcpStream>| tokio::spawn(async move { server.writable().await });
    let waits: Vec<_> = (0..3).map(|_| wait(server.clone())).collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(waits.iter().all(|wait| !wait.is_finished()), "there is no room");
    let mut buf = vec![0; 64 << 10];
    let drains = tokio::spawn(async move { while client.read(&mut buf).await.unwrap() > 0 {} });
    for wait in waits {
        soon("room", wait).await.unwrap().unwrap();
    }
    drains.abort();
}

/// A stream that goes from task to task leaves wakers behind; they are bounded, and the last one counts.
#[tokio::test]
async fn the_last_waker_is_woken_whoever_waited_before() {
    let (mut client, server, _stacks) = connected().await;
    let counters: Vec<_> = (0..100).map(|_| Arc::new(Counter::default())).collect();
    for counter in &counters {
        let waker = Waker::from(counter.clone());
        for _ in 0..2 {
            assert!(server.poll_peek(&Context::from_waker(&waker), &mut [0]).is_pending());
        }
    }
    let last = counters.last().unwrap();
    assert_eq!(last.times(), 0);
    client.write_all(b"x").await.unwrap();
    let woken = async {
        while last.times() == 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("the last", woken).await;
    assert!(counters.iter().all(|counter| counter.times() == 1), "each once: nobody is forgotten");
}

#[tokio::test]
async fn what_is_ready_is_told() {
    let (mut client, server, _stacks) = connected().await;
    let both = Interest::READABLE | Interest::WRITABLE;
    assert_eq!(soon("readiness", server.ready(both)).await.unwrap(), Ready::WRITABLE);
    let nothing = tokio::time::timeout(Duration::from_millis(20), server.ready(Interest::READABLE)).await;
    assert!(nothing.is_err());
    client.write_all(b"hello").await.unwrap();
    assert_eq!(soon("bytes", server.ready(Interest::READABLE)).await.unwrap(), Ready::READABLE);
    let (mut one, mut other) = ([0; 2], [0; 8]);
    let n = server.try_read_vectored(&mut [IoSliceMut::new(&mut one), IoSliceMut::new(&mut other)]).unwrap();
    assert_eq!((n, &one, &other[..3]), (5, b"he", &b"llo"[..]));
    let n =
        server.try_write_vectored(&[IoSlice::new(b"good"), IoSlice::new(b""), IoSlice::new(b"bye")]).unwrap();
    assert_eq!(n, 7);
    let mut back = [0; 7];
    soon("the answer", client.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"goodbye");
    client.shutdown().await.unwrap();
    let end = soon("the end", server.ready(Interest::READABLE)).await.unwrap();
    assert_eq!(end, Ready::READABLE | Ready::READ_CLOSED);
    client.set_zero_linger();
    drop(client);
    let failed = async {
        loop {
            let ready = server.ready(Interest::READABLE | Interest::ERROR).await.unwrap();
            if ready.is_error() {
                break ready;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(soon("the reset", failed).await.is_readable());
}

/// Reading and writing in place, the tasks and the shards on several threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn chunks_and_rooms_go_to_other_threads() {
    let (client, server, _stacks) = connected().await;
    let sent = pattern(2_000_000);
    let (reads, writes) = client.into_split();
    let data = sent.clone();
    let sends = tokio::spawn(async move {
        let mut rest = &data[..];
        while !rest.is_empty() {
            let mut room = writes.reserve().await.unwrap();
            let n = room.len().min(rest.len());
            room[..n].copy_from_slice(&rest[..n]);
            room.commit(n).unwrap();
            rest = &rest[n..];
        }
    });
    // Whoever reads hands the chunks to somebody else, who gives them back.
    let (give, mut take) = tokio::sync::mpsc::channel::<Chunk>(4);
    let receives = tokio::spawn(async move {
        while let Some(chunk) = server.read_chunk().await.unwrap() {
            give.send(chunk).await.unwrap();
        }
    });
    let mut read = Vec::new();
    let collects = async {
        while let Some(chunk) = take.recv().await {
            read.extend_from_slice(&chunk);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), collects).await.expect("the transfer is bounded");
    assert!(read == sent);
    sends.await.unwrap();
    receives.await.unwrap();
    drop(reads);
}

/// A waker may hold a task, and all that the task holds, for as long as anybody keeps it.
#[tokio::test]
async fn who_waited_is_forgotten_with_the_stream() {
    let (client, _server, _stacks) = connected().await;
    let tasks: Vec<_> = (0..3).map(|_| Arc::new(Counter::default())).collect();
    for task in &tasks {
        let waker = Waker::from(Arc::clone(task));
        let read = pin!(client.readable()).poll(&mut Context::from_waker(&waker));
        assert!(read.is_pending(), "there is nothing to read");
    }
    assert!(tasks.iter().all(|task| Arc::strong_count(task) > 1));
    drop(client);
    assert!(tasks.iter().all(|task| Arc::strong_count(task) == 1));
}
