//! The kernel's sockets as a network, and runs of `xstack curl` over it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use stack_user::cli::bench::Transport;
use stack_user::cli::console::{Console, Diagnostics, Output};
use stack_user::cli::error::Exit;
use stack_user::cli::kernel::KernelNetwork;
use stack_user::cli::logging;
use stack_user::cli::network::{ConnectError, Listener, Network, ResolveError};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;

/// Loopback, with a few names.
pub(crate) struct Kernel;

/// An address that swallows every SYN, in place of a host that is down.
pub(crate) const SILENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

impl Network for Kernel {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        match host {
            "localhost" | "other.test" | "xn--bcher-kva.test" => Ok(vec![localhost]),
            // Nobody listens on 127.0.0.2 in these tests.
            "second-works.test" => Ok(vec![IpAddr::from([127, 0, 0, 2]), localhost]),
            "first-is-silent.test" => Ok(vec![SILENT, localhost]),
            "dns-broken.test" => Err(ResolveError::Failed("no name server answered".into())),
            "dns-silent.test" => std::future::pending().await,
            _ => Err(ResolveError::UnknownHost),
        }
    }

    async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
        if remote.ip() == SILENT {
            return std::future::pending().await;
        }
        if remote.is_ipv6() {
            return Err(ConnectError::FamilyUnsupported);
        }
        KernelNetwork.connect(remote).await
    }

    async fn listen(&self, local: SocketAddr) -> io::Result<TcpListener> {
        KernelNetwork.listen(local).await
    }
}

impl Transport for Kernel {
    type Datagrams = UdpSocket;

    async fn datagrams(&self, local: SocketAddr) -> io::Result<UdpSocket> {
        KernelNetwork.datagrams(local).await
    }
}

/// A network without sockets, on which every host sends these bytes to whoever connects, and closes.
pub(crate) struct Scripted(pub(crate) Vec<u8>);

impl Network for Scripted {
    type Stream = DuplexStream;
    type Listener = Nowhere;

    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, ResolveError> {
        Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])
    }

    async fn connect(&self, _: SocketAddr) -> Result<DuplexStream, ConnectError> {
        let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let response = self.0.clone();
        tokio::spawn(async move {
            let mut request = [0; 4096];
            let _ = theirs.read(&mut request).await;
            let _ = theirs.write_all(&response).await;
        });
        Ok(ours)
    }

    async fn listen(&self, _: SocketAddr) -> io::Result<Nowhere> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Transport for Scripted {
    type Datagrams = UdpSocket;

    async fn datagrams(&self, _: SocketAddr) -> io::Result<UdpSocket> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Nobody connects to a network without sockets.
pub(crate) enum Nowhere {}

impl Listener for Nowhere {
    type Stream = DuplexStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match *self {}
    }

    async fn accept(&self) -> io::Result<(DuplexStream, SocketAddr)> {
        match *self {}
    }
}

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u8,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

/// Runs `xstack curl ARGUMENTS` in this process, over the kernel.
pub(crate) async fn curl(arguments: &[&str]) -> Outcome {
    curl_on(arguments, Buffer::default(), false, std::future::pending()).await
}

/// The same, with stdout and the signal as the test wants them.
pub(crate) async fn curl_on(
    arguments: &[&str],
    stdout: Buffer,
    terminal: bool,
    stop: impl Future<Output = Exit>,
) -> Outcome {
    run_over(Kernel, arguments, stdout, terminal, stop).await
}

/// The same, over any network.
pub(crate) async fn run_over<N: Transport>(
    network: N,
    arguments: &[&str],
    stdout: Buffer,
    terminal: bool,
    stop: impl Future<Output = Exit>,
) -> Outcome {
    let words = ["xstack", "curl"].iter().chain(arguments).map(OsString::from);
    let cli = match stack_user::cli::parse(words) {
        Ok(cli) => cli,
        Err(error) => {
            return Outcome { code: error.exit_code() as u8, stdout: vec![], stderr: error.to_string() };
        }
    };
    let stderr = Buffer::default();
    let diagnostics = Diagnostics::new(stderr.clone(), false);
    let verbose = arguments.contains(&"-v");
    let subscriber = logging::subscriber(&diagnostics, LevelFilter::WARN, verbose);
    let console = Console { output: Output::new(stdout.clone(), terminal), diagnostics };
    let exit = stack_user::cli::run(cli, console, async move |_: &_| Ok(network), stop)
        .with_subscriber(subscriber)
        .await;
    let stderr = String::from_utf8(stderr.bytes()).expect("stderr is text");
    Outcome { code: exit.code(), stdout: stdout.bytes(), stderr }
}

/// A buffer in place of stdout or stderr; its clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Buffer {
    pub(crate) bytes: Arc<Mutex<Vec<u8>>>,
    /// Fails with EPIPE from this length on.
    pub(crate) breaks_at: Option<usize>,
}

impl Buffer {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().expect("buffer").clone()
    }
}

impl Write for Buffer {
    fn write(&mut self, new: &[u8]) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().expect("buffer");
        if self.breaks_at.is_some_and(|limit| bytes.len() >= limit) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        bytes.extend_from_slice(new);
        Ok(new.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncWrite for Buffer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Write::write(&mut *self, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
