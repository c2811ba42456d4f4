//! Our TCP at one end: an embedded stack of this very process, on the interface of the namespace.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use stack_user::{
    api::{AddressChoice, Stack, TcpListener, TcpStream},
    net::acd::Schedule,
    tcp::congestion::Algorithm,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Amount, CLIENT, Direction, Outcome, PIECE, PORT, SERVER, Sink, Source, path::End};

pub(super) fn serve(
    algorithm: Algorithm,
    direction: Direction,
    amount: Amount,
    ready: impl FnOnce(),
) -> Outcome {
    run(async {
        let stack = start(SERVER, algorithm).await;
        let listener =
            TcpListener::bind(&stack, SocketAddr::new(SERVER.ours, PORT)).await.expect("a listener of ours");
        ready();
        let (stream, _) = listener.accept().await.expect("a client");
        let outcome = exchange(stream, direction.server_sends(), direction.client_sends(), amount).await;
        stack.shut_down(Duration::from_secs(10)).await;
        outcome
    })
}

pub(super) fn connect(algorithm: Algorithm, to: IpAddr, direction: Direction, amount: Amount) -> Outcome {
    run(async {
        let stack = start(CLIENT, algorithm).await;
        let stream = TcpStream::connect(&stack, SocketAddr::new(to, PORT)).await.expect("a connection");
        let outcome = exchange(stream, direction.client_sends(), direction.server_sends(), amount).await;
        stack.shut_down(Duration::from_secs(10)).await;
        outcome
    })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

async fn start(end: End, algorithm: Algorithm) -> Stack {
    let IpAddr::V4(address) = end.ours else { unreachable!("the path is IPv4's") };
    let config = stack_user::tcp::Config { congestion: algorithm, ..Default::default() };
    Stack::builder()
        .interface(Some(end.interface.to_owned()))
        .address(AddressChoice::Given { address, prefix_len: None })
        .conflict_detection(Schedule::Fast)
        .tcp(config)
        .start()
        .await
        .expect("our stack")
}

async fn exchange(mut stream: TcpStream, sends: bool, receives: bool, amount: Amount) -> Outcome {
    let (mut reader, mut writer) = tokio::io::split(&mut stream);
    let send = async {
        let mut source = Source::new(if sends { amount } else { Amount::Bytes(0) });
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = source.next(&mut buffer);
            if piece.is_empty() {
                break;
            }
            writer.write_all(piece).await.expect("sending");
            source.sent += piece.len() as u64;
        }
        writer.shutdown().await.expect("shutdown");
    };
    let receive = async {
        let mut sink = Sink::new();
        let mut buffer = vec![0; PIECE];
        loop {
            match reader.read(&mut buffer).await.expect("receiving") {
                0 => return sink.finish(if receives { amount } else { Amount::Bytes(0) }),
                n => sink.take(&buffer[..n]),
            }
        }
    };
    let ((), outcome) = tokio::join!(send, receive);
    outcome
}
