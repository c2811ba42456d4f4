//! A TCP connection as tokio sees one.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::Handle,
};

use super::{
    Stack,
    options::Linger,
    shards::Home,
    split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, WriteHalf},
    turns::{most_at_once, step},
};
use crate::{
    runtime::Core,
    stack::TcpId,
    tcp::{self, Config, Connection},
    time::Instant,
};

/// How much of a buffer that nobody has written to is made ready for the first bytes, as a `ReadBuf` must be: a frame's worth or
/// two. Less, and what came is read in more steps; more, and who asks for a request's few bytes with room for many has zeros
/// written to all of it each time.
const READ_STEP: usize = 2048;

/// A TCP connection: what `tokio::net::TcpStream` is to the kernel's stack.
///
/// Reading copies once, from the frames that arrived to the caller's buffer; writing copies once, into the frame that
/// is sent and retransmitted from. Dropping the stream closes the connection in order: what was written is still
/// delivered, and the stack keeps the connection until its peer has confirmed that; [`close`](Self::close) waits for it.
///
/// Several tasks may wait for one stream; all of them are woken.
#[derive(Debug)]
pub struct TcpStream {
    /// Where the connection is, for all its life.
    stack: Home,
    id: TcpId,
    local: SocketAddr,
    remote: SocketAddr,
    linger: Linger,
}

impl TcpStream {
    /// Opens a connection to `remote`.
    ///
    /// Cancel safe: dropping the future aborts the attempt.
    ///
    /// # Errors
    /// `ConnectionRefused`, `HostUnreachable`, `NetworkUnreachable`, `TimedOut`, `ConnectionReset`;
    /// `AddrNotAvailable` when all ports to this peer are in use, or the stack has lost its address; `InvalidInput` when
    /// `remote` is not one host and port; why the stack stopped, if it did.
    pub async fn connect(stack: &Stack, remote: SocketAddr) -> io::Result<Self> {
        let stack = stack.next_home();
        let (id, local) = stack.shard().with(|core, now| {
            core.running()?;
            io::Result::Ok(core.stack.tcp_connect(now, remote)?)
        })?;
        Self { stack, id, local, remote, linger: Linger::default() }.connected().await
    }

    /// Opens a connection from a chosen local end.
    pub(super) async fn connect_from(
        stack: Stack,
        local: Option<SocketAddr>,
        remote: SocketAddr,
        config: Config,
        linger: Linger,
    ) -> io::Result<Self> {
        let stack = local.map_or_else(|| stack.next_home(), |local| stack.home_for(local, remote));
        let (id, local) = stack.shard().with(|core, now| {
            core.running()?;
            io::Result::Ok(core.stack.tcp_connect_with(now, local, remote, Some(&config))?)
        })?;
        Self { stack, id, local, remote, linger }.connected().await
    }

    /// Waits for the handshake.
    async fn connected(self) -> io::Result<Self> {
        let stream = self;
        poll_fn(|cx| stream.poll_connected(cx)).await?;
        Ok(stream)
    }

    /// A connection that a listener has accepted.
    pub(super) fn accepted(
        stack: Home,
        id: TcpId,
        local: SocketAddr,
        remote: SocketAddr,
        linger: Linger,
    ) -> Self {
        Self { stack, id, local, remote, linger }
    }

    /// Our end's address. It needs no `io::Result`, as tokio's does: a stream knows its ends for all its life.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The peer's address.
    pub fn peer_addr(&self) -> SocketAddr {
        self.remote
    }

    /// Where the driver of its shard runs. Its tasks are best run there, too, if that is a runtime of one thread (see
    /// [`Builder::drivers`](super::Builder::drivers)): they then never wait for the shard, nor does the shard for them.
    pub fn runtime(&self) -> Handle {
        self.home().driver().clone()
    }

    /// One half to read and one to write, for as long as the stream is borrowed.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// One half to read and one to write, for two tasks. Dropping the half that writes closes our direction, as
    /// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) does; the stream is closed with the second of them.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let stream = Arc::new(self);
        (OwnedReadHalf::new(Arc::clone(&stream)), OwnedWriteHalf::new(stream))
    }

    fn poll_connected(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.stack.shard().with(|core, _| {
            core.running()?;
            let Some(connection) = core.stack.tcp(self.id) else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            if let Some(error) = connection.error() {
                return Poll::Ready(Err(error.into()));
            }
            if connection.state().is_synchronized() {
                return Poll::Ready(Ok(()));
            }
            core.waiters.wait_to_write(self.id, cx);
            Poll::Pending
        })
    }
}

/// The protocols of a shard.
pub(super) type Protocols = crate::stack::Stack<crate::device::Umem>;

