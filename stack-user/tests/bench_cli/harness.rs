//! Runs of `xstack bench` in this process, over the kernel's loopback or over two stacks of ours in memory.

use std::{
    ffi::OsString,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use stack_user::{
    api::{Stack, TcpListener, TcpStream, UdpSocket},
    cli::{
        bench::Transport,
        console::{Console, Diagnostics, Output},
        error::Exit,
        kernel::connect_error,
        network::{ConnectError, Network, ResolveError},
    },
    device::{Device, Umem, memory},
    net::acd::Schedule,
    rng::Rng,
    runtime::Clock,
    stack::{self, AddressEvent},
    wire::MacAddr,
};
use tokio::io::AsyncWrite;

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u8,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `xstack bench ARGUMENTS`.
pub(crate) fn bench<N: Transport>(network: N, arguments: &[&str]) -> impl Future<Output = Outcome> + use<N> {
    bench_until(network, arguments, std::future::pending())
}

/// The same, until something stops it.
pub(crate) fn bench_until<N: Transport, S: Future<Output = Exit>>(
    network: N,
    arguments: &[&str],
    stop: S,
) -> impl Future<Output = Outcome> + use<N, S> {
    let words = ["xstack", "bench"].iter().chain(arguments).map(OsString::from);
    let parsed = stack_user::cli::parse(words);
    async move {
        let cli = match parsed {
            Ok(cli) => cli,
            Err(error) => {
                let code = error.exit_code() as u8;
                return Outcome { code, stdout: String::new(), stderr: error.to_string() };
            }
        };
        let (stdout, stderr) = (Buffer::default(), Buffer::default());
        let output = Output::new(stdout.clone(), false);
        let console = Console { output, diagnostics: Diagnostics::new(stderr.clone(), false) };
        let exit = stack_user::cli::run(cli, console, async move |_: &_| Ok(network), stop).await;
        Outcome { code: exit.code(), stdout: stdout.text(), stderr: stderr.text() }
    }
}

/// What a client says whose first argument is the benchmark, beside a server that runs for as long.
pub(crate) async fn served<S: Transport, C: Transport>(server: S, client: C, arguments: &[&str]) -> Outcome {
    let port = free_port().await;
    let host = server.addresses().first().map_or("127.0.0.1".to_owned(), IpAddr::to_string);
    let arguments = [&arguments[..1], &[&host, "-p", &port], &arguments[1..]].concat();
    let server = bench(server, &["server", "-p", &port]);
    // The server is polled first, and listens before it waits for anything.
    tokio::select! { biased; ended = server => panic!("{ended:?}"), outcome = bench(client, &arguments) => outcome }
}

/// One on which nobody listens on loopback.
pub(crate) async fn free_port() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// A stack of ours at one end of a wire in memory.
pub(crate) struct InMemory(Stack);

impl InMemory {
    /// Two of them, in real time.
    pub(crate) async fn pair() -> (Self, Self) {
        let (one, other) = memory::pair(memory::Options::default());
        let (a, b) = (start(one, 1), start(other, 2));
        for stack in [&a, &b] {
            assert_eq!(stack.claimed().await.unwrap(), AddressEvent::Claimed);
        }
        (Self(a), Self(b))
    }
}

fn start(device: impl Device + 'static, number: u8) -> Stack {
    let (clock, umem) = (Clock::new(), Umem::on_heap(1_024).unwrap());
    let mac = MacAddr([2, 0, 0, 0, 0, number]);
    let mut stack = stack::Stack::new(clock.now(), mac, None, umem, Rng::from_seed(number.into()));
    let (address, subnet) = (Ipv4Addr::new(10, 0, 0, number), "10.0.0.0/24".parse().unwrap());
    stack.claim(clock.now(), address, subnet, None, 1_500, Schedule::Fast).unwrap();
    Stack::over(stack, Box::new(device), clock).unwrap()
}

impl Network for InMemory {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
        Err(ResolveError::UnknownHost)
    }

    async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
        let stream = TcpStream::connect(&self.0, remote).await.map_err(|error| connect_error(&error))?;
        stream.set_nodelay(true);
        Ok(stream)
    }

    async fn listen(&self, local: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(&self.0, local).await
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.0.addresses()
    }
}

impl Transport for InMemory {
    type Datagrams = UdpSocket;

    async fn datagrams(&self, local: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::bind(&self.0, local).await
    }
}

/// A buffer in place of stdout or stderr; its clones are the same.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncWrite for Buffer {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Write::write(self.get_mut(), bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
