//! The kernel's TCP at one end.

use std::{
    ffi::OsString,
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};

use super::{Amount, Direction, Outcome, PIECE, PORT, Sink, Source};

/// No test waits longer for a single call: what hangs fails.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn serve(direction: Direction, amount: Amount, ready: impl FnOnce()) -> Outcome {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).expect("a listener of the kernel");
    use_cubic(&listener);
    ready();
    let (stream, _) = listener.accept().expect("a client");
    exchange(&stream, direction.server_sends(), direction.client_sends(), amount)
}

pub(super) fn connect(to: IpAddr, direction: Direction, amount: Amount) -> Outcome {
    let stream = TcpStream::connect_timeout(&SocketAddr::new(to, PORT), PATIENCE).expect("a connection");
    use_cubic(&stream);
    exchange(&stream, direction.client_sends(), direction.server_sends(), amount)
}

/// Whatever this machine's default is. Connections inherit it from their listener.
fn use_cubic(socket: &impl AsFd) {
    setsockopt(socket, sockopt::TcpCongestion, &OsString::from("cubic")).expect("the kernel has CUBIC");
}

fn exchange(stream: &TcpStream, sends: bool, receives: bool, amount: Amount) -> Outcome {
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.set_write_timeout(Some(PATIENCE)).expect("a time-out");
    std::thread::scope(|scope| {
        if sends {
            scope.spawn(|| send(stream, amount));
        } else {
            stream.shutdown(Shutdown::Write).expect("shutdown");
        }
        receive(stream, if receives { amount } else { Amount::Bytes(0) })
    })
}

fn send(mut stream: &TcpStream, amount: Amount) {
    let mut source = Source::new(amount);
    let mut buffer = vec![0; PIECE];
    loop {
        let piece = source.next(&mut buffer);
        if piece.is_empty() {
            break;
        }
        stream.write_all(piece).expect("sending");
        source.sent += piece.len() as u64;
    }
    // The receiver of a transfer that lasts for a time may have gone.
    let _ = stream.shutdown(Shutdown::Write);
}

fn receive(mut stream: &TcpStream, amount: Amount) -> Outcome {
    let mut sink = Sink::new();
    let mut buffer = vec![0; PIECE];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return sink.finish(amount),
            Ok(n) => sink.take(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("receiving, after {} bytes: {error}", sink.outcome.bytes),
        }
    }
}
