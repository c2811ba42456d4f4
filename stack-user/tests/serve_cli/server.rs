//! A run of `xstack serve` over the kernel's loopback, and a client that sends exactly what a test says.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use stack_user::cli::console::{Console, Diagnostics, Output};
use stack_user::cli::error::Exit;
use stack_user::cli::kernel::KernelNetwork;
use stack_user::cli::logging;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;

/// Far more than anything here takes, also on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A server that runs until it is stopped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stdout: Buffer,
    pub(crate) stderr: Buffer,
    stop: Option<oneshot::Sender<Exit>>,
    running: JoinHandle<Exit>,
    _told: DefaultGuard,
}

impl Server {
    /// Serves `directory`, and returns once the server has said where.
    pub(crate) async fn start(directory: &Path, options: &[&str]) -> Self {
        let (stdout, stderr) = (Buffer::default(), Buffer::default());
        let (stop, stopped) = oneshot::channel();
        let words = ["xstack", "serve", "--listen", "127.0.0.1:0"].iter().chain(options).map(OsString::from);
        let words: Vec<_> = words.chain([directory.as_os_str().to_owned()]).collect();
        let (out, err) = (stdout.clone(), stderr.clone());
        // For all tasks of the test, which run on this thread: a server's connections are tasks of their own.
        let diagnostics = Diagnostics::new(stderr.clone(), false);
        let subscriber = logging::subscriber(&diagnostics, LevelFilter::WARN, options.contains(&"-v"));
        let told = tracing::subscriber::set_default(subscriber);
        let running = tokio::spawn(async move {
            run(words, out, err, async { stopped.await.unwrap_or(Exit::Terminated) }).await
        });
        let address = timeout(LONG, async {
            loop {
                let said = stderr.text();
                let host = said.split("://").nth(1).and_then(|rest| rest.split_once('/'));
                if let Some((host, _)) = host {
                    return host.parse().unwrap();
                }
                assert!(!running.is_finished(), "ended at once: {said}");
                sleep(Duration::from_millis(2)).await;
            }
        });
        let address = address.await.unwrap();
        Self { address, stdout, stderr, stop: Some(stop), running, _told: told }
    }

    /// Asks it to stop, as a signal does.
    pub(crate) fn stop(&mut self) {
        self.stop.take().unwrap().send(Exit::Terminated).unwrap();
    }

    /// Waits for its end.
    pub(crate) async fn ended(self) -> u8 {
        timeout(LONG, self.running).await.expect("must end").unwrap().code()
    }

    /// Stops it and waits.
    pub(crate) async fn finish(mut self) -> u8 {
        self.stop();
        self.ended().await
    }

    /// A connection.
    pub(crate) async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), buffer: Vec::new() }
    }

    /// What one request, on a connection of its own, is answered; `head` is what stands before the empty line.
    pub(crate) async fn ask(&self, head: &str) -> Answer {
        let mut client = self.connect().await;
        client.send(&format!("{head}\r\n\r\n")).await;
        let method = head.split(' ').next().unwrap();
        client.answer(method == "HEAD").await
    }

    /// A GET with these headers, each with its line end.
    pub(crate) async fn get(&self, path: &str, headers: &str) -> Answer {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{headers}").trim_end()).await
    }

    /// Waits until the server's stderr has `text`.
    pub(crate) async fn says(&self, text: &str) {
        let said = timeout(LONG, async {
            while !self.stderr.text().contains(text) {
                sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(said.await.is_ok(), "{text:?} is not in: {}", self.stderr.text());
    }
}

/// Runs a command line to its end.
pub(crate) async fn run(
    words: Vec<OsString>,
    stdout: Buffer,
    stderr: Buffer,
    stop: impl Future<Output = Exit>,
) -> Exit {
    let cli = stack_user::cli::parse(words).unwrap();
    let console =
        Console { output: Output::new(stdout, false), diagnostics: Diagnostics::new(stderr, false) };
    stack_user::cli::run(cli, console, async |_: &_| Ok(KernelNetwork), stop).await
}

/// One connection of a client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A header's value, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The next response, whole.
    pub(crate) async fn answer(&mut self, is_head: bool) -> Answer {
        timeout(LONG, self.read_answer(is_head)).await.expect("an answer in time").expect("an answer")
    }

    /// What is left until the end, or the error that it ends with.
    pub(crate) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.buffer);
        timeout(LONG, self.stream.read_to_end(&mut rest)).await.expect("must end")?;
        Ok(rest)
    }

    async fn read_answer(&mut self, is_head: bool) -> io::Result<Answer> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end);
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HashMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if is_head || status == 304 {
            return Ok(answer);
        }
        if answer.header("transfer-encoding") == "chunked" {
            loop {
                let line = self.line().await?;
                let length = usize::from_str_radix(&line, 16).unwrap();
                answer.body.extend(self.exactly(length).await?);
                self.exactly(2).await?;
                if length == 0 {
                    return Ok(answer);
                }
            }
        }
        let length = answer.header("content-length").parse().expect("a length");
        answer.body = self.exactly(length).await?;
        Ok(answer)
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Ok(line);
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.more().await?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// A directory with a bit of everything.
pub(crate) fn site() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(root.path().join(name), bytes).unwrap();
    for directory in ["sub", "sub/deep", "indexed", ".git", "a b&c"] {
        std::fs::create_dir(root.path().join(directory)).unwrap();
    }
    write("digits.bin", b"0123456789");
    write("page.html", b"<p>page</p>\n");
    write("empty.txt", b"");
    write("long.txt", "a line that repeats\n".repeat(1000).as_bytes());
    write("picture.jpg", &[0; 5000]);
    write("ready.css", b"plain");
    write("ready.css.gz", &gzip(b"plain"));
    write("sub/file.txt", b"in sub\n");
    write("indexed/index.html", b"<p>index</p>\n");
    write(".git/config", b"secret");
    write(".env", b"secret");
    write("a b&c/<x>?#%.txt", b"odd");
    root
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut plain).unwrap();
    plain
}

/// A buffer in place of stdout or stderr; its clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    pub(crate) fn text(&self) -> String {
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