/// What streams and their halves have in common: all take the stream by a shared reference.
impl TcpStream {
    /// Works on the connection.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Core, Instant, TcpId) -> T) -> T {
        self.stack.shard().with(|core, now| work(core, now, self.id))
    }

    /// Looks at the connection.
    ///
    /// # Errors
    /// Why the stack stopped, if it did; `NotConnected` when the connection has ended.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Connection) -> T) -> io::Result<T> {
        self.with(|core, _, id| match core.stack.tcp(id) {
            Some(connection) => Ok(look(&connection)),
            None => Err(core.running().map_or_else(io::Error::from, |()| io::ErrorKind::NotConnected.into())),
        })
    }

    pub(super) fn linger_time(&self) -> &Linger {
        &self.linger
    }

    /// Reads by `read`: a [step] of the task. Without a context nobody is woken.
    pub(super) fn poll_input(
        &self,
        cx: Option<&Context<'_>>,
        read: impl FnOnce(&mut Protocols, Instant, TcpId) -> Result<usize, tcp::ReadError>,
    ) -> Poll<io::Result<usize>> {
        step(cx, || {
            self.stack.shard().with(|core, now| match read(&mut core.stack, now, self.id) {
                Ok(read) => Poll::Ready(Ok(read)),
                Err(_) if let Err(stopped) = core.running() => Poll::Ready(Err(stopped.into())),
                Err(tcp::ReadError::WouldBlock) => {
                    if let Some(cx) = cx {
                        core.waiters.wait_to_read(self.id, cx);
                    }
                    Poll::Pending
                }
                Err(error) => Poll::Ready(Err(error.into())),
            })
        })
    }

    /// Writes by `write`: a step of the task. Without a context nobody is woken.
    pub(super) fn poll_output(
        &self,
        cx: Option<&Context<'_>>,
        write: impl FnOnce(&mut Protocols, Instant, TcpId) -> Result<usize, tcp::WriteError>,
    ) -> Poll<io::Result<usize>> {
        step(cx, || {
            self.stack.shard().with(|core, now| {
                core.running()?;
                match write(&mut core.stack, now, self.id) {
                    Ok(written) => Poll::Ready(Ok(written)),
                    Err(tcp::WriteError::WouldBlock) => {
                        if let Some(cx) = cx {
                            core.waiters.wait_to_write(self.id, cx);
                        }
                        Poll::Pending
                    }
                    Err(error) => Poll::Ready(Err(error.into())),
                }
            })
        })
    }

    pub(super) fn poll_read_shared(&self, cx: &Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let read = self.poll_input(Some(cx), |stack, now, id| {
            let (mut sum, mut step) = (0, READ_STEP);
            while buf.remaining() > 0 {
                let initialized = buf.initialized().len() - buf.filled().len();
                let wanted = step.max(initialized).min(buf.remaining());
                let read = match stack.tcp_read(now, id, buf.initialize_unfilled_to(wanted)) {
                    Err(error) if sum == 0 => return Err(error),
                    // What was read counts; the next call tells of the error.
                    read => read.unwrap_or(0),
                };
                buf.advance(read);
                sum += read;
                if read < wanted {
                    break;
                }
                step *= 4;
            }
            Ok(sum)
        });
        read.map_ok(|_| ())
    }

    /// As much of the buffer as one call [takes](most_at_once). Without a context nobody is woken.
    pub(super) fn poll_write_buf(&self, cx: Option<&Context<'_>>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_output(cx, |stack, now, id| {
            let most = most_at_once(stack, id, buf.len());
            stack.tcp_write(now, id, &buf[..most])
        })
    }

    /// All buffers in one go, so that they share segments, or as much of them as one call takes. Without a context nobody is woken.
    pub(super) fn poll_write_bufs(
        &self,
        cx: Option<&Context<'_>>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_output(cx, |stack, now, id| {
            let most = most_at_once(stack, id, bufs.iter().map(|buf| buf.len()).sum());
            let mut written = 0;
            for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
                let n = match stack.tcp_write(now, id, &buf[..buf.len().min(most - written)]) {
                    Err(error) if written == 0 => return Err(error),
                    // What was written counts; the next call tells of the error.
                    result => result.unwrap_or(0),
                };
                written += n;
                if n < buf.len() || written == most {
                    break;
                }
            }
            Ok(written)
        })
    }

    pub(super) fn commit(&self, reserved: tcp::Reserved, len: usize) -> io::Result<()> {
        self.stack.shard().with(|core, _| {
            let committed = core.stack.tcp_commit(self.id, reserved, len);
            core.running()?;
            Ok(committed?)
        })
    }

    pub(super) fn home(&self) -> &Home {
        &self.stack
    }

    pub(super) fn shut_down_write(&self) -> io::Result<()> {
        self.stack.shard().with(|core, now| {
            core.running()?;
            core.stack.tcp_shutdown_write(now, self.id);
            Ok(())
        })
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_shared(cx, buf)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_buf(Some(cx), buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_bufs(Some(cx), bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing to do: what was written is on its way already, as far as the windows allow.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Closes our direction: the peer reads the end of the stream after what was written.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down_write())
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let waited = self.stack.shard().with(|core, now| {
            core.stack.tcp_close(now, self.id);
            core.waiters.forget_tcp(self.id)
        });
        drop(waited);
    }
}
