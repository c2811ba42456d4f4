//! Others have their turn, whatever a task finds to do: nobody goes on for ever, and no call takes long.

use std::{
    io::IoSlice,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::yield_now,
};

use stack_user::api::{TcpListener, TcpSocket, UdpSocket};

use crate::{
    A, B, link, soon,
    streams::{connected, pattern},
};

/// Steps that tokio lets a task make at once, and some more.
const SOME: usize = 200;
/// More steps than that.
const MANY: usize = 1_000;

/// Runs a task that makes many steps, none of which has to wait for anything, and says how many it has made when others have their
/// turn for the first time.
async fn steps_before_others_run<F: Future<Output = ()> + Send + 'static>(
    steps: impl FnOnce(Arc<AtomicUsize>) -> F,
) -> usize {
    let made = Arc::new(AtomicUsize::new(0));
    let task = tokio::spawn(steps(Arc::clone(&made)));
    yield_now().await;
    let before_others = made.load(Ordering::Relaxed);
    soon("all steps", task).await.unwrap();
    assert_eq!(made.load(Ordering::Relaxed), MANY);
    before_others
}

/// Counts a step.
fn step(made: &AtomicUsize) {
    made.fetch_add(1, Ordering::Relaxed);
}

#[track_caller]
fn assert_some(steps: usize) {
    assert!((1..=SOME).contains(&steps), "{steps} of {MANY} steps before others had their turn");
}

#[tokio::test]
async fn who_writes_and_reads_what_there_is_lets_others_run() {
    let (mut client, mut server, _stacks) = connected().await;
    assert_some(
        steps_before_others_run(async move |made| {
            for byte in pattern(MANY) {
                client.write_all(&[byte]).await.unwrap();
                step(&made);
            }
            client.shutdown().await.unwrap();
        })
        .await,
    );
    let mut all = vec![0; MANY];
    while soon("all to come", server.peek(&mut all)).await.unwrap() < MANY {
        yield_now().await;
    }
    assert_some(
        steps_before_others_run(async move |made| {
            for byte in pattern(MANY) {
                assert_eq!(server.read_u8().await.unwrap(), byte);
                step(&made);
            }
        })
        .await,
    );
}

#[tokio::test]
async fn so_do_halves() {
    let (client, server, _stacks) = connected().await;
    let ((_client, mut writer), (mut reader, _server)) = (client.into_split(), server.into_split());
    assert_some(
        steps_before_others_run(async move |made| {
            for byte in pattern(MANY) {
                assert_eq!(writer.write_vectored(&[IoSlice::new(&[byte])]).await.unwrap(), 1);
                step(&made);
            }
        })
        .await,
    );
    let mut all = vec![0; MANY];
    while soon("all to come", reader.peek(&mut all)).await.unwrap() < MANY {
        yield_now().await;
    }
    assert_some(
        steps_before_others_run(async move |made| {
            for byte in pattern(MANY) {
                assert_eq!(reader.read_u8().await.unwrap(), byte);
                step(&made);
            }
        })
        .await,
    );
}

#[tokio::test]
async fn who_looks_at_what_there_is_again_and_again_lets_others_run() {
    let (mut client, server, _stacks) = connected().await;
    client.write_all(b"something").await.unwrap();
    soon("it to come", server.readable()).await.unwrap();
    let server = Arc::new(server);
    let (peeks, asks, writes) = (Arc::clone(&server), Arc::clone(&server), Arc::clone(&server));
    assert_some(
        steps_before_others_run(async move |made| {
            for _ in 0..MANY {
                writes.writable().await.unwrap();
                step(&made);
            }
        })
        .await,
    );
    assert_some(
        steps_before_others_run(async move |made| {
            for _ in 0..MANY {
                assert_eq!(peeks.peek(&mut [0]).await.unwrap(), 1);
                step(&made);
            }
        })
        .await,
    );
    assert_some(
        steps_before_others_run(async move |made| {
            for _ in 0..MANY {
                asks.readable().await.unwrap();
                step(&made);
            }
        })
        .await,
    );
}

#[tokio::test]
async fn who_sends_datagrams_that_never_wait_lets_others_run() {
    let (a, _b) = soon("claiming", link()).await;
    let socket = UdpSocket::bind(&a, (A, 0).into()).await.unwrap();
    socket.connect((B, 7).into()).await.unwrap();
    let socket = Arc::new(socket);
    let waits = Arc::clone(&socket);
    assert_some(
        steps_before_others_run(async move |made| {
            for _ in 0..MANY {
                waits.writable().await.unwrap();
                let _ = waits.try_send(b"no answer");
                step(&made);
            }
        })
        .await,
    );
    assert_some(
        steps_before_others_run(async move |made| {
            for _ in 0..MANY {
                // The ring may have no room for so many.
                let _ = socket.send(b"no answer").await;
                step(&made);
            }
        })
        .await,
    );
}

#[tokio::test]
async fn one_call_writes_no_more_than_48_segments() {
    let (a, b) = soon("claiming", link()).await;
    let listener = TcpListener::bind(&b, (B, 80).into()).await.unwrap();
    let mut socket = TcpSocket::new(&a);
    socket.set_send_buffer_size(200_000);
    let mut client = soon("connecting", socket.connect((B, 80).into())).await.unwrap();
    let (mut server, _) = soon("accepting", listener.accept()).await.unwrap();
    let bytes = pattern(100_000);
    let most = 48 * 1_448;
    let pieces = |wanted: &[usize]| -> Vec<IoSlice<'_>> {
        let mut bytes = &bytes[..];
        let mut piece = |len| bytes.split_off(..len).map(IoSlice::new).unwrap();
        wanted.iter().map(|len| piece(*len)).collect()
    };
    for wanted in [&[most - 1][..], &[most], &[100_000], &[most - 10, 10], &[most - 10, 10, 10], &[10, most]]
    {
        let expected = most.min(wanted.iter().sum());
        let bufs = pieces(wanted);
        let mut written = vec![client.write_vectored(&bufs).await.unwrap()];
        soon("the first", server.read_exact(&mut vec![0; written[0]])).await.unwrap();
        written.push(client.try_write_vectored(&bufs).unwrap());
        soon("the second", server.read_exact(&mut vec![0; written[1]])).await.unwrap();
        if let [buf] = &bufs[..] {
            written.push(client.write(buf).await.unwrap());
            soon("the third", server.read_exact(&mut vec![0; written[2]])).await.unwrap();
            written.push(client.try_write(buf).unwrap());
            soon("the fourth", server.read_exact(&mut vec![0; written[3]])).await.unwrap();
        }
        assert!(written.iter().all(|written| *written == expected), "{written:?} of {wanted:?}");
    }
}
