//! Runs of `xstack forward` and `xstack proxy` in this process, loopback being our side as well as the kernel's.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stack_user::cli::bench::Transport;
use stack_user::cli::console::{Console, Diagnostics, Output};
use stack_user::cli::error::Exit;
use stack_user::cli::kernel::KernelNetwork;
use stack_user::cli::logging;
use stack_user::cli::network::{ConnectError, Network, ResolveError};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;

/// Whatever takes longer is stuck.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// An address that swallows every SYN, in place of a host that is down.
pub(crate) const SILENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Loopback in place of our stack, with a few names that the kernel's resolver does not know.
pub(crate) struct Ours;

impl Network for Ours {
    type Stream = TcpStream;
    type Listener = TcpListener;

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        match host {
            "app.test" => Ok(vec![Ipv4Addr::LOCALHOST.into()]),
            "silent.test" => Ok(vec![SILENT.into()]),
            // Nobody listens on the first.
            "second-works.test" => Ok(vec![IpAddr::from([127, 0, 0, 99]), Ipv4Addr::LOCALHOST.into()]),
            "broken.test" => Err(ResolveError::Failed("no name server answered".into())),
            _ => Err(ResolveError::UnknownHost),
        }
    }

    async fn connect(&self, remote: SocketAddr) -> Result<TcpStream, ConnectError> {
        match remote.ip() {
            ip if ip == SILENT => std::future::pending().await,
            IpAddr::V6(_) => Err(ConnectError::FamilyUnsupported),
            ip if ip == Ipv4Addr::new(192, 0, 2, 2) => Err(ConnectError::Unreachable("no way".into())),
            IpAddr::V4(_) => KernelNetwork.connect(remote).await,
        }
    }

    async fn listen(&self, local: SocketAddr) -> io::Result<TcpListener> {
        KernelNetwork.listen(local).await
    }
}

impl Transport for Ours {
    type Datagrams = UdpSocket;

    async fn datagrams(&self, local: SocketAddr) -> io::Result<UdpSocket> {
        KernelNetwork.datagrams(local).await
    }
}

/// A command that runs until it is stopped.
pub(crate) struct Xstack {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<u8>>,
    stdout: Buffer,
    stderr: Buffer,
}

impl Xstack {
    /// Starts it, and waits until it says where it listens: on so many places.
    pub(crate) async fn start(arguments: &[&str], places: usize) -> Self {
        let mut running = Self::spawn(arguments);
        let since = Instant::now();
        while running.stdout.text().lines().count() < places {
            if running.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                panic!("{arguments:?} ended: {}", running.end().stderr);
            }
            assert!(since.elapsed() < SOON, "{arguments:?} does not listen");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running
    }

    /// Starts it, and waits for its end.
    pub(crate) fn fails(arguments: &[&str]) -> Outcome {
        Self::spawn(arguments).end()
    }

    fn spawn(arguments: &[&str]) -> Self {
        let words: Vec<_> = ["xstack"].iter().chain(arguments).map(OsString::from).collect();
        let (stdout, stderr) = (Buffer::default(), Buffer::default());
        let (output, complaints) = (stdout.clone(), stderr.clone());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(words, output, complaints, stopped))
        });
        Self { stop: Some(stop), thread: Some(thread), stdout, stderr }
    }

    /// The address of the place that it told so many lines down.
    pub(crate) fn address(&self, line: usize) -> SocketAddr {
        let told = self.stdout.text();
        let place = told.lines().nth(line).unwrap().split(' ').next().unwrap();
        place.split_once(':').unwrap().1.parse().unwrap()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address(0)).await.unwrap()
    }

    /// What it has printed so far.
    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has complained about so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Tells it to stop, as a signal would, and waits for its end.
    pub(crate) fn stop(mut self) -> Outcome {
        let _ = self.stop.take().unwrap().send(());
        self.end()
    }

    fn end(&mut self) -> Outcome {
        let code = self.thread.take().unwrap().join().unwrap();
        Outcome { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

async fn run(words: Vec<OsString>, output: Buffer, complaints: Buffer, stopped: oneshot::Receiver<()>) -> u8 {
    let verbose = words.iter().any(|word| word == "-v");
    let cli = match stack_user::cli::parse(words) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = write!(complaints.clone(), "{error}");
            return error.exit_code() as u8;
        }
    };
    let diagnostics = Diagnostics::new(complaints, false);
    let subscriber = logging::subscriber(&diagnostics, LevelFilter::WARN, verbose);
    // Connections are served by tasks of their own, which have no other subscriber than the thread's.
    let _default = tracing::subscriber::set_default(subscriber);
    let console = Console { output: Output::new(output, false), diagnostics };
    let stop = async {
        match stopped.await {
            Ok(()) => Exit::Terminated,
            Err(_) => std::future::pending().await,
        }
    };
    stack_user::cli::run(cli, console, async |_: &_| Ok(Ours), stop).with_current_subscriber().await.code()
}

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u8,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A buffer in place of stdout or stderr; its clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, new: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(new);
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

/// A server on loopback that sends back what it gets, and its end after that. Each connection begins with `greeting`.
pub(crate) async fn echo(greeting: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(greeting).await;
                let (mut reader, mut writer) = stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.shutdown().await;
            });
        }
    });
    address
}

/// A port of loopback on which nobody listens.
pub(crate) async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Sends, ends, and reads to the end of the answer.
pub(crate) async fn exchange<S>(mut stream: S, send: &[u8]) -> io::Result<Vec<u8>>
where
    S: tokio::io::AsyncRead + AsyncWrite + Unpin,
{
    let exchange = async {
        stream.write_all(send).await?;
        stream.shutdown().await?;
        let mut got = Vec::new();
        stream.read_to_end(&mut got).await?;
        Ok(got)
    };
    tokio::time::timeout(SOON, exchange).await.expect("an answer in time")
}
